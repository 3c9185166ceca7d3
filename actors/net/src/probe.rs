//! How far another node is: the protocol `cryptomind-probe/1`, both sides of it.
//!
//! [`measure`] is the caller's side: it greets with the coordinator's nonce and ticket, takes the least of [`PINGS`] round trips (what is above it is
//! other work on the machines, not the way between them),
//! and, where it shall, moves bytes both ways. [`respond`] is the other side, on an endpoint of its own.
//!
//! Invariants: nobody gets anything without a [ticket](Gate); a connection gets [`CONNECTION_LIMIT`] whatever it does; a responder does one thing at a time on each,
//! moves bytes for [`MAX_BULKS`] callers at once, within the limits of its [budget](budget), and says why where it does
//! not; bytes are held one piece at a time; while its node runs a task it does nothing.
//!
//! Is not: what is made of the figures (`cryptomind-core`), nor when to measure whom (the coordinator).

use std::time::Duration;

use cryptomind_protocol::error::Answer;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::node::Ack;
use cryptomind_protocol::probe::Request;
use cryptomind_protocol::{ErrorBody, Signed, frame};
use tokio::time::Instant;

use crate::connection::Connection;
use crate::limits::Limits;
use crate::stream::{Receiver, Sender};

mod budget;
mod gate;
mod responder;

pub use gate::Gate;
pub use responder::{Greeting, respond};
#[cfg(test)]
pub(crate) use responder::{Patience, respond_within};

/// Round trips of one measurement.
pub const PINGS: usize = 8;
/// Callers that bytes are moved for at a time.
pub const MAX_BULKS: usize = 2;
/// The longest that a responder keeps a caller: dialling is over by then, and what is left is the measurement.
pub const CONNECTION_LIMIT: Duration = Duration::from_secs(15);
/// What a whole measurement gets on the caller's side, dialling apart.
pub const MEASURE_LIMIT: Duration = Duration::from_secs(12);
/// What a greeting or a ping gets to be answered: far beyond any distance on earth.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// What the bytes get, both ways together.
const BULK_LIMIT: Duration = Duration::from_secs(8);
/// Bytes that are written or read at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// How much faster the second half may be than the whole: a halt within the first half is no speed.
const MAX_RAMP: u64 = 3;

/// What is measured of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The least round trip of several.
    pub rtt: Duration,
    /// The lower of both directions' throughputs, bytes a second, where it was asked for and granted.
    pub bytes_per_s: Option<u64>,
}

/// What a probe port allows: few callers, none for long.
pub fn limits() -> Limits {
    Limits {
        max_connections: 32,
        max_per_address: 16,
        max_per_loopback: 32,
        exempt: Vec::new(),
        max_streams: 2,
        max_handshakes: 16,
        handshake_deadline: Duration::from_secs(3),
        frame_deadline: ANSWER_LIMIT,
    }
}

/// Greets with what the coordinator's order has, pings, and moves `bulk_bytes` each way, where that is not 0. A peer that refuses the bytes is measured
/// without.
///
/// # Errors
/// The peer's refusal of the greeting or a ping, or one of class network.
pub async fn measure(
    connection: &Connection,
    (nonce, ticket): (Nonce, Signed),
    bulk_bytes: u64,
) -> Result<Measured, ErrorBody> {
    debug_assert_eq!(connection.alpn(), frame::ALPN_PROBE, "another protocol");
    crate::fault::within(MEASURE_LIMIT, "a measurement", async {
        let _: Ack = connection
            .request(&Request::Greet { nonce, ticket }, ANSWER_LIMIT)
            .await?;
        Ok::<_, ErrorBody>(Measured {
            rtt: round_trip(connection).await?,
            bytes_per_s: throughput(connection, bulk_bytes).await,
        })
    })
    .await
}

async fn round_trip(connection: &Connection) -> Result<Duration, ErrorBody> {
    let mut least = Duration::MAX;
    for _ in 0..PINGS {
        let start = Instant::now();
        let _: Ack = connection.request(&Request::Ping {}, ANSWER_LIMIT).await?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

async fn throughput(connection: &Connection, bytes: u64) -> Option<u64> {
    if bytes == 0 {
        return None;
    }
    let moved = exchange(connection, bytes).await;
    moved
        .inspect_err(|error| tracing::debug!(%error, "no bytes were moved"))
        .ok()
}

/// Moves bytes in, then out. Returns the lower throughput, bytes a second.
async fn exchange(connection: &Connection, bytes: u64) -> Result<u64, ErrorBody> {
    let (mut sender, mut receiver) = connection.open().await?;
    sender.frame(&Request::Bulk { bytes }).await?;
    acknowledged(&mut receiver).await?;
    let mut inward = Pace::start(bytes);
    receive(&mut receiver, inward.half()).await?;
    inward.half_done();
    receive(&mut receiver, bytes - inward.half()).await?;
    let inward = inward.bytes_per_s();
    let mut outward = Pace::start(bytes);
    let heard = async {
        acknowledged(&mut receiver).await?;
        outward.half_done();
        acknowledged(&mut receiver).await?;
        Ok::<_, ErrorBody>(outward.bytes_per_s())
    };
    let (sent, outward) = tokio::join!(send(&mut sender, bytes), heard);
    sent?;
    sender.finish().await?;
    Ok(inward.min(outward?))
}

async fn acknowledged(receiver: &mut Receiver) -> Result<Ack, ErrorBody> {
    let answer: Option<Answer<Ack>> = receiver.frame(BULK_LIMIT).await?;
    answer.ok_or_else(crate::fault::cut_short)?.into()
}

/// Sends so many bytes, which mean nothing.
async fn send(sender: &mut Sender, bytes: u64) -> Result<(), ErrorBody> {
    let piece = [0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PIECE_BYTES as u64);
        sender.bytes(&piece[..now as usize]).await?;
        left -= now;
    }
    Ok(())
}

/// Takes so many bytes.
async fn receive(receiver: &mut Receiver, bytes: u64) -> Result<(), ErrorBody> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(PIECE_BYTES as u64);
        receiver
            .exact(&mut piece[..now as usize], BULK_LIMIT)
            .await?;
        left -= now;
    }
    Ok(())
}

/// How fast bytes go: the second half of them counts, as congestion control finds the link's rate in the first.
struct Pace {
    bytes: u64,
    start: Instant,
    half: Instant,
}

impl Pace {
    fn start(bytes: u64) -> Self {
        let now = Instant::now();
        Self {
            bytes,
            start: now,
            half: now,
        }
    }

    /// Bytes of the first half, rounded down.
    const fn half(&self) -> u64 {
        self.bytes / 2
    }

    fn half_done(&mut self) {
        self.half = Instant::now();
    }

    /// Called when all is there.
    fn bytes_per_s(&self) -> u64 {
        let second = rate(self.bytes - self.half(), self.half.elapsed());
        let whole = rate(self.bytes, self.start.elapsed());
        second.min(whole.saturating_mul(MAX_RAMP))
    }
}

/// Bytes a second; time that cannot be told from none is a microsecond.
fn rate(bytes: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX)
}
