//! How long a group is expected to take for a task, and how surely it gets there.
//!
//! Used to choose a group ([`select`](super::select)) and to quote; nothing else computes a time from speeds and links.
//! For a group of N members, all in milliseconds:
//!
//! ```text
//! fetch      = max over members of (missing bytes ÷ rate from the best store)
//! compute    = flops ÷ N ÷ slowest speed            as if shares were equal: by speed it is hardly ever longer
//! exchange   = steps · 2(N−1) · max over the ring's links of (gradients ÷ N ÷ rate + latency)
//! checkpoint = upload + (checkpoints − 1) · max(0, upload − time between two)     uploads run beside the work
//! return     = result ÷ rate to the best store
//! T          = start + fetch + compute + exchange + checkpoint + return
//! E[T]       = T · (1 + Σ 1/MTBF · (½ · time between two checkpoints + rejoining))
//! survival   = exp(−T · Σ 1/MTBF)
//! p95        = E[T] + √(Σ over the parts of (how much later the part alone makes it in one of twenty runs)²)
//! ```
//!
//! Parts are late independently of each other, so what they add is added as deviations are: that all of them are late at once
//! is much rarer than one in twenty. The computing is late as the slowest of the members is ([`slowest`](super::slowest));
//! losses scatter as Poisson has it, by the root of how many are to be expected.
//!
//! The exchange is a ring all-reduce: 2(N−1) hops of one N-th of the gradients, each as slow as the slowest link
//! (Patarasuk and Yuan, 2009). The first rank stores checkpoints and the result, so a group's first rank is the member
//! with the best way to a store. What the client takes to fetch its result is the same whoever is chosen, and not counted.
//!
//! Where no link of the network was ever measured, times of transfers are unknown and count as 0.

use super::candidate::Ability;
use super::link::{Link, LinkTable, Party};
use super::slowest::{Finish, all_done};
use super::workload::Workload;

/// From the match to the first step, milliseconds, when all goes well and when it does not: idle
/// commands are stopped and the ring is closed.
pub const GROUP_START_MS: (u64, u64) = (500, 10_000);
/// From a member's loss to the rest's next step, milliseconds: noticing, agreeing, closing a new ring.
const REJOIN_MS: f64 = 5_000.0;
/// How likely a run ends within its p95.
const P95: f64 = 0.95;
/// So many standard deviations above its mean a normal distribution has this probability.
const SIGMAS_AT_P95: f64 = 1.645;
/// How much slower than measured a link is in one of twenty runs.
const LINK_DOUBT: f64 = 1.5;
/// The same of a link that is estimated.
const ESTIMATE_DOUBT: f64 = 4.0;
/// Millionths in a whole.
const PPM: f64 = 1e6;

/// What is expected of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// From the match to the first step, transfers apart, milliseconds.
    pub start_ms: u64,
    /// Until the last member has what it lacks, milliseconds.
    pub fetch_ms: u64,
    /// Computing of one step, microseconds.
    pub step_us: u64,
    /// Exchange of gradients after one step, microseconds.
    pub sync_us: u64,
    /// What storing checkpoints adds, milliseconds.
    pub checkpoint_ms: u64,
    /// Storing of the result, milliseconds.
    pub return_ms: u64,
    /// All of it, losses of members included as far as they are to be expected, milliseconds.
    pub p50_ms: u64,
    /// What 19 of 20 runs do not exceed, milliseconds.
    pub p95_ms: u64,
    /// How likely all members come through, in millionths.
    pub survival_ppm: u32,
    /// Links of the ring that are estimated rather than measured at both ends.
    pub estimated_links: u32,
}

/// A workload as each of a number of members sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    share_flops: f64,
    steps: f64,
    hops: f64,
    segment_bytes: f64,
    checkpoints: f64,
    checkpoint_bytes: f64,
    result_bytes: f64,
}

