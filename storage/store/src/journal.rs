//! Where the rest of the coordinator's journal is stored: the genesis, nodes.

use cryptomind_core::journal::{GenesisRecord, NodeRecord};

use crate::state::Record;

impl Record for GenesisRecord {
    const TABLE: &'static str = "genesis/1";

    /// There is one.
    fn key(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl Record for NodeRecord {
    const TABLE: &'static str = "nodes/1";

    fn key(&self) -> Vec<u8> {
        self.node.as_bytes().to_vec()
    }
}
