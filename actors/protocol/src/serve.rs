//! A session of single calls: the protocol `cryptomind-serve/1`, between a task's client and the miner that serves it.
//!
//! The client dials the door that the miner named, proves the key that signed the task's posting, and calls as often as
//! the task allows. A request is one frame on a bidirectional stream of its own. After a `serve.call` come the samples, raw
//! little-endian f32, one after the other; after its `answer<answered>` come the probabilities in the same form,
//! samples × classes. Tensors never travel in CBOR.
//!
//! It is paid by what the client says that it got: every call carries an [`Acknowledgement`] of all samples so far.
//! The miner serves no more than [`MAX_UNACKNOWLEDGED_SAMPLES`] without one, and shows the newest to the coordinator.

use serde::{Deserialize, Serialize};

use crate::signed::Payload;
use crate::{Signed, TaskId};

/// The most samples in one call.
pub const MAX_CALL_SAMPLES: u32 = 64;
/// The most bytes of one call's samples, and of its probabilities.
pub const MAX_CALL_BYTES: u64 = 4 * 1024 * 1024;
/// The most samples that a miner answers beyond what is acknowledged: what a client that never pays may get.
pub const MAX_UNACKNOWLEDGED_SAMPLES: u64 = 64;
/// The version of acknowledgements that this software reads.
pub const VERSION: u8 = 1;

/// A client's word that it got so much. Signed by the key that signed the task's posting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// [`VERSION`].
    pub version: u8,
    /// In which task.
    pub task: TaskId,
    /// In which attempt: whoever serves another one has no use for it.
    pub attempt: u32,
    /// Samples answered and accepted since the task began, those of attempts before as far as they were earned.
    pub samples: u64,
    /// Whether the client wants no more: the session ends.
    pub last: bool,
}

impl Payload for Acknowledgement {
    const TAG: &'static str = "cryptomind/acknowledgement/1";
    const MAX_BYTES: usize = 256;
}

/// A request from a task's client to the miner that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Request {
    /// Classify the samples that follow. Answered by [`Answered`] and the probabilities.
    #[serde(rename = "serve.call")]
    Call {
        /// How many, at most [`MAX_CALL_SAMPLES`].
        samples: u32,
        /// An [`Acknowledgement`] of all before.
        acknowledgement: Signed,
    },
    /// Nothing to classify now, but this to acknowledge. Answered by [`crate::node::Ack`].
    #[serde(rename = "serve.acknowledge")]
    Acknowledge {
        /// An [`Acknowledgement`]; a last one ends the session.
        acknowledgement: Signed,
    },
}

/// Every method of this protocol.
pub const METHODS: [&str; 2] = ["serve.call", "serve.acknowledge"];

/// The head of a call's answer. The probabilities follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Classes that the model tells apart: probabilities a sample.
    pub classes: u32,
    /// Each sample's most probable class, from 0.
    pub labels: Vec<u32>,
    /// For how long the call waited for others, microseconds.
    pub queue_us: u64,
    /// The forward pass, microseconds.
    pub compute_us: u64,
}

/// Samples or probabilities as they travel.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Samples or probabilities as they came; bytes that make no whole value are left out.
pub fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

/// Bytes of so many samples of so many values.
pub const fn byte_len(samples: u32, values: usize) -> u64 {
    (samples as u64)
        .saturating_mul(values as u64)
        .saturating_mul(size_of::<f32>() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GenesisHash, SecretKey, codec};

    #[test]
    fn values_travel_bit_by_bit() {
        let values = [0.0, -0.0, 1.5, f32::MIN_POSITIVE, f32::INFINITY];
        let bytes = to_bytes(&values);
        assert_eq!(bytes.len() as u64, byte_len(1, values.len()));
        assert_eq!(bytes[8..12], 1.5f32.to_le_bytes());
        assert_eq!(from_bytes(&bytes), values);
        assert_eq!(from_bytes(&bytes[..7]), values[..1]);
    }

    #[test]
    fn an_acknowledgement_fits_its_limit_and_nothing_else_passes_for_one() {
        let most = Acknowledgement {
            version: VERSION,
            task: TaskId::new([u8::MAX; 16]),
            attempt: u32::MAX,
            samples: u64::MAX,
            last: false,
        };
        assert!(codec::encode(&most).len() <= Acknowledgement::MAX_BYTES);
        let (key, network) = (SecretKey::from_seed([1; 32]), GenesisHash::new([2; 32]));
        let signed = Signed::sign(&most, &network, &key);
        assert_eq!(signed.verify(&network), Ok(most));
        let ticket = signed.verify::<crate::blob::Ticket>(&network);
        assert_eq!(ticket, Err(crate::signed::VerifyError::Signature));
    }
}
