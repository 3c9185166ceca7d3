//! An operation of a graph on slices: which kernel computes it, forward and backward.

use crate::forward::fit;
use crate::graph::{Graph, Op, Place};
use crate::kernel::dropout::Mask;
use crate::kernel::norm::batch::Running;
use crate::kernel::norm::{Affine, AffineGradient, Seen, batch, rows};
use crate::kernel::{activation, add, attention, conv, dropout, embedding, pool, softmax, sums};
use crate::product::{Matrix, Update, multiply};

/// What all operations of a pass are given.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// The arena.
    pub(crate) parameters: &'a [f32],
    /// Samples.
    pub(crate) rows: usize,
    /// The samples as tokens, where the model takes such.
    pub(crate) tokens: &'a [u32],
    /// What is dropped follows from them.
    pub(crate) draw: Draw<'a>,
    /// Whether batch norms take their batch's statistics. Else linear weights lie as [`lay_out_for_use`] left them.
    pub(crate) is_training: bool,
    pub(crate) threads: usize,
}

/// Whence the randomness of a step comes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Draw<'a> {
    pub(crate) seed: u64,
    pub(crate) step: u64,
    /// Numbers of the samples in the dataset.
    pub(crate) samples: &'a [u64],
}

/// What an operation keeps from its forward pass beside values of the graph.
#[derive(Default)]
pub(crate) struct Memory {
    statistics: Vec<f32>,
    places: Vec<u32>,
    sums: Vec<f32>,
}

impl Memory {
    /// Values for which it has room.
    #[cfg(test)]
    pub(crate) fn held_values(&self) -> usize {
        self.statistics.capacity() + self.places.capacity() + self.sums.capacity()
    }
}

/// Makes a buffer just this long.
fn sized<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    fit(buffer, len, len);
}

/// Room that is lent to kernels. Grows, and is used again.
pub(crate) type Scratch = Vec<f32>;

fn lent(scratch: &mut Scratch, needed: usize) -> &mut [f32] {
    if scratch.len() < needed {
        fit(scratch, needed, needed);
    }
    &mut scratch[..needed]
}

fn part<'a>(parameters: &'a [f32], place: &Place) -> &'a [f32] {
    &parameters[place.clone()]
}

fn parts<'a>(parameters: &'a [f32], place: &Option<Place>) -> Option<&'a [f32]> {
    place.as_ref().map(|place| part(parameters, place))
}

/// Two places of the arena at once, of which the first may be missing.
fn two<'a>(
    arena: &'a mut [f32],
    first: &Option<Place>,
    second: &Place,
) -> (Option<&'a mut [f32]>, &'a mut [f32]) {
    let Some(first) = first else {
        return (None, &mut arena[second.clone()]);
    };
    // In a layer tensors lie by name, so that a bias is before a weight.
    let (low, high) = arena.split_at_mut(second.start);
    (Some(&mut low[first.clone()]), &mut high[..second.len()])
}

/// Transposes the weights of linear operations: products of few rows with them are twice as fast so, and in use
/// nobody needs them otherwise.
pub(crate) fn lay_out_for_use(graph: &Graph, parameters: &mut [f32]) {
    for node in &graph.nodes {
        if let Op::Linear {
            inputs,
            outputs,
            weight,
            ..
        } = &node.op
        {
            let weight = &mut parameters[weight.clone()];
            let stored = weight.to_vec();
            for (place, value) in weight.iter_mut().enumerate() {
                let (input, output) = (place / outputs, place % outputs);
                *value = stored[output * inputs + input];
            }
        }
    }
}

impl Op {
    /// Values that it keeps from its forward pass for the backward pass, beside those of the graph.
    /// `outputs` are the values that it makes of so many rows.
    pub(crate) fn kept(&self, rows: usize, outputs: usize) -> usize {
        match self {
            Self::MaxPool(_) => outputs,
            Self::BatchNorm { shape, .. } => shape.statistics() + 2 * shape.channels,
            Self::RowNorm { shape, .. } => shape.statistics(outputs / shape.width),
            Self::Attention(shape) => shape.statistics(rows),
            _ => 0,
        }
    }

