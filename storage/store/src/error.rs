//! Why something could not be stored or read back.

use std::io;
use std::path::{Path, PathBuf};

use cryptomind_blob::{BlobError, VerifyError};
use cryptomind_protocol::codec::DecodeError;
use cryptomind_protocol::{BlobId, ErrorBody, ErrorClass};

/// Why something could not be stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database file could not be opened: damaged, in use, or not ours.
    #[error("cannot open the database {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// The database failed under us.
    #[error("the database failed to {doing}: {source}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// What redb said.
        source: Box<redb::Error>,
    },
    /// A stored record is not of the form that this version reads.
    #[error("record {key} of table `{table}` cannot be read: {source}")]
    Record {
        /// Its table.
        table: &'static str,
        /// Its key, in hexadecimal.
        key: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The commit thread has ended: nothing is stored any more.
    #[error("nothing is stored any more: {reason}")]
    Stopped {
        /// Why it ended.
        reason: String,
    },
    /// A file or folder failed us.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No room for a blob of this length.
    #[error("a blob of {bytes} bytes does not fit: {free} of {max} bytes are free")]
    Full {
        /// Bytes of the blob.
        bytes: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that the store may hold.
        max: u64,
    },
    /// The writer of a blob of one length was handed the hashes of another.
    #[error("a blob of {announced} bytes was announced, hashes for {got} came")]
    Length {
        /// Bytes for which room was made.
        announced: u64,
        /// Bytes that the hashes are for.
        got: u64,
    },
    /// What came is not the blob, or cannot be written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A stored blob is no longer what was stored: the disk lost or changed bytes.
    #[error("blob {blob} is damaged on this disk: {source}")]
    Damaged {
        /// Which.
        blob: BlobId,
        /// Where.
        source: Damage,
    },
}

/// What is wrong with a stored blob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A chunk is not what its hash says.
    #[error(transparent)]
    Chunk(#[from] VerifyError),
    /// The file is shorter than it was.
    #[error("chunk {index} is cut off")]
    CutOff {
        /// The chunk that could not be read whole.
        index: u64,
    },
    /// The disk refuses to read it.
    #[error("chunk {index} cannot be read: {reason}")]
    Unreadable {
        /// The chunk.
        index: u64,
        /// What the system said.
        reason: String,
    },
    /// The file that holds its chunk hashes is gone or no longer matches its id.
    #[error("its chunk hashes are gone")]
    Hashes,
    /// The file itself is gone.
    #[error("its file is gone")]
    Gone,
}

impl StoreError {
    /// Whether another process has the database open.
    pub fn is_in_use(&self) -> bool {
        let Self::Open { source, .. } = self else {
            return false;
        };
        matches!(**source, redb::Error::DatabaseAlreadyOpen)
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn database<E: Into<redb::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Database {
            doing,
            source: Box::new(source.into()),
        }
    }
}

impl From<StoreError> for ErrorBody {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Blob(error) => error.into(),
            StoreError::Full { .. } => Self::new(ErrorClass::Capacity, "storage_full", error)
                .with_help("use another storage node, or raise max_bytes of this one"),
            StoreError::Length { .. } => Self::network("malformed_blob", error),
            StoreError::Damaged { .. } => Self::new(ErrorClass::Network, "blob_damaged", error)
                .with_help("fetch it from another storage node"),
            StoreError::Open { .. } => Self::internal(error)
                .with_help("is another process using it? otherwise restore it from a backup"),
            _ => Self::internal(error),
        }
    }
}
