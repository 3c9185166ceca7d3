//! What members computed, and in what time: the statistics that speeds are predicted from.
//!
//! A member says with each checkpoint how long it computed, without waiting for others. Who says too little looks fast and
//! would be chosen again, so nobody is believed alone: the coordinator knows how long the group took from one checkpoint to
//! the next, and what exchange and storing were expected to take by the links that both ends measured. Time that nobody
//! accounts for counts as everybody's:
//!
//! ```text
//! unexplained = wall − longest claim − expected exchange and storing, 0 at least
//! counted     = claim + unexplained
//! ```
//!
//! Only verified work counts, and only what was computed in the present attempt.

use cryptomind_protocol::Timestamp;
use cryptomind_protocol::speed::RunStatistic;
use serde::{Deserialize, Serialize};

use super::{Effect, PendingCheckpoint, Run, Seat, samples_after};
use crate::market::{Expectation, Workload};

/// How many times as long as expected the exchange takes in one of twenty runs where a link of the ring is only estimated.
const ESTIMATE_DOUBT: u64 = 4;
/// A speed is measured from this much computing on: a shorter time says more of the clock than of the machine.
const MEASURED_MS: u64 = 1_000;
/// Microseconds of a millisecond.
const US_PER_MS: u64 = 1_000;

/// What a member computed and in what time, as far as it is verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    /// Floating-point operations.
    pub flops: u64,
    /// Milliseconds of computing.
    pub ms: u64,
    /// Of its claims in this attempt, milliseconds that are counted already.
    pub claimed_ms: u64,
    /// The newest of its operations: what was counted before the last time counts for half of that, and so on.
    #[serde(default)]
    pub newest_flops: u64,
    /// What these took, milliseconds.
    #[serde(default)]
    pub newest_ms: u64,
}

impl Effort {
    fn count(&mut self, flops: u64, ms: u64, claimed_ms: u64) {
        self.flops = self.flops.saturating_add(flops);
        self.ms = self.ms.saturating_add(ms);
        self.claimed_ms = self.claimed_ms.saturating_add(claimed_ms);
        self.newest_flops = (self.newest_flops / 2).saturating_add(flops);
        self.newest_ms = (self.newest_ms / 2).saturating_add(ms);
    }

    /// Floating-point operations a millisecond, the newest first. Nothing of one that computed for less than
    /// [`MEASURED_MS`].
    pub(super) fn newest(&self) -> Option<f64> {
        let is_measured = self.newest_ms >= MEASURED_MS;
        is_measured.then(|| self.newest_flops as f64 / self.newest_ms as f64)
    }

    /// The same of one that computed for less: it is as fast at least.
    pub(super) fn at_least(&self) -> f64 {
        self.newest_flops as f64 / self.newest_ms.max(MEASURED_MS) as f64
    }
}

/// What a group's time goes into, as expected when it was chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Exchange of gradients after one step, microseconds.
    pub sync_us: u64,
    /// Storing of one checkpoint, milliseconds. 0 where nothing is known of it.
    pub store_ms: u64,
    /// Computing of one step, were its slowest member alone, microseconds. 0 where nothing was expected.
    #[serde(default)]
    pub alone_us: u64,
    /// Exchange after one step as far as it is promised, microseconds: more than expected where links are estimated. 0 where
    /// nothing is known of it.
    #[serde(default)]
    pub exchange_us: u64,
    /// Storing of the result, milliseconds. 0 where nothing is known of it.
    #[serde(default)]
    pub return_ms: u64,
}

impl Pace {
    /// Of a group of so many members.
    pub(super) fn of(expectation: &Expectation, workload: &Workload, members: usize) -> Self {
        let doubt = match expectation.estimated_links {
            0 => 1,
            _ => ESTIMATE_DOUBT,
        };
        Self {
            sync_us: expectation.sync_us,
            store_ms: store_ms(expectation, workload),
            alone_us: expectation.step_us.saturating_mul(members as u64),
            exchange_us: expectation.sync_us.saturating_mul(doubt),
            return_ms: expectation.return_ms,
        }
    }

    /// What computing of so many steps is expected to take a group of so many members, milliseconds. Fewer members have larger
    /// shares; that the slowest is given less than an equal one is not counted on.
    pub(super) fn compute_ms(self, steps: u64, members: usize) -> u64 {
        let each_us = self.alone_us / members.max(1) as u64;
        steps.saturating_mul(each_us) / US_PER_MS
    }

    /// The same with the exchange. Nothing where one of the two is unknown.
    pub(super) fn promised_ms(self, steps: u64, members: usize) -> Option<u64> {
        let is_alone = members < 2;
        let is_known = self.alone_us > 0 && (is_alone || self.exchange_us > 0);
        let exchange_us = if is_alone { 0 } else { self.exchange_us };
        let exchange_ms = steps.saturating_mul(exchange_us) / US_PER_MS;
        let compute_ms = self.compute_ms(steps, members);
        is_known.then(|| compute_ms.saturating_add(exchange_ms))
    }

