//! Members come, go and report.

use cryptomind_protocol::node::{Position, Report};
use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_protocol::timeline::Span;
use cryptomind_protocol::{AccountId, NodeId, Timestamp};

use super::blame::{Fault, Loss};
use super::{Effect, MAX_PROGRESS_EVENTS, Run, STALL_LIMIT_MS, Vouched, WORD_LIMIT_MS};
use crate::market::Surroundings;
use crate::succession::Paused;

impl Run {
    pub(super) fn joined(
        &mut self,
        node: NodeId,
        position: Option<Position>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let (task, attempt, state) = (self.task, self.attempt, self.state);
        let is_called = self.called.is_some();
        let has_delivered = self.has_delivered(node);
        // It lost the thread with its connection, and may come anew.
        self.turn_away(node, "its connection was gone".to_owned(), effects);
        self.barred.retain(|barred| *barred != node);
        let Some(seat) = self.seat(node) else {
            if position.is_some_and(|p| p.task == task) {
                let reason = "the group went on without this node".to_owned();
                effects.push(Effect::Stop { node, reason });
            }
            return self.ask(node, now, effects);
        };
        let away_since = seat.away_since.take().unwrap_or(now);
        let here = position.filter(|p| p.task == task);
        match (state, here) {
            (TaskState::Regrouping, Some(_)) => {
                seat.word_by = Some(now.plus_ms(WORD_LIMIT_MS));
                effects.push(Effect::Pause {
                    nodes: vec![node],
                    attempt: attempt + 1,
                    at_step_end: false,
                });
            }
            (TaskState::Matched, None) if !seat.ready => {
                effects.push(Effect::Match { only: Some(node) });
            }
            (_, Some(p)) if p.attempt < attempt => {
                effects.push(Effect::Match { only: Some(node) });
            }
            // It may not have heard that the group is called.
            (TaskState::Running, Some(_)) if is_called => effects.push(self.call(vec![node])),
            (_, Some(_)) => {}
            // Nothing is wanted of it but to hear that the run is over.
            (_, None) if has_delivered => {}
            // It has lost the run, or has done its part and its report is still on its way: its
            // silence tells, soon.
            (_, None) => {
                seat.away_since = Some(away_since);
                seat.returned.get_or_insert(now);
                return;
            }
        }
        self.excuse_absence(Some(away_since), now);
    }

    /// What the matchmaker meant to tell it may be lost: it is told again, and ignores what it knows.
    pub(super) fn present(&mut self, node: NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        let (state, attempt) = (self.state, self.attempt);
        let Some(seat) = self.seat(node) else { return };
        let away_since = seat.away_since.take();
        (seat.returned, seat.word_by) = (None, Some(now.plus_ms(WORD_LIMIT_MS)));
        let is_ready = seat.ready;
        self.excuse_absence(away_since, now);
        if state == TaskState::Regrouping {
            let attempt = attempt + 1;
            effects.push(Effect::Pause {
                nodes: vec![node],
                attempt,
                at_step_end: false,
            });
        } else if !is_ready {
            effects.push(Effect::Match { only: Some(node) });
        }
    }

    pub(super) fn disconnected(
        &mut self,
        node: NodeId,
        around: &Surroundings,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let pauses = self.state == TaskState::Regrouping;
        if let Some(seat) = self.seat(node) {
            seat.away_since = seat.away_since.or(Some(now));
            // It has been silent for as long as a connection may be.
            seat.suspected |= pauses;
        }
        self.gone_if_leaving(node, now, effects);
        self.turn_away(node, "its connection is gone".to_owned(), effects);
        // It will not answer: perhaps it was the last that was waited for.
        self.declined(node, around, now, effects);
    }

