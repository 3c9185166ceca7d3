//! The audit trail of a training run: what each rank says, under its signature, of every step that it committed.
//!
//! The members of a group compute the same thing bit by bit, so what they say of a step is equal but for the samples that
//! each computed. Whoever says something else has computed something else; and whoever is asked to show later what it did
//! in a step can show nothing but what it said. A rank says how each step went, and names the roots of what it
//! computed at some of the steps: see `cryptomind_core::audit` for which, and `cryptomind_gpu` for what a root is made of.
//!
//! One signature covers consecutive steps, at most [`MAX_STEPS`].

use serde::{Deserialize, Serialize};

use crate::key::Hash;
use crate::signed::Payload;
use crate::{NodeId, TaskId};

/// The version of [`Commitments`].
pub const VERSION: u8 = 1;
/// The most steps under one signature.
pub const MAX_STEPS: usize = 256;

/// What a rank says of consecutive steps, as its node signs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitments {
    /// [`VERSION`].
    pub version: u8,
    /// In which task.
    pub task: TaskId,
    /// In which attempt.
    pub attempt: u32,
    /// Its rank there.
    pub rank: u32,
    /// The first step, counted from 1: that after which so many are done.
    pub first: u64,
    /// That step and those after it, without gaps: 1 to [`MAX_STEPS`].
    pub steps: Vec<Commitment>,
}

impl Payload for Commitments {
    const TAG: &'static str = "cryptomind/commitments/1";
    const MAX_BYTES: usize = 32 * 1024;
}

impl Commitments {
    /// The steps with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &Commitment)> {
        (self.first..).zip(&self.steps)
    }
}

/// What a rank says of one step that it committed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// Mean loss of the global batch, equal on all ranks.
    pub loss: f32,
    /// Samples of the global batch that this rank computed.
    pub samples: u32,
    /// Of what was computed. Left out at the steps between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<Roots>,
}

/// Roots of what a step computed, equal on all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Roots {
    /// Of the gradients' sums over the group, as the ring left them.
    pub gradients: Hash,
    /// Of the parameters after the step.
    pub parameters: Hash,
}

/// What of a step a member says otherwise than others do, or than it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The sums of the gradients: the ring, or the memory that they lay in.
    Gradients,
    /// The parameters after the step.
    Parameters,
    /// The mean loss.
    Loss,
    /// The samples that it computed are not its share.
    Samples,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Gradients => "gradients",
            Self::Parameters => "parameters",
            Self::Loss => "loss",
            Self::Samples => "samples",
        })
    }
}

/// What the members of a training task signed of their steps, and how that was held against each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailView {
    /// Steps that every member of the group signed and that were compared, over all attempts.
    pub compared: u64,
    /// The last of them.
    pub last: u64,
    /// Signatures that were taken in.
    pub signatures: u64,
    /// Who said something else than others.
    pub parted: Vec<Parting>,
}

/// That a member said of a step something else than others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parting {
    /// In which attempt.
    pub attempt: u32,
    /// The first such step.
    pub step: u64,
    /// The miner.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// In what.
    pub part: Part,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn the_longest_payload_is_read() {
        let commitment = Commitment {
            loss: f32::from_bits(0x3f80_0001),
            samples: u32::MAX,
            roots: Some(Roots {
                gradients: Hash::of(b"gradients"),
                parameters: Hash::of(b"parameters"),
            }),
        };
        let longest = Commitments {
            version: VERSION,
            task: TaskId::new([1; 16]),
            attempt: u32::MAX,
            rank: u32::MAX,
            first: u64::MAX - MAX_STEPS as u64,
            steps: vec![commitment; MAX_STEPS],
        };
        let bytes = codec::encode(&longest);
        assert!(bytes.len() <= Commitments::MAX_BYTES, "{}", bytes.len());
        assert_eq!(codec::decode::<Commitments>(&bytes), Ok(longest));
    }

    #[test]
    fn steps_are_numbered_from_the_first() {
        let said = Commitments {
            version: VERSION,
            task: TaskId::new([1; 16]),
            attempt: 1,
            rank: 0,
            first: 7,
            steps: vec![
                Commitment {
                    loss: 0.5,
                    samples: 3,
                    roots: None,
                };
                2
            ],
        };
        let numbers: Vec<_> = said.numbered().map(|(step, _)| step).collect();
        assert_eq!(numbers, [7, 8]);
    }
}
