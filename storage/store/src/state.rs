//! The coordinator's state: typed records in tables of one redb file.
//!
//! Actors hand in a [`Batch`] a decision and answer nobody before its [`Commit`] is back; at start
//! they [`StateStore::load`] what was committed. A batch is atomic, batches are applied in the order
//! in which they were handed in, and all that came while the last transaction ran go into the next
//! one together (group commit): a disk that syncs 300 times a second then carries thousands of
//! batches.
//!
//! Durability: two-phase commits with quick repair, the file's integrity checked when it is opened,
//! all writing on one thread. After a failed commit nobody knows what is on the disk, so a storage
//! error or a panic on that thread ends the process: what is there is read again at the next start.
//!
//! This is not a cache and knows no record: the impls of [`Record`] lie by noun beside this module.

mod batch;
mod commit;
mod committer;
mod creation;
mod file;
mod parts;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cryptomind_blob::sync_folder;
use cryptomind_protocol::codec::{self, DecodeError};
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, StorageBackend};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use batch::Batch;
pub use commit::Commit;
pub use committer::OnFailure;

use crate::StoreError;
use committer::Committer;

/// Memory that redb may use for pages, in bytes; its own default is 1 GiB.
const CACHE_BYTES: usize = 64 * 1024 * 1024;

/// Something with a table and a key. It is stored as CBOR, unless it says otherwise.
pub trait Record: Serialize + DeserializeOwned {
    /// The table's name with the version of its form, such as `accounts/1`.
    const TABLE: &'static str;

    /// Records that are larger are stored in parts of so many bytes, a row each. For records that are written once and
    /// whose keys have one length: redb gives a value that exceeds a page the next power of two of pages, and
    /// nearly half of them would stay empty.
    const PART_BYTES: usize = usize::MAX;

    /// The key, unique in the table; records are loaded in the order of their keys' bytes.
    fn key(&self) -> Vec<u8>;

    /// The value that is stored. Rows of indexes, whose key says nearly all, write their own.
    fn value(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The record that was stored so.
    ///
    /// # Errors
    /// When the bytes are not of this form.
    fn read(_key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(value)
    }
}

/// The first key after all that start with `prefix`, as an upper end of [`StateStore::range`].
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    end
}

/// A handle to the records of one file; clones share it. The last one to go waits for the commits
/// that are under way.
#[derive(Clone)]
pub struct StateStore {
    // Declared first: dropping it waits for the thread, and only then the file is closed.
    committer: Arc<Committer>,
    database: Arc<Database>,
    /// `None` for a store that is not a file.
    disk: Option<Disk>,
}

/// The file below a store.
#[derive(Debug, Clone)]
struct Disk {
    path: Arc<Path>,
    syncs: Arc<AtomicU64>,
}

