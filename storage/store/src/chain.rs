//! The chain as it lies in the store: blocks, the head, and two indexes into the blocks; read at a start, written block
//! by block, looked up by id and by account.
//!
//! One block is one batch: the block, the records of the state that it changed, the head and the index rows of its
//! entries, beside whatever else must change in the same breath.

use std::collections::BTreeSet;

use cryptomind_core::chain::{Chain, Head};
use cryptomind_core::ledger::{Account, Delegation, Hold, Ledger, Lock, Rules};
use cryptomind_protocol::block::{Block, Receipt};
use cryptomind_protocol::codec::DecodeError;
use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{AccountId, ErrorBody, ReceiptId};
use serde::{Deserialize, Serialize};

use crate::state::{Batch, Record, StateStore, after_prefix};

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

    /// A page of 4 KiB takes four or five of these. Measured with blocks of some 10 KB: rows of 800 bytes take 1.08 times
    /// their size on the disk, of 4000 bytes 1.24 times, whole blocks 1.38 times.
    const PART_BYTES: usize = 800;

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

/// The stored chain, or a new one whose block 0 is to be closed.
///
/// # Errors
/// Where the store cannot be read, or what it holds breaks an invariant.
pub fn chain(store: &StateStore, genesis: Genesis) -> Result<Chain, ErrorBody> {
    let head = store.get::<Head>(&[]).map_err(ErrorBody::internal)?;
    let Some(head) = head else {
        return Chain::found(genesis);
    };
    let ledger = Ledger::rebuild(
        Rules::of(&genesis),
        store.load::<Account>().map_err(ErrorBody::internal)?,
        store.load::<Hold>().map_err(ErrorBody::internal)?,
        store.load::<Lock>().map_err(ErrorBody::internal)?,
        store.load::<Delegation>().map_err(ErrorBody::internal)?,
    );
    Chain::restore(genesis, head, ledger)
}

/// The index rows of one entry: where its transaction is, and whose tokens it moved.
pub fn index_of(
    id: ReceiptId,
    receipt: &Receipt,
    transaction: Option<(AccountId, Nonce)>,
) -> (Option<Position>, Vec<Passage>) {
    let position = transaction.map(|(account, nonce)| Position {
        account,
        id: nonce,
        receipt: id,
    });
    let parties = receipt.transfers.iter().flat_map(|t| [t.payer, t.payee]);
    let parties: BTreeSet<AccountId> = parties.collect();
    let passage = |account| Passage {
        account,
        receipt: id,
    };
    (position, parties.into_iter().map(passage).collect())
}

/// Adds the index rows of one entry.
pub fn note(
    id: ReceiptId,
    receipt: &Receipt,
    transaction: Option<(AccountId, Nonce)>,
    batch: &mut Batch,
) {
    let (position, passages) = index_of(id, receipt, transaction);
    position.iter().for_each(|position| batch.put(position));
    passages.iter().for_each(|passage| batch.put(passage));
}

/// Adds a closed block, the records that it changed and the new head. The index rows of its entries are noted as they
/// are carried out; those of block 0, which nobody posts, are added here.
///
/// # Errors
/// Where the chain has no closed block.
pub fn put(block: &Block, chain: &mut Chain, batch: &mut Batch) -> Result<(), ErrorBody> {
    let touched = chain.take_touched();
    touched
        .accounts
        .iter()
        .for_each(|account| batch.put(account));
    for (task, hold) in &touched.holds {
        match hold {
            Some(hold) => batch.put(hold),
            None => batch.delete::<Hold>(task.as_bytes()),
        }
    }
    for (key, lock) in &touched.locks {
        match lock {
            Some(lock) => batch.put(lock),
            None => batch.delete::<Lock>(&key.to_bytes()),
        }
    }
    for (key, delegation) in &touched.delegations {
        match delegation {
            Some(delegation) => batch.put(delegation),
            None => batch.delete::<Delegation>(&Delegation::key_bytes(key)),
        }
    }
    if block.header.height == 0 {
        for (receipt, index) in block.receipts.iter().zip(0..) {
            note(ReceiptId::at(0, index), receipt, None, batch);
        }
    }
    batch.put(block);
    let head = chain.checkpoint();
    let head = head.ok_or_else(|| ErrorBody::internal("a block was stored that is not closed"))?;
    batch.put(&head);
    Ok(())
}

/// The block of this height, where there is one.
///
/// # Errors
/// When the store cannot be read.
pub fn block(store: &StateStore, height: u64) -> Result<Option<Block>, ErrorBody> {
    store
        .get::<Block>(&block_key(height))
        .map_err(ErrorBody::internal)
}

/// The header that the store ends with.
///
/// # Errors
/// When the store cannot be read or has no block yet.
pub fn head(store: &StateStore) -> Result<Head, ErrorBody> {
    let head = store.get::<Head>(&[]).map_err(ErrorBody::internal)?;
    head.ok_or_else(|| ErrorBody::internal("the chain has no block yet"))
}

/// What an account's transaction was answered, and the hash of its signed bytes.
///
/// # Errors
/// When the store cannot be read or is damaged.
pub fn answer(
    store: &StateStore,
    account: &AccountId,
    id: &Nonce,
) -> Result<Option<(Hash, Accepted)>, ErrorBody> {
    let position = store.get::<Position>(&position_key(account, id));
    let Some(position) = position.map_err(ErrorBody::internal)? else {
        return Ok(None);
    };
    let damaged = || ErrorBody::internal(format!("{} is not in the chain", position.receipt));
    let block = block(store, position.receipt.height())?.ok_or_else(damaged)?;
    let index = position.receipt.index() as usize;
    let entry = block.entries.get(index).ok_or_else(damaged)?;
    let receipt = block.receipts.get(index).ok_or_else(damaged)?;
    let (Some(signed), Some(outcome)) = (&entry.transaction, &receipt.outcome) else {
        return Err(damaged());
    };
    let accepted = Accepted {
        receipt: position.receipt,
        outcome: outcome.clone(),
    };
    Ok(Some((Hash::of(&signed.payload), accepted)))
}

/// The entries that moved an account's tokens, newest first, before one of them.
///
/// # Errors
/// When the store cannot be read.
pub fn passages(
    store: &StateStore,
    account: &AccountId,
    before: Option<ReceiptId>,
    limit: usize,
) -> Result<Vec<Passage>, ErrorBody> {
    let from = account.as_bytes();
    let end = match before {
        Some(receipt) => Passage {
            account: *account,
            receipt,
        }
        .key(),
        None => after_prefix(from),
    };
    let found = store.range::<Passage>(from, &end, limit, true);
    found.map_err(ErrorBody::internal)
}
