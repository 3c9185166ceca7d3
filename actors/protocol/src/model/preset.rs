//! Models that are known to work, to start from.

use super::{Layer, ModelSpec, PPM};

/// Sizes of the [`ModelSpec::gpt`] preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gpt {
    /// Tokens that there are.
    pub vocabulary: u32,
    /// Tokens of a sample.
    pub context: u32,
    /// Values of a token between the layers.
    pub width: u32,
    /// Heads of each attention.
    pub heads: u32,
    /// Blocks, each an attention and a network of two layers.
    pub blocks: u32,
    /// How much of each branch is dropped in training, in millionths.
    pub dropout_ppm: u32,
}

impl ModelSpec {
    /// Linear layers of these widths with ReLU after each, and one for the outputs.
    pub fn mlp(input: Vec<u32>, hidden: &[u32], outputs: u32) -> Self {
        let between = hidden.iter();
        let mut layers: Vec<Layer> = between
            .flat_map(|out| [Layer::linear(*out), Layer::Relu {}])
            .collect();
        layers.push(Layer::linear(outputs));
        Self::new(input, layers)
    }

    /// For each of `filters` a convolution of 3 × 3, ReLU and the largest of 2 × 2; then a hidden
    /// layer and the outputs. An input of height and width gets its one channel.
    pub fn cnn(input: Vec<u32>, filters: &[u32], hidden: u32, outputs: u32) -> Self {
        let mut layers = Vec::new();
        if let [height, width] = input[..] {
            layers.push(Layer::Reshape {
                shape: vec![1, height, width],
            });
        }
        for filters in filters {
            let conv = Layer::conv2d(*filters, 3, 1);
            layers.extend([conv, Layer::Relu {}, Layer::max_pool(2)]);
        }
        let head = [
            Layer::linear(hidden),
            Layer::Relu {},
            Layer::linear(outputs),
        ];
        layers.extend([Layer::Flatten {}].into_iter().chain(head));
        Self::new(input, layers)
    }

    /// A decoder of blocks that normalise first (Radford et al., 2019), with learnt positions.
    pub fn gpt(sizes: Gpt) -> Self {
        let norm = Layer::LayerNorm { bias: false };
        let dropout = || {
            (sizes.dropout_ppm > 0).then_some(Layer::Dropout {
                rate_ppm: sizes.dropout_ppm.min(PPM),
            })
        };
        let mut layers = vec![Layer::Embedding {
            rows: sizes.vocabulary,
            width: sizes.width,
            positions: true,
        }];
        layers.extend(dropout());
        for _ in 0..sizes.blocks {
            let attention = Layer::Attention {
                heads: sizes.heads,
                causal: true,
                bias: true,
            };
            let mut attend = vec![norm.clone(), attention];
            attend.extend(dropout());
            let mut think = vec![
                norm.clone(),
                Layer::linear_each(sizes.width.saturating_mul(4)),
                Layer::GeluTanh {},
                Layer::linear_each(sizes.width),
            ];
            think.extend(dropout());
            layers.push(Layer::Residual { layers: attend });
            layers.push(Layer::Residual { layers: think });
        }
        layers.extend([norm, Layer::linear_each(sizes.vocabulary)]);
        Self::new(vec![sizes.context], layers)
    }
}
