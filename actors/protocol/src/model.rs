//! A model as data: an input shape and a list of layers. A task is data, never code.

use serde::{Deserialize, Serialize};

/// The most values in one sample, one layer's output, or one weight.
pub const MAX_ELEMENTS: u64 = 1 << 28;
/// The most layers.
pub const MAX_LAYERS: usize = 256;
/// The most parameters in a model of today's engine.
pub const MAX_PARAMETERS: u64 = 1 << 28;

/// One layer. Activations are layers of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Layer {
    /// `y = x·Wᵀ + b`: any input shape is flattened to one vector a sample.
    Linear {
        /// Width of the output.
        out: u32,
    },
    /// `max(x, 0)`; the gradient at zero is zero.
    Relu {},
    /// `tanh x`.
    Tanh {},
}

/// A model: the shape of one sample and the layers that it passes. The last layer's output are the
/// logits, one a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Shape of one sample, such as `[8, 8]`.
    pub input: Vec<u32>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
}

/// Why a model cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", layer.map(|l| format!("layer {}: ", l + 1)).unwrap_or_default())]
pub struct ModelError {
    /// The layer at fault, counted from 0; none where the model as a whole is.
    pub layer: Option<usize>,
    /// What is wrong.
    pub reason: String,
}

/// A parameter tensor in canonical order: by layer, then by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Index of its layer in the model.
    pub layer: usize,
    /// `layers.<index>.<bias|weight>`, as in the safetensors file.
    pub name: String,
    /// Row-major shape; a linear weight is `[out, in]`.
    pub shape: Vec<usize>,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no values; it never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ModelSpec {
    /// Values in one sample. Meaningful once [`ModelSpec::check`] passed.
    pub fn input_len(&self) -> usize {
        self.input.iter().map(|d| *d as usize).product()
    }

    /// Width of the last layer's output: the number of classes. Nothing without a linear layer.
    pub fn output_len(&self) -> Option<usize> {
        self.layers.iter().rev().find_map(|layer| match layer {
            Layer::Linear { out } => Some(*out as usize),
            Layer::Relu {} | Layer::Tanh {} => None,
        })
    }

    /// Refuses models that cannot be built, naming the layer.
    pub fn check(&self) -> Result<(), ModelError> {
        let whole = |reason: String| ModelError {
            layer: None,
            reason,
        };
        if self.input.is_empty() || self.input.len() > 4 || self.input.contains(&0) {
            return Err(whole(format!(
                "input {:?}: give one to four sizes, none of them 0",
                self.input
            )));
        }
        let elements = self
            .input
            .iter()
            .try_fold(1u64, |n, d| n.checked_mul(u64::from(*d)));
        let Some(mut width) = elements.filter(|n| *n <= MAX_ELEMENTS) else {
            return Err(whole(format!(
                "input {:?}: more than {MAX_ELEMENTS} values a sample",
                self.input
            )));
        };
        if self.layers.len() > MAX_LAYERS {
            return Err(whole(format!(
                "{} layers: at most {MAX_LAYERS} are allowed",
                self.layers.len()
            )));
        }
        if !matches!(self.layers.last(), Some(Layer::Linear { .. })) {
            return Err(whole(
                "the last layer must be `linear`: its outputs are the class scores".into(),
            ));
        }
        let mut parameters = 0u64;
        for (index, layer) in self.layers.iter().enumerate() {
            let at = |reason: String| ModelError {
                layer: Some(index),
                reason,
            };
            if let Layer::Linear { out } = layer {
                if *out == 0 {
                    return Err(at("`out` is 0: a layer needs at least one output".into()));
                }
                let out = u64::from(*out);
                let weights = width.checked_mul(out).filter(|n| *n <= MAX_ELEMENTS);
                let Some(weights) = weights else {
                    return Err(at(format!(
                        "a weight of {out} × {width} exceeds {MAX_ELEMENTS} values"
                    )));
                };
                parameters += weights + out;
                if parameters > MAX_PARAMETERS {
                    return Err(at(format!(
                        "the model exceeds {MAX_PARAMETERS} parameters here"
                    )));
                }
                width = out;
            }
        }
        Ok(())
    }

    /// The parameters in canonical order. Meaningful once [`ModelSpec::check`] passed.
    pub fn parameters(&self) -> Vec<Parameter> {
        let mut width = self.input_len();
        let mut parameters = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            if let Layer::Linear { out } = layer {
                let out = *out as usize;
                let named = |name: &str, shape| Parameter {
                    layer: index,
                    name: format!("layers.{index}.{name}"),
                    shape,
                };
                parameters.push(named("bias", vec![out]));
                parameters.push(named("weight", vec![out, width]));
                width = out;
            }
        }
        parameters
    }

    /// Number of parameters.
    pub fn parameter_count(&self) -> u64 {
        self.parameters().iter().map(|p| p.len() as u64).sum()
    }

    /// Floating-point operations of one sample's forward pass: two a multiply-add, one an activation.
    pub fn forward_flops(&self) -> u64 {
        let mut width = self.input_len() as u64;
        let mut flops = 0u64;
        for layer in &self.layers {
            match layer {
                Layer::Linear { out } => {
                    flops += 2 * width * u64::from(*out) + u64::from(*out);
                    width = u64::from(*out);
                }
                Layer::Relu {} | Layer::Tanh {} => flops += width,
            }
        }
        flops
    }

    /// Floating-point operations of one sample in training: the forward pass, and as much again for the gradient of each
    /// layer's parameters and of its inputs. Nothing below the first layer with parameters needs a gradient, and that
    /// layer's inputs need none: what nobody computes does not count.
    pub fn training_flops(&self) -> u64 {
        let mut width = self.input_len() as u64;
        let (mut flops, mut is_first) = (0u64, true);
        for layer in &self.layers {
            match layer {
                Layer::Linear { out } => {
                    let out = u64::from(*out);
                    let passes = if is_first { 2 } else { 3 };
                    flops += passes * (2 * width * out + out);
                    (width, is_first) = (out, false);
                }
                Layer::Relu {} | Layer::Tanh {} if is_first => flops += width,
                Layer::Relu {} | Layer::Tanh {} => flops += 2 * width,
            }
        }
        flops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mlp(out: u32) -> ModelSpec {
        ModelSpec {
            input: vec![8, 8],
            layers: vec![
                Layer::Linear { out: 64 },
                Layer::Relu {},
                Layer::Linear { out },
            ],
        }
    }

    #[test]
    fn counts_are_those_of_the_formula() {
        let model = mlp(10);
        model.check().unwrap();
        assert_eq!(model.parameter_count(), 64 * 64 + 64 + 64 * 10 + 10);
        assert_eq!(
            model.forward_flops(),
            2 * 64 * 64 + 64 + 64 + 2 * 64 * 10 + 10
        );
        assert_eq!(
            model.training_flops(),
            2 * (2 * 64 * 64 + 64) + 2 * 64 + 3 * (2 * 64 * 10 + 10),
            "no gradient of the inputs"
        );
        let names: Vec<_> = model.parameters().into_iter().map(|p| p.name).collect();
        assert_eq!(
            names,
            [
                "layers.0.bias",
                "layers.0.weight",
                "layers.2.bias",
                "layers.2.weight"
            ]
        );
    }

    #[test]
    fn what_cannot_be_built_is_refused_with_its_layer() {
        assert_eq!(mlp(0).check().unwrap_err().layer, Some(2));
        assert_eq!(mlp(u32::MAX).check().unwrap_err().layer, Some(2));
        for input in [vec![], vec![0], vec![u32::MAX, u32::MAX], vec![1; 5]] {
            assert!(ModelSpec { input, ..mlp(10) }.check().is_err());
        }
        assert!(
            ModelSpec {
                input: vec![4],
                layers: vec![]
            }
            .check()
            .is_err()
        );
        assert!(
            ModelSpec {
                input: vec![4],
                layers: vec![Layer::Relu {}]
            }
            .check()
            .is_err()
        );
    }
}
