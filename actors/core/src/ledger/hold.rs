//! Holds: a task's whole price cap, reserved until the task has ended.

use cryptomind_protocol::task::{Payment, Reason};
use cryptomind_protocol::{AccountId, Amount, NodeId, TaskId, Timestamp};
use serde::{Deserialize, Serialize};

/// What a node has earned in a hold for its owner's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earning {
    /// Who is paid.
    pub account: AccountId,
    /// Whose work it was.
    pub node: NodeId,
    /// Over all checkpoints so far.
    pub amount: Amount,
}

/// How a hold was paid out. Written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// When.
    pub at: Timestamp,
    /// Work by order of first earning, then fees, then the refund; parts of nothing are left out.
    /// They sum to the hold's amount.
    pub payments: Vec<Payment>,
}

/// A task's hold. It only ever moves by its own rules: opened, earned in, settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The task that it pays for.
    pub task: TaskId,
    /// Whose money it is.
    pub payer: AccountId,
    /// The cap: all that can ever be paid.
    pub amount: Amount,
    /// When it was opened.
    pub opened: Timestamp,
    /// Number of the last checkpoint that was earned.
    pub checkpoint: Option<u64>,
    /// What was earned, by order of first earning. It stays as it was when the hold is settled.
    pub earnings: Vec<Earning>,
    /// How it was paid out, once it was.
    pub settled: Option<Settlement>,
}

impl Hold {
    /// Whether it is not settled yet.
    pub const fn is_open(&self) -> bool {
        self.settled.is_none()
    }

    /// Earned by miners, whether paid out yet or not.
    pub fn earned_ever(&self) -> Amount {
        total(self.earnings.iter().map(|e| e.amount))
    }

    /// Earned and waiting for the settlement; nothing once it is settled.
    pub fn earned(&self) -> Amount {
        if self.is_open() {
            self.earned_ever()
        } else {
            Amount::ZERO
        }
    }

    /// Not earned yet; nothing once it is settled.
    pub fn free(&self) -> Amount {
        if self.is_open() {
            let free = self.amount.checked_sub(self.earned_ever());
            free.unwrap_or(Amount::ZERO)
        } else {
            Amount::ZERO
        }
    }

    /// Paid to others; nothing before it is settled.
    pub fn paid(&self) -> Amount {
        self.sum_of(|reason| reason != Reason::Refund)
    }

    /// Given back to the payer; nothing before it is settled.
    pub fn returned(&self) -> Amount {
        self.sum_of(|reason| reason == Reason::Refund)
    }

    /// Every payment out of it; none before it is settled.
    pub fn payments(&self) -> &[Payment] {
        self.settled.as_ref().map_or(&[], |s| &s.payments)
    }

    fn sum_of(&self, which: impl Fn(Reason) -> bool) -> Amount {
        let payments = self.payments().iter().filter(|p| which(p.reason));
        total(payments.map(|p| p.amount))
    }
}

/// The parts of a hold never sum to more than its amount. Where a damaged record says otherwise, the
/// largest amount stands for it, and the check of the invariants reports it.
fn total(parts: impl Iterator<Item = Amount>) -> Amount {
    Amount::sum(parts).unwrap_or(Amount::from_base_units(u64::MAX))
}
