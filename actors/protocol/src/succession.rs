//! How the members of an attempt agree on the next one while the coordinator is away: the protocol `cryptomind-member/1`.
//!
//! Any member dials any other at its ring socket, and opens one unidirectional stream of [`Word`]s, which are answered by
//! the same means. Words may be lost or come twice: whoever wants an answer asks again. What the words mean is a single-decree
//! Paxos; the rules are those of `cryptomind-core`'s module of the same name.

use serde::{Deserialize, Serialize};

use crate::key::Hash;
use crate::signed::Payload;
use crate::{NodeId, Signed, TaskId, codec};

/// The largest frame with a [`Word`], bytes.
pub const MAX_WORD: usize = 256 * 1024;

/// Where a member stands that has come to rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Steps that are committed there.
    pub committed: u64,
    /// Whether the next step is computed there and waits for the others' word.
    pub prepared: bool,
}

impl Paused {
    /// Whether this member has the state after `step` steps, which no other is further than.
    pub const fn reaches(&self, step: u64) -> bool {
        self.committed == step || (self.prepared && step > 0 && self.committed == step - 1)
    }
}

/// Number of a ballot: the higher one wins.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Ballot {
    /// Counts up; 0 is no ballot.
    pub round: u32,
    /// Rank of the caller in the attempt that is left.
    pub rank: u32,
}

/// What a member that has come to rest says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its steps.
    pub at: Paused,
    /// Where its ring socket for the next attempt listens.
    pub ring_address: String,
    /// Whom it found silent.
    pub suspect: Option<NodeId>,
}

/// What members agree on: the attempt that follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// Its members by rank.
    pub members: Vec<NodeId>,
    /// Their ring sockets by rank.
    pub ring_addresses: Vec<String>,
    /// Steps that are done.
    pub start_step: u64,
}

impl Successor {
    /// What a vote for it names: BLAKE3 of its encoding, keys in this order.
    pub fn digest(&self) -> Hash {
        Hash::of(&codec::encode(self))
    }
}

/// A member accepted a successor. Signed by its node key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vote {
    /// 1.
    pub version: u8,
    /// The task.
    pub task: TaskId,
    /// The attempt that is left.
    pub attempt: u32,
    /// In which ballot.
    pub ballot: Ballot,
    /// For which [`Successor`], by its digest.
    pub successor: Hash,
}

impl Payload for Vote {
    const TAG: &'static str = "cryptomind/vote/1";
    const MAX_BYTES: usize = 256;
}

/// A successor, and the votes that prove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The attempt that begins.
    pub attempt: u32,
    /// Who goes on, from where.
    pub successor: Successor,
    /// [`Vote`]s of a strict majority of the last attempt's members, in one ballot.
    pub votes: Vec<Signed>,
}

/// What members tell each other, of one task and one attempt that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Leave the attempt, and say where you stand.
    Prepare {
        /// In this ballot.
        ballot: Ballot,
    },
    /// It comes to rest, or waits a moment for the coordinator, and will promise then.
    Coming {
        /// In answer to this ballot.
        ballot: Ballot,
    },
    /// It takes part in no lower ballot.
    Promise {
        /// Than this one.
        ballot: Ballot,
        /// Where it stands.
        standing: Standing,
        /// What it voted for last.
        accepted: Option<(Ballot, Successor)>,
    },
    /// Vote for this.
    Propose {
        /// In this ballot.
        ballot: Ballot,
        /// This.
        successor: Successor,
    },
    /// It did: a signed [`Vote`].
    Accepted(Signed),
    /// It promised a higher ballot.
    Refused {
        /// Than this.
        ballot: Ballot,
        /// It.
        promised: Ballot,
    },
    /// The coordinator has called the next attempt, and decides.
    Deferred {
        /// In answer to this ballot.
        ballot: Ballot,
    },
    /// It is decided.
    Decided(Decision),
}

/// A message as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Of which task.
    pub task: TaskId,
    /// Of which attempt that is left.
    pub attempt: u32,
    /// What.
    pub message: Message,
}