impl StateStore {
    /// Opens the file, or makes it, and checks all of it.
    ///
    /// # Errors
    /// When it is damaged, empty, in use by another process or not a database.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        creation::ensure(path, &builder())?;
        let (backend, syncs) = file::open(path).map_err(|e| open_error(path, e))?;
        let database = builder()
            .create_with_backend(backend)
            .map_err(|e| open_error(path, e))?;
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            sync_folder(folder).map_err(StoreError::io("sync", folder))?;
        }
        let mut store = Self::start(database, OnFailure::abort())?;
        store.disk = Some(Disk {
            path: Arc::from(path),
            syncs,
        });
        Ok(store)
    }

    /// A store that lives as long as its handles, for tests and dry runs.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::with_backend(InMemoryBackend::new(), OnFailure::abort())
    }

    /// A store on another backend that does something else than [`Self::open`] when it fails. This
    /// is where tests plant faults.
    ///
    /// # Errors
    /// When the backend fails or holds something else.
    pub fn with_backend(
        backend: impl StorageBackend,
        on_failure: OnFailure,
    ) -> Result<Self, StoreError> {
        let database = builder()
            .create_with_backend(backend)
            .map_err(|e| open_error(Path::new("(backend)"), e))?;
        Self::start(database, on_failure)
    }

    fn start(database: Database, on_failure: OnFailure) -> Result<Self, StoreError> {
        let database = Arc::new(database);
        let committer = Committer::start(Arc::clone(&database), on_failure)?;
        Ok(Self {
            committer: Arc::new(committer),
            database,
            disk: None,
        })
    }

    /// Hands the batch to the commit thread and returns at once. Only when more than
    /// [`Self::MAX_WAITING_BATCHES`] or [`Self::MAX_WAITING_BYTES`] wait does it block until the
    /// transaction under way is done: that bounds memory where the disk cannot keep up.
    ///
    /// The batch is committed whether or not anyone waits for the [`Commit`].
    pub fn commit(&self, batch: Batch) -> Commit {
        self.committer.push(batch)
    }

    /// Batches that may wait for the next transaction.
    pub const MAX_WAITING_BATCHES: usize = committer::MAX_WAITING_BATCHES;

    /// Bytes of keys and values that may wait for the next transaction.
    pub const MAX_WAITING_BYTES: usize = committer::MAX_WAITING_BYTES;

    /// Write transactions since the store was opened.
    pub fn transactions(&self) -> u64 {
        self.committer.transactions()
    }

    /// Times that the disk was told to make writes durable, since the store was opened.
    pub fn syncs(&self) -> u64 {
        let syncs = self.disk.as_ref().map(|disk| &disk.syncs);
        syncs.map_or(0, |syncs| syncs.load(Ordering::Relaxed))
    }

    /// What the file takes on the disk, in bytes; 0 for a store that is not a file.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        let path = self.disk.as_ref().map(|disk| &disk.path);
        path.map_or(Ok(0), |path| file::disk_bytes(path))
    }

    /// All records of a kind, in the order of their keys. What is not committed yet is not there.
    ///
    /// # Errors
    /// When the file cannot be read or a record is not of this form.
    pub fn load<R: Record>(&self) -> Result<Vec<R>, StoreError> {
        self.range(&[], &[], usize::MAX, false)
    }

    /// The record with this key, where there is one.
    ///
    /// # Errors
    /// When the file cannot be read or the record is not of this form.
    pub fn get<R: Record>(&self, key: &[u8]) -> Result<Option<R>, StoreError> {
        if parts::has::<R>() {
            let found = self.range(key, &after_prefix(key), 1, false)?;
            return Ok(found.into_iter().next());
        }
        let Some(table) = self.table::<R>()? else {
            return Ok(None);
        };
        let found = table.get(key).map_err(StoreError::database("read"))?;
        found
            .map(|value| decode::<R>(key, value.value()))
            .transpose()
    }

    /// At most `limit` records with keys from `from` on and before `to`, in the order of their keys
    /// or from the last key back. An empty `to` means the end of the table.
    ///
    /// # Errors
    /// When the file cannot be read or a record is not of this form.
    pub fn range<R: Record>(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
        newest_first: bool,
    ) -> Result<Vec<R>, StoreError> {
        if !to.is_empty() && from >= to {
            return Ok(Vec::new());
        }
        let Some(table) = self.table::<R>()? else {
            return Ok(Vec::new());
        };
        let end = if to.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(to)
        };
        let found = table
            .range::<&[u8]>((Bound::Included(from), end))
            .map_err(StoreError::database("read"))?;
        if parts::has::<R>() {
            return if newest_first {
                parts::read(found.rev(), limit)
            } else {
                parts::read(found, limit)
            };
        }
        let read = |entry: Result<Entry<'_>, redb::StorageError>| {
            let (key, value) = entry.map_err(StoreError::database("read"))?;
            decode::<R>(key.value(), value.value())
        };
        if newest_first {
            found.rev().take(limit).map(read).collect()
        } else {
            found.take(limit).map(read).collect()
        }
    }

    /// A snapshot of the table; `None` where nothing was ever put there.
    fn table<R: Record>(&self) -> Result<Option<Table>, StoreError> {
        let transaction = self
            .database
            .begin_read()
            .map_err(StoreError::database("read"))?;
        match transaction.open_table(batch::table(R::TABLE)) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(StoreError::database("open a table")(error)),
        }
    }
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStore")
            .field("transactions", &self.transactions())
            .finish_non_exhaustive()
    }
}

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;
type Entry<'a> = (
    redb::AccessGuard<'a, &'static [u8]>,
    redb::AccessGuard<'a, &'static [u8]>,
);

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

fn open_error(path: &Path, source: redb::DatabaseError) -> StoreError {
    StoreError::Open {
        path: PathBuf::from(path),
        source: Box::new(source.into()),
    }
}

fn decode<R: Record>(key: &[u8], value: &[u8]) -> Result<R, StoreError> {
    R::read(key, value).map_err(|source| StoreError::Record {
        table: R::TABLE,
        key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        source,
    })
}
