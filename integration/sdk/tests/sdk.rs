//! The client library against a coordinator that breaks off when it hurts most, over real QUIC.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cryptomind_net::{Connection, Endpoint, Exchange, Limits as NetLimits};
use cryptomind_protocol::api::{METHODS, NetworkStatus, Request};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::ALPN_API;
use cryptomind_protocol::genesis::{FeeTable, Genesis, NetworkKind, Withholding};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Event, TaskEvent, TaskState};
use cryptomind_protocol::transaction::{Accepted, Action, Outcome, Transaction};
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, NodeAddress, NodeId, PublicKey, ReceiptId, SecretKey, Signed,
    TaskId, Timestamp,
};
use cryptomind_sdk::{Client, ErrorClass, Limits};

/// What the coordinator does when a request comes.
#[derive(Clone, Copy, PartialEq)]
enum Do {
    Answer,
    /// Takes the request and is gone before it answers.
    BreakOff,
    /// Asks to come again.
    Busy,
    /// Streams events from the wanted number up to this one, and ends the stream.
    EventsUpTo(u64),
    /// Streams one event and is silent after it.
    Silence,
    /// Streams these, whatever was wanted, and ends the stream in good order.
    EventsOf(&'static [u64]),
}

/// A coordinator that follows a script, one line a request but `network.status`.
struct Coordinator {
    address: NodeAddress,
    seen: Arc<Mutex<Vec<Request>>>,
}

struct Desk {
    genesis: Genesis,
    script: Mutex<VecDeque<Do>>,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Coordinator {
    fn start(script: &[Do]) -> Self {
        let key = SecretKey::from_seed([1; 32]);
        let genesis = Genesis {
            version: 1,
            name: "test".into(),
            kind: NetworkKind::Development,
            created: Timestamp::from_ms(1),
            coordinator: key.public(),
            allocations: Genesis::standard_allocations(),
            fees: FeeTable::default(),
            withholding: Withholding {
                period_ms: 1,
                max_ppm: 0,
            },
            faucet: Amount::from_base_units(7),
        };
        let bind = "127.0.0.1:0".parse().unwrap();
        let network = genesis.hash();
        let endpoint = Endpoint::serve(
            bind,
            key.clone(),
            network,
            &[ALPN_API],
            NetLimits::default(),
        )
        .unwrap();
        let seen = Arc::default();
        let desk = Arc::new(Desk {
            genesis,
            script: Mutex::new(script.iter().copied().collect()),
            seen: Arc::clone(&seen),
        });
        let port = endpoint.local_addr().port();
        tokio::spawn(serve(endpoint, desk));
        let address = NodeAddress {
            node: NodeId::of_key(&key.public()),
            host: "127.0.0.1".into(),
            port,
        };
        Self { address, seen }
    }

    async fn client(&self) -> Client {
        let limits = Limits {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(5),
            patience: Duration::from_secs(20),
        };
        let key = SecretKey::from_seed([2; 32]);
        Client::connect_within(self.address.clone(), key, limits)
            .await
            .unwrap()
    }

    /// The requests so far but `network.status`.
    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(endpoint: Endpoint, desk: Arc<Desk>) {
    while let Some(pending) = endpoint.accept().await {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let Ok(connection) = pending.establish().await else {
                return;
            };
            while let Some(exchange) = connection.accept_request().await {
                desk.handle(&connection, exchange).await;
            }
        });
    }
}

impl Desk {
    async fn handle(&self, connection: &Connection, exchange: Exchange) {
        let request: Request = exchange.decode(&METHODS).unwrap();
        if matches!(request, Request::Status {}) {
            return exchange.answer(Ok(self.status(&connection.peer()))).await;
        }
        self.seen.lock().unwrap().push(request.clone());
        let step = self.script.lock().unwrap().pop_front();
        match (step.unwrap_or(Do::Answer), request) {
            (Do::BreakOff, _) => connection.close("the test pulls the plug"),
            (Do::Busy, _) => {
                let busy = ErrorBody::new(ErrorClass::Capacity, "busy", "full");
                exchange
                    .answer::<()>(Err(busy.with_retry_after_ms(1)))
                    .await;
            }
            (Do::EventsUpTo(last), Request::Watch { from, .. }) => {
                let mut sender = exchange.into_stream().0;
                for number in from..=last {
                    sender.frame(&Answer::Ok(event(number))).await.unwrap();
                }
                sender.finish().await.unwrap();
            }
            (Do::Silence, _) => {
                let mut sender = exchange.into_stream().0;
                sender.frame(&Answer::Ok(event(0))).await.unwrap();
                connection.closed().await;
            }
            (Do::EventsOf(numbers), _) => {
                let mut sender = exchange.into_stream().0;
                for number in numbers {
                    sender.frame(&Answer::Ok(event(*number))).await.unwrap();
                }
                sender.finish().await.unwrap();
            }
            (_, Request::Submit { .. }) => {
                let amount = Amount::from_base_units(7);
                let outcome = Outcome::Moved { amount };
                let receipt = ReceiptId::at(1, 2);
                exchange.answer(Ok(Accepted { receipt, outcome })).await;
            }
            (_, other) => {
                let unasked = ErrorBody::user("not_in_this_test", format!("{other:?}"));
                exchange.answer::<()>(Err(unasked)).await;
            }
        }
    }

