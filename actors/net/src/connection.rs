//! A connection whose both ends have proven their keys.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::frame::MAX_FRAME;
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeId, PublicKey};
use quinn::{RecvStream, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::admission::Permit;
use crate::close::{Close, readable, sendable};
use crate::exchange::{Arrived, Exchange, arrive};
use crate::fault;
use crate::stream::{FrameReader, Receiver, Sender};
use crate::subscription::Subscription;

/// What all handles of a connection share. The last one that goes closes the connection.
pub(crate) struct Shared {
    pub(crate) quic: quinn::Connection,
    pub(crate) peer: PublicKey,
    pub(crate) network: GenesisHash,
    pub(crate) alpn: &'static str,
    pub(crate) frame_deadline: Duration,
    /// Requests whose first frame is being read, each in a task of its own: a slow one delays no other.
    /// There are never more than the peer may open streams.
    reading: Mutex<JoinSet<Option<Arrived>>>,
    _permit: Option<Permit>,
}

/// A connection whose both ends have proven their keys. Clones are handles of the same connection; it closes
/// when the last handle and the last of its streams are dropped, or by [`Connection::close`].
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

impl Connection {
    pub(crate) fn new(
        quic: quinn::Connection,
        peer: PublicKey,
        network: GenesisHash,
        alpn: &'static str,
        frame_deadline: Duration,
        permit: Option<Permit>,
    ) -> Self {
        Self(Arc::new(Shared {
            quic,
            peer,
            network,
            alpn,
            frame_deadline,
            reading: Mutex::default(),
            _permit: permit,
        }))
    }

    /// The key that the other end has proven: an account's on the API, a node's elsewhere.
    pub fn peer(&self) -> PublicKey {
        self.0.peer
    }

    /// The other end as a node.
    pub fn peer_node(&self) -> NodeId {
        NodeId::of_key(&self.0.peer)
    }

    /// The network that the server belongs to, by its own signed word.
    pub fn network(&self) -> GenesisHash {
        self.0.network
    }

    /// The protocol that both ends speak here.
    pub fn alpn(&self) -> &'static str {
        self.0.alpn
    }

    /// The other end's address.
    pub fn remote(&self) -> SocketAddr {
        self.0.quic.remote_address()
    }

    /// This end's address, as far as the operating system tells it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.0.quic.local_ip()
    }

    /// The present estimate of the round trip.
    pub fn rtt(&self) -> Duration {
        self.0.quic.rtt()
    }

    /// Asks, and waits for the one answer, for at most `limit` in all.
    ///
    /// # Errors
    /// The peer's own error, `timeout`, or one of class network: `connection_lost`, `connection_closed`,
    /// `stream_reset`, `cut_short`, `malformed_frame`.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        request: &Q,
        limit: Duration,
    ) -> Result<A, ErrorBody> {
        fault::within(limit, "the answer", async {
            let mut answers = self.subscribe(request).await?;
            let answer = answers.next().await;
            answer.unwrap_or_else(|| Err(fault::cut_short()))
        })
        .await
    }

    /// Asks for a watch.
    ///
    /// # Errors
    /// As for [`Connection::open`].
    pub async fn subscribe<Q: Serialize>(&self, request: &Q) -> Result<Subscription, ErrorBody> {
        let (mut sender, receiver) = self.open().await?;
        sender.frame(request).await?;
        sender.finish().await?;
        Ok(Subscription::new(receiver, self.0.frame_deadline))
    }

    /// The next request, read whole; nothing when the connection is gone. What is no frame, or comes too slowly,
    /// is answered here with a typed error and never seen outside; one slow stream delays no other. Dropping the
    /// future loses nothing.
    pub async fn accept_request(&self) -> Option<Exchange> {
        let mut reading = self.0.reading.lock().await;
        loop {
            tokio::select! {
                Some(arrived) = reading.join_next(), if !reading.is_empty() => {
                    if let Ok(Some(arrived)) = arrived {
                        return Some(Exchange::new(arrived, self.0.clone()));
                    }
                }
                stream = self.0.quic.accept_bi() => {
                    let (send, receive) = stream.ok()?;
                    reading.spawn(arrive(send, receive, self.0.frame_deadline));
                }
            }
        }
    }

    /// Opens a stream in both directions. The peer sees it with its first byte.
    ///
    /// # Errors
    /// `timeout` where the peer lets no more streams be opened within the frame deadline; `connection_lost`,
    /// `connection_closed`.
    pub async fn open(&self) -> Result<(Sender, Receiver), ErrorBody> {
        let (send, receive) = self.in_time("a stream", self.0.quic.open_bi()).await?;
        Ok((self.sender(send), self.receiver(receive)))
    }

    /// Opens a stream in this direction alone.
    ///
    /// # Errors
    /// As for [`Connection::open`].
    pub async fn open_uni(&self) -> Result<Sender, ErrorBody> {
        let send = self.in_time("a stream", self.0.quic.open_uni()).await?;
        Ok(self.sender(send))
    }

    /// The next stream that the peer opens in its direction alone, in the order in which they were opened.
    /// It waits as long as the connection lives.
    ///
    /// # Errors
    /// `connection_lost`, `connection_closed`.
    pub async fn accept_uni(&self) -> Result<Receiver, ErrorBody> {
        let receive = self.0.quic.accept_uni().await;
        Ok(self.receiver(receive.map_err(|e| fault::lost(&e))?))
    }

    async fn in_time<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, quinn::ConnectionError>>,
    ) -> Result<T, ErrorBody> {
        fault::within(self.0.frame_deadline, what, async {
            work.await.map_err(|e| fault::lost(&e))
        })
        .await
    }

    fn sender(&self, stream: SendStream) -> Sender {
        Sender::new(stream, self.0.clone())
    }

    fn receiver(&self, stream: RecvStream) -> Receiver {
        Receiver::new(FrameReader::new(stream, MAX_FRAME), self.0.clone())
    }

    /// Waits until the connection is gone, and says why.
    pub async fn closed(&self) -> String {
        match self.0.quic.closed().await {
            quinn::ConnectionError::ApplicationClosed(close) => readable(&close.reason),
            other => fault::lost(&other).message,
        }
    }

    /// Closes the connection at once: streams in flight are lost. The peer is told the first 200 bytes of `reason`.
    pub fn close(&self, reason: &str) {
        self.0.quic.close(Close::Done.code(), sendable(reason));
    }

    pub(crate) fn quic(&self) -> &quinn::Connection {
        &self.0.quic
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (peer, alpn) = (self.peer(), self.alpn());
        write!(f, "Connection({alpn} with {peer:?} at {})", self.remote())
    }
}
