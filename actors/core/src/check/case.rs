//! One control task, its known answer, and whoever was heard on it.
//!
//! ```text
//! open    ── the expected answer, nobody doubted ──▶ closed: its giver is right
//!         ── another answer ──▶ doubtful: its giver is doubted, a miner of another owner is asked the same
//! doubtful ── the expected answer ──▶ closed: its giver is right, everybody doubted is wrong
//!          ── another answer ──▶ doubtful; the fifth one ──▶ closed: nobody is blamed, the expected answer is withdrawn
//! ```
//!
//! **Invariants**: whoever gave the expected answer is never found wrong; nobody is found wrong on the coordinator's word
//! alone, as it takes another owner who came to the same; nobody is found wrong twice; an owner is heard once.

use cryptomind_protocol::{AccountId, NodeId};
use serde::{Deserialize, Serialize};

/// So many answers without the expected one among them, and it is the expected one that is doubted.
pub const MAX_WITNESSES: usize = 5;

/// What somebody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What the coordinator knows as right.
    Expected,
    /// Something else: its hash.
    Other(#[serde(with = "serde_bytes")] [u8; 32]),
}

/// Somebody who was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Who.
    pub node: NodeId,
    /// Whom it works for.
    pub owner: AccountId,
    /// What it answered.
    pub answer: Answer,
}

/// What a case came to about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Its answer is right.
    Right(NodeId),
    /// Its answer is wrong.
    Wrong(NodeId),
}

/// What a case wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A miner's answer, of none of these owners.
    Ask {
        /// Owners that were heard already, sorted.
        apart_from: Vec<AccountId>,
    },
    /// Nothing.
    Closed,
}

/// A control task under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// In the order in which they were heard, each of another owner.
    witnesses: Vec<Witness>,
}

impl Case {
    /// Nobody was heard yet.
    pub const fn open() -> Self {
        Self {
            witnesses: Vec::new(),
        }
    }

    /// Hears somebody. A second word of the same owner counts for nothing, nor does one after the case was closed.
    pub fn hear(&mut self, witness: Witness) -> Vec<Finding> {
        if self.is_closed() || self.has_heard(&witness.owner) {
            return Vec::new();
        }
        self.witnesses.push(witness);
        if witness.answer != Answer::Expected {
            return Vec::new();
        }
        let mut findings = vec![Finding::Right(witness.node)];
        findings.extend(self.wrong().map(Finding::Wrong));
        findings
    }

    /// What is wanted next.
    pub fn next(&self) -> Next {
        if self.is_closed() {
            return Next::Closed;
        }
        let owners = self.witnesses.iter().map(|witness| witness.owner);
        let mut apart_from: Vec<_> = owners.collect();
        apart_from.sort_unstable();
        Next::Ask { apart_from }
    }

    /// Owners that gave another answer than the expected one and wait for what comes of it. They get no work meanwhile.
    pub fn doubted(&self) -> impl Iterator<Item = AccountId> + '_ {
        let waiting = if self.is_closed() {
            &[]
        } else {
            self.witnesses.as_slice()
        };
        waiting.iter().map(|witness| witness.owner)
    }

    /// Whether the expected answer is not to be used any more: so many others came to something else, and none to it.
    pub fn is_withdrawn(&self) -> bool {
        self.witnesses.len() >= MAX_WITNESSES && !self.is_confirmed()
    }

    fn is_closed(&self) -> bool {
        self.is_confirmed() || self.is_withdrawn()
    }

    /// Whether somebody came to the expected answer: then that was the last one heard.
    fn is_confirmed(&self) -> bool {
        let last = self.witnesses.last();
        last.is_some_and(|witness| witness.answer == Answer::Expected)
    }

    fn has_heard(&self, owner: &AccountId) -> bool {
        self.witnesses.iter().any(|heard| heard.owner == *owner)
    }

    /// Whoever gave another answer than the last one, each once: a node may have changed its owner between two answers.
    fn wrong(&self) -> impl Iterator<Item = NodeId> + '_ {
        let right = self.witnesses.last().map(|witness| witness.node);
        let others = self.witnesses.iter().enumerate();
        others.filter_map(move |(at, witness)| {
            let is_new = self.witnesses[..at].iter().all(|w| w.node != witness.node);
            (is_new && Some(witness.node) != right).then_some(witness.node)
        })
    }
}

#[cfg(test)]
mod tests;
