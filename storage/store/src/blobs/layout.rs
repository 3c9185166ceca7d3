//! Where things lie in the folder. No other file of this module puts names together.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cryptomind_blob::{Part, sync_folder};
use cryptomind_protocol::BlobId;
use data_encoding::HEXLOWER;

use crate::StoreError;

const TREE: &str = "tree";
const PART: &str = "part";

/// The names below one folder.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the folders where they are missing.
    pub(super) fn create(root: &Path) -> Result<Self, StoreError> {
        let layout = Self { root: root.into() };
        for folder in [layout.blobs(), layout.parts()] {
            fs::create_dir_all(&folder).map_err(StoreError::io("make the folder", &folder))?;
        }
        sync_folder(root).map_err(StoreError::io("sync", root))?;
        Ok(layout)
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("index.redb")
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn parts(&self) -> PathBuf {
        self.root.join("parts")
    }

    /// The folder that holds blob `id`: 256 of them keep each short.
    fn shelf(&self, id: &BlobId) -> PathBuf {
        self.blobs().join(&hex(id)[..2])
    }

    pub(super) fn data(&self, id: &BlobId) -> PathBuf {
        self.shelf(id).join(hex(id))
    }

    pub(super) fn tree(&self, id: &BlobId) -> PathBuf {
        self.data(id).with_extension(TREE)
    }

    /// The part that a later writer goes on with.
    pub(super) fn part(&self, id: &BlobId) -> PathBuf {
        self.parts().join(format!("{}.{PART}", hex(id)))
    }

    /// The part of a writer that came while another was at work on the same blob.
    pub(super) fn extra_part(&self, id: &BlobId, number: u64) -> PathBuf {
        self.parts().join(format!("{}.{number}.{PART}", hex(id)))
    }

    /// Makes the folder for blob `id`, so that it survives a power cut.
    pub(super) fn make_shelf(&self, id: &BlobId) -> Result<(), StoreError> {
        let shelf = self.shelf(id);
        match fs::create_dir(&shelf) {
            Ok(()) => {
                let blobs = self.blobs();
                sync_folder(&blobs).map_err(StoreError::io("sync", &blobs))
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(StoreError::io("make the folder", &shelf)(e)),
        }
    }

    /// Removes the files of a stored blob.
    pub(super) fn remove_blob(&self, id: &BlobId) -> Result<(), StoreError> {
        remove(&self.data(id))?;
        remove(&self.tree(id))
    }
}

/// Removes a part and its hashes.
pub(super) fn remove_part(part: &Path) -> Result<(), StoreError> {
    remove(&Part::tree_path(part))?;
    remove(part)
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}

fn hex(id: &BlobId) -> String {
    HEXLOWER.encode(id.as_bytes())
}

fn id_of(name: &str) -> Option<BlobId> {
    let bytes = HEXLOWER.decode(name.as_bytes()).ok()?;
    Some(BlobId::new(bytes.try_into().ok()?))
}

/// What a file below `blobs/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The bytes of this blob.
    Data(BlobId),
    /// The chunk hashes of this blob.
    Tree(BlobId),
    /// Nothing of ours.
    Foreign,
}

impl Found {
    /// Reads a file's name.
    pub(super) fn at(path: &Path) -> Self {
        let id = path.file_stem().and_then(OsStr::to_str).and_then(id_of);
        match (id, path.extension()) {
            (Some(id), None) => Self::Data(id),
            (Some(id), Some(extension)) if extension == TREE => Self::Tree(id),
            _ => Self::Foreign,
        }
    }
}

/// The blob whose resumable part has this name.
pub(super) fn id_of_part(path: &Path) -> Option<BlobId> {
    let is_part = path.extension()? == PART;
    id_of(path.file_stem()?.to_str()?).filter(|_| is_part)
}

/// The files in a folder.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let list = || {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
    };
    list().map_err(StoreError::io("list", folder))
}
