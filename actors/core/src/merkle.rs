//! The Merkle tree of RFC 6962, §2.1, with BLAKE3: one hash that stands for a list of byte strings, and a
//! short path that proves one of them to be in it.
//!
//! A block's header names the roots of its entries and of their receipts; whoever holds a header that is
//! certified needs nothing else than a [`Path`] to believe that a payment happened. Nothing here knows
//! what the leaves mean.
//!
//! Invariants: a leaf is hashed behind a zero byte and a node behind a one, so no list has the root of
//! another, be it shorter, longer, or made of the other's inner hashes; the last of an odd row moves up as
//! it is, never beside a copy of itself (which gave Bitcoin CVE-2012-2459). The root of nothing is the hash
//! of nothing. A path is judged without allocation and without a panic, whatever its numbers are.
//!
//! It is not a tree that is kept: a block has its leaves at hand, and hashing them again costs less than
//! reading stored nodes would.

use cryptomind_protocol::key::Hash;
use serde::{Deserialize, Serialize};

/// Most hashes in a path: the depth of a tree of 2^64 leaves.
pub const MAX_PATH: usize = 64;

const LEAF: u8 = 0;
const NODE: u8 = 1;

/// The root over these leaves, in their order: `MTH` of RFC 6962.
pub fn root(leaves: impl IntoIterator<Item: AsRef<[u8]>>) -> Hash {
    let mut row = bottom(leaves);
    while row.len() > 1 {
        row = above(&row);
    }
    row.first().copied().unwrap_or_else(|| Hash::of(b""))
}

/// The path from the leaf at `index`, counted from 0, to the root over all these leaves: `PATH` of RFC 6962.
///
/// # Panics
/// Where `index` names none of the leaves.
pub fn path(leaves: impl IntoIterator<Item: AsRef<[u8]>>, index: u64) -> Path {
    let mut row = bottom(leaves);
    let mut at = usize::try_from(index).unwrap_or(usize::MAX);
    assert!(at < row.len(), "leaf {index} of {}", row.len());
    let mut path = Vec::new();
    while row.len() > 1 {
        path.extend(row.get(at ^ 1));
        row = above(&row);
        at /= 2;
    }
    Path(path)
}

/// The hashes that join one leaf with the root, from the leaf's neighbour upwards. In CBOR an array of byte
/// strings, at most [`MAX_PATH`]: 34 bytes for each doubling of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Hash>", try_from = "Vec<Hash>")]
pub struct Path(Vec<Hash>);

impl Path {
    /// Whether the list that has this root and `count` leaves has `leaf` at `index`: RFC 9162, §2.1.3.2.
    ///
    /// `count` must come from where `root` does. Counts for which the way up turns left and right alike
    /// give the same answer, so a path proves a leaf and its place, not how many leaves there are.
    pub fn leads(&self, root: &Hash, leaf: &[u8], index: u64, count: u64) -> bool {
        if index >= count {
            return false;
        }
        let mut way = Way {
            at: index,
            last: count - 1,
            hash: hash_leaf(leaf),
        };
        self.0.iter().all(|beside| way.climb(beside)) && way.last == 0 && way.hash == *root
    }
}

/// A node on the way from a leaf to the root.
struct Way {
    /// Its number in its row.
    at: u64,
    /// The number of the row's last node.
    last: u64,
    hash: Hash,
}

impl Way {
    /// Joins the node with the one beside it. False where it is the root already.
    fn climb(&mut self, beside: &Hash) -> bool {
        if self.last == 0 {
            return false;
        }
        self.skip_lonely_rows();
        self.hash = match self.at % 2 {
            0 => hash_node(&self.hash, beside),
            _ => hash_node(beside, &self.hash),
        };
        self.up();
        true
    }

    /// The last of an odd row has nothing beside it and is the same node one row higher. Only the root has
    /// no row above, and it was turned away before.
    fn skip_lonely_rows(&mut self) {
        while self.at == self.last && self.at.is_multiple_of(2) {
            self.up();
        }
    }

    fn up(&mut self) {
        self.at /= 2;
        self.last /= 2;
    }
}

/// A path that no tree can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a Merkle path of {hashes} hashes: no tree needs more than {MAX_PATH}")]
pub struct PathTooLong {
    /// How many it has.
    pub hashes: usize,
}

impl TryFrom<Vec<Hash>> for Path {
    type Error = PathTooLong;

    fn try_from(hashes: Vec<Hash>) -> Result<Self, PathTooLong> {
        match hashes.len() {
            0..=MAX_PATH => Ok(Self(hashes)),
            hashes => Err(PathTooLong { hashes }),
        }
    }
}

impl From<Path> for Vec<Hash> {
    fn from(path: Path) -> Self {
        path.0
    }
}

fn bottom(leaves: impl IntoIterator<Item: AsRef<[u8]>>) -> Vec<Hash> {
    leaves.into_iter().map(|l| hash_leaf(l.as_ref())).collect()
}

/// The row above a row. Joining neighbours from the left gives the RFC's split at the largest power of two.
fn above(row: &[Hash]) -> Vec<Hash> {
    let join = |pair: &[Hash]| match pair {
        [left, right] => hash_node(left, right),
        lonely => lonely[0],
    };
    row.chunks(2).map(join).collect()
}

fn hash_leaf(leaf: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[LEAF]).update(leaf);
    Hash::new(*hasher.finalize().as_bytes())
}

fn hash_node(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [NODE; 65];
    bytes[1..33].copy_from_slice(left.as_bytes());
    bytes[33..].copy_from_slice(right.as_bytes());
    Hash::of(&bytes)
}

#[cfg(test)]
mod tests;
