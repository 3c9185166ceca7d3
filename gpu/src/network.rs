//! A model made ready to train on arenas: the forward pass, the loss, and the backward pass over the
//! same graph from its end, with buffers that are kept from step to step.
//!
//! Talks to [`crate::forward`], [`crate::node`] and the kernels below them; [`crate::session`] owns
//! the arenas. Not an autograd: the graph is known before the step, each operation with its derivative.

use std::ops::Range;

use cryptomind_protocol::model::ModelSpec;

use crate::dataset::Samples;
use crate::engine::{Broken, Compute};
use crate::error::EngineError;
use crate::forward::{Forward, Room};
use crate::goal::{Goal, Targets};
use crate::gradient::Gradients;
use crate::graph::{Graph, Node, Op, Purpose};
use crate::kernel::add;
use crate::node::{Draw, Pass};
use crate::product::Update;
use crate::profile::{Phase, Profile, timed};

/// The most values that lie between layers at once, 256 MiB: larger batches pass in parts.
const MAX_BUFFER_VALUES: usize = 1 << 26;
/// The most values that lie between layers for one sample, 1 GiB.
const MAX_SAMPLE_VALUES: u64 = 1 << 28;
/// Gradients of the widest value that are held at once, beside those that residuals hold.
const GRADIENTS_AT_ONCE: u64 = 2;

/// What went wrong in a pass, and in which layer.
pub(crate) struct NotFinite {
    pub(crate) layer: usize,
    pub(crate) what: &'static str,
}

/// What a step is computed from.
#[derive(Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) parameters: &'a [f32],
    pub(crate) data: &'a Samples,
    /// Numbers of the samples.
    pub(crate) batch: &'a [u32],
    /// Whence its randomness comes, with its number.
    pub(crate) seed: u64,
    pub(crate) number: u64,
}

/// A model with its buffers.
pub(crate) struct Network {
    forward: Forward,
    goal: Goal,
    room: Room,
    gradients: Gradients,
    rows_at_once: usize,
    threads: usize,
    /// Where the time goes, where somebody wants to know.
    profile: Option<Profile>,
    /// Of the rows at hand.
    targets: Targets,
    /// Numbers of the rows at hand.
    samples: Vec<u64>,
}

impl Network {
    /// Lays the model out. Buffers grow with the first batch.
    pub(crate) fn new(model: &ModelSpec, threads: usize) -> Result<Self, EngineError> {
        model.check()?;
        let graph = Graph::new(model, Purpose::Training);
        let forward = Forward::new(graph, true);
        let sample_values = sample_values(&forward);
        if sample_values > MAX_SAMPLE_VALUES {
            return Err(EngineError::TooWide {
                values: sample_values,
                limit: MAX_SAMPLE_VALUES,
            });
        }
        Ok(Self {
            room: forward.room(),
            goal: forward.graph.goal(model.loss),
            forward,
            gradients: Gradients::default(),
            rows_at_once: (MAX_BUFFER_VALUES / sample_values as usize).max(1),
            threads: threads.max(1),
            profile: None,
            targets: Targets::default(),
            samples: Vec::new(),
        })
    }

    /// What lies between layers for so many samples, and its gradients, bytes.
    pub(crate) fn batch_bytes(&self, samples: u32) -> u64 {
        let rows = u64::from(samples).min(self.rows_at_once as u64);
        rows.saturating_mul(sample_values(&self.forward) * size_of::<f32>() as u64)
    }

    /// Both passes of some rows.
    fn part(
        &mut self,
        pass: Pass<'_>,
        step: Step<'_>,
        gradients: &mut [f32],
        update: Update,
        on_bucket: &mut dyn FnMut(Range<usize>),
    ) -> Result<f64, NotFinite> {
        let profile = &mut self.profile;
        self.forward.run(pass, &mut self.room, profile, |_, _| ());
        let loss = self.loss();
        if !loss.is_finite() {
            return Err(self.first_broken(pass, step));
        }
        for index in (0..self.forward.graph.nodes.len()).rev() {
            self.backward(index, pass, gradients, update, on_bucket)?;
        }
        Ok(loss)
    }

