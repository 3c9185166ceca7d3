//! A model made ready to train on arenas: the forward pass, the loss, and the backward pass over the
//! same graph from its end, with buffers that are kept from step to step.
//!
//! Talks to [`crate::forward`], [`crate::node`] and the kernels below them; [`crate::session`] owns
//! the arenas. Not an autograd: the graph is known before the step, each operation with its derivative.

use std::ops::ControlFlow;

use cryptomind_protocol::model::ModelSpec;

use crate::bucket::{Bucket, OnBucket};
use crate::dataset::Samples;
use crate::engine::{Brake, Broken, Compute};
use crate::error::EngineError;
use crate::forward::{Forward, Room, empty};
use crate::goal::{Goal, Targets};
use crate::gradient::{Gradient, Gradients};
use crate::graph::{Graph, Node, Op, Purpose};
use crate::kernel::add;
use crate::kernel::finite::all_finite;
use crate::node::{Draw, Pass};
use crate::product::Update;
use crate::profile::{Phase, Profile, timed};

/// The most values that lie between layers at once, 256 MiB: larger batches pass in parts.
const MAX_BUFFER_VALUES: usize = 1 << 26;
/// Kernels cut a batch into parts of a number that a smaller batch may exceed, but none larger than this.
const MOST_PARTS: usize = 64;

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
    brake: Option<Brake>,
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
        let gradients = Gradients::new(&forward.graph);
        let sample_values = forward.plan.values() + gradients.room();
        forward.check_room(sample_values)?;
        Ok(Self {
            room: forward.room(),
            goal: forward.graph.goal(model.loss),
            forward,
            gradients,
            rows_at_once: (MAX_BUFFER_VALUES / sample_values as usize).max(1),
            threads: threads.max(1),
            profile: None,
            brake: None,
            targets: Targets::default(),
            samples: Vec::new(),
        })
    }

    /// What lies between layers for so many samples or fewer, what operations keep of it, and its
    /// gradients, bytes.
    pub(crate) fn batch_bytes(&self, samples: u32) -> u64 {
        let rows = self.rows(samples);
        let Forward { graph, plan } = &self.forward;
        let tokens = graph.vocabulary.map_or(0, |_| graph.inputs());
        let one = plan.values()
            + self.gradients.room()
            + (tokens + Targets::values_of_one(&self.goal)) as u64;
        let kept = graph.nodes.iter().map(|node| {
            let outputs = rows * graph.widths[node.output];
            node.op.kept(rows, outputs) as u64
        });
        let values = (rows as u64).saturating_mul(one) + kept.sum::<u64>();
        let numbers = rows as u64 * size_of::<u64>() as u64;
        values.saturating_mul(size_of::<f32>() as u64) + numbers
    }

    /// What kernels are lent beside for so many samples or fewer, bytes.
    pub(crate) fn scratch_bytes(&self, samples: u32) -> u64 {
        let (graph, rows) = (&self.forward.graph, self.rows(samples));
        let of = |rows: usize| {
            let nodes = graph.nodes.iter();
            let needed = nodes.map(|node| {
                let outputs = rows * graph.widths[node.output];
                node.op.scratch(rows, outputs, self.threads)
            });
            needed.max().unwrap_or(0)
        };
        let few = (1..=rows.min(MOST_PARTS)).map(of).max();
        of(rows).max(few.unwrap_or(0)) as u64 * size_of::<f32>() as u64
    }

    /// Samples of so many that pass at once.
    fn rows(&self, samples: u32) -> usize {
        (samples as usize).min(self.rows_at_once)
    }

    /// Bytes of all buffers, filled or not.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.room.held_bytes()
            + self.gradients.held_bytes()
            + self.targets.held_bytes()
            + self.samples.capacity() * size_of::<u64>()
    }

    /// Both passes of some rows.
    fn part(
        &mut self,
        pass: Pass<'_>,
        step: Step<'_>,
        gradients: &mut [f32],
        update: Update,
        on_bucket: OnBucket<'_>,
    ) -> Result<f64, Broken> {
        let (profile, brake) = (&mut self.profile, &self.brake);
        let run = self
            .forward
            .run(pass, &mut self.room, profile, |_, _| match is_set(brake) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            });
        if run.is_break() {
            return Err(EngineError::Stopped.into());
        }
        let loss = self.loss();
        if !loss.is_finite() {
            return Err(self.first_broken(pass, step)?.into());
        }
        for index in (0..self.forward.graph.nodes.len()).rev() {
            self.backward(index, pass, gradients, update, on_bucket)?;
            if index > 0 && is_set(&self.brake) {
                return Err(EngineError::Stopped.into());
            }
        }
        Ok(loss)
    }

    /// Fetches the rows of a batch.
    fn gather(&mut self, step: Step<'_>) -> Result<(), EngineError> {
        let Step { data, batch, .. } = step;
        let inputs = self.forward.inputs(&mut self.room, batch.len());
        data.inputs_of(batch, inputs)?;
        self.forward.graph.check_tokens(inputs, batch)?;
        self.forward.take_tokens(&mut self.room);
        self.targets.gather(&self.goal, data, batch);
        empty(&mut self.samples, batch.len());
        self.samples.extend(batch.iter().map(|row| u64::from(*row)));
        Ok(())
    }

    /// The loss of the outputs, whose gradient it gives.
    fn loss(&mut self) -> f64 {
        let graph = &self.forward.graph;
        self.gradients.clear(graph.widths.len());
        let outputs = self.forward.outputs(&self.room);
        let width = graph.widths[graph.output];
        let mut gradient = self.gradients.lend(width, outputs.len() / width);
        let to = &mut gradient.values;
        let loss = self.targets.loss(&self.goal, outputs, to, self.threads);
        self.gradients.give(graph.output, gradient);
        loss
    }

    /// Passes the rows again to find the layer whose output first is not finite.
    fn first_broken(&mut self, pass: Pass<'_>, step: Step<'_>) -> Result<NotFinite, EngineError> {
        // Where the inputs lay, something else may lie by now.
        let inputs = self.forward.inputs(&mut self.room, pass.rows);
        step.data.inputs_of(step.batch, inputs)?;
        let mut broken = None;
        let _ = self
            .forward
            .run(pass, &mut self.room, &mut None, |node, output| {
                if all_finite(output, pass.threads) {
                    return ControlFlow::Continue(());
                }
                broken = Some(node.layer);
                ControlFlow::Break(())
            });
        let last = self.forward.graph.nodes.last().map_or(0, |node| node.layer);
        Ok(NotFinite {
            layer: broken.unwrap_or(last),
            what: if broken.is_some() { "output" } else { "loss" },
        })
    }

    /// The gradients by an operation's parameters, and by its input where anything below is trained.
    fn backward(
        &mut self,
        index: usize,
        pass: Pass<'_>,
        gradients: &mut [f32],
        update: Update,
        on_bucket: OnBucket<'_>,
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
            if !all_finite(&gradients[bucket.clone()], pass.threads) {
                return Err(NotFinite {
                    layer: node.layer,
                    what: "gradient",
                });
            }
            let values = &gradients[bucket.clone()];
            on_bucket(Bucket {
                range: bucket,
                values,
            });
        }
        if let Op::Add { skip } = node.op {
            for part in [node.input, skip] {
                if self.forward.graph.is_trained(part) {
                    let size = (self.forward.graph.widths[part], pass.rows);
                    let add = |both: &mut [f32], sum: &[f32]| add::add(both, sum, pass.threads);
                    self.gradients.share_sum(node.output, part, size, add);
                }
            }
        } else if self.forward.graph.is_trained(node.input) {
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

    /// The gradient by an operation's input, with what others gave it already.
    fn lower(&mut self, index: usize, pass: Pass<'_>) -> Gradient {
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
                op.gradient_in_place(pass, before, after, &mut gradient.values);
                gradient
            }
            None => {
                let mut lower = self.gradients.lend(graph.widths[*input], pass.rows);
                if let Some(upper) = self.gradients.get(*output) {
                    let (memory, scratch) = (&self.room.memories[index], &mut self.room.scratch);
                    let to = &mut lower.values[..];
                    op.input_gradient(pass, before, after, upper, to, memory, scratch);
                }
                lower
            }
        };
        if let Some(others) = self.gradients.get(*input) {
            add::add(&mut lower.values, others, pass.threads);
            self.gradients.release(*input);
        }
        lower
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
        on_bucket: OnBucket<'_>,
    ) -> Result<f64, Broken> {
        if step.batch.is_empty() {
            gradients.fill(0.0);
            let nodes = self.graph().nodes.iter().rev();
            for range in nodes.filter_map(|node| node.bucket.clone()) {
                let values = &gradients[range.clone()];
                on_bucket(Bucket { range, values });
            }
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
            let mut ignore = |_: Bucket<'_>| ();
            let report: OnBucket<'_> = match index == last {
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

    fn brake(&mut self) -> &mut Option<Brake> {
        &mut self.brake
    }
}

fn is_set(brake: &Option<Brake>) -> bool {
    brake.as_ref().is_some_and(|brake| brake())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::tests::layers::{
        classed, dropping, images, pooled, sequences, without_batch_norm,
    };
    use cryptomind_protocol::model::{Layer, Loss};

    /// Dropout goes by the sample, so that parts drop what the whole does.
    #[test]
    fn parts_of_a_batch_add_up_in_every_layer() {
        for model in [images(), sequences(), pooled()].map(dropping) {
            let model = without_batch_norm(model);
            let data = classed(&model, 11);
            let parameters = crate::initial::parameters(&model, 2);
            let batch: Vec<u32> = (0..11).rev().collect();
            let run = |rows_at_once| {
                let mut network = Network::new(&model, 2).unwrap();
                network.rows_at_once = rows_at_once;
                let mut gradients = vec![f32::NAN; parameters.len()];
                let step = Step {
                    parameters: &parameters,
                    data: &data,
                    batch: &batch,
                    seed: 3,
                    number: 4,
                };
                let loss = network.gradients(step, &mut gradients, &mut |_| ());
                (loss.unwrap_or(f64::NAN), gradients)
            };
            let (loss, whole) = run(11);
            for rows in [1, 2, 4, 10] {
                let (part_loss, parts) = run(rows);
                assert!((part_loss - loss).abs() < 1e-5 * loss, "{rows} rows");
                for (got, want) in parts.iter().zip(&whole) {
                    let off = (got - want).abs();
                    assert!(off < 1e-5 * want.abs().max(1.0), "{got} for {want}");
                }
            }
        }
    }

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
            let done = &mut |bucket: Bucket<'_>| buckets.push(bucket.range);
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
