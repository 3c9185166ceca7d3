//! Parameters before the first step: PyTorch's default of a linear layer, weight and bias uniform
//! in ±1/√fan_in (He et al., 2015, with a = √5), drawn by (seed, tensor name) alone. So every
//! member of a group starts from the same bits, on any machine.

use cryptomind_protocol::model::ModelSpec;

use crate::random::Stream;

const PURPOSE: &str = "cryptomind initial parameters/1";

/// The initial parameters in canonical order.
pub(crate) fn parameters(model: &ModelSpec, seed: u64) -> Vec<f32> {
    let mut arena = Vec::with_capacity(model.parameter_count() as usize);
    let mut fan_in = model.input_len();
    for parameter in model.parameters() {
        let bound = 1.0 / (fan_in as f32).sqrt();
        let mut stream = Stream::new(PURPOSE, seed, &parameter.name);
        arena.extend((0..parameter.len()).map(|_| stream.signed_unit() * bound));
        // A layer's weight is its last tensor; the next layer's inputs are its outputs.
        if let [outputs, _] = parameter.shape[..] {
            fan_in = outputs;
        }
    }
    arena
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::model::Layer;

    use super::*;

    #[test]
    fn bounds_follow_each_layers_inputs() {
        let model = ModelSpec {
            input: vec![100],
            layers: vec![Layer::Linear { out: 400 }, Layer::Linear { out: 9 }],
        };
        let arena = parameters(&model, 3);
        let largest = |part: &[f32]| part.iter().fold(0f32, |m, v| m.max(v.abs()));
        let (first, second) = arena.split_at(400 + 40_000);
        assert!(largest(first) <= 0.1 && largest(first) > 0.0999);
        assert!(largest(second) <= 0.05 && largest(second) > 0.049);
    }

    #[test]
    fn the_seed_and_the_name_decide_and_nothing_else() {
        let model = |out| ModelSpec {
            input: vec![4],
            layers: vec![Layer::Linear { out: 3 }, Layer::Linear { out }],
        };
        let (a, b) = (parameters(&model(2), 1), parameters(&model(5), 1));
        assert_eq!(a[..15], b[..15]);
        assert_ne!(parameters(&model(2), 2), a);
    }
}
