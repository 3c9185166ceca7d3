//! Gradients by the values of a graph during a backward pass, in buffers that are used again.
//!
//! Both parts of a sum have the sum's gradient: they share one buffer until one of them changes it.
//! How large each buffer is follows from the graph alone: the pass is rehearsed without samples, so
//! that no step, whatever its size, finds one too small.

use crate::forward::fit;
use crate::graph::{Graph, Node, Op};

/// The gradient by a value, in a buffer with room for more values of a sample perhaps.
#[derive(Debug)]
pub(crate) struct Gradient {
    pub(crate) values: Vec<f32>,
    /// Values of one sample that it has room for.
    room: usize,
}

/// The gradients at hand.
#[derive(Default)]
pub(crate) struct Gradients {
    buffers: Vec<Gradient>,
    /// How many values each buffer is the gradient of.
    uses: Vec<usize>,
    /// The buffer of each value's gradient.
    of: Vec<Option<usize>>,
}

impl Gradients {
    /// The buffers of this graph's backward pass.
    pub(crate) fn new(graph: &Graph) -> Self {
        let mut gradients = Self::default();
        // A buffer that was made larger may be given to another value the next time.
        loop {
            let before = gradients.room();
            gradients.rehearse(graph);
            if gradients.room() == before {
                return gradients;
            }
        }
    }

    /// Lends and gives as the backward pass of [`crate::network`] does.
    fn rehearse(&mut self, graph: &Graph) {
        self.clear(graph.widths.len());
        let last = self.lend(graph.widths[graph.output], 0);
        self.give(graph.output, last);
        for node in graph.nodes.iter().rev().filter(|node| node.is_trained) {
            let Node {
                op, input, output, ..
            } = node;
            if let Op::Add { skip } = op {
                for part in [*input, *skip] {
                    if graph.is_trained(part) {
                        self.share_sum(*output, part, (graph.widths[part], 0), |_, _| ());
                    }
                }
            } else if graph.is_trained(*input) {
                let own = op.has_gradient_in_place().then(|| self.take(*output));
                let lower = own.flatten();
                let lower = lower.unwrap_or_else(|| self.lend(graph.widths[*input], 0));
                self.release(*input);
                self.give(*input, lower);
            }
            self.release(*output);
        }
    }

    /// Values of one sample in all buffers.
    pub(crate) fn room(&self) -> u64 {
        self.buffers.iter().map(|buffer| buffer.room as u64).sum()
    }

    /// Forgets all gradients of a graph of so many values.
    pub(crate) fn clear(&mut self, values: usize) {
        self.uses.fill(0);
        self.of.clear();
        self.of.resize(values, None);
    }

    /// A free buffer for so many values of each of so many samples, with any content. It is nobody's
    /// before it is given.
    pub(crate) fn lend(&mut self, width: usize, rows: usize) -> Gradient {
        let free = (0..self.buffers.len()).filter(|at| self.uses[*at] == 0);
        let best = free.min_by_key(|at| {
            let has = self.buffers[*at].room;
            (has < width, has.abs_diff(width))
        });
        let mut buffer = match best {
            Some(at) => self.remove(at),
            None => Gradient {
                values: Vec::new(),
                room: 0,
            },
        };
        buffer.room = buffer.room.max(width);
        fit(&mut buffer.values, width * rows, buffer.room * rows);
        buffer
    }

    /// Takes a buffer out; the last one takes its place.
    fn remove(&mut self, at: usize) -> Gradient {
        self.uses.swap_remove(at);
        let last = self.uses.len();
        let places = self.of.iter_mut().flatten();
        places
            .filter(|place| **place == last)
            .for_each(|place| *place = at);
        self.buffers.swap_remove(at)
    }

    /// Makes this buffer the gradient of a value.
    pub(crate) fn give(&mut self, value: usize, gradient: Gradient) {
        self.of[value] = Some(self.buffers.len());
        self.buffers.push(gradient);
        self.uses.push(1);
    }

    /// Makes the gradient of one value that of another too, which has none yet.
    fn share(&mut self, from: usize, to: usize) {
        if let Some(buffer) = self.of[from] {
            self.of[to] = Some(buffer);
            self.uses[buffer] += 1;
        }
    }

    /// Makes the gradient of a sum that of one of its parts; to what others gave that already, as both
    /// parts may be one value, `add` adds it. `size` is that of the part: values of a sample, and samples.
    pub(crate) fn share_sum(
        &mut self,
        sum: usize,
        part: usize,
        (width, rows): (usize, usize),
        add: impl FnOnce(&mut [f32], &[f32]),
    ) {
        if self.of[part].is_none() {
            return self.share(sum, part);
        }
        let mut both = self.lend(width, rows);
        both.values
            .copy_from_slice(self.get(part).unwrap_or_default());
        add(&mut both.values, self.get(sum).unwrap_or_default());
        self.release(part);
        self.give(part, both);
    }

    /// The gradient of a value.
    pub(crate) fn get(&self, value: usize) -> Option<&[f32]> {
        self.of[value].map(|buffer| &self.buffers[buffer].values[..])
    }

    /// A value's gradient taken out to be changed, where it is nobody else's.
    pub(crate) fn take(&mut self, value: usize) -> Option<Gradient> {
        let buffer = self.of[value].filter(|buffer| self.uses[*buffer] == 1)?;
        self.of[value] = None;
        Some(self.remove(buffer))
    }

    /// Says that a value's gradient is not needed any more.
    pub(crate) fn release(&mut self, value: usize) {
        if let Some(buffer) = self.of[value].take() {
            self.uses[buffer] -= 1;
        }
    }

    /// Bytes of its buffers, filled or not.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let values = self.buffers.iter().map(|buffer| buffer.values.capacity());
        values.sum::<usize>() * size_of::<f32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_gradient_stays_until_both_are_done() {
        let mut gradients = Gradients::default();
        gradients.clear(4);
        let mut buffer = gradients.lend(3, 1);
        buffer.values.fill(1.0);
        gradients.give(3, buffer);
        gradients.share(3, 1);
        assert!(gradients.take(3).is_none(), "another has it too");
        gradients.release(3);
        let mut other = gradients.lend(3, 1);
        other.values.fill(2.0);
        gradients.give(2, other);
        assert_eq!(gradients.get(1), Some(&[1.0; 3][..]));
        assert_eq!(gradients.take(1).unwrap().values, vec![1.0; 3]);
        assert_eq!(gradients.get(2), Some(&[2.0; 3][..]));
        gradients.release(2);
        assert_eq!(gradients.lend(2, 1).values.len(), 2);
        assert!(
            gradients.buffers.is_empty(),
            "the one that was free is lent"
        );
    }
}
