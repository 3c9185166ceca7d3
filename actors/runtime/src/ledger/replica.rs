//! A follower's copy of a chain: every block is carried out again before it is kept.
//!
//! **Talked to by** `cryptomind ledger follow`. **Owns** a file with the genesis, the blocks, the state that they
//! leave and the indexes, in the coordinator's own tables: `ledger verify` and `ledger export` read both alike.
//!
//! A replica believes nothing that it is told: the certificate, every signature, what each entry does and the state
//! afterwards are checked against what this machine computes. Blocks are kept in groups, one durable transaction a
//! [`Replica::flush`]; what was not flushed is asked for again after a restart.
//!
//! **Invariant**: the file holds a prefix of one chain that holds, or nothing but the genesis.
//! **Is not**: a coordinator. It has no names, no items and no tasks, and nobody can go on with it.

use std::collections::BTreeSet;
use std::path::Path;

use cryptomind_core::chain::{Chain, Opened};
use cryptomind_core::consensus::Solo;
use cryptomind_core::journal::GenesisRecord;
use cryptomind_core::ledger::Ledger;
use cryptomind_protocol::block::{Block, Header};
use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::{AccountId, ErrorBody};
use cryptomind_storage::chain::{self, Position, position_key};
use cryptomind_storage::state::{Batch, StateStore};

use super::audit::Fault;
use super::folder::{self, REPLICA_FILE};

/// Entries that are kept in memory before they are flushed by themselves.
const MOST_WAITING: u32 = 8192;
/// Bytes of them: an entry may have half a MiB.
const MOST_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Names a transaction.
type Key = (AccountId, Nonce);

/// A follower's chain.
pub struct Replica {
    store: StateStore,
    engine: Solo,
    /// None after a block that did not hold: the chain in memory is of no use then.
    chain: Option<Chain>,
    waiting: Waiting,
}

/// Blocks that hold and are not in the file yet.
#[derive(Default)]
struct Waiting {
    batch: Batch,
    entries: u32,
    transactions: BTreeSet<Key>,
}

impl Replica {
    /// The replica in this folder; none where nothing was followed into it.
    ///
    /// # Errors
    /// Where the file cannot be opened, or is damaged.
    pub fn open(dir: &Path) -> Result<Option<Self>, ErrorBody> {
        let file = dir.join(REPLICA_FILE);
        if !file.exists() {
            return Ok(None);
        }
        let store = folder::open_file(&file)?;
        let record = store.load::<GenesisRecord>().map_err(ErrorBody::internal)?;
        match record.into_iter().next() {
            Some(record) => Self::read(store, record.genesis).map(Some),
            None => Ok(None),
        }
    }

    /// A new replica in this folder, which is made where it is missing.
    ///
    /// # Errors
    /// Where there is one already, or the folder cannot be written to.
    pub fn create(dir: &Path, genesis: Genesis) -> Result<Self, ErrorBody> {
        let cannot = |error: std::io::Error| {
            ErrorBody::user(
                "data_dir",
                format!("cannot make {}: {error}", dir.display()),
            )
            .with_help("name a folder that you may write: --dir DIR")
        };
        std::fs::create_dir_all(dir).map_err(cannot)?;
        let store = folder::open_file(&dir.join(REPLICA_FILE))?;
        if !store
            .load::<GenesisRecord>()
            .map_err(ErrorBody::internal)?
            .is_empty()
        {
            let message = format!("{} holds a followed chain already", dir.display());
            return Err(ErrorBody::user("ledger_exists", message));
        }
        Self::begin(store, genesis)
    }

    fn begin(store: StateStore, genesis: Genesis) -> Result<Self, ErrorBody> {
        let mut batch = Batch::new();
        batch.put(&GenesisRecord {
            genesis: genesis.clone(),
        });
        store.commit(batch).wait().map_err(ErrorBody::internal)?;
        Self::read(store, genesis)
    }

    fn read(store: StateStore, genesis: Genesis) -> Result<Self, ErrorBody> {
        let engine = Solo::follower(genesis.coordinator);
        // Without a block the store's own way would be to make the first one.
        let is_empty = chain::block(&store, 0)?.is_none();
        let chain = match is_empty {
            true => Chain::empty(genesis),
            false => chain::chain(&store, genesis).map_err(|e| fault(&e))?,
        };
        Ok(Self {
            store,
            engine,
            chain: Some(chain),
            waiting: Waiting::default(),
        })
    }

