//! A graph's forward pass in the buffers of its plan.

use std::ops::ControlFlow;

use crate::error::EngineError;
use crate::graph::{Graph, Node, Op};
use crate::kernel::add;
use crate::node::{Memory, Pass, Scratch};
use crate::plan::Plan;
use crate::profile::{Phase, Profile, timed};

/// The most values that lie between layers for one sample, 1 GiB.
const MAX_SAMPLE_VALUES: u64 = 1 << 28;
/// The most values of scratch that a thread takes for one sample, 256 MiB.
const MAX_SCRATCH_VALUES: u64 = 1 << 26;

/// A graph with its plan: what many passes share.
pub(crate) struct Forward {
    pub(crate) graph: Graph,
    pub(crate) plan: Plan,
}

/// The buffers of one pass, kept from one to the next.
#[derive(Default)]
pub(crate) struct Room {
    pub(crate) buffers: Vec<Vec<f32>>,
    /// By node.
    pub(crate) memories: Vec<Memory>,
    pub(crate) scratch: Scratch,
    /// The samples as tokens, where the model takes such.
    pub(crate) tokens: Vec<u32>,
}

/// Makes a buffer this long, with any content, and gives it room for `most` values at once. A plain
/// `resize` would double what it has, far beyond what was estimated.
pub(crate) fn fit<T: Clone + Default>(buffer: &mut Vec<T>, len: usize, most: usize) {
    buffer.reserve_exact(most.saturating_sub(buffer.len()));
    buffer.resize(len, T::default());
}

/// Empties a buffer that so many values are about to be added to.
pub(crate) fn empty<T>(buffer: &mut Vec<T>, most: usize) {
    buffer.clear();
    buffer.reserve_exact(most);
}

impl Room {
    /// Bytes of its buffers, filled or not.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let values = self.buffers.iter().map(Vec::capacity).sum::<usize>();
        let memories = self.memories.iter().map(Memory::held_values).sum::<usize>();
        let others = self.scratch.capacity() + self.tokens.capacity();
        (values + memories + others) * size_of::<f32>()
    }
}

impl Forward {
    /// Plans the buffers of a graph; with `backward`, for a backward pass too.
    pub(crate) fn new(graph: Graph, backward: bool) -> Self {
        let plan = Plan::new(&graph, backward);
        Self { graph, plan }
    }

    /// Refuses a model that one sample takes too much room in, of which its buffers, and others' beside
    /// them, take so many values.
    pub(crate) fn check_room(&self, values: u64) -> Result<(), EngineError> {
        let nodes = self.graph.nodes.iter();
        let scratch = nodes.map(|node| {
            let outputs = self.graph.widths[node.output];
            (node.op.scratch(1, outputs, 1) as u64, node.layer)
        });
        match scratch.max() {
            Some((values, layer)) if values > MAX_SCRATCH_VALUES => {
                Err(EngineError::LayerTooWide {
                    layer,
                    values,
                    limit: MAX_SCRATCH_VALUES,
                })
            }
            _ if values > MAX_SAMPLE_VALUES => Err(EngineError::TooWide {
                values,
                limit: MAX_SAMPLE_VALUES,
            }),
            _ => Ok(()),
        }
    }

    /// Buffers, empty yet.
    pub(crate) fn room(&self) -> Room {
        Room {
            buffers: vec![Vec::new(); self.plan.sizes.len()],
            memories: self.graph.nodes.iter().map(|_| Memory::default()).collect(),
            ..Room::default()
        }
    }

    /// Where so many samples go before a pass: empty.
    pub(crate) fn inputs<'a>(&self, room: &'a mut Room, rows: usize) -> &'a mut Vec<f32> {
        let buffer = self.plan.buffer[0];
        let inputs = &mut room.buffers[buffer];
        empty(inputs, rows * self.plan.sizes[buffer]);
        inputs
    }

    /// The samples that lie in the room as tokens, which are whole numbers below the vocabulary.
    pub(crate) fn take_tokens(&self, room: &mut Room) {
        if self.graph.vocabulary.is_some() {
            let inputs = &room.buffers[self.plan.buffer[0]];
            empty(&mut room.tokens, inputs.len());
            room.tokens.extend(inputs.iter().map(|token| *token as u32));
        }
    }

    /// The model's outputs, after a pass.
    pub(crate) fn outputs<'a>(&self, room: &'a Room) -> &'a [f32] {
        self.value(room, self.graph.output)
    }

    /// A value that is kept.
    pub(crate) fn value<'a>(&self, room: &'a Room, value: usize) -> &'a [f32] {
        &room.buffers[self.plan.buffer[value]]
    }

    /// Passes the samples that lie in the room through the graph, and shows each node's output. Breaks off where whoever sees it says so.
    pub(crate) fn run(
        &self,
        pass: Pass<'_>,
        room: &mut Room,
        profile: &mut Option<Profile>,
        mut see: impl FnMut(&Node, &[f32]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let (from, to) = (self.plan.buffer[node.input], self.plan.buffer[node.output]);
            let mut output = std::mem::take(&mut room.buffers[to]);
            timed(profile, node.op.name(), Phase::Forward, || {
                if self.plan.in_place[index] {
                    node.op.forward_in_place(pass, &mut output);
                } else {
                    let len = pass.rows * self.graph.widths[node.output];
                    fit(&mut output, len, pass.rows * self.plan.sizes[to]);
                    let input = &room.buffers[from];
                    let (memory, scratch) = (&mut room.memories[index], &mut room.scratch);
                    node.op.forward(pass, input, &mut output, memory, scratch);
                }
                if let Op::Add { skip } = node.op {
                    let skip = &room.buffers[self.plan.buffer[skip]];
                    add::add(&mut output, skip, pass.threads);
                }
            });
            let seen = see(node, &output);
            room.buffers[to] = output;
            seen?;
        }
        ControlFlow::Continue(())
    }
}
