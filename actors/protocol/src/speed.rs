//! How fast nodes are: what they achieved in runs, and what a prediction rests on.
//!
//! `cryptomind-core` says how speeds are predicted from it.

use serde::{Deserialize, Serialize};

use crate::{NodeId, TaskId, Timestamp};

/// What kind of work.
///
/// Every model that engines run today is a chain of dense layers; a second family of models becomes a further kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// Training: products of all sizes, forwards and backwards.
    Train,
    /// Running a model.
    Infer,
}

/// What computes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The processor.
    #[default]
    Cpu,
    /// A card of Nvidia's.
    Cuda,
    /// Any other card.
    OpenCl,
}

/// What one step asks of whoever computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Floating-point operations, as the graph counts them.
    pub flops: u64,
    /// Parameters that are updated after it; 0 where nothing is learnt.
    pub parameters: u64,
}

impl Step {
    /// Steps of a class are alike: the logarithm to base 2 of the operations, rounded down.
    pub const fn size_class(&self) -> u8 {
        match self.flops.checked_ilog2() {
            Some(class) => class as u8,
            None => 0,
        }
    }
}

/// What one node achieved as a member of one run, from its match to its end or its loss. Verified work alone counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatistic {
    /// In which task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
    /// What kind of work.
    pub kind: WorkKind,
    /// What computed.
    pub engine: Engine,
    /// What a step asks of the whole group.
    pub step: Step,
    /// Floating-point operations that it computed, as the graph counts them.
    pub flops: u64,
    /// How long it computed, milliseconds, without waiting for others.
    pub ms: u64,
    /// How long it was a member, milliseconds.
    pub present_ms: u64,
    /// When that ended.
    pub at: Timestamp,
}

impl RunStatistic {
    /// Of the time that it computed, 10⁶ floating-point operations a second. Nothing where it computed nothing.
    pub fn mflops(&self) -> Option<u64> {
        let measurable = self.flops > 0 && self.ms > 0;
        let per_s = u128::from(self.flops) * 1000 / u128::from(self.ms.max(1));
        measurable.then(|| u64::try_from(per_s / 1_000_000).unwrap_or(u64::MAX))
    }
}

/// What a predicted speed rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeedBasis {
    /// Runs of this node, of this kind and size.
    Runs {
        /// How many.
        count: u32,
    },
    /// Runs of this node, of this kind and another size.
    OtherSize {
        /// Which: see [`Step::size_class`].
        size_class: u8,
    },
    /// Its start test, and what others made of theirs.
    StartTest {},
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::OpenCl => "open_cl",
        })
    }
}

impl std::fmt::Display for WorkKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Infer => "infer",
        })
    }
}

impl std::fmt::Display for SpeedBasis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Runs { count: 1 } => f.write_str("1 run like this"),
            Self::Runs { count } => write!(f, "{count} runs like this"),
            Self::OtherSize { .. } => f.write_str("runs of another size"),
            Self::StartTest {} => f.write_str("start test"),
        }
    }
}
