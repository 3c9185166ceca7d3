//! What each member earns: of each step as much as its weight is of all that divided it. Batches are cut into whole samples, so of small
//! ones that is not quite what it computed.

use cryptomind_protocol::batch::Weight;
use cryptomind_protocol::task::Member;
use cryptomind_protocol::{Amount, NodeId};
use serde::{Deserialize, Serialize};

use super::{Run, Seat};
use crate::price;

/// What a step is divided into.
const STEP: u64 = 1_000_000;

/// How the members divided the steps from one on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divided {
    /// Steps that were done before.
    pub from_step: u64,
    /// Who computed, and how much beside the others.
    pub weights: Vec<(NodeId, Weight)>,
}

impl Divided {
    /// The parts of a step of these members, by rank. Who was lost since leaves its part to the others, and does not get it where it came
    /// back.
    fn parts(&self, seats: &[Seat], verified_step: u64) -> Vec<u64> {
        let weight = |seat: &Seat| {
            if seat.from_step > self.from_step.max(verified_step) {
                return 0;
            }
            let mut known = self.weights.iter();
            let found = known.find(|(node, _)| *node == seat.member.node);
            found.map_or(0, |(_, weight)| u64::from(weight.get()))
        };
        let weights: Vec<_> = seats.iter().map(weight).collect();
        let all = weights.iter().sum::<u64>().max(1);
        weights.iter().map(|weight| weight * STEP / all).collect()
    }
}

impl Run {
    /// From here on, what lay beyond being computed anew, the members divide their steps by what they weigh.
    pub(super) fn note_division(&mut self) {
        let (from_step, verified) = (self.start_step, self.verified_step);
        let nodes = self.seats.iter().map(|seat| seat.member.node);
        let weights: Vec<_> = nodes.zip(self.seats.iter().map(|s| s.weight)).collect();
        self.divided.retain(|d| d.from_step < from_step);
        // All steps before that are paid.
        let paid = self.divided.partition_point(|d| d.from_step <= verified);
        self.divided.drain(..paid.saturating_sub(1));
        if self.divided.last().is_none_or(|d| d.weights != weights) {
            self.divided.push(Divided { from_step, weights });
        }
    }

    /// What was earned since the last verified checkpoint up to `step`, by rank: who was given twice the work has twice the pay, and who
    /// came later is paid for as many steps less.
    pub(super) fn parts(&self, amount: Amount, step: u64) -> Vec<(Member, Amount)> {
        let mut parts = vec![0_u64; self.seats.len()];
        let ends = self.divided.iter().skip(1).map(|d| d.from_step.min(step));
        for (divided, end) in self.divided.iter().zip(ends.chain([step])) {
            let steps = end.saturating_sub(divided.from_step.max(self.verified_step));
            let each = divided.parts(&self.seats, self.verified_step).into_iter();
            for (part, each) in parts.iter_mut().zip(each) {
                *part = part.saturating_add(steps.saturating_mul(each));
            }
        }
        let amounts = price::split(amount, &parts);
        let members = self.seats.iter().map(|seat| seat.member.clone());
        members.zip(amounts).collect()
    }
}
