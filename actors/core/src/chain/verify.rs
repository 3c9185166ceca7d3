//! Carrying out a chain that was made elsewhere, and finding where it parts from its own claims.

use cryptomind_protocol::block::{Block, Decision, Entry, Header};
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::{AccountId, ErrorBody, GenesisHash};

use super::{Chain, Executed, Open, VERSION};
use crate::consensus::{Consensus, Executor};
use crate::transaction::{self, Verified};

/// Whether an account's transaction is in the chain before this block.
pub trait Seen: Fn(&AccountId, &Nonce) -> bool {}
impl<F: Fn(&AccountId, &Nonce) -> bool> Seen for F {}

/// Where a chain parts from what carrying it out again gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {height}: {what}")]
pub struct Divergence {
    /// The first block that does not hold.
    pub height: u64,
    /// What about it.
    pub what: String,
}

/// What opening each entry's transaction came to.
type Transactions = Vec<Result<Option<Verified>, ErrorBody>>;

/// A block whose transactions were opened: their signatures, nearly all of the work of checking it, need nothing of the
/// chain before it, so that other threads can look at them ahead.
#[derive(Debug)]
pub struct Opened {
    block: Block,
    network: GenesisHash,
    transactions: Transactions,
}

impl Opened {
    /// Opens every transaction of `block`. What does not hold shows when the block is checked.
    pub fn new(block: Block, network: &GenesisHash) -> Self {
        Self {
            transactions: open_all(&block, network),
            network: *network,
            block,
        }
    }

    /// The block.
    pub const fn block(&self) -> &Block {
        &self.block
    }

    /// The block back.
    pub fn into_block(self) -> Block {
        self.block
    }

    /// The transaction of the entry at `index`, where it has one that holds.
    pub fn transaction(&self, index: u32) -> Option<&Verified> {
        let opened = self.transactions.get(index as usize)?.as_ref();
        opened.ok()?.as_ref()
    }
}

fn open_all(block: &Block, network: &GenesisHash) -> Transactions {
    let open = |signed| transaction::open(signed, network);
    let entries = block.entries.iter();
    entries
        .map(|entry| entry.transaction.clone().map(open).transpose())
        .collect()
}

impl Chain {
    /// Carries out `block` on top of the last one and compares everything that it claims. `seen` knows the transactions of
    /// earlier blocks.
    ///
    /// # Errors
    /// At the first thing that does not hold. The chain is of no use afterwards.
    pub fn check_block(
        &mut self,
        block: &Block,
        engine: &impl Consensus,
        seen: impl Seen,
    ) -> Result<Vec<Executed>, Divergence> {
        let opened = open_all(block, self.network());
        self.check_all(block, &opened, engine, seen)
    }

    /// As [`Chain::check_block`], for a block that was opened before.
    ///
    /// # Errors
    /// As [`Chain::check_block`].
    pub fn check_opened(
        &mut self,
        opened: &Opened,
        engine: &impl Consensus,
        seen: impl Seen,
    ) -> Result<Vec<Executed>, Divergence> {
        if opened.network != *self.network() {
            return self.check_block(&opened.block, engine, seen);
        }
        self.check_all(&opened.block, &opened.transactions, engine, seen)
    }

    fn check_all(
        &mut self,
        block: &Block,
        opened: &Transactions,
        engine: &impl Consensus,
        seen: impl Seen,
    ) -> Result<Vec<Executed>, Divergence> {
        let height = self.head().map_or(0, |head| head.height + 1);
        let checked = self.check_claims(block, engine).and_then(|()| {
            let executed = self.carry_out_again(block, opened, seen)?;
            self.check_result(block)?;
            Ok(executed)
        });
        checked.map_err(|what| Divergence { height, what })
    }

