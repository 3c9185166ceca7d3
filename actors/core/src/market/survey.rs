//! The survey: who measures whom, and when.
//!
//! **Owned by** the coordinator's surveyor, which sends the orders and hears the reports. Every miner that lets others
//! measure has rounds: its [neighbours](Place::is_near), the peers that it knows to be near, and a few by chance, so that
//! near ones are found. A pair is always measured from both ends, as one end's word counts for little.
//!
//! Round trips are measured in every round. Bytes cost lines, so a pair moves them rarely, a node for one pair at
//! a time, and for far peers a few times in [`BULK_PAUSE_MS`]. First the one end of a pair has its turn, then the other: the
//! next begins with the report of the last, or when its time is over. Then both rest for as long as it took, so that a line
//! is used for half of the time at most, and peers that wait come next: a small network is known within a minute.
//!
//! A nonce proves a local network: only whom it was given to, and whom that one reached, know it. It is the hash of a
//! secret, the pair and the time, so nothing has to be kept. The proof holds where both the address that was dialled and
//! the address that was seen are private, and both ends are known by their keys.
//!
//! **Invariants**: nobody is told an address of a network that it does not seem to be in; orders a node a call are
//! bounded; what is kept is bounded by the members and the time.
//!
//! **Is not**: what the figures mean ([`link`](super::link)).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::probe::{Echo, MAX_BULK_BYTES};
use cryptomind_protocol::{NodeId, Timestamp};

use super::link::{Links, Party};
use crate::dice::Dice;

mod place;
mod pool;

pub use place::Place;
use pool::Pool;

/// From one round of a node to the next, milliseconds, on average: a report outlives two.
pub const ROUND_MS: u64 = 120_000;
/// A node's first round comes within this, milliseconds.
const FIRST_ROUND_MS: u64 = 4_000;
/// Neighbours in one round.
const MAX_NEIGHBOURS: usize = 16;
/// Near peers in one round.
const NEAREST: usize = 8;
/// Peers by chance in one round.
const BY_CHANCE: usize = 8;
/// Peers that one node is told of in one call.
const MAX_ORDERS: usize = 64;
/// Rounds in one call.
const MAX_ROUNDS: usize = 256;
/// A pair moves bytes again after this, milliseconds.
pub const BULK_PAUSE_MS: u64 = 1_800_000;
/// The same where none came of it; longer than a peer refuses a second time.
const BULK_RETRY_MS: u64 = 60_000;
/// How often a node moves bytes with peers that are no neighbours, in [`BULK_PAUSE_MS`].
const MAX_FAR_BULKS: usize = 16;
/// What one end of a pair gets to move bytes, milliseconds; then it is the other's turn.
const BULK_TURN_MS: u64 = 8_000;
/// Bytes each way between peers that are no neighbours.
const FAR_BULK_BYTES: u64 = 1024 * 1024;
/// A nonce counts in the period of this many milliseconds that it was given in, and in the next one.
const NONCE_PERIOD_MS: u64 = 120_000;

/// A miner that lets others measure.
#[derive(Debug, Clone)]
struct Member {
    place: Place,
    /// When its next round is due.
    due: Timestamp,
    /// The last pair of which it is an end that moved bytes, or does.
    exchange: Option<Exchange>,
    /// Peers of its last round that it should still move bytes with, the likeliest to work with first.
    waiting: Vec<NodeId>,
    /// When it began to move bytes with peers that are no neighbours, lately.
    far_bulks: Vec<Timestamp>,
}

/// A pair that moves bytes, as one end sees it.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    peer: NodeId,
    /// Whether the peer has the first turn.
    is_second: bool,
    began: Timestamp,
    /// Until both turns are over, and the rest after them.
    until: Timestamp,
}

/// All that is known of who measures whom.
#[derive(Debug)]
pub struct Survey {
    secret: [u8; 32],
    members: BTreeMap<NodeId, Member>,
    /// All of them, to draw from; and by the network that they seem to be in.
    all: Pool,
    networks: BTreeMap<IpAddr, Pool>,
    /// When a pair, the lesser node first, may move bytes again.
    bulks: BTreeMap<(NodeId, NodeId), Timestamp>,
    /// The second end's turn to move bytes, by who and whom: when, at the latest.
    turns: BTreeMap<(NodeId, NodeId), Timestamp>,
}

