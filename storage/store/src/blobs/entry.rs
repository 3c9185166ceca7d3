//! What the index knows of a stored blob.

use cryptomind_protocol::BlobId;
use serde::{Deserialize, Serialize};

use crate::state::Record;

/// A blob that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobEntry {
    pub(super) id: BlobId,
    pub(super) bytes: u64,
}

impl Record for BlobEntry {
    const TABLE: &'static str = "blobs/1";

    fn key(&self) -> Vec<u8> {
        self.id.as_bytes().to_vec()
    }
}
