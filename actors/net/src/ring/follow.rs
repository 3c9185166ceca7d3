//! The state of a member on its way to a newcomer, over the sockets of their rings: see [`cryptomind_protocol::follow`].
//!
//! A member's thread hands [`Follower`] what it passes on and never waits for it: whoever falls too far behind is to be given the state anew. A
//! newcomer reads at its own pace from [`Following`], in whose connection the member waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cryptomind_protocol::follow::{Follow, MAX_PIECE, Piece};
use cryptomind_protocol::frame::ALPN_FOLLOW;
use cryptomind_protocol::{ErrorBody, NodeAddress, NodeId, SecretKey};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::home::Home;
use super::talk::{Known, lock};
use crate::close::Close;
use crate::connection::Connection;
use crate::fault;
use crate::stream::{FrameReader, Receiver, Sender};

/// Bytes that may wait for a follower, beyond what it is sent at the moment: as much as two states, but no more than this.
const MAX_BEHIND: usize = 256 * 1024 * 1024;
/// So many of the largest may wait, however large they are.
const MIN_PIECES: usize = 4;
/// Pieces that wait for a follower.
const PIECES: usize = 4096;
/// Followers that wait to be looked at.
const ARRIVED: usize = 4;
/// Newcomers at a time that take this member's state.
const MAX_LED: usize = 4;
/// Time for the first frame.
const FOLLOW_LIMIT: Duration = Duration::from_secs(3);
/// What a piece may take once it has begun, each [`BLOCK`] of it.
const PIECE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes that are sent and read at a time.
const BLOCK: usize = 256 * 1024;

/// A newcomer that takes this member's state. Dropping it breaks its stream off, whatever it was passed; [`Follower::end`] ends it.
pub struct Follower {
    node: NodeId,
    follow: Follow,
    pieces: mpsc::Sender<(Piece, Bytes)>,
    waiting: Arc<AtomicUsize>,
    /// Bytes of its state.
    state: usize,
    newest: Arc<AtomicU64>,
    /// Says that what it was passed is to arrive; dropped, that it is not.
    ends: oneshot::Sender<()>,
}

/// Why a follower is not passed a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenUp {
    /// It is not there any more: nor is its stream.
    Gone,
    /// Its link, or its machine, is too slow.
    Behind,
}

impl Follower {
    /// Who it is.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// What it asked for.
    pub const fn follow(&self) -> Follow {
        self.follow
    }

    /// Whether all that it was passed is on its way.
    pub fn is_idle(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Passes the state on, after so many steps. Does not wait, and takes no account of the bytes that do.
    ///
    /// # Errors
    /// [`GivenUp`]: it is to be dropped.
    pub fn give(&mut self, step: u64, state: Bytes) -> Result<(), GivenUp> {
        self.state = state.len();
        let bytes = state.len() as u64;
        self.send(Piece::State { step, bytes }, state)
    }

    /// Passes a piece of a step on with its bytes, as far as the follower keeps up. Does not wait.
    ///
    /// # Errors
    /// [`GivenUp::Behind`]: nothing may follow but a state; [`GivenUp::Gone`]: it is to be dropped.
    pub fn pass(&self, piece: Piece, bytes: Bytes) -> Result<(), GivenUp> {
        let waits = self.waiting.load(Ordering::Relaxed);
        let most = self.state.saturating_mul(2).min(MAX_BEHIND);
        let most = most.max(bytes.len().saturating_mul(MIN_PIECES));
        if !bytes.is_empty() && waits.saturating_add(bytes.len()) > most {
            return Err(GivenUp::Behind);
        }
        if let Piece::Committed { newest, .. } = piece {
            self.newest.fetch_max(newest, Ordering::Relaxed);
        }
        self.send(piece, bytes)
    }

    fn send(&self, piece: Piece, bytes: Bytes) -> Result<(), GivenUp> {
        let size = bytes.len();
        self.waiting.fetch_add(size, Ordering::Relaxed);
        self.pieces.try_send((piece, bytes)).map_err(|e| {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            match e {
                mpsc::error::TrySendError::Full(_) => GivenUp::Behind,
                mpsc::error::TrySendError::Closed(_) => GivenUp::Gone,
            }
        })
    }

    /// Passes on that there is nothing more; what was passed arrives, if the follower takes it soon.
    pub fn end(self) {
        // Where it is behind, or gone, its stream breaks.
        if self.send(Piece::End {}, Bytes::new()).is_ok() {
            let _ = self.ends.send(());
        }
    }
}

/// Where newcomers come in.
#[derive(Clone)]
pub(super) struct Hall(mpsc::Sender<Follower>);

/// The hall, and where its newcomers come out.
pub(super) fn new() -> (Hall, mpsc::Receiver<Follower>) {
    let (hall, arrived) = mpsc::channel(ARRIVED);
    (Hall(hall), arrived)
}

/// The newcomers that are sent this member's state, each on its newest connection.
pub(super) struct Leading {
    hall: Hall,
    newcomers: BTreeMap<NodeId, AbortHandle>,
    streams: JoinSet<()>,
}

impl Leading {
    pub(super) fn new(hall: Hall) -> Self {
        Self {
            hall,
            newcomers: BTreeMap::new(),
            streams: JoinSet::new(),
        }
    }

