//! Why bytes are not the blob that they claim to be, or could not be kept.

use std::io;
use std::path::{Path, PathBuf};

use cryptomind_protocol::{BlobId, ErrorBody, ErrorClass};

use crate::MAX_BLOB_BYTES;

/// Why chunks or their hashes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A blob longer than [`MAX_BLOB_BYTES`].
    #[error("a blob of {bytes} bytes is over the limit of {MAX_BLOB_BYTES}: split it")]
    TooLarge {
        /// The length that was announced.
        bytes: u64,
    },
    /// Another number of hashes than the blob has chunks.
    #[error("a blob of {bytes} bytes has {expected} chunks, {got} hashes came")]
    ChunkCount {
        /// The blob's length.
        bytes: u64,
        /// Its number of chunks.
        expected: u64,
        /// Hashes that came.
        got: u64,
    },
    /// The blob ends before this chunk.
    #[error("chunk {index} was named, the blob has {count}")]
    NoSuchChunk {
        /// The number that was named, from 0.
        index: u64,
        /// The blob's number of chunks.
        count: u64,
    },
    /// A chunk of the wrong length.
    #[error("chunk {index} has {expected} bytes, {got} came")]
    ChunkLength {
        /// Which, from 0.
        index: u64,
        /// Its bytes.
        expected: usize,
        /// Bytes that came.
        got: usize,
    },
    /// A chunk with other content.
    #[error("chunk {index} is damaged: its bytes do not match its hash")]
    ChunkHash {
        /// Which, from 0.
        index: u64,
    },
}

/// Why a blob could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A chunk or the list of hashes is not the blob's.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// Hashes whose root is another blob.
    #[error("the chunk hashes are those of {got}, not of {expected}")]
    WrongRoot {
        /// The blob that was asked for.
        expected: BlobId,
        /// The blob that the hashes belong to.
        got: BlobId,
    },
    /// A chunk, or the end, before the chunk hashes.
    #[error("the chunk hashes must come before the chunks")]
    NotBegun,
    /// A chunk was left out.
    #[error("chunk {expected} comes next, chunk {got} came")]
    Gap {
        /// The first chunk that is missing.
        expected: u64,
        /// The chunk that came.
        got: u64,
    },
    /// The end before the last chunk.
    #[error("{missing} of {of} chunks are missing: ask for chunk {next} and those after it")]
    Incomplete {
        /// Chunks that did not come.
        missing: u64,
        /// Chunks of the blob.
        of: u64,
        /// The first that is missing.
        next: u64,
    },
    /// The disk failed, or is full.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl BlobError {
    /// Names what was tried when the system refused.
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<VerifyError> for ErrorBody {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::TooLarge { .. } => Self::user("blob_too_large", error),
            VerifyError::ChunkHash { .. } => Self::new(ErrorClass::Network, "corrupt_chunk", error)
                .with_help("the source or the way here is damaged: fetch it from another source"),
            _ => Self::new(ErrorClass::Network, "malformed_blob", error)
                .with_help("the sender breaks the protocol: fetch it from another source"),
        }
    }
}

impl From<BlobError> for ErrorBody {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Verify(error) => error.into(),
            BlobError::WrongRoot { .. } => Self::network("wrong_chunk_hashes", error)
                .with_help("the sender holds something else: fetch it from another source"),
            BlobError::NotBegun | BlobError::Gap { .. } => Self::network("malformed_blob", error),
            BlobError::Incomplete { .. } => Self::network("incomplete_blob", error)
                .with_help("try again: what came is kept and the transfer resumes"),
            BlobError::Io { .. } => Self::internal(error)
                .with_help("look at the disk: its free space, its health, the folder's owner"),
        }
    }
}
