//! Whole files as blobs: one that is fetched, one that is sent.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cryptomind_protocol::BlobId;

use crate::{BlobError, CHUNK_BYTES, HashTree, Part};

/// A verified download into a file: writes `<path>.part`, which becomes `path` when it is whole and
/// durable. Dropped before that, it can be taken up again by [`FileWriter::create`].
#[derive(Debug)]
pub struct FileWriter {
    part: Part,
    target: PathBuf,
}

impl FileWriter {
    /// Starts the download of blob `id` to `path`, or goes on with one that was broken off.
    ///
    /// # Errors
    /// `ResourceBusy` while another download writes there; otherwise what the system says.
    pub fn create(path: &Path, id: BlobId) -> io::Result<Self> {
        let mut part = OsString::from(path);
        part.push(".part");
        Ok(Self {
            part: Part::open(Path::new(&part), id)?,
            target: path.to_owned(),
        })
    }

    /// The first chunk that is not here yet: ask the source for it and those after it.
    pub const fn first_missing_chunk(&self) -> u64 {
        self.part.first_missing_chunk()
    }

    /// Takes the blob's length and chunk hashes.
    ///
    /// # Errors
    /// When they are not those of the wanted blob, or cannot be written.
    pub fn begin(&mut self, bytes: u64, hashes: Vec<[u8; 32]>) -> Result<(), BlobError> {
        self.part.begin(bytes, hashes)
    }

    /// Verifies chunk `index` and writes it; chunks come in order.
    ///
    /// # Errors
    /// When it is damaged, leaves a gap, comes before the hashes, or cannot be written.
    pub fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), BlobError> {
        self.part.chunk(index, data)
    }

    /// Makes the file durable under its final name and returns that name.
    ///
    /// # Errors
    /// When chunks are missing or the disk fails; the part then stays for another try.
    pub fn finish(self) -> Result<PathBuf, BlobError> {
        self.part.finish(&self.target, None)?;
        Ok(self.target)
    }

    /// Gives up: removes what came so far.
    ///
    /// # Errors
    /// What the system says.
    pub fn discard(self) -> io::Result<()> {
        self.part.discard()
    }
}

/// A file that is about to be sent as a blob.
#[derive(Debug)]
pub struct FileReader {
    file: File,
    tree: HashTree,
}

impl FileReader {
    /// Opens the file and hashes it once, streaming.
    ///
    /// # Errors
    /// What the system says; `FileTooLarge` beyond [`crate::MAX_BLOB_BYTES`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let tree = HashTree::of_reader(&mut file)?;
        Ok(Self { file, tree })
    }

    /// A file whose hashes are known already. Its chunks are held against them as they are read.
    pub const fn with_tree(file: File, tree: HashTree) -> Self {
        Self { file, tree }
    }

    /// The blob's id.
    pub fn id(&self) -> BlobId {
        self.tree.root()
    }

    /// The blob's length and chunk hashes.
    pub const fn tree(&self) -> &HashTree {
        &self.tree
    }

    /// Reads chunk `index` and holds it against its hash.
    ///
    /// # Errors
    /// `InvalidInput` for a chunk beyond the end, `InvalidData` (with a [`crate::VerifyError`]
    /// inside) or `UnexpectedEof` when the file is no longer what was hashed, otherwise what the
    /// system says.
    pub fn chunk(&mut self, index: u64) -> io::Result<Vec<u8>> {
        if index >= self.tree.count() {
            let message = format!("chunk {index} of {} was asked for", self.tree.count());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let mut data = vec![0; self.tree.chunk_len(index)];
        self.file
            .seek(SeekFrom::Start(index * CHUNK_BYTES as u64))?;
        self.file.read_exact(&mut data)?;
        self.tree
            .verify_chunk(index, &data)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests;
