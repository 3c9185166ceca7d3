//! Parameters before the first step, drawn by (seed, tensor name) alone: every member of a group
//! starts from the same bits, on any machine.
//!
//! Weights and biases of products as in PyTorch, uniform in ±1/√fan_in (He et al., 2015, with a = √5);
//! embeddings with the deviation 0.02 of GPT-2 (Radford et al., 2019), uniform too; norms as 1 and 0.

use cryptomind_protocol::model::{ModelSpec, Part};

use crate::random::Stream;

const PURPOSE: &str = "cryptomind initial parameters/1";
/// √3 times the deviation 0.02: the bound of a uniform distribution that has it.
const TABLE_BOUND: f32 = 0.034_641_016;

/// The initial parameters in canonical order.
pub(crate) fn parameters(model: &ModelSpec, seed: u64) -> Vec<f32> {
    let mut arena = Vec::with_capacity(model.parameter_count() as usize);
    for parameter in model.parameters() {
        let len = parameter.len();
        let bound = match parameter.part {
            Part::Weight { fan_in } | Part::Bias { fan_in } => 1.0 / (fan_in as f32).sqrt(),
            Part::Table => TABLE_BOUND,
            Part::Scale | Part::RunningVariance => {
                arena.extend(std::iter::repeat_n(1.0, len));
                continue;
            }
            Part::Shift | Part::RunningMean => {
                arena.extend(std::iter::repeat_n(0.0, len));
                continue;
            }
        };
        let mut stream = Stream::new(PURPOSE, seed, &parameter.name);
        arena.extend((0..len).map(|_| stream.signed_unit() * bound));
    }
    arena
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::model::Layer;

    use super::*;

    #[test]
    fn bounds_follow_each_layers_inputs() {
        let layers = vec![Layer::linear(400), Layer::linear(9)];
        let arena = parameters(&ModelSpec::new(vec![100], layers), 3);
        let largest = |part: &[f32]| part.iter().fold(0f32, |m, v| m.max(v.abs()));
        let (first, second) = arena.split_at(400 + 40_000);
        assert!(largest(first) <= 0.1 && largest(first) > 0.0999);
        assert!(largest(second) <= 0.05 && largest(second) > 0.049);
    }

    #[test]
    fn the_seed_and_the_name_decide_and_nothing_else() {
        let model = |out| ModelSpec::new(vec![4], vec![Layer::linear(3), Layer::linear(out)]);
        let (a, b) = (parameters(&model(2), 1), parameters(&model(5), 1));
        assert_eq!(a[..15], b[..15]);
        assert_ne!(parameters(&model(2), 2), a);
    }

    #[test]
    fn norms_start_as_nothing_and_tables_with_their_deviation() {
        let embedding = Layer::Embedding {
            rows: 100,
            width: 50,
            positions: false,
        };
        let layers = vec![
            embedding,
            Layer::LayerNorm { bias: true },
            Layer::linear(1),
            Layer::BatchNorm {},
        ];
        let arena = parameters(&ModelSpec::new(vec![2], layers), 0);
        let (table, rest) = arena.split_at(5000);
        let square = |v: &f32| f64::from(*v) * f64::from(*v);
        let deviation = (table.iter().map(square).sum::<f64>() / 5000.0).sqrt();
        assert!((deviation - 0.02).abs() < 0.0005, "{deviation}");
        assert!(rest[..50].iter().all(|shift| *shift == 0.0));
        assert!(rest[50..100].iter().all(|scale| *scale == 1.0));
        assert_eq!(
            rest[201..],
            [0.0, 0.0, 1.0, 1.0],
            "shift, mean, variance, scale"
        );
    }
}
