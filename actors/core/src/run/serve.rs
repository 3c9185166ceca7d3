//! Sessions: a run that keeps a model ready for its client's calls, and earns by what the client acknowledges.
//!
//! Its steps are samples: the last verified one is the last acknowledged one. Who serves has a group of one; when it is
//! lost, another serves, and counts on from what is earned. Before a session ends otherwise than by its client's last
//! word, its miner is asked for the newest acknowledgement that it holds: so nobody gains by cancelling early.

use cryptomind_protocol::task::{Event, Latency, Metrics, TaskState, Work};
use cryptomind_protocol::{NodeAddress, NodeId, Timestamp};

use super::blame::{Fault, Loss};
use super::{
    CLOSE_LIMIT_MS, Effect, IDLE_LIMIT_MS, MAX_PROGRESS_EVENTS, Report, Run, STALL_LIMIT_MS,
};
use crate::serve::{Bounds, Refusal, Shown};

/// Microseconds of a millisecond.
const US_PER_MS: u64 = 1_000;

impl Run {
    /// Whether it serves its client's calls.
    pub const fn is_serving(&self) -> bool {
        matches!(self.spec.work, Work::Serve { .. })
    }

    /// What an acknowledgement is held against now. Nothing where there is nobody to acknowledge anything to.
    fn bounds(&self) -> Option<Bounds> {
        Some(Bounds {
            task: self.task,
            attempt: self.attempt,
            caller: self.caller.filter(|_| self.is_serving())?,
            acknowledged: self.verified_step,
            most: self.terms.extent.steps,
        })
    }

    /// Why an acknowledgement that a member shows in this attempt does not count, where it does not. News from others, and of
    /// attempts that are over, changes nothing and is not judged.
    pub fn judge(&self, node: &NodeId, attempt: u32, shown: &Shown) -> Result<(), Refusal> {
        match self.bounds().filter(|_| self.is_served_by(node, attempt)) {
            Some(bounds) => bounds.judge(shown).map(drop),
            None => Ok(()),
        }
    }

    fn is_served_by(&self, node: &NodeId, attempt: u32) -> bool {
        let seat = self.seats.first().filter(|_| attempt == self.attempt);
        self.state == TaskState::Running && seat.is_some_and(|seat| seat.member.node == *node)
    }

    /// Until posting led to a match, microseconds.
    pub(super) fn queue_us(&self) -> u64 {
        let matched = self.matched.map_or(0, |at| at.ms_since(self.posted));
        matched.saturating_mul(US_PER_MS)
    }

    /// How long a run that computes may be without news.
    pub(super) const fn news_limit_ms(&self) -> u64 {
        match (self.is_serving(), self.closing) {
            // Its end, which comes before.
            (false, _) if self.is_silent_by_promise() => self.limits.hold_ms,
            (false, _) => STALL_LIMIT_MS,
            (true, None) => IDLE_LIMIT_MS,
            (true, Some(_)) => CLOSE_LIMIT_MS,
        }
    }

    /// News of the one that serves, but for acknowledgements.
    pub(super) fn session_reported(
        &mut self,
        node: NodeId,
        report: Report,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        match report {
            Report::Serving {
                address, latency, ..
            } => self.opened(node, &address, latency, now, effects),
            Report::Failed { .. } if self.closing.is_some() => self.close_session(now, effects),
            Report::Failed {
                task_fault: true,
                reason,
            } => self.faulty(node, reason, now, effects),
            Report::Failed { reason, .. } => {
                self.lose(vec![Loss::new(node, reason, Fault::Open)], now, effects);
            }
            Report::Leaving { .. } if self.closing.is_some() => self.close_session(now, effects),
            Report::Leaving { reason } => self.leaving(node, reason, now, effects),
            // A session has no ring, no checkpoints and no result.
            _ => {}
        }
    }

