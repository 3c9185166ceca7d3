//! What is known of the links between parties: round trip and throughput, reported by the parties themselves.
//!
//! Owned by the matchmaker, which feeds it reports and takes a [`LinkTable`] of it to match by. Miners measure each
//! other over the network's own connections, and each end reports what it saw. A party profits from looking close and
//! fast, so nobody is believed alone:
//!
//! - where both ends reported, the *worse* value counts;
//! - where one did, its value counts as far as it is no better than the worse quartile of all pairs that both ends
//!   reported: flattering oneself gains nothing over saying nothing;
//! - a pair that nobody reported is taken to be as good as that quartile, and marked as estimated.
//!
//! Pairs that proved to be in one local network are a population of their own: an unmeasured pair in a local network
//! is as good as the worse quartile of *its* kind. So are pairs with a client: what lines people have at home says nothing of
//! nodes, and nobody can spoil what is thought of nodes by posing as many clients.
//!
//! A side's value is a moving average with weight 1/5 for the newest (Petals weighs its pings so: Borzunov et al.,
//! 2023). It expires; what is expired counts as never said. All in integers: tables are the same everywhere.
//!
//! Is not: how anything is measured (the nodes), nor what a link is worth to a task
//! ([`expectation`](super::expectation)).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cryptomind_protocol::{AccountId, NodeId, Timestamp};

mod pair;
mod table;

pub use pair::Pair;
pub use table::{Link, LinkTable};

/// A round trip is believed for so long.
pub const RTT_EXPIRY_MS: u64 = 300_000;
/// A throughput is believed for so long.
pub const THROUGHPUT_EXPIRY_MS: u64 = 3_600_000;
/// A proof that two parties are in one local network is believed for so long.
pub const LAN_EXPIRY_MS: u64 = 3_600_000;
/// Who is farther apart than this, microseconds, is in no local network, whatever the addresses: tunnels join private
/// networks over continents.
pub const MAX_LAN_RTT_US: u64 = 10_000;
/// Peers that are kept a party; the one that was reported longest ago goes.
pub const MAX_PEERS: usize = 64;
/// The same of a hub, such as a storage node: many have a link to it.
pub const MAX_HUB_PEERS: usize = 16_384;
/// Clients whose own reports are kept; the one that reported longest ago goes.
pub const MAX_CLIENTS: usize = 4_096;
/// The longest round trip that counts, microseconds: longer ones are reported as this.
pub const MAX_RTT_US: u64 = 60_000_000;
/// The highest throughput that counts, bytes a second: 8 Tbit/s.
pub const MAX_BYTES_PER_S: u64 = 1_000_000_000_000;

/// One over the weight of the newest value in a moving average.
const EWMA_PARTS: u64 = 5;

/// An end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Party {
    /// A miner or a storage node.
    Node(NodeId),
    /// A client, wherever it is.
    Client(AccountId),
}

/// What one end of a link measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Round trip, microseconds.
    pub rtt_us: u64,
    /// Throughput, bytes a second, where it was measured.
    pub bytes_per_s: Option<u64>,
}

/// A moving average and when it was last fed.
#[derive(Debug, Clone, Copy)]
struct Average {
    value: u64,
    at: Timestamp,
}

impl Average {
    /// Feeds `value`; an average that is expired begins anew.
    fn feed(known: Option<Self>, value: u64, expiry_ms: u64, now: Timestamp) -> Self {
        let old = fresh(known, expiry_ms, now).unwrap_or(value);
        Self {
            value: (old * (EWMA_PARTS - 1) + value) / EWMA_PARTS,
            at: now,
        }
    }
}

fn fresh(known: Option<Average>, expiry_ms: u64, now: Timestamp) -> Option<u64> {
    known
        .filter(|average| now.ms_since(average.at) <= expiry_ms)
        .map(|average| average.value)
}

/// What one end says of a link.
#[derive(Debug, Clone, Copy)]
struct Side {
    rtt: Average,
    throughput: Option<Average>,
}

impl Side {
    fn rtt_us(&self, now: Timestamp) -> Option<u64> {
        fresh(Some(self.rtt), RTT_EXPIRY_MS, now)
    }

    fn bytes_per_s(&self, now: Timestamp) -> Option<u64> {
        fresh(self.throughput, THROUGHPUT_EXPIRY_MS, now)
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.rtt_us(now).is_none() && self.bytes_per_s(now).is_none()
    }
}

/// All reports on links. A clone shares what each party said until that party speaks again: so a table can be made of
/// many thousands while more is reported.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// By who reported, then on the link to whom.
    sides: BTreeMap<Party, Arc<BTreeMap<Party, Side>>>,
    /// Parties that many have links to.
    hubs: BTreeSet<Party>,
    /// Pairs in one local network, by the lesser party, then the greater, and when that was proved.
    lan: BTreeMap<Party, BTreeMap<Party, Timestamp>>,
}

fn pair(a: Party, b: Party) -> (Party, Party) {
    (a.min(b), a.max(b))
}

