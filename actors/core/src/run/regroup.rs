//! Loss of members, and the attempt after it.

use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_protocol::{Amount, NodeId, Timestamp};

use super::{
    Effect, MAX_ATTEMPTS_A_CHECKPOINT, MAX_EXECUTIONS, MAX_FRUITLESS_ATTEMPTS, PAUSE_LIMIT_MS, Run,
    SUSPECT_LIMIT_MS, work_after,
};

impl Run {
    pub(super) fn ring_broken(
        &mut self,
        suspect: Option<NodeId>,
        reason: &str,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(seat) = suspect.and_then(|node| self.seat(node)) {
            seat.suspected = true;
        }
        if matches!(self.state, TaskState::Matched | TaskState::Running) {
            self.reason = format!("the ring broke: {reason}");
            self.pause(now, effects);
        }
    }

    fn pause(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.state = TaskState::Regrouping;
        self.paused_at = now;
        self.deadline = now.plus_ms(PAUSE_LIMIT_MS);
        for seat in &mut self.seats {
            seat.paused = None;
        }
        effects.push(Effect::Pause {
            nodes: self.nodes(),
            attempt: self.attempt + 1,
        });
    }

    /// Goes on once every member has answered, or those that can be waited for have.
    pub(super) fn regroup_if_answered(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let waited_ms = now.ms_since(self.paused_at);
        let given_up = |suspected: bool| suspected && waited_ms >= SUSPECT_LIMIT_MS;
        let settled = self
            .seats
            .iter()
            .all(|s| s.paused.is_some() || given_up(s.suspected));
        if !settled && now < self.deadline {
            return;
        }
        let silent = self.seats.iter().filter(|seat| seat.paused.is_none());
        let lost: Vec<_> = silent
            .map(|s| {
                (
                    s.member.node,
                    "its neighbours and the coordinator hear nothing of it".to_owned(),
                )
            })
            .collect();
        self.drop_members(&lost, true, now, effects);
        if self.gets_nowhere() {
            let reason = "its group formed again and again without getting anywhere".to_owned();
            let all: Vec<_> = self
                .nodes()
                .into_iter()
                .map(|node| (node, reason.clone()))
                .collect();
            self.drop_members(&all, false, now, effects);
        }
        if self.seats.is_empty() {
            return self.begin_again(now, effects);
        }
        self.start_step = self.agreed_step();
        self.step = self.start_step;
        self.verify_checkpoints(now, effects);
        if self.state == TaskState::Regrouping {
            self.begin_attempt(now, effects);
        }
    }

    fn gets_nowhere(&self) -> bool {
        self.fruitless > MAX_FRUITLESS_ATTEMPTS
            || self.unverified_attempts >= MAX_ATTEMPTS_A_CHECKPOINT
    }

    /// The step that the survivors go on from: the furthest that one of them committed, for then all
    /// have prepared it. If one has not, they go back to the last verified checkpoint.
    fn agreed_step(&self) -> u64 {
        let paused = || self.seats.iter().filter_map(|seat| seat.paused);
        let furthest = paused()
            .map(|p| p.committed)
            .max()
            .unwrap_or(self.verified_step);
        let reaches = paused()
            .all(|p| p.committed == furthest || (p.committed + 1 == furthest && p.prepared));
        if reaches {
            furthest
        } else {
            self.verified_step
        }
    }

    /// Members are gone: the rest form a new attempt; without a rest the task begins again.
    /// With `blamed`, their ratings hear of it.
    pub(super) fn lose(
        &mut self,
        lost: &[(NodeId, String)],
        blamed: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if lost.is_empty() {
            return;
        }
        self.drop_members(lost, blamed, now, effects);
        // What the others vouch for may have waited for the lost ones alone.
        self.verify_checkpoints(now, effects);
        if self.state.is_final() {
            return;
        }
        if self.seats.is_empty() {
            self.begin_again(now, effects);
        } else if self.state == TaskState::Regrouping {
            self.regroup_if_answered(now, effects);
        } else {
            self.pause(now, effects);
        }
    }

    fn drop_members(
        &mut self,
        lost: &[(NodeId, String)],
        blamed: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let done = work_after(self, self.step).checked_sub(work_after(self, self.verified_step));
        let unpaid = self.shares(done.unwrap_or(Amount::ZERO));
        let remaining = self.seats.len().saturating_sub(lost.len()) as u32;
        let first = self.seats.first().map(|seat| seat.member.node);
        if lost.iter().any(|(node, _)| Some(*node) == first) {
            // The result was its word.
            self.result = None;
        }
        for (node, reason) in lost {
            let Some((member, amount)) = unpaid.iter().find(|(member, _)| member.node == *node)
            else {
                continue;
            };
            self.tell_effort(*node, now, effects);
            self.seats.retain(|seat| seat.member.node != *node);
            self.strikes.push(*node);
            let (name, unpaid) = (member.name.clone(), *amount);
            let event = Event::Lost {
                node: *node,
                name,
                reason: reason.clone(),
                unpaid,
                remaining,
            };
            self.tell(event, effects);
            effects.push(Effect::Stop {
                node: *node,
                reason: reason.clone(),
            });
            if blamed {
                effects.push(Effect::Blame {
                    node: *node,
                    reason: reason.clone(),
                });
            }
        }
    }

    fn begin_again(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.checkpoints.clear();
        (self.heard_since, self.stored_since) = (None, None);
        (self.fruitless, self.unverified_attempts) = (0, 0);
        self.result = None;
        if self.executions >= MAX_EXECUTIONS {
            let reason = format!("{MAX_EXECUTIONS} groups of miners failed it");
            return self.end(TaskState::Abandoned, reason, now, effects);
        }
        self.state = TaskState::Waiting;
        self.reason = format!(
            "the whole group was lost; it begins again from step {}",
            self.verified_step
        );
        self.tell(
            Event::Waiting {
                reason: self.reason.clone(),
            },
            effects,
        );
        self.window_ends = now.plus_ms(self.limits.offer_window_ms);
        self.deadline = now.plus_ms(self.limits.wait_ms);
        effects.push(Effect::AskFree);
    }
}