/// Whom to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Who answers there.
    pub node: NodeId,
    /// Its probe port, for the node that gets this.
    pub address: SocketAddr,
    /// To greet with.
    pub nonce: Nonce,
    /// How many bytes to move each way; 0 is to measure the round trip alone.
    pub bulk_bytes: u64,
}

/// Orders by who gets them.
pub type Orders = BTreeMap<NodeId, Vec<Order>>;

/// What a call looks at.
struct Look<'a> {
    links: &'a Links,
    is_free: &'a dyn Fn(&NodeId) -> bool,
    now: Timestamp,
}

fn pair(a: NodeId, b: NodeId) -> (NodeId, NodeId) {
    (a.min(b), a.max(b))
}

impl Survey {
    /// Nobody yet. The secret must be nobody else's: who knows it can forge proofs.
    pub fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            members: BTreeMap::new(),
            all: Pool::default(),
            networks: BTreeMap::new(),
            bulks: BTreeMap::new(),
            turns: BTreeMap::new(),
        }
    }

    /// A miner joined, or joined again from elsewhere.
    pub fn enter(&mut self, node: NodeId, place: Place, dice: &mut Dice, now: Timestamp) {
        let member = Member {
            place,
            due: now.plus_ms(dice.below(FIRST_ROUND_MS)),
            exchange: None,
            waiting: Vec::new(),
            far_bulks: Vec::new(),
        };
        self.leave(&node);
        self.members.insert(node, member);
        self.all.enter(node);
        self.networks
            .entry(place.network())
            .or_default()
            .enter(node);
    }

    /// It is gone.
    pub fn leave(&mut self, node: &NodeId) {
        let Some(member) = self.members.remove(node) else {
            return;
        };
        self.all.leave(node);
        let network = member.place.network();
        if let Some(pool) = self.networks.get_mut(&network) {
            pool.leave(node);
            if pool.is_empty() {
                self.networks.remove(&network);
            }
        }
    }

    /// Whether this node is measured.
    pub fn has(&self, node: &NodeId) -> bool {
        self.members.contains_key(node)
    }

    /// `from` says how fast bytes went to and from `to`: enough for a while, and the next turn may begin.
    pub fn moved(&mut self, from: NodeId, to: NodeId, now: Timestamp) {
        self.bulks
            .insert(pair(from, to), now.plus_ms(BULK_PAUSE_MS));
        if let Some(at) = self.turns.get_mut(&(to, from)) {
            *at = now;
            return;
        }
        let exchange = self.members.get(&from).and_then(|member| member.exchange);
        // The first end's word does not end the second's turn.
        if exchange.is_none_or(|exchange| !exchange.is_second || exchange.peer != to) {
            return;
        }
        for (node, peer) in [(from, to), (to, from)] {
            if let Some(member) = self.members.get_mut(&node) {
                member.rests(peer, now);
            }
        }
    }

    /// The orders that are due. Nodes that are not `is_free` are left alone, and their rounds wait.
    pub fn orders(
        &mut self,
        links: &Links,
        is_free: &dyn Fn(&NodeId) -> bool,
        dice: &mut Dice,
        now: Timestamp,
    ) -> Orders {
        let look = Look {
            links,
            is_free,
            now,
        };
        let mut orders = Orders::new();
        self.bulks.retain(|_, again| *again > now);
        self.take_turns(&look, &mut orders);
        self.go_on(&look, &mut orders);
        let due = self.members.iter().filter(|(_, member)| member.due <= now);
        let due = due.map(|(node, _)| *node).filter(|node| is_free(node));
        let due: Vec<NodeId> = due.take(MAX_ROUNDS).collect();
        for node in due {
            self.round(node, &look, dice, &mut orders);
        }
        orders
    }

    /// The second ends of pairs that move bytes.
    fn take_turns(&mut self, look: &Look<'_>, orders: &mut Orders) {
        let due = self
            .turns
            .extract_if(.., |_, at| *at <= look.now)
            .map(|(turn, _)| turn);
        for (node, peer) in due.collect::<Vec<_>>() {
            if self.are_free(node, peer, look) {
                self.order(node, peer, true, look.now, orders);
            }
        }
    }

    /// Those whose line is free again, with peers that wait.
    fn go_on(&mut self, look: &Look<'_>, orders: &mut Orders) {
        let waits = |member: &Member| !member.waiting.is_empty() && !member.moves(look.now);
        let ready = self.members.iter().filter(|(_, member)| waits(member));
        let ready: Vec<NodeId> = ready.map(|(node, _)| *node).collect();
        for node in ready {
            let waiting = self.waiting_of(&node);
            let peers = waiting.into_iter();
            let left = peers.filter(|peer| self.measure(node, *peer, true, look, orders));
            let left = left.collect();
            if let Some(member) = self.members.get_mut(&node) {
                member.waiting = left;
            }
        }
    }

    fn waiting_of(&mut self, node: &NodeId) -> Vec<NodeId> {
        let member = self.members.get_mut(node);
        member.map_or_else(Vec::new, |member| std::mem::take(&mut member.waiting))
    }

    fn are_free(&self, a: NodeId, b: NodeId, look: &Look<'_>) -> bool {
        let is_there = |node| self.has(node) && (look.is_free)(node);
        is_there(&a) && is_there(&b)
    }

    fn round(&mut self, node: NodeId, look: &Look<'_>, dice: &mut Dice, orders: &mut Orders) {
        let mut waiting = self.peers(node, look, dice);
        waiting.retain(|peer| self.measure(node, *peer, false, look, orders));
        if let Some(member) = self.members.get_mut(&node) {
            member.waiting = waiting;
            // Within a quarter of the pause around it: rounds of many nodes spread by themselves.
            let jittered = ROUND_MS - ROUND_MS / 4 + dice.below(ROUND_MS / 2);
            member.due = look.now.plus_ms(jittered);
        }
    }

    /// Has a pair measured from both ends; where it `waited`, only if it moves bytes now. Whether it should move bytes later.
    fn measure(
        &mut self,
        node: NodeId,
        peer: NodeId,
        waited: bool,
        look: &Look<'_>,
        orders: &mut Orders,
    ) -> bool {
        if waited && !self.are_free(node, peer, look) {
            return true;
        }
        let bulk = self.bulk(node, peer, look.now);
        if !waited || bulk == Bulk::Now {
            self.order(node, peer, bulk == Bulk::Now, look.now, orders);
            self.order(peer, node, false, look.now, orders);
        }
        bulk == Bulk::Later
    }

    /// Whom a node measures in a round: those first that it is likeliest to work with.
    fn peers(&self, node: NodeId, look: &Look<'_>, dice: &mut Dice) -> Vec<NodeId> {
        let Some(own) = self.members.get(&node) else {
            return Vec::new();
        };
        let near = self.networks.get(&own.place.network());
        let near = near.map(|pool| pool.some_but(node, MAX_NEIGHBOURS, dice));
        let chance = self.all.some_but(node, BY_CHANCE, dice);
        let nearest = look.links.nearest(Party::Node(node), NEAREST, look.now);
        let nearest = nearest.into_iter().filter_map(|party| match party {
            Party::Node(node) => Some(node),
            Party::Client(_) => None,
        });
        let mut seen = BTreeSet::new();
        let all = near.into_iter().flatten().chain(nearest).chain(chance);
        let new = all.filter(|peer| seen.insert(*peer));
        new.filter(|peer| self.are_free(node, *peer, look))
            .collect()
    }

    /// Whether a pair moves bytes now, and notes it where it does.
    fn bulk(&mut self, a: NodeId, b: NodeId, now: Timestamp) -> Bulk {
        if self.bulks.contains_key(&pair(a, b)) {
            return Bulk::No;
        }
        let both = [self.members.get(&a), self.members.get(&b)];
        let [Some(one), Some(other)] = both else {
            return Bulk::No;
        };
        let is_far = !one.place.is_near(&other.place);
        if is_far
            && [one, other]
                .iter()
                .any(|m| m.far_bulks(now) >= MAX_FAR_BULKS)
        {
            return Bulk::No;
        }
        if [one, other].iter().any(|member| member.moves(now)) {
            return Bulk::Later;
        }
        for (node, peer, is_second) in [(a, b, false), (b, a, true)] {
            let exchange = Exchange {
                peer,
                is_second,
                began: now,
                until: now.plus_ms(2 * BULK_TURN_MS),
            };
            if let Some(member) = self.members.get_mut(&node) {
                member.begins(exchange, is_far);
            }
        }
        self.bulks.insert(pair(a, b), now.plus_ms(BULK_RETRY_MS));
        self.turns.insert((b, a), now.plus_ms(BULK_TURN_MS));
        Bulk::Now
    }

    /// Tells `node` to measure `peer`.
    fn order(&self, node: NodeId, peer: NodeId, bulk: bool, now: Timestamp, orders: &mut Orders) {
        let both = [self.members.get(&node), self.members.get(&peer)];
        let [Some(own), Some(other)] = both else {
            return;
        };
        let list = orders.entry(node).or_default();
        if list.len() >= MAX_ORDERS || list.iter().any(|known| known.node == peer) {
            return;
        }
        let bulk_bytes = match bulk {
            false => 0,
            true if own.place.is_near(&other.place) => MAX_BULK_BYTES,
            true => FAR_BULK_BYTES,
        };
        list.push(Order {
            node: peer,
            address: own.place.address_of(&other.place),
            nonce: self.nonce(node, peer, now.as_ms() / NONCE_PERIOD_MS),
            bulk_bytes,
        });
    }

    /// What `from` greets `to` with, in this period.
    fn nonce(&self, from: NodeId, to: NodeId, period: u64) -> Nonce {
        let mut bytes = b"cryptomind/probe-nonce/1".to_vec();
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(from.as_bytes());
        bytes.extend_from_slice(to.as_bytes());
        bytes.extend_from_slice(&period.to_be_bytes());
        let hash = Hash::of(&bytes);
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&hash.as_bytes()[..16]);
        Nonce::new(nonce)
    }

    /// Whether this echo, said by the node `by`, proves that it and the node that greeted it are in one local network.
    pub fn proves_lan(&self, by: NodeId, echo: &Echo, now: Timestamp) -> bool {
        let both = [self.members.get(&echo.from), self.members.get(&by)];
        let [Some(caller), Some(called)] = both else {
            return false;
        };
        let period = now.as_ms() / NONCE_PERIOD_MS;
        let given = [period, period.saturating_sub(1)].map(|p| self.nonce(echo.from, by, p));
        let Ok(seen) = echo.address.parse::<SocketAddr>() else {
            return false;
        };
        let dialled = caller.place.address_of(&called.place);
        given.contains(&echo.nonce) && [seen, dialled].iter().all(|a| place::is_private(a.ip()))
    }
}

