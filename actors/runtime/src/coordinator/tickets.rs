//! Tickets: the coordinator's word to storage nodes that somebody may read or store blobs, and to miners that somebody may
//! measure its link to them.

use cryptomind_protocol::blob::{Right, Ticket};
use cryptomind_protocol::probe;
use cryptomind_protocol::{
    BlobId, GenesisHash, NodeId, PublicKey, SecretKey, Signed, TaskId, Timestamp,
};

/// How long a client's ticket is good: as long as it may plausibly take to fetch and store. A task's are good until its hold expires.
const VALID_MS: u64 = 24 * 3600 * 1000;
/// How long a ticket to measure is good: orders that wait longer are as good as lost.
const PROBE_VALID_MS: u64 = 120_000;

/// Signs tickets.
#[derive(Debug, Clone)]
pub struct Tickets {
    /// The coordinator's node key.
    pub key: SecretKey,
    /// The network that they are good for.
    pub network: GenesisHash,
}

impl Tickets {
    /// The bearer may read these blobs.
    pub fn get(&self, bearer: PublicKey, blobs: Vec<BlobId>, now: Timestamp) -> Signed {
        self.sign(bearer, Right::Get { blobs }, None, now.plus_ms(VALID_MS))
    }

    /// The bearer may store so many bytes.
    pub fn put(&self, bearer: PublicKey, max_bytes: u64, now: Timestamp) -> Signed {
        self.sign(
            bearer,
            Right::Put { max_bytes },
            None,
            now.plus_ms(VALID_MS),
        )
    }

    /// A node may store so many bytes, for a task.
    pub fn put_for(
        &self,
        node: NodeId,
        max_bytes: u64,
        task: TaskId,
        expires: Timestamp,
    ) -> Signed {
        self.sign(node.key(), Right::Put { max_bytes }, Some(task), expires)
    }

    /// A node may read these blobs, for a task.
    pub fn get_for(
        &self,
        node: NodeId,
        blobs: Vec<BlobId>,
        task: TaskId,
        expires: Timestamp,
    ) -> Signed {
        self.sign(node.key(), Right::Get { blobs }, Some(task), expires)
    }

    /// `caller` may measure its link to `callee`.
    pub fn probe(
        &self,
        (caller, callee): (NodeId, NodeId),
        bulk_bytes: u64,
        now: Timestamp,
    ) -> Signed {
        let ticket = probe::Ticket {
            version: 1,
            caller,
            callee,
            bulk_bytes,
            expires: now.plus_ms(PROBE_VALID_MS),
        };
        Signed::sign(&ticket, &self.network, &self.key)
    }

    fn sign(
        &self,
        bearer: PublicKey,
        right: Right,
        task: Option<TaskId>,
        expires: Timestamp,
    ) -> Signed {
        let ticket = Ticket {
            version: 1,
            bearer,
            right,
            task,
            expires,
        };
        Signed::sign(&ticket, &self.network, &self.key)
    }
}
