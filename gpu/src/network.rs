//! A model made ready to run on arenas: where each layer's parameters lie, the forward pass and the
//! backward pass by hand, and the buffers between the layers, which are kept from step to step.
//!
//! Talks to [`crate::product`] and [`crate::kernel`]; [`crate::session`] owns the arenas. Not an
//! autograd: the layers are those of the protocol, each with its derivative.

use std::ops::Range;

use cryptomind_protocol::model::{Layer, ModelSpec};

use crate::dataset::{DataError, Samples};
use crate::error::EngineError;
use crate::kernel::activation::{self, Activation};
use crate::kernel::{loss, sums};
use crate::product::{Matrix, Update, multiply};

/// The most values that lie between layers at once, 256 MiB: larger batches pass in parts.
const MAX_BUFFER_VALUES: usize = 1 << 26;
/// The most values that lie between layers for one sample, 1 GiB.
const MAX_SAMPLE_VALUES: u64 = 1 << 28;

enum Kind {
    Linear {
        bias: Range<usize>,
        weight: Range<usize>,
    },
    /// Of each value, with a derivative that follows from its output.
    Function(Activation),
}

struct Node {
    kind: Kind,
    inputs: usize,
    outputs: usize,
}

/// What went wrong in a pass, and in which layer.
pub(crate) struct NotFinite {
    pub(crate) layer: usize,
    pub(crate) what: &'static str,
}

/// Why a pass did not come to its end.
pub(crate) enum Broken {
    NotFinite(NotFinite),
    /// The samples cannot be read.
    Data(DataError),
}

impl From<NotFinite> for Broken {
    fn from(broken: NotFinite) -> Self {
        Self::NotFinite(broken)
    }
}

impl From<DataError> for Broken {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

/// A model with its buffers.
pub(crate) struct Network {
    nodes: Vec<Node>,
    /// Layers before this one have no parameters: no gradient goes further down.
    first_trained: usize,
    rows_at_once: usize,
    threads: usize,
    /// Inputs, then each layer's outputs, of the rows at hand.
    values: Vec<Vec<f32>>,
    /// Gradient by the outputs of the layer at hand, and by its inputs.
    upper: Vec<f32>,
    lower: Vec<f32>,
    /// Labels of the rows at hand.
    labels: Vec<u32>,
    /// Lent to kernels.
    scratch: Vec<f32>,
}

impl Network {
    /// Lays the model out. Buffers grow with the first batch.
    pub(crate) fn new(model: &ModelSpec, threads: usize) -> Result<Self, EngineError> {
        model.check()?;
        let nodes = lay_out(model);
        let sample_values = sample_values(&nodes);
        if sample_values > MAX_SAMPLE_VALUES {
            return Err(EngineError::TooWide {
                values: sample_values,
                limit: MAX_SAMPLE_VALUES,
            });
        }
        let is_linear = |node: &Node| matches!(node.kind, Kind::Linear { .. });
        Ok(Self {
            first_trained: nodes.iter().position(is_linear).unwrap_or(0),
            rows_at_once: (MAX_BUFFER_VALUES / sample_values as usize).max(1),
            threads: threads.max(1),
            values: vec![Vec::new(); nodes.len() + 1],
            upper: Vec::new(),
            lower: Vec::new(),
            labels: Vec::new(),
            scratch: Vec::new(),
            nodes,
        })
    }

    /// Values of one sample.
    pub(crate) fn inputs(&self) -> usize {
        self.nodes.first().map_or(0, |node| node.inputs)
    }

    /// Classes that the last layer tells apart.
    pub(crate) fn outputs(&self) -> usize {
        self.nodes.last().map_or(0, |node| node.outputs)
    }

    /// The layer to which this place of the arena belongs.
    pub(crate) fn layer_at(&self, place: usize) -> usize {
        let holds = |node: &Node| node.bucket().is_some_and(|bucket| bucket.contains(&place));
        self.nodes.iter().position(holds).unwrap_or(0)
    }

    /// The sum of the losses of these rows; `gradients` receives the sums of the gradients, and
    /// `on_bucket` the range of each layer when it is final, last layer first.
    pub(crate) fn gradients(
        &mut self,
        parameters: &[f32],
        data: &Samples,
        batch: &[u32],
        gradients: &mut [f32],
        on_bucket: &mut dyn FnMut(Range<usize>),
    ) -> Result<f64, Broken> {
        if batch.is_empty() {
            gradients.fill(0.0);
            self.buckets().for_each(on_bucket);
            return Ok(0.0);
        }
        let mut loss = 0.0;
        let parts = batch.chunks(self.rows_at_once);
        let last = parts.len() - 1;
        for (index, rows) in parts.enumerate() {
            let update = if index == 0 {
                Update::Replace
            } else {
                Update::Add
            };
            self.forward(parameters, data, rows)?;
            loss += self.loss(data, rows)?;
            let mut ignore = |_| ();
            let report: &mut dyn FnMut(Range<usize>) = if index == last {
                on_bucket
            } else {
                &mut ignore
            };
            self.backward(parameters, rows.len(), gradients, update, report)?;
        }
        Ok(loss)
    }

