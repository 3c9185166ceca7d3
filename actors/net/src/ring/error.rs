//! Why a ring ended, who is to blame, and how that is said in a close code.

use cryptomind_protocol::NodeId;
use cryptomind_protocol::ring::SegmentHeader;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::collective::Unfit;
use super::{MAX_WORLD, RingPlan};
use crate::close::{Close, readable};
use crate::fault;

const LEFT: u64 = 0x1_0000;
const BLAME: u64 = 0x2_0000;
const OVERFLOW: u64 = 0x3_0000;
const GAVE_UP: u64 = 0x4_0000;

/// Why a ring ended. The first error stays: every later call gives it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A neighbour says nothing: it was killed, or the network between is cut.
    #[error("rank {rank} ({node}) has been silent for {ms} ms")]
    Silent {
        /// Its rank.
        rank: u32,
        /// Who it is.
        node: NodeId,
        /// For how long.
        ms: u64,
    },
    /// The rank before sent what is not expected here and now.
    #[error("rank {rank} ({node}) is out of step: expected {expected:?}, got {got:?}")]
    OutOfStep {
        /// The rank before.
        rank: u32,
        /// Who it is.
        node: NodeId,
        /// What fits this place.
        expected: SegmentHeader,
        /// What came.
        got: SegmentHeader,
    },
    /// A member broke the connection or the protocol.
    #[error("rank {rank} ({node}) broke the ring: {reason}")]
    Broken {
        /// Its rank.
        rank: u32,
        /// Who it is.
        node: NodeId,
        /// What was seen.
        reason: String,
    },
    /// A neighbour says that a member is to blame.
    #[error("rank {rank} ({node}) {deed}, says rank {by}")]
    Blamed {
        /// Its rank.
        rank: u32,
        /// Who it is.
        node: NodeId,
        /// Whose word this is.
        by: u32,
        /// What it did: see [`RingError::deed`].
        deed: String,
    },
    /// A member left in good order, such as for the next attempt. No ground for suspicion.
    #[error("rank {rank} ({node}) has left the ring")]
    Left {
        /// Its rank.
        rank: u32,
        /// Who it is.
        node: NodeId,
    },
    /// A member gave the ring up and can name nobody. No ground for suspicion.
    #[error("rank {rank} ({node}) has given the ring up: {reason}")]
    GaveUp {
        /// Its rank.
        rank: u32,
        /// Who it is.
        node: NodeId,
        /// What it said.
        reason: String,
    },
    /// Something did not happen in time although all neighbours answer pings.
    #[error("{what} within {ms} ms")]
    Timeout {
        /// What did not happen.
        what: String,
        /// The limit.
        ms: u64,
        /// Who should have done it, where that is known.
        suspect: Option<NodeId>,
    },
    /// The plan makes no sense.
    #[error("the ring's plan makes no sense: {reason}")]
    Plan {
        /// Why.
        reason: String,
    },
    /// A value is no number, or infinite. Every member looks at what comes, so the one that sent it made it, or let it pass.
    #[error("rank {rank} ({node}) has a value that is not finite")]
    NotFinite {
        /// Its rank.
        rank: u32,
        /// Who it is.
        node: NodeId,
    },
    /// A sum of finite values is too large for one: nobody's fault but the task's, where that is true. Whoever did not find it
    /// itself has one member's word for it.
    #[error("the sum of the members' values overflows, as rank {rank} ({node}) found")]
    Overflow {
        /// Who found it.
        rank: u32,
        /// Who that is.
        node: NodeId,
    },
    /// The ring was left, or its thread is gone.
    #[error("the ring was left")]
    Ended,
}

impl RingError {
    /// The member to look at. Nobody, where a member left in good order or the fault lies here.
    pub fn suspect(&self) -> Option<NodeId> {
        match self {
            Self::Silent { node, .. }
            | Self::OutOfStep { node, .. }
            | Self::NotFinite { node, .. }
            | Self::Broken { node, .. }
            | Self::Blamed { node, .. } => Some(*node),
            Self::Timeout { suspect, .. } => *suspect,
            Self::Left { .. }
            | Self::GaveUp { .. }
            | Self::Plan { .. }
            | Self::Overflow { .. }
            | Self::Ended => None,
        }
    }

    /// What the suspect did, to be read after its name; where nobody is suspected, what happened.
    pub fn deed(&self) -> String {
        match self {
            Self::Silent { ms, .. } => format!("has been silent for {ms} ms"),
            Self::OutOfStep { expected, got, .. } => {
                format!("is out of step: expected {expected:?}, got {got:?}")
            }
            Self::Broken { reason, .. } => format!("broke the ring: {reason}"),
            Self::Blamed { by, deed, .. } => format!("{deed}, says rank {by}"),
            Self::NotFinite { .. } => "has a value that is not finite".into(),
            Self::Timeout {
                what,
                ms,
                suspect: Some(_),
            } => format!("is waited for: {what} within {ms} ms"),
            other => other.to_string(),
        }
    }

