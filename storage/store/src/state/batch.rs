//! What one decision changes, encoded: applied as a whole or not at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Bound;

use redb::{TableDefinition, WriteTransaction};

use super::{Record, after_prefix, parts};
use crate::StoreError;

/// Changes of records, in order. A later change of the same key wins.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Change {
    table: &'static str,
    key: Vec<u8>,
    value: Write,
}

#[derive(Debug, Clone)]
enum Write {
    Put(Vec<u8>),
    Delete,
    /// Every row whose key begins with the change's.
    DeleteParts,
}

impl Write {
    fn len(&self) -> usize {
        match self {
            Self::Put(value) => value.len(),
            Self::Delete | Self::DeleteParts => 0,
        }
    }
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stores the record under its key, in place of what was there.
    pub fn put<R: Record>(&mut self, record: &R) {
        let (key, value) = (record.key(), record.value());
        if parts::has::<R>() {
            // What was there may have had more parts.
            self.delete::<R>(&key);
            for (key, value) in parts::split::<R>(&key, &value) {
                self.write(R::TABLE, key, value);
            }
        } else {
            self.write(R::TABLE, key, value);
        }
    }

    fn write(&mut self, table: &'static str, key: Vec<u8>, value: Vec<u8>) {
        let value = Write::Put(value);
        self.push(Change { table, key, value });
    }

    /// Deletes the record with this key, all parts of it; that there is none is no error.
    pub fn delete<R: Record>(&mut self, key: &[u8]) {
        self.push(Change {
            table: R::TABLE,
            key: key.to_vec(),
            value: if parts::has::<R>() {
                Write::DeleteParts
            } else {
                Write::Delete
            },
        });
    }

    fn push(&mut self, change: Change) {
        self.bytes += change.key.len() + change.value.len();
        self.changes.push(change);
    }

    /// Whether there is nothing to change.
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds the changes of another batch after these: both become one atomic batch.
    pub fn extend(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.changes.extend(other.changes);
    }

    /// Bytes of keys and values.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

pub(super) const fn table(
    name: &'static str,
) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

/// Applies the batches in order, within one transaction.
pub(super) fn apply<'a>(
    transaction: &WriteTransaction,
    batches: impl Iterator<Item = &'a Batch>,
) -> Result<(), StoreError> {
    let mut open = HashMap::new();
    for change in batches.flat_map(|batch| &batch.changes) {
        let table = match open.entry(change.table) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(
                transaction
                    .open_table(table(change.table))
                    .map_err(StoreError::database("open a table"))?,
            ),
        };
        let key = change.key.as_slice();
        match &change.value {
            Write::Put(value) => table.insert(key, value.as_slice()).map(drop),
            Write::Delete => table.remove(key).map(drop),
            Write::DeleteParts => {
                let end = after_prefix(key);
                let end = match end.as_slice() {
                    [] => Bound::Unbounded,
                    end => Bound::Excluded(end),
                };
                table.retain_in::<&[u8], _>((Bound::Included(key), end), |row, _| {
                    row.len() != key.len() + parts::NUMBER_BYTES
                })
            }
        }
        .map_err(StoreError::database("write"))?;
    }
    Ok(())
}
