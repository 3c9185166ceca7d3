//! Giving a blob out. Disks forget and lie: every chunk is verified as it is read.

use std::fs::File;
use std::io;

use cryptomind_blob::{BlobError, FileReader, HashTree, VerifyError};
use cryptomind_protocol::BlobId;

use super::layout::Layout;
use crate::StoreError;
use crate::error::Damage;

/// A stored blob, open for reading. It can be read to its end though it be removed meanwhile.
#[derive(Debug)]
pub struct StoredBlob {
    id: BlobId,
    reader: FileReader,
}

impl StoredBlob {
    pub(super) fn open(layout: &Layout, id: BlobId, bytes: u64) -> Result<Self, StoreError> {
        let damaged = |source| StoreError::Damaged { blob: id, source };
        let path = layout.data(&id);
        let file = File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => damaged(Damage::Gone),
            _ => StoreError::io("open", &path)(e),
        })?;
        let tree = HashTree::load(&layout.tree(&id))
            .filter(|tree| tree.bytes() == bytes && tree.root() == id)
            .ok_or_else(|| damaged(Damage::Hashes))?;
        let reader = FileReader::with_tree(file, tree);
        Ok(Self { id, reader })
    }

    /// The blob's id.
    pub const fn id(&self) -> BlobId {
        self.id
    }

    /// Its length.
    pub const fn bytes(&self) -> u64 {
        self.reader.tree().bytes()
    }

    /// Its length and chunk hashes, verified against its id.
    pub const fn tree(&self) -> &HashTree {
        self.reader.tree()
    }

    /// Reads chunk `index` and holds it against its hash.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the disk lost or changed bytes; when there is no such chunk.
    pub fn chunk(&mut self, index: u64) -> Result<Vec<u8>, StoreError> {
        self.reader
            .chunk(index)
            .map_err(|e| self.read_error(index, e))
    }

    fn read_error(&self, index: u64, error: io::Error) -> StoreError {
        let (blob, count) = (self.id, self.tree().count());
        let source = match error.kind() {
            io::ErrorKind::InvalidInput => {
                return BlobError::from(VerifyError::NoSuchChunk { index, count }).into();
            }
            io::ErrorKind::InvalidData => Damage::Chunk(VerifyError::ChunkHash { index }),
            io::ErrorKind::UnexpectedEof => Damage::CutOff { index },
            _ => Damage::Unreadable {
                index,
                reason: error.to_string(),
            },
        };
        StoreError::Damaged { blob, source }
    }
}
