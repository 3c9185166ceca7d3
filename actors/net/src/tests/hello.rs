//! Who gets a connection, and who does not.

use std::sync::Arc;

use cryptomind_protocol::frame::{ALPN_API, ALPN_NODE, ALPN_RING, MAX_FRAME_BEFORE_AUTH};
use cryptomind_protocol::hello::{Auth, CALLER_TAG, Hello, HelloOk};
use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::{ErrorBody, ErrorClass, NodeAddress, SecretKey};
use quinn::crypto::rustls::QuicServerConfig;

use super::{NETWORK, address, key, loopback, node, pair, server};
use crate::close::Close;
use crate::stream::{FrameReader, encode};
use crate::tls::{Certificate, SERVER_NAME, client_config};
use crate::{Connection, Endpoint, Limits};

/// A caller that may say anything.
struct Raw {
    quic: quinn::Connection,
    send: quinn::SendStream,
    read: FrameReader,
}

impl Raw {
    async fn connect(to: std::net::SocketAddr, alpn: &'static str) -> Self {
        let endpoint = quinn::Endpoint::client(loopback()).unwrap();
        let config = client_config(alpn).unwrap();
        let quic = endpoint.connect_with(config, to, SERVER_NAME);
        let quic = quic.unwrap().await.unwrap();
        let (send, receive) = quic.open_bi().await.unwrap();
        let read = FrameReader::new(receive, 1 << 20);
        Self { quic, send, read }
    }

    async fn say<T: serde::Serialize>(&mut self, value: &T) {
        self.send.write_all(&encode(value).unwrap()).await.unwrap();
    }

    /// The code with which the server closes.
    async fn closed_with(self) -> Option<Close> {
        match self.quic.closed().await {
            quinn::ConnectionError::ApplicationClosed(close) => Close::from_code(close.error_code),
            other => panic!("closed otherwise: {other}"),
        }
    }
}

fn hello(caller: &SecretKey) -> Hello {
    Hello {
        nonce: Nonce::new([9; 16]),
        caller: caller.public(),
        agent: "test".into(),
    }
}

/// What a server makes of a caller, and with which code the caller is closed.
async fn refused<F>(limits: Limits, act: impl FnOnce(Raw) -> F) -> (ErrorBody, Option<Close>)
where
    F: Future<Output = Raw>,
{
    let server = server(limits);
    let at = server.local_addr();
    let (outcome, close) = tokio::join!(
        async { server.accept().await.unwrap().establish().await },
        async {
            act(Raw::connect(at, ALPN_API).await)
                .await
                .closed_with()
                .await
        }
    );
    (outcome.unwrap_err(), close)
}

async fn dial(to: &NodeAddress, alpn: &'static str) -> Result<Connection, ErrorBody> {
    Endpoint::dialler().unwrap().dial(to, alpn, &key(2)).await
}

#[tokio::test]
async fn both_ends_know_each_other_and_the_protocol() {
    let (caller, served) = pair(ALPN_NODE).await;
    assert_eq!(caller.peer_node(), node(1));
    assert_eq!(served.peer_node(), node(2));
    assert_eq!((caller.network(), served.network()), (NETWORK, NETWORK));
    assert_eq!((caller.alpn(), served.alpn()), (ALPN_NODE, ALPN_NODE));
    assert!(served.remote().ip().is_loopback());
}

#[tokio::test]
async fn another_node_at_the_address_is_refused() {
    let server = server(Limits::default());
    let to = address(node(3), server.local_addr());
    let (dialled, accepted) = tokio::join!(dial(&to, ALPN_API), async {
        server.accept().await.unwrap().establish().await
    });
    let error = dialled.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.class),
        ("wrong_node", ErrorClass::Auth)
    );
    assert_eq!(accepted.unwrap_err().code, "wrong_node");
}

