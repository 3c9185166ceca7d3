//! Which samples a step trains on, and which of them a rank takes.
//!
//! **Used by** the training thread, which computes its rank's part, and by the coordinator, which holds what a rank signed
//! against that: so both cut by the same lines.
//!
//! The global batch is a function of (seed, epoch, step) and of nothing else: not of the group's
//! size, not of who computes. So a run that lost a member, or was resumed elsewhere, goes on with
//! the very samples that it would have had.
//!
//! An epoch visits every sample once, in the order of a Fisher–Yates shuffle (Durstenfeld, 1964)
//! driven by BLAKE3's extendable output under (seed, epoch). The order is part of what a task
//! pays for: a test pins it.

use std::ops::Range;

use blake3::OutputReader;
use cryptomind_protocol::NodeId;
use cryptomind_protocol::batch::Weight;
use serde::{Deserialize, Serialize};

use crate::division::divide;

/// The order of one epoch's samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    order: Vec<u32>,
}

impl Epoch {
    /// The order of `samples` samples in epoch `epoch` (from 0) of a run with `seed`. Takes four
    /// bytes a sample.
    pub fn new(seed: u64, epoch: u64, samples: u32) -> Self {
        let mut order: Vec<u32> = (0..samples).collect();
        let mut draws = Draws::new(seed, epoch);
        for last in (1..order.len()).rev() {
            order.swap(last, draws.below(last as u64 + 1) as usize);
        }
        Self { order }
    }

    /// The global batch of a step of this epoch, counted from 0: `global_batch` sample indices, fewer
    /// in the last step, none after it.
    pub fn step(&self, step_in_epoch: u64, global_batch: u32) -> &[u32] {
        let samples = self.order.len() as u64;
        let start = step_in_epoch
            .saturating_mul(global_batch.into())
            .min(samples);
        let end = start.saturating_add(global_batch.into()).min(samples);
        &self.order[start as usize..end as usize]
    }
}

/// The epoch of a run's step and its place in it, both from 0, with `steps_per_epoch` steps each.
///
/// # Panics
/// Where an epoch has no steps.
pub const fn place(step: u64, steps_per_epoch: u64) -> (u64, u64) {
    (step / steps_per_epoch, step % steps_per_epoch)
}

/// How a group divides its batches: a weight for each rank, for as long as the attempt lasts.
///
/// The ranks' parts of a batch are contiguous, follow one another, and are together the batch. A rank's part differs by less
/// than one sample from what its weight makes of the whole: see [`divide`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Shares(Vec<Weight>);

impl Shares {
    /// Of ranks with these weights.
    pub const fn new(weights: Vec<Weight>) -> Self {
        Self(weights)
    }

    /// Of so many ranks that compute alike.
    pub fn equal(world: u32) -> Self {
        Self(vec![Weight::default(); world as usize])
    }

    /// Of `world` ranks as messages tell them, who say nothing of ranks that compute alike. Nothing where they are about
    /// another number of ranks.
    pub fn told(weights: &[Weight], world: usize) -> Option<Self> {
        match weights.len() {
            0 => Some(Self::equal(u32::try_from(world).ok()?)),
            count => (count == world).then(|| Self(weights.to_vec())),
        }
    }

    /// The weights by rank.
    pub fn weights(&self) -> &[Weight] {
        &self.0
    }

    /// As messages tell them.
    pub fn tell(&self) -> Vec<Weight> {
        match self.0.windows(2).all(|pair| pair[0] == pair[1]) {
            true => Vec::new(),
            false => self.0.clone(),
        }
    }

    /// Some bits that other divisions hardly share: as many as f32 holds exactly.
    pub fn print(&self) -> f32 {
        let mut hasher = blake3::Hasher::new();
        for weight in self.tell() {
            hasher.update(&weight.get().to_be_bytes());
        }
        let hash = hasher.finalize();
        let bytes = hash.as_bytes();
        u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as f32
    }

    /// Of `after`, where `before` had these: each keeps its weight. Whoever had none weighs as much as the heaviest.
    #[must_use]
    pub fn kept(&self, before: &[NodeId], after: &[NodeId]) -> Self {
        let heaviest = self.0.iter().max().copied().unwrap_or_default();
        let weight = |node: &NodeId| {
            let rank = before.iter().position(|known| known == node);
            let weight = rank.and_then(|rank| self.0.get(rank));
            weight.copied().unwrap_or(heaviest)
        };
        Self(after.iter().map(weight).collect())
    }

    /// The samples of `batch` that a rank computes. Nothing for a rank that does not exist.
    pub fn part<'a>(&self, batch: &'a [u32], rank: u32) -> &'a [u32] {
        let range = self.range(batch.len() as u64, rank);
        &batch[range.start as usize..range.end as usize]
    }

    /// How many of a batch of so many samples a rank computes: the length of its [`Shares::part`].
    pub fn part_len(&self, samples: u32, rank: u32) -> u32 {
        let range = self.range(samples.into(), rank);
        // No longer than the batch.
        (range.end - range.start) as u32
    }

    fn range(&self, samples: u64, rank: u32) -> Range<u64> {
        let weights: Vec<u64> = self.0.iter().map(|weight| weight.get().into()).collect();
        let parts = divide(samples, &weights);
        let rank = (rank as usize).min(parts.len());
        let start = parts[..rank].iter().sum();
        start..start + parts.get(rank).copied().unwrap_or_default()
    }
}

/// Numbers drawn from BLAKE3 output in counter mode: the n-th word is the same on every machine.
struct Draws {
    output: OutputReader,
    buffer: [u8; 1024],
    used: usize,
}

impl Draws {
    fn new(seed: u64, epoch: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("cryptomind/batch/1");
        hasher.update(&seed.to_be_bytes());
        hasher.update(&epoch.to_be_bytes());
        Self {
            output: hasher.finalize_xof(),
            buffer: [0; 1024],
            used: 1024,
        }
    }

    fn word(&mut self) -> u64 {
        if self.used == self.buffer.len() {
            self.output.fill(&mut self.buffer);
            self.used = 0;
        }
        let mut word = [0; 8];
        word.copy_from_slice(&self.buffer[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(word)
    }

    /// A number below `bound`, each with the same probability (Lemire, 2019): words whose product
    /// falls into the incomplete last interval are drawn again.
    fn below(&mut self, bound: u64) -> u64 {
        let uneven = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.word()) * u128::from(bound);
            if product as u64 >= uneven {
                return (product >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests;
