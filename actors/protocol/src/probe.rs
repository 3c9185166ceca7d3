//! How far nodes are from each other: the protocol `cryptomind-probe/1`, and what nodes and coordinator say about it.
//!
//! The coordinator tells a miner whom to measure ([`Peer`]). The miner dials that peer's probe port, proves its key as
//! everywhere, greets with the coordinator's nonce and its ticket ([`Ticket`]), pings, and may move bytes in both directions.
//! It reports what it measured ([`LinkReport`]); the peer reports the greeting ([`Echo`]), which proves to the coordinator
//! that the one reached the other, and over which address. Without a ticket a peer does nothing: keys cost nothing, and its
//! line is its owner's.
//!
//! A request is one frame on a bidirectional stream of its own. All are answered by `answer<ack>`. After that, for
//! `probe.bulk`, the peer sends the bytes and the caller sends as many, raw; when half of these have come, and again
//! when all have, the peer says so with a further `answer<ack>`. What the bytes are means nothing.

use serde::{Deserialize, Serialize};

use crate::key::Nonce;
use crate::signed::Payload;
use crate::{NodeId, Signed, Timestamp};

/// The most bytes that one probe moves each way.
pub const MAX_BULK_BYTES: u64 = 4 * 1024 * 1024;
/// The most peers in one order.
pub const MAX_PEERS: usize = 16;
/// The most reports, and the most echoes, in one message.
pub const MAX_REPORTS: usize = 64;

/// A request from a miner to another one's probe port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Request {
    /// The coordinator has sent me. Answered by [`crate::node::Ack`].
    #[serde(rename = "probe.greet")]
    Greet {
        /// From the coordinator's order.
        nonce: Nonce,
        /// From the same order: a [`Ticket`].
        ticket: Signed,
    },
    /// Are you there? Answered by [`crate::node::Ack`] at once.
    #[serde(rename = "probe.ping")]
    Ping {},
    /// Move so many bytes each way: see the module. Answered by [`crate::node::Ack`], three times in all.
    #[serde(rename = "probe.bulk")]
    Bulk {
        /// How many each way, at most as many as the ticket says, and [`MAX_BULK_BYTES`].
        bytes: u64,
    },
}

/// Every method of this protocol.
pub const METHODS: [&str; 3] = ["probe.greet", "probe.ping", "probe.bulk"];

/// The coordinator's word that a miner may measure its link to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// 1.
    pub version: u8,
    /// Who may call.
    pub caller: NodeId,
    /// Whom.
    pub callee: NodeId,
    /// How many bytes it may move each way; 0 is none.
    pub bulk_bytes: u64,
    /// Until when, by the coordinator's clock.
    pub expires: Timestamp,
}

impl Payload for Ticket {
    const TAG: &'static str = "cryptomind/probe-ticket/1";
    const MAX_BYTES: usize = 256;
}

/// Whom to measure. From the coordinator to a miner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Who answers there.
    pub node: NodeId,
    /// `host:port` of its probe port, for this miner: peers of one local network get another than the rest.
    pub address: String,
    /// To greet with.
    pub nonce: Nonce,
    /// To greet with: a [`Ticket`].
    pub ticket: Signed,
    /// How many bytes to move each way; 0 is to measure the round trip alone.
    pub bulk_bytes: u64,
}

/// What a miner measured of its link to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// The node at the other end.
    pub to: NodeId,
    /// Round trip, microseconds: the least of several.
    pub rtt_us: u64,
    /// Throughput, bytes a second: the lower of the two directions. Nothing where it was not measured.
    pub bytes_per_s: Option<u64>,
}

/// A greeting that a miner got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// From whom.
    pub from: NodeId,
    /// With which nonce.
    pub nonce: Nonce,
    /// `host:port` from which it came.
    pub address: String,
}
