//! Where a step's time went on the member that tells it: for people alone, nothing is decided by it.

use serde::{Deserialize, Serialize};

/// The most spans of a step.
pub const MAX_SPANS: usize = 32;

/// What a member does in a step. They overlap: sums are on their way while it computes, and while it applies others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It computes its share of the batch, forward and backward.
    Compute,
    /// Buckets that travel together go around the ring, from when they left until their sums were back.
    Ring,
    /// Sums that are back are applied into the shadow.
    Apply,
    /// All members tell each other that they are so far.
    Confirm,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Compute => "compute",
            Self::Ring => "ring",
            Self::Apply => "apply",
            Self::Confirm => "confirm",
        })
    }
}

/// From when to when something was done in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// What.
    pub stage: Stage,
    /// So long after the step's begin, microseconds.
    pub begin_us: u64,
    /// For so long, microseconds.
    pub us: u64,
}

impl Span {
    /// When it ended, microseconds after the step's begin.
    pub const fn end_us(&self) -> u64 {
        self.begin_us.saturating_add(self.us)
    }
}
