//! Loss of members, and the attempt after it.

use cryptomind_protocol::task::{Event, Member, TaskState};
use cryptomind_protocol::{Amount, NodeId, Timestamp};

use super::blame::{Fault, Loss};
use super::{
    COMING_LIMIT_MS, Effect, MAX_ATTEMPTS_A_CHECKPOINT, MAX_EXECUTIONS, MAX_FRUITLESS_ATTEMPTS,
    PAUSE_LIMIT_MS, Run, SUSPECT_LIMIT_MS, Seat, WORD_LIMIT_MS, work_after,
};
use crate::succession::agreed_step;

impl Run {
    pub(super) fn ring_broken(
        &mut self,
        suspect: Option<NodeId>,
        reason: &str,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let suspect = suspect.and_then(|node| self.seat(node)).map(|seat| {
            seat.suspected = true;
            seat.member.name.clone()
        });
        if matches!(self.state, TaskState::Matched | TaskState::Running) {
            let why = match suspect {
                Some(name) => format!("the ring broke: {name} {reason}"),
                None => format!("the ring broke: {reason}"),
            };
            self.pause(why, now, effects);
        }
    }

    pub(super) fn pause(&mut self, reason: String, now: Timestamp, effects: &mut Vec<Effect>) {
        self.called = None;
        for newcomer in &mut self.newcomers {
            newcomer.paused = None;
        }
        self.begin_pause(reason, now, effects);
    }

    pub(super) fn begin_pause(
        &mut self,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.reason = reason.clone();
        self.tell(Event::Regroups { reason }, effects);
        self.state = TaskState::Regrouping;
        self.paused_at = now;
        for seat in &mut self.seats {
            seat.paused = None;
        }
        self.ask_to_pause(now, effects);
    }

    /// Members that were asked before hear that the coordinator is still there.
    fn ask_to_pause(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.deadline = now.plus_ms(PAUSE_LIMIT_MS);
        for seat in &mut self.seats {
            seat.word_by = Some(now.plus_ms(WORD_LIMIT_MS));
        }
        let nodes = self.nodes().into_iter().chain(self.level());
        effects.push(Effect::Pause {
            nodes: nodes.collect(),
            attempt: self.attempt + 1,
            at_step_end: false,
        });
    }

    /// Goes on once every member has answered, or those that can be waited for have.
    pub(super) fn regroup_if_answered(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let waited_ms = now.ms_since(self.paused_at);
        let given_up =
            |seat: &Seat| (seat.suspected && waited_ms >= SUSPECT_LIMIT_MS) || seat.is_mute(now);
        let mut awaited = self
            .seats
            .iter()
            .filter(|s| s.owes_answer() && !given_up(s))
            .peekable();
        let waits = awaited.peek().is_some() || self.waits_for_newcomers(waited_ms);
        if waits && now < self.deadline {
            return;
        }
        if awaited.any(Seat::comes) && waited_ms < COMING_LIMIT_MS {
            return self.ask_to_pause(now, effects);
        }
        let all_leave = self.all_leave();
        let gone = |seat: &&Seat| seat.paused.is_none() || seat.leaving.is_some();
        let silent = self.seats.iter().filter(gone);
        let reason = "its neighbours and the coordinator hear nothing of it";
        let lost = silent.map(|seat| Loss::new(seat.member.node, reason, Fault::Open));
        self.drop_members(lost.collect(), now, effects);
        if self.gets_nowhere() {
            let reason = "its group formed again and again without getting anywhere";
            let all = self.nodes().into_iter();
            let all = all.map(|node| Loss::new(node, reason, Fault::Nobodys));
            self.drop_members(all.collect(), now, effects);
        }
        if self.seats.is_empty() {
            return self.begin_again(all_leave, now, effects);
        }
        self.start_step = self.agreed_step();
        self.step = self.start_step;
        self.verify_checkpoints(now, effects);
        if self.state == TaskState::Regrouping {
            self.seat_newcomers(now, effects);
            self.begin_attempt(now, effects);
        }
    }

    pub(super) fn gets_nowhere(&self) -> bool {
        self.fruitless > MAX_FRUITLESS_ATTEMPTS
            || self.unverified_attempts >= MAX_ATTEMPTS_A_CHECKPOINT
    }

    /// The step that the survivors go on from: see [`agreed_step`]. Where they have none in common, they go back to the last
    /// verified checkpoint.
    fn agreed_step(&self) -> u64 {
        let paused = self.seats.iter().filter_map(|seat| seat.paused);
        agreed_step(paused).unwrap_or(self.verified_step)
    }

    fn all_leave(&self) -> bool {
        self.seats.iter().all(|seat| seat.leaving.is_some())
    }

    /// Members are gone: the rest form a new attempt; without a rest the task begins again.
    pub(super) fn lose(&mut self, lost: Vec<Loss>, now: Timestamp, effects: &mut Vec<Effect>) {
        if lost.is_empty() {
            return;
        }
        let all_leave = self.all_leave();
        let reason = self.gone(&lost);
        self.drop_members(lost, now, effects);
        // What the others vouch for may have waited for the lost ones alone.
        self.verify_checkpoints(now, effects);
        if self.state.is_final() {
            return;
        }
        if self.seats.is_empty() {
            self.begin_again(all_leave, now, effects);
        } else if self.state == TaskState::Regrouping {
            self.regroup_if_answered(now, effects);
        } else {
            self.pause(reason, now, effects);
        }
    }

