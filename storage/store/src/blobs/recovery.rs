//! What opening a store repairs: files and index agree afterwards.
//!
//! A file that the index lacks was being acknowledged when the process ended, or the index was lost:
//! it is hashed, and taken in where it is what its name says. An entry whose files are not there in
//! full is treated the same, so that the node does not claim what it cannot give.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use cryptomind_blob::{HashTree, sync_folder};
use cryptomind_protocol::BlobId;

use super::entry::BlobEntry;
use super::layout::{self, Found, Layout};
use super::room::IdlePart;
use crate::StoreError;
use crate::state::{Batch, Record, StateStore};

/// Makes files and index agree and returns what is stored.
pub(super) fn recover(
    layout: &Layout,
    index: &StateStore,
) -> Result<HashMap<BlobId, u64>, StoreError> {
    let mut stored = HashMap::new();
    let mut batch = Batch::new();
    for entry in index.load::<BlobEntry>()? {
        if is_there(layout, &entry)? {
            stored.insert(entry.id, entry.bytes);
        } else {
            tracing::error!(blob = %entry.id, "a stored blob is not whole on this disk: looking at what is left");
            batch.delete::<BlobEntry>(&entry.key());
        }
    }
    for (id, bytes) in adopt_orphans(layout, &stored)? {
        batch.put(&BlobEntry { id, bytes });
        stored.insert(id, bytes);
    }
    index.commit(batch).wait()?;
    Ok(stored)
}

/// Whether both files have their length; their content is verified when it is read.
fn is_there(layout: &Layout, entry: &BlobEntry) -> Result<bool, StoreError> {
    let hashes = HashTree::stored_bytes(entry.bytes);
    Ok(has_length(&layout.data(&entry.id), entry.bytes)?
        && has_length(&layout.tree(&entry.id), hashes)?)
}

fn has_length(path: &Path, bytes: u64) -> Result<bool, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len() == bytes),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("look at", path)(e)),
    }
}

/// Takes in or removes the files that nothing in `stored` stands for.
fn adopt_orphans(
    layout: &Layout,
    stored: &HashMap<BlobId, u64>,
) -> Result<Vec<(BlobId, u64)>, StoreError> {
    let mut adopted = Vec::new();
    for shelf in layout::files(&layout.blobs())? {
        if !shelf.is_dir() {
            continue;
        }
        for path in layout::files(&shelf)? {
            match Found::at(&path) {
                Found::Data(id) if !stored.contains_key(&id) => {
                    adopted.extend(adopt(layout, id, &path)?);
                }
                Found::Tree(id) if !layout.data(&id).exists() => layout::remove(&path)?,
                _ => {}
            }
        }
    }
    Ok(adopted)
}

/// Hashes an orphan; its id and length where it is what its name says.
fn adopt(layout: &Layout, id: BlobId, path: &Path) -> Result<Option<(BlobId, u64)>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let tree = HashTree::of_reader(&file).map_err(StoreError::io("read", path))?;
    // The name must be the one under which the blob will be looked for.
    if tree.root() != id || layout.data(&id) != path {
        tracing::warn!(file = %path.display(), "removed: not the blob that its name says");
        layout::remove(path)?;
        return Ok(None);
    }
    settle(layout, id, &file, &tree)?;
    tracing::info!(blob = %id, "taken in: it was whole but not in the index");
    Ok(Some((id, tree.bytes())))
}

/// Makes an orphan as durable as a finished upload is.
fn settle(layout: &Layout, id: BlobId, file: &File, tree: &HashTree) -> Result<(), StoreError> {
    let path = layout.tree(&id);
    let write = || {
        fs::write(&path, tree.to_bytes())?;
        File::options().write(true).open(&path)?.sync_all()?;
        file.sync_all()?;
        path.parent().map_or(Ok(()), sync_folder)
    };
    write().map_err(StoreError::io("write", &path))
}

/// The parts that can be taken up again, oldest first. Others are removed.
pub(super) fn sweep_parts(layout: &Layout) -> Result<Vec<IdlePart>, StoreError> {
    let mut idle = Vec::new();
    for path in layout::files(&layout.parts())? {
        if let Some(id) = layout::id_of_part(&path) {
            let metadata = fs::metadata(&path).map_err(StoreError::io("look at", &path))?;
            let changed = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let bytes = metadata.len();
            idle.push((changed, IdlePart { id, bytes }));
        } else if !belongs_to_a_part(&path) {
            layout::remove(&path)?;
        }
    }
    idle.sort_by_key(|(changed, _)| *changed);
    Ok(idle.into_iter().map(|(_, part)| part).collect())
}

/// Whether these are the chunk hashes beside a part that can be taken up again.
fn belongs_to_a_part(path: &Path) -> bool {
    let part = path.with_extension("");
    layout::id_of_part(&part).is_some() && part.exists()
}