    /// What neighbours are told.
    pub(super) fn word(&self) -> String {
        match self {
            // Whoever hears it knows from whom.
            Self::Blamed { deed, .. } => deed.clone(),
            Self::GaveUp { reason, .. } => reason.clone(),
            other => other.deed(),
        }
    }
}

/// Who sits where.
#[derive(Debug, Clone)]
pub(super) struct Place {
    rank: usize,
    members: Vec<NodeId>,
}

impl Place {
    /// Checks that the plan is one, and that it is `own`'s.
    pub(super) fn of(plan: &RingPlan, own: NodeId) -> Result<Self, RingError> {
        let refuse = |reason: String| Err(RingError::Plan { reason });
        let (rank, world) = (plan.rank as usize, plan.members.len());
        if plan.members.get(rank) != Some(&own) {
            return refuse(format!("rank {rank} of {world} is not this node"));
        }
        if plan.addresses.len() != world {
            return refuse(format!(
                "{world} members, {} addresses",
                plan.addresses.len()
            ));
        }
        let distinct: std::collections::BTreeSet<_> = plan.members.iter().collect();
        if distinct.len() != world || world > MAX_WORLD {
            return refuse(format!("{world} members that are too many or not distinct"));
        }
        Ok(Self {
            rank,
            members: plan.members.clone(),
        })
    }

    pub(super) fn world(&self) -> usize {
        self.members.len()
    }

    pub(super) const fn rank(&self) -> usize {
        self.rank
    }

    /// The rank so many places ahead.
    pub(super) fn ahead(&self, distance: usize) -> usize {
        (self.rank + distance) % self.world()
    }

    /// The rank so many places behind.
    pub(super) fn behind(&self, distance: usize) -> usize {
        (self.rank + self.world() - distance) % self.world()
    }

    /// How many places behind this one that rank is.
    pub(super) fn distance_behind(&self, rank: usize) -> usize {
        (self.rank + self.world() - rank % self.world()) % self.world()
    }

    pub(super) fn node(&self, rank: usize) -> NodeId {
        self.members[rank]
    }

    pub(super) fn broken(&self, rank: usize, reason: impl Into<String>) -> RingError {
        RingError::Broken {
            rank: rank as u32,
            node: self.node(rank),
            reason: reason.into(),
        }
    }

    pub(super) fn silent(&self, rank: usize, ms: u64) -> RingError {
        RingError::Silent {
            rank: rank as u32,
            node: self.node(rank),
            ms,
        }
    }

    pub(super) fn left(&self, rank: usize) -> RingError {
        RingError::Left {
            rank: rank as u32,
            node: self.node(rank),
        }
    }

    fn overflow(&self, rank: usize) -> RingError {
        RingError::Overflow {
            rank: rank as u32,
            node: self.node(rank),
        }
    }

    /// The code with which this member closes its links after `error`.
    pub(super) fn close_code(&self, error: &RingError) -> VarInt {
        let of = |node: NodeId| self.members.iter().position(|member| *member == node);
        let (base, rank) = match error {
            RingError::Left { rank, .. } => (LEFT, *rank as usize),
            RingError::Ended => (LEFT, self.rank),
            RingError::Overflow { rank, .. } => (OVERFLOW, *rank as usize),
            RingError::GaveUp { rank, .. } => (GAVE_UP, *rank as usize),
            other => match other.suspect().and_then(of) {
                Some(rank) => (BLAME, rank),
                None => (GAVE_UP, self.rank),
            },
        };
        VarInt::from_u32(base as u32 + rank as u32)
    }

    /// The code with which this member leaves in good order.
    pub(super) fn leave_code(&self) -> VarInt {
        VarInt::from_u32(LEFT as u32 + self.rank as u32)
    }

