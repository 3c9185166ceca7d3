//! Measuring: two ends on loopback, and callers that want too much, or nothing at all.

use std::time::Duration;

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::ALPN_PROBE;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::node::Ack;
use cryptomind_protocol::probe::{MAX_BULK_BYTES, Request};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{NETWORK, SOON, address, key, loopback, node};
use crate::probe::{self, Greeting, MAX_BULKS, Patience, respond_within};
use crate::{Connection, Endpoint, Receiver, Sender};

const NONCE: Nonce = Nonce::new([9; 16]);
/// Longer than anything here takes.
const LONG: Duration = SOON;
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);

/// Key 1's probe port.
struct Port {
    endpoint: Endpoint,
    busy: watch::Sender<bool>,
    greetings: mpsc::Receiver<Greeting>,
    responding: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.responding.abort();
    }
}

impl Port {
    fn open() -> Self {
        Self::within(Patience {
            connection: LONG,
            bulk: LONG,
        })
    }

    fn within(patience: Patience) -> Self {
        let (alpns, limits) = (&[ALPN_PROBE], probe::limits());
        let endpoint = Endpoint::serve(loopback(), key(1), NETWORK, alpns, limits).unwrap();
        let busy = watch::Sender::new(false);
        let (sender, greetings) = mpsc::channel(1);
        let port = respond_within(endpoint.clone(), busy.subscribe(), sender, patience);
        Self {
            endpoint,
            busy,
            greetings,
            responding: tokio::spawn(port),
        }
    }

    async fn caller(&self, n: u8) -> Connection {
        let to = address(node(1), self.endpoint.local_addr());
        let dialler = Endpoint::dialler().unwrap();
        dialler.dial(&to, ALPN_PROBE, &key(n)).await.unwrap()
    }
}

async fn ping(connection: &Connection) -> Result<Ack, ErrorBody> {
    connection.request(&Request::Ping {}, SOON).await
}

/// Begins to move bytes, and goes no further than the peer's first word.
async fn begin(connection: &Connection, bytes: u64) -> Result<(Sender, Receiver), ErrorBody> {
    let (mut sender, mut receiver) = connection.open().await?;
    sender.frame(&Request::Bulk { bytes }).await?;
    let answer: Option<Answer<Ack>> = receiver.frame(SOON).await?;
    Result::from(answer.unwrap()).map(|Ack {}| (sender, receiver))
}

fn code<T>(result: Result<T, ErrorBody>) -> String {
    result.err().expect("a refusal").code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_measured_and_the_greeting_comes_through() {
    let mut port = Port::open();
    let caller = port.caller(2).await;
    let measured = probe::measure(&caller, NONCE, MAX_BULK_BYTES)
        .await
        .unwrap();
    assert!(measured.rtt < SOON && !measured.rtt.is_zero());
    // Loopback moves a byte in far less than a microsecond; a figure of another unit would not pass.
    let bytes_per_s = measured.bytes_per_s.unwrap();
    assert!(bytes_per_s > 1_000_000, "{bytes_per_s} bytes a second");
    let greeting = port.greetings.recv().await.unwrap();
    assert_eq!((greeting.from, greeting.nonce), (node(2), NONCE));
    assert!(greeting.address.ip().is_loopback());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_moved_once_in_a_while_for_a_caller_and_round_trips_always() {
    let mut port = Port::open();
    let caller = port.caller(2).await;
    for (bytes, moved) in [(0, false), (1 << 16, true), (1 << 16, false)] {
        let measured = probe::measure(&caller, NONCE, bytes).await.unwrap();
        assert_eq!(measured.bytes_per_s.is_some(), moved, "{bytes}");
        port.greetings.recv().await.unwrap();
    }
    assert_eq!(code(begin(&caller, 1).await), "probe_budget");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_bytes_and_none_are_refused_and_cost_nothing() {
    let port = Port::open();
    let caller = port.caller(2).await;
    for bytes in [0, MAX_BULK_BYTES + 1, u64::MAX] {
        assert_eq!(code(begin(&caller, bytes).await), "probe_bytes");
    }
    assert!(begin(&caller, MAX_BULK_BYTES).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_beyond_the_room_are_refused() {
    let port = Port::open();
    let mut held = Vec::new();
    for n in 0..MAX_BULKS as u8 {
        let caller = port.caller(2 + n).await;
        let halves = begin(&caller, MAX_BULK_BYTES).await.unwrap();
        held.push((caller, halves));
    }
    let late = port.caller(9).await;
    assert_eq!(code(begin(&late, 1).await), "probe_busy");
    // A greeting that nobody takes fills the room for greetings, and a second one is refused.
    assert!(probe::measure(&late, NONCE, 0).await.is_ok());
    let refused = probe::measure(&late, NONCE, 0).await;
    assert_eq!(code(refused), "probe_busy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_task_measures_nothing() {
    let port = Port::open();
    let before = port.caller(2).await;
    ping(&before).await.unwrap();
    port.busy.send_replace(true);
    assert_eq!(before.closed().await, "this node runs a task");
    let after = port.caller(2).await;
    assert_eq!(code(ping(&after).await), "probe_task");
    port.busy.send_replace(false);
    assert_eq!(ping(&after).await, Ok(Ack {}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_caller_is_let_go() {
    let port = Port::within(Patience {
        connection: SHORT,
        bulk: LONG,
    });
    let silent = port.caller(2).await;
    assert_eq!(silent.closed().await, "a probe takes no longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_moves_nothing_gives_its_room_back() {
    let port = Port::within(Patience {
        connection: LONG,
        bulk: SHORT,
    });
    let caller = port.caller(2).await;
    let (_sender, mut receiver) = begin(&caller, MAX_BULK_BYTES).await.unwrap();
    // The responder gives up on the bytes: what it had sent before may still come, and then the stream breaks.
    let mut bytes = vec![0; MAX_BULK_BYTES as usize + 1];
    assert!(receiver.exact(&mut bytes, SOON).await.is_err());
    assert_eq!(ping(&caller).await, Ok(Ack {}));
}
