//! Locks: amounts that an account has but may not spend until a block time.

use cryptomind_protocol::genesis::Vesting;
use cryptomind_protocol::{AccountId, Amount, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

/// What a lock is found by. Locks are in order of their ends, so the first one ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockKey {
    /// When it ends.
    pub until: Timestamp,
    /// Whose tokens.
    pub account: AccountId,
    /// The node whose earnings are withheld; none where an allocation vests.
    pub node: Option<NodeId>,
}

impl LockKey {
    /// In the order of their ends: the end, the account, the node where there is one.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.until.as_ms().to_be_bytes().to_vec();
        bytes.extend_from_slice(self.account.as_bytes());
        bytes.extend(self.node.iter().flat_map(|node| *node.as_bytes()));
        bytes
    }
}

/// An amount that its account has but may not spend yet. Another one under the same key adds to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Parts", into = "Parts")]
pub struct Lock {
    /// Whose tokens.
    pub account: AccountId,
    /// When the account may spend them.
    pub until: Timestamp,
    /// The node whose earnings are withheld; none where an allocation vests.
    pub node: Option<NodeId>,
    /// How much; never nothing.
    pub amount: Amount,
}

impl Lock {
    /// What it is found by.
    pub const fn key(&self) -> LockKey {
        LockKey {
            until: self.until,
            account: self.account,
            node: self.node,
        }
    }
}

type Parts = (AccountId, Timestamp, Option<NodeId>, Amount);

impl From<Parts> for Lock {
    fn from((account, until, node, amount): Parts) -> Self {
        Self {
            account,
            until,
            node,
            amount,
        }
    }
}

impl From<Lock> for Parts {
    fn from(lock: Lock) -> Self {
        (lock.account, lock.until, lock.node, lock.amount)
    }
}

/// When which part of a vesting `amount` may be spent, for a genesis made at `created`: equal parts, the last one
/// with what division leaves. Nothing where the schedule has no parts or too many.
pub(super) fn schedule(
    amount: Amount,
    vesting: Vesting,
    created: Timestamp,
) -> Option<Vec<(Timestamp, Amount)>> {
    if vesting.parts == 0 || vesting.parts > Vesting::MAX_PARTS {
        return None;
    }
    let part = amount.mul_div(1, vesting.parts.into())?;
    let before_last = part.mul_div(u128::from(vesting.parts - 1), 1)?;
    let last = amount.checked_sub(before_last)?;
    let first = created.plus_ms(vesting.first_ms);
    let parts = (0..vesting.parts).map(|number| {
        let later = u64::from(number).saturating_mul(vesting.every_ms);
        let is_last = number + 1 == vesting.parts;
        (first.plus_ms(later), if is_last { last } else { part })
    });
    Some(parts.filter(|(_, amount)| !amount.is_zero()).collect())
}
