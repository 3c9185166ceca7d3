//! Connections between Cryptomind's processes: QUIC, proven identities, frames, bytes, the ring.
//!
//! Who talks to it: the actors and the client library. They dial and accept with an [`Endpoint`], ask and
//! answer over a [`Connection`], move blobs with [`bulk`] and gradients with [`ring`], and measure with [`probe`].
//!
//! Invariants: a [`Connection`] exists only after both ends have proven their keys over this very TLS
//! session; nothing from outside takes memory before its length is held against a limit; every wait ends,
//! by a deadline of its own or by the connection's idle timeout; one stream's trouble never stops another.
//!
//! What it is not: it decides nothing about tasks, money or nodes, and it keeps no state on disk.
//!
//! Everything here runs inside a tokio runtime with I/O and time switched on.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admission;
pub mod bulk;
mod close;
mod connection;
mod endpoint;
mod exchange;
mod fault;
mod hello;
mod limits;
pub mod probe;
mod reset;
pub mod ring;
pub mod samples;
mod stream;
mod subscription;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub use connection::Connection;
pub use endpoint::{DIAL_LIMIT, Endpoint, Pending};
pub use exchange::Exchange;
pub use limits::Limits;
pub use stream::{Receiver, Sender};
pub use subscription::Subscription;
