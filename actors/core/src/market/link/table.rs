//! The links as they count at one moment: both ends' reports merged, gaps estimated.
//!
//! Taken from [`Links`] and kept for as long as the matchmaker finds it new enough: a match looks links up by the
//! thousand. Rows hold what is known of a pair; every other pair is as the estimate says.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_protocol::Timestamp;

use super::{Links, Party, Side, is_proved};

/// Where in a sorted population of pairs the worse quartile lies.
const QUARTILE: usize = 4;

/// A link as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Round trip, microseconds.
    pub rtt_us: u64,
    /// Throughput in either direction, bytes a second.
    pub bytes_per_s: u64,
    /// Whether a part of it was not reported by both ends.
    pub estimated: bool,
}

impl Link {
    /// How long `bytes` take from one end to the other, milliseconds: half a round trip and the bytes.
    pub fn transfer_ms(&self, bytes: f64) -> f64 {
        bytes * 1e3 / self.bytes_per_s as f64 + self.rtt_us as f64 / 2e3
    }
}

/// All links at one moment.
#[derive(Debug, Clone, Default)]
pub struct LinkTable {
    index: BTreeMap<Party, u32>,
    rows: Vec<Vec<(u32, Link)>>,
    estimate: Option<Link>,
    /// The same of a pair with a client.
    client_estimate: Option<Link>,
}

/// What pairs are compared with: those of their own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nodes in one local network.
    Lan,
    /// Other nodes.
    Wan,
    /// An end of it is a client.
    Client,
}

/// What one end says of a link, as far as it is not expired.
#[derive(Debug, Clone, Copy)]
struct Word {
    rtt_us: Option<u64>,
    bytes_per_s: Option<u64>,
}

/// What both ends of a pair say, the two sides of each value.
#[derive(Debug, Clone, Copy)]
struct Said {
    pair: (u32, u32),
    rtt_us: [Option<u64>; 2],
    bytes_per_s: [Option<u64>; 2],
    kind: Kind,
}

/// The worse quartile of what both ends reported, over the pairs of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Quartile {
    rtt_us: Option<u64>,
    bytes_per_s: Option<u64>,
}

impl LinkTable {
    pub(super) fn of(links: &Links, now: Timestamp) -> Self {
        let index = numbered(links);
        let said = said(links, &index, now);
        let of_kind = |kind| Quartile::of(&said, move |said| said.kind == kind);
        let [lan, wan, client] = [Kind::Lan, Kind::Wan, Kind::Client].map(of_kind);
        let nodes = Quartile::of(&said, |said| said.kind != Kind::Client);
        let mut table = Self {
            rows: vec![Vec::new(); index.len()],
            index,
            estimate: wan.or(nodes).link(),
            client_estimate: client.or(wan).or(nodes).link(),
        };
        for said in said {
            let quartile = match said.kind {
                Kind::Lan => lan.or(wan),
                Kind::Wan => wan,
                Kind::Client => client.or(wan),
            };
            if let Some(link) = said.merged(quartile) {
                let (a, b) = said.pair;
                table.rows[a as usize].push((b, link));
                table.rows[b as usize].push((a, link));
            }
        }
        for row in &mut table.rows {
            row.sort_unstable_by_key(|(peer, _)| *peer);
        }
        table
    }

    /// A party's number in this table, where anything is known of its links.
    pub(in crate::market) fn number(&self, party: Party) -> Option<u32> {
        self.index.get(&party).copied()
    }

    /// How many parties have numbers.
    pub(in crate::market) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What is known of a party's links, by the peers' numbers, which ascend.
    pub(in crate::market) fn row(&self, number: u32) -> &[(u32, Link)] {
        &self.rows[number as usize]
    }

    /// What is taken of a pair of nodes of which nothing is known. Nothing as long as no pair is known at all.
    pub const fn estimate(&self) -> Option<Link> {
        self.estimate
    }

    /// The link between two parties: as known, or else as estimated.
    pub fn link(&self, a: Party, b: Party) -> Option<Link> {
        let is_client = |party| matches!(party, Party::Client(_));
        let estimate = if is_client(a) || is_client(b) {
            self.client_estimate
        } else {
            self.estimate
        };
        self.known(a, b).or(estimate)
    }

    /// The link between two parties where anything is known of it.
    pub(super) fn known(&self, a: Party, b: Party) -> Option<Link> {
        let row = self.row(self.number(a)?);
        let b = self.number(b)?;
        let at = row.binary_search_by_key(&b, |(peer, _)| *peer).ok()?;
        Some(row[at].1)
    }
}

/// Every party of which anything is known, with numbers that ascend with the party.
fn numbered(links: &Links) -> BTreeMap<Party, u32> {
    let reporters = links.sides.keys().copied();
    let peers = links.sides.values().flat_map(|peers| peers.keys()).copied();
    // Nearly all peers report too: those few that do not are found before anything is sorted.
    let silent = peers.filter(|peer| !links.sides.contains_key(peer));
    let proved = links.proofs().flat_map(|(a, b, _)| [a, b]);
    let proved = proved.filter(|party| !links.sides.contains_key(party));
    let all: BTreeSet<Party> = reporters.chain(silent).chain(proved).collect();
    all.into_iter().zip(0..).collect()
}

