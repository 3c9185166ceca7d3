//! The ring: the miners of a group sum gradients with their neighbours, over the protocol `cryptomind-ring/1`.
//!
//! Rank r dials rank r+1. After the hello exchange the dialler opens a one-way stream for data, whose first frame
//! is a [`Link`](cryptomind_protocol::ring::Link), and one for pings; the acceptor answers with a ping stream of its own,
//! which is its yes. Collectives follow [`cryptomind_core::ring`]: of each hop, sending and receiving run at the same
//! time, and every frame says its place, so that whatever is not expected is [`RingError::OutOfStep`] and never a
//! wrong sum.
//!
//! States: a [`RingSocket`] listens for as long as it lives and joins one ring at a time; a [`Ring`] works until its first
//! error, and every call after that fails at once with the same error.
//!
//! Liveness: each link is pinged both ways every 250 ms by tasks of their own. A neighbour that says nothing for
//! 1.5 s ends the ring, also in the middle of a read or write. Who finds a fault closes both links with the
//! culprit's rank, and its neighbours pass it on: all members name the same one.
//!
//! Pings are answered on the runtime's threads: whoever computes does so on a thread of its own, or its neighbours
//! take it for dead.
//!
//! What it is not: it picks no members, starts no attempt, and does not know what the values mean.
//!
//! Close codes of ring links: 0x10000 + rank, that rank has left in good order; 0x20000 + rank, that rank is to blame.

mod collective;
mod door;
mod error;
mod fold;
mod health;
mod link;

use std::net::SocketAddr;
use std::time::Duration;

use cryptomind_protocol::frame::ALPN_RING;
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeAddress, NodeId, SecretKey, TaskId};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use collective::{COLLECTIVE_LIMIT, Ring};
pub use error::RingError;

use crate::endpoint::Endpoint;
use crate::limits::Limits;
use door::Door;
use error::Place;
use health::Health;
use link::{Next, Previous};

/// After a dial that failed for now, the next one follows this much later.
const REDIAL: Duration = Duration::from_millis(100);
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
    /// Time for the whole ring to close.
    pub limit: Duration,
}

/// A UDP socket on which a ring's neighbour arrives. It serves one attempt after another; dropping it leaves rings
/// that were joined as they are.
pub struct RingSocket {
    endpoint: Endpoint,
    key: SecretKey,
    network: GenesisHash,
    door: Door,
    listening: JoinHandle<()>,
}

impl RingSocket {
    /// Binds the socket and listens, as the node with `key`. Port 0 is an ephemeral one.
    ///
    /// # Errors
    /// `cannot_bind`; `internal` where no certificate can be made.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(addr: SocketAddr, key: SecretKey, network: GenesisHash) -> Result<Self, ErrorBody> {
        let limits = Limits {
            max_connections: 64,
            max_per_address: 16,
            max_per_loopback: 64,
            max_streams: 0,
            ..Limits::default()
        };
        let endpoint = Endpoint::serve(addr, key.clone(), network, &[ALPN_RING], limits)?;
        let door = Door::new();
        let listening = tokio::spawn(door.clone().listen(endpoint.clone()));
        Ok(Self {
            endpoint,
            key,
            network,
            door,
            listening,
        })
    }

    /// Where the socket is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// Links with both neighbours and returns when the whole ring is closed, or after `plan.limit` with an error. A
    /// ring of one is closed at once. Joining again, for the next attempt, makes the last attempt's late diallers
    /// strangers.
    ///
    /// # Errors
    /// [`RingError::Plan`] where the plan makes no sense, [`RingError::Timeout`] where somebody did not come in time, and
    /// what a collective may end with.
    pub async fn join(&self, plan: RingPlan) -> Result<Ring, RingError> {
        let deadline = Instant::now() + plan.limit;
        let place = Place::of(&plan, NodeId::of_key(&self.key.public()))?;
        if place.world() == 1 {
            return Ok(Ring::alone());
        }
        let next = next_address(&plan, &place)?;
        let health = Health::new(place);
        let links = tokio::try_join!(
            self.reach_next(&plan, &next, &health, deadline),
            self.await_previous(&plan, &health, deadline)
        );
        let (next, previous) = links.map_err(|error| health.fail(error))?;
        let mut ring = Ring::new(self.endpoint.clone(), health.clone(), next, previous);
        match tokio::time::timeout_at(deadline, ring.barrier()).await {
            Ok(closed) => closed.map(|()| ring),
            Err(_) => Err(health.fail(late("the ring did not close", &plan, None))),
        }
    }

    /// Dials the next rank until it says yes.
    async fn reach_next(
        &self,
        plan: &RingPlan,
        to: &NodeAddress,
        health: &Health,
        deadline: Instant,
    ) -> Result<Next, RingError> {
        let dialling = async {
            loop {
                let dialled = self.dial(plan, to, health).await;
                match dialled {
                    Ok(link) => return Ok(link),
                    Err(error) if error.class == cryptomind_protocol::ErrorClass::Auth => {
                        return Err(health.place().broken(health.place().next(), error.message));
                    }
                    Err(error) => tracing::debug!(%error, "the next rank is not there yet"),
                }
                tokio::time::sleep(REDIAL).await;
            }
        };
        tokio::time::timeout_at(deadline, dialling)
            .await
            .unwrap_or_else(|_| {
                Err(late(
                    "the next rank did not take the link",
                    plan,
                    Some(to.node),
                ))
            })
    }

    async fn dial(
        &self,
        plan: &RingPlan,
        to: &NodeAddress,
        health: &Health,
    ) -> Result<Next, ErrorBody> {
        let connection = self.endpoint.dial(to, ALPN_RING, &self.key).await?;
        if connection.network() != self.network {
            return Err(ErrorBody::auth(
                "wrong_network",
                "it belongs to another network",
            ));
        }
        let link = Next::introduce(connection, plan).await?;
        health.adopt(link.quic());
        Ok(link)
    }

    /// Waits until the rank before arrives.
    async fn await_previous(
        &self,
        plan: &RingPlan,
        health: &Health,
        deadline: Instant,
    ) -> Result<Previous, RingError> {
        let from = health.place().node(health.place().previous());
        let mut arrivals = self.door.expect(plan, health.place());
        let waiting = async {
            // The door keeps its end until the next attempt is expected, which takes this socket's join.
            while let Some(arrival) = arrivals.recv().await {
                match Previous::welcome(arrival).await {
                    Ok(link) => {
                        health.adopt(link.quic());
                        return Ok(link);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the rank before broke off; it will dial again")
                    }
                }
            }
            Err(RingError::Plan {
                reason: "another attempt was joined on this socket".into(),
            })
        };
        tokio::time::timeout_at(deadline, waiting)
            .await
            .unwrap_or_else(|_| Err(late("the rank before did not dial", plan, Some(from))))
    }
}

impl Drop for RingSocket {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn late(what: &str, plan: &RingPlan, suspect: Option<NodeId>) -> RingError {
    RingError::Timeout {
        what: what.into(),
        ms: plan.limit.as_millis() as u64,
        suspect,
    }
}

fn next_address(plan: &RingPlan, place: &Place) -> Result<NodeAddress, RingError> {
    let node = place.node(place.next());
    let text = &plan.addresses[place.next()];
    format!("cm://{node}@{text}")
        .parse()
        .map_err(|_| RingError::Plan {
            reason: format!("`{text}` is no host:port of a ring socket"),
        })
}
