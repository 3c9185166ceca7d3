//! Bytes by content address: the protocol `cryptomind-blob/1`.
//!
//! A request is one frame on a bidirectional stream. For `get` the answer is a frame [`GetOk`], then the
//! blob's chunks in order, then FIN; for `put` the caller sends the chunks after the request and the answer
//! is a frame [`crate::transaction::StoredReceipt`]. Every chunk is verified against the blob's hash tree as it
//! arrives: see the crate `cryptomind-blob`.

use serde::{Deserialize, Serialize};

use crate::signed::Payload;
use crate::{BlobId, NodeId, PublicKey, TaskId, Timestamp};

/// Bytes of a chunk; the last of a blob may be shorter.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// A request on a blob stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Request {
    /// Whether the blob is there, whole.
    #[serde(rename = "blob.has")]
    Has {
        /// Which.
        blob: BlobId,
        /// Who lets me ask.
        ticket: crate::Signed,
    },
    /// Send me the blob from this chunk on.
    #[serde(rename = "blob.get")]
    Get {
        /// Which.
        blob: BlobId,
        /// First chunk wanted: those before it are there already.
        first_chunk: u64,
        /// Who lets me have it.
        ticket: crate::Signed,
    },
    /// Keep this blob; its chunk hashes and chunks follow.
    #[serde(rename = "blob.put")]
    Put {
        /// Which.
        blob: BlobId,
        /// Its length.
        bytes: u64,
        /// Who lets me store it.
        ticket: crate::Signed,
    },
}

/// Every method of this protocol.
pub const METHODS: [&str; 3] = ["blob.has", "blob.get", "blob.put"];

/// Answer to [`Request::Has`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HasOk {
    /// Whether it is there.
    pub present: bool,
    /// Its length where it is.
    pub bytes: u64,
}

/// Answer to [`Request::Get`], before the chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetOk {
    /// The blob's length.
    pub bytes: u64,
}

/// Answer to [`Request::Put`] before the bytes: whether they are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutOk {
    /// The first chunk that is missing; those before it are there already.
    pub first_chunk: u64,
}

/// What a ticket allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Right {
    /// Read these blobs.
    Get {
        /// Which.
        blobs: Vec<BlobId>,
    },
    /// Store new blobs.
    Put {
        /// How many bytes in all.
        max_bytes: u64,
    },
}

/// Signed by the coordinator: the bearer may do this at any storage node, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// 1.
    pub version: u8,
    /// The key that the caller proved.
    pub bearer: PublicKey,
    /// What it may do.
    pub right: Right,
    /// For which task, where it is for one.
    pub task: Option<TaskId>,
    /// When this ends.
    pub expires: Timestamp,
}

impl Payload for Ticket {
    const TAG: &'static str = "cryptomind/ticket/1";
    const MAX_BYTES: usize = 64 * 1024;
}

/// Where a blob can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The storage node.
    pub node: NodeId,
    /// `host:port` of its listening port.
    pub address: String,
}
