//! The root of an arena: a hash of all its values, of two levels, so that threads share the work and that two members
//! whose roots differ find the block in which they part by comparing one list.
//!
//! A block's hash is BLAKE3 of its values, little-endian. The root is BLAKE3, deriving a key under a context, of the number of
//! values and the hashes of all blocks in order. Neither depends on the number of threads. The values' order is the
//! arena's, which is canonical: equal on all machines.

use cryptomind_protocol::key::Hash;

use crate::kernel::parallel::{Rows, each};
use crate::weights;

/// Values of a block: 64 KiB.
const BLOCK_VALUES: usize = 1 << 14;
/// Another form of root gets another number.
const CONTEXT: &str = "cryptomind arena root/1";

/// The root of these values, on at most so many threads.
pub(crate) fn root(values: &[f32], threads: usize) -> Hash {
    let mut blocks = vec![[0; blake3::OUT_LEN]; values.len().div_ceil(BLOCK_VALUES)];
    each(
        threads,
        blocks.len(),
        Rows::new(&mut blocks, 1),
        |range, hashes| {
            let blocks = values.chunks(BLOCK_VALUES).skip(range.start);
            for (hash, block) in hashes.values.iter_mut().zip(blocks) {
                *hash = hash_of(block);
            }
        },
    );
    let mut root = blake3::Hasher::new_derive_key(CONTEXT);
    root.update(&(values.len() as u64).to_le_bytes());
    root.update(blocks.as_flattened());
    Hash::new(*root.finalize().as_bytes())
}

fn hash_of(block: &[f32]) -> [u8; blake3::OUT_LEN] {
    let mut hasher = blake3::Hasher::new();
    weights::each_block(block, |bytes| {
        hasher.update(bytes);
    });
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| i as f32 * 0.37 - 5.0).collect()
    }

    /// By the words above, without anything of the code.
    fn naive(values: &[f32]) -> Hash {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut all = (values.len() as u64).to_le_bytes().to_vec();
        for block in bytes.chunks(64 * 1024) {
            all.extend_from_slice(blake3::hash(block).as_bytes());
        }
        Hash::new(blake3::derive_key("cryptomind arena root/1", &all))
    }

    #[test]
    fn a_root_is_what_it_says_on_any_number_of_threads() {
        for n in [
            0,
            1,
            BLOCK_VALUES - 1,
            BLOCK_VALUES,
            BLOCK_VALUES + 1,
            100_003,
        ] {
            let values = values(n);
            for threads in [1, 2, 3, 7] {
                assert_eq!(root(&values, threads), naive(&values), "{n} on {threads}");
            }
        }
    }

    #[test]
    fn a_bit_anywhere_makes_another_root() {
        let mut values = values(3 * BLOCK_VALUES);
        let before = root(&values, 2);
        for place in [0, BLOCK_VALUES, 2 * BLOCK_VALUES - 1, 3 * BLOCK_VALUES - 1] {
            let value = values[place];
            values[place] = f32::from_bits(value.to_bits() ^ 1);
            assert_ne!(root(&values, 2), before, "{place}");
            values[place] = value;
        }
        values[0] = -0.0;
        let minus = root(&values, 2);
        values[0] = 0.0;
        assert_ne!(root(&values, 2), minus, "bits count, not values");
    }
}
