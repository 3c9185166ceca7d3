//! Which samples a step trains on, and which of them a rank takes.
//!
//! The global batch is a function of (seed, epoch, step) and of nothing else: not of the group's
//! size, not of who computes. So a run that lost a member, or was resumed elsewhere, goes on with
//! the very samples that it would have had.
//!
//! An epoch visits every sample once, in the order of a Fisher–Yates shuffle (Durstenfeld, 1964)
//! driven by BLAKE3's extendable output under (seed, epoch). The order is part of what a task
//! pays for: a test pins it.

use blake3::OutputReader;

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

/// The samples of `batch` that rank `rank` of `world` computes: the ranks' parts are contiguous, follow
/// one another, and differ by one sample at most. Nothing for a rank that does not exist.
pub fn share(batch: &[u32], rank: u32, world: u32) -> &[u32] {
    if rank >= world {
        return &[];
    }
    let samples = batch.len() as u64;
    let cut = |rank| cut(samples, rank, world) as usize;
    &batch[cut(rank)..cut(rank + 1)]
}

/// How many of a batch of so many samples rank `rank` of `world` computes: the length of its [`share`].
pub const fn share_len(samples: u32, rank: u32, world: u32) -> u32 {
    if rank >= world {
        return 0;
    }
    (cut(samples as u64, rank + 1, world) - cut(samples as u64, rank, world)) as u32
}

/// Where the share of rank `rank` begins.
const fn cut(samples: u64, rank: u32, world: u32) -> u64 {
    let (part, more) = (samples / world as u64, samples % world as u64);
    let rank = rank as u64;
    part * rank + if more < rank { more } else { rank }
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