    /// Values of scratch that its kernels are lent at most, in both passes.
    pub(crate) fn scratch(&self, rows: usize, outputs: usize, threads: usize) -> usize {
        match self {
            Self::Linear {
                outputs: width,
                bias: Some(_),
                ..
            } => sums::rows_scratch(outputs / width, *width),
            Self::Conv { shape, .. } => {
                let gradient = conv::weight_gradient_scratch(shape, rows, threads);
                gradient.max(conv::scratch(shape, threads))
            }
            Self::RowNorm { shape, .. } => {
                rows::weight_gradient_scratch(shape, outputs / shape.width)
            }
            Self::Attention(shape) => attention::backward_scratch(shape, rows, threads)
                .max(attention::forward_scratch(shape, rows, threads)),
            _ => 0,
        }
    }

    /// Writes the output for this input.
    pub(crate) fn forward(
        &self,
        pass: Pass<'_>,
        input: &[f32],
        output: &mut [f32],
        memory: &mut Memory,
        scratch: &mut Scratch,
    ) {
        let (parameters, threads) = (pass.parameters, pass.threads);
        match self {
            Self::Linear {
                inputs,
                outputs,
                bias,
                weight,
            } => {
                let update = match parts(parameters, bias) {
                    Some(bias) => {
                        add::fill_rows(output, bias, threads);
                        Update::Add
                    }
                    None => Update::Replace,
                };
                let input = Matrix::new(input, input.len() / inputs, *inputs);
                let weight = part(parameters, weight);
                let weight = match pass.is_training {
                    true => Matrix::new(weight, *outputs, *inputs).transposed(),
                    false => Matrix::new(weight, *inputs, *outputs),
                };
                multiply(output, update, input, weight, threads);
            }
            Self::Conv {
                shape,
                bias,
                weight,
            } => {
                let scratch = lent(scratch, conv::scratch(shape, threads));
                let (weight, bias) = (part(parameters, weight), parts(parameters, bias));
                conv::forward(shape, input, weight, bias, output, scratch, threads);
            }
            Self::MaxPool(shape) => {
                sized(&mut memory.places, output.len());
                pool::max_forward(shape, input, output, &mut memory.places, threads);
            }
            Self::AveragePool(shape) => pool::average_forward(shape, input, output, threads),
            Self::GlobalAveragePool { pixels } => {
                pool::global_average_forward(*pixels, input, output, threads);
            }
            Self::BatchNorm { .. } => self.batch_norm(pass, input, output, memory),
            Self::RowNorm {
                shape,
                bias,
                weight,
            } => {
                let rows = input.len() / shape.width;
                sized(&mut memory.statistics, shape.statistics(rows));
                let affine = Affine {
                    weight: part(parameters, weight),
                    bias: parts(parameters, bias),
                };
                rows::forward(
                    shape,
                    input,
                    affine,
                    output,
                    &mut memory.statistics,
                    threads,
                );
            }
            Self::Embedding {
                shape,
                tokens,
                positions,
                weight,
            } => {
                let table = part(parameters, weight);
                embedding::forward(shape, table, pass.tokens, output, threads);
                if let Some(positions) = parts(parameters, positions) {
                    embedding::add_positions(positions, *tokens, shape.width, output, threads);
                }
            }
            Self::Attention(shape) => {
                sized(&mut memory.statistics, shape.statistics(pass.rows));
                let needed = attention::forward_scratch(shape, pass.rows, threads);
                let scratch = lent(scratch, needed);
                let statistics = &mut memory.statistics;
                attention::forward(shape, input, output, statistics, scratch, threads);
            }
            Self::Function(function) => activation::forward(*function, input, output, threads),
            Self::Softmax { width } => softmax::forward(input, *width, output, threads),
            Self::Dropout { .. } => {
                output.copy_from_slice(input);
                self.drop(pass, output);
            }
            Self::Add { .. } => output.copy_from_slice(input),
        }
    }

    /// Does its work where the input lies; see [`crate::plan`] for which operations can.
    pub(crate) fn forward_in_place(&self, pass: Pass<'_>, values: &mut [f32]) {
        match self {
            Self::Function(function) => {
                activation::forward_in_place(*function, values, pass.threads);
            }
            Self::Dropout { .. } => self.drop(pass, values),
            // What is added comes after.
            _ => {}
        }
    }

