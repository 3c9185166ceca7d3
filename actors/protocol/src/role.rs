//! What a node does.

use serde::{Deserialize, Serialize};

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Keeps ledger, catalog and ratings, and matches tasks with miners.
    Coordinator,
    /// Trains and infers.
    Miner,
    /// Keeps blobs.
    Storage,
    /// Uses the network.
    Client,
}

impl Role {
    /// Whether nodes in this role work for an account, by its delegation.
    pub const fn is_delegated(self) -> bool {
        matches!(self, Self::Miner | Self::Storage)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Coordinator => "coordinator",
            Self::Miner => "miner",
            Self::Storage => "storage",
            Self::Client => "client",
        })
    }
}
