//! Who does a task: the group that is expected to finish soonest for its money.
//!
//! Called by the run when its miners have answered, by quotes and by every explanation: what a verdict says is what
//! decided. A decision is a function of the candidates, the links and the request; the order of candidates is irrelevant,
//! and equals go by node id.
//!
//! Gates come first ([`Gate`]). Of those who pass, groups are compared by
//!
//! ```text
//! value = max over members of (time of the group at the member's own pace ÷ its rating) · E[T]/T · price^λ
//! ```
//!
//! with times as [`expectation`](super::expectation) has them. A member that computes slowly or is likely to fail holds
//! up all others, so the group is worth what its worst member is, never a mean. λ is the client's [`Preference`]; it
//! matters where candidates are of classes with different prices. There is no bonus for neighbours: a group in one local
//! network wins by its exchange being short. Where no link is known the value is that of the lowest speed × rating.
//!
//! The best set cannot be searched for exhaustively. The 16 best candidates, each as if among its own best neighbours,
//! are grown into groups by the candidate that leaves the value lowest, at the best place in the ring. Of the best group
//! members are exchanged one by one for as long as that betters it; so no verdict can say that a group was passed over
//! that one exchange makes better.

use std::sync::Arc;

pub use cryptomind_protocol::task::Preference;
use cryptomind_protocol::task::TaskSpec;
use cryptomind_protocol::{Amount, NodeId};

use super::candidate::{Availability, Candidate};
use super::expectation::{Expectation, expect};
use super::link::{LinkTable, Party};
use super::search::Search;
use super::verdict::{Gate, Verdict};
use super::workload::Workload;
use crate::price::{Terms, work_cost};
use crate::run::MAX_STRIKES;

/// λ: the power of the price against time. At 1, twice the price for half the time is as good.
pub(super) const fn price_power(preference: Preference) -> f64 {
    match preference {
        Preference::Fast => 0.2,
        Preference::Balanced => 1.0,
        Preference::Cheap => 3.0,
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What is to be done.
    pub workload: Workload,
    /// Members of the group.
    pub miners: usize,
    /// What the client would rather have.
    pub preference: Preference,
    /// The least rating, in thousandths of a star.
    pub rating_floor_milli: u32,
    /// From how many failures of this task on a node is not asked.
    pub strikes: usize,
    /// The most that is paid for the work.
    pub work_cap: Amount,
}

impl Wanted {
    /// What a task with these terms asks for.
    pub fn of(spec: &TaskSpec, terms: &Terms) -> Self {
        Self {
            workload: Workload::of(spec, terms),
            miners: spec.miners as usize,
            preference: spec.conditions.preference,
            rating_floor_milli: spec.conditions.min_rating_milli,
            strikes: MAX_STRIKES,
            work_cap: terms.work_cost,
        }
    }
}

/// What is measured around the candidates.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The links as they count now. Shared, as a table is large and serves many choices.
    pub links: Arc<LinkTable>,
    /// Where members fetch from and store to.
    pub stores: Vec<Party>,
}

/// The outcome of a choice.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchReport {
    /// The group in ring order, the first rank first; nobody where too few could.
    pub chosen: Vec<NodeId>,
    /// What is expected of it.
    pub expectation: Option<Expectation>,
    /// What its work costs.
    pub price: Amount,
    /// What became of every candidate, by node.
    pub verdicts: Vec<(NodeId, Verdict)>,
}

impl MatchReport {
    /// What became of a candidate.
    pub fn verdict(&self, node: &NodeId) -> Option<&Verdict> {
        let at = self.verdicts.binary_search_by_key(node, |(n, _)| *n).ok()?;
        Some(&self.verdicts[at].1)
    }
}

/// The first gate that a candidate fails.
pub fn gate(wanted: &Wanted, candidate: &Candidate) -> Option<Gate> {
    absent(candidate)
        .or_else(|| candidate.ability.bar.map(Gate::Barred))
        .or_else(|| candidate.ability.exposed.map(Gate::Exposed))
        .or_else(|| struck_out(wanted, candidate))
        .or_else(|| too_small(wanted, candidate))
        .or_else(|| too_dear(candidate))
        .or_else(|| badly_rated(wanted, candidate))
        .or_else(|| above_cap(wanted, candidate))
}

