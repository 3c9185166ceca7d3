//! The survey: who measures whom, and when.
//!
//! **Owned by** the coordinator's surveyor, which sends the orders and hears the reports. Every miner that lets others
//! measure has rounds: its [neighbours](Place::is_near), the peers that it knows to be near, and a few by chance, so that
//! near ones are found. A pair is always measured from both ends, as one end's word counts for little.
//!
//! Round trips are measured in every round. Bytes cost lines, so a pair moves them rarely, a node for one pair at
//! a time, and for far peers a few times in [`BULK_PAUSE_MS`]; what is left comes in quicker rounds.
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
use std::net::SocketAddr;

use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::probe::{Echo, MAX_BULK_BYTES, Peer};
use cryptomind_protocol::{NodeId, Timestamp};

use super::link::{Links, Party};
use crate::dice::Dice;

mod place;

pub use place::Place;

/// From one round of a node to the next, milliseconds, on average: a report outlives two.
pub const ROUND_MS: u64 = 120_000;
/// The same while a pair is left that should move bytes, milliseconds.
const QUICK_ROUND_MS: u64 = 15_000;
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
const BULK_RETRY_MS: u64 = 660_000;
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
    /// It moves bytes until then.
    moves_until: Timestamp,
    /// When it began to move bytes with peers that are no neighbours, lately.
    far_bulks: Vec<Timestamp>,
}

/// All that is known of who measures whom.
#[derive(Debug)]
pub struct Survey {
    secret: [u8; 32],
    members: BTreeMap<NodeId, Member>,
    /// When a pair, the lesser node first, may move bytes again.
    bulks: BTreeMap<(NodeId, NodeId), Timestamp>,
    /// The second end's turn to move bytes: when, who, whom.
    turns: BTreeSet<(Timestamp, NodeId, NodeId)>,
}

/// Orders by who gets them.
pub type Orders = BTreeMap<NodeId, Vec<Peer>>;

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
    pub const fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            members: BTreeMap::new(),
            bulks: BTreeMap::new(),
            turns: BTreeSet::new(),
        }
    }

    /// A miner joined, or joined again from elsewhere.
    pub fn enter(&mut self, node: NodeId, place: Place, dice: &mut Dice, now: Timestamp) {
        let member = Member {
            place,
            due: now.plus_ms(dice.below(FIRST_ROUND_MS)),
            moves_until: now,
            far_bulks: Vec::new(),
        };
        self.members.insert(node, member);
    }

    /// It is gone.
    pub fn leave(&mut self, node: &NodeId) {
        self.members.remove(node);
    }

    /// Whether this node is measured.
    pub fn has(&self, node: &NodeId) -> bool {
        self.members.contains_key(node)
    }

    /// A pair has moved bytes: enough for a while.
    pub fn moved(&mut self, a: NodeId, b: NodeId, now: Timestamp) {
        self.bulks.insert(pair(a, b), now.plus_ms(BULK_PAUSE_MS));
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
        while let Some(turn) = self.turns.first().copied() {
            let (at, node, peer) = turn;
            if at > look.now {
                return;
            }
            self.turns.remove(&turn);
            if self.are_free(node, peer, look) {
                self.order(node, peer, true, look.now, orders);
            }
        }
    }

    fn are_free(&self, a: NodeId, b: NodeId, look: &Look<'_>) -> bool {
        let is_there = |node| self.has(node) && (look.is_free)(node);
        is_there(&a) && is_there(&b)
    }

    fn round(&mut self, node: NodeId, look: &Look<'_>, dice: &mut Dice, orders: &mut Orders) {
        let mut waits = false;
        for peer in self.peers(node, look, dice) {
            match self.bulk(node, peer, look.now) {
                Bulk::Now => {
                    self.order(node, peer, true, look.now, orders);
                    self.order(peer, node, false, look.now, orders);
                }
                bulk => {
                    waits |= bulk == Bulk::Later;
                    self.order(node, peer, false, look.now, orders);
                    self.order(peer, node, false, look.now, orders);
                }
            }
        }
        let pause = if waits { QUICK_ROUND_MS } else { ROUND_MS };
        if let Some(member) = self.members.get_mut(&node) {
            // Within a quarter of the pause around it: rounds of many nodes spread by themselves.
            let jittered = pause - pause / 4 + dice.below(pause / 2);
            member.due = look.now.plus_ms(jittered);
        }
    }

    /// Whom a node measures in a round: those first that it is likeliest to work with.
    fn peers(&self, node: NodeId, look: &Look<'_>, dice: &mut Dice) -> Vec<NodeId> {
        let Some(own) = self.members.get(&node) else {
            return Vec::new();
        };
        let others = || self.members.iter().filter(|(other, _)| **other != node);
        let near = others().filter(|(_, member)| own.place.is_near(&member.place));
        let near: Vec<NodeId> = near.map(|(other, _)| *other).collect();
        let others: Vec<NodeId> = others().map(|(other, _)| *other).collect();
        let nearest = look.links.nearest(Party::Node(node), NEAREST, look.now);
        let nearest = nearest.into_iter().filter_map(|party| match party {
            Party::Node(node) => Some(node),
            Party::Client(_) => None,
        });
        let near = dice
            .some(MAX_NEIGHBOURS, near.len())
            .into_iter()
            .map(|at| near[at]);
        let chance = dice.some(BY_CHANCE, others.len());
        let chance = chance.into_iter().map(|at| others[at]);
        let mut seen = BTreeSet::new();
        let all = near.chain(nearest).chain(chance);
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
        if [one, other].iter().any(|member| member.moves_until > now) {
            return Bulk::Later;
        }
        for node in [a, b] {
            if let Some(member) = self.members.get_mut(&node) {
                member.moves(is_far, now);
            }
        }
        self.bulks.insert(pair(a, b), now.plus_ms(BULK_RETRY_MS));
        self.turns.insert((now.plus_ms(BULK_TURN_MS), b, a));
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
        list.push(Peer {
            node: peer,
            address: own.place.address_of(&other.place).to_string(),
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

    fn moves(&mut self, is_far: bool, now: Timestamp) {
        // Both ends' turns.
        self.moves_until = now.plus_ms(2 * BULK_TURN_MS);
        self.far_bulks
            .retain(|at| now.ms_since(*at) < BULK_PAUSE_MS);
        if is_far {
            self.far_bulks.push(now);
        }
    }
}

#[cfg(test)]
mod tests;