    const fn allowed_ms(self, steps: u64) -> u64 {
        let exchange = steps.saturating_mul(self.sync_us) / US_PER_MS;
        exchange.saturating_add(self.store_ms)
    }
}

/// Storing of one checkpoint, milliseconds. What all of them add to a run is one upload, and for each further one as much as it takes
/// longer than the work beside it.
fn store_ms(expectation: &Expectation, workload: &Workload) -> u64 {
    let all_ms = expectation.checkpoint_ms;
    let checkpoints = workload.checkpoints.max(1);
    let step_us = expectation.step_us.saturating_add(expectation.sync_us);
    let work_ms = workload.steps.saturating_mul(step_us) / US_PER_MS;
    let between_ms = work_ms / checkpoints;
    if all_ms <= between_ms {
        return all_ms;
    }
    let beside_ms = between_ms.saturating_mul(checkpoints - 1);
    all_ms.saturating_add(beside_ms) / checkpoints
}

impl Run {
    /// Counts the work of a verified checkpoint for all who vouched for it.
    pub(super) fn count_effort(&mut self, checkpoint: &PendingCheckpoint) {
        let (from, to) = (self.counted_step, checkpoint.step);
        let Some(heard) = checkpoint.heard.filter(|_| to > from) else {
            return;
        };
        let flops = self.flops_by_rank(from, to);
        let claims = self.claims(checkpoint);
        let wall = heard.ms_since(self.counted_at);
        let longest = claims.iter().flatten().max().copied().unwrap_or_default();
        let explained = longest.saturating_add(self.pace.allowed_ms(to - from));
        let unexplained = wall.saturating_sub(explained);
        for ((seat, claimed), flops) in self.seats.iter_mut().zip(claims).zip(flops) {
            if let Some(claimed) = claimed {
                // Nobody computes longer than the time that has passed.
                let counted = claimed.saturating_add(unexplained).min(wall);
                seat.effort.count(flops, counted, claimed);
            }
        }
        (self.counted_step, self.counted_at) = (to, heard);
    }

    /// Each member's part of these steps, floating-point operations: the group that the attempt began with divided them.
    fn flops_by_rank(&self, from: u64, to: u64) -> Vec<u64> {
        let samples = samples_after(self, to).saturating_sub(samples_after(self, from));
        let flops = u128::from(samples) * u128::from(self.terms.extent.flops_per_sample);
        let shares = self.shares_of_group();
        // Whole samples: of few, equals do not compute as much as each other.
        let batch = self.global_batch().unwrap_or(1).max(1);
        let part = |seat: &Seat| {
            let rank = self.group.iter().position(|n| *n == seat.member.node);
            let samples = rank.map_or(0, |rank| shares.part_len(batch, rank as u32));
            let flops = flops.saturating_mul(samples.into()) / u128::from(batch);
            u64::try_from(flops).unwrap_or(u64::MAX)
        };
        self.seats.iter().map(part).collect()
    }

    /// By rank, how long each says that it computed since it was last counted; nothing of who says nothing.
    fn claims(&self, checkpoint: &PendingCheckpoint) -> Vec<Option<u64>> {
        let claim = |seat: &Seat| {
            let mut claims = checkpoint.computed.iter();
            let (_, ms) = claims.find(|(known, _)| *known == seat.member.node)?;
            Some(ms.saturating_sub(seat.effort.claimed_ms))
        };
        self.seats.iter().map(claim).collect()
    }

    /// The one member of an inference has computed all of it.
    pub(super) fn count_inference(&mut self, now: Timestamp) {
        let flops = u64::try_from(self.terms.extent.flops()).unwrap_or(u64::MAX);
        let ms = now.ms_since(self.counted_at);
        if let Some(seat) = self.seats.first_mut() {
            seat.effort.count(flops, ms, 0);
        }
    }

    /// A new attempt begins, or its computing: what is claimed is claimed anew.
    pub(super) fn restart_effort(&mut self, now: Timestamp) {
        (self.counted_step, self.counted_at) = (self.start_step, now);
        for seat in &mut self.seats {
            seat.effort.claimed_ms = 0;
        }
        for checkpoint in &mut self.checkpoints {
            checkpoint.heard = None;
            checkpoint.computed.clear();
        }
    }

    /// What a member achieved that leaves or has ended, where it computed anything that is verified.
    pub(super) fn ran(&self, seat: &Seat, now: Timestamp) -> Option<Effect> {
        let workload = Workload::of(&self.spec, &self.terms);
        (seat.effort.flops > 0).then(|| {
            Effect::Ran(RunStatistic {
                task: self.task,
                node: seat.member.node,
                kind: workload.kind,
                engine: seat.engine,
                step: workload.step(),
                flops: seat.effort.flops,
                ms: seat.effort.ms,
                // A clock that was set back does not make it computed while it was not there.
                present_ms: now.ms_since(seat.since).max(seat.effort.ms),
                at: now,
            })
        })
    }
}
