//! The ring's schedule: which segment a rank sends and receives at which hop of an all-reduce.
//!
//! The miners of a group sum their gradients in a ring (Patarasuk and Yuan, 2009): rank r sends to rank
//! r+1 and receives from rank r−1, first N−1 hops that add (reduce-scatter), then N−1 that copy
//! (all-gather). The crate `cryptomind-net` carries it out; this module holds no values and no sockets.
//!
//! Invariants: a segment folds in ring order from the rank after its number, which ends at that number:
//! segment s is ((x[s+1] + x[s+2]) + …) + x[s]. So the order of every sum depends on ranks alone, never on
//! timing, and all ranks end with the same bits.

use std::ops::Range;

/// What is done with a received segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Add it to one's own values.
    Reduce,
    /// Take it in place of one's own values.
    Gather,
}

/// One hop of one rank: sending and receiving happen at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// Segment that goes to the next rank.
    pub send: usize,
    /// Segment that comes from the rank before.
    pub receive: usize,
    /// What is done with it.
    pub kind: Kind,
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

/// What `rank` does at hop number `hop`, which is below [`hops`].
///
/// # Panics
/// Where `rank` or `hop` is out of range.
pub fn hop(rank: usize, world: usize, hop: usize) -> Hop {
    assert!(rank < world, "rank {rank} in a ring of {world}");
    assert!(hop < hops(world), "hop {hop} in a ring of {world}");
    let back = |steps: usize| (rank + 2 * world - steps) % world;
    if hop < world - 1 {
        Hop {
            send: back(hop + 1),
            receive: back(hop + 2),
            kind: Kind::Reduce,
        }
    } else {
        let gathered = hop + 1 - world;
        Hop {
            send: back(gathered),
            receive: back(gathered + 1),
            kind: Kind::Gather,
        }
    }
}

#[cfg(test)]
mod tests;
