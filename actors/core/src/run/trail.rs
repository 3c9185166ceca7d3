//! The audit trail of a run: what its members signed of their steps, held against each other.
//!
//! Members compute the same bits. So each step of which all present members have spoken is compared: the roots of the
//! gradients' sums and of the parameters, the loss; and the samples of each with its share of the batch, so that together they
//! are the batch. Whoever says something else than a majority is *named*, once in an attempt, and has no vote after that: what
//! follows from the first difference is another one. Without a majority nobody can say who is wrong, and all are named.
//!
//! To be named is news, and costs nothing: what a difference is worth is decided where a checkpoint's fingerprints are compared,
//! and by those who compute a step again. What was signed is kept as it came, to be shown then.
//!
//! **Invariants**: of a step, a member's first word in an attempt counts; nobody waits for anybody: a step of which a member said
//! nothing is passed over once all have spoken of a later one. Steps that wait lie in memory alone, at most [`MAX_WAITING_STEPS`]: after a
//! restart of the coordinator those are not compared, though what was signed is kept.

use std::collections::BTreeMap;

use cryptomind_protocol::audit::{Commitment, Commitments, Part, Parting, TrailView};
use cryptomind_protocol::task::{Event, Work};
use cryptomind_protocol::{NodeId, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Effect, Run};
use crate::audit::Opened;

/// Steps that may wait until all members have spoken of them.
pub const MAX_WAITING_STEPS: usize = 1024;
/// The most partings that a run remembers, and tells.
pub const MAX_PARTINGS: usize = 64;
/// Signed commitments of one member that are kept: the newest.
pub const MAX_KEPT: u64 = 2048;

/// How a run's members' commitments compare.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trail {
    /// Steps that were compared.
    compared: u64,
    /// The last of them.
    last: u64,
    /// By member, those that are gone included.
    said: Vec<Said>,
    parted: Vec<Parting>,
    #[serde(skip)]
    waiting: Waiting,
}

/// How far one member's word goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    node: NodeId,
    attempt: u32,
    /// The last step that it spoke of in that attempt.
    through: u64,
    /// What it signed over all attempts.
    signatures: u64,
}

/// What was said of steps that are not compared yet, by step.
#[derive(Debug, Clone, Default, PartialEq)]
struct Waiting {
    attempt: u32,
    steps: BTreeMap<u64, Vec<(NodeId, Commitment)>>,
}

/// Who is compared, in what: a group, or what is left of it.
struct Group<'a> {
    attempt: u32,
    /// The nodes of the attempt by rank.
    ranks: &'a [NodeId],
    /// Those of them that are present.
    present: &'a [NodeId],
}

impl Group<'_> {
    /// What each of those present says, by rank; nothing where one of them says nothing.
    fn all_of(&self, words: &[(NodeId, Commitment)]) -> Option<Vec<(NodeId, Commitment)>> {
        let of = |node| words.iter().find(|(other, _)| other == node).copied();
        self.present.iter().map(of).collect()
    }
}

/// A member that says of a step something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Odd {
    node: NodeId,
    step: u64,
    part: Part,
}

impl Trail {
    /// Takes what a member says. Gives the number of that signature among the member's own; nothing where it had spoken of these
    /// steps before.
    fn take(&mut self, node: NodeId, said: &Commitments) -> Option<u64> {
        let place = self.place(node, said.attempt);
        let before = &mut self.said[place];
        if said.first <= before.through {
            return None;
        }
        before.through = said.first + said.steps.len() as u64 - 1;
        let number = before.signatures;
        before.signatures += 1;
        self.waiting.add(node, said);
        Some(number)
    }

    fn place(&mut self, node: NodeId, attempt: u32) -> usize {
        let place = self.said.iter().position(|said| said.node == node);
        let place = place.unwrap_or_else(|| {
            self.said.push(Said {
                node,
                attempt,
                through: 0,
                signatures: 0,
            });
            self.said.len() - 1
        });
        let said = &mut self.said[place];
        if said.attempt != attempt {
            (said.attempt, said.through) = (attempt, 0);
        }
        place
    }

    /// The last step that all of these have spoken of, or have passed over.
    fn through(&self, group: &Group<'_>) -> u64 {
        let of = |node: &NodeId| {
            let mut said = self.said.iter();
            let said = said.find(|said| said.node == *node && said.attempt == group.attempt);
            said.map_or(0, |said| said.through)
        };
        group.present.iter().map(of).min().unwrap_or(0)
    }

    /// Compares the steps that all have spoken of. `share` is what a rank of the group computes of a step.
    fn compare(&mut self, group: &Group<'_>, share: impl Fn(u64, u32) -> u32) -> Vec<Odd> {
        let mut odd = Vec::new();
        let through = self.through(group);
        for (step, words) in self.waiting.until(through) {
            let Some(words) = group.all_of(&words) else {
                continue;
            };
            (self.compared, self.last) = (self.compared + 1, step);
            let is_known = |node: NodeId, odd: &[Odd]| {
                self.has_parted(node, group.attempt) || odd.iter().any(|odd| odd.node == node)
            };
            let votes = words.iter().filter(|(node, _)| !is_known(*node, &odd));
            let votes: Vec<_> = votes.copied().collect();
            let of_step = odd_votes(&votes).into_iter();
            let of_step = of_step.chain(odd_samples(&words, group, |rank| share(step, rank)));
            for (node, part) in of_step {
                if !is_known(node, &odd) {
                    odd.push(Odd { node, step, part });
                }
            }
        }
        odd
    }

    fn has_parted(&self, node: NodeId, attempt: u32) -> bool {
        let mut parted = self.parted.iter();
        parted.any(|parting| parting.node == node && parting.attempt == attempt)
    }

