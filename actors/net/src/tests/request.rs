//! Requests, answers and watches: the bad ones cost one stream, never the connection.

use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::{ALPN_API, MAX_FRAME};
use cryptomind_protocol::{ErrorBody, ErrorClass};
use serde::{Deserialize, Serialize};

use super::{SOON, pair, pair_within, server};
use crate::{Connection, Limits};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
enum Ask {
    #[serde(rename = "test.double")]
    Double { number: u64 },
    #[serde(rename = "test.count")]
    Count { to: u64 },
    #[serde(rename = "test.unheard")]
    Unheard {},
}

const METHODS: [&str; 2] = ["test.double", "test.count"];

/// Answers until the caller is gone.
async fn serve(connection: Connection) {
    while let Some(exchange) = connection.accept_request().await {
        match exchange.decode::<Ask>(&METHODS) {
            Ok(Ask::Count { to }) => {
                let (mut sender, _) = exchange.into_stream();
                for number in 0..to {
                    sender.frame(&Answer::Ok(number)).await.unwrap();
                }
                sender.finish().await.unwrap();
            }
            other => {
                let doubled = other.map(|ask| match ask {
                    Ask::Double { number } => number * 2,
                    _ => unreachable!("decode lets known methods through alone"),
                });
                exchange.answer(doubled).await;
            }
        }
    }
}

async fn served() -> Connection {
    let (caller, connection) = pair(ALPN_API).await;
    tokio::spawn(serve(connection));
    caller
}

async fn double(connection: &Connection, number: u64) -> Result<u64, ErrorBody> {
    connection.request(&Ask::Double { number }, SOON).await
}

/// Sends raw bytes as a request, and returns the answer.
async fn raw(connection: &Connection, bytes: &[u8]) -> Result<u64, ErrorBody> {
    let (mut sender, mut receiver) = connection.open().await.unwrap();
    sender.bytes(bytes).await.unwrap();
    sender.finish().await.unwrap();
    let answer: Option<Answer<u64>> = receiver.frame(SOON).await.unwrap();
    answer.unwrap().into()
}

#[tokio::test]
async fn requests_are_answered_many_at_a_time() {
    let caller = served().await;
    let mut all = tokio::task::JoinSet::new();
    for number in 0..200 {
        let caller = caller.clone();
        all.spawn(async move { assert_eq!(double(&caller, number).await, Ok(number * 2)) });
    }
    for done in all.join_all().await {
        let () = done;
    }
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong_and_the_connection_goes_on() {
    let caller = served().await;
    let oversized = (MAX_FRAME as u32 + 1).to_be_bytes();
    let cases: [(&[u8], &str); 6] = [
        (&oversized, "frame_too_large"),
        (b"\0\0\0\x05\xa1\x66me", "malformed_request"), // FIN in the middle of the frame
        (b"\0\0\0\x04\xa1\x66me", "malformed_request"), // a frame that holds half a map
        (b"\0\0\0\x01\xa0", "malformed_request"),       // a map without a method
        (b"\0\0", "malformed_request"),
        (b"", "malformed_request"),
    ];
    for (bytes, code) in cases {
        let error = raw(&caller, bytes).await.unwrap_err();
        assert_eq!((error.code.as_str(), error.class), (code, ErrorClass::User));
        assert_eq!(double(&caller, 21).await, Ok(42));
    }
}

#[tokio::test]
async fn an_unknown_method_is_answered_with_the_known_ones() {
    let caller = served().await;
    let error = caller.request::<_, u64>(&Ask::Unheard {}, SOON).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.class),
        ("unknown_method", ErrorClass::User)
    );
    assert!(error.help.unwrap().contains("test.double, test.count"));
}

#[tokio::test]
async fn a_stream_that_dawdles_delays_no_other_and_is_told_so() {
    let limits = Limits {
        frame_deadline: std::time::Duration::from_millis(400),
        ..Limits::default()
    };
    let (caller, connection) = pair_within(ALPN_API, limits).await;
    tokio::spawn(serve(connection));
    let (mut sender, mut receiver) = caller.open().await.unwrap();
    sender.bytes(b"\0").await.unwrap();
    assert_eq!(double(&caller, 1).await, Ok(2));
    let answer: Option<Answer<u64>> = receiver.frame(SOON).await.unwrap();
    let error = Result::from(answer.unwrap()).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.class),
        ("request_timeout", ErrorClass::User)
    );
    assert_eq!(double(&caller, 2).await, Ok(4));
}

#[tokio::test]
async fn an_answer_that_fits_no_frame_becomes_an_error() {
    let (caller, connection) = pair(ALPN_API).await;
    let answering = async {
        let exchange = connection.accept_request().await.unwrap();
        exchange.answer(Ok("x".repeat(MAX_FRAME + 1))).await;
    };
    let ask = Ask::Unheard {};
    let (answer, ()) = tokio::join!(caller.request::<_, String>(&ask, SOON), answering);
    assert_eq!(answer.unwrap_err().class, ErrorClass::Internal);
}

#[tokio::test]
async fn an_unanswered_request_ends_at_its_limit() {
    let (caller, _connection) = pair(ALPN_API).await;
    let limit = std::time::Duration::from_millis(50);
    let answer: Result<u64, _> = caller.request(&Ask::Unheard {}, limit).await;
    assert_eq!(answer.unwrap_err().code, "timeout");
}

