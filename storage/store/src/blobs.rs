//! A storage node's blobs: files named by their hash, and an index in redb.
//!
//! ```text
//! index.redb                  id and length of every blob that was acknowledged
//! blobs/ab/<hex>              the bytes; <hex>.tree beside them: the chunk hashes
//! parts/<hex>.part            an upload under way or broken off; <hex>.part.tree: its chunk hashes
//! ```
//!
//! A storage node asks for a [`BlobWriter`] before bytes flow, and is refused when they would not
//! fit; [`BlobWriter::finish`] returns when the blob survives a power cut. The order is: file on the
//! disk, names on the disk, index on the disk. So a crash leaves at worst a file that the index does
//! not know, and opening the store hashes it and takes it in, or removes it. The index can be lost:
//! it is made again from the files.
//!
//! States of a blob: absent → being written (by any number of writers, each with a file of its own)
//! → stored → removed. Nothing is read without being verified. All calls block; whoever serves many
//! peers calls them from threads of its own. This module grants nobody anything and knows no ticket.

mod entry;
mod layout;
mod reader;
mod recovery;
mod room;
mod writer;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cryptomind_blob::{BlobError, MAX_BLOB_BYTES, VerifyError};
use cryptomind_protocol::BlobId;

pub use reader::StoredBlob;
pub use writer::BlobWriter;

use crate::StoreError;
use crate::state::{Batch, StateStore};
use entry::BlobEntry;
use layout::Layout;
use room::{Reservation, Room};

/// A folder of blobs; clones share it. One process has it open at a time.
#[derive(Debug, Clone)]
pub struct BlobStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    layout: Layout,
    index: StateStore,
    state: Mutex<State>,
    changed: Condvar,
}

/// What is known of the folder, in memory: about 50 bytes a blob.
#[derive(Debug)]
struct State {
    stored: HashMap<BlobId, u64>,
    room: Room,
    /// Blobs whose files are being renamed or removed right now, by one thread each.
    held: HashSet<BlobId>,
}

impl BlobStore {
    /// Opens the store in `dir`, or makes it, for at most `max_bytes` bytes of blobs, and repairs
    /// what a crash left. Chunk hashes (a 2,048th of the bytes) are not counted.
    ///
    /// # Errors
    /// When the folder is in use by another process, cannot be written, or its index is damaged
    /// (then move `index.redb` away: it is made again from the files).
    pub fn open(dir: &Path, max_bytes: u64) -> Result<Self, StoreError> {
        let layout = Layout::create(dir)?;
        // The index is locked while it is open: from here on the folder is ours.
        let index = StateStore::open(&layout.index())?;
        let stored = recovery::recover(&layout, &index)?;
        let used = stored.values().sum();
        let room = Room::new(max_bytes, used, recovery::sweep_parts(&layout)?);
        let state = State {
            stored,
            room,
            held: HashSet::new(),
        };
        Ok(Self(Arc::new(Shared {
            layout,
            index,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })))
    }

    /// The length in bytes of blob `id`, where it is stored whole.
    ///
    /// # Errors
    /// None today: the index is in memory.
    pub fn has(&self, id: &BlobId) -> Result<Option<u64>, StoreError> {
        Ok(self.0.lock().stored.get(id).copied())
    }

    /// A reader of blob `id`, where it is stored.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when its files are gone or no longer match.
    pub fn reader(&self, id: &BlobId) -> Result<Option<StoredBlob>, StoreError> {
        match self.has(id)? {
            Some(bytes) => StoredBlob::open(&self.0.layout, *id, bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Makes room for a blob of `bytes` bytes and starts to write it, or goes on where an earlier
    /// writer broke off. For a blob that is stored already, the writer wants nothing more.
    ///
    /// # Errors
    /// [`StoreError::Full`] when it does not fit; when it is stored with another length; when the
    /// disk fails.
    pub fn writer(&self, id: BlobId, bytes: u64) -> Result<BlobWriter, StoreError> {
        if bytes > MAX_BLOB_BYTES {
            return Err(BlobError::from(VerifyError::TooLarge { bytes }).into());
        }
        if let Some(got) = self.has(&id)? {
            let announced = bytes;
            return if got == announced {
                Ok(BlobWriter::of_stored(id, bytes))
            } else {
                Err(StoreError::Length { announced, got })
            };
        }
        let reservation = Reservation::take(&self.0, id, bytes)?;
        BlobWriter::open(reservation)
    }

    /// Removes blob `id`; `false` where it was not stored. After a crash in between it is stored
    /// still, and whole.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(&self, id: &BlobId) -> Result<bool, StoreError> {
        let _held = self.0.hold(*id);
        let Some(bytes) = self.0.lock().stored.remove(id) else {
            return Ok(false);
        };
        let mut batch = Batch::new();
        batch.delete::<BlobEntry>(id.as_bytes());
        self.0.index.commit(batch).wait()?;
        self.0.layout.remove_blob(id)?;
        self.0.lock().room.shrink(bytes);
        Ok(true)
    }

    /// Bytes that new blobs may take; what broken-off uploads left makes way for them.
    pub fn free_bytes(&self) -> u64 {
        self.0.lock().room.free()
    }

    /// Bytes of all stored blobs.
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().room.used()
    }

    /// Stored blobs.
    pub fn count(&self) -> usize {
        self.0.lock().stored.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other thread renames or removes the files of `id`, and keeps others out. Each
    /// holds it for a few calls to the disk.
    fn hold(&self, id: BlobId) -> Held<'_> {
        let state = self.lock();
        let mut state = self
            .changed
            .wait_while(state, |state| state.held.contains(&id))
            .unwrap_or_else(PoisonError::into_inner);
        state.held.insert(id);
        Held { shared: self, id }
    }

    /// Notes in the index that `id` is stored; after this it may be acknowledged.
    fn record(&self, id: BlobId, bytes: u64) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        batch.put(&BlobEntry { id, bytes });
        self.index.commit(batch).wait()?;
        let mut state = self.lock();
        state.stored.insert(id, bytes);
        state.room.grow(bytes);
        Ok(())
    }
}

/// The right to rename or remove the files of one blob.
struct Held<'a> {
    shared: &'a Shared,
    id: BlobId,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.lock().held.remove(&self.id);
        self.shared.changed.notify_all();
    }
}
