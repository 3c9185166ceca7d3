use cryptomind_protocol::model::{Layer, Loss};
use cryptomind_protocol::task::{DecayGroup, Optimizer, Schedule, Split};

use super::*;
use crate::inference::Model;
use crate::random::Stream;

mod golden;
pub(crate) mod layers;
mod memory;
mod naive;
mod oracle;
mod partwise;
mod refusal;
mod whole;

fn linear(out: u32) -> Layer {
    Layer::linear(out)
}

fn model(input: u32, layers: &[Layer]) -> ModelSpec {
    ModelSpec {
        input: vec![input],
        layers: layers.to_vec(),
        loss: Loss::default(),
    }
}

/// Every kind of layer, activations before, between and after linear layers.
fn mixed() -> ModelSpec {
    let layers = [
        Layer::Tanh {},
        linear(9),
        Layer::Relu {},
        linear(7),
        Layer::Tanh {},
        Layer::Relu {},
        linear(4),
    ];
    model(6, &layers)
}

fn train(optimizer: Optimizer, seed: u64) -> TrainSpec {
    TrainSpec {
        epochs: 30,
        global_batch: 32,
        optimizer,
        seed,
        checkpoint_steps: 10,
        ..TrainSpec::default()
    }
}

pub(crate) fn adamw() -> TrainSpec {
    train(Optimizer::adamw(1e-3), 5)
}

fn sgd(momentum: f32) -> TrainSpec {
    train(Optimizer::sgd(0.1, momentum), 5)
}

/// Every optimizer with every schedule, which turns within a few steps.
fn every_rule() -> Vec<TrainSpec> {
    let nesterov = Optimizer::Sgd {
        lr: 0.1,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 0.01,
    };
    let optimizers = [
        Optimizer::adamw(1e-3),
        Optimizer::adam(1e-3),
        Optimizer::sgd(0.1, 0.0),
        Optimizer::sgd(0.1, 0.9),
        nesterov,
    ];
    let cosine = Schedule::Cosine {
        warmup_steps: 3,
        decay_steps: 10,
        min_lr: 1e-4,
    };
    let falls = Schedule::Step {
        every_steps: 4,
        factor: 0.5,
    };
    let mut rules = Vec::new();
    for optimizer in optimizers {
        let plain = train(optimizer, 5);
        rules.extend([cosine, falls].map(|schedule| TrainSpec {
            schedule,
            clip_norm: Some(0.5),
            decay: DecayGroup::Matrices,
            ..plain.clone()
        }));
        rules.push(plain);
    }
    rules
}

/// Random inputs and labels.
fn drawn(count: usize, input_len: usize, classes: usize) -> (Vec<f32>, Vec<u32>) {
    let mut stream = Stream::new("test", 9, "samples");
    let inputs = (0..count * input_len)
        .map(|_| stream.signed_unit())
        .collect();
    let label = |_| stream.below(classes as u64) as u32;
    (inputs, (0..count).map(label).collect())
}

fn samples(count: usize, input_len: usize, classes: usize) -> Samples {
    let (inputs, labels) = drawn(count, input_len, classes);
    Samples::labelled(inputs, labels, input_len, classes)
}

/// Samples of this model with these labels: of a sequence, one a token.
fn batch(model: &ModelSpec, inputs: &[f32], labels: &[u32]) -> Samples {
    let classes = model.output_len().unwrap();
    Samples::labelled(inputs.to_vec(), labels.to_vec(), model.input_len(), classes)
}

fn all(data: &Samples) -> Vec<u32> {
    (0..data.len() as u32).collect()
}

fn gradients(session: &mut Session, data: &Samples, batch: &[u32]) -> (f64, Vec<f32>) {
    let loss = session.grad_step(data, batch, &mut |_| ()).unwrap();
    (loss, session.gradients().to_vec())
}

fn step(session: &mut Session, data: &Samples, batch: &[u32]) {
    session.grad_step(data, batch, &mut |_| ()).unwrap();
    session.apply(batch.len() as u32).unwrap();
    session.commit();
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (place, (g, w)) in got.iter().zip(want).enumerate() {
        let off = (g - w).abs() / w.abs().max(1.0);
        assert!(off <= tolerance, "at {place}: {g} for {w}");
    }
}

