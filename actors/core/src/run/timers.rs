//! Time: until when a run waits for what, and who is lost when nothing comes.

use cryptomind_protocol::Timestamp;
use cryptomind_protocol::task::TaskState;

use super::blame::{Fault, Loss};
use super::{
    AWAY_LIMIT_MS, CONFIRM_LIMIT_MS, Call, Effect, RETURN_LIMIT_MS, Run, STALL_LIMIT_MS,
    STORE_LIMIT_MS, SUSPECT_LIMIT_MS, Seat, WORD_LIMIT_MS,
};
use crate::market::Surroundings;

/// The most time between a run's end and its hold's expiry.
const MAX_SETTLE_MARGIN_MS: u64 = 60_000;

impl Run {
    /// When the run has ended, whatever happens.
    pub const fn ends(&self) -> Timestamp {
        self.posted.plus_ms(self.limits.hold_ms)
    }

    /// When the ledger settles the hold by itself: a little after [`Run::ends`], so that a coordinator that is there
    /// settles it with all that it knows.
    pub const fn hold_expires(&self) -> Timestamp {
        let margin = self.limits.hold_ms / 10;
        let margin = if margin < MAX_SETTLE_MARGIN_MS {
            margin
        } else {
            MAX_SETTLE_MARGIN_MS
        };
        self.ends().plus_ms(margin)
    }

    pub(super) fn tick(
        &mut self,
        around: &Surroundings,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if now >= self.ends() {
            let reason = format!("it had {} s, and they are over", self.limits.hold_ms / 1000);
            return self.end(TaskState::Expired, reason, now, effects);
        }
        match self.state {
            TaskState::Waiting if now >= self.deadline => {
                let reason = format!("not enough miners were free in time: {}", self.reason);
                self.end(TaskState::Expired, reason, now, effects);
            }
            TaskState::Waiting => self.choose(around, now, effects),
            TaskState::Regrouping => self.regroup_if_answered(now, effects),
            TaskState::Running if self.is_serving() => self.session_tick(now, effects),
            TaskState::Matched | TaskState::Running => {
                self.look_for_lost(now, effects);
                self.look_for_late_newcomers(now, effects);
                self.look_for_silent(now, effects);
            }
            _ => {}
        }
    }

    pub(super) fn look_for_lost(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let seats = self.seats.iter().enumerate();
        let lost = seats.filter_map(|(rank, seat)| self.overdue(rank, seat, now));
        let lost: Vec<_> = lost.collect();
        let runs = self.state == TaskState::Running;
        let (done, mut lost): (Vec<_>, Vec<_>) = lost
            .into_iter()
            .partition(|loss| runs && self.has_done_its_part(loss.node));
        // Nobody has to pause for them, nor do they have anything to lose.
        self.release(done, now, effects);
        // Whoever is lost for a reason of its own may be why the group is late.
        if lost.is_empty() {
            lost = self.late(now);
        }
        self.lose(lost, now, effects);
    }

    /// What a member of a group that prepares or computes should have done by now.
    fn overdue(&self, rank: usize, seat: &Seat, now: Timestamp) -> Option<Loss> {
        let node = seat.member.node;
        let open = |reason: String| Loss::new(node, reason, Fault::Open);
        let over = |until: Option<Timestamp>| until.is_some_and(|until| now >= until);
        if let Some(reason) = away_too_long(seat, now) {
            return Some(open(reason));
        }
        let late = now >= self.deadline;
        if self.state == TaskState::Matched {
            let reason = || format!("not ready within {} s", self.limits.prepare_ms / 1000);
            return (late && !seat.ready).then(|| open(reason()));
        }
        if over(self.confirm_until()) && self.owes_confirmation(seat) {
            let limit = CONFIRM_LIMIT_MS / 1000;
            let reason = format!("it did not confirm a stored checkpoint for {limit} s");
            return Some(Loss::new(node, reason, Fault::Own));
        }
        if rank == 0 && over(self.store_until()) {
            let limit = STORE_LIMIT_MS / 1000;
            return Some(open(format!("it stored no checkpoint for {limit} s")));
        }
        // When all is verified, the first rank alone owes something: the result.
        let owes_news = rank == 0 || !self.is_verified_whole();
        let reason = || format!("no news for {} s", STALL_LIMIT_MS / 1000);
        (late && owes_news).then(|| open(reason()))
    }

    pub(super) fn is_verified_whole(&self) -> bool {
        self.is_training() && self.verified_step >= self.terms.extent.steps
    }

