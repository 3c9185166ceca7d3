//! What a layer has and takes: parameters, operations, room.

use super::layer::Layer;
use super::shape::values;

/// What a parameter tensor is, and so how it starts and whether it is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Of a product over so many inputs.
    Weight {
        /// Inputs of one output.
        fan_in: usize,
    },
    /// Added after a product over so many inputs.
    Bias {
        /// Inputs of one output.
        fan_in: usize,
    },
    /// Of an embedding.
    Table,
    /// What a norm multiplies with.
    Scale,
    /// What a norm adds.
    Shift,
    /// A running mean of batches: it follows them, no gradient moves it.
    RunningMean,
    /// A running variance of batches.
    RunningVariance,
}

impl Part {
    /// Whether it follows statistics of batches rather than a gradient.
    pub const fn is_statistic(self) -> bool {
        matches!(self, Self::RunningMean | Self::RunningVariance)
    }
}

/// A tensor of a layer: its name there, its shape.
pub(super) type Tensor = (&'static str, Vec<usize>, Part);

/// A layer where it stands: what it is given, and what it makes of it.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// Its place: an index into the model's layers, then into a residual's.
    pub path: &'a [usize],
    /// The layer.
    pub layer: &'a Layer,
    /// Shape of its input, of one sample.
    pub input: &'a [u32],
    /// Shape of its output.
    pub output: &'a [u32],
}