impl Links {
    /// Takes what `from` measured of its link to `to`. Values beyond all reason are cut to the limits; a report on
    /// oneself is ignored.
    pub fn report(&mut self, from: Party, to: Party, measure: Measure, now: Timestamp) {
        if from == to {
            return;
        }
        self.make_room(&from);
        let most = if self.hubs.contains(&from) {
            MAX_HUB_PEERS
        } else {
            MAX_PEERS
        };
        let peers = Arc::make_mut(self.sides.entry(from).or_default());
        let known = peers.get(&to).copied();
        if known.is_none() && peers.len() >= most {
            drop_oldest(peers, |side| side.rtt.at);
        }
        let rtt = measure.rtt_us.clamp(1, MAX_RTT_US);
        let throughput = measure.bytes_per_s.map(|b| b.clamp(1, MAX_BYTES_PER_S));
        let before = known.and_then(|side| side.throughput);
        let side = Side {
            rtt: Average::feed(known.map(|side| side.rtt), rtt, RTT_EXPIRY_MS, now),
            throughput: throughput
                .map(|value| Average::feed(before, value, THROUGHPUT_EXPIRY_MS, now))
                .or(before),
        };
        peers.insert(to, side);
        if side.rtt.value > MAX_LAN_RTT_US {
            self.disprove_lan(from, to);
        }
    }

    /// Many have links to this party: what it says of more than [`MAX_PEERS`] of them counts.
    pub fn set_hub(&mut self, party: Party) {
        self.hubs.insert(party);
    }

    /// It is none any more. What it said counts until it expires.
    pub fn unset_hub(&mut self, party: &Party) {
        self.hubs.remove(party);
    }

    /// Lets go of the client that was silent for longest, where a new one comes and there are as many as may be.
    fn make_room(&mut self, from: &Party) {
        if !matches!(from, Party::Client(_)) || self.sides.contains_key(from) {
            return;
        }
        // Clients come after all nodes.
        let first = Party::Client(AccountId::new([0; 20]));
        let clients = || self.sides.range(first..);
        if clients().count() < MAX_CLIENTS {
            return;
        }
        let last_word =
            |peers: &BTreeMap<Party, Side>| peers.values().map(|side| side.rtt.at).max();
        let oldest = clients().min_by_key(|(client, peers)| (last_word(peers), **client));
        if let Some(client) = oldest.map(|(client, _)| *client) {
            self.sides.remove(&client);
        }
    }

    /// Takes it that two parties are in one local network. The caller has seen a nonce that it gave to one come back
    /// from the other over a private address: a claim alone proves nothing. Nor does that between two of which one has
    /// lately measured more than [`MAX_LAN_RTT_US`].
    pub fn prove_lan(&mut self, a: Party, b: Party, now: Timestamp) {
        if a == b || self.is_far(a, b, now) || self.is_far(b, a, now) {
            return;
        }
        let (lesser, greater) = pair(a, b);
        let peers = self.lan.entry(lesser).or_default();
        if !peers.contains_key(&greater) && peers.len() >= MAX_PEERS {
            drop_oldest(peers, |proved| *proved);
        }
        peers.insert(greater, now);
    }

    fn disprove_lan(&mut self, a: Party, b: Party) {
        let (lesser, greater) = pair(a, b);
        if let Some(peers) = self.lan.get_mut(&lesser) {
            peers.remove(&greater);
        }
    }

    fn is_far(&self, from: Party, to: Party, now: Timestamp) -> bool {
        let side = self.sides.get(&from).and_then(|peers| peers.get(&to));
        let rtt_us = side.and_then(|side| side.rtt_us(now));
        rtt_us.is_some_and(|rtt_us| rtt_us > MAX_LAN_RTT_US)
    }

    /// Forgets what is expired, so that parties that never come back take no room.
    pub fn forget_expired(&mut self, now: Timestamp) {
        self.sides.retain(|_, peers| {
            if peers.values().any(|side| side.is_expired(now)) {
                Arc::make_mut(peers).retain(|_, side| !side.is_expired(now));
            }
            !peers.is_empty()
        });
        self.lan.retain(|_, peers| {
            peers.retain(|_, proved| is_proved(*proved, now));
            !peers.is_empty()
        });
    }

    /// How many parties said anything.
    pub fn reporters(&self) -> usize {
        self.sides.len()
    }

    /// What counts at this moment, to match by.
    pub fn table(&self, now: Timestamp) -> LinkTable {
        LinkTable::of(self, now)
    }

    /// The pairs that were proved to be in one local network, expired or not.
    fn proofs(&self) -> impl Iterator<Item = (Party, Party, Timestamp)> + '_ {
        let all = self.lan.iter();
        all.flat_map(|(a, peers)| peers.iter().map(|(b, at)| (*a, *b, *at)))
    }
}

fn is_proved(at: Timestamp, now: Timestamp) -> bool {
    now.ms_since(at) <= LAN_EXPIRY_MS
}

fn drop_oldest<T>(peers: &mut BTreeMap<Party, T>, at: impl Fn(&T) -> Timestamp) {
    let oldest = peers.iter().min_by_key(|(peer, known)| (at(known), **peer));
    if let Some(peer) = oldest.map(|(peer, _)| *peer) {
        peers.remove(&peer);
    }
}

#[cfg(test)]
mod tests;
