//! The links as they count at one moment: both ends' reports merged, gaps estimated.
//!
//! Taken from [`Links`] and kept for as long as the matchmaker finds it new enough: a match looks links up by the
//! thousand. Rows hold what is known of a pair; every other pair is as the estimate says.

use std::collections::BTreeMap;

use cryptomind_protocol::Timestamp;

use super::{Links, Party, pair};

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
}

/// What both ends of a pair say, the two sides of each value.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    rtt_us: [Option<u64>; 2],
    bytes_per_s: [Option<u64>; 2],
    in_lan: bool,
}

/// The worse quartile of what both ends reported, over the pairs of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Quartile {
    rtt_us: Option<u64>,
    bytes_per_s: Option<u64>,
}

impl LinkTable {
    pub(super) fn of(links: &Links, now: Timestamp) -> Self {
        let said = said(links, now);
        let [lan, wan] = [true, false].map(|lan| Quartile::of(&said, |s| s.in_lan == lan));
        let mut table = Self {
            estimate: wan.or(Quartile::of(&said, |_| true)).link(),
            ..Self::default()
        };
        for ((a, b), said) in said {
            let quartile = if said.in_lan { lan.or(wan) } else { wan };
            if let Some(link) = said.merged(quartile) {
                table.insert(a, b, link);
            }
        }
        for row in &mut table.rows {
            row.sort_unstable_by_key(|(peer, _)| *peer);
        }
        table
    }

    fn insert(&mut self, a: Party, b: Party, link: Link) {
        let (a, b) = (self.enter(a), self.enter(b));
        self.rows[a as usize].push((b, link));
        self.rows[b as usize].push((a, link));
    }

    fn enter(&mut self, party: Party) -> u32 {
        let next = self.rows.len() as u32;
        let number = *self.index.entry(party).or_insert(next);
        if number == next {
            self.rows.push(Vec::new());
        }
        number
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

    /// What is taken of a pair of which nothing is known. Nothing as long as no pair is known at all.
    pub const fn estimate(&self) -> Option<Link> {
        self.estimate
    }

    /// The link between two parties: as known, or else as estimated.
    pub fn link(&self, a: Party, b: Party) -> Option<Link> {
        self.known(a, b).or(self.estimate)
    }

    /// The link between two parties where anything is known of it.
    pub(super) fn known(&self, a: Party, b: Party) -> Option<Link> {
        let row = self.row(self.number(a)?);
        let b = self.number(b)?;
        let at = row.binary_search_by_key(&b, |(peer, _)| *peer).ok()?;
        Some(row[at].1)
    }
}

/// What both ends say of each pair, by pair.
fn said(links: &Links, now: Timestamp) -> BTreeMap<(Party, Party), Said> {
    let mut all = BTreeMap::<_, Said>::new();
    for (from, peers) in &links.sides {
        for (to, side) in peers {
            if side.is_expired(now) {
                continue;
            }
            let said = all.entry(pair(*from, *to)).or_default();
            let end = usize::from(from > to);
            said.rtt_us[end] = side.rtt_us(now);
            said.bytes_per_s[end] = side.bytes_per_s(now);
        }
    }
    for (a, b) in links.lan.keys().filter(|(a, b)| links.in_lan(*a, *b, now)) {
        all.entry((*a, *b)).or_default().in_lan = true;
    }
    all
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
    fn of(said: &BTreeMap<(Party, Party), Said>, belongs: impl Fn(&Said) -> bool) -> Self {
        let pairs = || said.values().filter(|said| belongs(said));
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