#[test]
fn buckets_come_last_layer_first_and_cover_the_arena() {
    let data = samples(5, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    for batch in [&all(&data)[..], &[]] {
        let mut buckets = Vec::new();
        session
            .grad_step(&data, batch, &mut |bucket| buckets.push(bucket.range))
            .unwrap();
        buckets.reverse();
        assert_eq!(buckets, [0..63, 63..133, 133..165]);
    }
    assert_eq!(session.parameter_count(), 165);
}

#[test]
fn an_empty_batch_gives_zeros_and_can_be_applied() {
    let data = samples(5, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    session.gradients().fill(f32::NAN);
    assert_eq!(gradients(&mut session, &data, &[]), (0.0, vec![0.0; 165]));
    session.apply(3).unwrap();
}

#[test]
fn gradients_of_shares_sum_to_that_of_the_batch() {
    let data = samples(32, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    let (whole_loss, whole) = gradients(&mut session, &data, &all(&data));
    let mut sum = vec![0.0; whole.len()];
    let mut loss = 0.0;
    for share in [0..11, 11..22, 22..32] {
        let (part_loss, part) = gradients(&mut session, &data, &share.collect::<Vec<_>>());
        loss += part_loss;
        sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
    }
    assert!((loss - whole_loss).abs() < 1e-5);
    assert_close(&sum, &whole, 1e-5);
}

#[test]
fn a_discarded_step_can_be_redone_bit_by_bit() {
    for spec in every_rule() {
        let data = samples(40, 6, 4);
        let mut session = Session::new(&mixed(), &spec).unwrap();
        step(&mut session, &data, &[1, 2, 3]);
        let before = session.fingerprint();
        session.grad_step(&data, &[4, 5, 6], &mut |_| ()).unwrap();
        session.apply(3).unwrap();
        assert!(session.is_prepared());
        assert_eq!((session.step(), session.fingerprint()), (1, before));
        session.discard();
        assert!(!session.is_prepared());
        assert_eq!((session.step(), session.fingerprint()), (1, before));
        step(&mut session, &data, &[7, 8]);
        let mut straight = Session::new(&mixed(), &spec).unwrap();
        step(&mut straight, &data, &[1, 2, 3]);
        assert_eq!(straight.fingerprint(), before);
        step(&mut straight, &data, &[7, 8]);
        assert_eq!(session.fingerprint(), straight.fingerprint());
        assert_eq!(session.step(), 2);
    }
}

#[test]
fn roots_are_of_the_step_that_is_prepared() {
    let data = samples(40, 6, 4);
    let spec = every_rule().remove(0);
    let roots = |threads, batch: &[u32]| {
        let mut session = Session::with_threads(&mixed(), &spec, threads).unwrap();
        assert_eq!(session.prepared_roots(), None);
        session.grad_step(&data, batch, &mut |_| ()).unwrap();
        assert_eq!(session.prepared_roots(), None);
        session.apply(batch.len() as u32).unwrap();
        let roots = session.prepared_roots().unwrap();
        assert_eq!(roots.gradients, root(&session.gradients, 1));
        session.commit();
        assert_eq!(roots.parameters, root(session.parameters(), 1));
        assert_eq!(session.prepared_roots(), None);
        roots
    };
    let (one, other) = (roots(1, &[1, 2, 3]), roots(1, &[1, 2, 4]));
    assert_eq!(roots(2, &[1, 2, 3]), one);
    assert_ne!(one.gradients, other.gradients);
    assert_ne!(one.parameters, other.parameters);
}

#[test]
fn a_restored_checkpoint_goes_on_with_the_same_bits() {
    for spec in every_rule() {
        let data = samples(40, 6, 4);
        let mut whole = Session::new(&mixed(), &spec).unwrap();
        (0..7).for_each(|i| step(&mut whole, &data, &[i, i + 1, i + 2]));
        let checkpoint = whole.checkpoint();
        let other_seed = TrainSpec { seed: 99, ..spec };
        let mut resumed = Session::new(&mixed(), &other_seed).unwrap();
        resumed.restore(&checkpoint).unwrap();
        assert_eq!(resumed.step(), 7);
        assert_eq!(resumed.fingerprint(), whole.fingerprint());
        assert_eq!(resumed.checkpoint(), checkpoint);
        for session in [&mut whole, &mut resumed] {
            (7..14).for_each(|i| step(session, &data, &[i, i + 1, i + 2]));
        }
        assert_eq!(resumed.fingerprint(), whole.fingerprint());
    }
}

/// The rate follows the committed steps, whoever did them.
#[test]
fn a_restored_checkpoint_goes_on_at_the_same_rate() {
    let data = samples(40, 6, 4);
    for spec in every_rule() {
        let mut session = Session::new(&mixed(), &spec).unwrap();
        let mut rates = Vec::new();
        let mut checkpoints = Vec::new();
        for _ in 0..12 {
            rates.push(session.learning_rate());
            checkpoints.push(session.checkpoint());
            step(&mut session, &data, &[1, 2, 3]);
        }
        for (rate, checkpoint) in rates.iter().zip(&checkpoints) {
            session.restore(checkpoint).unwrap();
            assert_eq!(session.learning_rate(), *rate);
        }
        let moves = spec.schedule != Schedule::Constant;
        assert_eq!(rates[0] != rates[11], moves, "{rates:?}");
    }
}

/// The first step, whose gradients are the same with every group.
#[test]
fn matrices_decay_and_biases_need_not() {
    let data = samples(40, 6, 4);
    let after = |decay, weight_decay| {
        let optimizer = Optimizer::Sgd {
            lr: 0.1,
            momentum: 0.0,
            nesterov: false,
            weight_decay,
        };
        let spec = TrainSpec {
            decay,
            ..train(optimizer, 5)
        };
        let mut session = Session::new(&mixed(), &spec).unwrap();
        step(&mut session, &data, &[1, 2, 3]);
        session.parameters().to_vec()
    };
    let none = after(DecayGroup::All, 0.0);
    let all = after(DecayGroup::All, 0.1);
    let matrices = after(DecayGroup::Matrices, 0.1);
    let (bias, weight) = (0..9, 9..63);
    assert_eq!(matrices[bias.clone()], none[bias.clone()]);
    assert_ne!(all[bias.clone()], none[bias]);
    assert_eq!(matrices[weight.clone()], all[weight.clone()]);
    assert_ne!(all[weight.clone()], none[weight]);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let layers = [
        linear(512),
        Layer::Relu {},
        linear(300),
        Layer::Tanh {},
        linear(10),
    ];
    let data = samples(130, 200, 10);
    let clipped = TrainSpec {
        clip_norm: Some(1e-2),
        decay: DecayGroup::Matrices,
        ..sgd(0.9)
    };
    for spec in [adamw(), clipped] {
        let run = |threads| {
            let model = model(200, &layers);
            let mut session = Session::with_threads(&model, &spec, threads).unwrap();
            (0..3).for_each(|_| step(&mut session, &data, &all(&data)));
            session.fingerprint()
        };
        let one = run(1);
        for threads in [2, 3, 7, 8] {
            assert_eq!(run(threads), one, "{threads} threads");
        }
    }
}

#[test]
fn calls_out_of_order_are_refused_and_change_nothing() {
    let data = samples(5, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    let before = session.fingerprint();
    let order = |result: Result<(), EngineError>| {
        assert!(matches!(result, Err(EngineError::Order(_))), "{result:?}");
    };
    order(session.apply(1));
    session.commit();
    session.grad_step(&data, &[0], &mut |_| ()).unwrap();
    order(session.apply(0));
    session.apply(1).unwrap();
    order(session.apply(1));
    order(session.grad_step(&data, &[0], &mut |_| ()).map(|_| ()));
    session.discard();
    order(session.apply(1));
    assert_eq!(session.fingerprint(), before);
}

#[test]
fn samples_that_do_not_fit_are_refused() {
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    let good = samples(5, 6, 4);
    let refused = |session: &mut Session, data: &Samples, batch: &[u32], says: &str| {
        let error = session.grad_step(data, batch, &mut |_| ()).unwrap_err();
        assert!(matches!(error, EngineError::Data(_)) && error.is_task_fault());
        assert!(error.to_string().contains(says), "{error}");
    };
    refused(&mut session, &good, &[0, 5], "sample 5 is asked for");
    refused(&mut session, &samples(5, 7, 4), &[0], "7 values");
    refused(&mut session, &samples(5, 6, 5), &[0], "5 classes");
    let (inputs, labels) = drawn(5, 6, 4);
    let with = |labels: Vec<u32>| Samples::labelled(inputs.clone(), labels, 6, 4);
    let odd = with([&labels[..], &[0]].concat());
    refused(&mut session, &odd, &[0], "not 6 samples");
    let mut high = labels;
    high[2] = 4;
    refused(&mut session, &with(high), &[2], "label 4 of sample 2");
    let numbers = Samples::valued(inputs.clone(), vec![0.0; 10], 6, 2);
    refused(&mut session, &numbers, &[0], "2 numbers to predict");
    let ragged = Samples::valued(inputs.clone(), vec![0.0; 11], 6, 2);
    refused(&mut session, &ragged, &[0], "11 numbers to predict");
    let sequences = Samples::labelled(inputs.clone(), vec![0; 15], 6, 4);
    assert_eq!((sequences.len(), sequences.labels_per_sample()), (5, 3));
    refused(&mut session, &sequences, &[0], "a sample has 3 labels");
    let ragged = Samples::labelled(inputs.clone(), vec![0; 11], 6, 4);
    refused(&mut session, &ragged, &[0], "11 labels are not 2 a sample");
    session.grad_step(&good, &[0], &mut |_| ()).unwrap();
}

#[test]
fn what_is_not_finite_is_refused_with_step_and_layer() {
    let broken = |error: EngineError| match error {
        EngineError::NotFinite { step, layer, what } => (step, layer, what),
        other => panic!("{other}"),
    };
    let data = samples(5, 6, 4);
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    step(&mut session, &data, &[0]);
    let before = session.fingerprint();

    let (mut inputs, labels) = drawn(5, 6, 4);
    inputs[0] = f32::NAN;
    let data = Samples::labelled(inputs, labels, 6, 4);
    let error = session.grad_step(&data, &[0], &mut |_| ()).unwrap_err();
    assert!(
        error.to_string().contains("step 2: output of layer 1"),
        "{error}"
    );
    assert_eq!(broken(error), (2, 0, "output"));

    session.grad_step(&data, &[1], &mut |_| ()).unwrap();
    session.gradients()[64] = f32::INFINITY;
    assert_eq!(broken(session.apply(1).unwrap_err()), (2, 3, "gradient"));
    assert!(!session.is_prepared());
    assert_eq!((session.step(), session.fingerprint()), (1, before));

    let wild = Optimizer::sgd(f32::MAX, 0.0);
    let mut session = Session::new(&mixed(), &train(wild, 0)).unwrap();
    session.grad_step(&data, &[1], &mut |_| ()).unwrap();
    session.gradients().fill(-1e3);
    assert_eq!(
        broken(session.apply(1).unwrap_err()),
        (1, 1, "updated parameter")
    );
    assert!(!session.is_prepared());
}

#[test]
fn a_gradient_that_overflows_is_refused_where_it_does() {
    let data = Samples::labelled(vec![f32::MAX; 2], vec![0; 2], 1, 2);
    // Logits stay finite and equal while the gradient of the weight, a sum over both, does not.
    let mut session = Session::new(&model(1, &[linear(2)]), &adamw()).unwrap();
    session.committed.parameters.fill(0.0);
    session.grad_step(&data, &[0, 1], &mut |_| ()).unwrap();
    let big = Samples::labelled(vec![f32::MAX; 3], vec![0; 3], 1, 2);
    let error = session
        .grad_step(&big, &[0, 1, 2], &mut |_| ())
        .unwrap_err();
    assert!(error.to_string().contains("gradient of layer 1"), "{error}");
}

/// At whatever operation it is broken off: the step counts for nothing, and done again it has the same bits.
#[test]
fn a_brake_stops_a_step_between_any_two_operations() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let data = samples(6, 6, 4);
    let batch = all(&data);
    let mut free = Session::new(&mixed(), &adamw()).unwrap();
    let right = gradients(&mut free, &data, &batch);
    let mut braked = Session::new(&mixed(), &adamw()).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut stops = 0;
    for at in 1.. {
        let (count, seen) = (Arc::clone(&asked), asked.load(Ordering::Relaxed));
        let brake = move || count.fetch_add(1, Ordering::Relaxed) + 1 - seen >= at;
        braked.set_brake(Some(Box::new(brake)));
        match braked.grad_step(&data, &batch, &mut |_| ()) {
            Err(EngineError::Stopped) => stops += 1,
            done => {
                assert_eq!(done.unwrap(), right.0);
                break;
            }
        }
        assert!(!braked.is_prepared() && braked.apply(6).is_err());
        braked.set_brake(None);
        assert_eq!(gradients(&mut braked, &data, &batch), right);
    }
    // In the pass forward and in the one back.
    assert!(stops > 2 * 3, "{stops}");
}

#[test]
fn models_that_cannot_run_are_refused() {
    assert!(matches!(
        Session::new(&model(4, &[linear(0)]), &adamw()),
        Err(EngineError::Model(_))
    ));
    assert!(matches!(
        Session::new(&mixed(), &train(Optimizer::adamw(-1.0), 0)),
        Err(EngineError::Train(_))
    ));
    // What the backward pass reads again stays: 255 images of two million values.
    let mut layers = vec![Layer::conv2d(1, 1, 0)];
    layers.extend(vec![Layer::Gelu {}; 255]);
    layers.push(linear(1));
    let wide = ModelSpec::new(vec![1, 1 << 11, 1 << 10], layers);
    assert!(matches!(
        Session::new(&wide, &adamw()),
        Err(EngineError::TooWide { .. })
    ));
    // A small file that asks for 16 GiB of patches of one row.
    let row = Layer::Conv2d {
        filters: 1,
        kernel: [1, 4096],
        stride: [1, 1],
        padding: [0, 2048],
        groups: 1,
        bias: false,
    };
    let pool = Layer::GlobalAvgPool {};
    let patches = ModelSpec::new(vec![1, 1, 1 << 20], vec![row, pool, linear(2)]);
    assert!(matches!(
        Session::new(&patches, &adamw()),
        Err(EngineError::LayerTooWide { layer: 0, .. })
    ));
    let values = crate::initial::parameters(&patches, 1);
    let file = weights::write(&weights::tensors(&patches), &[&values], &BTreeMap::new());
    assert!(matches!(
        Model::load(&patches, &file),
        Err(EngineError::LayerTooWide { layer: 0, .. })
    ));
    // In use, values that no layer reads any more give room to others, but those of residuals stay.
    let mut deep = vec![Layer::Gelu {}];
    for _ in 0..3 {
        deep = vec![Layer::Sigmoid {}, Layer::Residual { layers: deep }];
    }
    deep.extend([Layer::GlobalAvgPool {}, linear(2)]);
    let deep = ModelSpec::new(vec![1, 9000, 8200], deep);
    let values = crate::initial::parameters(&deep, 1);
    let file = weights::write(&weights::tensors(&deep), &[&values], &BTreeMap::new());
    let refused = Model::load(&deep, &file).err();
    assert!(
        matches!(refused, Some(EngineError::TooWide { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_model_is_trained_on_from_its_weights() {
    let data = samples(32, 6, 4);
    let mut first = Session::new(&mixed(), &adamw()).unwrap();
    (0..5).for_each(|_| step(&mut first, &data, &all(&data)));
    let mut second = Session::new(&mixed(), &train(Optimizer::adamw(1e-3), 9)).unwrap();
    step(&mut second, &data, &all(&data));
    second.load(&first.export(&BTreeMap::new())).unwrap();
    assert_eq!(
        (second.parameters(), second.step()),
        (first.parameters(), 0)
    );
    step(&mut second, &data, &all(&data));
    assert_ne!(second.parameters(), first.parameters());
    // Not with the moments of the run before.
    let mut third = Session::new(&mixed(), &adamw()).unwrap();
    third.load(&first.export(&BTreeMap::new())).unwrap();
    step(&mut third, &data, &all(&data));
    assert_eq!(third.parameters(), second.parameters());

    let before = third.fingerprint();
    let other = Session::new(&model(6, &[linear(4)]), &adamw()).unwrap();
    assert!(third.load(&other.export(&BTreeMap::new())).is_err());
    assert!(third.load(&first.checkpoint()).is_err());
    assert_eq!(third.fingerprint(), before);
}

#[test]
fn checkpoints_of_others_are_refused_and_change_nothing() {
    let mut session = Session::new(&mixed(), &adamw()).unwrap();
    let before = session.fingerprint();
    let other_model = Session::new(&model(6, &[linear(4)]), &adamw()).unwrap();
    let other_rule = Session::new(&mixed(), &sgd(0.9)).unwrap();
    let export = session.export(&BTreeMap::new());
    let mut negative = Session::new(&mixed(), &adamw()).unwrap();
    negative.committed.moments[1][3] = -1.0;
    let files = [
        other_model.checkpoint(),
        other_rule.checkpoint(),
        export,
        negative.checkpoint(),
        Vec::new(),
    ];
    for file in files {
        let error = session.restore(&file).unwrap_err();
        assert!(matches!(error, EngineError::Weights(_)), "{error}");
    }
    let state = weights::write(
        &session.state_tensors(),
        &[&[0.0; 165 * 3]],
        &BTreeMap::from([("format".to_owned(), CHECKPOINT_FORMAT.to_owned())]),
    );
    let error = session.restore(&state).unwrap_err();
    assert!(error.to_string().contains("its step"), "{error}");
    assert_eq!(session.fingerprint(), before);
}

#[test]
fn an_export_is_the_parameters_under_their_names() {
    let session = Session::new(&mixed(), &adamw()).unwrap();
    let metadata = BTreeMap::from([("task".to_owned(), "a".to_owned())]);
    let file = session.export(&metadata);
    assert_eq!(file, session.export(&metadata));
    let read = safetensors::SafeTensors::deserialize(&file).unwrap();
    let mut names = read.names();
    names.sort_unstable();
    let mut expected: Vec<String> = mixed().parameters().into_iter().map(|p| p.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let bias = read.tensor("layers.1.bias").unwrap();
    assert_eq!(bias.shape(), [9]);
    assert_eq!(bias.data()[..4], session.parameters()[0].to_le_bytes());
    let weight = read.tensor("layers.6.weight").unwrap();
    assert_eq!(weight.shape(), [4, 7]);
    assert_eq!(
        weight.data()[27 * 4..],
        session.parameters()[164].to_le_bytes()
    );
}

/// The bundled digits by the recipe for which PyTorch reaches 0.981 to 0.986.
#[test]
fn digits_are_learnt_as_well_as_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in crate::digits::files() {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let (info, _) = crate::dataset::inspect_idx(folder.path()).unwrap();
    let file = |name: &str| folder.path().join(name);
    let read = |split| crate::dataset::load(&info, split, None, &file).unwrap().0;
    let data = read(Split::Train);
    let test = read(Split::Test);
    let spec = model(64, &[linear(64), Layer::Relu {}, linear(10)]);
    let spec = ModelSpec {
        input: info.input.clone(),
        ..spec
    };
    for seed in [0, 1, 2] {
        let start = std::time::Instant::now();
        let mut session = Session::new(&spec, &train(Optimizer::adamw(1e-3), seed)).unwrap();
        let mut order = all(&data);
        let mut shuffle = Stream::new("test", seed, "order");
        for _ in 0..30 {
            shuffle.shuffle(&mut order);
            order
                .chunks(32)
                .for_each(|batch| step(&mut session, &data, batch));
        }
        let trained = Model::load(&spec, &session.export(&BTreeMap::new())).unwrap();
        let accuracy = trained.accuracy(&test).unwrap();
        println!("seed {seed}: {accuracy:.4} in {:?}", start.elapsed());
        assert!(accuracy >= 0.97, "seed {seed}: {accuracy}");
    }
}

/// Small batches are what members of a group compute: their cost is printed, and bounded far above
/// what an idle machine needs.
#[test]
fn small_steps_are_quick() {
    let spec = model(64, &[linear(64), Layer::Relu {}, linear(10)]);
    let data = samples(32, 64, 10);
    for batch in [11, 32] {
        let rows: Vec<u32> = (0..batch).collect();
        let mut session = Session::new(&spec, &adamw()).unwrap();
        let mut times: Vec<_> = (0..2000)
            .map(|_| {
                let start = std::time::Instant::now();
                step(&mut session, &data, &rows);
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("batch {batch}: {:?} a step", times[1000]);
        assert!(times[1000].as_millis() < 5, "{:?}", times[1000]);
    }
}
