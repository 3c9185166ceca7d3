//! Whole models of every layer, with dropout: what holds of a run whatever it is made of.

use std::collections::HashMap;

use super::layers::{
    by_name, classed, dropping, images, images_of, inputs, pooled, sequences, sequences_of, stir,
    wide, without_batch_norm,
};
use super::*;
use crate::graph::Purpose;

const STEPS: u32 = 10;
const BATCH: u32 = 6;

fn models() -> [ModelSpec; 3] {
    [images(), sequences(), pooled()].map(dropping)
}

/// AdamW and SGD with momentum, plain, and with what changes a rate or a gradient.
fn rules() -> Vec<TrainSpec> {
    let cosine = Schedule::Cosine {
        warmup_steps: 2,
        decay_steps: 8,
        min_lr: 1e-4,
    };
    let both = |plain: TrainSpec| {
        let shaped = TrainSpec {
            schedule: cosine,
            clip_norm: Some(0.5),
            ..plain.clone()
        };
        [plain, shaped]
    };
    [adamw(), sgd(0.9)].into_iter().flat_map(both).collect()
}

/// The batch of a step: another each time.
fn rows(step: u32, samples: usize) -> Vec<u32> {
    let row = |index| (step * 5 + index * 7) % samples as u32;
    (0..BATCH).map(row).collect()
}

fn run(session: &mut Session, data: &Samples, steps: std::ops::Range<u32>) {
    steps.for_each(|number| step(session, data, &rows(number, data.len())));
}

#[test]
fn steps_of_every_layer_have_the_same_bits_on_any_number_of_threads() {
    // Large enough that every kind of kernel divides its work.
    let large = [images_of(27, 22), sequences_of(24, 24)].map(dropping);
    for (model, count) in large
        .iter()
        .map(|model| (model, 24))
        .chain([(&models()[2], 9)])
    {
        let data = classed(model, count);
        let fingerprint = |threads| {
            let mut session = Session::with_threads(model, &adamw(), threads).unwrap();
            (0..STEPS).for_each(|_| step(&mut session, &data, &all(&data)));
            session.fingerprint()
        };
        let one = fingerprint(1);
        for threads in [2, 3, 7] {
            assert_eq!(fingerprint(threads), one, "{threads} threads");
        }
    }
}

#[test]
fn a_checkpoint_in_the_middle_changes_no_bit() {
    for (model, rule) in models()
        .iter()
        .flat_map(|model| rules().into_iter().map(move |rule| (model, rule)))
    {
        let data = classed(model, 16);
        let mut whole = Session::with_threads(model, &rule, 2).unwrap();
        run(&mut whole, &data, 0..4);
        let checkpoint = whole.checkpoint();
        run(&mut whole, &data, 4..STEPS);
        let mut resumed = Session::with_threads(model, &rule, 3).unwrap();
        // Its buffers are not those of a new one.
        run(&mut resumed, &data, 7..9);
        resumed.grad_step(&data, &[3, 2], &mut |_| ()).unwrap();
        resumed.restore(&checkpoint).unwrap();
        run(&mut resumed, &data, 4..STEPS);
        assert_eq!(resumed.step(), u64::from(STEPS));
        assert_eq!(resumed.fingerprint(), whole.fingerprint(), "{rule:?}");
    }
}

#[test]
fn an_export_is_evaluated_as_in_plain_loops() {
    for model in models() {
        let data = classed(&model, 16);
        let mut session = Session::with_threads(&model, &adamw(), 2).unwrap();
        stir(&mut session);
        // Running variances are none where they were stirred below 0.
        run(&mut session, &data, 0..5);
        let start = |name: &str| name.ends_with("running_var");
        let mut at = 0;
        for parameter in model.parameters() {
            if start(&parameter.name) {
                let own = &mut session.committed.parameters[at..at + parameter.len()];
                own.iter_mut().for_each(|v| *v = v.abs() + 0.1);
            }
            at += parameter.len();
        }
        let trained = Model::load(&model, &session.export(&BTreeMap::new())).unwrap();
        let inputs = inputs(&model, 16);
        let mut labels = Vec::new();
        data.labels_of(&all(&data), &mut labels);
        let parameters = by_name(&model, &wide(session.parameters()));
        let outputs = naive::outputs(&model, &inputs, &parameters, Purpose::Use);
        let loss = naive::loss_of(&model, &outputs, &labels, &[]) / 16.0;
        let best = outputs.values.chunks(outputs.last()).map(|row| {
            let largest = row.iter().copied().fold(f64::MIN, f64::max);
            row.iter().position(|v| *v == largest).unwrap() as u32
        });
        let right = best.zip(&labels).filter(|(best, label)| best == *label);
        let accuracy = right.count() as f64 / labels.len() as f64;
        let got = trained.evaluate(&data).unwrap();
        assert!((got.loss - loss).abs() < 1e-4, "{} for {loss}", got.loss);
        assert_eq!(got.accuracy, Some(accuracy));
        assert_eq!(got.samples, 16);
    }
}

