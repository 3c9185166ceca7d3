//! Bytes under their own hash: what a blob is, and how each of its chunks is held against its id.
//!
//! A blob's id is the plain BLAKE3 hash of its bytes. [`HashTree`] keeps the hashes of its 64 KiB
//! chunks, which are inner nodes of the same BLAKE3 tree: so whoever knows the id can check the list
//! of chunk hashes, and with that list every chunk as it arrives, before a byte of it is used.
//! Clients, miners and storage nodes all read and write blobs through this crate.
//!
//! - [`FileWriter`] is a verified download into a file, resumable after a crash.
//! - [`FileReader`] is a file that is about to be sent.
//! - [`Part`] is the unfinished file below both [`FileWriter`] and a storage node's writer.
//!
//! Invariant: a file under its final name is whole, and was on the disk before it got that name.
//! This crate may read and write files; it knows no database, no network and no async runtime.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod file;
mod folder;
mod part;
mod tree;

pub use cryptomind_protocol::blob::CHUNK_BYTES;
pub use error::{BlobError, VerifyError};
pub use file::{FileReader, FileWriter};
pub use folder::sync_folder;
pub use part::Part;
pub use tree::{HashTree, MAX_BLOB_BYTES, chunk_count, chunk_len};