    /// Whether a node is one of those for whom the oldest stored checkpoint waits.
    fn owes_confirmation(&self, seat: &Seat) -> bool {
        let stored = self.checkpoints.iter().find(|c| c.stored.is_some());
        let mut unconfirmed = stored.into_iter().filter(|c| c.step > seat.from_step);
        unconfirmed.any(|c| {
            !c.fingerprints
                .iter()
                .any(|(known, _)| *known == seat.member.node)
        })
    }

    /// Until when a stored checkpoint waits for its confirmation, where one does.
    fn confirm_until(&self) -> Option<Timestamp> {
        let waits = self.checkpoints.iter().any(|c| c.stored.is_some());
        let since = self.stored_since.filter(|_| waits);
        since.map(|at| at.plus_ms(CONFIRM_LIMIT_MS))
    }

    /// Until when a known checkpoint waits to be stored, where one does and none is.
    fn store_until(&self) -> Option<Timestamp> {
        let waits = self.confirm_until().is_none() && !self.checkpoints.is_empty();
        let since = self.heard_since.filter(|_| waits);
        since.map(|at| at.plus_ms(STORE_LIMIT_MS))
    }

    /// Whatever is waited for now is waited for from now on; only the run's own end stays.
    pub(super) fn restart_timers(&mut self, now: Timestamp) {
        let anew = |since: Option<Timestamp>| since.map(|_| now);
        for seat in &mut self.seats {
            seat.away_since = anew(seat.away_since);
            seat.returned = anew(seat.returned);
            seat.word_by = seat.word_by.map(|_| now.plus_ms(WORD_LIMIT_MS));
        }
        for newcomer in &mut self.newcomers {
            newcomer.since = now;
        }
        self.called = self.called.map(|call| Call { at: now, ..call });
        self.heard_since = anew(self.heard_since);
        self.stored_since = anew(self.stored_since);
        if let Some(promise) = &mut self.promise {
            (promise.since, promise.away_ms) = (now, 0);
        }
        self.paused_at = now;
        self.window_ends = now.plus_ms(self.limits.offer_window_ms);
        let limit = match self.state {
            TaskState::Waiting => self.limits.wait_ms,
            TaskState::Matched => self.limits.prepare_ms,
            TaskState::Running => self.news_limit_ms(),
            // Members that have to connect again first get the time for that.
            TaskState::Regrouping => AWAY_LIMIT_MS,
            _ => return,
        };
        self.deadline = now.plus_ms(limit);
    }

    /// When this run wants a [`super::Input::Tick`] next.
    pub fn next_timer(&self) -> Option<Timestamp> {
        if self.state.is_final() {
            return None;
        }
        let (waiting, running) = (
            self.state == TaskState::Waiting,
            self.state == TaskState::Running,
        );
        let away = self.seats.iter().filter_map(away_until);
        let complete = self.offers.len() >= self.spec.miners as usize;
        let answers = complete || !self.asked.is_empty();
        let window = (waiting && answers).then_some(self.window_ends);
        let pauses = self.state == TaskState::Regrouping;
        let words = self.seats.iter().filter(|seat| seat.owes_answer());
        let words = words.filter_map(|seat| seat.word_by);
        let silent = words.chain([self.paused_at.plus_ms(SUSPECT_LIMIT_MS)]);
        let silent = silent.filter(|_| pauses);
        let checkpoint = self.confirm_until().or_else(|| self.store_until());
        away.chain(window)
            .chain(silent)
            .chain(checkpoint.filter(|_| running))
            .chain(self.late_at())
            .chain(self.newcomer_late_at().filter(|_| running))
            .chain(self.silent_at())
            .chain([self.deadline, self.ends()])
            .min()
    }
}

/// Until when a member that has no connection, or came back without the run's state, has its seat.
fn away_until(seat: &Seat) -> Option<Timestamp> {
    let away = seat.away_since.map(|at| at.plus_ms(AWAY_LIMIT_MS));
    let returned = seat.returned.map(|at| at.plus_ms(RETURN_LIMIT_MS));
    away.into_iter().chain(returned).min()
}

fn away_too_long(seat: &Seat, now: Timestamp) -> Option<String> {
    if away_until(seat).is_none_or(|until| now < until) {
        return None;
    }
    Some(match seat.returned {
        Some(_) => "it came back without the task's state".to_owned(),
        None => format!("no connection for {} s", AWAY_LIMIT_MS / 1000),
    })
}
