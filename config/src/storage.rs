//! `storage.toml`: a machine that keeps blobs.

use cryptomind_protocol::NodeAddress;

use crate::convert::bytes;
use crate::{Reader, Settings, StorageNode};

/// A storage node's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The coordinator that it works with.
    pub coordinator: NodeAddress,
    /// Who it is, where it listens and whom it earns for.
    pub node: StorageNode,
    /// What it keeps.
    pub store: Store,
}

/// `[store]`: what it keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Bytes of blobs that it offers to keep.
    pub max_bytes: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            max_bytes: 100 << 30,
        }
    }
}

impl Storage {
    /// The defaults with this coordinator, which has none.
    pub fn new(coordinator: NodeAddress) -> Self {
        Self {
            coordinator,
            node: StorageNode::default(),
            store: Store::default(),
        }
    }
}

impl Settings for Storage {
    const SAMPLE: &'static str = include_str!("../storage.toml");
    const FILE_NAME: &'static str = "storage.toml";

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let coordinator = crate::miner::coordinator(reader);
        let node = StorageNode::read(reader);
        let store = Store {
            max_bytes: reader.take("store.max_bytes", Store::default().max_bytes, bytes),
        };
        Some(Self {
            coordinator: coordinator?,
            node,
            store,
        })
    }
}
