//! Folders in which a chain lies, opened by whoever does not make it: to be audited, exported or followed.
//!
//! A coordinator's file holds its other nouns too; a follower's holds the chain alone, and has a name of its own, so that
//! nobody starts a coordinator on it by mistake. Nothing here makes a file where there is none.

use std::path::{Path, PathBuf};

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::block::Block;
use cryptomind_storage::state::StateStore;
use cryptomind_storage::{StoreError, chain};

use crate::coordinator::STATE_FILE;

/// The file that holds a follower's chain, in its folder.
pub const REPLICA_FILE: &str = "chain.redb";

/// The chain's file in a coordinator's or a follower's folder.
///
/// # Errors
/// `ledger_not_found` where there is none, `two_ledgers` where there are both.
pub fn file_in(dir: &Path) -> Result<PathBuf, ErrorBody> {
    let files = [STATE_FILE, REPLICA_FILE].map(|name| dir.join(name));
    match files.each_ref().map(|file| file.is_file()) {
        [true, false] => Ok(files[0].clone()),
        [false, true] => Ok(files[1].clone()),
        [true, true] => {
            let message = format!(
                "{} holds a coordinator's ledger and a followed one",
                dir.display()
            );
            Err(ErrorBody::user("two_ledgers", message).with_help(format!(
                "move {STATE_FILE} or {REPLICA_FILE} into a folder of its own"
            )))
        }
        [false, false] => {
            let message = format!("there is no ledger in {}", dir.display());
            Err(ErrorBody::not_found("ledger", message).with_help(format!(
                "name a coordinator's data folder, where {STATE_FILE} lies, or one that was followed into: --dir DIR"
            )))
        }
    }
}

/// Opens the chain of a folder, and checks the file.
///
/// # Errors
/// As [`file_in`]; `ledger_in_use` where another process has it open, `ledger_fault` where it is damaged.
pub fn open(dir: &Path) -> Result<StateStore, ErrorBody> {
    open_file(&file_in(dir)?)
}

pub(super) fn open_file(file: &Path) -> Result<StateStore, ErrorBody> {
    StateStore::open(file).map_err(|error| explain(file, &error))
}

fn explain(file: &Path, error: &StoreError) -> ErrorBody {
    if error.is_in_use() {
        let message = format!("{} is in use by a running process", file.display());
        return ErrorBody::user("ledger_in_use", message).with_help(
            "stop the coordinator, or check what it makes while it runs: cryptomind ledger follow cm://… --dir DIR",
        );
    }
    ErrorBody::user("ledger_fault", error).with_help(
        "restore the file from a backup, or follow the network's coordinator into a fresh folder: \
         cryptomind ledger follow cm://… --dir DIR",
    )
}

/// Height of the last block in a store.
///
/// # Errors
/// When it cannot be read, or has no block.
pub fn height(store: &StateStore) -> Result<u64, ErrorBody> {
    Ok(chain::head(store)?.header.height)
}

/// All blocks of a store in their order, as they are stored: nothing of them is checked.
pub fn blocks(store: &StateStore) -> impl Iterator<Item = Result<Block, ErrorBody>> + '_ {
    let stored = (0..).map(|height| chain::block(store, height).transpose());
    stored.map_while(|block| block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(dir: &Path) -> String {
        open(dir).map_or_else(|error| error.code, |_| "ok".into())
    }

    #[test]
    fn what_is_not_there_is_not_made_and_what_is_in_use_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(code(dir.path()), "ledger_not_found");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
        let held = StateStore::open(&dir.path().join(STATE_FILE)).unwrap();
        assert_eq!(code(dir.path()), "ledger_in_use");
        drop(held);
        assert_eq!(code(dir.path()), "ok");
        let file = dir.path().join(STATE_FILE);
        std::fs::copy(&file, dir.path().join(REPLICA_FILE)).unwrap();
        assert_eq!(code(dir.path()), "two_ledgers");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(code(dir.path()), "ok");
        for damage in ["", "no database", &"x".repeat(10_000)] {
            std::fs::write(dir.path().join(REPLICA_FILE), damage).unwrap();
            assert_eq!(code(dir.path()), "ledger_fault");
        }
    }
}