    pub(super) fn reported(
        &mut self,
        node: NodeId,
        attempt: u32,
        report: Report,
        stored_by: Option<AccountId>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if self.newcomer(node).is_some() {
            return self.newcomer_reported(node, attempt, report, now, effects);
        }
        let steps = self.terms.extent.steps;
        let is_called = self.called.is_some() && self.state == TaskState::Running;
        if is_called && attempt == self.attempt + 1 && matches!(report, Report::Paused { .. }) {
            self.rests_as_called(now, effects);
        }
        let pausing = self.state == TaskState::Regrouping && attempt == self.attempt + 1;
        if !(pausing || self.is_of_now(attempt, &report)) || !self.hear_from(node, now) {
            return;
        }
        let first = self.seats.first().map(|seat| seat.member.node);
        let is_rank_0 = first == Some(node);
        if self.is_serving() {
            return self.session_reported(node, report, now, effects);
        }
        match report {
            Report::Ready { fetched_bytes } => self.ready(node, fetched_bytes, now, effects),
            Report::Progress {
                step,
                loss,
                samples_per_s,
                timeline,
            } if is_rank_0 => {
                self.progress(step, (loss, samples_per_s, timeline), now, effects);
            }
            Report::Progress { .. } => {}
            Report::Checkpoint {
                step,
                fingerprint,
                computed_ms,
                stored,
            } => {
                let stored = stored.map(|(file, _)| file);
                let stored = stored.filter(|_| is_rank_0 && stored_by.is_some());
                let vouched = Vouched {
                    node,
                    step,
                    fingerprint,
                    computed_ms,
                };
                self.checkpoint(vouched, stored, now, effects);
            }
            Report::RingBroken {
                suspect, reason, ..
            } => self.ring_broken(suspect, &reason, now, effects),
            Report::Coming {} => {
                if pausing && let Some(seat) = self.seat(node) {
                    seat.word_by = None;
                }
            }
            Report::Paused {
                committed,
                prepared,
                ring_address,
            } => {
                if pausing
                    && committed <= steps
                    && let Some(seat) = self.seat(node)
                {
                    seat.ring_address = ring_address;
                    seat.paused = Some(Paused {
                        committed,
                        prepared,
                    });
                    self.regroup_if_answered(now, effects);
                }
            }
            Report::Finished { files, metrics, .. } if is_rank_0 => {
                self.finished(files, metrics, stored_by, now, effects);
            }
            Report::Finished { .. } => {}
            // Of sessions.
            Report::Serving { .. } | Report::Served { .. } => {}
            // Comes opened.
            Report::Committed { .. } => {}
            // Of newcomers.
            Report::Level { .. } => {}
            Report::Failed {
                task_fault: true,
                reason,
            } => self.faulty(node, reason, now, effects),
            Report::Failed {
                task_fault: false,
                reason,
            } => {
                self.lose(vec![Loss::new(node, reason, Fault::Open)], now, effects);
            }
            Report::Leaving { reason } => self.leaving(node, reason, now, effects),
        }
    }

    /// Whether a report says something of the present attempt, whichever it names.
    fn is_of_now(&self, attempt: u32, report: &Report) -> bool {
        match report {
            _ if attempt == self.attempt => true,
            // Whoever leaves may not have heard of the last attempt yet.
            Report::Leaving { .. } => true,
            // What was stored meanwhile, of steps that the group has behind it.
            Report::Checkpoint { step, .. } => {
                attempt.checked_add(1) == Some(self.attempt) && *step <= self.start_step
            }
            _ => false,
        }
    }

    /// Whether a node is a member: then it is there, having spoken.
    pub(super) fn hear_from(&mut self, node: NodeId, now: Timestamp) -> bool {
        let Some(seat) = self.seat(node) else {
            return false;
        };
        let away_since = seat.away_since.take();
        seat.returned = None;
        self.excuse_absence(away_since, now);
        true
    }

    fn ready(&mut self, node: NodeId, bytes: u64, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.state != TaskState::Matched {
            return;
        }
        let Some(seat) = self.seat(node).filter(|seat| !seat.ready) else {
            return;
        };
        seat.ready = true;
        let name = seat.member.name.clone();
        self.tell(Event::Fetched { node, name, bytes }, effects);
        if self.seats.iter().all(|seat| seat.ready) {
            self.start(now, effects);
        }
    }

    pub(super) fn start(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.state = TaskState::Running;
        self.delivered = true;
        self.restart_effort(now);
        self.reason = format!("{} miners compute", self.seats.len());
        self.promise_next(now);
        self.deadline = now.plus_ms(self.news_limit_ms());
        if self.vacant() > 0 {
            effects.push(Effect::AskFree);
        }
        self.call_newcomers(now, effects);
    }

    fn progress(
        &mut self,
        step: u64,
        (loss, samples_per_s, timeline): (f32, u64, Vec<Span>),
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if self.state == TaskState::Matched {
            self.start(now, effects);
        }
        if self.state != TaskState::Running || step <= self.step || step > self.terms.extent.steps {
            return;
        }
        self.step = step;
        self.fruitless = 0;
        self.deadline = now.plus_ms(STALL_LIMIT_MS);
        self.look_for_deaf(now, effects);
        let total_steps = self.terms.extent.steps;
        let spacing = total_steps / MAX_PROGRESS_EVENTS;
        if self.progress_step == 0 || step >= self.progress_step + spacing || step == total_steps {
            (self.progress_step, self.timeline) = (step, timeline);
            self.tell(
                Event::Progress {
                    step,
                    total_steps,
                    loss,
                    samples_per_s,
                    timeline: Vec::new(),
                },
                effects,
            );
        }
    }
}
