//! Quotes: what a task would cost and take, were it posted now, without obligation.
//!
//! By the lines that decide: the group is [`select()`]ed, its time is [`expect`](super::expect)ed. Where too few are free, the
//! group is that which could be chosen once all were, and a note says so. What a task costs depends on its work alone, never
//! on how long it takes; only the size of what it stores is not known beforehand.

use cryptomind_protocol::speed::SpeedBasis;
use cryptomind_protocol::task::{self, Quote, TaskSpec, UsualWait};
use cryptomind_protocol::{AccountId, NodeId};

use super::candidate::{Availability, Candidate};
use super::expectation::Expectation;
use super::ring_share::{self, MUCH_PPM, ring_share_ppm};
use super::select::{MatchReport, Surroundings, Wanted, select};
use super::verdict::Verdict;
use crate::price::{FLOPS_PER_MICRO_CU, Terms};

/// The most candidates that a quote names.
pub const MAX_CANDIDATES: usize = 200;

/// A miner, with what a quote says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// As the market sees it.
    pub candidate: Candidate,
    /// Its name in tables.
    pub name: String,
    /// Whom it earns for.
    pub owner: AccountId,
    /// What its speed rests on.
    pub basis: SpeedBasis,
}

/// The quote of a task with these terms. `miners` are different nodes, in any order.
pub fn quote(
    spec: &TaskSpec,
    terms: &Terms,
    miners: &[Known],
    around: &Surroundings,
    usual_wait: Option<UsualWait>,
) -> Quote {
    let wanted = Wanted::of(spec, terms);
    let now = select(&wanted, &candidates(miners, false), around);
    let once_free = now.chosen.is_empty();
    let candidates = candidates(miners, once_free);
    let could = if once_free {
        select(&wanted, &candidates, around)
    } else {
        now.clone()
    };
    let ring_share_ppm = could.expectation.as_ref().and_then(ring_share);
    let is_much = ring_share_ppm.filter(|share| *share > MUCH_PPM);
    let ring_advice = is_much.map(|_| ring_share::advice(spec, terms, &candidates, around));
    let ring_advice = ring_advice.unwrap_or_default();
    let mut notes = notes(spec, terms, miners, &now, &could);
    notes.extend(is_much.map(|share| ring_share::note(spec, share, &ring_advice)));
    let micro_cu = terms.extent.flops().div_ceil(FLOPS_PER_MICRO_CU);
    Quote {
        micro_cu: u64::try_from(micro_cu).unwrap_or(u64::MAX),
        unit_price: terms.prices.unit_price,
        work_cost: terms.work_cost,
        item_fees: terms.item_fees,
        storage_cost_max: terms.storage_cost_max,
        network_fee_max: terms.network_fee_max,
        cost_low: terms.cost_low,
        cost_high: terms.cost_high,
        time_p50_ms: could.expectation.map(|e| e.p50_ms),
        time_p95_ms: could.expectation.map(|e| e.p95_ms),
        usual_wait,
        candidates: rows(miners, &now, &could),
        ring_share_ppm,
        ring_advice,
        notes,
    }
}

/// What part of a step goes into the exchange; nothing where none is expected.
fn ring_share(expected: &Expectation) -> Option<u32> {
    (expected.sync_us > 0).then(|| ring_share_ppm(expected))
}

/// As they are, or as if those were free who are busy.
fn candidates(miners: &[Known], once_free: bool) -> Vec<Candidate> {
    let of = |known: &Known| {
        let busy = known.candidate.availability == Availability::Busy;
        let availability = if once_free && busy {
            Availability::Free
        } else {
            known.candidate.availability
        };
        Candidate {
            availability,
            ..known.candidate
        }
    };
    miners.iter().map(of).collect()
}

