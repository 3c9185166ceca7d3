//! The audit trail's rules, which miners and the coordinator hold to alike: at which steps a rank names roots, and what
//! signed commitments are let in.
//!
//! Members are told neither by anybody: both follow from the task and the group. How commitments are held against each other
//! says [`crate::run`].
//!
//! Is not: how a root is computed (that is `cryptomind-gpu`), nor whether a step was computed rightly: whoever computes it again
//! finds out.

use cryptomind_protocol::audit::{Commitments, MAX_STEPS, VERSION};
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::signed::VerifyError;
use cryptomind_protocol::task::TrainSpec;
use cryptomind_protocol::{ErrorBody, ErrorClass, GenesisHash, NodeId, Signed, TaskId};

/// From one root to the next there are at most so many steps.
pub const MAX_ROOTS_EVERY: u64 = 10;
/// Floating-point operations that a processor does while it hashes a parameter and its gradient.
const HASHING_FLOPS: u64 = 300;
/// So many times as long as hashing takes a rank computes, unless that takes more steps than [`MAX_ROOTS_EVERY`].
const COMPUTING_TIMES: u64 = 100;

/// The steps at which each rank of a group names roots: each one where a step is much work, so that hashing is lost in it;
/// every few where it is little. Those of checkpoints, and the last, in any case: there the trail meets what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootSteps {
    every: u64,
    checkpoint_steps: u64,
    last: u64,
}

impl RootSteps {
    /// Of a run of so many steps, by a group of so many ranks.
    pub fn new(model: &ModelSpec, train: &TrainSpec, world: u32, steps: u64) -> Self {
        let of_step = model
            .training_flops()
            .saturating_mul(train.global_batch.into());
        let of_rank = (of_step / u64::from(world.max(1))).max(1);
        let hashing = model.parameter_count().saturating_mul(HASHING_FLOPS);
        let every = hashing.saturating_mul(COMPUTING_TIMES).div_ceil(of_rank);
        Self {
            every: every.clamp(1, MAX_ROOTS_EVERY),
            checkpoint_steps: u64::from(train.checkpoint_steps).max(1),
            last: steps,
        }
    }

    /// Steps from one root to the next, but for checkpoints and the end.
    pub const fn every(&self) -> u64 {
        self.every
    }

    /// Whether roots are named at this step, counted from 1.
    pub const fn contains(&self, step: u64) -> bool {
        step.is_multiple_of(self.every)
            || step.is_multiple_of(self.checkpoint_steps)
            || step == self.last
    }
}

/// Commitments that a node signed for the task and the attempt that it reports of. Only [`open`] makes them.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    commitments: Commitments,
    signed: Signed,
}

impl Opened {
    /// As if its node had signed this.
    #[cfg(test)]
    pub(crate) fn assumed(commitments: Commitments) -> Self {
        let signed = Signed {
            payload: cryptomind_protocol::codec::encode(&commitments),
            signer: cryptomind_protocol::PublicKey::new([0; 32]),
            signature: cryptomind_protocol::Signature::new([0; 64]),
        };
        Self {
            commitments,
            signed,
        }
    }

    /// What was said, and the bytes that prove it.
    pub fn into_parts(self) -> (Commitments, Signed) {
        (self.commitments, self.signed)
    }
}

/// Why commitments are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are none that their signer signed for this network.
    #[error("no commitments: {0}")]
    Forged(#[from] VerifyError),
    /// Of a version that is not known here.
    #[error("commitments of version {0}: this network speaks {VERSION}")]
    Version(u8),
    /// Another node signed them.
    #[error("the commitments are another node's")]
    OtherNode,
    /// They are about another task or attempt than the report that brings them.
    #[error("the commitments are about attempt {attempt} of {task}, the report is not")]
    OtherAttempt {
        /// Which they say.
        task: TaskId,
        /// Which they say.
        attempt: u32,
    },
    /// A loss that no step ends with: whoever computes one stops.
    #[error("the commitments name a loss that is no number")]
    Loss,
    /// No steps, too many, or such as no run has.
    #[error(
        "commitments to {steps} steps from step {first} on: 1 to {MAX_STEPS} steps, the first being 1"
    )]
    Steps {
        /// The first one.
        first: u64,
        /// How many.
        steps: usize,
    },
}

impl Refusal {
    const fn code(&self) -> &'static str {
        match self {
            Self::Forged(_) => "commitments_forged",
            Self::Version(_) => "unsupported_version",
            Self::OtherNode => "commitments_of_another_node",
            Self::OtherAttempt { .. } => "commitments_of_another_attempt",
            Self::Loss | Self::Steps { .. } => "bad_commitments",
        }
    }

    const fn class(&self) -> ErrorClass {
        match self {
            Self::Forged(_) | Self::OtherNode => ErrorClass::Auth,
            _ => ErrorClass::User,
        }
    }

    const fn help(&self) -> &'static str {
        match self {
            Self::Forged(_) | Self::OtherNode => "sign with the key of the node that reports them",
            Self::Version(_) => "update the software",
            Self::OtherAttempt { .. } => "report them with the task and the attempt that they name",
            Self::Loss => "report a step that fails as a failure of the task",
            Self::Steps { .. } => "sign the steps of an attempt one after the other, in parts",
        }
    }
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.class(), refusal.code(), &refusal).with_help(refusal.help())
    }
}

/// Verifies commitments that `node` reports of an attempt of a task, and reads them.
pub fn open(
    signed: Signed,
    network: &GenesisHash,
    node: NodeId,
    (task, attempt): (TaskId, u32),
) -> Result<Opened, Refusal> {
    if NodeId::of_key(&signed.signer) != node {
        return Err(Refusal::OtherNode);
    }
    let commitments: Commitments = signed.verify(network)?;
    if commitments.version != VERSION {
        return Err(Refusal::Version(commitments.version));
    }
    if (commitments.task, commitments.attempt) != (task, attempt) {
        return Err(Refusal::OtherAttempt {
            task: commitments.task,
            attempt: commitments.attempt,
        });
    }
    let (first, steps) = (commitments.first, commitments.steps.len());
    let is_some = (1..=MAX_STEPS).contains(&steps);
    if !is_some || first == 0 || first.checked_add(steps as u64).is_none() {
        return Err(Refusal::Steps { first, steps });
    }
    if commitments.steps.iter().any(|step| !step.loss.is_finite()) {
        return Err(Refusal::Loss);
    }
    Ok(Opened {
        commitments,
        signed,
    })
}

#[cfg(test)]
mod tests;
