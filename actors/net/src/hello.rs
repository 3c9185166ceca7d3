//! The hello exchange over the first stream that the caller opens: see [`cryptomind_protocol::hello`].

use std::time::{Duration, SystemTime};

use cryptomind_protocol::frame::{MAX_FRAME, MAX_FRAME_BEFORE_AUTH};
use cryptomind_protocol::hello::{
    Auth, CALLER_TAG, Hello, HelloOk, MAX_AGENT_CHARS, SERVER_TAG, Transcript, Welcome,
};
use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeId, PublicKey, SecretKey};
use quinn::{RecvStream, SendStream};
use serde::Serialize;

use crate::close::Close;
use crate::fault;
use crate::stream::{self, FrameReader};
use crate::tls;

/// What this software calls itself in a peer's log.
const AGENT: &str = concat!("cryptomind/", env!("CARGO_PKG_VERSION"));
/// Whoever waits for the exchange sets its limit; this one only bounds a single write within it.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Why an exchange ended without a proof: what this side reports, and what it tells the peer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) close: Close,
    pub(crate) error: ErrorBody,
}

impl Refusal {
    fn new(close: Close, error: ErrorBody) -> Self {
        Self { close, error }
    }

    fn unproven(message: &str) -> Self {
        Self::new(Close::NotProven, ErrorBody::auth("not_proven", message))
    }

    pub(crate) fn too_slow() -> Self {
        let close = Close::HandshakeTimeout;
        Self::new(close, close.error())
    }

    /// Closes for this reason and returns this side's error.
    ///
    /// To be called while the hello stream is still open: once it is dropped the peer may see a stream that
    /// ended early before it sees the reason.
    pub(crate) fn tell(self, quic: &quinn::Connection) -> ErrorBody {
        let by_peer = quic.close_reason().map(|e| fault::lost(&e));
        self.close.apply(quic);
        self.beside(by_peer)
    }

    /// What is known here stands; a frame that did not come is explained by the peer's reason, if it gave one.
    fn beside(self, by_peer: Option<ErrorBody>) -> ErrorBody {
        match self.close {
            Close::WrongNode | Close::NotProven => self.error,
            _ => by_peer.unwrap_or(self.error),
        }
    }
}

/// A frame that did not come, or should not have.
impl From<ErrorBody> for Refusal {
    fn from(error: ErrorBody) -> Self {
        let close = if error.code == "frame_too_large" {
            Close::HelloTooLarge
        } else {
            Close::HelloMalformed
        };
        Self::new(close, error)
    }
}

/// The other end of a connection after the exchange.
pub(crate) struct Proven {
    pub(crate) peer: PublicKey,
    pub(crate) network: GenesisHash,
}

/// The two halves of the hello stream.
struct Talk {
    send: SendStream,
    read: FrameReader,
}

impl Talk {
    fn new((send, receive): (SendStream, RecvStream)) -> Self {
        let read = FrameReader::new(receive, MAX_FRAME_BEFORE_AUTH);
        Self { send, read }
    }

    async fn say<T: Serialize>(&mut self, value: &T) -> Result<(), ErrorBody> {
        stream::write(&mut self.send, &stream::encode(value)?, WRITE_LIMIT).await
    }
}

fn fresh() -> Result<Nonce, ErrorBody> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| ErrorBody::internal(format!("the system gives no randomness: {e}")))?;
    Ok(Nonce::new(bytes))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis() as u64)
}

/// The caller's part. The server must be `pinned`. A refusal has closed the connection.
pub(crate) async fn call(
    quic: &quinn::Connection,
    pinned: NodeId,
    alpn: &'static str,
    key: &SecretKey,
) -> Result<Proven, ErrorBody> {
    let mut talk = match quic.open_bi().await {
        Ok(stream) => Talk::new(stream),
        Err(lost) => return Err(fault::lost(&lost)),
    };
    let proven = prove(quic, &mut talk, pinned, alpn, key).await;
    proven.map_err(|refusal| refusal.tell(quic))
}

async fn prove(
    quic: &quinn::Connection,
    talk: &mut Talk,
    pinned: NodeId,
    alpn: &'static str,
    key: &SecretKey,
) -> Result<Proven, Refusal> {
    let hello = Hello {
        nonce: fresh()?,
        caller: key.public(),
        agent: AGENT.into(),
    };
    talk.say(&hello).await?;
    let answer: HelloOk = talk.read.message().await?;
    let certificate = tls::peer_key_hash(quic)
        .ok_or_else(|| Refusal::unproven("the server's certificate cannot be read"))?;
    let transcript = transcript(&hello, &answer, certificate, alpn);
    check_server(&transcript, &answer, pinned)?;
    let signature = transcript.sign(CALLER_TAG, key);
    talk.say(&Auth { signature }).await?;
    let _ = talk.send.finish();
    let _welcome: Welcome = talk.read.message().await?;
    Ok(Proven {
        peer: answer.server,
        network: answer.network,
    })
}

