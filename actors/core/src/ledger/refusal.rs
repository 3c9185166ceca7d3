//! Why the ledger does not do something.

use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ErrorClass, NodeId, TaskId};

use super::account::Account;
use super::delegation::Delegation;
use super::invariants::Broken;

/// Why an operation was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The account has too little that is free.
    #[error("{needed} are needed, account {} has {available} available", .account.short())]
    InsufficientFunds {
        /// Whose money.
        account: AccountId,
        /// What the operation takes.
        needed: Amount,
        /// What is free.
        available: Amount,
    },
    /// This network gives no test money.
    #[error("this network gives no test money")]
    NoFaucet,
    /// The bounty account cannot give that much test money any more.
    #[error("the bounty account has {available} of test money left, not {needed}")]
    FaucetEmpty {
        /// What a request gives.
        needed: Amount,
        /// What is left.
        available: Amount,
    },
    /// Moving nothing is a mistake.
    #[error("the amount is 0")]
    ZeroAmount,
    /// Too little to be worth a record.
    #[error("{amount} are less than {least}, the least that may be sent or held")]
    DustAmount {
        /// What was asked for.
        amount: Amount,
        /// What the network allows.
        least: Amount,
    },
    /// Payer and payee are the same.
    #[error("payer and payee are the same account")]
    SameAccount,
    /// Nobody has a key for this account: it takes part in the ledger's own operations only.
    #[error("{} is an account of the ledger itself: nobody could ever spend what it has", .0.short())]
    SystemAccount(AccountId),
    /// This account's first key signs for another one.
    #[error("the key of {} signs for another account: nobody could ever spend what it gets", .0.short())]
    Unreachable(AccountId),
    /// The task has a hold already.
    #[error("task {} has a hold already", .0.short())]
    HoldExists(TaskId),
    /// The task has no hold, or it was settled, or it has expired and only `Due` settles it.
    #[error("the hold of task {} is not open: there is none, or it is settled", .0.short())]
    HoldNotOpen(TaskId),
    /// The terms' expiry has passed.
    #[error("the hold of task {} would expire before it opens", .0.short())]
    TermsExpired(TaskId),
    /// The cap does not cover the most that the terms can pay.
    #[error("the cap of {amount} is below what task {} may cost, {needed}", .task.short())]
    CapTooLow {
        /// The task.
        task: TaskId,
        /// The cap.
        amount: Amount,
        /// The most that can be paid.
        needed: Amount,
    },
    /// More than the hold has left.
    #[error("{wanted} are more than the {free} that the hold of task {} has left", .task.short())]
    HoldExceeded {
        /// The task.
        task: TaskId,
        /// What was to be earned or paid.
        wanted: Amount,
        /// What the hold has left for it.
        free: Amount,
    },
    /// More would be withheld than the network's rules allow.
    #[error("{ppm} millionths of a node's earnings cannot be withheld: at most {max_ppm}")]
    WithheldTooMuch {
        /// What was to be withheld.
        ppm: u32,
        /// The most, by the genesis.
        max_ppm: u32,
    },
    /// A list is longer than a block can carry out.
    #[error("a hold has at most {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most.
        most: usize,
    },
    /// The key signs for an account already.
    #[error("the key signs for an account already")]
    KeyInUse,
    /// The key was replaced by another one.
    #[error("the key was retired: it signs for nobody any more")]
    KeyRetired,
    /// The account has changed its key too often.
    #[error("an account can change its key {} times in all", Account::MAX_KEYS)]
    TooManyKeys,
    /// Nodes work for accounts as miners and storage nodes alone.
    #[error("a node cannot work for an account as a {0}: only as a miner or for storage")]
    RoleNotDelegated(Role),
    /// The delegation would have ended before it began.
    #[error("the delegation of node {} has expired already", .0.short())]
    DelegationExpired(NodeId),
    /// The account has delegated too many nodes.
    #[error(
        "an account has at most {} nodes, and {} before it ever had a token: this one {most}",
        Delegation::MAX_OF_ACCOUNT,
        Delegation::MAX_WITHOUT_TOKENS
    )]
    TooManyNodes {
        /// The most for this account now.
        most: usize,
    },
    /// There is no such delegation to revoke.
    #[error("node {} does not work for this account", .0.short())]
    NotDelegated(NodeId),
    /// The genesis was carried out before.
    #[error("this ledger has begun already")]
    MintedTwice,
    /// The allocations do not make up the supply.
    #[error("the allocations sum to {}, not to the supply of {SUPPLY}", shown(.0))]
    MintSum(Option<Amount>),
    /// An allocation vests in no parts or in too many.
    #[error("the allocation `{0}` vests in no parts, or in too many")]
    Vesting(String),
    /// The amounts sum to more than any ledger holds.
    #[error("the amounts sum to more than 2^64 base units")]
    Overflow,
    /// The operation would break an invariant: a fault of this software, stopped before it did harm.
    #[error(transparent)]
    Broken(#[from] Broken),
}

