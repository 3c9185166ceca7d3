//! Randomness as a function of a purpose, a seed and a name: BLAKE3's extendable output, read as a
//! counter-based generator. The same on every machine; nothing is shared between two streams.

use blake3::{Hasher, OutputReader};

/// Bytes that are drawn at once.
const BLOCK_BYTES: usize = 1024;

/// An endless stream of random numbers.
pub(crate) struct Stream {
    output: OutputReader,
    block: [u8; BLOCK_BYTES],
    used: usize,
}

impl Stream {
    /// The stream for this purpose (a constant of the program), seed and name.
    pub(crate) fn new(purpose: &str, seed: u64, name: &str) -> Self {
        let mut hasher = Hasher::new_derive_key(purpose);
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        Self {
            output: hasher.finalize_xof(),
            block: [0; BLOCK_BYTES],
            used: BLOCK_BYTES,
        }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > BLOCK_BYTES {
            self.output.fill(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.block[self.used..self.used + N]);
        self.used += N;
        bytes
    }

    /// Uniform in −1 (inclusive) to 1 (exclusive), in steps of 2⁻²³: every value is exact.
    pub(crate) fn signed_unit(&mut self) -> f32 {
        let bits = u32::from_le_bytes(self.bytes()) >> 8;
        bits as f32 * (1.0 / (1 << 23) as f32) - 1.0
    }

    /// Uniform below `bound`, which is not 0 (Lemire, 2019: multiply, reject the uneven rest).
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let uneven = bound.wrapping_neg() % bound;
        loop {
            let draw = u64::from_le_bytes(self.bytes());
            let wide = u128::from(draw) * u128::from(bound);
            if wide as u64 >= uneven {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Shuffles in place (Fisher and Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_purpose_seed_and_name_and_repeat() {
        let first = |purpose, seed, name| Stream::new(purpose, seed, name).below(u64::MAX);
        assert_eq!(first("a", 1, "x"), first("a", 1, "x"));
        for other in [first("b", 1, "x"), first("a", 2, "x"), first("a", 1, "y")] {
            assert_ne!(first("a", 1, "x"), other);
        }
    }

    #[test]
    fn values_are_in_range_and_centred() {
        let mut stream = Stream::new("test", 7, "range");
        let values: Vec<f32> = (0..100_000).map(|_| stream.signed_unit()).collect();
        assert!(values.iter().all(|v| (-1.0..1.0).contains(v)));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.01, "{mean}");
    }

    #[test]
    fn a_shuffle_moves_and_loses_nothing() {
        let mut items: Vec<u32> = (0..1000).collect();
        Stream::new("test", 7, "shuffle").shuffle(&mut items);
        let fixed = (0..1000).filter(|i| items[*i] == *i as u32).count();
        assert!(fixed < 20, "{fixed} stayed");
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
