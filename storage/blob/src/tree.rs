//! The hash tree of a blob, cut at 64 KiB: BLAKE3 chaining values of its chunks.
//!
//! BLAKE3 hashes a tree whose left subtrees are full powers of two, so every aligned 64 KiB run is
//! one subtree (Aumasson, Neves, O'Connor, Wilcox-O'Hearn: BLAKE3, section 2.1). Merging the
//! chunks' chaining values gives the plain hash of the whole, for every length. A blob of one chunk
//! has no inner node: its only "chunk hash" is the root itself. An empty blob has no chunk.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use blake3::hazmat::{self, HasherExt, Mode};
use cryptomind_protocol::BlobId;

use crate::{CHUNK_BYTES, VerifyError};

/// The longest blob, in bytes (64 GiB): its chunk hashes are 32 MiB, which fit in memory.
pub const MAX_BLOB_BYTES: u64 = 64 * 1024 * 1024 * 1024;

const HASH_BYTES: usize = 32;
const LENGTH_BYTES: usize = 8;

/// Chunks of a blob of `bytes` bytes; an empty blob has none.
pub const fn chunk_count(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK_BYTES as u64)
}

/// Bytes of chunk `index` of a blob of `bytes` bytes; 0 beyond its end.
pub const fn chunk_len(bytes: u64, index: u64) -> usize {
    let start = index.saturating_mul(CHUNK_BYTES as u64);
    let rest = bytes.saturating_sub(start);
    if rest < CHUNK_BYTES as u64 {
        rest as usize
    } else {
        CHUNK_BYTES
    }
}

/// A blob's length and the hashes of its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashTree {
    bytes: u64,
    chunks: Vec<[u8; HASH_BYTES]>,
}