fn absent(candidate: &Candidate) -> Option<Gate> {
    match candidate.availability {
        Availability::Offline => Some(Gate::Offline),
        Availability::Busy => Some(Gate::Busy),
        Availability::Free => None,
    }
}

fn struck_out(wanted: &Wanted, candidate: &Candidate) -> Option<Gate> {
    let (strikes, allowed) = (candidate.strikes, wanted.strikes);
    (strikes >= allowed).then_some(Gate::StruckOut { strikes, allowed })
}

fn too_small(wanted: &Wanted, candidate: &Candidate) -> Option<Gate> {
    let needed_bytes = wanted.workload.memory_bytes;
    let has_bytes = candidate.ability.memory_bytes?;
    (has_bytes < needed_bytes).then_some(Gate::Memory {
        needed_bytes,
        has_bytes,
    })
}

fn too_dear(candidate: &Candidate) -> Option<Gate> {
    let (reserve, unit_price) = (candidate.ability.reserve, candidate.unit_price);
    (reserve > unit_price).then_some(Gate::Reserve {
        reserve,
        unit_price,
    })
}

fn badly_rated(wanted: &Wanted, candidate: &Candidate) -> Option<Gate> {
    let rating_milli = candidate.ability.rating_milli;
    let floor_milli = wanted.rating_floor_milli;
    (rating_milli < floor_milli).then_some(Gate::Rating {
        rating_milli,
        floor_milli,
    })
}

fn above_cap(wanted: &Wanted, candidate: &Candidate) -> Option<Gate> {
    // What costs more than all tokens is above any cap.
    let most = Amount::from_base_units(u64::MAX);
    let cost = work_cost(wanted.workload.flops, candidate.unit_price).unwrap_or(most);
    let cap = wanted.work_cap;
    (cost > cap).then_some(Gate::Cap { cost, cap })
}

/// Chooses. The candidates are of different nodes.
pub fn select(wanted: &Wanted, candidates: &[Candidate], around: &Surroundings) -> MatchReport {
    let mut able = Vec::with_capacity(candidates.len());
    let mut verdicts = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        match gate(wanted, candidate) {
            Some(gate) => verdicts.push((candidate.node, Verdict::Barred(gate))),
            None => able.push(*candidate),
        }
    }
    able.sort_unstable_by_key(|candidate| candidate.node);
    let mut report = choose(wanted, &able, around, &mut verdicts);
    verdicts.sort_unstable_by_key(|(node, _)| *node);
    report.verdicts = verdicts;
    report
}

/// Chooses among those who passed the gates, who are sorted by node.
fn choose(
    wanted: &Wanted,
    able: &[Candidate],
    around: &Surroundings,
    verdicts: &mut Vec<(NodeId, Verdict)>,
) -> MatchReport {
    let mut report = MatchReport {
        chosen: Vec::new(),
        expectation: None,
        price: Amount::ZERO,
        verdicts: Vec::new(),
    };
    let (needed, count) = (wanted.miners, able.len());
    if needed == 0 || count < needed {
        let waits = Verdict::Waits {
            able: count,
            needed,
        };
        verdicts.extend(able.iter().map(|candidate| (candidate.node, waits)));
        return report;
    }
    let mut search = Search::new(wanted, able, around);
    let group = search.best_group();
    verdicts.extend(search.verdicts(&group));
    let members = group.iter().map(|at| &able[*at]);
    let parties = members.clone().map(|c| (Party::Node(c.node), c.ability));
    let parties: Vec<_> = parties.collect();
    report.expectation = expect(&wanted.workload, &parties, &around.links, &around.stores);
    report.price = search.price(&group);
    report.chosen = members.map(|candidate| candidate.node).collect();
    report
}

#[cfg(test)]
mod tests;
