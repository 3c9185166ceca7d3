//! The ring: the miners of a group sum gradients with their neighbours, over the protocol `cryptomind-ring/1`.
//!
//! Each rank dials those that it sends to: the next one where sums go around, all others where they go direct. After the
//! hello exchange the dialler opens a one-way stream for data, whose first frame is a
//! [`Link`](cryptomind_protocol::ring::Link), and one for pings; the acceptor answers with a ping stream of its own,
//! which is its yes. Collectives follow [`cryptomind_core::ring`]: sending and receiving run at the same
//! time, and every frame says its place, so that whatever is not expected is [`RingError::OutOfStep`] and never a
//! wrong sum.
//!
//! States: a [`RingSocket`] listens for as long as it lives and joins one ring at a time; a [`Ring`] works until its first
//! error, and every call after that fails at once with the same error. Both live on a thread of their own, which ends with
//! them; their calls may come from any runtime, and from threads without one.
//!
//! Liveness: each link is pinged both ways every 250 ms, from its making on. A neighbour that says nothing for
//! 1.5 s ends the ring, also in the middle of a read or write, and while other links are still to be made. Who has not called
//! yet may be fetching data: its absence says nothing before the join's own limit. Who finds a fault closes all its links with
//! the culprit's rank, and its neighbours pass it on: all members name the same one, or nobody.
//!
//! What it is not: it picks no members, starts no attempt, and does not know what the values mean.
//!
//! Close codes of ring links: 0x10000 + rank, that rank has left in good order; 0x20000 + rank, that rank is to blame;
//! 0x30000 + rank, that rank found that a sum overflows; 0x40000 + rank, that rank gave the ring up and can name nobody.

mod blocks;
mod collective;
mod door;
mod driver;
mod error;
mod follow;
mod health;
mod home;
mod link;
mod member;
pub(crate) mod profile;
mod talk;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::frame::{ALPN_FOLLOW, ALPN_MEMBER, ALPN_RING};
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::succession::Word;
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeAddress, NodeId, SecretKey, TaskId};
use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;

pub use collective::Buffer;
pub use driver::COLLECTIVE_LIMIT;
pub use error::RingError;
pub use follow::{Follower, Following, GivenUp, Guide, Passed};
pub use member::{Ring, Sent, Summing};
pub use profile::Profile;

use crate::close::Close;
use crate::endpoint::Endpoint;
use crate::limits::Limits;
use door::Door;
use driver::Driver;
use error::Place;
use health::Health;
use home::Home;
use link::{Next, Previous};
use talk::{Mouth, Said};

/// After a dial that failed for now, the next one follows this much later.
const REDIAL: Duration = Duration::from_millis(100);
/// Before a process ends, others are told for this long at most: longer than leaving a ring takes.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);
/// Ranks fit the close codes.
const MAX_WORLD: usize = 0x1_0000;

/// A place in a ring, as the match gives it.
#[derive(Debug, Clone)]
pub struct RingPlan {
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: u32,
    /// This node's rank.
    pub rank: u32,
    /// The members by rank; this node at `rank`.
    pub members: Vec<NodeId>,
    /// `host:port` of their ring sockets by rank.
    pub addresses: Vec<String>,
    /// The coarsest format that sums will travel in, the same for all members: it says who dials whom.
    pub wire: Wire,
    /// How packets travel to those that this node dials; by where they are, where nothing is said.
    pub profile: Option<Profile>,
    /// Time for the whole ring to close.
    pub limit: Duration,
}

impl RingPlan {
    /// How many ranks ahead the farthest is that this node sends to.
    fn farthest(&self) -> usize {
        self.wire.farthest(self.members.len())
    }
}

/// A UDP socket on which a ring's neighbours arrive, and the words of its members. It serves one attempt after another;
/// dropping it leaves rings that were joined as they are.
pub struct RingSocket {
    socket: Arc<Socket>,
    home: Home,
    mouth: Mouth,
    words: mpsc::Receiver<Said>,
    followers: mpsc::Receiver<Follower>,
    listening: JoinHandle<()>,
}

/// What comes to a ring socket beside its rings.
pub enum Heard {
    /// A member's word.
    Word(NodeId, Word),
    /// A newcomer that wants this member's state.
    Follower(Follower),
}

/// What joining a ring takes.
struct Socket {
    endpoint: Endpoint,
    key: SecretKey,
    network: GenesisHash,
    door: Door,
}