/// What a group's times follow from.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    /// The slowest member's share of the work, milliseconds.
    pub compute_ms: f64,
    /// One hop over the ring's slowest link, milliseconds.
    pub hop_ms: f64,
    /// The longest fetch, milliseconds.
    pub fetch_ms: f64,
    /// From the best placed member to a store, milliseconds a byte.
    pub store_ms_per_byte: f64,
    /// Losses to be expected, over all members, a millisecond.
    pub hazard_per_ms: f64,
}

/// Where a group's time goes, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub fetch_ms: f64,
    pub compute_ms: f64,
    pub exchange_ms: f64,
    pub checkpoint_ms: f64,
    pub return_ms: f64,
    /// What one loss costs.
    pub redo_ms: f64,
}

impl Demand {
    pub(super) fn new(workload: &Workload, members: usize) -> Self {
        let members = members.max(1) as f64;
        Self {
            share_flops: workload.flops as f64 / members,
            steps: workload.steps.max(1) as f64,
            hops: workload.steps as f64 * 2.0 * (members - 1.0),
            segment_bytes: workload.gradient_bytes as f64 / members,
            checkpoints: workload.checkpoints as f64,
            checkpoint_bytes: workload.checkpoint_bytes as f64,
            result_bytes: workload.result_bytes as f64,
        }
    }

    /// A member's share of the work at this speed, milliseconds.
    pub(super) fn compute_ms(&self, mflops: u64) -> f64 {
        // 10⁶ operations a second are 1000 a millisecond.
        self.share_flops / (mflops.max(1) as f64 * 1e3)
    }

    /// One hop of the ring over a link, milliseconds; 0 where nothing is known.
    pub(super) fn hop_ms(&self, link: Option<Link>) -> f64 {
        link.map_or(0.0, |link| link.transfer_ms(self.segment_bytes))
    }

    pub(super) fn times(&self, tally: &Tally) -> Times {
        let exchange_ms = self.hops * tally.hop_ms;
        let intervals = self.checkpoints.max(1.0);
        let interval_ms = (tally.compute_ms + exchange_ms) / intervals;
        let upload_ms = self.checkpoint_bytes * tally.store_ms_per_byte;
        let waits_ms = (intervals - 1.0) * (upload_ms - interval_ms).max(0.0);
        Times {
            fetch_ms: tally.fetch_ms,
            compute_ms: tally.compute_ms,
            exchange_ms,
            checkpoint_ms: upload_ms + waits_ms,
            return_ms: self.result_bytes * tally.store_ms_per_byte,
            redo_ms: interval_ms / 2.0 + REJOIN_MS,
        }
    }
}

impl Times {
    pub(super) fn total_ms(&self) -> f64 {
        self.compute_ms + self.rest_ms()
    }

    /// All but the computing.
    pub(super) fn rest_ms(&self) -> f64 {
        self.fetch_ms + self.exchange_ms + self.checkpoint_ms + self.return_ms
    }

    /// By how much losses prolong it, as a factor.
    pub(super) fn redo_factor(&self, hazard_per_ms: f64) -> f64 {
        1.0 + hazard_per_ms * self.redo_ms
    }
}

/// The way between a node and the store that it reaches best, where any is known.
pub(super) fn best_store(links: &LinkTable, node: Party, stores: &[Party]) -> Option<Link> {
    let ways = stores.iter().filter_map(|store| links.link(node, *store));
    ways.max_by_key(|link| link.bytes_per_s)
}

/// What is to be expected of members in ring order, the first rank first. Nothing of an empty group.
pub fn expect(
    workload: &Workload,
    group: &[(Party, Ability)],
    links: &LinkTable,
    stores: &[Party],
) -> Option<Expectation> {
    let demand = Demand::new(workload, group.len());
    let tally = tally(&demand, group, links, stores)?;
    let times = demand.times(&tally);
    let survival = (-times.total_ms() * tally.hazard_per_ms).exp();
    let estimated = ring_links(group, links).filter(|l| l.is_some_and(|l| l.estimated));
    let estimated_links = estimated.count() as u32;
    let p50_ms = times.total_ms() * times.redo_factor(tally.hazard_per_ms);
    let p95_ms = p50_ms + late_ms(&demand, group, &tally, estimated_links > 0);
    Some(Expectation {
        start_ms: GROUP_START_MS.0,
        fetch_ms: whole(times.fetch_ms),
        step_us: whole(times.compute_ms * 1e3 / demand.steps),
        sync_us: whole(times.exchange_ms * 1e3 / demand.steps),
        checkpoint_ms: whole(times.checkpoint_ms),
        return_ms: whole(times.return_ms),
        p50_ms: whole(p50_ms).saturating_add(GROUP_START_MS.0),
        p95_ms: whole(p95_ms).saturating_add(GROUP_START_MS.0),
        survival_ppm: (survival * PPM) as u32,
        estimated_links,
    })
}

