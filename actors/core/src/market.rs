//! The market: who can do a task, and who is chosen.
//!
//! Simple on purpose today: hard gates (online, free, allowed), then speed as measured weighed with the
//! rating, at a fixed unit price. Measured links and floating prices come later.

use cryptomind_protocol::task::Member;
use serde::{Deserialize, Serialize};

/// A miner's ready signal, with what the choice rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Who.
    pub member: Member,
    /// Where its ring socket listens.
    pub ring_address: String,
    /// Measured speed, in 10⁶ floating-point operations a second.
    pub mflops: u64,
    /// Rating, in thousandths of 5 stars.
    pub rating_milli: u32,
}

impl Offer {
    /// Speed weighed with the rating: expected useful work a second.
    fn score(&self) -> u128 {
        u128::from(self.mflops) * u128::from(self.rating_milli)
    }
}

/// Divides offers into the `needed` best and the rest. Equal scores go by node id, so that the choice is a
/// function of the offers alone, whatever their order.
pub fn select(mut offers: Vec<Offer>, needed: usize) -> (Vec<Offer>, Vec<Offer>) {
    offers.sort_by(|a, b| {
        b.score()
            .cmp(&a.score())
            .then_with(|| a.member.node.cmp(&b.member.node))
    });
    let rest = offers.split_off(needed.min(offers.len()));
    (offers, rest)
}