    /// What the end of the connection with rank `with` means.
    pub(super) fn lost(&self, with: usize, error: &ConnectionError) -> RingError {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let reason = readable(&close.reason);
                self.closed(with, close.error_code.into_inner(), &reason)
            }
            ConnectionError::TimedOut => {
                self.silent(with, crate::transport::IDLE.as_millis() as u64)
            }
            // This ring was dropped while it worked.
            ConnectionError::LocallyClosed => RingError::Ended,
            other => self.broken(with, fault::lost(other).message),
        }
    }

    fn closed(&self, with: usize, code: u64, reason: &str) -> RingError {
        let named = (code % LEFT) as usize;
        let known = named < self.world();
        match code / LEFT {
            1 if known => self.left(named),
            2 if known => RingError::Blamed {
                rank: named as u32,
                node: self.node(named),
                by: with as u32,
                deed: reason.to_owned(),
            },
            3 if known => self.overflow(named),
            4 if known => RingError::GaveUp {
                rank: named as u32,
                node: self.node(named),
                reason: reason.to_owned(),
            },
            // Dropped or shut down without a word for the ring.
            _ if code == Close::Done.code().into_inner() => self.left(with),
            _ => self.broken(with, reason),
        }
    }

    pub(super) fn write_failed(&self, to: usize, error: &WriteError) -> RingError {
        match error {
            WriteError::ConnectionLost(e) => self.lost(to, e),
            other => self.broken(to, other.to_string()),
        }
    }

    pub(super) fn read_failed(&self, from: usize, error: &ReadError) -> RingError {
        match error {
            ReadError::ConnectionLost(e) => self.lost(from, e),
            other => self.broken(from, other.to_string()),
        }
    }

    /// What bytes from a rank mean that a collective does not go on with.
    pub(super) fn unfit(&self, from: usize, unfit: Unfit) -> RingError {
        let (rank, node) = (from as u32, self.node(from));
        match unfit {
            Unfit::OutOfStep { expected, got } => RingError::OutOfStep {
                rank,
                node,
                expected,
                got,
            },
            Unfit::Malformed(why) => self.broken(from, format!("a header is malformed: {why}")),
            Unfit::NotFinite => RingError::NotFinite { rank, node },
            Unfit::OwnNotFinite => RingError::NotFinite {
                rank: self.rank as u32,
                node: self.node(self.rank),
            },
            Unfit::Overflow => self.overflow(self.rank),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cryptomind_protocol::TaskId;
    use cryptomind_protocol::ring::Wire;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    fn plan() -> RingPlan {
        RingPlan {
            task: TaskId::new([0; 16]),
            attempt: 1,
            rank: 1,
            members: vec![node(0), node(1), node(2), node(3)],
            addresses: vec!["127.0.0.1:1".into(); 4],
            wire: Wire::F32,
            profile: None,
            limit: Duration::from_secs(1),
        }
    }

    #[test]
    fn plans_that_make_no_sense_are_refused() {
        assert!(Place::of(&plan(), node(1)).is_ok());
        let refused = |plan: RingPlan, own| {
            matches!(Place::of(&plan, own).unwrap_err(), RingError::Plan { .. })
        };
        assert!(refused(plan(), node(2)));
        let (mut far, mut few, mut twice) = (plan(), plan(), plan());
        far.rank = 4;
        assert!(refused(far, node(1)));
        few.addresses.pop();
        assert!(refused(few, node(1)));
        twice.members[3] = node(0);
        assert!(refused(twice, node(1)));
    }

    /// What one member closes with, its neighbour reads back: the same culprit.
    #[test]
    fn blame_travels_in_the_close_code() {
        let place = Place::of(&plan(), node(1)).unwrap();
        let told = |error: &RingError| {
            place.closed(0, place.close_code(error).into_inner(), &error.word())
        };
        let blamed = told(&place.silent(3, 1500));
        assert_eq!(blamed.suspect(), Some(node(3)));
        assert_eq!(blamed.deed(), "has been silent for 1500 ms, says rank 0");
        assert_eq!(told(&blamed), blamed, "told on, it grows no longer");
        assert_eq!(told(&place.broken(2, "x")).suspect(), Some(node(2)));
        assert_eq!(told(&place.left(2)), place.left(2));
        assert_eq!(told(&RingError::Ended), place.left(1));
        // Who found it stays known, whoever passes it on.
        assert_eq!(told(&place.overflow(3)), place.overflow(3));
        let late = RingError::Timeout {
            what: "a hop was not done".into(),
            ms: 1,
            suspect: None,
        };
        let given_up = told(&late);
        assert!(matches!(&given_up, RingError::GaveUp { rank: 1, .. }));
        assert_eq!(given_up.suspect(), None);
        assert!(matches!(told(&given_up), RingError::GaveUp { rank: 1, .. }));
        // Codes that no member sends are the neighbour's own fault.
        for code in [
            7,
            LEFT + 4,
            BLAME + 9,
            OVERFLOW + 4,
            GAVE_UP + 4,
            5 * LEFT,
            u64::MAX >> 2,
        ] {
            assert_eq!(place.closed(0, code, "?").suspect(), Some(node(0)));
        }
        assert_eq!(place.closed(0, 0, ""), place.left(0));
    }
}
