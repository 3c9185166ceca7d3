//! What is not finite, wherever it comes from: refused where it is seen first, and forgotten then.

use super::layers::{classed, dropping, images, inputs, pooled, sequences};
use super::*;

/// Step and layer, from 1 and from 0, and what was not finite.
fn broken(error: EngineError) -> (u64, usize, &'static str) {
    match error {
        EngineError::NotFinite { step, layer, what } => (step, layer, what),
        other => panic!("{other}"),
    }
}

/// Samples of this model whose sample 1 has this value in its middle.
fn with(model: &ModelSpec, value: f32) -> Samples {
    let mut inputs = inputs(model, 4);
    let len = model.input_len();
    inputs[len + len / 2] = value;
    let labels = vec![0; 4 * layers::positions(model)];
    batch(model, &inputs, &labels)
}

/// A file with the last of its values replaced.
fn ending_in(mut file: Vec<u8>, value: f32) -> Vec<u8> {
    let end = file.len() - size_of::<f32>();
    file[end..].copy_from_slice(&value.to_le_bytes());
    file
}

#[test]
fn files_with_what_is_no_number_are_refused() {
    for model in [images(), sequences(), pooled()] {
        let data = classed(&model, 8);
        let mut session = Session::with_threads(&model, &adamw(), 1).unwrap();
        step(&mut session, &data, &[0, 1, 2]);
        let before = session.fingerprint();
        let weights = session.export(&BTreeMap::new());
        assert!(Model::load(&model, &weights).is_ok());
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let says = |error: EngineError| {
                assert!(matches!(error, EngineError::Weights(_)), "{error}");
                let text = error.to_string();
                assert!(text.contains("infinite or not a number"), "{text}");
            };
            says(
                Model::load(&model, &ending_in(weights.clone(), value))
                    .err()
                    .unwrap(),
            );
            let checkpoint = ending_in(session.checkpoint(), value);
            says(session.restore(&checkpoint).unwrap_err());
            assert_eq!((session.step(), session.fingerprint()), (1, before));
        }
    }
}

/// A mean of squares is never negative: with such a one nobody could answer.
#[test]
fn weights_with_a_negative_variance_are_refused() {
    let model = images();
    let mut session = Session::with_threads(&model, &adamw(), 1).unwrap();
    let mut at = 0;
    for parameter in model.parameters() {
        if parameter.name == "layers.7.running_var" {
            session.committed.parameters[at] = -0.5;
        }
        at += parameter.len();
    }
    let error = Model::load(&model, &session.export(&BTreeMap::new()))
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("layers.7.running_var"),
        "{error}"
    );
    let checkpoint = session.checkpoint();
    let error = session.restore(&checkpoint).unwrap_err();
    assert!(
        error.to_string().contains("layers.7.running_var"),
        "{error}"
    );
}

/// Refusals of every kind between two good steps leave no trace.
#[test]
fn a_session_goes_on_after_a_refusal_as_if_there_had_been_none() {
    for model in [images(), sequences(), pooled(), mixed()].map(dropping) {
        let data = classed(&model, 8);
        for rule in [adamw(), sgd(0.9)] {
            let mut plain = Session::with_threads(&model, &rule, 2).unwrap();
            let mut tried = Session::with_threads(&model, &rule, 2).unwrap();
            for number in 0..3 {
                let rows = [number, 7 - number, 3, 2];
                let before = tried.fingerprint();
                for value in [f32::NAN, f32::INFINITY, 1e30] {
                    // Bounded functions may make something of what is only large.
                    let done = tried.grad_step(&with(&model, value), &[0, 1, 2], &mut |_| ());
                    assert!(done.is_err() || !value.is_nan());
                }
                tried.grad_step(&data, &rows, &mut |_| ()).unwrap();
                let last = tried.parameter_count() - 1;
                tried.gradients()[last] = f32::NAN;
                let (at, _, what) = broken(tried.apply(4).unwrap_err());
                assert_eq!((at, what), (u64::from(number) + 1, "gradient"));
                assert_eq!(tried.fingerprint(), before);
                step(&mut tried, &data, &rows);
                step(&mut plain, &data, &rows);
                assert_eq!(tried.fingerprint(), plain.fingerprint());
            }
        }
    }
}

