//! Whose fault a loss is, and when that is held against a miner; and whose merit a run is.
//!
//! A task that crashes every machine looks, from here, like machines that crash. So what could be the task's fault is kept
//! in the run as a [`Charge`], and is held against its miner only once the task gets further than where it failed: then it
//! can be done. Where it never does, because it was given up after [`super::MAX_EXECUTIONS`] groups, or cancelled, or out of
//! time, nobody is blamed. Where the others have just shown that it can be done, its miner is blamed at once.

use cryptomind_protocol::{AccountId, NodeId};
use serde::{Deserialize, Serialize};

use super::{Effect, Run, Seat};

/// Whose fault the loss of a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its own: the others did the same, and it did not, or came to something else.
    Own,
    /// Its own or the task's: it is gone, silent, late, or says that it cannot go on.
    Open,
    /// The same, and it was far slower than promised: it is no sooner done by trying once more.
    Late,
    /// Nobody's: all go, whatever each did, or it wanted to.
    Nobodys,
}

/// A member that is to give up its seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) node: NodeId,
    pub(super) reason: String,
    pub(super) fault: Fault,
}

impl Loss {
    pub(super) fn new(node: NodeId, reason: impl Into<String>, fault: Fault) -> Self {
        let reason = reason.into();
        Self {
            node,
            reason,
            fault,
        }
    }
}

/// A failure that may be the task's fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Who failed.
    pub node: NodeId,
    /// How.
    pub reason: String,
    /// The furthest step that was known of then: whoever verifies a later one has done what it failed at.
    pub step: u64,
    /// Whether it was for being late.
    #[serde(default)]
    pub late: bool,
}

impl Run {
    pub(super) fn hold_against(
        &mut self,
        Loss {
            node,
            reason,
            fault,
        }: Loss,
        effects: &mut Vec<Effect>,
    ) {
        match fault {
            Fault::Own => effects.push(Effect::Blame { node, reason }),
            Fault::Open | Fault::Late => {
                let step = self.furthest_step();
                self.charges.push(Charge {
                    node,
                    reason,
                    step,
                    late: fault == Fault::Late,
                });
            }
            Fault::Nobodys => {}
        }
    }

    /// A member did its part. That others agreed says something only where another owner had a part in it; and nobody is
    /// praised for his own task, nor is his word another's.
    pub(super) fn praise(&self, node: NodeId) -> Option<Effect> {
        let owner = |seat: &Seat| seat.member.owner;
        let own = self
            .seats
            .iter()
            .find(|s| s.member.node == node)
            .map(owner)?;
        let mut others = self.seats.iter().map(owner);
        let is_other = |other: AccountId| other != own && other != self.client;
        let agreed = self.verified_step > 0 && others.any(is_other);
        (own != self.client).then_some(Effect::Praise { node, agreed })
    }

    fn furthest_step(&self) -> u64 {
        let known = self.checkpoints.last().map_or(0, |c| c.step);
        self.step.max(known)
    }

    /// The task got as far as its last verified checkpoint: whoever failed before that failed at what can be done.
    pub(super) fn blame_overtaken(&mut self, effects: &mut Vec<Effect>) {
        let verified = self.verified_step;
        let overtaken = self.charges.extract_if(.., |c| c.step < verified);
        effects.extend(overtaken.map(Charge::into_blame));
    }

    /// The task is done: whoever failed it failed at what can be done.
    pub(super) fn blame_all(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.charges.drain(..).map(Charge::into_blame));
    }

    /// Whether a miner failed it, and nobody knows yet whose fault that was.
    pub(super) fn is_charged(&self, node: NodeId) -> bool {
        let mut charges = self.charges.iter();
        charges.any(|charge| charge.node == node && !charge.late)
    }

    /// Whether a miner was far slower at it than it promised.
    pub(super) fn was_late(&self, node: NodeId) -> bool {
        let mut charges = self.charges.iter();
        charges.any(|charge| charge.node == node && charge.late)
    }
}

impl Charge {
    fn into_blame(self) -> Effect {
        let (node, reason) = (self.node, self.reason);
        Effect::Blame { node, reason }
    }
}