fn shown(sum: &Option<Amount>) -> String {
    sum.map_or("more than 2^64 base units".into(), |sum| sum.to_string())
}

impl Refusal {
    /// The stable slug of its error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::NoFaucet => "no_faucet",
            Self::FaucetEmpty { .. } => "faucet_empty",
            Self::ZeroAmount => "zero_amount",
            Self::DustAmount { .. } => "dust_amount",
            Self::SameAccount => "same_account",
            Self::SystemAccount(_) => "system_account",
            Self::Unreachable(_) => "unreachable_account",
            Self::HoldExists(_) => "hold_exists",
            Self::HoldNotOpen(_) => "hold_not_open",
            Self::TermsExpired(_) => "terms_expired",
            Self::CapTooLow { .. } => "cap_too_low",
            Self::HoldExceeded { .. } => "hold_exceeded",
            Self::WithheldTooMuch { .. } => "withheld_too_much",
            Self::TooMany { .. } => "too_many",
            Self::KeyInUse => "key_in_use",
            Self::KeyRetired => "key_retired",
            Self::TooManyKeys => "too_many_keys",
            Self::RoleNotDelegated(_) => "role_not_delegated",
            Self::DelegationExpired(_) => "delegation_expired",
            Self::TooManyNodes { .. } => "too_many_nodes",
            Self::NotDelegated(_) => "not_delegated",
            Self::MintedTwice => "minted_twice",
            Self::MintSum(_) => "mint_sum",
            Self::Vesting(_) => "vesting_parts",
            Self::Overflow => "amount_overflow",
            Self::Broken(_) => "ledger_broken",
        }
    }

    const fn class(&self) -> ErrorClass {
        match self {
            Self::InsufficientFunds { .. } | Self::CapTooLow { .. } => ErrorClass::Funds,
            Self::FaucetEmpty { .. } => ErrorClass::Capacity,
            // These come from other decisions of this network, never from a request.
            Self::HoldExceeded { .. }
            | Self::WithheldTooMuch { .. }
            | Self::TooMany { .. }
            | Self::MintedTwice
            | Self::MintSum(_)
            | Self::Vesting(_)
            | Self::Broken(_) => ErrorClass::Internal,
            _ => ErrorClass::User,
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::InsufficientFunds {
                needed, available, ..
            } => {
                let missing = needed.checked_sub(*available)?;
                Some(format!(
                    "{missing} are missing: receive them first, or ask for less"
                ))
            }
            Self::NoFaucet => Some("ask somebody for tokens, or use a development network".into()),
            Self::FaucetEmpty { .. } => {
                Some("ask somebody for tokens: the rest is for others".into())
            }
            Self::ZeroAmount => Some("give an amount above 0, such as 0.25".into()),
            Self::DustAmount { least, .. } => Some(format!("give {least} or more")),
            Self::SameAccount => Some("name another account".into()),
            Self::CapTooLow { needed, .. } => {
                Some(format!("set budget.max_cost to {needed} or more"))
            }
            Self::KeyInUse | Self::KeyRetired => Some("make a new key and use that".into()),
            Self::DelegationExpired(_) => Some("name a later end".into()),
            Self::TooManyNodes { .. } => {
                Some("revoke one first: cryptomind miner revoke NODE".into())
            }
            Self::NotDelegated(_) => Some("see which do: cryptomind miner delegations".into()),
            _ => None,
        }
    }
}

impl From<&Refusal> for ErrorBody {
    fn from(refusal: &Refusal) -> Self {
        let body = Self::new(refusal.class(), refusal.code(), refusal);
        match refusal.help() {
            Some(help) => body.with_help(help),
            None => body,
        }
    }
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        Self::from(&refusal)
    }
}