fn tally(
    demand: &Demand,
    group: &[(Party, Ability)],
    links: &LinkTable,
    stores: &[Party],
) -> Option<Tally> {
    let first = best_store(links, group.first()?.0, stores);
    let computes = group.iter().map(|(_, a)| demand.compute_ms(a.mflops));
    let hops = ring_links(group, links).map(|link| demand.hop_ms(link));
    let fetches = group
        .iter()
        .map(|(party, a)| fetch_ms(a.missing_bytes, best_store(links, *party, stores)));
    Some(Tally {
        compute_ms: computes.fold(0.0, f64::max),
        hop_ms: hops.fold(0.0, f64::max),
        fetch_ms: fetches.fold(0.0, f64::max),
        store_ms_per_byte: store_ms_per_byte(first),
        hazard_per_ms: group.iter().map(|(_, a)| hazard_per_ms(a)).sum(),
    })
}

/// The links of a ring of these members; none where a member is alone.
fn ring_links(group: &[(Party, Ability)], links: &LinkTable) -> impl Iterator<Item = Option<Link>> {
    let alone = group.len() < 2;
    let next = move |at: usize| group[(at + 1) % group.len()].0;
    (0..if alone { 0 } else { group.len() }).map(move |at| links.link(group[at].0, next(at)))
}

pub(super) fn fetch_ms(bytes: u64, from: Option<Link>) -> f64 {
    match from {
        Some(link) if bytes > 0 => link.transfer_ms(bytes as f64),
        _ => 0.0,
    }
}

pub(super) fn store_ms_per_byte(link: Option<Link>) -> f64 {
    link.map_or(0.0, |link| 1e3 / link.bytes_per_s as f64)
}

/// Losses of one member to be expected, a millisecond.
pub(super) fn hazard_per_ms(ability: &Ability) -> f64 {
    ability.mtbf_ms.map_or(0.0, |mtbf| 1.0 / mtbf.max(1) as f64)
}

/// By how much one of twenty runs ends later than is expected, milliseconds.
fn late_ms(demand: &Demand, group: &[(Party, Ability)], tally: &Tally, guessed: bool) -> f64 {
    let finishes = group.iter().map(|(_, a)| Finish {
        median: demand.compute_ms(a.mflops),
        spread: f64::from(a.spread_ppm) / PPM,
    });
    let doubt = if guessed { ESTIMATE_DOUBT } else { LINK_DOUBT };
    let times = demand.times(tally);
    let with = |late: Tally| demand.times(&late).total_ms() - times.total_ms();
    let losses = times.total_ms() * tally.hazard_per_ms;
    let parts = [
        (GROUP_START_MS.1 - GROUP_START_MS.0) as f64,
        with(Tally {
            compute_ms: all_done(finishes, P95).max(tally.compute_ms),
            ..*tally
        }),
        with(Tally {
            hop_ms: tally.hop_ms * doubt,
            ..*tally
        }),
        with(Tally {
            fetch_ms: tally.fetch_ms * doubt,
            ..*tally
        }),
        with(Tally {
            store_ms_per_byte: tally.store_ms_per_byte * doubt,
            ..*tally
        }),
        SIGMAS_AT_P95 * losses.sqrt() * times.redo_ms,
    ];
    parts.iter().map(|part| part * part).sum::<f64>().sqrt()
}

/// Rounded; what does not fit is the most that fits.
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests;
