//! How a store's file comes to be: under another name, and under its own only when it is whole.
//!
//! redb takes an empty file for one that it shall make, and refuses for ever one whose making a
//! power cut broke off. So a file that lost all its bytes would be an empty store, and an
//! unlucky first start would need a hand to remove what it left. Since a file of ours has its name
//! only when it is whole, an empty one is damaged, and a part of one has a name that nobody reads.

use std::fs;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, DatabaseError, StorageError};

use super::open_error;
use crate::StoreError;

/// Makes the file where there is none, and refuses one that is empty.
///
/// # Errors
/// When it is empty or cannot be made.
pub(super) fn ensure(path: &Path, builder: &Builder) -> Result<(), StoreError> {
    match path.metadata() {
        Ok(metadata) if metadata.len() == 0 => Err(emptied(path)),
        Ok(_) => Ok(()),
        Err(_) => create(path, builder),
    }
}

fn emptied(path: &Path) -> StoreError {
    let what = "the file is empty: what was in it is lost".into();
    open_error(path, StorageError::Corrupted(what).into())
}

/// redb locks the new file until it has its name, so of two processes that come at once one is
/// refused, or finds the other's.
fn create(path: &Path, builder: &Builder) -> Result<(), StoreError> {
    let new = new_name(path);
    let _lock = create_new(&new, builder).map_err(|error| open_error(&new, error))?;
    if path.exists() {
        return Ok(());
    }
    fs::rename(&new, path).map_err(StoreError::io("rename", &new))
}

fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn create_new(new: &Path, builder: &Builder) -> Result<Database, DatabaseError> {
    match builder.create(new) {
        // Not locked by anyone, so it is what a crash left: nothing was ever stored in it.
        Err(DatabaseError::Storage(_)) if new.exists() => {
            fs::remove_file(new).map_err(StorageError::Io)?;
            builder.create(new)
        }
        other => other,
    }
}
