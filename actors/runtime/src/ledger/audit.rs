//! The audit of a stored chain: all of it carried out again from its genesis, and everything that is stored compared
//! with what comes of that.
//!
//! Talked to by `cryptomind ledger verify`, over a coordinator's folder or a follower's, offline. It finds any bit that
//! was changed in the chain's tables: a block must be the very bytes that its content encodes to, its certificate and
//! its transactions must be signed, its roots and state hash must be those of what it does, and accounts, holds, locks,
//! the head and both indexes must be exactly those that the whole chain leaves, row by row.
//!
//! Signatures are nearly all of the work and are looked at ahead, on every core ([`crew`]); the chain is carried out
//! in order on the caller's thread. Memory is that of the ledger's state: blocks and index rows pass through.
//!
//! It repairs nothing and trusts nothing but the genesis, whose hash it names: whether that is the right network is for
//! the reader to compare.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use cryptomind_core::chain::{Chain, Divergence, Executed, Head, Opened};
use cryptomind_core::consensus::Solo;
use cryptomind_core::journal::GenesisRecord;
use cryptomind_core::ledger::{Account, Delegation, Hold, Lock};
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::block::Block;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::{Amount, ErrorBody, GenesisHash, Timestamp};
use cryptomind_storage::chain::{Passage, Position, index_of};
use cryptomind_storage::state::{Record, StateStore};
use serde::Serialize;

mod crew;
mod rows;

use rows::{Row, Rows};

/// All invariants are looked at again when so many entries were carried out for each account: the work stays in
/// proportion to the chain, and a fault is found soon after its block.
const ENTRIES_PER_ACCOUNT: u64 = 8;
/// But no sooner than after so many.
const FEWEST_ENTRIES: u64 = 4096;

/// What a chain without a fault comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whose chain.
    pub network: GenesisHash,
    /// The network's name.
    pub name: String,
    /// Blocks, block 0 among them.
    pub blocks: u64,
    /// Entries in all.
    pub entries: u64,
    /// Of these, with an account's transaction.
    pub transactions: u64,
    /// Time of the first block.
    pub first: Timestamp,
    /// Time of the last block.
    pub last: Timestamp,
    /// Hash of the last header.
    pub head: Hash,
    /// Hash of the state.
    pub state: Hash,
    /// Sum of everything.
    pub supply: Amount,
    /// In open holds.
    pub held: Amount,
    /// Locked until a time.
    pub locked: Amount,
    /// Accounts.
    pub accounts: u64,
    /// Holds that are open.
    pub open_holds: u64,
    /// Bytes of all blocks.
    pub block_bytes: u64,
    /// Bytes that the file takes on the disk; with tables that the chain knows nothing of.
    pub disk_bytes: u64,
    /// How long the audit took, milliseconds.
    pub took_ms: u64,
}

/// Where a stored chain is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The first block that does not hold; nothing where no block alone is at fault, but what all of them left.
    pub height: Option<u64>,
    /// What about it.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.height {
            Some(height) => write!(f, "block {height}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl Fault {
    pub(super) fn at(height: u64, what: impl std::fmt::Display) -> Self {
        let what = what.to_string();
        Self {
            height: Some(height),
            what,
        }
    }

    pub(super) fn of_all(what: impl std::fmt::Display) -> Self {
        let what = what.to_string();
        Self { height: None, what }
    }
}

impl From<Divergence> for Fault {
    fn from(found: Divergence) -> Self {
        Self::at(found.height, found.what)
    }
}

impl From<Fault> for ErrorBody {
    fn from(fault: Fault) -> Self {
        Self::user("ledger_fault", &fault).with_help(
            "restore the file from a backup, or follow the network's coordinator into a fresh folder: \
             cryptomind ledger follow cm://… --dir DIR",
        )
    }
}

