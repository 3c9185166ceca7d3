//! Holds: a task's whole price cap, reserved until the task has ended.

use cryptomind_protocol::block::{HoldTerms, Share};
use cryptomind_protocol::{AccountId, Amount, NodeId, TaskId, Timestamp};
use serde::{Deserialize, Serialize};

/// What a node has earned in a hold for its owner's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "EarningParts", into = "EarningParts")]
pub struct Earning {
    /// Who is paid.
    pub account: AccountId,
    /// Whose work it was.
    pub node: NodeId,
    /// Over all checkpoints so far; never nothing.
    pub amount: Amount,
}

/// A task's hold, open. It only ever moves by its own rules: opened, earned in, settled; then it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Parts", into = "Parts")]
pub struct Hold {
    /// The task that it pays for.
    pub task: TaskId,
    /// Whose money it is.
    pub payer: AccountId,
    /// The cap: all that can ever be paid.
    pub amount: Amount,
    /// When it was opened.
    pub opened: Timestamp,
    /// What its settlement follows.
    pub terms: HoldTerms,
    /// Number of the last checkpoint that was earned.
    pub checkpoint: Option<u64>,
    /// What was earned, by order of first earning.
    pub earnings: Vec<Earning>,
}

impl Hold {
    /// The most nodes that may earn in one hold: so its settlement fits a block.
    pub const MAX_EARNINGS: usize = 512;
    /// The most items of a hold's terms, and the most storage nodes of an ending.
    pub const MAX_PAYEES: usize = 256;

    /// Earned by miners, to be paid when the hold is settled.
    pub fn earned(&self) -> Amount {
        total(self.earnings.iter().map(|e| e.amount))
    }

    /// Not earned yet.
    pub fn free(&self) -> Amount {
        let free = self.amount.checked_sub(self.earned());
        free.unwrap_or(Amount::ZERO)
    }

    /// What miners can still earn.
    pub fn work_left(&self) -> Amount {
        let left = self.terms.work_max.checked_sub(self.earned());
        left.unwrap_or(Amount::ZERO)
    }

    /// Adds a share to what its node has earned. Nothing where the amounts do not fit.
    pub(super) fn earn(&mut self, share: &Share) -> Option<()> {
        let same = |e: &&mut Earning| e.account == share.account && e.node == share.node;
        if let Some(earning) = self.earnings.iter_mut().find(same) {
            earning.amount = earning.amount.checked_add(share.amount)?;
            return Some(());
        }
        self.earnings.push(Earning {
            account: share.account,
            node: share.node,
            amount: share.amount,
        });
        Some(())
    }
}

/// The parts of a hold never sum to more than its amount. Where a damaged record says otherwise, the
/// largest amount stands for it, and the check of the invariants reports it.
fn total(parts: impl Iterator<Item = Amount>) -> Amount {
    Amount::sum(parts).unwrap_or(Amount::from_base_units(u64::MAX))
}

type EarningParts = (AccountId, NodeId, Amount);

impl From<EarningParts> for Earning {
    fn from((account, node, amount): EarningParts) -> Self {
        Self {
            account,
            node,
            amount,
        }
    }
}

impl From<Earning> for EarningParts {
    fn from(earning: Earning) -> Self {
        (earning.account, earning.node, earning.amount)
    }
}

type Parts = (
    TaskId,
    AccountId,
    Amount,
    Timestamp,
    HoldTerms,
    Option<u64>,
    Vec<Earning>,
);

impl From<Parts> for Hold {
    fn from((task, payer, amount, opened, terms, checkpoint, earnings): Parts) -> Self {
        Self {
            task,
            payer,
            amount,
            opened,
            terms,
            checkpoint,
            earnings,
        }
    }
}

impl From<Hold> for Parts {
    fn from(h: Hold) -> Self {
        (
            h.task,
            h.payer,
            h.amount,
            h.opened,
            h.terms,
            h.checkpoint,
            h.earnings,
        )
    }
}