    /// One that remembers as many partings as it can, of attempts before.
    #[cfg(test)]
    pub(super) fn flooded(node: NodeId) -> Self {
        let parting = Parting {
            attempt: 0,
            step: 1,
            node,
            name: String::new(),
            part: Part::Loss,
        };
        Self {
            parted: vec![parting; MAX_PARTINGS],
            ..Self::default()
        }
    }

    /// For clients; nothing where nobody signed anything.
    pub fn view(&self) -> Option<TrailView> {
        let signatures = self.said.iter().map(|said| said.signatures).sum();
        (signatures > 0).then(|| TrailView {
            compared: self.compared,
            last: self.last,
            signatures,
            parted: self.parted.clone(),
        })
    }
}

impl Waiting {
    fn add(&mut self, node: NodeId, said: &Commitments) {
        if self.attempt != said.attempt {
            (self.attempt, self.steps) = (said.attempt, BTreeMap::new());
        }
        for (step, commitment) in said.numbered() {
            self.steps
                .entry(step)
                .or_default()
                .push((node, *commitment));
        }
        while self.steps.len() > MAX_WAITING_STEPS {
            self.steps.pop_first();
        }
    }

    /// Takes out all steps up to this one.
    fn until(&mut self, through: u64) -> BTreeMap<u64, Vec<(NodeId, Commitment)>> {
        let later = self.steps.split_off(&through.saturating_add(1));
        std::mem::replace(&mut self.steps, later)
    }
}

/// Who computed another number of samples than its share.
fn odd_samples(
    words: &[(NodeId, Commitment)],
    group: &Group<'_>,
    share: impl Fn(u32) -> u32,
) -> Vec<(NodeId, Part)> {
    let fits = |(node, said): &&(NodeId, Commitment)| {
        let rank = group.ranks.iter().position(|other| other == node);
        rank.is_none_or(|rank| said.samples == share(rank as u32))
    };
    let odd = words.iter().filter(|word| !fits(word));
    odd.map(|(node, _)| (*node, Part::Samples)).collect()
}

/// Who says something else than the majority, or all where there is none; in the order in which one follows from the other.
fn odd_votes(votes: &[(NodeId, Commitment)]) -> Vec<(NodeId, Part)> {
    let part = |part, of: fn(&Commitment) -> Option<[u8; 32]>| {
        let said: Vec<_> = votes.iter().map(|(node, word)| (*node, of(word))).collect();
        minority(&said).into_iter().map(move |node| (node, part))
    };
    let gradients = part(Part::Gradients, |word| {
        Some(*word.roots?.gradients.as_bytes())
    });
    let parameters = part(Part::Parameters, |word| {
        Some(*word.roots?.parameters.as_bytes())
    });
    let loss = part(Part::Loss, |word| {
        let mut bits = [0; 32];
        bits[..4].copy_from_slice(&word.loss.to_bits().to_be_bytes());
        Some(bits)
    });
    gradients.chain(parameters).chain(loss).collect()
}

/// Those who do not say what more than half say.
fn minority<T: PartialEq>(said: &[(NodeId, T)]) -> Vec<NodeId> {
    let count = |value: &T| said.iter().filter(|(_, other)| other == value).count();
    let majority = said.iter().find(|(_, value)| count(value) * 2 > said.len());
    let odd = said
        .iter()
        .filter(|(_, value)| majority.is_none_or(|(_, most)| most != value));
    odd.map(|(node, _)| *node).collect()
}

impl Run {
    /// A member shows what it signed of its steps. What is not of this attempt, or of no step that it has, changes nothing.
    pub(super) fn committed(
        &mut self,
        node: NodeId,
        opened: Opened,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let (said, signed) = opened.into_parts();
        if !self.may_say(node, &said) || !self.hear_from(node, now) {
            return;
        }
        let Some(number) = self.trail.take(node, &said) else {
            return;
        };
        effects.push(Effect::Keep {
            node,
            number,
            commitments: signed,
        });
        self.compare_trail(effects);
    }

    fn may_say(&self, node: NodeId, said: &Commitments) -> bool {
        let last = said.first + said.steps.len() as u64 - 1;
        self.is_training()
            && said.attempt == self.attempt
            && self.group.get(said.rank as usize) == Some(&node)
            && said.first > self.start_step
            && last <= self.terms.extent.steps
    }

    fn compare_trail(&mut self, effects: &mut Vec<Effect>) {
        let present = self.nodes();
        let group = Group {
            attempt: self.attempt,
            ranks: &self.group,
            present: &present,
        };
        let (shares, work) = (self.shares_of_group(), &self.spec.work);
        let samples = self.terms.extent.samples.into();
        let share = |step, rank| shares.part_len(batch_of(work, step, samples), rank);
        for odd in self.trail.compare(&group, share) {
            self.name(odd, effects);
        }
    }

    fn name(&mut self, Odd { node, step, part }: Odd, effects: &mut Vec<Effect>) {
        let attempt = self.attempt;
        let Some(name) = self.seat(node).map(|seat| seat.member.name.clone()) else {
            return;
        };
        if self.trail.parted.len() >= MAX_PARTINGS {
            return;
        }
        self.trail.parted.push(Parting {
            attempt,
            step,
            node,
            name: name.clone(),
            part,
        });
        self.tell(
            Event::Parted {
                node,
                name,
                step,
                part,
            },
            effects,
        );
    }
}

/// Samples of a step's global batch.
fn batch_of(work: &Work, step: u64, samples: u64) -> u32 {
    let Work::Train { train, .. } = work else {
        return 0;
    };
    let until = |step| train.samples_after(step, samples);
    u32::try_from(until(step) - until(step.saturating_sub(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