#[test]
fn a_sample_that_is_no_number_is_refused_with_its_layer() {
    // Its first layer gives the sample a shape only.
    let model = dropping(images());
    let mut session = Session::with_threads(&model, &adamw(), 2).unwrap();
    step(&mut session, &classed(&model, 8), &[0, 1]);
    let mut refused = |batch: &[u32]| {
        let data = with(&model, f32::NAN);
        session.grad_step(&data, batch, &mut |_| ()).map_err(broken)
    };
    assert_eq!(refused(&[0, 1]), Err((2, 1, "output")));
    assert!(refused(&[0, 2]).is_ok(), "the others are sound");
    for model in [sequences(), pooled()] {
        let mut session = Session::with_threads(&model, &adamw(), 1).unwrap();
        for value in [f32::NAN, f32::INFINITY, -1.0, 0.5, 1e9] {
            let data = with(&model, value);
            let error = session.grad_step(&data, &[2, 1], &mut |_| ()).unwrap_err();
            assert!(
                error.to_string().contains("in sample 1 is no token"),
                "{error}"
            );
        }
    }
}

/// What does not show in an output: whatever comes first, whichever layer hides most.
#[test]
fn no_layer_hides_what_is_no_number() {
    let shapes = vec![
        Layer::Relu {},
        Layer::Sigmoid {},
        Layer::Tanh {},
        Layer::Gelu {},
        Layer::GeluTanh {},
        Layer::Silu {},
        Layer::Softmax {},
        Layer::BatchNorm {},
        Layer::Dropout { rate_ppm: 999_999 },
        Layer::GlobalAvgPool {},
        Layer::conv2d(2, 3, 1),
        Layer::MaxPool {
            size: [2, 2],
            stride: [2, 2],
            padding: [0, 0],
        },
        Layer::MaxPool {
            size: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
        },
        Layer::AvgPool {
            size: [2, 2],
            stride: [2, 2],
            padding: [0, 0],
        },
    ];
    for layer in shapes {
        let layers = vec![layer.clone(), Layer::Flatten {}, linear(3)];
        let model = ModelSpec::new(vec![2, 4, 4], layers);
        let mut session = Session::with_threads(&model, &adamw(), 1).unwrap();
        let done = session.grad_step(&with(&model, f32::NAN), &[0, 1], &mut |_| ());
        assert_eq!(broken(done.unwrap_err()), (1, 0, "output"), "{layer}");
    }
}

/// Outputs are finite, squares of their differences are not.
#[test]
fn a_loss_that_overflows_is_refused() {
    let model = ModelSpec {
        loss: Loss::MeanSquare,
        ..model(2, &[linear(3), Layer::Tanh {}, linear(2)])
    };
    let mut session = Session::with_threads(&model, &sgd(0.9), 1).unwrap();
    let of = |target: f32| Samples::valued(vec![0.5; 4], vec![target; 4], 2, 2);
    let before = session.fingerprint();
    for target in [1e30, -1e30, f32::INFINITY, f32::NAN] {
        let done = session.grad_step(&of(target), &[0, 1], &mut |_| ());
        assert_eq!(broken(done.unwrap_err()), (1, 2, "loss"), "{target}");
        assert!(matches!(session.apply(2), Err(EngineError::Order(_))));
    }
    assert_eq!(session.fingerprint(), before);
    step(&mut session, &of(1.0), &[0, 1]);
    assert_eq!(session.step(), 1);
}

/// A gradient whose square is infinite would stop its parameter for ever, and nobody could read the checkpoint.
#[test]
fn an_optimizer_s_state_that_overflows_is_refused() {
    let model = ModelSpec {
        loss: Loss::MeanSquare,
        ..model(1, &[linear(1)])
    };
    let mut session = Session::with_threads(&model, &adamw(), 2).unwrap();
    let before = session.fingerprint();
    let data = Samples::valued(vec![2e13], vec![0.0], 1, 1);
    session.grad_step(&data, &[0], &mut |_| ()).unwrap();
    let refused = session.apply(1).map_err(broken);
    assert_eq!(refused, Err((1, 0, "optimizer's state")));
    assert_eq!(session.fingerprint(), before);
    assert!(!session.is_prepared());
}

/// A stranger's checkpoint may say any step.
#[test]
fn the_last_step_of_all_is_no_panic() {
    for rule in every_rule() {
        let data = samples(5, 6, 4);
        let mut session = Session::with_threads(&mixed(), &rule, 1).unwrap();
        session.committed.step = u64::MAX - 1;
        let checkpoint = session.checkpoint();
        match session.restore(&checkpoint) {
            Err(error) => assert!(matches!(error, EngineError::Weights(_))),
            Ok(()) => (0..3).for_each(|_| step(&mut session, &data, &[0])),
        }
    }
}