    /// Fetches the rows of a batch.
    fn gather(&mut self, step: Step<'_>) -> Result<(), EngineError> {
        let Step { data, batch, .. } = step;
        let inputs = self.forward.inputs(&mut self.room);
        data.inputs_of(batch, inputs)?;
        self.forward.graph.check_tokens(inputs, batch)?;
        self.forward.take_tokens(&mut self.room);
        self.targets.gather(&self.goal, data, batch);
        self.samples.clear();
        self.samples.extend(batch.iter().map(|row| u64::from(*row)));
        Ok(())
    }

    /// The loss of the outputs, whose gradient it gives.
    fn loss(&mut self) -> f64 {
        let graph = &self.forward.graph;
        self.gradients.clear(graph.widths.len());
        let outputs = self.forward.outputs(&self.room);
        let mut gradient = self.gradients.lend(outputs.len());
        let loss = self
            .targets
            .loss(&self.goal, outputs, &mut gradient, self.threads);
        self.gradients.give(graph.output, gradient);
        loss
    }

    /// Passes the rows again to find the layer whose output first is not finite.
    fn first_broken(&mut self, pass: Pass<'_>, step: Step<'_>) -> NotFinite {
        let inputs = self.forward.inputs(&mut self.room);
        if step.data.inputs_of(step.batch, inputs).is_err() {
            inputs.clear();
            inputs.resize(pass.rows * self.forward.graph.inputs(), 0.0);
        }
        let mut broken = None;
        self.forward
            .run(pass, &mut self.room, &mut None, |node, output| {
                if broken.is_none() && !all_finite(output) {
                    broken = Some(node.layer);
                }
            });
        let last = self.forward.graph.nodes.last().map_or(0, |node| node.layer);
        NotFinite {
            layer: broken.unwrap_or(last),
            what: if broken.is_some() { "output" } else { "loss" },
        }
    }

    /// The gradients by an operation's parameters, and by its input where anything below is trained.
    fn backward(
        &mut self,
        index: usize,
        pass: Pass<'_>,
        gradients: &mut [f32],
        update: Update,
        on_bucket: &mut dyn FnMut(Range<usize>),
    ) -> Result<(), NotFinite> {
        let node = &self.forward.graph.nodes[index];
        if !node.is_trained {
            return Ok(());
        }
        let room = &mut self.room;
        let buffer = &self.forward.plan.buffer;
        let input = &room.buffers[buffer[node.input]];
        if let Some(upper) = self.gradients.get(node.output) {
            let (memory, scratch) = (&mut room.memories[index], &mut room.scratch);
            let op = &node.op;
            timed(&mut self.profile, op.name(), Phase::Parameters, || {
                op.own_gradient(pass, input, upper, gradients, update, memory, scratch);
            });
        }
        if let Some(bucket) = node.bucket.clone() {
            if !all_finite(&gradients[bucket.clone()]) {
                return Err(NotFinite {
                    layer: node.layer,
                    what: "gradient",
                });
            }
            on_bucket(bucket);
        }
        if let Op::Add { skip } = node.op {
            self.gradients.share(node.output, node.input);
            if self.is_trained(skip) {
                let (output, threads) = (node.output, pass.threads);
                self.share(output, skip, threads);
            }
        } else if self.is_trained(node.input) {
            let mut profile = self.profile.take();
            let name = node.op.name();
            let lower = timed(&mut profile, name, Phase::Input, || self.lower(index, pass));
            self.profile = profile;
            self.gradients
                .give(self.forward.graph.nodes[index].input, lower);
        }
        self.gradients
            .release(self.forward.graph.nodes[index].output);
        Ok(())
    }

    /// Makes the gradient of a sum that of its skipped part, with what others gave that already.
    fn share(&mut self, sum: usize, skip: usize, threads: usize) {
        let gradients = &mut self.gradients;
        let Some(len) = gradients.get(skip).map(<[f32]>::len) else {
            return gradients.share(sum, skip);
        };
        let mut both = gradients.lend(len);
        both.copy_from_slice(gradients.get(skip).unwrap_or_default());
        add::add(&mut both, gradients.get(sum).unwrap_or_default(), threads);
        gradients.release(skip);
        gradients.give(skip, both);
    }

