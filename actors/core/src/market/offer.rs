//! A miner's ready signal.

use cryptomind_protocol::Amount;
use cryptomind_protocol::speed::Engine;
use cryptomind_protocol::task::Member;
use serde::{Deserialize, Serialize};

use super::candidate::{Ability, Availability, Candidate};

/// A miner says that it is ready for a task; with what the choice rests on, as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Who.
    pub member: Member,
    /// Where its ring socket listens.
    pub ring_address: String,
    /// What it computes with.
    #[serde(default)]
    pub engine: Engine,
    /// What it can do for this task.
    pub ability: Ability,
}

impl Offer {
    /// As a candidate for a task that it failed so often and that pays this for one CU.
    pub(crate) const fn candidate(&self, strikes: usize, unit_price: Amount) -> Candidate {
        Candidate {
            node: self.member.node,
            availability: Availability::Free,
            strikes,
            ability: self.ability,
            unit_price,
        }
    }
}
