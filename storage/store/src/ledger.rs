//! Where money is stored: the state (accounts, holds, locks, the head), the blocks, and two indexes into them.

use cryptomind_core::chain::Head;
use cryptomind_core::ledger::{Account, Hold, Lock};
use cryptomind_protocol::block::Block;
use cryptomind_protocol::codec::DecodeError;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::{AccountId, ReceiptId};
use serde::{Deserialize, Serialize};

use crate::state::Record;

impl Record for Account {
    const TABLE: &'static str = "accounts/1";

    fn key(&self) -> Vec<u8> {
        self.id.as_bytes().to_vec()
    }
}

impl Record for Hold {
    const TABLE: &'static str = "holds/1";

    fn key(&self) -> Vec<u8> {
        self.task.as_bytes().to_vec()
    }
}

impl Record for Lock {
    const TABLE: &'static str = "locks/1";

    fn key(&self) -> Vec<u8> {
        self.key().to_bytes()
    }
}

impl Record for Head {
    const TABLE: &'static str = "head/1";

    /// There is one.
    fn key(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// Where the block of this height lies.
pub fn block_key(height: u64) -> Vec<u8> {
    height.to_be_bytes().to_vec()
}

impl Record for Block {
    const TABLE: &'static str = "blocks/1";

    fn key(&self) -> Vec<u8> {
        block_key(self.header.height)
    }
}

/// Where an account's transaction is in the chain: the receipt there is its answer, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Whose transaction.
    pub account: AccountId,
    /// The client's id of it.
    pub id: Nonce,
    /// Where.
    pub receipt: ReceiptId,
}

/// The key of an account's transaction among the positions.
pub fn position_key(account: &AccountId, id: &Nonce) -> Vec<u8> {
    [account.as_bytes().as_slice(), id.as_bytes()].concat()
}

/// Reads keys and values of fixed length apart.
fn fixed<const N: usize>(bytes: &[u8], from: usize) -> Result<[u8; N], DecodeError> {
    let part = bytes.get(from..from + N);
    let part = part.and_then(|part| part.try_into().ok());
    part.ok_or(DecodeError::Truncated { at: from })
}

impl Record for Position {
    const TABLE: &'static str = "positions/1";

    fn key(&self) -> Vec<u8> {
        position_key(&self.account, &self.id)
    }

    fn value(&self) -> Vec<u8> {
        self.receipt.as_bytes().to_vec()
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            account: AccountId::new(fixed(key, 0)?),
            id: Nonce::new(fixed(key, AccountId::LEN)?),
            receipt: ReceiptId::new(fixed(value, 0)?),
        })
    }
}

/// An entry that moved an account's tokens. A range is the account's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Passage {
    /// Whose.
    pub account: AccountId,
    /// Which entry.
    pub receipt: ReceiptId,
}

impl Record for Passage {
    const TABLE: &'static str = "passages/1";

    fn key(&self) -> Vec<u8> {
        [self.account.as_bytes().as_slice(), self.receipt.as_bytes()].concat()
    }

    fn value(&self) -> Vec<u8> {
        Vec::new()
    }

    fn read(key: &[u8], _: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self {
            account: AccountId::new(fixed(key, 0)?),
            receipt: ReceiptId::new(fixed(key, AccountId::LEN)?),
        })
    }
}
