//! A group that trains is called to pause where a step ends: for newcomers, or to be weighed anew. It costs no step.

use cryptomind_protocol::task::TaskState;
use cryptomind_protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Effect, Run};

/// How long, and for how many steps, a group may train on after it was called.
const LIMIT_MS: u64 = 5_000;
const LIMIT_STEPS: u64 = 3;

/// A call that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// When it was made.
    pub at: Timestamp,
    /// How far the group was.
    pub step: u64,
    /// Whether it is to be weighed anew; else newcomers are to join it.
    #[serde(default)]
    pub weighs: bool,
}

impl Call {
    pub(super) const fn to_join(at: Timestamp, step: u64) -> Self {
        let weighs = false;
        Self { at, step, weighs }
    }

    pub(super) const fn to_weigh(at: Timestamp, step: u64) -> Self {
        let weighs = true;
        Self { at, step, weighs }
    }

    const fn reason(self) -> &'static str {
        match self.weighs {
            true => "the members divide their batches anew, by how fast each was measured",
            false => "miners join the group",
        }
    }
}

impl Run {
    /// Whether nothing speaks against a call.
    pub(super) fn may_call(&self) -> bool {
        self.state == TaskState::Running
            && self.called.is_none()
            && self.seats.iter().all(|seat| seat.leaving.is_none())
    }

    /// Has all members pause where a step ends, and the newcomers that are level.
    pub(super) fn call_all(&mut self, call: Call, effects: &mut Vec<Effect>) {
        self.called = Some(call);
        for newcomer in &mut self.newcomers {
            newcomer.paused = None;
        }
        let nodes = self.nodes().into_iter().chain(self.level());
        effects.push(self.call(nodes.collect()));
    }

    /// The word to pause where a step ends.
    pub(super) fn call(&self, nodes: Vec<NodeId>) -> Effect {
        Effect::Pause {
            nodes,
            attempt: self.attempt + 1,
            at_step_end: true,
        }
    }

    /// The group trains on past the call: somebody has not heard it, or does not heed it. All are asked at once.
    pub(super) fn look_for_deaf(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(call) = self.called else { return };
        let is_deaf = now.ms_since(call.at) >= LIMIT_MS && self.step >= call.step + LIMIT_STEPS;
        if is_deaf && self.state == TaskState::Running {
            let reason = format!("{}; not all of them heeded the call", call.reason());
            self.pause(reason, now, effects);
        }
    }

    /// A member has left its ring where it was called to. So have all others, where it tells the truth: they are asked now.
    pub(super) fn rests_as_called(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if let Some(call) = self.called {
            self.begin_pause(call.reason().to_owned(), now, effects);
        }
    }
}
