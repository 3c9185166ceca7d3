//! Dropout whose mask is a function of seed, tensor, step, sample and element: however a batch is
//! divided among members, they drop the same values, and the backward pass draws the mask again
//! instead of keeping it.
//!
//! The generator is Philox4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2,
//! 3"): a bijection of a counter under a key. The key is of seed, tensor and step, the counter of
//! sample and element.

use blake3::Hasher;

use super::lanes::on_vectors;
use super::parallel::{Rows, each, worth};

/// Counters that are computed side by side: lanes of a vector.
const LANES: usize = 16;
/// Numbers that they give.
const BLOCK: usize = 4 * LANES;
/// One random bit pattern for each element of a block.
type Block = [[u32; LANES]; 4];

/// Which values of a tensor are dropped in a step.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    key: [u32; 2],
    /// Random numbers below it drop.
    dropped_below: u32,
    /// What kept values are multiplied with, so that their expectation stays.
    scale: f32,
}

impl Mask {
    /// The mask that drops each value with this probability, from 0 (inclusive) to 1 (exclusive).
    /// `tensor` is a hash of the name of what is masked.
    pub fn new(probability: f32, seed: u64, tensor: &[u8; 32], step: u64) -> Self {
        assert!((0.0..1.0).contains(&probability), "a probability below 1");
        let mut hasher = Hasher::new_derive_key("cryptomind 2026 dropout mask");
        hasher.update(&seed.to_le_bytes());
        hasher.update(tensor).update(&step.to_le_bytes());
        let mut key = [0; 8];
        hasher.finalize_xof().fill(&mut key);
        let key = u64::from_le_bytes(key);
        Self {
            key: [key as u32, (key >> 32) as u32],
            dropped_below: (f64::from(probability) * 2f64.powi(32)) as u32,
            scale: (1.0 / (1.0 - f64::from(probability))) as f32,
        }
    }
}

/// Multiplies each value with 0 or 1 / (1 − probability): those of the input in the forward pass, the
/// gradient in the backward pass. `samples` are the numbers of the samples in the global batch, of
/// `width` values each.
pub fn apply(mask: &Mask, samples: &[u64], width: usize, values: &mut [f32], threads: usize) {
    assert!(width > 0, "a sample has values");
    assert_eq!(
        values.len(),
        samples.len() * width,
        "each sample has its values"
    );
    let threads = worth(threads, values.len());
    if samples.len() >= threads {
        each(
            threads,
            samples.len(),
            Rows::new(values, width),
            |range, rows| {
                let rows = rows.values.chunks_exact_mut(width);
                for (sample, row) in samples[range].iter().zip(rows) {
                    apply_from(mask, *sample, 0, row);
                }
            },
        );
        return;
    }
    // Blocks rather than samples are divided: one long sample also has work for all threads.
    let blocks = width.div_ceil(BLOCK);
    for (sample, row) in samples.iter().zip(values.chunks_exact_mut(width)) {
        each(threads, blocks, Rows::new(row, BLOCK), |range, row| {
            apply_from(mask, *sample, range.start, row.values);
        });
    }
}

/// Blocks of a sample, from the first on.
fn apply_from(mask: &Mask, sample: u64, first: usize, values: &mut [f32]) {
    on_vectors(
        values,
        #[inline(always)]
        |values| {
            for (index, block) in values.chunks_mut(BLOCK).enumerate() {
                let random = draw(mask.key, sample, (first + index) as u64);
                for (value, random) in block.iter_mut().zip(random.as_flattened()) {
                    // A product, not 0 itself: what is not a number is not hidden.
                    *value *= if *random < mask.dropped_below {
                        0.0
                    } else {
                        mask.scale
                    };
                }
            }
        },
    );
}

/// The numbers of a block: word by word, each word of all lanes.
#[inline(always)]
fn draw(key: [u32; 2], sample: u64, block: u64) -> Block {
    let first = block.wrapping_mul(LANES as u64);
    let mut words = [[0; LANES]; 4];
    let [a, b, c, d] = &mut words;
    for lane in 0..LANES {
        let counter = first.wrapping_add(lane as u64);
        [a[lane], b[lane], c[lane], d[lane]] = philox(key, counter, sample);
    }
    words
}

