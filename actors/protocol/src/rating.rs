//! What nodes have shown, and what is thought of them for it.
//!
//! A rating is a fold of [`EvidenceRecord`]s and nothing else: whoever has them, and `cryptomind-core`'s rule, comes to the
//! same numbers.

use serde::{Deserialize, Serialize};

use crate::{AccountId, Amount, NodeId, TaskId, Timestamp};

/// The best rating, in thousandths of a star.
pub const BEST_MILLI: u32 = 5000;

/// Something that a node has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Evidence {
    /// It saw a run through.
    Done {
        /// Whether members of other owners came to the same as it did.
        agreed: bool,
    },
    /// It said that it would leave a run, and was let go.
    Left {},
    /// It failed in a run.
    Failed {
        /// What happened, for people.
        reason: String,
    },
    /// Its answer was checked, and right.
    Right {},
    /// Its answer was proved wrong.
    Wrong {
        /// How, for people.
        reason: String,
    },
    /// How fast it was in a run, beside what its start test said.
    Speed {
        /// 10⁶ floating-point operations a second.
        achieved_mflops: u64,
        /// What its start test promises for such work, by what others make of theirs.
        promised_mflops: u64,
    },
    /// A user gave stars for a finished task.
    Stars {
        /// 1 to 5.
        stars: u8,
        /// What the node's work in the task was paid.
        paid: Amount,
        /// Who gave them.
        rater: AccountId,
        /// How far the rater was believed then, in millionths.
        credibility_ppm: u32,
    },
}

/// A piece of evidence about a node, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// Where it comes from.
    pub task: TaskId,
    /// Number within the task.
    pub number: u64,
    /// About whom.
    pub node: NodeId,
    /// Whom the node earned for then.
    pub owner: AccountId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub evidence: Evidence,
}

/// Evidence in its order: by time, then task, then number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EvidenceKey {
    /// When.
    pub at: Timestamp,
    /// Where it comes from.
    pub task: TaskId,
    /// Number within the task.
    pub number: u64,
}

impl EvidenceRecord {
    /// Where it stands among the others.
    pub const fn key(&self) -> EvidenceKey {
        EvidenceKey {
            at: self.at,
            task: self.task,
            number: self.number,
        }
    }
}

/// How likely something goes well, as far as it is known, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Odds {
    /// The mean: what is shown.
    pub mean_ppm: u32,
    /// What it is at least, with 95 % certainty: what counts.
    pub low_ppm: u32,
}

/// What a rating is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatingParts {
    /// Answers that are right.
    pub correctness: Odds,
    /// Runs that are seen through.
    pub delivery: Odds,
    /// Achieved over promised speed: the median, in millionths.
    pub speed_ppm: u32,
    /// Users' stars: the mean, in thousandths.
    pub stars_milli: u32,
}

/// Why a node gets no work for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// It failed too often of late; then one task shows whether it is well again.
    Rests {
        /// How often.
        failed: u32,
        /// Of how many runs.
        of: u32,
        /// Until when.
        until: Timestamp,
    },
    /// Answers of its owner's nodes were proved wrong too often.
    Excluded {
        /// How often.
        wrong: u32,
        /// Until when.
        until: Timestamp,
    },
    /// An answer of its owner's nodes is being checked: until a miner of another owner has answered the same, a day at most.
    Doubted {},
}

/// A rating and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatingView {
    /// The rating that is shown, in thousandths of 5 stars: 0 to 5000. The lower one of the node's and its owner's.
    pub rating_milli: u32,
    /// The rating that counts where nodes are chosen and earnings are withheld: as it is at least, likewise.
    pub low_milli: u32,
    /// What the node's own is made of.
    pub parts: RatingParts,
    /// Runs seen through.
    pub done: u32,
    /// Runs failed.
    pub failed: u32,
    /// Runs left with notice.
    pub left: u32,
    /// Answers proved wrong.
    pub wrong: u32,
    /// Answers of its owner's nodes that were checked and right, in a row: since the last wrong one.
    pub streak: u32,
    /// How many users gave stars.
    pub votes: u32,
    /// Why it gets no work now, where that is so.
    pub bar: Option<Bar>,
    /// When it was so: ratings fade.
    pub at: Timestamp,
    /// Why it last changed.
    pub last_change: String,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done { agreed: true } => f.write_str("saw a run through, and others agreed"),
            Self::Done { agreed: false } => f.write_str("saw a run through"),
            Self::Left {} => f.write_str("left a run with notice"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
            Self::Right {} => f.write_str("an answer was checked, and right"),
            Self::Wrong { reason } => write!(f, "an answer was wrong: {reason}"),
            Self::Speed {
                achieved_mflops,
                promised_mflops,
            } => write!(f, "{achieved_mflops} of {promised_mflops} promised MFLOP/s"),
            Self::Stars { stars: 1, .. } => f.write_str("a user gave 1 star"),
            Self::Stars { stars, .. } => write!(f, "a user gave {stars} stars"),
        }
    }
}

impl Bar {
    /// Until when, where that is known.
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Rests { until, .. } | Self::Excluded { until, .. } => Some(*until),
            Self::Doubted {} => None,
        }
    }
}

impl std::fmt::Display for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rests { failed, of, .. } => {
                write!(f, "it failed {failed} of its last {of} runs, and rests")
            }
            Self::Excluded { wrong, .. } => {
                write!(f, "{wrong} answers of its owner's nodes were proved wrong")
            }
            Self::Doubted {} => {
                f.write_str(
                    "an answer of its owner's nodes is being checked, until another owner's miner has answered the same, a day at most",
                )
            }
        }
    }
}
