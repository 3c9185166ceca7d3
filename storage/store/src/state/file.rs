//! The file below a store, with a count of how often it was synced: what group commit is measured by.

use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

use crate::StoreError;

/// A file that counts.
#[derive(Debug)]
pub(super) struct Counted {
    file: FileBackend,
    syncs: Arc<AtomicU64>,
}

/// Opens the file, or makes it. The database locks it, through the lock methods below.
pub(super) fn open(path: &Path) -> Result<(Counted, Arc<AtomicU64>), DatabaseError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(redb::StorageError::Io)?;
    let syncs = Arc::new(AtomicU64::new(0));
    let counted = Counted {
        file: FileBackend::new(file)?,
        syncs: Arc::clone(&syncs),
    };
    Ok((counted, syncs))
}

/// What a file takes on the disk: holes take nothing.
#[cfg(unix)]
pub(super) fn disk_bytes(path: &Path) -> Result<u64, StoreError> {
    use std::os::unix::fs::MetadataExt as _;
    /// What `st_blocks` counts in, whatever the file system's own blocks are.
    const STAT_BLOCK_BYTES: u64 = 512;
    let metadata = path.metadata().map_err(StoreError::io("look at", path))?;
    Ok(metadata.blocks() * STAT_BLOCK_BYTES)
}

/// The twin for systems that do not say what a file takes: its length.
#[cfg(not(unix))]
pub(super) fn disk_bytes(path: &Path) -> Result<u64, StoreError> {
    let metadata = path.metadata().map_err(StoreError::io("look at", path))?;
    Ok(metadata.len())
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // Without these a second process could open the file: a backend locks nothing unless it says how.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