#[tokio::test]
async fn a_caller_with_the_servers_own_key_is_refused() {
    let (error, close) = refused(Limits::default(), async |mut raw: Raw| {
        raw.say(&hello(&key(1))).await;
        raw
    })
    .await;
    assert_eq!(
        (error.code.as_str(), close),
        ("not_proven", Some(Close::NotProven))
    );
}

#[tokio::test]
async fn a_reflected_signature_proves_nothing() {
    let (error, close) = refused(Limits::default(), async |mut raw: Raw| {
        raw.say(&hello(&key(2))).await;
        let signature = raw.read.message::<HelloOk>().await.unwrap().signature;
        raw.say(&Auth { signature }).await;
        raw
    })
    .await;
    assert_eq!(
        (error.code.as_str(), close),
        ("not_proven", Some(Close::NotProven))
    );
}

/// A signature made for another TLS session: the server's certificate there is another one.
#[tokio::test]
async fn a_signature_over_another_certificate_proves_nothing() {
    let (error, close) = refused(Limits::default(), async |mut raw: Raw| {
        let hello = hello(&key(2));
        raw.say(&hello).await;
        let answer: HelloOk = raw.read.message().await.unwrap();
        let elsewhere = cryptomind_protocol::hello::Transcript {
            caller_nonce: hello.nonce,
            server_nonce: answer.nonce,
            caller: hello.caller,
            server: answer.server,
            network: answer.network,
            certificate: Hash::of(b"the certificate of a machine in the middle"),
            alpn: ALPN_API,
        };
        let signature = elsewhere.sign(CALLER_TAG, &key(2));
        raw.say(&Auth { signature }).await;
        raw
    })
    .await;
    assert_eq!(
        (error.code.as_str(), close),
        ("not_proven", Some(Close::NotProven))
    );
}

/// A machine in the middle has a TLS session with each side and passes every frame on.
#[tokio::test]
async fn a_relayed_hello_is_noticed_by_the_caller() {
    let real = server(Limits::default());
    let certificate = Certificate::make(&[ALPN_API]).unwrap();
    let middle = quinn::Endpoint::server(certificate.config.as_ref().clone(), loopback()).unwrap();
    let to = address(node(1), middle.local_addr().unwrap());
    let relay = async {
        let quic = middle.accept().await.unwrap().await.unwrap();
        let (mut send, receive) = quic.accept_bi().await.unwrap();
        let mut read = FrameReader::new(receive, 1 << 20);
        let mut onward = Raw::connect(real.local_addr(), ALPN_API).await;
        onward.say(&read.message::<Hello>().await.unwrap()).await;
        let answer: HelloOk = onward.read.message().await.unwrap();
        send.write_all(&encode(&answer).unwrap()).await.unwrap();
        // The caller says nothing more.
        assert!(read.message::<Auth>().await.is_err());
    };
    let (dialled, (), _) = tokio::join!(dial(&to, ALPN_API), relay, async {
        real.accept().await.unwrap().establish().await
    });
    assert_eq!(dialled.unwrap_err().code, "not_proven");
}

#[derive(Debug)]
struct Borrowed(Arc<rustls::sign::CertifiedKey>);

impl rustls::server::ResolvesServerCert for Borrowed {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Any certificate will do, but the server must hold its key: otherwise anyone could show another's.
#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let make = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["x.invalid".into()]).unwrap();
        (params.self_signed(&key).unwrap().der().clone(), key)
    };
    let ((shown, _), (_, held)) = (make(), make());
    let held = rustls::pki_types::PrivatePkcs8KeyDer::from(held.serialize_der()).into();
    let signer = rustls::crypto::ring::sign::any_supported_type(&held).unwrap();
    let borrowed = Borrowed(Arc::new(rustls::sign::CertifiedKey::new(
        vec![shown],
        signer,
    )));
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_cert_resolver(Arc::new(borrowed));
    tls.alpn_protocols = vec![ALPN_API.into()];
    let tls = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let thief = quinn::Endpoint::server(config, loopback()).unwrap();
    let to = address(node(1), thief.local_addr().unwrap());
    let (dialled, accepted) = tokio::join!(dial(&to, ALPN_API), async {
        thief.accept().await.unwrap().await
    });
    let error = dialled.unwrap_err();
    assert!(error.message.contains("BadSignature"), "{error}");
    assert!(accepted.is_err());
}

