//! What the market knows of a miner that could be chosen.

use cryptomind_protocol::rating::{Bar, RatingView};
use cryptomind_protocol::{Amount, NodeId};
use serde::{Deserialize, Serialize};

use crate::exposure;

/// What a miner can do for one task, and on which terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// Speed at this kind of work as predicted, in 10⁶ floating-point operations a second.
    pub mflops: u64,
    /// Standard deviation of that speed's natural logarithm, in millionths.
    pub spread_ppm: u32,
    /// Rating as it is shown, in thousandths of 5 stars: what a client's floor is for.
    pub rating_milli: u32,
    /// Rating as it counts where miners are compared.
    pub low_milli: u32,
    /// Why it gets no work for a while, where that is so.
    pub bar: Option<Bar>,
    /// Why this task would be too much for what it has shown, where that is so.
    #[serde(default)]
    pub exposed: Option<exposure::Refusal>,
    /// Memory that it can give to a model's state, bytes. Unknown: it is not judged by it.
    pub memory_bytes: Option<u64>,
    /// The least that it works for, for one CU.
    pub reserve: Amount,
    /// What it would have to fetch first, bytes.
    pub missing_bytes: u64,
    /// Mean time between its failures, milliseconds. Unknown: it is not judged by it.
    pub mtbf_ms: Option<u64>,
}

impl Ability {
    /// Rated so.
    pub fn rated(self, rating: &RatingView) -> Self {
        Self {
            rating_milli: rating.rating_milli,
            low_milli: rating.low_milli,
            bar: rating.bar,
            ..self
        }
    }

    /// Of a miner of which no more is known than its speed and a rating that is beyond doubt.
    pub const fn new(mflops: u64, rating_milli: u32) -> Self {
        Self {
            mflops,
            spread_ppm: 0,
            rating_milli,
            low_milli: rating_milli,
            bar: None,
            exposed: None,
            memory_bytes: None,
            reserve: Amount::ZERO,
            missing_bytes: 0,
            mtbf_ms: None,
        }
    }
}

/// Whether a miner could begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It has no connection to the coordinator.
    Offline,
    /// It is in another group, or its owner uses it.
    Busy,
    /// It could.
    Free,
}

/// A miner, looked at for one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Whether it could begin now.
    pub availability: Availability,
    /// How often it failed this task.
    pub strikes: usize,
    /// What it can do.
    pub ability: Ability,
    /// What one CU of its class costs now, or cost when the task was funded.
    pub unit_price: Amount,
}
