//! What the coordinator writes down besides money: events, nodes, what members signed.

use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::node::Capacity;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::selftest::{Machine, Pace};
use cryptomind_protocol::task::Event;
use cryptomind_protocol::{AccountId, Amount, NodeId, Signed, TaskId, Timestamp};
use serde::{Deserialize, Serialize};

/// What the network starts from, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenesisRecord {
    /// It.
    pub genesis: Genesis,
}

/// Says that a task's run has not ended, so that a restart need not look at those that have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRun {
    /// The task.
    pub task: TaskId,
}

/// An event of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Whose.
    pub task: TaskId,
    /// From 0, without gaps.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// What a member of a run signed of its steps, as it came: whoever computes one of them again holds it against that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitmentsRecord {
    /// Of which task.
    pub task: TaskId,
    /// Who.
    pub node: NodeId,
    /// From 0 for each member of a run; of many, only the last are kept.
    pub number: u64,
    /// [`Commitments`](cryptomind_protocol::audit::Commitments), verified when they came.
    pub commitments: Signed,
}

/// Stars are numbered from here, by rank; what runs say, from 0.
pub const FIRST_VOTE: u64 = 1 << 32;
/// Findings of checks are numbered from here.
pub const FIRST_FINDING: u64 = 1 << 33;

/// A node as the coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Who.
    pub node: NodeId,
    /// Its name in tables.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Whom it earns for.
    pub owner: AccountId,
    /// `host:port` where it listens, for storage nodes.
    pub address: Option<String>,
    /// What it can do.
    pub capacity: Capacity,
    /// The least that it works for, for one CU.
    #[serde(default)]
    pub reserve: Amount,
    /// How fast it trains in steps of several sizes, as its self-test says.
    #[serde(default)]
    pub steps: Vec<Pace>,
    /// What its self-test was made on.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// When it last joined.
    pub seen: Timestamp,
}
