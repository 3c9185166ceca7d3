//! Operations: everything that can happen to money.

use cryptomind_protocol::block::{Ending, HoldTerms, Share};
use cryptomind_protocol::genesis::Allocation;
use cryptomind_protocol::{AccountId, Amount, NodeId, PublicKey, TaskId, Timestamp};

use super::delegation::Delegation;

/// What shall happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Mint the supply, once, into the first accounts. What vests is locked.
    Mint {
        /// Who starts with what; together exactly the supply.
        allocations: Vec<Allocation>,
        /// When the genesis was made: vesting counts from here.
        created: Timestamp,
    },
    /// Give test money from the bounty account, as much as the rules say.
    Faucet {
        /// To whom.
        to: AccountId,
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
    /// Take the fee for carrying out a transaction. A fee of nothing changes nothing.
    Charge {
        /// Whose transaction.
        account: AccountId,
        /// How much.
        fee: Amount,
    },
    /// Reserve a task's whole price cap.
    OpenHold {
        /// The task.
        task: TaskId,
        /// Whose money.
        payer: AccountId,
        /// The cap: no less than the most that the terms can pay, see [`super::most`].
        amount: Amount,
        /// What the settlement follows.
        terms: HoldTerms,
    },
    /// A checkpoint is verified: its shares are earned, within the hold.
    Earn {
        /// The task.
        task: TaskId,
        /// Which checkpoint, in rising order over the whole task, such as the steps that it covers.
        /// One that is not above the last was earned already, and nothing changes: a repeated
        /// report earns once, in whatever attempt it is repeated.
        checkpoint: u64,
        /// Who earned what. A share of nothing is passed over.
        shares: Vec<Share>,
    },
    /// The task has ended, in whatever way: pay what was earned, pay fees, give back the rest.
    Settle {
        /// The task.
        task: TaskId,
        /// How it ended.
        ending: Ending,
    },
    /// A node's answer was proved wrong: what is withheld of its owner's earnings goes to the reward fund, the
    /// first [`super::MAX_FORFEITED_LOCKS`] of it.
    Forfeit {
        /// The node's owner.
        account: AccountId,
        /// The node.
        node: NodeId,
    },
    /// Everything that is due happens: holds expire, locks end. See [`super::MAX_DUE_TRANSFERS`].
    Due,
    /// Another key signs for the account from now on. The caller has seen both keys' signatures.
    RotateKey {
        /// Whose.
        account: AccountId,
        /// Never used by any account before.
        key: PublicKey,
    },
    /// A node works for an account, instead of what was said of the two before.
    Delegate(Delegation),
    /// A node works for an account no longer.
    Revoke {
        /// Whose node.
        account: AccountId,
        /// Which.
        node: NodeId,
    },
}
