//! An unfinished file and the chunk hashes beside it.
//!
//! `<part>` holds the chunks from the first on, `<part>.tree` their hashes. Both may end anywhere
//! after a crash, so nothing in them is believed: opening a part hashes what is there and keeps the
//! longest run of good chunks. One process writes a part at a time, which a file lock enforces.
//!
//! States: opened (hashes known only where an earlier run left them) → begun → whole → finished.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cryptomind_protocol::BlobId;

use crate::folder::{self, sync_folder};
use crate::{BlobError, CHUNK_BYTES, HashTree};

/// The unfinished file of one blob.
#[derive(Debug)]
pub struct Part {
    id: BlobId,
    path: PathBuf,
    file: File,
    tree: Option<HashTree>,
    verified: u64,
}

impl Part {
    /// Opens the part at `path`, or makes it, and checks what an earlier run left.
    ///
    /// # Errors
    /// `ResourceBusy` while another writer has it open; otherwise what the system says.
    pub fn open(path: &Path, id: BlobId) -> io::Result<Self> {
        let file = open_locked(path)?;
        let tree = HashTree::load(&tree_path(path)).filter(|tree| tree.root() == id);
        let mut part = Self {
            id,
            path: path.to_owned(),
            file,
            tree,
            verified: 0,
        };
        part.recover()?;
        Ok(part)
    }

    /// Where the hashes of the part at `path` lie: beside it, with `.tree` added.
    pub fn tree_path(path: &Path) -> PathBuf {
        tree_path(path)
    }

    fn recover(&mut self) -> io::Result<()> {
        let Some(tree) = &self.tree else {
            return self.file.set_len(0);
        };
        self.verified = good_chunks(&mut self.file, tree)?;
        self.cut()
    }

    /// Ends the file where the good chunks end.
    fn cut(&self) -> io::Result<()> {
        let bytes = self.tree.as_ref().map_or(0, HashTree::bytes);
        self.file
            .set_len(bytes.min(self.verified * CHUNK_BYTES as u64))
    }

    /// The blob that this becomes.
    pub const fn id(&self) -> BlobId {
        self.id
    }

    /// The first chunk that is not here yet; the number of chunks when it is whole.
    pub const fn first_missing_chunk(&self) -> u64 {
        self.verified
    }

    /// Bytes that are here and verified.
    pub fn verified_bytes(&self) -> u64 {
        let bytes = self.tree.as_ref().map_or(0, HashTree::bytes);
        bytes.min(self.verified * CHUNK_BYTES as u64)
    }

    /// The chunk hashes, once they are known.
    pub const fn tree(&self) -> Option<&HashTree> {
        self.tree.as_ref()
    }

    /// Takes the blob's length and chunk hashes; chunks that these confirm are kept.
    ///
    /// # Errors
    /// When they are not those of this blob, or cannot be written.
    pub fn begin(&mut self, bytes: u64, hashes: Vec<[u8; 32]>) -> Result<(), BlobError> {
        let tree = HashTree::from_chunks(bytes, hashes)?;
        let got = tree.root();
        if got != self.id {
            let expected = self.id;
            return Err(BlobError::WrongRoot { expected, got });
        }
        if self.tree.as_ref() == Some(&tree) {
            return Ok(());
        }
        let path = tree_path(&self.path);
        fs::write(&path, tree.to_bytes()).map_err(BlobError::io("write", &path))?;
        self.verified = self.agreed_chunks(&tree);
        self.tree = Some(tree);
        self.cut().map_err(BlobError::io("shorten", &self.path))
    }

    /// Chunks that are verified under the old tree and mean the same under the new one. The root
    /// alone does not fix the length, so an earlier source may have lied about it.
    fn agreed_chunks(&self, new: &HashTree) -> u64 {
        let Some(old) = &self.tree else { return 0 };
        let hashes = old.chunks().iter().zip(new.chunks()).zip(0..self.verified);
        hashes
            .take_while(|((a, b), i)| a == b && old.chunk_len(*i) == new.chunk_len(*i))
            .count() as u64
    }