    /// What can be said before anything is carried out.
    fn check_claims(&self, block: &Block, engine: &impl Consensus) -> Result<(), String> {
        let header = &block.header;
        let (height, parent) = match self.head() {
            Some(head) => (head.height + 1, head.hash()),
            None => (0, Header::parent_of_first(self.network())),
        };
        same("version", &VERSION, &header.version)?;
        same("network", self.network(), &header.network)?;
        same("height", &height, &header.height)?;
        same("hash of the block before", &parent, &header.parent)?;
        let earliest = self.head().map(|head| head.time.plus_ms(1));
        let earliest = earliest.unwrap_or(self.genesis().created);
        if header.time < earliest {
            return Err("its time is not above the one before".into());
        }
        if !engine.is_final(header, &block.certificate) {
            return Err("its certificate does not hold".into());
        }
        same(
            "number of entries",
            &header.count,
            &(block.entries.len() as u32),
        )?;
        same(
            "number of receipts",
            &header.count,
            &(block.receipts.len() as u32),
        )
    }

    fn carry_out_again(
        &mut self,
        block: &Block,
        opened: &Transactions,
        seen: impl Seen,
    ) -> Result<Vec<Executed>, String> {
        let time = block.header.time;
        self.open = Some(Open::new(block.header.height, time));
        let mut here = std::collections::BTreeSet::new();
        let mut all = Vec::with_capacity(block.entries.len());
        for (index, (entry, opened)) in block.entries.iter().zip(opened).enumerate() {
            let at = |what: String| format!("entry {index}: {what}");
            let expected = self.reserved(block.header.height, index);
            if reserved(entry) != expected {
                return Err(at(format!("expected {}", expected.map_or("work", |e| e.0))));
            }
            let verified = opened.clone().map_err(|e| at(e.to_string()))?;
            if let Some(t) = &verified {
                let key = (t.account(), t.id());
                if seen(&key.0, &key.1) || !here.insert(key) {
                    return Err(at("the same transaction was carried out before".into()));
                }
            }
            let executed = self.carry_out(verified, entry.decisions.clone());
            let executed = executed.map_err(|e| at(e.to_string()))?;
            if executed.receipt != block.receipts[index] {
                return Err(at("its receipt says something else than it does".into()));
            }
            all.push(executed);
        }
        Ok(all)
    }

    /// The decision that must stand alone at this place, where one must.
    fn reserved(&self, height: u64, index: usize) -> Option<Reserved> {
        match (height, index) {
            (0, 0) => Some(MINT),
            (_, 0)
                if self
                    .open
                    .as_ref()
                    .is_some_and(|open| self.is_due(open.time)) =>
            {
                Some(DUE)
            }
            _ => None,
        }
    }

    fn check_result(&mut self, block: &Block) -> Result<(), String> {
        let made = self.propose().ok_or("it is empty")?.header;
        let claimed = &block.header;
        same("root of entries", &made.entries, &claimed.entries)?;
        same("root of receipts", &made.receipts, &claimed.receipts)?;
        same("state", &made.state, &claimed.state)?;
        same("number of entries so far", &made.total, &claimed.total)?;
        same("header", &made.hash(), &claimed.hash())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reserved(&'static str);

const MINT: Reserved = Reserved("the supply to be minted");
const DUE: Reserved = Reserved("what is due at its time");

/// Which of the decisions that nobody takes an entry is, where it is one alone.
fn reserved(entry: &Entry) -> Option<Reserved> {
    match (&entry.transaction, entry.decisions.as_slice()) {
        (None, [Decision::Mint {}]) => Some(MINT),
        (None, [Decision::Due {}]) => Some(DUE),
        (_, decisions) => decisions.iter().find_map(|decision| match decision {
            Decision::Mint {} => Some(Reserved("minting beside other things")),
            Decision::Due {} => Some(Reserved("what is due beside other things")),
            _ => None,
        }),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, here: &T, claimed: &T) -> Result<(), String> {
    if here == claimed {
        return Ok(());
    }
    Err(format!("{what}: {here:?} here, {claimed:?} claimed"))
}
