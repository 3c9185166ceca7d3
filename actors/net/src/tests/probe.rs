//! Measuring: two ends on loopback, and callers that want too much, or nothing at all.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::ALPN_PROBE;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::node::Ack;
use cryptomind_protocol::probe::{MAX_BULK_BYTES, Request, Ticket};
use cryptomind_protocol::{Signed, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{NETWORK, SOON, address, key, loopback, node};
use crate::probe::{self, Gate, Greeting, MAX_BULKS, Patience, respond_within};
use crate::{Connection, Endpoint, Receiver, Sender};

const NONCE: Nonce = Nonce::new([9; 16]);
/// Longer than anything here takes.
const LONG: Duration = SOON;
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);

/// The coordinator's key.
const COORDINATOR: u8 = 50;
const NOW: Timestamp = Timestamp::from_ms(1_000);

/// For key `n` to measure key 1.
fn ticket(n: u8, bulk_bytes: u64) -> Signed {
    let ticket = Ticket {
        version: 1,
        caller: node(n),
        callee: node(1),
        bulk_bytes,
        expires: NOW.plus_ms(1),
    };
    Signed::sign(&ticket, &NETWORK, &key(COORDINATOR))
}

fn order(n: u8) -> (Nonce, Signed) {
    (NONCE, ticket(n, MAX_BULK_BYTES))
}

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
        let gate = Gate {
            coordinator: key(COORDINATOR).public(),
            network: NETWORK,
            node: node(1),
            now: Arc::new(|| NOW),
        };
        let port = respond_within(endpoint.clone(), gate, busy.subscribe(), sender, patience);
        Self {
            endpoint,
            busy,
            greetings,
            responding: tokio::spawn(port),
        }
    }

    async fn stranger(&self, n: u8) -> Connection {
        let to = address(node(1), self.endpoint.local_addr());
        let dialler = Endpoint::dialler().unwrap();
        dialler.dial(&to, ALPN_PROBE, &key(n)).await.unwrap()
    }

    /// One that has greeted with the coordinator's ticket.
    async fn caller(&mut self, n: u8) -> Connection {
        let connection = self.stranger(n).await;
        greet(&connection, ticket(n, MAX_BULK_BYTES)).await.unwrap();
        let greeting = self.greetings.recv().await.unwrap();
        assert_eq!(greeting.from, node(n));
        connection
    }
}

async fn greet(connection: &Connection, ticket: Signed) -> Result<Ack, ErrorBody> {
    let nonce = NONCE;
    let request = Request::Greet { nonce, ticket };
    connection.request(&request, SOON).await
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
    let caller = port.stranger(2).await;
    let measured = probe::measure(&caller, order(2), MAX_BULK_BYTES)
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
        let measured = probe::measure(&caller, order(2), bytes).await.unwrap();
        assert_eq!(measured.bytes_per_s.is_some(), moved, "{bytes}");
        port.greetings.recv().await.unwrap();
    }
    assert_eq!(code(begin(&caller, 1).await), "probe_budget");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_bytes_and_none_are_refused_and_cost_nothing() {
    let mut port = Port::open();
    let caller = port.caller(2).await;
    for bytes in [0, MAX_BULK_BYTES + 1, u64::MAX] {
        assert_eq!(code(begin(&caller, bytes).await), "probe_bytes");
    }
    assert!(begin(&caller, MAX_BULK_BYTES).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_beyond_the_room_are_refused() {
    let mut port = Port::open();
    let mut held = Vec::new();
    for n in 0..MAX_BULKS as u8 {
        let caller = port.caller(2 + n).await;
        let halves = begin(&caller, MAX_BULK_BYTES).await.unwrap();
        held.push((caller, halves));
    }
    let late = port.caller(9).await;
    assert_eq!(code(begin(&late, 1).await), "probe_busy");
    // A greeting that nobody takes fills the room for greetings, and a second one is refused.
    assert!(probe::measure(&late, order(9), 0).await.is_ok());
    let refused = probe::measure(&late, order(9), 0).await;
    assert_eq!(code(refused), "probe_busy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_task_measures_nothing() {
    let mut port = Port::open();
    let before = port.caller(2).await;
    ping(&before).await.unwrap();
    port.busy.send_replace(true);
    assert_eq!(before.closed().await, "this node runs a task");
    let after = port.stranger(2).await;
    let refused = greet(&after, ticket(2, 0)).await;
    assert_eq!(code(refused), "probe_task");
    port.busy.send_replace(false);
    assert_eq!(greet(&after, ticket(2, 0)).await, Ok(Ack {}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_caller_is_let_go() {
    let port = Port::within(Patience {
        connection: SHORT,
        bulk: LONG,
    });
    let silent = port.stranger(2).await;
    assert_eq!(silent.closed().await, "a probe takes no longer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_moves_nothing_gives_its_room_back() {
    let mut port = Port::within(Patience {
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

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_anything_without_a_ticket() {
    let mut port = Port::open();
    let caller = port.stranger(2).await;
    assert_eq!(code(ping(&caller).await), "no_ticket");
    assert_eq!(code(begin(&caller, 1).await), "no_ticket");
    let read: Ticket = ticket(2, 1).verify(&NETWORK).unwrap();
    let forged = Signed::sign(&read, &NETWORK, &key(2));
    assert_eq!(code(greet(&caller, forged).await), "bad_ticket");
    // Another's ticket is nobody else's, and a key costs nothing: many of them take nothing of the budget.
    for n in 3..3 + 2 * MAX_BULKS as u8 {
        let thief = port.stranger(n).await;
        assert_eq!(code(greet(&thief, ticket(2, 1)).await), "bad_ticket");
        assert_eq!(code(begin(&thief, 1).await), "no_ticket");
    }
    assert!(port.greetings.try_recv().is_err(), "nothing of it is told");
    greet(&caller, ticket(2, 100)).await.unwrap();
    assert_eq!(code(begin(&caller, 101).await), "probe_bytes");
    assert!(begin(&caller, 100).await.is_ok());
}