    fn status(&self, caller: &PublicKey) -> NetworkStatus {
        NetworkStatus {
            genesis: self.genesis.clone(),
            network: self.genesis.hash(),
            account: AccountId::of_key(caller),
            now: Timestamp::from_ms(5_000_000),
            miners: 0,
            miners_free: 0,
            storage_nodes: 0,
            supply: SUPPLY,
            held: Amount::ZERO,
            open_tasks: 0,
            unit_price: Amount::ZERO,
        }
    }
}

/// The last number that the tests use.
const LAST: u64 = 7;

fn event(number: u64) -> TaskEvent {
    let event = if number == LAST {
        Event::Settled {
            state: TaskState::Finished,
            reason: String::new(),
            payments: Vec::new(),
        }
    } else {
        Event::Waiting {
            reason: number.to_string(),
        }
    };
    TaskEvent {
        number,
        at: Timestamp::from_ms(number),
        event,
    }
}

fn submitted(request: &Request) -> Signed {
    match request {
        Request::Submit { transaction } => transaction.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_sent_again_as_the_same_bytes() {
    let coordinator = Coordinator::start(&[Do::BreakOff, Do::Busy, Do::BreakOff, Do::Answer]);
    let client = coordinator.client().await;
    assert_eq!(client.faucet().await.unwrap(), Amount::from_base_units(7));
    let sent: Vec<Signed> = coordinator.seen().iter().map(submitted).collect();
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|signed| *signed == sent[0]));
    // Another call is another transaction.
    client.faucet().await.unwrap();
    let next = submitted(&coordinator.seen()[4]);
    assert_ne!(next.payload, sent[0].payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_the_accounts_and_valid_by_the_coordinators_clock() {
    let coordinator = Coordinator::start(&[]);
    let client = coordinator.client().await;
    client.faucet().await.unwrap();
    let signed = submitted(&coordinator.seen()[0]);
    let transaction: Transaction = signed.verify(&client.network()).unwrap();
    assert_eq!(transaction.action, Action::Faucet {});
    assert_eq!(transaction.account, AccountId::of_key(&signed.signer));
    let valid_ms = transaction
        .valid_until
        .ms_since(Timestamp::from_ms(5_000_000));
    let wanted = cryptomind_sdk::DEFAULT_VALIDITY_MS;
    assert!((wanted..wanted + 60_000).contains(&valid_ms), "{valid_ms}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_has_no_gaps_and_no_doubles() {
    let script = [
        Do::EventsUpTo(2),
        Do::BreakOff,
        Do::BreakOff,
        // Repeats what was seen, skips number 5, and ends the stream too early.
        Do::EventsOf(&[1, 2, 3, 4, 6]),
        Do::EventsUpTo(LAST),
    ];
    let coordinator = Coordinator::start(&script);
    let client = coordinator.client().await;
    let mut watch = client.watch(TaskId::new([9; 16]), 0);
    let mut numbers = Vec::new();
    while let Some(event) = watch.next().await {
        numbers.push(event.unwrap().number);
    }
    assert_eq!(numbers, (0..=LAST).collect::<Vec<_>>());
    let from = |request: &Request| match request {
        Request::Watch { from, .. } => *from,
        other => panic!("{other:?}"),
    };
    let wanted: Vec<u64> = coordinator.seen().iter().map(from).collect();
    assert_eq!(wanted, [0, 3, 3, 3, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_not_asked_again() {
    let coordinator = Coordinator::start(&[]);
    let client = coordinator.client().await;
    let error = client.miners().await.unwrap_err();
    assert_eq!(error.code, "not_in_this_test");
    assert_eq!(coordinator.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_at_its_limit() {
    let coordinator = Coordinator::start(&[Do::Silence]);
    let client = coordinator.client().await;
    let limit = Duration::from_millis(300);
    let error = client.wait(TaskId::new([9; 16]), limit).await.unwrap_err();
    assert_eq!(error.code, "wait_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_the_address_is_no_coordinator() {
    let coordinator = Coordinator::start(&[]);
    let address = NodeAddress {
        node: NodeId::of_key(&SecretKey::from_seed([3; 32]).public()),
        ..coordinator.address.clone()
    };
    let connected = Client::connect(address, SecretKey::from_seed([2; 32])).await;
    let error = connected.err().unwrap();
    assert_eq!(error.class, ErrorClass::Auth, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_nobody_answers_is_unreachable_in_time() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = NodeAddress {
        node: NodeId::of_key(&SecretKey::from_seed([1; 32]).public()),
        host: "127.0.0.1".into(),
        port: nobody.local_addr().unwrap().port(),
    };
    let limits = Limits {
        connect: Duration::from_millis(300),
        ..Limits::default()
    };
    let asked = std::time::Instant::now();
    let connected = Client::connect_within(address, SecretKey::from_seed([2; 32]), limits).await;
    assert_eq!(connected.err().unwrap().code, "unreachable");
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
}