impl RingSocket {
    /// Binds the socket and listens, as the node with `key`. Port 0 is an ephemeral one.
    ///
    /// # Errors
    /// `cannot_bind`; `internal` where no certificate can be made, or no thread.
    pub fn bind(addr: SocketAddr, key: SecretKey, network: GenesisHash) -> Result<Self, ErrorBody> {
        let limits = Limits {
            max_connections: 256,
            max_per_address: 64,
            max_per_loopback: 256,
            max_streams: 0,
            ..Limits::default()
        };
        let own = key.clone();
        let alpns = &[ALPN_RING, ALPN_MEMBER, ALPN_FOLLOW];
        let home = Home::start(move || Endpoint::serve(addr, own, network, alpns, limits))?;
        let (ear, mouth, words) = talk::new();
        let (hall, followers) = follow::new();
        let (door, endpoint) = (Door::new(ear, hall), home.endpoint().clone());
        let listening = home.handle().spawn(door.clone().listen(endpoint.clone()));
        let socket = Socket {
            endpoint,
            key,
            network,
            door,
        };
        Ok(Self {
            socket: Arc::new(socket),
            home,
            mouth,
            words,
            followers,
            listening,
        })
    }

    /// Listens to these nodes' words from now on, and to those that were named before.
    pub fn know(&self, members: impl IntoIterator<Item = NodeAddress>) {
        self.mouth.know(members);
    }

    /// Tells a node that was named to [`RingSocket::know`]. Words are lost where it is not there, or where it does not take them
    /// fast enough: whoever wants an answer says it again.
    pub fn tell(&self, to: NodeId, word: Word) {
        self.mouth.tell(to, word, (&self.home, &self.socket.key));
    }

    /// What a node says or wants next that was named. Dropping the future loses nothing.
    pub async fn hear(&mut self) -> Heard {
        tokio::select! {
            Some((from, word)) = self.words.recv() => Heard::Word(from, word),
            Some(follower) = self.followers.recv() => Heard::Follower(follower),
            // The door has gone, with the socket.
            else => std::future::pending().await,
        }
    }

    /// What following others takes.
    pub fn guide(&self) -> Guide {
        self.mouth.guide(self.home.clone(), self.socket.key.clone())
    }

    /// Waits until all that it has to tell others has left, for a second at most: before a process ends.
    pub async fn farewell(&self) {
        let endpoint = self.socket.endpoint.clone();
        let idle = async move { endpoint.idle(FAREWELL_LIMIT).await };
        // Fails where the thread is gone, and with it whatever there was to tell.
        let _ = self.home.handle().spawn(idle).await;
    }

    /// Where the socket is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.socket.endpoint.local_addr()
    }

    /// Stops its thread in the middle of everything, for ever.
    #[cfg(test)]
    pub(crate) fn freeze(&self) {
        self.home.handle().spawn(async {
            loop {
                std::thread::park();
            }
        });
    }

    /// Links with all neighbours and returns when the whole ring is closed, or after `plan.limit` with an error. A
    /// ring of one is closed at once. Joining again, for the next attempt, makes the last attempt's late diallers
    /// strangers. Dropping the future gives it up.
    ///
    /// # Errors
    /// [`RingError::Plan`] where the plan makes no sense, [`RingError::Timeout`] where somebody did not come in time, and
    /// what a collective may end with.
    pub fn join(
        &self,
        plan: RingPlan,
    ) -> impl Future<Output = Result<Ring, RingError>> + Send + use<> {
        let (socket, home) = (self.socket.clone(), self.home.clone());
        async move {
            let mut joining = JoinSet::new();
            joining.spawn_on(socket.join(plan, home.clone()), home.handle());
            match joining.join_next().await {
                Some(Ok(joined)) => joined,
                _ => Err(RingError::Ended),
            }
        }
    }
}

impl Drop for RingSocket {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Socket {
    async fn join(self: Arc<Self>, plan: RingPlan, home: Home) -> Result<Ring, RingError> {
        let deadline = Instant::now() + plan.limit;
        let place = Place::of(&plan, NodeId::of_key(&self.key.public()))?;
        if place.world() == 1 {
            return Ok(Ring::alone());
        }
        let addresses = addresses_ahead(&plan, &place)?;
        let health = Health::new(place);
        let linking = async {
            tokio::try_join!(
                self.reach_all(&plan, &addresses, &health, deadline),
                self.await_all(&plan, &health, deadline)
            )
        };
        // Who has a link already is watched, and who has none may still be on its way.
        let links = tokio::select! {
            links = linking => links,
            error = health.failed() => Err(error),
        };
        let (next, previous) = links.map_err(|error| health.fail(error))?;
        health.is_linked();
        let mut driver = Driver::new(health.clone(), plan.attempt, next, previous);
        match tokio::time::timeout_at(deadline, driver.barrier()).await {
            Ok(closed) => closed.map(|()| Ring::start(home, health, driver)),
            Err(_) => Err(health.fail(late("the ring did not close", &plan, None))),
        }
    }

    /// Dials all ranks that this one sends to, the nearest first in the answer.
    async fn reach_all(
        &self,
        plan: &RingPlan,
        to: &[NodeAddress],
        health: &Arc<Health>,
        deadline: Instant,
    ) -> Result<Vec<Next>, RingError> {
        let reaching = (1..)
            .zip(to)
            .map(|(distance, to)| self.reach(plan, (distance, to), health, deadline));
        try_join_all(reaching).await
    }

