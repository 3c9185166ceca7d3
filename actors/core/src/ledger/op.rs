//! Operations: everything that can happen to money.

use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{AccountId, Amount, NodeId, TaskId};

/// A node's part of a verified checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its owner's account, which will be paid.
    pub account: AccountId,
    /// The node.
    pub node: NodeId,
    /// How much. A share of nothing is passed over.
    pub amount: Amount,
}

/// A payment out of a hold to somebody who is no miner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fee {
    /// Who receives.
    pub payee: AccountId,
    /// How much. A fee of nothing is passed over.
    pub amount: Amount,
    /// [`Reason::ItemFee`], [`Reason::Storage`] or [`Reason::NetworkFee`].
    pub reason: Reason,
}

/// What shall happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Mint the supply, once, into the first accounts.
    Genesis {
        /// Who starts with what; together exactly the supply.
        allocations: Vec<(AccountId, Amount)>,
    },
    /// Give test money from the bounty account. The caller sees to it that this is a development network.
    Faucet {
        /// To whom.
        to: AccountId,
        /// How much.
        amount: Amount,
    },
    /// Move tokens from one account to another.
    Send {
        /// From whom: the account that signed.
        from: AccountId,
        /// To whom.
        to: AccountId,
        /// How much.
        amount: Amount,
    },
    /// Reserve a task's whole price cap.
    OpenHold {
        /// The task.
        task: TaskId,
        /// Whose money.
        payer: AccountId,
        /// The cap.
        amount: Amount,
    },
    /// A checkpoint is verified: its shares are earned, within the hold.
    Earn {
        /// The task.
        task: TaskId,
        /// Which checkpoint, in rising order over the whole task, such as the steps that it covers.
        /// One that is not above the last was earned already, and nothing changes: a repeated
        /// report earns once, in whatever attempt it is repeated.
        checkpoint: u64,
        /// Who earned what.
        shares: Vec<Share>,
    },
    /// The task has ended, in whatever way: pay what was earned, pay fees, give back the rest.
    Settle {
        /// The task.
        task: TaskId,
        /// Who else is paid, in this order.
        fees: Vec<Fee>,
    },
}