/// Carries out the whole stored chain again and compares everything. `progress` hears of each height that holds.
///
/// # Errors
/// At the first block that does not hold; after the last one, at the first record that is not what the blocks leave.
pub fn audit(store: &StateStore, mut progress: impl FnMut(u64)) -> Result<Report, Fault> {
    let started = Instant::now();
    let record: GenesisRecord = single(store, "genesis")?;
    let mut audit = Audit::new(store, record);
    let network = *audit.chain.network();
    crew::each(Rows::<Block>::of(store), &network, |opened, bytes| {
        let height = opened.block().header.height;
        audit.take(&opened, bytes)?;
        progress(height);
        Ok(())
    })?;
    audit.compare()?;
    audit.report(started)
}

/// The one record of a table that has one.
fn single<R: Record>(store: &StateStore, what: &str) -> Result<R, Fault> {
    let mut rows = Rows::<R>::of(store);
    let missing = || Fault::of_all(format!("its {what} is not in the file"));
    let row = rows.next().ok_or_else(missing)??;
    if rows.next().is_some() {
        return Err(Fault::of_all(format!("there is more than one {what}")));
    }
    row.record()
        .map_err(|wrong| Fault::of_all(format!("its {what} {wrong}")))
}

struct Audit<'a> {
    store: &'a StateStore,
    chain: Chain,
    engine: Solo,
    first: Timestamp,
    transactions: u64,
    passages: u64,
    block_bytes: u64,
    /// Entries since all invariants were looked at.
    unchecked: u64,
}

impl<'a> Audit<'a> {
    fn new(store: &'a StateStore, record: GenesisRecord) -> Self {
        Self {
            store,
            engine: Solo::follower(record.genesis.coordinator),
            first: record.genesis.created,
            chain: Chain::empty(record.genesis),
            transactions: 0,
            passages: 0,
            block_bytes: 0,
            unchecked: 0,
        }
    }

    fn take(&mut self, opened: &Opened, bytes: usize) -> Result<(), Fault> {
        let header = &opened.block().header;
        // Each transaction stands where the index says. So none stands in two blocks, and the chain need not look.
        let executed = self
            .chain
            .check_opened(opened, &self.engine, |_, _| false)?;
        for done in &executed {
            let transaction = opened.transaction(done.id.index());
            self.check_index(done, transaction)
                .map_err(|fault| Fault::at(header.height, fault.what))?;
        }
        if header.height == 0 {
            self.first = header.time;
        }
        self.block_bytes += bytes as u64;
        self.unchecked += u64::from(header.count);
        self.check_invariants_in_time(header.height)
    }

    /// The entry is found by its account and id, and in the history of everyone whose tokens it moved.
    fn check_index(&mut self, done: &Executed, by: Option<&Verified>) -> Result<(), Fault> {
        let by = by.map(|verified| (verified.account(), verified.id()));
        self.transactions += u64::from(by.is_some());
        let (position, passages) = index_of(done.id, &done.receipt, by);
        if let Some(position) = position {
            self.expect_row(&position, || {
                let by = position.account;
                format!("{} of {by} is not where the index says: the transaction is there twice, or the index is damaged", done.id)
            })?;
        }
        for passage in passages {
            self.passages += 1;
            self.expect_row(&passage, || {
                format!(
                    "{} is missing in the history of {}",
                    done.id, passage.account
                )
            })?;
        }
        Ok(())
    }

    fn expect_row<R: Record>(&self, record: &R, what: impl Fn() -> String) -> Result<(), Fault> {
        let stored = self.store.get::<Row<R>>(&record.key());
        let stored = stored.map_err(Fault::of_all)?;
        match stored {
            Some(row) if row.value == record.value() => Ok(()),
            _ => Err(Fault::of_all(what())),
        }
    }

    fn check_invariants_in_time(&mut self, height: u64) -> Result<(), Fault> {
        let accounts = self.chain.ledger().account_count() as u64;
        if self.unchecked < (accounts * ENTRIES_PER_ACCOUNT).max(FEWEST_ENTRIES) {
            return Ok(());
        }
        self.unchecked = 0;
        let checked = self.chain.ledger().check_invariants();
        checked.map_err(|broken| Fault::at(height, broken))
    }