#[tokio::test]
async fn another_protocol_is_named_as_such() {
    let server = server(Limits::default());
    let to = address(node(1), server.local_addr());
    let (dialled, accepted) = tokio::join!(dial(&to, ALPN_RING), async {
        server.accept().await.unwrap().establish().await
    });
    assert_eq!(dialled.unwrap_err().code, "wrong_protocol");
    assert_eq!(accepted.unwrap_err().code, "wrong_protocol");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let to = address(node(1), silent.local_addr().unwrap());
    let error = dial(&to, ALPN_API).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.class),
        ("unreachable", ErrorClass::Network)
    );
}

#[tokio::test]
async fn an_oversized_frame_before_auth_closes_the_connection() {
    let (error, close) = refused(Limits::default(), async |mut raw: Raw| {
        let length = (MAX_FRAME_BEFORE_AUTH as u32 + 1).to_be_bytes();
        raw.send.write_all(&length).await.unwrap();
        raw
    })
    .await;
    assert_eq!(
        (error.code.as_str(), close),
        ("frame_too_large", Some(Close::HelloTooLarge))
    );
}

#[tokio::test]
async fn a_malformed_hello_closes_the_connection() {
    for bytes in [&b"\0\0\0\x03\xff\xff\xff"[..], b"\0\0\0\x01\xa0"] {
        let (_, close) = refused(Limits::default(), async |mut raw: Raw| {
            raw.send.write_all(bytes).await.unwrap();
            raw.send.finish().unwrap();
            raw
        })
        .await;
        assert_eq!(close, Some(Close::HelloMalformed));
    }
}

#[tokio::test]
async fn a_caller_that_says_nothing_is_not_waited_for() {
    let limits = Limits {
        handshake_deadline: std::time::Duration::from_millis(300),
        ..Limits::default()
    };
    let (error, close) = refused(limits, async |raw: Raw| raw).await;
    assert_eq!(error.code, "handshake_timeout");
    assert_eq!(close, Some(Close::HandshakeTimeout));
}

#[tokio::test]
async fn one_caller_too_many_is_told_so_and_gets_in_when_there_is_room() {
    let server = server(Limits {
        max_per_loopback: 1,
        ..Limits::default()
    });
    let to = address(node(1), server.local_addr());
    let (first, served) = tokio::join!(dial(&to, ALPN_API), async {
        server.accept().await.unwrap().establish().await
    });
    let (first, served) = (first.unwrap(), served.unwrap());
    let refused = tokio::select! {
        refused = dial(&to, ALPN_API) => refused.unwrap_err(),
        _ = server.accept() => panic!("a second caller got in"),
    };
    assert_eq!(
        (refused.code.as_str(), refused.class),
        ("busy_address", ErrorClass::Capacity)
    );
    assert!(refused.retry_after_ms.is_some());
    drop(first);
    served.closed().await;
    drop(served);
    let (again, _served) = tokio::join!(dial(&to, ALPN_API), async {
        server.accept().await.unwrap().establish().await
    });
    assert!(again.is_ok());
}

/// Under pressure a caller must first show that it receives at its address; it notices nothing but a round trip.
#[tokio::test]
async fn under_pressure_callers_prove_their_address_first() {
    let server = server(Limits {
        max_handshakes: 0,
        ..Limits::default()
    });
    let to = address(node(1), server.local_addr());
    let (dialled, accepted) = tokio::join!(dial(&to, ALPN_API), async {
        server.accept().await.unwrap().establish().await
    });
    assert!(dialled.is_ok() && accepted.is_ok());
}