/// What a pair does about bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bulk {
    /// It moves them.
    Now,
    /// It should, but an end moves others.
    Later,
    /// It has, or it may not.
    No,
}

impl Member {
    /// How often it moved bytes with peers that are no neighbours, lately.
    fn far_bulks(&self, now: Timestamp) -> usize {
        let is_late = |at: &&Timestamp| now.ms_since(**at) < BULK_PAUSE_MS;
        self.far_bulks.iter().filter(is_late).count()
    }

    /// Whether it moves bytes, or rests from it.
    fn moves(&self, now: Timestamp) -> bool {
        self.exchange.is_some_and(|exchange| exchange.until > now)
    }

    fn begins(&mut self, exchange: Exchange, is_far: bool) {
        let now = exchange.began;
        self.exchange = Some(exchange);
        self.far_bulks
            .retain(|at| now.ms_since(*at) < BULK_PAUSE_MS);
        if is_far {
            self.far_bulks.push(now);
        }
    }

    /// What it moved with this peer is over.
    fn rests(&mut self, peer: NodeId, now: Timestamp) {
        if let Some(exchange) = &mut self.exchange
            && exchange.peer == peer
            && exchange.until > now
        {
            // What was over before the longest time needs no rest beyond it.
            exchange.until = now
                .plus_ms(now.ms_since(exchange.began))
                .min(exchange.until);
        }
    }
}

#[cfg(test)]
mod tests;