    fn drop(&self, pass: Pass<'_>, values: &mut [f32]) {
        let (Self::Dropout { rate, tensor }, false) = (self, values.is_empty()) else {
            return;
        };
        let draw = pass.draw;
        let mask = Mask::new(*rate, draw.seed, tensor, draw.step);
        let width = values.len() / pass.rows;
        dropout::apply(&mask, draw.samples, width, values, pass.threads);
    }

    fn batch_norm(&self, pass: Pass<'_>, input: &[f32], output: &mut [f32], memory: &mut Memory) {
        let Self::BatchNorm {
            shape,
            bias,
            mean,
            variance,
            weight,
        } = self
        else {
            return;
        };
        let affine = Affine {
            weight: part(pass.parameters, weight),
            bias: Some(part(pass.parameters, bias)),
        };
        if pass.is_training {
            sized(&mut memory.statistics, shape.statistics());
            let statistics = &mut memory.statistics;
            batch::forward(shape, input, affine, output, statistics, pass.threads);
        } else {
            let running = Running {
                mean: part(pass.parameters, mean),
                variance: part(pass.parameters, variance),
            };
            batch::evaluate(shape, input, affine, running, output, pass.threads);
        }
    }

    /// Writes or adds the gradient by its own parameters.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn own_gradient(
        &self,
        pass: Pass<'_>,
        input: &[f32],
        upper: &[f32],
        gradients: &mut [f32],
        update: Update,
        memory: &mut Memory,
        scratch: &mut Scratch,
    ) {
        let threads = pass.threads;
        match self {
            Self::Linear {
                inputs,
                outputs,
                bias,
                weight,
            } => {
                let rows = input.len() / inputs;
                let (bias, weight) = two(gradients, bias, weight);
                if let Some(bias) = bias {
                    let scratch = lent(scratch, sums::rows_scratch(rows, *outputs));
                    sums::rows(upper, bias, update, scratch, threads);
                }
                let upper = Matrix::new(upper, rows, *outputs).transposed();
                let input = Matrix::new(input, rows, *inputs);
                multiply(weight, update, upper, input, threads);
            }
            Self::Conv {
                shape,
                bias,
                weight,
            } => {
                let (bias, weight) = two(gradients, bias, weight);
                if let Some(bias) = bias {
                    let [height, width] = shape.output();
                    sums::channels(upper, height * width, bias, update, threads);
                }
                let needed = conv::weight_gradient_scratch(shape, pass.rows, threads);
                let scratch = lent(scratch, needed);
                conv::weight_gradient(shape, input, upper, weight, update, scratch, threads);
            }
            Self::BatchNorm { .. } => {
                self.batch_norm_gradient(pass, input, upper, gradients, update, memory);
            }
            Self::RowNorm {
                shape,
                bias,
                weight,
            } => {
                let rows = input.len() / shape.width;
                let (bias, weight) = two(gradients, bias, weight);
                let seen = Seen {
                    input,
                    statistics: &memory.statistics,
                };
                let scratch = lent(scratch, rows::weight_gradient_scratch(shape, rows));
                let gradient = AffineGradient { weight, bias };
                rows::weight_gradient(shape, seen, upper, gradient, update, scratch, threads);
            }
            Self::Embedding {
                shape,
                tokens,
                positions,
                weight,
            } => {
                let (positions, weight) = two(gradients, positions, weight);
                if let Some(positions) = positions {
                    let width = shape.width;
                    embedding::positions_backward(
                        *tokens, width, upper, positions, update, threads,
                    );
                }
                embedding::backward(shape, pass.tokens, upper, weight, update, threads);
            }
            _ => {}
        }
    }

    fn batch_norm_gradient(
        &self,
        pass: Pass<'_>,
        input: &[f32],
        upper: &[f32],
        gradients: &mut [f32],
        update: Update,
        memory: &mut Memory,
    ) {
        let Self::BatchNorm {
            shape,
            bias,
            mean,
            variance,
            weight,
        } = self
        else {
            return;
        };
        sized(&mut memory.sums, 2 * shape.channels);
        // bias, running_mean, running_var, weight lie one after the other.
        let (low, high) = gradients.split_at_mut(mean.start);
        let (means, rest) = high.split_at_mut(mean.len());
        let (variances, rest) = rest.split_at_mut(variance.len());
        let gradient = AffineGradient {
            weight: &mut rest[..weight.len()],
            bias: Some(&mut low[bias.clone()]),
        };
        let statistics = &memory.statistics;
        let (sums, seen) = (&mut memory.sums, Seen { input, statistics });
        batch::weight_gradient(shape, seen, upper, gradient, update, sums, pass.threads);
        let running = Running {
            mean: part(pass.parameters, mean),
            variance: part(pass.parameters, variance),
        };
        let sums = Running {
            mean: means,
            variance: variances,
        };
        batch::moments(shape, statistics, running, pass.rows, update, sums);
    }

    /// Writes the gradient by its input. After [`Op::own_gradient`].
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn input_gradient(
        &self,
        pass: Pass<'_>,
        input: &[f32],
        output: &[f32],
        upper: &[f32],
        lower: &mut [f32],
        memory: &Memory,
        scratch: &mut Scratch,
    ) {
        let (parameters, threads) = (pass.parameters, pass.threads);
        match self {
            Self::Linear {
                inputs,
                outputs,
                weight,
                ..
            } => {
                let upper = Matrix::new(upper, upper.len() / outputs, *outputs);
                let weight = Matrix::new(part(parameters, weight), *outputs, *inputs);
                multiply(lower, Update::Replace, upper, weight, threads);
            }
            Self::Conv { shape, weight, .. } => {
                let scratch = lent(scratch, conv::scratch(shape, threads));
                let weight = part(parameters, weight);
                conv::input_gradient(shape, weight, upper, lower, scratch, threads);
            }
            Self::MaxPool(shape) => {
                pool::max_backward(shape, &memory.places, upper, lower, threads);
            }
            Self::AveragePool(shape) => pool::average_backward(shape, upper, lower, threads),
            Self::GlobalAveragePool { pixels } => {
                pool::global_average_backward(*pixels, upper, lower, threads);
            }
            Self::BatchNorm { shape, weight, .. } => {
                let seen = Seen {
                    input,
                    statistics: &memory.statistics,
                };
                let (weight, sums) = (part(parameters, weight), &memory.sums);
                batch::input_gradient(shape, seen, weight, sums, upper, lower, threads);
            }
            Self::RowNorm { shape, weight, .. } => {
                let seen = Seen {
                    input,
                    statistics: &memory.statistics,
                };
                let weight = part(parameters, weight);
                rows::input_gradient(shape, seen, weight, upper, lower, threads);
            }
            Self::Attention(shape) => {
                let needed = attention::backward_scratch(shape, pass.rows, threads);
                let scratch = lent(scratch, needed);
                let statistics = &memory.statistics;
                attention::backward(shape, input, statistics, upper, lower, scratch, threads);
            }
            Self::Softmax { width } => softmax::backward(output, *width, upper, lower, threads),
            Self::Function(_) | Self::Dropout { .. } => {
                lower.copy_from_slice(upper);
                self.gradient_in_place(pass, input, output, lower);
            }
            // Tokens have no gradient; a sum's is that of both parts.
            Self::Embedding { .. } | Self::Add { .. } => {}
        }
    }

    /// Whether [`Op::gradient_in_place`] does it.
    pub(crate) fn has_gradient_in_place(&self) -> bool {
        matches!(self, Self::Function(_) | Self::Dropout { .. })
    }

    /// Makes the gradient by its output that by its input.
    pub(crate) fn gradient_in_place(
        &self,
        pass: Pass<'_>,
        input: &[f32],
        output: &[f32],
        gradient: &mut [f32],
    ) {
        match self {
            Self::Function(function) => {
                let saved = match function.saved() {
                    activation::Saved::Input => input,
                    activation::Saved::Output => output,
                };
                activation::backward_in_place(*function, saved, gradient, pass.threads);
            }
            Self::Dropout { .. } => self.drop(pass, gradient),
            _ => {}
        }
    }
}