    fn buckets(&self) -> impl Iterator<Item = Range<usize>> {
        self.nodes.iter().rev().filter_map(Node::bucket)
    }

    fn forward(
        &mut self,
        parameters: &[f32],
        data: &Samples,
        rows: &[u32],
    ) -> Result<(), DataError> {
        data.inputs_of(rows, &mut self.values[0])?;
        for (index, node) in self.nodes.iter().enumerate() {
            let (before, after) = self.values.split_at_mut(index + 1);
            let (input, output) = (&before[index], &mut after[0]);
            output.resize(rows.len() * node.outputs, 0.0);
            node.forward(parameters, input, output, rows.len(), self.threads);
        }
        Ok(())
    }

    fn loss(&mut self, data: &Samples, rows: &[u32]) -> Result<f64, NotFinite> {
        let classes = self.outputs();
        let logits = &self.values[self.nodes.len()];
        self.upper.resize(logits.len(), 0.0);
        data.labels_of(rows, &mut self.labels);
        let (labels, gradient) = (&self.labels, &mut self.upper);
        let loss = loss::cross_entropy(logits, labels, classes, gradient, self.threads);
        match loss.is_finite() {
            true => Ok(loss),
            false => Err(self.first_broken()),
        }
    }

    /// Looks for the layer whose output first was not finite.
    fn first_broken(&self) -> NotFinite {
        let broken = self.values[1..]
            .iter()
            .position(|values| !all_finite(values));
        NotFinite {
            layer: broken.unwrap_or(self.nodes.len() - 1),
            what: if broken.is_some() { "output" } else { "loss" },
        }
    }

    fn backward(
        &mut self,
        parameters: &[f32],
        rows: usize,
        gradients: &mut [f32],
        update: Update,
        on_bucket: &mut dyn FnMut(Range<usize>),
    ) -> Result<(), NotFinite> {
        for index in (self.first_trained..self.nodes.len()).rev() {
            let node = &self.nodes[index];
            if let Some(bucket) = node.bucket() {
                let pass = Pass {
                    rows,
                    update,
                    threads: self.threads,
                };
                let input = &self.values[index];
                node.own_gradient(input, &self.upper, gradients, pass, &mut self.scratch);
                if !all_finite(&gradients[bucket.clone()]) {
                    return Err(NotFinite {
                        layer: index,
                        what: "gradient",
                    });
                }
                on_bucket(bucket);
            }
            if index > self.first_trained {
                self.lower.resize(rows * node.inputs, 0.0);
                let output = &self.values[index + 1];
                let (upper, lower) = (&self.upper, &mut self.lower);
                node.input_gradient(parameters, output, upper, lower, rows, self.threads);
                std::mem::swap(&mut self.upper, &mut self.lower);
            }
        }
        Ok(())
    }
}

fn lay_out(model: &ModelSpec) -> Vec<Node> {
    let mut width = model.input_len();
    let mut place = 0;
    let mut take = |len: usize| {
        place += len;
        place - len..place
    };
    let mut nodes = Vec::with_capacity(model.layers.len());
    for layer in &model.layers {
        let (inputs, outputs) = (width, layer_width(layer, width));
        let kind = match layer {
            // The canonical order within a layer is by name: bias, weight.
            Layer::Linear { .. } => Kind::Linear {
                bias: take(outputs),
                weight: take(outputs * inputs),
            },
            Layer::Relu {} => Kind::Function(Activation::Relu),
            Layer::Tanh {} => Kind::Function(Activation::Tanh),
        };
        nodes.push(Node {
            kind,
            inputs,
            outputs,
        });
        width = outputs;
    }
    nodes
}

fn layer_width(layer: &Layer, input: usize) -> usize {
    match layer {
        Layer::Linear { out } => *out as usize,
        Layer::Relu {} | Layer::Tanh {} => input,
    }
}

/// Values that lie between layers for one sample: all outputs, and two gradients.
fn sample_values(nodes: &[Node]) -> u64 {
    let widest = nodes.iter().map(|node| node.inputs.max(node.outputs)).max();
    let outputs: u64 = nodes.iter().map(|node| node.outputs as u64).sum();
    let inputs = nodes.first().map_or(0, |node| node.inputs as u64);
    inputs + outputs + 2 * widest.unwrap_or(0) as u64
}

/// Whether all values are finite. Without early exit, so that it runs on vectors.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let broken = |bits: u32| u32::from(bits & EXPONENT == EXPONENT);
    values.iter().fold(0, |seen, v| seen | broken(v.to_bits())) == 0
}

