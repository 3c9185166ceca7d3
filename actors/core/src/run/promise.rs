//! Patience: how long a group has for its next checkpoint, and who is lost when it takes far longer.
//!
//! A group is chosen for its speed. One that computes, and tells of progress, but far more slowly than was expected of it would
//! keep its task until the hold ends: it forged its speed, or its machine does something else. So every stretch of work, from when
//! the group began to compute or from its last verified checkpoint to the next one, has a limit:
//!
//! ```text
//! promised = steps · (computing of one + exchange) + storing of one checkpoint     an inference: computing + its result
//! limit    = LATE_GRACE_MS + LATE_FACTOR · promised + time away
//! ```
//!
//! Once all steps of the stretch are computed, as far as it says, [`STORE_LIMIT_MS`](super::STORE_LIMIT_MS) comes on top, for an
//! inference from the start: a storage node that is away is no fault of the miner's.
//!
//! Only a verified checkpoint meets it, and only one that covers all of the stretch: neither news nor a checkpoint that
//! nobody asked for wins time. It begins anew with every attempt, so what pauses, waits and new rings take is not counted.
//!
//! Nothing is promised where nothing was expected, or where a group's exchange was not: that may take any time. A session has
//! its own clock, its client's. When all work is verified, the result alone is owed: no speed says how long its test takes, no news
//! prolongs it, and [`STALL_LIMIT_MS`](super::STALL_LIMIT_MS) limits it.

use cryptomind_protocol::task::{TaskState, Work};
use cryptomind_protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::blame::{Fault, Loss};
use super::{LATE_FACTOR, LATE_GRACE_MS, PendingCheckpoint, Run, STORE_LIMIT_MS, Seat};

/// Who says that it computed so many times as long as promised is the one that the others waited for. Below that it may be the
/// promise that was wrong.
const SLOW_FACTOR: u64 = 2;

/// What a group is to have done, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// Steps that were done when it began.
    pub from: u64,
    /// Steps that the checkpoint covers that is waited for. An inference is one step.
    pub to: u64,
    /// From when its time counts.
    pub since: Timestamp,
    /// How long it was expected to take, milliseconds.
    pub ms: u64,
    /// What it has beside, whatever it was expected to take, milliseconds.
    pub grace_ms: u64,
    /// How long members had no connection meanwhile, as far as it is not held against them, milliseconds.
    pub away_ms: u64,
}

impl Promise {
    const fn until(&self) -> Timestamp {
        let allowed = self.ms.saturating_mul(LATE_FACTOR);
        let beside = self.grace_ms.saturating_add(self.away_ms);
        self.since.plus_ms(allowed.saturating_add(beside))
    }

    /// Whether more time away would be passed over. It has an end: else whoever breaks his connection again and again is never late.
    const fn excuses_more(&self) -> bool {
        self.away_ms < LATE_GRACE_MS
    }
}

impl Run {
    /// The group computes from here on, or has just met its last promise.
    pub(super) fn promise_next(&mut self, now: Timestamp) {
        self.promise = self.next_promise(now);
    }

    fn next_promise(&self, now: Timestamp) -> Option<Promise> {
        let from = self.start_step.max(self.verified_step);
        let (to, store_ms) = match &self.spec.work {
            Work::Serve { .. } => return None,
            Work::Train { .. } if self.is_verified_whole() => return None,
            Work::Train { train, .. } => {
                let each = u64::from(train.checkpoint_steps.max(1));
                let next = (from / each).saturating_add(1).saturating_mul(each);
                (next.min(self.terms.extent.steps), self.pace.store_ms)
            }
            Work::Infer { .. } => (self.terms.extent.steps, self.pace.return_ms),
        };
        let compute_ms = self
            .pace
            .promised_ms(to.saturating_sub(from), self.seats.len())?;
        // Nobody knows the way to a store: it has the time that storing has where others wait for it.
        let unknown_ms = if store_ms == 0 { STORE_LIMIT_MS } else { 0 };
        Some(Promise {
            from,
            to,
            since: now,
            ms: compute_ms.saturating_add(store_ms),
            grace_ms: LATE_GRACE_MS.saturating_add(unknown_ms),
            away_ms: 0,
        })
    }

    /// A checkpoint was verified: where it is the promised one, the next one has its own time.
    pub(super) fn promise_met(&mut self, now: Timestamp) {
        let is_met = self.promise.is_some_and(|p| self.verified_step >= p.to);
        if is_met && self.state == TaskState::Running {
            self.promise_next(now);
        }
    }

