//! The hash of a whole state, kept up to date record by record.
//!
//! A block's header carries it, so that two executors which differ know at which block. It is LtHash16
//! (Lewi, Kim, Maykov, Weis, "Securing Update Propagation with Homomorphic Hashing", 2019): each record is
//! stretched to 1,024 numbers of 16 bits, and the state's hash is their sum, lane by lane, modulo 2^16. So
//! adding or removing a record costs the same however large the state is, in any order, and executors
//! that hold the same records have the same hash. Finding two sets with one sum is as hard as a lattice
//! problem (short integer solution) at 200 bits of security, by the paper's estimate for these parameters.
//!
//! Invariants, which are the caller's to keep: a record is in the sum once at most (2^16 times the same one
//! is nothing), and removed is exactly what was added, value and all. A slip shows as another hash than
//! that of a recomputation over the stored records.
//!
//! It proves nothing about one record alone: what is proven offline is proven by [`crate::merkle`].

use std::fmt;

use cryptomind_protocol::key::Hash;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteArray;

/// Bytes of a stored [`StateHash`].
pub const BYTES: usize = 2 * LANES;

const LANES: usize = 1024;
const RECORD_CONTEXT: &str = "cryptomind/state/1";
const DIGEST_CONTEXT: &str = "cryptomind/state-hash/1";

/// The sum over all records of a state. The default is that of a state without records. For serde it is a
/// string of [`BYTES`] bytes, each lane little-endian.
#[derive(Clone, PartialEq, Eq)]
pub struct StateHash(Box<[u16; LANES]>);

impl StateHash {
    /// Counts the record in that `table` holds at `key`.
    pub fn add(&mut self, table: &str, key: &[u8], value: &[u8]) {
        self.each_lane(&stretch(table, key, value), u16::wrapping_add);
    }

    /// Counts out a record that was added before, with the value it had then.
    pub fn remove(&mut self, table: &str, key: &[u8], value: &[u8]) {
        self.each_lane(&stretch(table, key, value), u16::wrapping_sub);
    }

    /// The 32 bytes that a header names.
    pub fn digest(&self) -> Hash {
        Hash::new(blake3::derive_key(DIGEST_CONTEXT, &self.to_bytes()))
    }

    fn each_lane(&mut self, record: &[u8; BYTES], change: impl Fn(u16, u16) -> u16) {
        for (lane, bytes) in self.0.iter_mut().zip(record.as_chunks().0) {
            *lane = change(*lane, u16::from_le_bytes(*bytes));
        }
    }

    fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for (to, lane) in bytes.as_chunks_mut().0.iter_mut().zip(self.0.iter()) {
            *to = lane.to_le_bytes();
        }
        bytes
    }
}

/// A record's numbers: BLAKE3 as an extendable-output function, over lengths before table and key so that
/// no byte can move from one part to the next.
fn stretch(table: &str, key: &[u8], value: &[u8]) -> [u8; BYTES] {
    let mut hasher = blake3::Hasher::new_derive_key(RECORD_CONTEXT);
    for part in [table.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.update(value);
    let mut bytes = [0; BYTES];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

impl Default for StateHash {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl fmt::Debug for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateHash({:?})", self.digest())
    }
}

impl Serialize for StateHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ByteArray::new(self.to_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StateHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteArray::<BYTES>::deserialize(deserializer)?;
        let mut read = Self::default();
        read.each_lane(&bytes, |_, stored| stored);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