/// How a layer's gradient is computed.
#[derive(Clone, Copy)]
struct Pass {
    rows: usize,
    update: Update,
    threads: usize,
}

impl Node {
    /// Where its parameters lie.
    fn bucket(&self) -> Option<Range<usize>> {
        match &self.kind {
            Kind::Linear { bias, weight } => Some(bias.start..weight.end),
            Kind::Function(_) => None,
        }
    }

    fn forward(
        &self,
        parameters: &[f32],
        input: &[f32],
        output: &mut [f32],
        rows: usize,
        threads: usize,
    ) {
        match &self.kind {
            Kind::Linear { bias, weight } => {
                let bias = &parameters[bias.clone()];
                output
                    .chunks_exact_mut(self.outputs)
                    .for_each(|row| row.copy_from_slice(bias));
                let input = Matrix::new(input, rows, self.inputs);
                let weight = Matrix::new(&parameters[weight.clone()], self.outputs, self.inputs);
                multiply(output, Update::Add, input, weight.transposed(), threads);
            }
            Kind::Function(function) => activation::forward(*function, input, output, threads),
        }
    }

    /// Gradient by its own parameters: the outer products and the column sums.
    fn own_gradient(
        &self,
        input: &[f32],
        upper: &[f32],
        gradients: &mut [f32],
        Pass {
            rows,
            update,
            threads,
        }: Pass,
        scratch: &mut Vec<f32>,
    ) {
        let Kind::Linear { bias, weight } = &self.kind else {
            return;
        };
        scratch.resize(sums::rows_scratch(rows, self.outputs), 0.0);
        let sum = &mut gradients[bias.clone()];
        sums::rows(upper, sum, update, scratch, threads);
        let upper = Matrix::new(upper, rows, self.outputs).transposed();
        let input = Matrix::new(input, rows, self.inputs);
        let product = &mut gradients[weight.clone()];
        multiply(product, update, upper, input, threads);
    }

    /// Gradient by its inputs.
    fn input_gradient(
        &self,
        parameters: &[f32],
        output: &[f32],
        upper: &[f32],
        lower: &mut [f32],
        rows: usize,
        threads: usize,
    ) {
        match &self.kind {
            Kind::Linear { weight, .. } => {
                let upper = Matrix::new(upper, rows, self.outputs);
                let weight = Matrix::new(&parameters[weight.clone()], self.outputs, self.inputs);
                multiply(lower, Update::Replace, upper, weight, threads);
            }
            Kind::Function(function) => {
                activation::backward(*function, output, upper, lower, threads);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch that exceeds the buffers passes in parts; each bucket is still reported once.
    #[test]
    fn parts_of_a_batch_add_up() {
        let model = ModelSpec {
            input: vec![3],
            layers: vec![
                Layer::Linear { out: 4 },
                Layer::Tanh {},
                Layer::Linear { out: 2 },
            ],
        };
        let inputs = (0..30).map(|i| (i % 7) as f32 - 3.0).collect();
        let data = Samples::labelled(inputs, (0..10).map(|i| i % 2).collect(), 3, 2);
        let parameters = crate::initial::parameters(&model, 0);
        let run = |rows_at_once| {
            let mut network = Network::new(&model, 1).unwrap();
            network.rows_at_once = rows_at_once;
            let mut gradients = vec![f32::NAN; parameters.len()];
            let mut buckets = Vec::new();
            let batch: Vec<u32> = (0..10).collect();
            let done = &mut |bucket| buckets.push(bucket);
            let loss = network.gradients(&parameters, &data, &batch, &mut gradients, done);
            (loss.unwrap_or(f64::NAN), gradients, buckets)
        };
        let (loss, gradients, buckets) = run(10);
        assert_eq!(buckets, [16..26, 0..16]);
        for rows in [1, 3, 9] {
            let parts = run(rows);
            assert!((parts.0 - loss).abs() < 1e-5);
            assert_eq!(parts.2, buckets);
            for (got, want) in parts.1.iter().zip(&gradients) {
                assert!((got - want).abs() < 1e-4, "{rows} rows: {got} for {want}");
            }
        }
    }
}
