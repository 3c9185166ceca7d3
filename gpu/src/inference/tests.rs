use std::collections::BTreeMap;

use cryptomind_protocol::model::Layer;
use cryptomind_protocol::task::{Optimizer, TrainSpec};

use super::*;
use crate::session::Session;

fn spec() -> ModelSpec {
    ModelSpec {
        input: vec![2, 2],
        layers: vec![Layer::linear(5), Layer::Tanh {}, Layer::linear(3)],
        loss: Loss::default(),
    }
}

fn weights_of(spec: &ModelSpec) -> Vec<u8> {
    let train = TrainSpec {
        epochs: 1,
        global_batch: 1,
        optimizer: Optimizer::adamw(1e-3),
        seed: 1,
        checkpoint_steps: 1,
        ..TrainSpec::default()
    };
    Session::new(spec, &train).unwrap().export(&BTreeMap::new())
}

fn inputs(count: usize) -> Vec<f32> {
    (0..count * 4).map(|i| (i % 7) as f32 / 7.0).collect()
}

fn samples(count: usize) -> Samples {
    let labels = (0..count).map(|i| (i % 3) as u32).collect();
    Samples::labelled(inputs(count), labels, 4, 3)
}

#[test]
fn probabilities_sum_to_one_and_parts_agree_with_the_whole() {
    let model = Model::load(&spec(), &weights_of(&spec())).unwrap();
    let data = samples(2500);
    let whole = model.probabilities(&data, 0..2500).unwrap();
    assert_eq!(whole.len(), 2500 * model.classes());
    for row in whole.chunks(3) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
    let part = model.probabilities(&data, 1030..1032).unwrap();
    for (got, want) in part.iter().zip(&whole[1030 * 3..]) {
        assert!((got - want).abs() < 1e-6);
    }
    assert!(model.probabilities(&data, 7..7).unwrap().is_empty());
}

#[test]
fn accuracy_counts_the_most_probable_class() {
    let model = Model::load(&spec(), &weights_of(&spec())).unwrap();
    let answers = model.probabilities(&samples(50), 0..50).unwrap();
    let best = answers.chunks(3).map(|row| most_probable(row) as u32);
    let mut labels: Vec<u32> = best.collect();
    let accuracy = |labels: &[u32]| {
        let data = Samples::labelled(inputs(50), labels.to_vec(), 4, 3);
        model.accuracy(&data).unwrap()
    };
    assert_eq!(accuracy(&labels), 1.0);
    labels[..10]
        .iter_mut()
        .for_each(|label| *label = (*label + 1) % 3);
    assert_eq!(accuracy(&labels), 0.8);
    assert_eq!(most_probable(&[0.2, 0.4, 0.4]), 1);
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = Model::load(&spec(), &weights_of(&spec())).unwrap();
    let data = samples(5);
    assert!(model.probabilities(&data, 3..6).is_err());
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = 4..3;
    assert!(model.probabilities(&data, backwards).is_err());
    assert!(model.accuracy(&samples(0)).is_err());
    let wide = Samples::labelled(vec![0.0; 25], vec![0; 5], 5, 3);
    assert!(model.probabilities(&wide, 0..1).is_err());
    let mut broken = inputs(5);
    broken[9] = f32::NAN;
    let broken = Samples::labelled(broken, vec![0; 5], 4, 3);
    let error = model.probabilities(&broken, 1..5).unwrap_err();
    assert!(error.to_string().contains("sample 2 "), "{error}");
    let mut other = spec();
    other.layers.pop();
    other.layers.push(Layer::linear(4));
    assert!(matches!(
        Model::load(&spec(), &weights_of(&other)),
        Err(EngineError::Weights(_))
    ));
    other.layers.clear();
    assert!(matches!(
        Model::load(&other, &[]),
        Err(EngineError::Model(_))
    ));
}
