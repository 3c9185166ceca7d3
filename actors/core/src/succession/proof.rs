//! What a decision proves to whoever was not there.

use cryptomind_protocol::task::MAX_GROUP;

use super::*;

/// A decision whose votes are signed, and for what it says: what is left to know is whether the voters are a majority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    task: TaskId,
    attempt: u32,
    successor: Successor,
    voters: BTreeSet<NodeId>,
}

impl Proof {
    /// Opens a decision. Nothing where there is no vote in it, or one that is not signed or not for the same as the others,
    /// or more of them than a group can have members.
    pub fn of(decision: &Decision, network: &GenesisHash) -> Option<Self> {
        let successor = decision.successor.clone();
        if decision.votes.len().max(successor.members.len()) > MAX_GROUP as usize {
            return None;
        }
        let open = |signed: &Signed| {
            let vote = signed.verify::<Vote>(network).ok()?;
            Some((NodeId::of_key(&signed.signer), vote))
        };
        let votes: Option<Vec<_>> = decision.votes.iter().map(open).collect();
        let votes = votes?;
        let (_, first) = *votes.first()?;
        let is_sound = first.version == 1
            && first.attempt.checked_add(1) == Some(decision.attempt)
            && first.successor == successor.digest()
            && votes.iter().all(|(_, vote)| *vote == first);
        is_sound.then(|| Self {
            task: first.task,
            attempt: decision.attempt,
            successor,
            voters: votes.into_iter().map(|(node, _)| node).collect(),
        })
    }

    /// Which attempt begins.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Who goes on, from where.
    pub const fn successor(&self) -> &Successor {
        &self.successor
    }

    /// Whether the voters are a strict majority of `members`, who made up the attempt of this task that is left, and the
    /// successor one of them.
    pub fn follows(&self, task: TaskId, members: &[NodeId]) -> bool {
        let voters = members.iter().filter(|node| self.voters.contains(node));
        self.task == task && voters.count() * 2 > members.len() && is_of(&self.successor, members)
    }
}

/// Whether a successor can follow an attempt of these members: a strict majority of them, in the order of their ranks.
pub fn is_of(successor: &Successor, members: &[NodeId]) -> bool {
    let mut ranks = members.iter();
    let in_order = successor
        .members
        .iter()
        .all(|node| ranks.any(|n| n == node));
    in_order
        && successor.ring_addresses.len() == successor.members.len()
        && successor.members.len() * 2 > members.len()
}
