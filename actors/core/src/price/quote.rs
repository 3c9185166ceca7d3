//! Quotes: what a task would cost and take, without obligation.

use std::cmp::Reverse;

use cryptomind_protocol::task::{Candidate, Quote, TaskSpec};

use super::{FLOPS_PER_MICRO_CU, Terms};

/// From the match to the first step, milliseconds, when all goes well and when it does not: idle
/// commands are stopped, data is fetched, the ring is closed.
pub const GROUP_START_MS: (u64, u64) = (500, 10_000);
/// One hop of a ring around the group, microseconds: on one machine, and between houses of one
/// region. A step takes 2(N−1) of them in a group of N. Links between miners are not measured yet;
/// a group that is spread over continents is slower.
pub const STEP_HOP_US: (u64, u64) = (200, 5_000);
/// How much longer a run may compute than measured speeds say: other load on the machines, and a
/// member that has to be replaced.
const SLOWDOWN: u128 = 3;

/// Sorts candidates: those that are free first, then by expected speed, which is the measured one
/// weighted by the rating, then by node.
pub fn best_first(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|c| {
        let expected = u128::from(c.mflops) * u128::from(c.rating_milli);
        (!c.free, Reverse(expected), c.node)
    });
}

/// The quote of a task with these terms, were it posted now. `candidates` in any order.
pub fn quote(spec: &TaskSpec, terms: &Terms, mut candidates: Vec<Candidate>) -> Quote {
    best_first(&mut candidates);
    let group = &candidates[..candidates.len().min(spec.miners as usize)];
    let (time_low_ms, time_high_ms) = times(terms, group);
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
        time_low_ms,
        time_high_ms,
        notes: notes(spec, terms, &candidates, group),
        candidates,
    }
}

/// How long this group would take, at best and at worst, milliseconds; zeros for an empty one.
///
/// The members compute equal shares of each step, so the slowest one sets the pace:
/// flops / (N · slowest) + steps · 2(N−1) · hop + start.
fn times(terms: &Terms, group: &[Candidate]) -> (u64, u64) {
    let Some(slowest) = group.iter().map(|c| c.mflops.max(1)).min() else {
        return (0, 0);
    };
    let members = group.len() as u128;
    // 10⁶ operations a second are 1000 a millisecond.
    let flops_per_ms = u128::from(slowest) * 1000 * members;
    let compute_ms = terms.extent.flops() / flops_per_ms;
    let hops = u128::from(terms.extent.steps) * 2 * (members - 1);
    let exchange_ms = |hop_us: u64| hops * u128::from(hop_us) / 1000;
    let low = compute_ms + exchange_ms(STEP_HOP_US.0) + u128::from(GROUP_START_MS.0);
    let high = compute_ms * SLOWDOWN + exchange_ms(STEP_HOP_US.1) + u128::from(GROUP_START_MS.1);
    (in_ms(low), in_ms(high))
}

fn in_ms(ms: u128) -> u64 {
    u64::try_from(ms).unwrap_or(u64::MAX)
}

fn notes(spec: &TaskSpec, terms: &Terms, known: &[Candidate], group: &[Candidate]) -> Vec<String> {
    let mut notes = vec![basis(group)];
    let free = known.iter().filter(|c| c.free).count();
    if known.len() < spec.miners as usize {
        notes.push(format!(
            "it asks for {} miners and {} are online: it would wait for more",
            spec.miners,
            known.len()
        ));
    } else if free < spec.miners as usize {
        notes.push(format!(
            "it asks for {} miners and {free} are free now: it would wait for others to end their tasks",
            spec.miners
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

fn basis(group: &[Candidate]) -> String {
    let Some(slowest) = group.iter().map(|c| c.mflops).min() else {
        return "no miner is online: how long it would take cannot be said".into();
    };
    let (low, high) = (GROUP_START_MS.0, GROUP_START_MS.1);
    format!(
        "time rests on the measured speed of the {} best candidates, the slowest of which does {slowest} \
         million operations a second, on {} to {} ms a hop around the ring, and on {low} to {high} ms to start",
        group.len(),
        STEP_HOP_US.0 as f64 / 1000.0,
        STEP_HOP_US.1 / 1000,
    )
}