    /// What is stored beside the blocks is what they leave.
    fn compare(&self) -> Result<(), Fault> {
        let Some(head) = self.chain.checkpoint() else {
            return Err(Fault::at(0, "it is not in the file"));
        };
        let ledger = self.chain.ledger();
        ledger
            .check_invariants()
            .map_err(|broken| Fault::at(head.header.height, broken))?;
        self.compare_head(&head)?;
        same::<Account>(self.store, "account", ledger.accounts().map(row))?;
        let holds: BTreeMap<_, _> = ledger.holds().map(row::<Hold>).collect();
        same::<Hold>(self.store, "hold", holds.into_iter())?;
        let locks: BTreeMap<_, _> = ledger.locks().map(row::<Lock>).collect();
        same::<Lock>(self.store, "lock", locks.into_iter())?;
        let delegations = ledger.delegations().map(row::<Delegation>);
        same::<Delegation>(self.store, "delegation", delegations)?;
        self.count::<Position>("transactions", self.transactions)?;
        self.count::<Passage>("histories", self.passages)
    }

    fn compare_head(&self, head: &Head) -> Result<(), Fault> {
        let stored: Head = single(self.store, "head")?;
        let (last, named) = (head.header.height, stored.header.height);
        if named > last {
            let what = format!("it is not in the file, which ends with block {named} by its head");
            return Err(Fault::at(last + 1, what));
        }
        if stored != *head {
            let what = format!("the stored head is not that of block {last}, the last one");
            return Err(Fault::of_all(what));
        }
        Ok(())
    }

    /// All rows that belong into an index were found there: so many and no more may be in it.
    fn count<R: Record>(&self, what: &str, expected: u64) -> Result<(), Fault> {
        let mut found = 0;
        for row in Rows::<R>::of(self.store) {
            row?;
            found += 1;
        }
        if found == expected {
            return Ok(());
        }
        let what = format!("the index of {what} has {found} rows, the blocks make {expected}");
        Err(Fault::of_all(what))
    }

    fn report(self, started: Instant) -> Result<Report, Fault> {
        let disk_bytes = self.store.disk_bytes().map_err(Fault::of_all)?;
        let (ledger, genesis) = (self.chain.ledger(), self.chain.genesis());
        let head = self.chain.head();
        let head = head.ok_or_else(|| Fault::at(0, "it is not in the file"))?;
        Ok(Report {
            network: *self.chain.network(),
            name: genesis.name.clone(),
            blocks: head.height + 1,
            entries: head.total,
            transactions: self.transactions,
            first: self.first,
            last: head.time,
            head: head.hash(),
            state: head.state,
            supply: ledger.supply(),
            held: ledger.held(),
            locked: ledger.locked(),
            accounts: ledger.account_count() as u64,
            open_holds: ledger.hold_count() as u64,
            block_bytes: self.block_bytes,
            disk_bytes,
            took_ms: started.elapsed().as_millis() as u64,
        })
    }
}

type KeyValue = (Vec<u8>, Vec<u8>);

fn row<R: Record>(record: &R) -> KeyValue {
    (record.key(), record.value())
}

/// Compares a table with the rows that it should have, both in the order of their keys.
fn same<R: Record>(
    store: &StateStore,
    what: &str,
    mut expected: impl Iterator<Item = KeyValue>,
) -> Result<(), Fault> {
    for stored in Rows::<R>::of(store) {
        let stored = stored?;
        match expected.next() {
            Some((key, value)) if key == stored.key && value == stored.value => {}
            Some((key, _)) => {
                let key = hex(&key.min(stored.key));
                return Err(Fault::of_all(format!(
                    "the {what} under {key} is not the one that the blocks leave"
                )));
            }
            None => {
                let key = hex(&stored.key);
                return Err(Fault::of_all(format!(
                    "a {what} under {key} is in no block"
                )));
            }
        }
    }
    match expected.next() {
        None => Ok(()),
        Some((key, _)) => Err(Fault::of_all(format!(
            "the {what} under {} is missing",
            hex(&key)
        ))),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
