//! What goes to the disk with the open block, who waits for it, and whether it may be closed now.

use std::collections::BTreeMap;

use cryptomind_protocol::AccountId;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::transaction::Outcome;
use cryptomind_storage::state::Batch;
use tokio::sync::watch;

use super::Durable;
use crate::coordinator::directory::Directory;

/// Names a transaction.
type Key = (AccountId, Nonce);

/// The open block's companions, and the blocks that are on their way to the disk.
pub(super) struct Sealing {
    /// Records of other nouns that change with the open block.
    batch: Batch,
    /// Says when the open block is durable.
    stored: watch::Sender<bool>,
    /// Transactions in the open block.
    answered: Vec<Key>,
    /// What they did that the doors have to know.
    news: Vec<(AccountId, Outcome)>,
    /// Transactions of the blocks that are on their way, by height.
    storing: BTreeMap<u64, Vec<Key>>,
    /// Whether the message that closes the block is on its way.
    closing: bool,
}

/// What goes with a closed block.
pub(super) struct Sealed {
    /// To the disk.
    pub(super) batch: Batch,
    /// To the doors, once it is there.
    pub(super) news: Vec<(AccountId, Outcome)>,
    /// To whoever waits, after that.
    pub(super) stored: watch::Sender<bool>,
}

impl Default for Sealing {
    fn default() -> Self {
        Self {
            batch: Batch::new(),
            stored: watch::Sender::new(false),
            answered: Vec::new(),
            news: Vec::new(),
            storing: BTreeMap::new(),
            closing: false,
        }
    }
}

impl Sealing {
    /// Adds records to the open block.
    pub(super) fn add(&mut self, batch: Batch) -> Durable {
        self.batch.extend(batch);
        self.durable()
    }

    /// The wait for the open block.
    pub(super) fn durable(&self) -> Durable {
        Durable(self.stored.subscribe())
    }

    /// The open block answers this transaction.
    pub(super) fn answered(&mut self, key: Key, outcome: &Outcome) {
        self.answered.push(key);
        if Directory::concerns(outcome) {
            self.news.push((key.0, outcome.clone()));
        }
    }

    /// Takes what goes with the block of this height.
    pub(super) fn take(&mut self, height: u64) -> Sealed {
        self.storing
            .insert(height, std::mem::take(&mut self.answered));
        let batch = std::mem::take(&mut self.batch);
        let stored = std::mem::replace(&mut self.stored, watch::Sender::new(false));
        Sealed {
            batch,
            news: std::mem::take(&mut self.news),
            stored,
        }
    }

    /// The block of this height is on the disk. Returns its transactions.
    pub(super) fn stored(&mut self, height: u64) -> Vec<Key> {
        self.storing.remove(&height).unwrap_or_default()
    }

    pub(super) fn is_storing(&self) -> bool {
        !self.storing.is_empty()
    }

    pub(super) fn may_close(&self) -> bool {
        !self.closing && !self.is_storing()
    }

    pub(super) const fn closing(&mut self) {
        self.closing = true;
    }

    pub(super) const fn closed(&mut self) {
        self.closing = false;
    }
}