    /// Dials a rank until it says yes.
    async fn reach(
        &self,
        plan: &RingPlan,
        (distance, to): (usize, &NodeAddress),
        health: &Arc<Health>,
        deadline: Instant,
    ) -> Result<Next, RingError> {
        let rank = health.place().ahead(distance);
        let dialling = async {
            loop {
                let dialled = self.dial(plan, (rank, to), health).await;
                match dialled {
                    Ok(link) => return Ok(link),
                    // It is past this ring, which is no fault of its own.
                    Err(error) if error.code == Close::Stranger.error().code => {
                        return Err(health.place().left(rank));
                    }
                    Err(error) if error.class == cryptomind_protocol::ErrorClass::Auth => {
                        return Err(health.place().broken(rank, error.message));
                    }
                    Err(error) => tracing::debug!(%error, rank, "a rank is not there yet"),
                }
                tokio::time::sleep(REDIAL).await;
            }
        };
        let what = format!("rank {rank} did not take the link");
        let mut dialling = pin!(dialling);
        let reached = tokio::time::timeout_at(deadline, &mut dialling).await;
        let reached = reached.unwrap_or_else(|_| Err(late(&what, plan, Some(to.node))));
        // Told before a link that is not made yet is closed for nothing.
        reached.map_err(|error| health.fail(error))
    }

    async fn dial(
        &self,
        plan: &RingPlan,
        (rank, to): (usize, &NodeAddress),
        health: &Arc<Health>,
    ) -> Result<Next, ErrorBody> {
        let dialled = self
            .endpoint
            .dial_by(to, ALPN_RING, &self.key, plan.profile);
        let connection = dialled.await?;
        if connection.network() != self.network {
            return Err(ErrorBody::auth(
                "wrong_network",
                "it belongs to another network",
            ));
        }
        Next::introduce(connection, plan, rank, health).await
    }

    /// Waits until all ranks have arrived that send to this one, the nearest first in the answer.
    async fn await_all(
        &self,
        plan: &RingPlan,
        health: &Arc<Health>,
        deadline: Instant,
    ) -> Result<Vec<Previous>, RingError> {
        let place = health.place();
        let mut arrivals = self.door.expect(plan, place);
        let mut welcomes = JoinSet::new();
        let mut newest: BTreeMap<usize, (u64, AbortHandle)> = BTreeMap::new();
        let mut here: BTreeMap<usize, Previous> = BTreeMap::new();
        let missing = |here: &BTreeMap<usize, Previous>| {
            (1..=plan.farthest()).find(|distance| !here.contains_key(distance))
        };
        while let Some(next) = missing(&here) {
            tokio::select! {
                // The door keeps its end until the next attempt is expected, which takes this socket's join.
                arrival = arrivals.recv() => {
                    let arrival = arrival.ok_or_else(|| RingError::Plan {
                        reason: "another attempt was joined on this socket".into(),
                    })?;
                    let distance = place.distance_behind(arrival.link.rank as usize);
                    let (health, number) = (health.clone(), arrival.number);
                    let is_newer = newest.get(&distance).is_none_or(|(newest, _)| *newest < number);
                    // A first link stands; without that one the ring would fall.
                    if here.contains_key(&distance) || !is_newer {
                        arrival.refuse(Close::Busy);
                        continue;
                    }
                    let welcome = welcomes.spawn(async move {
                        (distance, Previous::welcome(arrival, &health).await)
                    });
                    // Who dials again has given its last link up.
                    if let Some((_, before)) = newest.insert(distance, (number, welcome)) {
                        before.abort();
                    }
                }
                Some(welcomed) = welcomes.join_next(), if !welcomes.is_empty() => {
                    match welcomed {
                        Ok((distance, Ok(link))) => {
                            here.insert(distance, link).into_iter().for_each(Previous::close);
                        }
                        Ok((_, Err(error))) => tracing::debug!(%error, "a rank broke off; it will dial again"),
                        // Another one took its place.
                        Err(_) => {}
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    let rank = place.behind(next);
                    let what = format!("rank {rank} did not dial");
                    let error = late(&what, plan, Some(place.node(rank)));
                    return Err(health.fail(error));
                }
            }
        }
        Ok(here.into_values().collect())
    }
}

fn late(what: &str, plan: &RingPlan, suspect: Option<NodeId>) -> RingError {
    RingError::Timeout {
        what: what.into(),
        ms: plan.limit.as_millis() as u64,
        suspect,
    }
}

fn addresses_ahead(plan: &RingPlan, place: &Place) -> Result<Vec<NodeAddress>, RingError> {
    let address = |distance| {
        let rank = place.ahead(distance);
        let (node, text) = (place.node(rank), &plan.addresses[rank]);
        let parsed = format!("cm://{node}@{text}").parse();
        parsed.map_err(|_| RingError::Plan {
            reason: format!("`{text}` is no host:port of a ring socket"),
        })
    };
    (1..=plan.farthest()).map(address).collect()
}
