//! Sessions: which of a client's acknowledgements count, and how far a miner goes without one.
//!
//! **Talked to by**: the run, which pays by them, and the miner, which serves by them: both hold them against the same
//! rules. An acknowledgement counts where the key that signed the task's posting signed it for this task and
//! this attempt. It only ever rises: one that says less than another before it is refused, one that says the same changes
//! nothing.
//!
//! **Invariants**: nothing is earned that the client did not sign; nothing is signed for another task, attempt or network;
//! a client that never acknowledges gets [`MAX_UNACKNOWLEDGED_SAMPLES`] answers and no more.
//!
//! **Is not**: the money (that is [`crate::run`] and [`crate::ledger`]), nor the door (that is the miner's).

use cryptomind_protocol::serve::{
    Acknowledgement, MAX_CALL_SAMPLES, MAX_UNACKNOWLEDGED_SAMPLES, VERSION,
};
use cryptomind_protocol::signed::VerifyError;
use cryptomind_protocol::{ErrorBody, ErrorClass, GenesisHash, PublicKey, Signed, TaskId};

/// An acknowledgement whose signature is its signer's. Only [`open`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    signer: PublicKey,
    acknowledgement: Acknowledgement,
}

impl Shown {
    /// Whether its signer wants no more.
    pub const fn is_last(&self) -> bool {
        self.acknowledgement.last
    }
}

/// Why an acknowledgement, or a call, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no acknowledgement that its signer signed for this network.
    #[error("no acknowledgement: {0}")]
    Forged(#[from] VerifyError),
    /// Of a version that is not known here.
    #[error("an acknowledgement of version {0}: this network speaks {VERSION}")]
    Version(u8),
    /// Somebody else signed it.
    #[error("it is not signed by the key that signed the task's posting")]
    NotTheClient,
    /// It is about another task.
    #[error("it is about task {0}")]
    OtherTask(TaskId),
    /// It is about another attempt.
    #[error("it is about attempt {said}, this is attempt {present}")]
    OtherAttempt {
        /// What it says.
        said: u32,
        /// What is served now.
        present: u32,
    },
    /// It takes back what was said before.
    #[error("it acknowledges {said} samples, {acknowledged} are acknowledged already")]
    Lower {
        /// What it says.
        said: u64,
        /// What was said before.
        acknowledged: u64,
    },
    /// It acknowledges what there is not.
    #[error("it acknowledges {said} samples, there are {most}")]
    TooMany {
        /// What it says.
        said: u64,
        /// What can be acknowledged.
        most: u64,
    },
    /// A call without samples, or with too many.
    #[error("a call of {0} samples: give 1 to {MAX_CALL_SAMPLES}")]
    CallSize(u32),
    /// Too much is answered and not acknowledged.
    #[error(
        "{open} samples are answered and not acknowledged: at most {MAX_UNACKNOWLEDGED_SAMPLES} may be"
    )]
    Unacknowledged {
        /// How many there would be.
        open: u64,
    },
    /// The task pays for no more.
    #[error("the session has {left} samples left of what was paid for")]
    Exhausted {
        /// How many are left.
        left: u64,
    },
}

impl Refusal {
    const fn code(&self) -> &'static str {
        match self {
            Self::Forged(_) => "acknowledgement_forged",
            Self::Version(_) => "unsupported_version",
            Self::NotTheClient => "acknowledgement_not_the_clients",
            Self::OtherTask(_) => "acknowledgement_of_another_task",
            Self::OtherAttempt { .. } => "acknowledgement_of_another_attempt",
            Self::Lower { .. } => "acknowledgement_lower",
            Self::TooMany { .. } => "acknowledgement_too_high",
            Self::CallSize(_) => "bad_call",
            Self::Unacknowledged { .. } => "unacknowledged",
            Self::Exhausted { .. } => "session_exhausted",
        }
    }

    const fn class(&self) -> ErrorClass {
        match self {
            Self::Forged(_) | Self::NotTheClient => ErrorClass::Auth,
            Self::Exhausted { .. } => ErrorClass::Funds,
            _ => ErrorClass::User,
        }
    }

    const fn help(&self) -> &'static str {
        match self {
            Self::Forged(_) | Self::NotTheClient => {
                "sign with the key that signed the task's posting"
            }
            Self::Version(_) => "update the software",
            Self::OtherTask(_) | Self::OtherAttempt { .. } => {
                "follow the task's events: the newest `serving` names the attempt"
            }
            Self::Lower { .. } => "acknowledge all samples that were answered and accepted so far",
            Self::TooMany { .. } => "acknowledge what was answered, and no more",
            Self::CallSize(_) => "send more samples in several calls",
            Self::Unacknowledged { .. } => {
                "acknowledge what was answered, or end this session and open another"
            }
            Self::Exhausted { .. } => "end it, and open another with more samples",
        }
    }
}

