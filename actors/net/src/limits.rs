//! What a listening endpoint allows before it says no.

use std::net::IpAddr;
use std::time::Duration;

/// Limits of a listening endpoint. All of them hold per endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, from everywhere.
    pub max_connections: usize,
    /// Connections at a time from one address (IPv6: from one /64).
    pub max_per_address: usize,
    /// The same for loopback, where a whole development network comes from one address.
    pub max_per_loopback: usize,
    /// Addresses to which neither of these two applies (IPv6: with their /64). All other limits do.
    pub exempt: Vec<IpAddr>,
    /// Streams at a time that a proven caller may have open on one connection.
    pub max_streams: u32,
    /// Handshakes in progress above which a caller must first prove its address (QUIC retry).
    pub max_handshakes: usize,
    /// Time for TLS and the hello exchange together.
    pub handshake_deadline: Duration,
    /// Time for one frame, from its stream's opening or its first byte to its last.
    pub frame_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_per_address: 64,
            max_per_loopback: 512,
            exempt: Vec::new(),
            max_streams: 64,
            max_handshakes: 64,
            handshake_deadline: Duration::from_secs(3),
            frame_deadline: Duration::from_secs(5),
        }
    }
}