impl HashTree {
    /// Hashes what lies in memory.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let is_root = bytes.len() <= CHUNK_BYTES;
        let chunks = bytes.chunks(CHUNK_BYTES).zip(0..);
        Self {
            bytes: bytes.len() as u64,
            chunks: chunks
                .map(|(chunk, index)| hash_chunk(index, chunk, is_root))
                .collect(),
        }
    }

    /// Hashes a stream to its end, a chunk at a time.
    ///
    /// # Errors
    /// What the reader says; `FileTooLarge` beyond [`MAX_BLOB_BYTES`].
    pub fn of_reader(mut reader: impl Read) -> io::Result<Self> {
        let mut tree = Self {
            bytes: 0,
            chunks: Vec::new(),
        };
        let mut first_as_root = None;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let filled = fill(&mut reader, &mut buffer)?;
            if filled == 0 {
                break;
            }
            tree.push(&buffer[..filled])?;
            // Only the end tells whether the first chunk is the whole blob.
            first_as_root.get_or_insert_with(|| hash_chunk(0, &buffer[..filled], true));
        }
        if let (Some(root), [only]) = (first_as_root, tree.chunks.as_mut_slice()) {
            *only = root;
        }
        Ok(tree)
    }

    fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.bytes += chunk.len() as u64;
        if self.bytes > MAX_BLOB_BYTES {
            let refusal = VerifyError::TooLarge { bytes: self.bytes };
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, refusal));
        }
        let index = self.chunks.len() as u64;
        self.chunks.push(hash_chunk(index, chunk, false));
        Ok(())
    }

    /// Takes the chunk hashes that a peer sent. Compare [`Self::root`] with the wanted id next.
    ///
    /// # Errors
    /// When there are more or fewer hashes than a blob of `bytes` bytes has chunks, or it is too long.
    pub fn from_chunks(bytes: u64, chunks: Vec<[u8; 32]>) -> Result<Self, VerifyError> {
        if bytes > MAX_BLOB_BYTES {
            return Err(VerifyError::TooLarge { bytes });
        }
        let (expected, got) = (chunk_count(bytes), chunks.len() as u64);
        if expected != got {
            return Err(VerifyError::ChunkCount {
                bytes,
                expected,
                got,
            });
        }
        Ok(Self { bytes, chunks })
    }

    /// The blob's id: the plain BLAKE3 hash of all its bytes.
    pub fn root(&self) -> BlobId {
        BlobId::new(match self.chunks.as_slice() {
            [] => *blake3::hash(&[]).as_bytes(),
            [only] => *only,
            chunks => {
                let (left, right) = chunks.split_at(left_chunks(chunks.len()));
                let (left, right) = (subtree(left), subtree(right));
                *hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
            }
        })
    }

    /// The hashes of the chunks, in order.
    pub fn chunks(&self) -> &[[u8; 32]] {
        &self.chunks
    }

    /// Chunks of the blob.
    pub const fn count(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// The blob's length in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of chunk `index`; 0 beyond the end.
    pub const fn chunk_len(&self, index: u64) -> usize {
        chunk_len(self.bytes, index)
    }

    /// Holds the bytes of chunk `index` against their hash.
    ///
    /// # Errors
    /// When the blob has no such chunk, or these are not its bytes.
    pub fn verify_chunk(&self, index: u64, data: &[u8]) -> Result<(), VerifyError> {
        let count = self.count();
        let hash = usize::try_from(index)
            .ok()
            .and_then(|i| self.chunks.get(i))
            .ok_or(VerifyError::NoSuchChunk { index, count })?;
        let expected = self.chunk_len(index);
        if data.len() != expected {
            let got = data.len();
            return Err(VerifyError::ChunkLength {
                index,
                expected,
                got,
            });
        }
        if hash_chunk(index, data, count == 1) == *hash {
            Ok(())
        } else {
            Err(VerifyError::ChunkHash { index })
        }
    }

    /// The form in which a tree lies beside its file: the length as u64 big-endian, then the hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH_BYTES + self.chunks.len() * HASH_BYTES);
        out.extend_from_slice(&self.bytes.to_be_bytes());
        out.extend(self.chunks.iter().flatten());
        out
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` for anything else. Its root is not checked.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, hashes) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
        let (chunks, rest) = hashes.as_chunks::<HASH_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        Self::from_chunks(u64::from_be_bytes(*length), chunks.to_vec()).ok()
    }

    /// Bytes of [`Self::to_bytes`] for a blob of `bytes` bytes.
    pub const fn stored_bytes(bytes: u64) -> u64 {
        LENGTH_BYTES as u64 + HASH_BYTES as u64 * chunk_count(bytes)
    }

    /// Reads the tree in the file at `path`; `None` where there is none, or not a whole one. Its
    /// root is not checked.
    pub fn load(path: &Path) -> Option<Self> {
        let most = Self::stored_bytes(MAX_BLOB_BYTES);
        let mut bytes = Vec::new();
        let file = File::open(path).ok()?;
        file.take(most + 1).read_to_end(&mut bytes).ok()?;
        Self::from_bytes(&bytes)
    }
}

/// The hash of one chunk: a chaining value, or the root where it is the whole blob.
fn hash_chunk(index: u64, data: &[u8], is_root: bool) -> [u8; HASH_BYTES] {
    let mut hasher = blake3::Hasher::new();
    if is_root {
        return *hasher.update(data).finalize().as_bytes();
    }
    hasher.set_input_offset(index * CHUNK_BYTES as u64);
    hasher.update(data).finalize_non_root()
}

fn subtree(chunks: &[[u8; HASH_BYTES]]) -> [u8; HASH_BYTES] {
    if let [only] = chunks {
        return *only;
    }
    let (left, right) = chunks.split_at(left_chunks(chunks.len()));
    hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// Chunks in the left half of a tree: the largest power of two below `count`, which is 2 or more.
const fn left_chunks(count: usize) -> usize {
    1 << (count - 1).ilog2()
}

/// Reads until the buffer is full or the stream ends; a short read alone means nothing.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