fn check_server(
    transcript: &Transcript<'_>,
    answer: &HelloOk,
    pinned: NodeId,
) -> Result<(), Refusal> {
    let found = NodeId::of_key(&answer.server);
    if found != pinned {
        let message = format!("node {pinned} was expected there, {found} answers");
        let error = ErrorBody::auth("wrong_node", message)
            .with_help("ask the node's owner for its present address, with its node id");
        return Err(Refusal::new(Close::WrongNode, error));
    }
    if !transcript.server_signed(&answer.signature) {
        return Err(Refusal::unproven(
            "the server's signature does not prove its key over this connection",
        ));
    }
    Ok(())
}

fn transcript<'a>(
    hello: &Hello,
    answer: &HelloOk,
    certificate: Hash,
    alpn: &'a str,
) -> Transcript<'a> {
    Transcript {
        caller_nonce: hello.nonce,
        server_nonce: answer.nonce,
        caller: hello.caller,
        server: answer.server,
        network: answer.network,
        certificate,
        alpn,
    }
}

/// Who the server is, for [`answer`].
pub(crate) struct Server<'a> {
    pub(crate) key: &'a SecretKey,
    pub(crate) network: GenesisHash,
    /// Of the certificate that this connection's handshake used.
    pub(crate) certificate: Hash,
}

/// The server's part. `open_up` runs between the proof and the welcome, so that the caller finds it done. A
/// refusal has closed the connection.
pub(crate) async fn answer(
    quic: &quinn::Connection,
    server: &Server<'_>,
    alpn: &'static str,
    open_up: impl FnOnce(),
) -> Result<PublicKey, ErrorBody> {
    let mut talk = match quic.accept_bi().await {
        Ok(stream) => Talk::new(stream),
        Err(lost) => return Err(fault::lost(&lost)),
    };
    let greeted = greet(&mut talk, server, alpn, open_up).await;
    greeted.map_err(|refusal| refusal.tell(quic))
}

async fn greet(
    talk: &mut Talk,
    server: &Server<'_>,
    alpn: &'static str,
    open_up: impl FnOnce(),
) -> Result<PublicKey, Refusal> {
    let hello: Hello = talk.read.message().await?;
    if hello.caller == server.key.public() {
        return Err(Refusal::unproven("the caller claims this server's own key"));
    }
    let (answer, signed) = hello_ok(&hello, server, alpn)?;
    talk.say(&answer).await?;
    let auth: Auth = talk.read.message().await?;
    if !signed.caller_signed(&auth.signature) {
        return Err(Refusal::unproven("the caller's signature proves nothing"));
    }
    open_up();
    let max_frame_bytes = MAX_FRAME as u32;
    talk.say(&Welcome { max_frame_bytes }).await?;
    let _ = talk.send.finish();
    let agent: String = hello.agent.chars().take(MAX_AGENT_CHARS).collect();
    tracing::debug!(caller = ?hello.caller, ?agent, alpn, "a caller has proven its key");
    Ok(hello.caller)
}

fn hello_ok(
    hello: &Hello,
    server: &Server<'_>,
    alpn: &'static str,
) -> Result<(HelloOk, Transcript<'static>), ErrorBody> {
    let signed = Transcript {
        caller_nonce: hello.nonce,
        server_nonce: fresh()?,
        caller: hello.caller,
        server: server.key.public(),
        network: server.network,
        certificate: server.certificate,
        alpn,
    };
    let answer = HelloOk {
        nonce: signed.server_nonce,
        server: signed.server,
        network: signed.network,
        now_ms: now_ms(),
        signature: signed.sign(SERVER_TAG, server.key),
    };
    Ok((answer, signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peer closes for its own reasons when it sees this side go: that must not hide what was found here.
    #[test]
    fn what_was_found_here_stands_beside_the_peers_reason() {
        let by_peer = || Some(Close::HelloMalformed.error());
        let wrong = || Refusal::new(Close::WrongNode, Close::WrongNode.error());
        assert_eq!(wrong().beside(by_peer()).code, "wrong_node");
        assert_eq!(
            Refusal::unproven("why").beside(by_peer()).code,
            "not_proven"
        );
        let cut = || Refusal::from(ErrorBody::internal("no frame came"));
        assert_eq!(cut().beside(by_peer()).code, "malformed_hello");
        assert_eq!(cut().beside(None).code, "internal");
    }
}