    /// The door is open: the client is told where.
    fn opened(
        &mut self,
        node: NodeId,
        address: &str,
        latency: Latency,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let address: Option<NodeAddress> = format!("cm://{node}@{address}").parse().ok();
        let Some(address) = address.filter(|_| self.state == TaskState::Matched) else {
            return;
        };
        let Some(seat) = self.seat(node) else { return };
        seat.ready = true;
        let name = seat.member.name.clone();
        let latency = Latency {
            queue_us: self.queue_us(),
            ..latency
        };
        self.opening = Some(latency);
        let event = Event::Serving {
            node,
            name,
            address,
            attempt: self.attempt,
            samples: self.verified_step,
            latency,
        };
        self.tell(event, effects);
        self.start(now, effects);
        self.reason = "its miner answers calls".to_owned();
    }

    /// The one that serves shows what the client acknowledged; with `left` its door is closed.
    pub(super) fn served(
        &mut self,
        (node, attempt): (NodeId, u32),
        shown: Option<&Shown>,
        left: bool,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(bounds) = self.bounds().filter(|_| self.is_served_by(&node, attempt)) else {
            return;
        };
        if let Some(seat) = self.seat(node) {
            seat.away_since = None;
        }
        let said = shown.and_then(|shown| bounds.judge(shown).ok());
        if let Some(samples) = said.map(|said| said.samples) {
            self.acknowledged(samples, now, effects);
        }
        if self.closing.is_some() {
            if left {
                self.close_session(now, effects);
            }
        } else if said.is_some_and(|said| said.last) {
            self.end_session("its client has what it wanted", now, effects);
        } else if self.verified_step >= self.terms.extent.steps {
            self.end_session("all samples that were paid for are used", now, effects);
        } else if left {
            let reason = "it closed its door".to_owned();
            self.lose(vec![Loss::new(node, reason, Fault::Open)], now, effects);
        }
    }

    /// What is known of a session as a result: where the time went before the first call.
    pub fn session_metrics(&self) -> Option<Metrics> {
        Some(Metrics {
            samples: self.verified_step,
            latency: Some(self.opening?),
            ..Metrics::default()
        })
    }

    fn acknowledged(&mut self, samples: u64, now: Timestamp, effects: &mut Vec<Effect>) {
        if samples <= self.verified_step {
            return;
        }
        (self.step, self.verified_step) = (samples, samples);
        self.earn(samples, effects);
        self.blame_overtaken(effects);
        (self.fruitless, self.unverified_attempts) = (0, 0);
        if self.closing.is_none() {
            self.deadline = now.plus_ms(IDLE_LIMIT_MS);
        }
        let spacing = self.terms.extent.steps / MAX_PROGRESS_EVENTS;
        let is_last = samples == self.terms.extent.steps;
        if self.progress_step == 0 || samples >= self.progress_step + spacing || is_last {
            self.progress_step = samples;
            let earned = self.earned;
            self.tell(Event::Acknowledged { samples, earned }, effects);
        }
    }

    /// Ends it in this state, once its miner has shown the newest acknowledgement. False where nobody serves it: then there
    /// is none.
    pub(super) fn ask_for_the_last(
        &mut self,
        state: TaskState,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if !self.is_serving() || self.state != TaskState::Running {
            return false;
        }
        if self.closing.is_none() {
            self.closing = Some(state);
            self.deadline = now.plus_ms(CLOSE_LIMIT_MS);
            self.reason = reason.clone();
            let nodes = self.nodes().into_iter();
            effects.extend(nodes.map(|node| Effect::Stop {
                node,
                reason: reason.clone(),
            }));
        }
        true
    }

    /// Time has passed while somebody serves.
    pub(super) fn session_tick(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.closing {
            Some(_) if now >= self.deadline => self.close_session(now, effects),
            Some(_) => {}
            None if now >= self.deadline => {
                let reason = format!("nothing was acknowledged for {} s", IDLE_LIMIT_MS / 1000);
                self.ask_for_the_last(TaskState::Finished, reason, now, effects);
            }
            None => self.look_for_lost(now, effects),
        }
    }

    fn close_session(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let state = self.closing.unwrap_or(TaskState::Cancelled);
        let reason = self.reason.clone();
        self.end(state, reason, now, effects);
    }

    fn end_session(&mut self, reason: &str, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.earned.is_zero() {
            let praise = self
                .nodes()
                .into_iter()
                .filter_map(|node| self.praise(node));
            effects.extend(praise.collect::<Vec<_>>());
        }
        self.end(TaskState::Finished, reason.to_owned(), now, effects);
    }
}