    /// Takes a caller in, and none of its connections before.
    pub(super) fn lead(&mut self, caller: Connection) {
        let node = caller.peer_node();
        // Of those that have ended nothing is wanted.
        while self.streams.try_join_next().is_some() {}
        if let Some(before) = self.newcomers.remove(&node) {
            before.abort();
        }
        if self.streams.len() >= MAX_LED {
            return Close::Busy.apply(caller.quic());
        }
        let hall = self.hall.clone();
        let stream = self.streams.spawn(async move { hall.serve(caller).await });
        self.newcomers.insert(node, stream);
    }
}

impl Hall {
    /// Takes a caller in, and sends it what it is passed until there is nothing more. Where too many wait, it is refused.
    pub(super) async fn serve(&self, connection: Connection) {
        if let Err(error) = self.receive(connection).await {
            tracing::debug!(%error, "a follower's stream ended");
        }
    }

    async fn receive(&self, connection: Connection) -> Result<(), ErrorBody> {
        let node = connection.peer_node();
        let follow = fault::within(FOLLOW_LIMIT, "what to follow", async {
            let opened = connection.quic().accept_uni().await;
            let mut asked = FrameReader::new(opened.map_err(|e| fault::lost(&e))?, MAX_PIECE);
            asked.message().await
        });
        let follow = follow.await?;
        let (pieces, mut passed) = mpsc::channel(PIECES);
        let (waiting, newest) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let (ends, ended) = oneshot::channel();
        let follower = Follower {
            node,
            follow,
            pieces,
            waiting: waiting.clone(),
            state: 0,
            newest: newest.clone(),
            ends,
        };
        if self.0.try_send(follower).is_err() {
            return Err(ErrorBody::network("busy", "too many newcomers wait here"));
        }
        let mut stream = connection.open_uni().await?;
        let passes = pass_on(&mut stream, &mut passed, (&waiting, &newest));
        let is_whole = tokio::select! {
            biased;
            is_whole = passes => is_whole?,
            () = broken_off(ended) => false,
        };
        match is_whole {
            true => {
                fault::within(PIECE_LIMIT, "the end's arrival", async {
                    stream.finish_and_wait().await;
                    Ok::<_, ErrorBody>(())
                })
                .await
            }
            false => {
                stream.abandon();
                Ok(())
            }
        }
    }
}

/// Sends what comes until the end; true where that came.
async fn pass_on(
    stream: &mut Sender,
    passed: &mut mpsc::Receiver<(Piece, Bytes)>,
    (waiting, newest): (&AtomicUsize, &AtomicU64),
) -> Result<bool, ErrorBody> {
    while let Some((mut piece, bytes)) = passed.recv().await {
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        if let Piece::Committed { newest: known, .. } = &mut piece {
            *known = newest.load(Ordering::Relaxed).max(*known);
        }
        stream.frame(&piece).await?;
        for block in bytes.chunks(BLOCK) {
            stream.bytes(block).await?;
        }
        if let Piece::End {} = piece {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until the follower is dropped, or some time after its end.
async fn broken_off(ended: oneshot::Receiver<()>) {
    if ended.await.is_ok() {
        // The limit of a peer that takes no more: what it takes ends the other branch.
        tokio::time::sleep(PIECE_LIMIT).await;
    }
}

/// A piece as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// What it is.
    pub piece: Piece,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// From its frame to its last byte.
    pub took: Duration,
}

/// A member's state as a newcomer gets it.
pub struct Following {
    connection: Connection,
    /// Once it has begun.
    stream: Option<Receiver>,
    most: usize,
    /// Its thread.
    _home: Home,
}

/// Dials members whose state is wanted.
#[derive(Clone)]
pub struct Guide {
    known: Known,
    home: Home,
    key: SecretKey,
}

impl Guide {
    pub(super) const fn new(known: Known, home: Home, key: SecretKey) -> Self {
        Self { known, home, key }
    }

    /// Takes the state of a node that was named to the socket, as it trains. A piece of more than `most` bytes is refused.
    ///
    /// # Errors
    /// `member_not_found` for a node that was not named; what dialling it ends with. That it does not let this node follow shows with the first
    /// piece.
    pub async fn follow(
        &self,
        node: NodeId,
        follow: Follow,
        most: usize,
    ) -> Result<Following, ErrorBody> {
        let to = lock(&self.known).get(&node).cloned();
        let to = to.ok_or_else(|| ErrorBody::not_found("member", "nobody knows where it is"))?;
        let guide = self.clone();
        let mut dialling = JoinSet::new();
        dialling.spawn_on(guide.dial(to, follow, most), self.home.handle());
        let dialled = dialling.join_next().await.and_then(Result::ok);
        dialled.unwrap_or_else(|| Err(ErrorBody::internal("the ring's thread has ended")))
    }

    async fn dial(
        self,
        to: NodeAddress,
        follow: Follow,
        most: usize,
    ) -> Result<Following, ErrorBody> {
        let endpoint = self.home.endpoint();
        let connection = endpoint.dial(&to, ALPN_FOLLOW, &self.key).await?;
        let mut asks = connection.open_uni().await?;
        asks.frame(&follow).await?;
        asks.finish().await?;
        Ok(Following {
            connection,
            stream: None,
            most,
            _home: self.home,
        })
    }
}

impl Following {
    /// The next piece and its bytes, however long it takes to come; once it has begun it must go on. After an error, or a future that
    /// was dropped in the middle, it is of no more use.
    ///
    /// # Errors
    /// `connection_closed`, `connection_lost`, `stream_reset`, `cut_short`: the member does not let it follow, is gone, or gave it up; `malformed_frame`,
    /// `frame_too_large`: it sends what is none of this; `timeout`: it stopped in the middle of a piece.
    pub async fn next(&mut self) -> Result<Passed, ErrorBody> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            // It is seen with its first byte: where the member's next step begins.
            none => none.insert(self.connection.accept_uni().await?),
        };
        let frame = stream.awaited(PIECE_LIMIT).await?;
        let piece: Piece = crate::stream::decode(&frame.ok_or_else(fault::cut_short)?)?;
        let begin = Instant::now();
        let announced = match piece {
            Piece::State { bytes, .. } => bytes,
            Piece::Sums { values, .. } => values.saturating_mul(size_of::<f32>() as u64),
            Piece::Committed { .. } | Piece::End {} => 0,
        };
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length > self.most {
            let message = format!("a piece of {length} bytes, at most {} are due", self.most);
            return Err(ErrorBody::network("frame_too_large", message));
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let have = bytes.len();
            // Memory grows with what has come.
            bytes.resize(length.min(have + BLOCK), 0);
            stream.exact(&mut bytes[have..], PIECE_LIMIT).await?;
        }
        Ok(Passed {
            piece,
            bytes,
            took: begin.elapsed(),
        })
    }
}
