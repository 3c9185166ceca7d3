//! What a decision proves to whoever was not there.

use super::*;

impl Successor {
    /// What a vote for it names.
    pub fn digest(&self) -> Hash {
        Hash::of(&codec::encode(self))
    }

    /// Whether it can follow an attempt of these members: a strict majority of them, in the order of their ranks.
    pub fn is_of(&self, members: &[NodeId]) -> bool {
        let mut ranks = members.iter();
        let in_order = self.members.iter().all(|node| ranks.any(|n| n == node));
        in_order
            && self.ring_addresses.len() == self.members.len()
            && self.members.len() * 2 > members.len()
    }
}

impl Decision {
    /// Whether its votes are those of a strict majority of `members`, the last attempt's, for this successor. Who signed
    /// a vote is for the caller to check.
    pub fn is_proven(&self, task: TaskId, members: &[NodeId]) -> bool {
        let Some(first) = self.votes.first() else {
            return false;
        };
        let digest = self.successor.digest();
        let counts = |vote: &&Vote| {
            vote.task == task
                && vote.attempt + 1 == self.attempt
                && vote.ballot == first.ballot
                && vote.successor == digest
                && members.contains(&vote.node)
        };
        let voters = self.votes.iter().filter(counts).map(|vote| vote.node);
        let voters: BTreeSet<_> = voters.collect();
        voters.len() * 2 > members.len() && self.successor.is_of(members)
    }
}