    /// The gradient by an operation's input, with what others gave it already.
    fn lower(&mut self, index: usize, pass: Pass<'_>) -> Vec<f32> {
        let (graph, plan) = (&self.forward.graph, &self.forward.plan);
        let Node {
            op, input, output, ..
        } = &graph.nodes[index];
        let before = &self.room.buffers[plan.buffer[*input]];
        let after = &self.room.buffers[plan.buffer[*output]];
        let in_place = match op.has_gradient_in_place() {
            true => self.gradients.take(*output),
            false => None,
        };
        let mut lower = match in_place {
            Some(mut gradient) => {
                op.gradient_in_place(pass, before, after, &mut gradient);
                gradient
            }
            None => {
                let mut lower = self.gradients.lend(pass.rows * graph.widths[*input]);
                if let Some(upper) = self.gradients.get(*output) {
                    let (memory, scratch) = (&self.room.memories[index], &mut self.room.scratch);
                    let to = &mut lower[..];
                    op.input_gradient(pass, before, after, upper, to, memory, scratch);
                }
                lower
            }
        };
        if let Some(others) = self.gradients.get(*input) {
            add::add(&mut lower, others, pass.threads);
            self.gradients.release(*input);
        }
        lower
    }

    /// Whether a value has a gradient.
    fn is_trained(&self, value: usize) -> bool {
        let nodes = &self.forward.graph.nodes;
        // Each node makes the next value.
        value > 0 && nodes[value - 1].is_trained
    }
}

impl Compute for Network {
    fn graph(&self) -> &Graph {
        &self.forward.graph
    }

    fn gradients(
        &mut self,
        step: Step<'_>,
        gradients: &mut [f32],
        on_bucket: &mut dyn FnMut(Range<usize>),
    ) -> Result<f64, Broken> {
        if step.batch.is_empty() {
            gradients.fill(0.0);
            let nodes = self.graph().nodes.iter().rev();
            nodes
                .filter_map(|node| node.bucket.clone())
                .for_each(on_bucket);
            return Ok(0.0);
        }
        let mut loss = 0.0;
        let parts = step.batch.chunks(self.rows_at_once);
        let last = parts.len() - 1;
        for (index, rows) in parts.enumerate() {
            let update = match index {
                0 => Update::Replace,
                _ => Update::Add,
            };
            let step = Step {
                batch: rows,
                ..step
            };
            self.gather(step)?;
            let samples = std::mem::take(&mut self.samples);
            let tokens = std::mem::take(&mut self.room.tokens);
            let pass = Pass {
                parameters: step.parameters,
                rows: rows.len(),
                tokens: &tokens,
                draw: Draw {
                    seed: step.seed,
                    step: step.number,
                    samples: &samples,
                },
                is_training: true,
                threads: self.threads,
            };
            let mut ignore = |_| ();
            let report: &mut dyn FnMut(Range<usize>) = match index == last {
                true => on_bucket,
                false => &mut ignore,
            };
            let done = self.part(pass, step, gradients, update, report);
            (self.samples, self.room.tokens) = (samples, tokens);
            loss += done?;
        }
        Ok(loss)
    }

    fn goal(&self) -> &Goal {
        &self.goal
    }

    fn profile(&mut self) -> &mut Option<Profile> {
        &mut self.profile
    }
}

/// Values that lie between layers for one sample: those of the plan, and gradients.
fn sample_values(forward: &Forward) -> u64 {
    let widest = forward.graph.widths.iter().max().copied().unwrap_or(0) as u64;
    forward.plan.values() + GRADIENTS_AT_ONCE * widest
}

/// Whether all values are finite. Without early exit, so that it runs on vectors.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let broken = |bits: u32| u32::from(bits & EXPONENT == EXPONENT);
    values.iter().fold(0, |seen, v| seen | broken(v.to_bits())) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::model::{Layer, Loss};

    /// A batch that exceeds the buffers passes in parts; each bucket is still reported once.
    #[test]
    fn parts_of_a_batch_add_up() {
        let model = ModelSpec {
            input: vec![3],
            layers: vec![Layer::linear(4), Layer::Tanh {}, Layer::linear(2)],
            loss: Loss::default(),
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
            let loss = network.gradients(
                Step {
                    parameters: &parameters,
                    data: &data,
                    batch: &batch,
                    seed: 0,
                    number: 0,
                },
                &mut gradients,
                done,
            );
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
