//! Where the rest of the coordinator's journal is stored: the genesis, nodes, delegations.

use cryptomind_core::journal::{DelegationRecord, GenesisRecord, NodeRecord};

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

impl Record for DelegationRecord {
    const TABLE: &'static str = "delegations/1";

    fn key(&self) -> Vec<u8> {
        self.node.as_bytes().to_vec()
    }
}
