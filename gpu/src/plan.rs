//! Which buffer each value of a graph lies in: known before a step starts, so that nothing is
//! allocated in it.
//!
//! A buffer is used again as soon as nobody reads its value any more, and an operation works where
//! its input lies where that is possible. What the backward pass reads stays.

use crate::graph::{Graph, Node, Op};
use crate::kernel::activation::Saved;

/// The buffers of a graph.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The buffer of each value.
    pub(crate) buffer: Vec<usize>,
    /// For each node, whether its output lies where its input lay.
    pub(crate) in_place: Vec<bool>,
    /// Values of one sample in each buffer, at most.
    pub(crate) sizes: Vec<usize>,
}

impl Plan {
    /// The buffers of a forward pass; with `backward`, what the backward pass reads is kept.
    pub(crate) fn new(graph: &Graph, backward: bool) -> Self {
        let mut planner = Planner::new(graph, backward);
        for (index, node) in graph.nodes.iter().enumerate() {
            planner.place(graph, index, node);
        }
        planner.plan
    }

    /// Values of one sample in all buffers.
    pub(crate) fn values(&self) -> u64 {
        self.sizes.iter().map(|size| *size as u64).sum()
    }
}

struct Planner {
    plan: Plan,
    /// The last node that reads each value.
    last_read: Vec<usize>,
    /// What the backward pass reads.
    kept: Vec<bool>,
    free: Vec<usize>,
}

impl Planner {
    fn new(graph: &Graph, backward: bool) -> Self {
        let mut last_read = vec![0; graph.widths.len()];
        let mut kept = vec![false; graph.widths.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            last_read[node.input] = index;
            if let Op::Add { skip } = node.op {
                last_read[skip] = index;
            }
            if backward && node.is_trained {
                kept[node.input] |= reads_input(&node.op);
                kept[node.output] |= reads_output(&node.op);
            }
        }
        last_read[graph.output] = usize::MAX;
        Self {
            plan: Plan {
                buffer: vec![0; graph.widths.len()],
                in_place: vec![false; graph.nodes.len()],
                sizes: vec![graph.widths[0]],
            },
            last_read,
            kept,
            free: Vec::new(),
        }
    }

    fn place(&mut self, graph: &Graph, index: usize, node: &Node) {
        let is_free = |planner: &Self, value: usize| {
            planner.last_read[value] == index && !planner.kept[value]
        };
        // Where nothing is between, a residual's branch is what it is added to.
        let skip = match node.op {
            Op::Add { skip } => Some(skip).filter(|skip| *skip != node.input),
            _ => None,
        };
        let is_twice = matches!(node.op, Op::Add { .. }) && skip.is_none();
        let in_place = works_in_place(&node.op) && !is_twice && is_free(self, node.input);
        self.plan.in_place[index] = in_place;
        self.plan.buffer[node.output] = match in_place {
            true => self.plan.buffer[node.input],
            false => self.take(graph.widths[node.output]),
        };
        if !in_place && is_free(self, node.input) {
            self.free.push(self.plan.buffer[node.input]);
        }
        if let Some(skip) = skip.filter(|skip| is_free(self, *skip)) {
            self.free.push(self.plan.buffer[skip]);
        }
    }

    /// The smallest free buffer that is large enough, else the largest, made larger.
    fn take(&mut self, size: usize) -> usize {
        let sizes = &self.plan.sizes;
        let fit = |at: &usize| {
            let has = sizes[self.free[*at]];
            (has < size, if has < size { usize::MAX - has } else { has })
        };
        let Some(best) = (0..self.free.len()).min_by_key(fit) else {
            self.plan.sizes.push(size);
            return self.plan.sizes.len() - 1;
        };
        let buffer = self.free.swap_remove(best);
        self.plan.sizes[buffer] = self.plan.sizes[buffer].max(size);
        buffer
    }
}

