//! Loss and gradients against those that PyTorch computed once: `golden/make.py` says how.

use std::collections::HashMap;

use cryptomind_protocol::model::Gpt;
use serde::Deserialize;

use super::*;

/// The largest part by which a value may be off, of itself or of the tensor's largest one.
const TOLERANCE: f64 = 1e-4;

/// What PyTorch said of a model.
#[derive(Deserialize)]
struct Golden {
    inputs: Vec<f32>,
    labels: Vec<u32>,
    /// Mean over all labels.
    loss: f64,
    parameters: HashMap<String, Vec<f32>>,
    gradients: HashMap<String, Vec<f64>>,
}

fn check(model: &ModelSpec, golden: &str) {
    let golden: Golden = serde_json::from_str(golden).unwrap();
    let data = batch(model, &golden.inputs, &golden.labels);
    let mut session = Session::with_threads(model, &adamw(), 2).unwrap();
    assert_eq!(golden.parameters.len(), model.parameters().len());
    let arena = model
        .parameters()
        .into_iter()
        .flat_map(|p| golden.parameters[&p.name].clone());
    session.committed.parameters = arena.collect();
    let (loss, got) = gradients(&mut session, &data, &all(&data));
    let samples = data.len() as f64;
    let off = (loss / samples - golden.loss).abs();
    assert!(off <= TOLERANCE * golden.loss, "{loss} for {}", golden.loss);
    let mut rest = &got[..];
    for parameter in model.parameters() {
        let (own, after) = rest.split_at(parameter.len());
        rest = after;
        let expected = &golden.gradients[&parameter.name];
        let largest = expected.iter().fold(0f64, |most, g| most.max(g.abs()));
        assert!(largest > 0.0, "{}", parameter.name);
        for (got, want) in own.iter().zip(expected) {
            let off = (f64::from(*got) / samples - want).abs();
            assert!(
                off <= TOLERANCE * want.abs().max(0.01 * largest),
                "{}: {got} for {want}",
                parameter.name
            );
        }
    }
}

#[test]
fn an_mlp_has_pytorchs_gradients() {
    let layers = [
        linear(9),
        Layer::Relu {},
        linear(7),
        Layer::Tanh {},
        linear(4),
    ];
    check(&model(6, &layers), include_str!("golden/mlp.json"));
}

#[test]
fn a_cnn_has_pytorchs_gradients() {
    let model = ModelSpec::cnn(vec![1, 8, 8], &[4, 6], 8, 3);
    check(&model, include_str!("golden/cnn.json"));
}

#[test]
fn a_gpt_has_pytorchs_gradients() {
    let model = ModelSpec::gpt(Gpt {
        vocabulary: 7,
        context: 5,
        width: 8,
        heads: 2,
        blocks: 2,
        dropout_ppm: 0,
    });
    check(&model, include_str!("golden/gpt.json"));
}