impl Visit<'_> {
    fn inputs(&self) -> u64 {
        values(self.input).unwrap_or(u64::MAX)
    }

    fn outputs(&self) -> u64 {
        values(self.output).unwrap_or(u64::MAX)
    }

    /// Vectors of the last axis, and their width.
    fn rows(&self) -> (u64, u64) {
        let width = self.input.last().map_or(1, |width| u64::from(*width));
        (self.inputs() / width.max(1), width)
    }

    /// Its tensors by name. Sizes are within bounds where the model's check passed.
    pub(super) fn tensors(&self) -> Vec<Tensor> {
        let size = |at: usize| self.input.get(at).map_or(1, |size| *size as usize);
        let last = size(self.input.len().saturating_sub(1));
        match self.layer {
            Layer::Linear { out, each, bias } => {
                let fan_in = if *each { last } else { self.inputs() as usize };
                linear(["bias", "weight"], *out as usize, fan_in, *bias)
            }
            Layer::Conv2d {
                filters,
                kernel: [height, width],
                groups,
                bias,
                ..
            } => {
                let (filters, channels) = (*filters as usize, size(0) / *groups as usize);
                let [height, width] = [*height as usize, *width as usize];
                let fan_in = channels.saturating_mul(height).saturating_mul(width);
                let weight = vec![filters, channels, height, width];
                let bias = bias.then_some(("bias", vec![filters], Part::Bias { fan_in }));
                let weight = ("weight", weight, Part::Weight { fan_in });
                bias.into_iter().chain([weight]).collect()
            }
            Layer::BatchNorm {} => {
                let channels = || vec![size(0)];
                vec![
                    ("bias", channels(), Part::Shift),
                    ("running_mean", channels(), Part::RunningMean),
                    ("running_var", channels(), Part::RunningVariance),
                    ("weight", channels(), Part::Scale),
                ]
            }
            Layer::LayerNorm { bias } => {
                let shift = bias.then_some(("bias", vec![last], Part::Shift));
                let scale = ("weight", vec![last], Part::Scale);
                shift.into_iter().chain([scale]).collect()
            }
            Layer::RmsNorm {} => vec![("weight", vec![last], Part::Scale)],
            Layer::Embedding {
                rows,
                width,
                positions,
            } => {
                let (rows, width) = (*rows as usize, *width as usize);
                let places = ("positions", vec![size(0), width], Part::Table);
                let table = ("weight", vec![rows, width], Part::Table);
                positions
                    .then_some(places)
                    .into_iter()
                    .chain([table])
                    .collect()
            }
            Layer::Attention { bias, .. } => {
                let mut tensors = linear(["output.bias", "output.weight"], last, last, *bias);
                let wide = last.saturating_mul(3);
                tensors.extend(linear(["qkv.bias", "qkv.weight"], wide, last, *bias));
                tensors
            }
            _ => Vec::new(),
        }
    }

    /// Floating-point operations of a sample's forward pass: two a multiply-add, one an activation
    /// or a value that is moved with arithmetic.
    pub(super) fn forward_flops(&self) -> u64 {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        let (rows, width) = self.rows();
        let add = |bias: bool, many: u64| if bias { many } else { 0 };
        let product = |rows: u64, inner: u64, columns: u64| {
            2u64.saturating_mul(rows)
                .saturating_mul(inner)
                .saturating_mul(columns)
        };
        match self.layer {
            Layer::Linear { out, each, bias } => {
                let (rows, width) = if *each { (rows, width) } else { (1, inputs) };
                product(rows, width, u64::from(*out)).saturating_add(add(*bias, outputs))
            }
            Layer::Conv2d {
                kernel: [height, width],
                groups,
                bias,
                ..
            } => {
                let channels = self.input.first().map_or(1, |channels| channels / groups);
                let depth = u64::from(channels) * u64::from(*height) * u64::from(*width);
                product(1, depth, outputs).saturating_add(add(*bias, outputs))
            }
            Layer::MaxPool { size, .. } | Layer::AvgPool { size, .. } => {
                outputs.saturating_mul(u64::from(size[0]) * u64::from(size[1]))
            }
            Layer::GlobalAvgPool {} => inputs,
            // Mean, squares about it, and the way to the output.
            Layer::BatchNorm {} | Layer::LayerNorm { .. } => outputs.saturating_mul(8),
            Layer::RmsNorm {} => outputs.saturating_mul(5),
            // Largest, difference, exponential, sum, quotient.
            Layer::Softmax {} => outputs.saturating_mul(5),
            Layer::Embedding { positions, .. } => outputs.saturating_add(add(*positions, outputs)),
            Layer::Attention { heads, bias, .. } => {
                let pairs = rows.saturating_mul(rows);
                product(rows, width, width.saturating_mul(4))
                    .saturating_add(add(*bias, outputs.saturating_mul(4)))
                    .saturating_add(product(pairs, width, 2))
                    .saturating_add(pairs.saturating_mul(5 * u64::from(*heads)))
            }
            Layer::Flatten {} | Layer::Reshape { .. } => 0,
            Layer::Residual { .. } | Layer::Dropout { .. } | Layer::Relu {} => outputs,
            Layer::Gelu {} | Layer::GeluTanh {} | Layer::Silu {} => outputs,
            Layer::Tanh {} | Layer::Sigmoid {} => outputs,
        }
    }

    /// Values of a sample that wait from its forward pass for the backward pass, at most.
    pub(super) fn kept_values(&self) -> u64 {
        let outputs = self.outputs();
        match self.layer {
            Layer::Flatten {} | Layer::Reshape { .. } => 0,
            // Queries, keys and values, what the heads found, and two statistics a row of scores.
            Layer::Attention { heads, .. } => {
                let (rows, _) = self.rows();
                outputs
                    .saturating_mul(5)
                    .saturating_add(rows.saturating_mul(2 * u64::from(*heads)))
            }
            // The output, and where it came from.
            Layer::MaxPool { .. } => outputs.saturating_mul(2),
            Layer::BatchNorm {} | Layer::LayerNorm { .. } | Layer::RmsNorm {} => {
                outputs.saturating_add(3 * self.rows().0)
            }
            _ => outputs,
        }
    }
}

fn linear(names: [&'static str; 2], out: usize, fan_in: usize, bias: bool) -> Vec<Tensor> {
    let weight = (names[1], vec![out, fan_in], Part::Weight { fan_in });
    let bias = bias.then_some((names[0], vec![out], Part::Bias { fan_in }));
    bias.into_iter().chain([weight]).collect()
}
