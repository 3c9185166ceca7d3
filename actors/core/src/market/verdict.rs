//! What the market says of a candidate: the first gate that it failed, or its score in parts.

use std::fmt;

use cryptomind_protocol::rating::Bar;
use cryptomind_protocol::{Amount, NodeId};

use crate::exposure;

/// A condition that a candidate must meet, in the order in which they are looked at; with the numbers that it failed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gate {
    /// It is not there.
    #[error("it is not connected")]
    Offline,
    /// It does something else.
    #[error("it is in another group, or its owner uses it")]
    Busy,
    /// It failed too often, whatever the task.
    #[error("{0}")]
    Barred(Bar),
    /// It has shown too little for so much work.
    #[error("{0}")]
    Exposed(exposure::Refusal),
    /// It failed this task too often.
    #[error("it failed this task {strikes} times; {allowed} is the most")]
    StruckOut {
        /// How often.
        strikes: usize,
        /// From how often on it is not asked.
        allowed: usize,
    },
    /// The model's state does not fit.
    #[error("the model's state takes {needed_bytes} bytes and it can give {has_bytes}")]
    Memory {
        /// What the task takes.
        needed_bytes: u64,
        /// What it has.
        has_bytes: u64,
    },
    /// It wants more than is paid.
    #[error("it works for {reserve} a CU or more, and the task pays {unit_price}")]
    Reserve {
        /// The least that it works for.
        reserve: Amount,
        /// What is paid.
        unit_price: Amount,
    },
    /// Its rating is too low.
    #[error("its rating of {} is below {}", Stars(*rating_milli), Stars(*floor_milli))]
    Rating {
        /// Its rating, in thousandths of a star.
        rating_milli: u32,
        /// The least, in thousandths of a star.
        floor_milli: u32,
    },
    /// The client pays less than the work costs there.
    #[error("the work costs {cost} there, and the cap leaves {cap} for it")]
    Cap {
        /// The work's cost at its class's unit price.
        cost: Amount,
        /// The most that is paid for the work.
        cap: Amount,
    },
}

/// Thousandths of a star, for people: rounded down, so that a floor of as much lets it in.
pub(super) struct Stars(pub u32);

impl fmt::Display for Stars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// A group's score with a certain member in it, in parts. The lower, the better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Computing of this member's own share, milliseconds.
    pub compute_ms: u64,
    /// Fetching of what this member lacks, milliseconds.
    pub fetch_ms: u64,
    /// The group's exchange of gradients with it in the ring, milliseconds.
    pub exchange_ms: u64,
    /// What storing of checkpoints and result adds to the group's time, milliseconds.
    pub store_ms: u64,
    /// The group's time, expected losses included, milliseconds. What starting takes is the same for all and left out.
    pub expected_ms: u64,
    /// This member's rating as it counts, in thousandths of a star.
    pub low_milli: u32,
    /// What the group's work costs.
    pub price: Amount,
    /// What groups are compared by: see [`select`](super::select()).
    pub value: f64,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| format!("{}.{:01} s", ms / 1000, ms % 1000 / 100);
        write!(
            f,
            "{} in all, of which {} computing, {} exchange, {} fetching, {} storing; its rating counts as {}; the work costs {}",
            seconds(self.expected_ms),
            seconds(self.compute_ms),
            seconds(self.exchange_ms),
            seconds(self.fetch_ms),
            seconds(self.store_ms),
            Stars(self.low_milli),
            self.price,
        )
    }
}

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// It failed a gate.
    Barred(Gate),
    /// It could, but too few can.
    Waits {
        /// How many could.
        able: usize,
        /// How many are needed.
        needed: usize,
    },
    /// It is in the group.
    Chosen {
        /// At which place of the ring.
        rank: usize,
        /// Its score.
        score: Score,
    },
    /// Groups without it are better.
    PassedOver {
        /// The score in the place where it would do least harm.
        score: Score,
        /// Whose place that is.
        place_of: NodeId,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Barred(gate) => gate.fmt(f),
            Self::Waits { able, needed } => {
                write!(f, "it is ready, and {able} of {needed} miners are")
            }
            Self::Chosen { rank, score } => write!(f, "chosen as rank {rank}: {score}"),
            Self::PassedOver { score, place_of } => write!(
                f,
                "the chosen group is better than with it in place of {}: {score}",
                place_of.short()
            ),
        }
    }
}
