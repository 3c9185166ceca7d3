//! Why the ledger does not do something.

use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ErrorClass, TaskId};

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
    /// The bounty account cannot give that much test money any more.
    #[error("the bounty account has {available} of test money left, not {needed}")]
    FaucetEmpty {
        /// What was asked for.
        needed: Amount,
        /// What is left.
        available: Amount,
    },
    /// Moving nothing is a mistake.
    #[error("the amount is 0")]
    ZeroAmount,
    /// Payer and payee are the same.
    #[error("payer and payee are the same account")]
    SameAccount,
    /// The mint and the escrow take part in the ledger's own operations only.
    #[error("{} is an account of the ledger itself: nobody could ever spend what it has", .0.short())]
    SystemAccount(AccountId),
    /// The task has a hold already.
    #[error("task {} has a hold already", .0.short())]
    HoldExists(TaskId),
    /// No hold was opened for this task.
    #[error("task {} has no hold", .0.short())]
    HoldNotFound(TaskId),
    /// The hold was paid out: what it paid stands, see [`super::Hold::payments`].
    #[error("the hold of task {} is settled already", .0.short())]
    AlreadySettled(TaskId),
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
    /// A settlement pays fees for items, storage and the network; the rest it finds itself.
    #[error("`{0}` is not a fee")]
    NotAFee(Reason),
    /// The genesis was carried out before.
    #[error("this ledger has begun already")]
    GenesisTwice,
    /// The allocations do not make up the supply.
    #[error("the allocations sum to {}, not to the supply of {SUPPLY}", shown(.0))]
    GenesisSum(Option<Amount>),
    /// The amounts sum to more than any ledger holds.
    #[error("the amounts sum to more than 2^64 base units")]
    Overflow,
}

fn shown(sum: &Option<Amount>) -> String {
    sum.map_or("more than 2^64 base units".into(), |sum| sum.to_string())
}

impl Refusal {
    const fn code(&self) -> &'static str {
        match self {
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::FaucetEmpty { .. } => "faucet_empty",
            Self::ZeroAmount => "zero_amount",
            Self::SameAccount => "same_account",
            Self::SystemAccount(_) => "system_account",
            Self::HoldExists(_) => "hold_exists",
            Self::HoldNotFound(_) => "hold_not_found",
            Self::AlreadySettled(_) => "already_settled",
            Self::HoldExceeded { .. } => "hold_exceeded",
            Self::NotAFee(_) => "not_a_fee",
            Self::GenesisTwice => "genesis_twice",
            Self::GenesisSum(_) => "genesis_sum",
            Self::Overflow => "amount_overflow",
        }
    }

    const fn class(&self) -> ErrorClass {
        match self {
            Self::InsufficientFunds { .. } => ErrorClass::Funds,
            Self::FaucetEmpty { .. } => ErrorClass::Capacity,
            // These come from other decisions of this network, never from a request.
            Self::HoldExceeded { .. }
            | Self::NotAFee(_)
            | Self::GenesisTwice
            | Self::GenesisSum(_) => ErrorClass::Internal,
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
            Self::FaucetEmpty { available, .. } => Some(format!("ask for at most {available}")),
            Self::ZeroAmount => Some("give an amount above 0, such as 0.25".into()),
            Self::SameAccount => Some("name another account".into()),
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
