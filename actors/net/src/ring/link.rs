//! A link with one neighbour: its streams, its pings, and the watch over its silence, from the yes on that makes it one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cryptomind_protocol::ring::{EVICT_MS, Link, PING_MS, SUSPECT_MS};
use cryptomind_protocol::{ErrorBody, NodeId};
use quinn::{RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::RingPlan;
use super::collective::MAX_HEADER;
use super::error::RingError;
use super::health::Health;
use crate::close::Close;
use crate::connection::Connection;
use crate::fault;
use crate::stream::{self, FrameReader};

/// Time for the first frames of a link.
const INTRODUCTION_LIMIT: Duration = Duration::from_secs(3);
/// While a ping is overdue, it is looked this often whether anything else came.
const LOOK: Duration = Duration::from_millis(50);
/// A timer that fires this late was held up here, which says nothing about the neighbour.
const HELD_UP: Duration = Duration::from_millis(PING_MS);

/// A link that this node has dialled.
pub(super) struct Next {
    pub(super) stream: SendStream,
    _connection: Connection,
    /// Ends with the link.
    _watch: JoinSet<()>,
}

/// A link that a rank behind has dialled.
pub(super) struct Previous {
    pub(super) stream: RecvStream,
    pub(super) heard: Heard,
    connection: Connection,
    /// Ends with the link.
    _watch: JoinSet<()>,
}

/// A caller with the first frame of its data stream.
pub(super) struct Arrival {
    connection: Connection,
    data: FrameReader,
    pub(super) link: Link,
    /// Counts who came to the door: of two, the one that came later.
    pub(super) number: u64,
}

struct Pings {
    send: SendStream,
    receive: RecvStream,
}

async fn open_pings(connection: &Connection) -> Result<SendStream, ErrorBody> {
    let opened = connection.quic().open_uni().await;
    let mut pings = opened.map_err(|e| fault::lost(&e))?;
    // Fails on a closed stream alone, which the write below tells.
    let _ = pings.set_priority(1);
    pings.write_all(&[0]).await.map_err(|e| fault::write(&e))?;
    Ok(pings)
}

async fn accept_stream(connection: &Connection) -> Result<RecvStream, ErrorBody> {
    let accepted = connection.quic().accept_uni().await;
    accepted.map_err(|e| fault::lost(&e))
}

impl Next {
    /// Says which ring this link is for, and waits until that rank ahead says yes. The caller sets the limit: it
    /// may not know of the ring yet.
    pub(super) async fn introduce(
        connection: Connection,
        plan: &RingPlan,
        rank: usize,
        health: &Arc<Health>,
    ) -> Result<Self, ErrorBody> {
        let unlinked = Unlinked::adopt(connection, health);
        let connection = &unlinked.connection;
        let opened = connection.quic().open_uni().await;
        let mut data = opened.map_err(|e| fault::lost(&e))?;
        let link = stream::encode(&Link {
            task: plan.task,
            attempt: plan.attempt,
            rank: plan.rank,
        })?;
        stream::write(&mut data, &link, INTRODUCTION_LIMIT).await?;
        let send = open_pings(connection).await?;
        let receive = accept_stream(connection).await?;
        let pings = Pings { send, receive };
        let connection = unlinked.linked();
        let (_, watch) = Watch::start(connection.clone(), pings, rank, health);
        Ok(Self {
            stream: data,
            _connection: connection,
            _watch: watch,
        })
    }
}

impl Arrival {
    /// Reads which ring a caller is for.
    pub(super) async fn read(connection: Connection, number: u64) -> Result<Self, ErrorBody> {
        fault::within(INTRODUCTION_LIMIT, "the link frame", async {
            let mut data = FrameReader::new(accept_stream(&connection).await?, MAX_HEADER);
            let link = data.message().await?;
            Ok::<_, ErrorBody>(Self {
                connection: connection.clone(),
                data,
                link,
                number,
            })
        })
        .await
    }

    /// Who has proven to be calling.
    pub(super) fn caller(&self) -> NodeId {
        self.connection.peer_node()
    }

    pub(super) fn refuse(self, close: Close) {
        close.apply(self.connection.quic());
    }

    /// Waits until the caller is gone.
    pub(super) async fn gone(&self) {
        self.connection.quic().closed().await;
    }
}

impl Previous {
    /// Says yes to a caller.
    pub(super) async fn welcome(arrival: Arrival, health: &Arc<Health>) -> Result<Self, ErrorBody> {
        let unlinked = Unlinked::adopt(arrival.connection, health);
        let connection = &unlinked.connection;
        let pings = fault::within(INTRODUCTION_LIMIT, "the first ping", async {
            let send = open_pings(connection).await?;
            let receive = accept_stream(connection).await?;
            Ok::<_, ErrorBody>(Pings { send, receive })
        });
        let (pings, rank) = (pings.await?, arrival.link.rank as usize);
        let connection = unlinked.linked();
        let (heard, watch) = Watch::start(connection.clone(), pings, rank, health);
        Ok(Self {
            stream: arrival.data.stream,
            heard,
            connection,
            _watch: watch,
        })
    }

    /// Gives the link up: another one takes its place.
    pub(super) fn close(self) {
        Close::Done.apply(self.connection.quic());
    }
}

/// A connection of which no link has come yet. It falls with the ring already, and is closed where none comes of it.
struct Unlinked {
    connection: Connection,
    is_link: bool,
}

impl Unlinked {
    fn adopt(connection: Connection, health: &Health) -> Self {
        health.adopt(connection.quic());
        let is_link = false;
        Self {
            connection,
            is_link,
        }
    }

    fn linked(mut self) -> Connection {
        self.is_link = true;
        self.connection.clone()
    }
}

impl Drop for Unlinked {
    fn drop(&mut self) {
        if !self.is_link {
            Close::Done.apply(self.connection.quic());
        }
    }
}

/// When a neighbour was last heard. Anything that comes from it counts: also data that nobody has read yet, behind which pings wait
/// where a slow path's queue is long.
#[derive(Clone)]
pub(super) struct Heard {
    start: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Heard {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            last_ms: Arc::default(),
        }
    }

    /// The neighbour was heard just now.
    pub(super) fn now(&self) {
        let ms = self.start.elapsed().as_millis() as u64;
        self.last_ms.fetch_max(ms, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}

/// Pings a neighbour and watches its silence.
struct Watch {
    connection: Connection,
    pings: Pings,
    /// The neighbour's.
    rank: usize,
    heard: Heard,
}

enum Heartbeat {
    Ping,
    /// The neighbour ended its pings: it is leaving, or the connection is gone.
    Ended,
    /// The timer fired: nothing came.
    Silence {
        deadline: Instant,
    },
}

impl Watch {
    /// Begins to ping and to listen, on this thread.
    fn start(
        connection: Connection,
        pings: Pings,
        rank: usize,
        health: &Arc<Health>,
    ) -> (Heard, JoinSet<()>) {
        let heard = Heard::new();
        let watch = Self {
            connection,
            pings,
            rank,
            heard: heard.clone(),
        };
        let mut watching = JoinSet::new();
        watching.spawn(watch.run(health.clone()));
        (heard, watching)
    }

    /// Runs until the connection is gone or the neighbour is given up.
    async fn run(self, health: Arc<Health>) {
        let Pings { send, mut receive } = self.pings;
        let quic = self.connection.quic();
        let verdict = tokio::select! {
            verdict = listen(&mut receive, &self.heard, self.rank, &health) => verdict,
            () = ping(send) => None,
            () = look(&self.connection, &self.heard) => None,
        };
        if let Some(error) = verdict {
            health.fail(error);
            return;
        }
        // A neighbour that ends its pings without closing the connection is none.
        let limit = Duration::from_millis(EVICT_MS);
        let error = match tokio::time::timeout(limit, quic.closed()).await {
            Ok(closed) => health.place().lost(self.rank, &closed),
            Err(_) => health.place().broken(self.rank, "it stopped its pings"),
        };
        // Who leaves a closed ring in good order has sent everything before: reads tell, once that is used up.
        if !matches!(error, RingError::Left { .. }) || health.is_joining() {
            health.fail(error);
        }
    }
}

async fn ping(mut stream: SendStream) {
    let mut tick = tokio::time::interval(Duration::from_millis(PING_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if stream.write_all(&[0]).await.is_err() {
            return;
        }
    }
}

/// Looks whether data comes that nobody reads, for ever. Only while pings are overdue: else these say it all.
async fn look(connection: &Connection, heard: &Heard) {
    let overdue = Duration::from_millis(PING_MS) + LOOK;
    let mut before = None;
    loop {
        let until = heard.last() + overdue;
        if Instant::now() < until {
            before = None;
            tokio::time::sleep_until(until).await;
            continue;
        }
        // QUIC counts what comes, and wakes nobody for it. Acknowledgements do not count here: they come from who has nothing to
        // say, too.
        let now = connection.quic().stats().frame_rx.stream;
        if before.is_some_and(|before| before < now) {
            heard.now();
        }
        before = Some(now);
        tokio::time::sleep(LOOK).await;
    }
}

/// Listens until the pings end, or there is an error to report.
async fn listen(
    pings: &mut RecvStream,
    heard: &Heard,
    rank: usize,
    health: &Health,
) -> Option<RingError> {
    let (suspect, evict) = (
        Duration::from_millis(SUSPECT_MS),
        Duration::from_millis(EVICT_MS),
    );
    let mut patience = suspect;
    loop {
        match next_heartbeat(pings, heard.last() + patience).await {
            Heartbeat::Ping => {
                heard.now();
                patience = suspect;
            }
            Heartbeat::Ended => return None,
            Heartbeat::Silence { deadline } if deadline.elapsed() > HELD_UP => {
                // This process slept, and the neighbour's pings may lie unread: look again.
                patience = heard.last().elapsed() + suspect;
            }
            Heartbeat::Silence { .. } if heard.last().elapsed() < patience => {}
            Heartbeat::Silence { .. } if patience < evict => {
                tracing::warn!(
                    rank,
                    silent_ms = SUSPECT_MS,
                    "a neighbour in the ring is silent"
                );
                patience = evict;
            }
            Heartbeat::Silence { .. } => {
                let ms = heard.last().elapsed().as_millis() as u64;
                return Some(health.place().silent(rank, ms));
            }
        }
    }
}

async fn next_heartbeat(pings: &mut RecvStream, deadline: Instant) -> Heartbeat {
    let mut buffer = [0; 64];
    match tokio::time::timeout_at(deadline, pings.read(&mut buffer)).await {
        Ok(Ok(Some(_))) => Heartbeat::Ping,
        Ok(_) => Heartbeat::Ended,
        Err(_) => Heartbeat::Silence { deadline },
    }
}