    /// Verifies the next chunk and writes it. One that is here already is verified and left.
    ///
    /// # Errors
    /// When it is damaged, leaves a gap, comes before the hashes, or cannot be written.
    pub fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), BlobError> {
        let tree = self.tree.as_ref().ok_or(BlobError::NotBegun)?;
        tree.verify_chunk(index, data)?;
        if index > self.verified {
            let expected = self.verified;
            return Err(BlobError::Gap {
                expected,
                got: index,
            });
        }
        if index == self.verified {
            self.write(index, data)
                .map_err(BlobError::io("write", &self.path))?;
            self.verified += 1;
        }
        Ok(())
    }

    fn write(&mut self, index: u64, data: &[u8]) -> io::Result<()> {
        self.file
            .seek(SeekFrom::Start(index * CHUNK_BYTES as u64))?;
        self.file.write_all(data)
    }

    /// Makes the whole file durable, then gives it the name `target`, and its hashes `tree_target`
    /// where they are wanted. Returns when the names are durable too.
    ///
    /// # Errors
    /// When chunks are missing: the part then stays for another try. When the disk fails.
    pub fn finish(self, target: &Path, tree_target: Option<&Path>) -> Result<HashTree, BlobError> {
        self.check_whole()?;
        let hashes = tree_path(&self.path);
        self.sync()?;
        if let Some(tree_target) = tree_target {
            sync_file(&hashes).map_err(BlobError::io("sync", &hashes))?;
            fs::rename(&hashes, tree_target).map_err(BlobError::io("rename", &hashes))?;
        }
        fs::rename(&self.path, target).map_err(BlobError::io("rename", &self.path))?;
        if tree_target.is_none() {
            folder::remove_if_there(&hashes).map_err(BlobError::io("remove", &hashes))?;
        }
        let folder = folder::of(target);
        sync_folder(folder).map_err(BlobError::io("sync", folder))?;
        self.tree.ok_or(BlobError::NotBegun)
    }

    /// After a failed sync the system may call its lost pages clean, so that a later one would
    /// succeed: nothing of such a part is kept.
    fn sync(&self) -> Result<(), BlobError> {
        self.file.sync_all().map_err(|source| {
            let _ = fs::remove_file(&self.path);
            BlobError::io("sync", &self.path)(source)
        })
    }

    fn check_whole(&self) -> Result<(), BlobError> {
        let of = self.tree.as_ref().ok_or(BlobError::NotBegun)?.count();
        match of - self.verified {
            0 => Ok(()),
            missing => Err(BlobError::Incomplete {
                missing,
                of,
                next: self.verified,
            }),
        }
    }

    /// Removes the part and its hashes: nobody will resume it.
    ///
    /// # Errors
    /// What the system says.
    pub fn discard(self) -> io::Result<()> {
        folder::remove_if_there(&tree_path(&self.path))?;
        folder::remove_if_there(&self.path)
    }
}

fn tree_path(part: &Path) -> PathBuf {
    let mut name = OsString::from(part);
    name.push(".tree");
    name.into()
}

/// Opens and locks the part. Between opening and locking, another writer may have finished it and
/// renamed the file: what was locked then is the finished file, and the name is opened again.
fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.try_lock().map_err(|e| match e {
            TryLockError::Error(e) => e,
            TryLockError::WouldBlock => busy(path),
        })?;
        if folder::still_names(path, &file)? {
            return Ok(file);
        }
    }
}

fn busy(path: &Path) -> io::Error {
    let message = format!("{} is being written by another transfer", path.display());
    io::Error::new(io::ErrorKind::ResourceBusy, message)
}

/// How many chunks from the first on are good.
fn good_chunks(file: &mut File, tree: &HashTree) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    for index in 0..tree.count() {
        let chunk = &mut buffer[..tree.chunk_len(index)];
        match file.read_exact(chunk) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(index),
            Err(e) => return Err(e),
        }
        if tree.verify_chunk(index, chunk).is_err() {
            return Ok(index);
        }
    }
    Ok(tree.count())
}

fn sync_file(path: &Path) -> io::Result<()> {
    // Opened for writing: some systems sync nothing through a handle that only reads.
    OpenOptions::new().write(true).open(path)?.sync_all()
}