    /// A member was without a connection and is back: it could not tell what it had done.
    pub(super) fn excuse_absence(&mut self, away_since: Option<Timestamp>, now: Timestamp) {
        if let (Some(promise), Some(away_since)) = (&mut self.promise, away_since) {
            let away = now.ms_since(away_since.max(promise.since));
            promise.away_ms = promise.away_ms.saturating_add(away).min(LATE_GRACE_MS);
        }
    }

    /// Until when the group has to keep its promise, where it has made one that nothing else is waited for.
    pub(super) fn late_at(&self) -> Option<Timestamp> {
        let promise = self.promise.filter(|_| self.state == TaskState::Running)?;
        let is_away = self.seats.iter().any(|seat| seat.away_since.is_some());
        // It is back or lost soon; a checkpoint that is computed has timers that name whom it waits for.
        let waits = (is_away && promise.excuses_more()) || self.is_computed(promise.to);
        let may_store = !self.is_training() || self.step >= promise.to;
        let storing_ms = if may_store { STORE_LIMIT_MS } else { 0 };
        (!waits).then(|| promise.until().plus_ms(storing_ms))
    }

    /// Whether all that is left of a checkpoint, or of a later one, is to store or to confirm it: the first rank tells of it once it
    /// is stored, all others at once.
    fn is_computed(&self, step: u64) -> bool {
        let others = self.seats.get(1..).unwrap_or_default();
        let told = |c: &PendingCheckpoint| {
            let has_told = |s: &Seat| c.fingerprints.iter().any(|(n, _)| *n == s.member.node);
            c.stored.is_some() || (!others.is_empty() && others.iter().all(has_told))
        };
        self.checkpoints.iter().any(|c| c.step >= step && told(c))
    }

    /// Whether nothing is heard of the group until it is done, and it has promised when.
    pub(super) const fn is_silent_by_promise(&self) -> bool {
        matches!(self.spec.work, Work::Infer { .. }) && self.promise.is_some()
    }

    /// Who is lost because the group takes far longer than promised: who was alone; who says himself that he was slow; or all, and
    /// then nobody is blamed, as it may have been one of them.
    pub(super) fn late(&self, now: Timestamp) -> Vec<Loss> {
        let promise = self
            .promise
            .filter(|_| self.late_at().is_some_and(|at| now >= at));
        let Some(promise) = promise else {
            return Vec::new();
        };
        let reason = self.lateness(&promise, now);
        let lose = |node, fault| Loss::new(node, reason.clone(), fault);
        match (&self.seats[..], self.slow_by_own_word()) {
            ([alone], _) => vec![lose(alone.member.node, Fault::Late)],
            (_, Some(slow)) => vec![lose(slow, Fault::Late)],
            (seats, None) => {
                let nodes = seats.iter().map(|seat| seat.member.node);
                nodes.map(|node| lose(node, Fault::Nobodys)).collect()
            }
        }
    }

    fn lateness(&self, promise: &Promise, now: Timestamp) -> String {
        let (took, promised) = (
            now.ms_since(promise.since) / 1000,
            promise.ms.div_ceil(1000),
        );
        let steps = promise.to.saturating_sub(promise.from);
        let done = match self.step.saturating_sub(promise.from).min(steps) {
            done if self.is_training() && done < steps => format!("{done} of {steps} steps"),
            _ if self.is_training() => "no stored checkpoint".to_owned(),
            _ => "no result".to_owned(),
        };
        format!("late: {done} in {took} s, {promised} s were promised")
    }

    /// The member that computed longest in this attempt, by what each said with verified checkpoints: if that is far longer than
    /// promised, and no other says the same.
    fn slow_by_own_word(&self) -> Option<NodeId> {
        let steps = self.counted_step.saturating_sub(self.start_step);
        let promised_ms = self.pace.compute_ms(steps, self.seats.len());
        let slow_from = promised_ms.saturating_mul(SLOW_FACTOR).max(1);
        let longest = self.seats.iter().map(|seat| seat.effort.claimed_ms).max()?;
        let is_slowest = |s: &&Seat| longest >= slow_from && s.effort.claimed_ms == longest;
        let mut slowest = self.seats.iter().filter(is_slowest);
        let first = slowest.next().map(|seat| seat.member.node);
        first.filter(|_| slowest.next().is_none())
    }
}