impl From<Refusal> for ErrorBody {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.class(), refusal.code(), &refusal).with_help(refusal.help())
    }
}

/// Verifies an acknowledgement's signature and reads it.
pub fn open(signed: &Signed, network: &GenesisHash) -> Result<Shown, Refusal> {
    let acknowledgement: Acknowledgement = signed.verify(network)?;
    if acknowledgement.version != VERSION {
        return Err(Refusal::Version(acknowledgement.version));
    }
    Ok(Shown {
        signer: signed.signer,
        acknowledgement,
    })
}

/// What an acknowledgement is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of which task.
    pub task: TaskId,
    /// In which attempt.
    pub attempt: u32,
    /// Whose word counts: the key that signed the task's posting.
    pub caller: PublicKey,
    /// Samples that are acknowledged.
    pub acknowledged: u64,
    /// Samples that can be acknowledged.
    pub most: u64,
}

impl Bounds {
    /// What an acknowledgement says, where it counts. It may say what is known already.
    pub fn judge(&self, shown: &Shown) -> Result<Acknowledgement, Refusal> {
        let said = shown.acknowledgement;
        if shown.signer != self.caller {
            Err(Refusal::NotTheClient)
        } else if said.task != self.task {
            Err(Refusal::OtherTask(said.task))
        } else if said.attempt != self.attempt {
            Err(Refusal::OtherAttempt {
                said: said.attempt,
                present: self.attempt,
            })
        } else if said.samples < self.acknowledged {
            Err(Refusal::Lower {
                said: said.samples,
                acknowledged: self.acknowledged,
            })
        } else if said.samples > self.most {
            Err(Refusal::TooMany {
                said: said.samples,
                most: self.most,
            })
        } else {
            Ok(said)
        }
    }
}

/// A miner's count of what it has answered. [`Bounds::most`] is what it has answered, calls in progress included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    bounds: Bounds,
    samples_max: u64,
}

impl Tally {
    /// Of a session that goes on after `start` earned samples and may have `samples_max` in all.
    pub const fn new(
        task: TaskId,
        attempt: u32,
        caller: PublicKey,
        start: u64,
        samples_max: u64,
    ) -> Self {
        let bounds = Bounds {
            task,
            attempt,
            caller,
            acknowledged: start,
            most: start,
        };
        Self {
            bounds,
            samples_max,
        }
    }

    /// Takes an acknowledgement. Gives how many samples it adds.
    pub fn acknowledge(&mut self, shown: &Shown) -> Result<u64, Refusal> {
        let said = self.bounds.judge(shown)?;
        let news = said.samples - self.bounds.acknowledged;
        self.bounds.acknowledged = said.samples;
        Ok(news)
    }

    /// Lets a call of so many samples in.
    pub const fn admit(&mut self, samples: u32) -> Result<(), Refusal> {
        if samples == 0 || samples > MAX_CALL_SAMPLES {
            return Err(Refusal::CallSize(samples));
        }
        let served = self.bounds.most.saturating_add(samples as u64);
        let open = served - self.bounds.acknowledged;
        if open > MAX_UNACKNOWLEDGED_SAMPLES {
            return Err(Refusal::Unacknowledged { open });
        }
        if served > self.samples_max {
            let left = self.samples_max.saturating_sub(self.bounds.most);
            return Err(Refusal::Exhausted { left });
        }
        self.bounds.most = served;
        Ok(())
    }

    /// A call that was let in came to nothing. What is acknowledged already stays.
    pub const fn give_back(&mut self, samples: u32) {
        let served = self.bounds.most.saturating_sub(samples as u64);
        if served >= self.bounds.acknowledged {
            self.bounds.most = served;
        }
    }

    /// Samples that are acknowledged.
    pub const fn acknowledged(&self) -> u64 {
        self.bounds.acknowledged
    }
}

#[cfg(test)]
mod tests;