/// What both ends say of each pair, or was proved of it.
fn said(links: &Links, index: &BTreeMap<Party, u32>, now: Timestamp) -> Vec<Said> {
    let mut words = words(links, index, now);
    let mut all = Vec::new();
    let lan = links.proofs().filter(|(_, _, at)| is_proved(*at, now));
    for (a, b) in lan.map(|(a, b, _)| (index[&a], index[&b])) {
        let ends = [take(&mut words, a, b), take(&mut words, b, a)];
        all.push(Said::of((a, b), ends, Kind::Lan));
    }
    // Numbers ascend with the party, and clients come after all nodes.
    let nodes = index.keys().filter(|party| matches!(party, Party::Node(_)));
    let nodes = nodes.count() as u32;
    let kind = |a: u32, b: u32| match a.max(b) < nodes {
        true => Kind::Wan,
        false => Kind::Client,
    };
    for a in 0..words.len() as u32 {
        for (b, word) in std::mem::take(&mut words[a as usize]) {
            if let Some(word) = word {
                let ends = [Some(word), take(&mut words, b, a)];
                all.push(Said::of((a, b), ends, kind(a, b)));
            }
        }
    }
    all
}

/// What each party says of each peer, by number; the peers ascend.
fn words(
    links: &Links,
    index: &BTreeMap<Party, u32>,
    now: Timestamp,
) -> Vec<Vec<(u32, Option<Word>)>> {
    let mut words = vec![Vec::new(); index.len()];
    for (from, peers) in &links.sides {
        let fresh = peers.iter().filter(|(_, side)| !side.is_expired(now));
        let word = |(to, side): (&Party, &Side)| (index[to], Some(Word::of(side, now)));
        words[index[from] as usize] = fresh.map(word).collect();
    }
    words
}

/// Takes what a party says of a peer, so that it is heard once.
fn take(words: &mut [Vec<(u32, Option<Word>)>], from: u32, to: u32) -> Option<Word> {
    let said = &mut words[from as usize];
    let at = said.binary_search_by_key(&to, |(peer, _)| *peer).ok()?;
    said[at].1.take()
}

impl Word {
    fn of(side: &Side, now: Timestamp) -> Self {
        Self {
            rtt_us: side.rtt_us(now),
            bytes_per_s: side.bytes_per_s(now),
        }
    }
}

/// The worse of two, where both ends reported.
fn both(ends: [Option<u64>; 2], worse: fn(u64, u64) -> u64) -> Option<u64> {
    Some(worse(ends[0]?, ends[1]?))
}

/// What counts of two reports: their worse; or a single one, as far as it is no better than `quartile`; or that.
fn counts(
    ends: [Option<u64>; 2],
    worse: fn(u64, u64) -> u64,
    quartile: Option<u64>,
) -> Option<u64> {
    both(ends, worse).or_else(|| {
        let single = ends[0].or(ends[1]);
        quartile.map(|quartile| single.map_or(quartile, |value| worse(value, quartile)))
    })
}

impl Said {
    fn of(pair: (u32, u32), ends: [Option<Word>; 2], kind: Kind) -> Self {
        Self {
            pair,
            rtt_us: ends.map(|word| word?.rtt_us),
            bytes_per_s: ends.map(|word| word?.bytes_per_s),
            kind,
        }
    }

    fn merged(&self, quartile: Quartile) -> Option<Link> {
        let two_sided = both(self.rtt_us, u64::max).and(both(self.bytes_per_s, u64::min));
        Some(Link {
            rtt_us: counts(self.rtt_us, u64::max, quartile.rtt_us)?,
            bytes_per_s: counts(self.bytes_per_s, u64::min, quartile.bytes_per_s)?,
            estimated: two_sided.is_none(),
        })
    }
}

impl Quartile {
    fn of(said: &[Said], belongs: impl Fn(&Said) -> bool) -> Self {
        let pairs = || said.iter().filter(|said| belongs(said));
        let rtts = pairs().filter_map(|said| both(said.rtt_us, u64::max));
        let throughputs = pairs().filter_map(|said| both(said.bytes_per_s, u64::min));
        Self {
            rtt_us: worse_quartile(rtts.map(std::cmp::Reverse).collect()).map(|r| r.0),
            bytes_per_s: worse_quartile(throughputs.collect()),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            rtt_us: self.rtt_us.or(other.rtt_us),
            bytes_per_s: self.bytes_per_s.or(other.bytes_per_s),
        }
    }

    fn link(self) -> Option<Link> {
        Some(Link {
            rtt_us: self.rtt_us?,
            bytes_per_s: self.bytes_per_s?,
            estimated: true,
        })
    }
}

/// The value that a quarter of all values are no better than; of values that ascend from bad to good.
fn worse_quartile<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    let at = values.len().checked_sub(1)? / QUARTILE;
    Some(*values.select_nth_unstable(at).1)
}