/// Philox4x32-10 of a counter of two halves.
#[inline(always)]
fn philox(key: [u32; 2], low: u64, high: u64) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
    const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
    const ROUNDS: usize = 10;
    let [mut k, mut l] = key;
    let [mut a, mut b] = [low as u32, (low >> 32) as u32];
    let [mut c, mut d] = [high as u32, (high >> 32) as u32];
    for _ in 0..ROUNDS {
        let first = u64::from(a).wrapping_mul(MULTIPLIERS[0]);
        let second = u64::from(c).wrapping_mul(MULTIPLIERS[1]);
        [a, b] = [(second >> 32) as u32 ^ b ^ k, second as u32];
        [c, d] = [(first >> 32) as u32 ^ d ^ l, first as u32];
        k = k.wrapping_add(WEYL[0]);
        l = l.wrapping_add(WEYL[1]);
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{same_bits, values};

    const TENSOR: [u8; 32] = [3; 32];

    fn masked(mask: &Mask, samples: &[u64], width: usize) -> Vec<f32> {
        let mut ones = vec![1.0; samples.len() * width];
        apply(mask, samples, width, &mut ones, 1);
        ones
    }

    /// The known answers of the authors' implementation, Random123.
    #[test]
    fn dropout_draws_philox() {
        let zero = draw([0, 0], 0, 0).map(|word| word[0]);
        assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let all = draw([u32::MAX; 2], u64::MAX, u64::MAX >> 4).map(|word| word[15]);
        let counter_high = u64::MAX >> 4 << 4 | 15;
        assert_eq!(counter_high, u64::MAX);
        assert_eq!(all, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    }

    #[test]
    fn dropout_drops_its_share_and_keeps_the_expectation() {
        for probability in [0.0f32, 0.1, 0.5, 0.9] {
            let mask = Mask::new(probability, 1, &TENSOR, 2);
            let output = masked(&mask, &[0, 1, 2, 3], 25_001);
            let dropped = output.iter().filter(|v| **v == 0.0).count();
            let share = dropped as f64 / output.len() as f64;
            assert!((share - f64::from(probability)).abs() < 0.006, "{share}");
            let mean = output.iter().sum::<f32>() / output.len() as f32;
            assert!((mean - 1.0).abs() < 0.03, "{mean}");
        }
    }

    #[test]
    fn dropout_depends_on_everything_that_it_is_keyed_by() {
        let one = masked(&Mask::new(0.5, 1, &TENSOR, 2), &[5], 256);
        assert_eq!(one, masked(&Mask::new(0.5, 1, &TENSOR, 2), &[5], 256));
        for (mask, sample) in [
            (Mask::new(0.5, 2, &TENSOR, 2), 5),
            (Mask::new(0.5, 1, &[4; 32], 2), 5),
            (Mask::new(0.5, 1, &TENSOR, 3), 5),
            (Mask::new(0.5, 1, &TENSOR, 2), 6),
            (Mask::new(0.5, 1, &TENSOR, 2), 5 + (1 << 32)),
        ] {
            let other = masked(&mask, &[sample], 256);
            let equal = one.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((80..176).contains(&equal), "{equal} of 256 agree");
        }
    }

    /// Ranks with other shares of a batch, and samples of other lengths, see the same mask.
    #[test]
    fn dropout_does_not_depend_on_who_computes() {
        let mask = Mask::new(0.3, 1, &TENSOR, 2);
        let whole = masked(&mask, &[0, 1, 2, 3, 4, 5, 6], 101);
        let parts = [
            masked(&mask, &[0, 1], 101),
            masked(&mask, &[2, 3, 4, 5, 6], 101),
        ];
        assert_eq!(whole, parts.concat());
        assert_eq!(whole[..64], masked(&mask, &[0], 64));
    }

    #[test]
    fn dropout_shows_broken_values() {
        let mask = Mask::new(0.0, 1, &TENSOR, 2);
        let mut output = [f32::NAN, f32::INFINITY, 2.0];
        apply(&mask, &[0], 3, &mut output, 1);
        assert!(output[0].is_nan() && output[1..] == [f32::INFINITY, 2.0]);
    }

    #[test]
    fn dropout_has_the_same_bits_on_any_number_of_threads() {
        let mask = Mask::new(0.2, 1, &TENSOR, 2);
        let x = values("x", 70_070);
        for samples in [vec![9], vec![9, 8], (0..70).collect::<Vec<u64>>()] {
            same_bits(|threads| {
                let mut output = x.clone();
                let width = x.len() / samples.len();
                apply(&mask, &samples, width, &mut output, threads);
                output
            });
        }
    }
}
