//! Memory of what is on its way out: blocks that come back once QUIC has its acknowledgement. Taken from the system each time,
//! their pages would be given back and cleared over and over.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::collective::BLOCK_BYTES;

/// Blocks that are kept while nobody uses them: what a link has under way.
const KEPT: usize = 64;

/// Blocks to fill. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Blocks(Arc<Mutex<Vec<Block>>>);

type Block = Box<[u8]>;

impl Blocks {
    /// A block that `fill` has written to the beginning of, as far as it says.
    pub(super) fn fill(&self, fill: impl FnOnce(&mut [u8]) -> usize) -> Bytes {
        let mut block = self.take();
        let filled = fill(&mut block);
        let lent = Lent {
            block,
            home: self.clone(),
        };
        match filled {
            0 => Bytes::new(),
            _ => Bytes::from_owner(lent).slice(..filled),
        }
    }

    fn take(&self) -> Block {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; BLOCK_BYTES].into())
    }

    fn put(&self, block: Block) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            kept.push(block);
        }
    }
}

/// Goes home when the last of its bytes is dropped.
struct Lent {
    block: Block,
    home: Blocks,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.block
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_when_the_last_of_their_bytes_is_dropped() {
        let blocks = Blocks::default();
        let kept = || blocks.0.lock().unwrap().len();
        let mut bytes = blocks.fill(|block| {
            block[..3].copy_from_slice(&[1, 2, 3]);
            3
        });
        let head = bytes.split_to(1);
        drop(bytes);
        assert_eq!((&head[..], kept()), (&[1][..], 0));
        drop(head);
        assert_eq!(kept(), 1);
        assert!(blocks.fill(|_| 0).is_empty());
        assert_eq!(kept(), 1, "the same once more");
        let many: Vec<_> = (0..2 * KEPT).map(|_| blocks.fill(|_| 1)).collect();
        drop(many);
        assert_eq!(kept(), KEPT);
    }
}
