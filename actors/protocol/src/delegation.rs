//! Delegations: an account says that a node works for it.

use serde::{Deserialize, Serialize};

use crate::signed::Payload;
use crate::{NodeId, Timestamp};

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

/// Signed by an account: this node earns for me in this role, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// 1.
    pub version: u8,
    /// The node.
    pub node: NodeId,
    /// What it may do.
    pub role: Role,
    /// When this ends.
    pub expires: Timestamp,
}

impl Payload for Delegation {
    const TAG: &'static str = "cryptomind/delegation/1";
    const MAX_BYTES: usize = 512;
}