    /// Who is gone, for people.
    fn gone(&self, lost: &[Loss]) -> String {
        let seat = |loss: &Loss| self.seats.iter().find(|s| s.member.node == loss.node);
        let gone = lost.iter().filter_map(seat).map(|seat| {
            let how = match seat.leaving {
                Some(_) => "leaves",
                None => "is lost",
            };
            format!("{} {how}", seat.member.name)
        });
        gone.collect::<Vec<_>>().join(", ")
    }

    /// Gives up the seats of members that are lost, or that leave.
    pub(super) fn drop_members(
        &mut self,
        lost: Vec<Loss>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let done = work_after(self, self.step).checked_sub(work_after(self, self.verified_step));
        let unpaid = self.parts(done.unwrap_or(Amount::ZERO), self.step);
        let remaining = self.seats.len().saturating_sub(lost.len()) as u32;
        let first = self.seats.first().map(|seat| seat.member.node);
        if lost.iter().any(|loss| Some(loss.node) == first) {
            // The result was its word.
            self.result = None;
        }
        let lost: Vec<_> = lost
            .into_iter()
            .map(|loss| (self.has_done_its_part(loss.node), loss))
            .collect();
        for (has_done_its_part, loss) in lost {
            let seat = self.seats.iter().position(|s| s.member.node == loss.node);
            let Some(seat) = seat.map(|at| self.seats.remove(at)) else {
                continue;
            };
            effects.extend(self.ran(&seat, now));
            let share = unpaid.iter().find(|(member, _)| member.node == loss.node);
            let share = share.map_or(Amount::ZERO, |(_, amount)| *amount);
            match seat.leaving {
                Some(why) => {
                    if !has_done_its_part {
                        effects.push(Effect::LetGo(loss.node));
                    }
                    self.has_left(seat.member, why, (share, remaining), effects);
                }
                None => {
                    self.is_lost(seat.member, &loss.reason, (share, remaining), effects);
                    self.hold_against(loss, effects);
                }
            }
        }
    }

    fn is_lost(
        &mut self,
        Member { node, name, .. }: Member,
        reason: &str,
        (unpaid, remaining): (Amount, u32),
        effects: &mut Vec<Effect>,
    ) {
        self.strikes.push(node);
        let reason = reason.to_owned();
        let event = Event::Lost {
            node,
            name,
            reason: reason.clone(),
            unpaid,
            remaining,
        };
        self.tell(event, effects);
        effects.push(Effect::Stop { node, reason });
    }

    fn has_left(
        &mut self,
        Member { node, name, .. }: Member,
        reason: String,
        (unpaid, remaining): (Amount, u32),
        effects: &mut Vec<Effect>,
    ) {
        self.leaves.push(node);
        let event = Event::Left {
            node,
            name,
            reason,
            unpaid,
            remaining,
        };
        self.tell(event, effects);
        let reason = "it is let go, as it asked".to_owned();
        effects.push(Effect::Stop { node, reason });
    }

    /// Nobody is left: others are looked for, or those who failed get a second attempt. A group that left of its own
    /// accord does not count as one that failed.
    fn begin_again(&mut self, all_left: bool, now: Timestamp, effects: &mut Vec<Effect>) {
        self.turn_all_away("the group that it followed is no more", effects);
        self.late.append(&mut self.asked);
        self.called = None;
        self.checkpoints.clear();
        (self.heard_since, self.stored_since) = (None, None);
        (self.fruitless, self.unverified_attempts, self.weighed) = (0, 0, 0);
        self.result = None;
        if all_left {
            self.executions = self.executions.saturating_sub(1);
        }
        if self.executions >= MAX_EXECUTIONS {
            let reason = self.given_up();
            return self.end(TaskState::Abandoned, reason, now, effects);
        }
        self.state = TaskState::Waiting;
        let (what, step) = (
            if all_left { "left" } else { "was lost" },
            self.verified_step,
        );
        self.reason = format!("the whole group {what}; it begins again from step {step}");
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

    fn given_up(&self) -> String {
        let failed = format!("{MAX_EXECUTIONS} groups of miners failed it");
        match self.charges.is_empty() {
            true => failed,
            false => format!("{failed}: that may be its own fault, and is held against nobody"),
        }
    }
}

impl Seat {
    /// In a pause: whether it has not said where it stands, and does not go.
    pub(super) const fn owes_answer(&self) -> bool {
        self.paused.is_none() && self.leaving.is_none()
    }

    /// Whether it has a connection and has said nothing for as long as one may.
    fn is_mute(&self, now: Timestamp) -> bool {
        self.away_since.is_none() && self.word_by.is_some_and(|by| now >= by)
    }

    /// Whether it said that it comes, and is there.
    fn comes(&self) -> bool {
        self.away_since.is_none() && self.word_by.is_none()
    }
}