/// The mean of the running value and the batch's, one to nine: PyTorch's momentum of 0.1.
#[test]
fn running_statistics_are_those_of_plain_loops() {
    // What drops comes after both norms.
    let model = dropping(images());
    let norms = [(2, "layers.2.0"), (7, "layers.7")];
    let data = classed(&model, 16);
    let mut session = Session::with_threads(&model, &adamw(), 2).unwrap();
    let mut expected: HashMap<String, Vec<f64>> = HashMap::new();
    for number in 0..4 {
        let parameters = by_name(&model, &wide(session.parameters()));
        let rows = rows(number, 16);
        let mut inputs = Vec::new();
        data.inputs_of(&rows, &mut inputs).unwrap();
        for (before, norm) in norms {
            let below = ModelSpec {
                layers: model.layers[..before].to_vec(),
                ..model.clone()
            };
            let seen = naive::outputs(&below, &inputs, &parameters, Purpose::Training);
            for channel in 0..seen.shape[0] {
                let moments = naive::channel_moments(&seen, channel, 1.0);
                let names = [("running_mean", 0.0), ("running_var", 1.0)];
                for ((name, first), new) in names.into_iter().zip(moments) {
                    let running = expected.entry(format!("{norm}.{name}")).or_default();
                    if running.len() == channel {
                        running.push(first);
                    }
                    running[channel] = 0.9 * running[channel] + 0.1 * new;
                }
            }
        }
        step(&mut session, &data, &rows);
    }
    let got = by_name(&model, &wide(session.parameters()));
    assert_eq!(expected.len(), 4);
    for (name, want) in expected {
        for (got, want) in got[&name].iter().zip(&want) {
            assert!((got - want).abs() < 1e-5, "{name}: {got} for {want}");
        }
    }
}

/// What is dropped follows from seed, tensor, step and sample: whoever has a sample drops the same of it.
#[test]
fn gradients_of_shares_sum_to_that_of_the_batch_with_dropout() {
    for model in models().map(without_batch_norm) {
        let data = classed(&model, 12);
        let mut session = Session::with_threads(&model, &adamw(), 2).unwrap();
        stir(&mut session);
        run(&mut session, &data, 0..2);
        let batch = [3, 11, 0, 7, 4, 8, 1];
        let (whole_loss, whole) = gradients(&mut session, &data, &batch);
        let (mut loss, mut sum) = (0.0, vec![0.0; whole.len()]);
        // In another order, and each by a member of its own.
        for share in [&[7, 3][..], &[], &[1, 8, 4], &[0], &[11]] {
            let mut member = Session::with_threads(&model, &adamw(), 1).unwrap();
            member.restore(&session.checkpoint()).unwrap();
            let (part_loss, part) = gradients(&mut member, &data, share);
            loss += part_loss;
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        assert!((loss - whole_loss).abs() < 1e-5 * whole_loss);
        assert_close(&sum, &whole, 1e-5);
    }
}

#[test]
fn another_step_or_seed_drops_others() {
    for model in models() {
        let data = classed(&model, 12);
        let of = |seed, number| {
            let train = TrainSpec { seed, ..adamw() };
            let mut session = Session::with_threads(&model, &train, 1).unwrap();
            session.committed.parameters = crate::initial::parameters(&model, 1);
            session.committed.step = number;
            gradients(&mut session, &data, &all(&data))
        };
        assert_eq!(of(1, 0), of(1, 0));
        assert_ne!(of(1, 0), of(1, 1));
        assert_ne!(of(1, 0), of(2, 0));
    }
}