    /// The chain as far as it was followed; none after a block that did not hold.
    pub const fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// The last block that holds, flushed or not.
    pub fn head(&self) -> Option<&Header> {
        self.chain.as_ref()?.head()
    }

    /// What the blocks so far leave.
    pub fn ledger(&self) -> Option<&Ledger> {
        Some(self.chain.as_ref()?.ledger())
    }

    /// Height of the next block.
    pub fn next(&self) -> u64 {
        self.head().map_or(0, |head| head.height + 1)
    }

    /// One of its blocks that was flushed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn block(&self, height: u64) -> Result<Option<Block>, ErrorBody> {
        chain::block(&self.store, height)
    }

    /// Carries out the next block and keeps it, if all of it holds. It is durable after the next [`Replica::flush`].
    ///
    /// # Errors
    /// Where it does not hold. What came before is kept; this replica takes no more, it is to be opened again.
    pub fn append(&mut self, block: Block) -> Result<(), Fault> {
        let broken = || Fault::of_all("a block before did not hold: open the folder again");
        let mut chain = self.chain.take().ok_or_else(broken)?;
        let height = chain.head().map_or(0, |head| head.height + 1);
        let opened = Opened::new(block, chain.network());
        self.check_unseen(&opened)
            .map_err(|what| Fault::at(height, what))?;
        let executed = chain.check_opened(&opened, &self.engine, |_, _| false)?;
        for done in executed {
            let by = opened.transaction(done.id.index());
            let by = by.map(|verified| (verified.account(), verified.id()));
            chain::note(done.id, &done.receipt, by, &mut self.waiting.batch);
            self.waiting.transactions.extend(by);
        }
        let put = chain::put(opened.block(), &mut chain, &mut self.waiting.batch);
        put.map_err(|error| Fault::at(height, error))?;
        self.waiting.entries += opened.block().header.count;
        self.chain = Some(chain);
        let few = self.waiting.entries < MOST_WAITING;
        if few && self.waiting.batch.bytes() < MOST_WAITING_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// No transaction may be in the chain twice.
    fn check_unseen(&self, opened: &Opened) -> Result<(), String> {
        for index in 0..opened.block().entries.len() as u32 {
            let Some(verified) = opened.transaction(index) else {
                continue;
            };
            let key = (verified.account(), verified.id());
            let stored = self.store.get::<Position>(&position_key(&key.0, &key.1));
            let stored = stored.map_err(|error| error.to_string())?;
            if stored.is_some() || self.waiting.transactions.contains(&key) {
                return Err(format!(
                    "entry {index}: the same transaction was carried out before"
                ));
            }
        }
        Ok(())
    }

    /// Returns when everything that holds is on the disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> Result<(), Fault> {
        let waiting = std::mem::take(&mut self.waiting);
        let stored = self.store.commit(waiting.batch).wait();
        stored.map_err(Fault::of_all)
    }
}

fn fault(error: &ErrorBody) -> ErrorBody {
    ErrorBody::user("ledger_fault", &error.message).with_help(
        "follow again into a fresh folder; `cryptomind ledger verify --dir DIR` says more",
    )
}

/// Looks for the first height at which two chains differ, by halving: a header names the one before, so chains that
/// differ at one height differ at all that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parting {
    /// The first height that may be the one.
    low: u64,
    /// A height at which they differ.
    high: u64,
}

impl Parting {
    /// The chains differ at `height`.
    pub const fn at_most(height: u64) -> Self {
        Self {
            low: 0,
            high: height,
        }
    }

    /// The height to compare next; none where [`Parting::height`] is the first that differs.
    pub const fn probe(&self) -> Option<u64> {
        if self.low == self.high {
            return None;
        }
        Some(self.low + (self.high - self.low) / 2)
    }

    /// What the comparison at [`Parting::probe`] gave.
    pub const fn tell(&mut self, height: u64, differs: bool) {
        match differs {
            true => self.high = height,
            false => self.low = height + 1,
        }
    }

    /// A height at which they differ, the first one in the end.
    pub const fn height(&self) -> u64 {
        self.high
    }
}

#[cfg(test)]
mod tests;