/// Whether the backward pass reads the operation's input.
fn reads_input(op: &Op) -> bool {
    match op {
        Op::Linear { .. } | Op::Conv { .. } | Op::Attention(_) => true,
        Op::BatchNorm { .. } | Op::RowNorm { .. } => true,
        Op::Function(function) => function.saved() == Saved::Input,
        Op::MaxPool(_) | Op::AveragePool(_) | Op::GlobalAveragePool { .. } => false,
        Op::Embedding { .. } | Op::Softmax { .. } | Op::Dropout { .. } | Op::Add { .. } => false,
    }
}

/// Whether it reads its output.
fn reads_output(op: &Op) -> bool {
    match op {
        Op::Function(function) => function.saved() == Saved::Output,
        Op::Softmax { .. } => true,
        _ => false,
    }
}

fn works_in_place(op: &Op) -> bool {
    matches!(op, Op::Function(_) | Op::Dropout { .. } | Op::Add { .. })
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::model::{Gpt, Layer, ModelSpec};

    use super::*;
    use crate::graph::Purpose;

    fn gpt() -> ModelSpec {
        ModelSpec::gpt(Gpt {
            vocabulary: 65,
            context: 8,
            width: 16,
            heads: 4,
            blocks: 3,
            dropout_ppm: 100_000,
        })
    }

    fn models() -> Vec<ModelSpec> {
        let shared = vec![
            Layer::linear(8),
            Layer::Residual {
                layers: vec![Layer::Relu {}, Layer::Tanh {}, Layer::linear(8)],
            },
            Layer::Residual {
                layers: vec![Layer::Dropout { rate_ppm: 1 }],
            },
            Layer::Residual {
                layers: vec![Layer::Flatten {}],
            },
            Layer::Gelu {},
            Layer::linear(2),
        ];
        vec![
            ModelSpec::mlp(vec![4], &[8, 8], 3),
            ModelSpec::cnn(vec![8, 8], &[4, 8], 16, 10),
            gpt(),
            ModelSpec::new(vec![4], shared),
        ]
    }

    /// Follows the plan with the number of a value in each buffer: whoever reads finds what it should.
    #[test]
    fn nobody_finds_another_value_in_its_buffer() {
        let purposes = [(Purpose::Training, true), (Purpose::Use, false)];
        for (model, (purpose, backward)) in models()
            .iter()
            .flat_map(|model| purposes.map(|purpose| (model, purpose)))
        {
            model.check().unwrap();
            let graph = Graph::new(model, purpose);
            let plan = Plan::new(&graph, backward);
            let mut holds = vec![usize::MAX; plan.sizes.len()];
            holds[plan.buffer[0]] = 0;
            for (index, node) in graph.nodes.iter().enumerate() {
                assert_eq!(holds[plan.buffer[node.input]], node.input);
                if let Op::Add { skip } = node.op {
                    assert_eq!(holds[plan.buffer[skip]], skip);
                    let from = [plan.buffer[skip], plan.buffer[node.input]];
                    assert!(!plan.in_place[index] || from[0] != from[1]);
                }
                let output = plan.buffer[node.output];
                assert_eq!(plan.in_place[index], output == plan.buffer[node.input]);
                assert!(plan.sizes[output] >= graph.widths[node.output]);
                holds[output] = node.output;
            }
            assert_eq!(holds[plan.buffer[graph.output]], graph.output);
            let trained = graph
                .nodes
                .iter()
                .filter(|node| backward && node.is_trained);
            for node in trained {
                if reads_input(&node.op) {
                    assert_eq!(holds[plan.buffer[node.input]], node.input);
                }
                if reads_output(&node.op) {
                    assert_eq!(holds[plan.buffer[node.output]], node.output);
                }
            }
        }
    }

    #[test]
    fn what_nobody_reads_any_more_takes_no_room() {
        let graph = Graph::new(&gpt(), Purpose::Use);
        let used = Plan::new(&graph, false);
        // The residual stream, and the two widest values of a branch.
        assert!(used.values() <= 8 * 16 * (1 + 4 + 4) + 8, "{used:?}");
        let graph = Graph::new(&gpt(), Purpose::Training);
        let kept = Plan::new(&graph, true).values();
        assert!(
            kept <= gpt().kept_values(),
            "{kept}: the protocol says at most"
        );
    }
}