/// The group by rank, then those who would come next, by their groups' values, then who waits, then who may not.
fn rows(miners: &[Known], now: &MatchReport, could: &MatchReport) -> Vec<task::Candidate> {
    let mut sorted: Vec<_> = miners.iter().collect();
    sorted.sort_by(|a, b| {
        let place = |known: &Known| place(could, &known.candidate.node);
        let (a_place, b_place) = (place(a), place(b));
        a_place
            .0
            .cmp(&b_place.0)
            .then(a_place.1.total_cmp(&b_place.1))
            .then(a.candidate.node.cmp(&b.candidate.node))
    });
    sorted.truncate(MAX_CANDIDATES);
    let row = |known: &&Known| row(known, now, could);
    sorted.iter().map(row).collect()
}

fn place(report: &MatchReport, node: &NodeId) -> (usize, f64) {
    match report.verdict(node) {
        Some(Verdict::Chosen { rank, .. }) => (0, *rank as f64),
        Some(Verdict::PassedOver { score, .. }) => (1, score.value),
        Some(Verdict::Waits { .. }) => (2, 0.0),
        Some(Verdict::Barred(_)) | None => (3, 0.0),
    }
}

fn row(known: &Known, now: &MatchReport, could: &MatchReport) -> task::Candidate {
    let (node, ability) = (known.candidate.node, &known.candidate.ability);
    let rank = could.chosen.iter().position(|chosen| *chosen == node);
    let reason = now.verdict(&node).map(ToString::to_string);
    task::Candidate {
        node,
        name: known.name.clone(),
        owner: known.owner,
        mflops: ability.mflops,
        basis: known.basis,
        rating_milli: ability.rating_milli,
        free: known.candidate.availability == Availability::Free,
        rank: rank.map(|rank| rank as u32),
        reason: reason.unwrap_or_else(|| "it was not looked at".to_owned()),
    }
}

fn notes(
    spec: &TaskSpec,
    terms: &Terms,
    miners: &[Known],
    now: &MatchReport,
    could: &MatchReport,
) -> Vec<String> {
    let mut notes = Vec::new();
    match &could.expectation {
        Some(expectation) => notes.extend([
            parts(expectation),
            basis(expectation, could, miners),
            "what it costs does not depend on how long it takes".to_owned(),
        ]),
        None => {
            notes.push("how long it would take cannot be said: too few miners could do it".into())
        }
    }
    if now.chosen.is_empty() {
        let (able, online) = (now.able(), online(miners));
        let needed = spec.miners;
        notes.push(format!(
            "it asks for {needed} miners; {online} are online and {able} could begin now: it would wait ({})",
            now.advice()
        ));
    }
    if spec.max_cost < terms.cost_high {
        notes.push(format!(
            "its cap of {} would be refused: set budget.max_cost to {} or more",
            spec.max_cost, terms.cost_high
        ));
    }
    notes
}

fn online(miners: &[Known]) -> usize {
    let online = |known: &&Known| known.candidate.availability != Availability::Offline;
    miners.iter().filter(online).count()
}

/// Where the time goes.
fn parts(expectation: &Expectation) -> String {
    let e = expectation;
    let seconds = |ms: u64| format!("{}.{:01} s", ms / 1000, ms % 1000 / 100);
    format!(
        "of the time {} go into starting, {} into fetching, {} µs a step into computing and {} µs into exchange, {} into \
         storing; all its miners come through with {} %",
        seconds(e.start_ms),
        seconds(e.fetch_ms),
        e.step_us,
        e.sync_us,
        seconds(e.checkpoint_ms.saturating_add(e.return_ms)),
        e.survival_ppm / 10_000,
    )
}

/// What the time rests on.
fn basis(expectation: &Expectation, could: &MatchReport, miners: &[Known]) -> String {
    let members: Vec<_> = could
        .chosen
        .iter()
        .filter_map(|node| miners.iter().find(|known| known.candidate.node == *node))
        .collect();
    let of_runs = |known: &&&Known| matches!(known.basis, SpeedBasis::Runs { .. });
    let (all, measured) = (members.len(), members.iter().filter(of_runs).count());
    let links = if all < 2 { 0 } else { all };
    format!(
        "it rests on speeds of {all} miners, {measured} of them known from runs like this, the others by their start tests \
         or other runs, and on {links} links, {} of them estimated",
        expectation.estimated_links,
    )
}

#[cfg(test)]
mod tests;