#[tokio::test]
async fn a_watch_gives_its_answers_in_order_and_ends() {
    let caller = served().await;
    let mut watch = caller.subscribe(&Ask::Count { to: 100 }).await.unwrap();
    for number in 0..100u64 {
        assert_eq!(watch.next::<u64>().await, Some(Ok(number)));
    }
    assert_eq!(watch.next::<u64>().await, None);
}

#[tokio::test]
async fn a_watch_on_a_lost_connection_is_an_error_once() {
    let (caller, connection) = pair(ALPN_API).await;
    let mut watch = caller.subscribe(&Ask::Unheard {}).await.unwrap();
    let exchange = connection.accept_request().await.unwrap();
    connection.close("maintenance");
    let error = watch.next::<u64>().await.unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Network);
    assert!(error.message.contains("maintenance"), "{error}");
    assert_eq!(watch.next::<u64>().await, None);
    assert_eq!(caller.closed().await, "maintenance");
    drop(exchange);
}

#[tokio::test]
async fn a_dropped_watch_is_noticed() {
    let (caller, connection) = pair(ALPN_API).await;
    let watch = caller.subscribe(&Ask::Unheard {}).await.unwrap();
    let exchange = connection.accept_request().await.unwrap();
    let (mut sender, _receiver) = exchange.into_stream();
    drop(watch);
    sender.stopped().await;
}

#[tokio::test]
async fn a_closed_endpoint_tells_its_peers_and_accepts_nobody() {
    let endpoint = server(Limits::default());
    let to = super::address(super::node(1), endpoint.local_addr());
    let caller = crate::Endpoint::dialler().unwrap();
    let caller_key = super::key(2);
    let (dialled, accepted) = tokio::join!(caller.dial(&to, ALPN_API, &caller_key), async {
        endpoint.accept().await.unwrap().establish().await
    });
    let (dialled, _accepted) = (dialled.unwrap(), accepted.unwrap());
    endpoint.close("going home").await;
    assert_eq!(dialled.closed().await, "going home");
    assert!(endpoint.accept().await.is_none());
}

/// A server on a thread of its own that answers nothing any more once it is told to freeze, as if it had been killed
/// together with its machine.
#[tokio::test]
async fn a_server_that_vanishes_ends_watches_and_requests() {
    let (tell, told) = std::sync::mpsc::channel();
    let (freeze, frozen) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = server(Limits::default());
            tell.send(endpoint.local_addr()).unwrap();
            let connection = endpoint.accept().await.unwrap().establish().await;
            frozen.await.unwrap();
            std::mem::forget((endpoint, connection.unwrap()));
        });
        std::mem::forget(runtime);
    });
    let to = super::address(super::node(1), told.recv().unwrap());
    let dialler = crate::Endpoint::dialler().unwrap();
    let caller = dialler.dial(&to, ALPN_API, &super::key(2)).await.unwrap();
    let mut watch = caller.subscribe(&Ask::Unheard {}).await.unwrap();
    freeze.send(()).unwrap();
    thread.join().unwrap();
    let since = std::time::Instant::now();
    let (watched, asked) = tokio::join!(watch.next::<u64>(), double(&caller, 1));
    for error in [watched.unwrap().unwrap_err(), asked.unwrap_err()] {
        assert_eq!(error.code, "connection_lost");
        assert_eq!(error.class, ErrorClass::Network);
    }
    assert!(since.elapsed() < std::time::Duration::from_millis(3_500));
}

/// A server that is gone with its process, at once and without a word, and is back at the same address.
#[tokio::test]
async fn a_server_that_was_killed_says_so_as_soon_as_it_is_back() {
    let started = |at: Option<std::net::SocketAddr>| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let alpns = [ALPN_API];
        let bind = at.unwrap_or_else(super::loopback);
        let _in = runtime.enter();
        let made = crate::Endpoint::serve(
            bind,
            super::key(1),
            super::NETWORK,
            &alpns,
            Limits::default(),
        );
        drop(_in);
        (runtime, made.unwrap())
    };
    let (first, endpoint) = started(None);
    let at = endpoint.local_addr();
    let keeping = first.spawn(async move {
        let connection = endpoint.accept().await.unwrap().establish().await.unwrap();
        std::future::pending::<()>().await;
        drop((endpoint, connection));
    });
    let to = super::address(super::node(1), at);
    let dialler = crate::Endpoint::dialler().unwrap();
    let caller = dialler.dial(&to, ALPN_API, &super::key(2)).await.unwrap();
    let mut watch = caller.subscribe(&Ask::Unheard {}).await.unwrap();
    // Its tasks end where they stand, and its socket with them: nobody is told.
    first.shutdown_background();
    assert!(keeping.await.unwrap_err().is_cancelled());
    let (second, endpoint) = started(Some(at));
    let since = std::time::Instant::now();
    let error = watch.next::<u64>().await.unwrap().unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.class),
        ("connection_lost", ErrorClass::Network)
    );
    assert!(error.message.contains("reset"), "{error}");
    assert!(
        since.elapsed() < crate::transport::IDLE,
        "by its word, not by its silence"
    );
    drop(endpoint);
    second.shutdown_background();
}
