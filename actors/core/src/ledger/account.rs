//! Accounts: four counters each, and the keys that sign for them.

use cryptomind_protocol::{AccountId, Amount, PublicKey};
use serde::{Deserialize, Serialize};

use super::system::Kind;

/// A sum of amounts that only grows, in base units.
///
/// An account's turnover has no bound by the supply: the same token counts each time it passes. So
/// this is a 128-bit number, kept as 16 big-endian bytes because CBOR has no such integer. It cannot
/// overflow: that takes 2⁶⁴ transfers of 2⁶⁴ base units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Total(#[serde(with = "serde_bytes")] [u8; 16]);

impl Total {
    /// The number of base units.
    pub const fn base_units(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// This and one amount more.
    pub(super) fn plus(self, amount: Amount) -> Self {
        let sum = self.base_units().checked_add(amount.base_units().into());
        let sum = sum.expect("2^64 amounts of 2^64 base units never come together");
        Self(sum.to_be_bytes())
    }
}

/// An account as it is stored.
///
/// The pending counters are plain amounts: pending debits are part of the account's balance and
/// pending credits part of open holds, and both lie within the supply of 10¹⁷ base units, far
/// below 2⁶⁴. Additions are checked all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Parts", into = "Parts")]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// What it is for.
    pub kind: Kind,
    /// Reserved by its open holds, and kept back by locks.
    pub debits_pending: Amount,
    /// Paid by it, ever.
    pub debits_posted: Total,
    /// Earned by it in open holds.
    pub credits_pending: Amount,
    /// Paid to it, ever.
    pub credits_posted: Total,
    /// Every key that it was given after its first, oldest first. The last one signs, the others are retired.
    pub keys: Vec<PublicKey>,
}

/// What an account has, as its owner sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Free to spend.
    pub available: Amount,
    /// In its own open holds.
    pub held: Amount,
    /// Earned in open holds of others, not paid out yet.
    pub earning: Amount,
    /// Its own, but not to be spent before a block time.
    pub locked: Amount,
}

impl Account {
    /// The most keys that an account may ever be given after its first: records stay small.
    pub const MAX_KEYS: usize = 256;

    /// An account that never had a token.
    pub fn new(id: AccountId) -> Self {
        Self {
            id,
            kind: Kind::of(&id),
            debits_pending: Amount::ZERO,
            debits_posted: Total::default(),
            credits_pending: Amount::ZERO,
            credits_posted: Total::default(),
            keys: Vec::new(),
        }
    }

    /// What it has, held, locked or free: posted credits less posted debits. Zero for the mint, which owes.
    pub fn owned(&self) -> Amount {
        let (credits, debits) = (self.credits_posted, self.debits_posted);
        let owned = credits.base_units().saturating_sub(debits.base_units());
        Amount::from_base_units(u64::try_from(owned).unwrap_or(u64::MAX))
    }

    /// What it may spend or put into a hold.
    pub fn available(&self) -> Amount {
        let free = self.owned().checked_sub(self.debits_pending);
        free.unwrap_or(Amount::ZERO)
    }

    /// The key that signs for it, where that is not its first any more.
    pub fn key(&self) -> Option<PublicKey> {
        self.keys.last().copied()
    }
}

/// As an array: a ledger keeps millions.
type Parts = (
    AccountId,
    Kind,
    Amount,
    Total,
    Amount,
    Total,
    Vec<PublicKey>,
);

impl From<Parts> for Account {
    fn from(parts: Parts) -> Self {
        let (id, kind, debits_pending, debits_posted, credits_pending, credits_posted, keys) =
            parts;
        Self {
            id,
            kind,
            debits_pending,
            debits_posted,
            credits_pending,
            credits_posted,
            keys,
        }
    }
}

impl From<Account> for Parts {
    fn from(a: Account) -> Self {
        (
            a.id,
            a.kind,
            a.debits_pending,
            a.debits_posted,
            a.credits_pending,
            a.credits_posted,
            a.keys,
        )
    }
}
