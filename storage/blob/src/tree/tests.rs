use std::io::Read;

use proptest::prelude::*;

use super::*;

const CHUNK: usize = CHUNK_BYTES;

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i % 251) as u8 ^ (i >> 13) as u8)
        .collect()
}

/// Hands out its bytes in pieces of awkward sizes.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(buffer.len()).min(self.0.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn check(data: &[u8]) {
    let tree = HashTree::of_bytes(data);
    assert_eq!(tree.root().as_bytes(), blake3::hash(data).as_bytes());
    assert_eq!(tree.root(), BlobId::of_bytes(data));
    assert_eq!(HashTree::of_reader(Trickle(data, 7919)).unwrap(), tree);
    assert_eq!(HashTree::from_bytes(&tree.to_bytes()).unwrap(), tree);
    for (chunk, index) in data.chunks(CHUNK).zip(0..) {
        assert_eq!(tree.chunk_len(index), chunk.len());
        tree.verify_chunk(index, chunk).unwrap();
    }
}

#[test]
fn the_root_is_the_plain_hash_at_every_edge() {
    let edges = [0, 1, 1023, 1024, 1025, CHUNK - 1, CHUNK, CHUNK + 1];
    let many = [2, 3, 4, 5, 7, 8, 9, 16, 17, 31, 33].map(|n| n * CHUNK);
    for len in edges.into_iter().chain(many) {
        check(&pattern(len));
        check(&pattern(len + 1));
        check(&pattern(len.saturating_sub(1)));
    }
}

#[test]
fn an_empty_blob_has_no_chunk() {
    let tree = HashTree::of_bytes(&[]);
    assert_eq!((tree.count(), tree.bytes()), (0, 0));
    let refusal = VerifyError::NoSuchChunk { index: 0, count: 0 };
    assert_eq!(tree.verify_chunk(0, &[]), Err(refusal));
}

#[test]
fn the_number_of_hashes_must_be_that_of_the_length() {
    let chunks = HashTree::of_bytes(&pattern(3 * CHUNK)).chunks().to_vec();
    for bytes in [0, 1, 2 * CHUNK, 3 * CHUNK + 1] {
        let refusal = HashTree::from_chunks(bytes as u64, chunks.clone()).unwrap_err();
        assert!(matches!(refusal, VerifyError::ChunkCount { got: 3, .. }));
    }
    let refusal = HashTree::from_chunks(u64::MAX, chunks).unwrap_err();
    assert_eq!(refusal, VerifyError::TooLarge { bytes: u64::MAX });
}

#[test]
fn inner_nodes_cannot_pass_for_chunks() {
    // The two halves of a blob of four chunks have its root, but no bytes of one chunk match them.
    let data = pattern(4 * CHUNK);
    let tree = HashTree::of_bytes(&data);
    let halves = vec![subtree(&tree.chunks[..2]), subtree(&tree.chunks[2..])];
    let forged = HashTree::from_chunks(2 * CHUNK as u64, halves).unwrap();
    assert_eq!(forged.root(), tree.root());
    let refusal = Err(VerifyError::ChunkHash { index: 0 });
    assert_eq!(forged.verify_chunk(0, &data[..CHUNK]), refusal);
}

#[test]
fn a_tree_cut_short_is_none() {
    let bytes = HashTree::of_bytes(&pattern(3 * CHUNK)).to_bytes();
    for cut in [0, 7, 8, 9, 8 + 32, bytes.len() - 1] {
        assert_eq!(HashTree::from_bytes(&bytes[..cut]), None, "cut at {cut}");
    }
    assert_eq!(HashTree::from_bytes(&[0xff; 40]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_root_is_the_plain_hash(len in 0..20 * CHUNK, seed: u8) {
        let mut data = pattern(len);
        data.iter_mut().for_each(|b| *b = b.wrapping_mul(seed | 1));
        check(&data);
    }

    #[test]
    fn any_flipped_bit_is_seen(len in 1..4 * CHUNK, at: prop::sample::Index, bit in 0..8u8) {
        let mut data = pattern(len);
        let tree = HashTree::of_bytes(&data);
        let at = at.index(len);
        data[at] ^= 1 << bit;
        let index = (at / CHUNK) as u64;
        let chunk = data.chunks(CHUNK).nth(at / CHUNK).unwrap();
        prop_assert_eq!(tree.verify_chunk(index, chunk), Err(VerifyError::ChunkHash { index }));
    }

    #[test]
    fn a_chunk_in_another_place_or_length_is_refused(len in CHUNK + 1..6 * CHUNK, cut in 1..CHUNK) {
        let data = vec![7; len];
        let tree = HashTree::of_bytes(&data);
        prop_assert!(tree.verify_chunk(0, &data[..CHUNK - cut]).is_err());
        prop_assert!(tree.verify_chunk(tree.count(), &data[..CHUNK]).is_err());
        // Equal bytes elsewhere hash differently: the place is part of the hash.
        prop_assert_ne!(hash_chunk(0, &data[..CHUNK], false), hash_chunk(1, &data[..CHUNK], false));
    }
}
