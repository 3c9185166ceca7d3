//! The ring's schedule: which segment a rank sends and receives at which hop of a collective.
//!
//! The miners of a group sum their gradients, each of which is cut into as many segments as there are ranks; rank s
//! ends up owning the sum of segment s before all others get it. Two ways lead there, and both send 2(N−1)/N of the
//! values a rank, which is the least that any can (Patarasuk and Yuan, 2009):
//!
//! - *in a ring*: rank r sends to rank r+1 alone, first N−1 hops that add (reduce-scatter), then N−1 that copy
//!   (all-gather);
//! - *direct*: every rank sends each segment to its owner at once, and the owner the sum to everybody. A value is
//!   rounded twice on its way, however many ranks there are, so this is the way of coarse wire formats.
//!
//! The crate `cryptomind-net` carries it out; this module holds no values and no sockets.
//!
//! Invariants: a segment folds in ring order from the rank after its number, which ends at that number:
//! segment s is ((x[s+1] + x[s+2]) + …) + x[s]. So the order of every sum depends on ranks alone, never on
//! timing, and all ranks end with the same bits. At each hop, whom a rank sends to expects just that at the same
//! hop, so nobody waits in a circle, whatever the links hold.

use std::ops::Range;

/// What is done with a received segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Add it to what was collected of others; more of the same segment follows.
    Collect,
    /// Add it to what was collected of others, if anything was, and one's own values to that.
    Reduce,
    /// Take it in place of one's own values.
    Gather,
}

/// One hop of one rank: sending and receiving happen at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// How many ranks ahead the receiver is, and behind the sender: 1 in a ring.
    pub distance: usize,
    /// Segment that goes to the rank ahead.
    pub send: usize,
    /// Segment that comes from the rank behind.
    pub receive: usize,
    /// What is done with it.
    pub kind: Kind,
    /// The hop that gives what is sent: each of its values may go as soon as it was received there. Nothing where
    /// it is one's own.
    pub after: Option<usize>,
}

/// All hops of one rank in one collective.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// In their order.
    pub hops: Vec<Hop>,
    /// Which values are in which segment.
    pub segments: Vec<Range<usize>>,
}

impl Schedule {
    /// The sum of `len` values in a ring.
    ///
    /// # Panics
    /// Where `rank` is not below `world`.
    pub fn ring(rank: usize, world: usize, len: usize) -> Self {
        let back = |steps: usize| (rank + 2 * world - steps) % world;
        let hop = |number: usize| {
            // Of either half, the first hop sends what the one before it ended with.
            let kind = match number < world - 1 {
                true => Kind::Reduce,
                false => Kind::Gather,
            };
            Hop {
                distance: 1,
                send: back(number + 1),
                receive: back(number + 2),
                kind,
                after: number.checked_sub(1),
            }
        };
        Self::of(rank, world, len, (0..hops(world)).map(hop))
    }

    /// The sum of `len` values by direct ways.
    ///
    /// # Panics
    /// Where `rank` is not below `world`.
    pub fn direct(rank: usize, world: usize, len: usize) -> Self {
        let last = world.saturating_sub(2);
        let reduce = (1..world).rev().map(|distance| Hop {
            distance,
            send: (rank + distance) % world,
            receive: rank,
            kind: match distance {
                1 => Kind::Reduce,
                _ => Kind::Collect,
            },
            after: None,
        });
        let gather = (1..world).map(|distance| Hop {
            distance,
            send: rank,
            receive: (rank + world - distance) % world,
            kind: Kind::Gather,
            after: Some(last),
        });
        Self::of(rank, world, len, reduce.chain(gather))
    }

    /// A barrier: N−1 hops without values, each sent when the one before has come. The first that comes says that
    /// the rank before has entered, the second that the one before it has, and so on around the ring.
    ///
    /// # Panics
    /// Where `rank` is not below `world`.
    pub fn barrier(rank: usize, world: usize) -> Self {
        let mut schedule = Self::ring(rank, world, 0);
        schedule.hops.truncate(world - 1);
        schedule
    }

    fn of(rank: usize, world: usize, len: usize, hops: impl Iterator<Item = Hop>) -> Self {
        assert!(rank < world, "rank {rank} in a ring of {world}");
        Self {
            hops: hops.collect(),
            segments: segments(len, world),
        }
    }

    /// How many values the rank sends in all.
    pub fn sent_values(&self) -> usize {
        self.hops
            .iter()
            .map(|hop| self.segments[hop.send].len())
            .sum()
    }
}

/// Cuts `len` values into `world` adjoining segments whose lengths differ by at most one, longer ones first.
/// Some are empty where there are fewer values than ranks.
///
/// # Panics
/// Where `world` is zero.
pub fn segments(len: usize, world: usize) -> Vec<Range<usize>> {
    assert!(world > 0, "a ring has at least one rank");
    let (short, longer) = (len / world, len % world);
    let start = |segment: usize| segment * short + segment.min(longer);
    (0..world).map(|s| start(s)..start(s + 1)).collect()
}

/// How many hops an all-reduce takes: 2(N−1).
///
/// # Panics
/// Where `world` is zero.
pub const fn hops(world: usize) -> usize {
    assert!(world > 0, "a ring has at least one rank");
    2 * (world - 1)
}

#[cfg(test)]
mod tests;
