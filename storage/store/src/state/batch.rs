//! What one decision changes, encoded: applied as a whole or not at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use redb::{TableDefinition, WriteTransaction};

use super::{Record, parts};
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
    /// `None` deletes.
    value: Option<Vec<u8>>,
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
            for (key, value) in parts::split::<R>(&key, &value) {
                self.write(R::TABLE, key, value);
            }
        } else {
            self.write(R::TABLE, key, value);
        }
    }

    fn write(&mut self, table: &'static str, key: Vec<u8>, value: Vec<u8>) {
        let value = Some(value);
        self.push(Change { table, key, value });
    }

    /// Deletes the record with this key; that there is none is no error. Of a record in parts, which is written once and
    /// for ever, it deletes the first: then the record cannot be read.
    pub fn delete<R: Record>(&mut self, key: &[u8]) {
        let first = || parts::key(key, 0);
        let key = if parts::has::<R>() {
            first()
        } else {
            key.to_vec()
        };
        self.push(Change {
            table: R::TABLE,
            key,
            value: None,
        });
    }

    fn push(&mut self, change: Change) {
        self.bytes += change.key.len() + change.value.as_ref().map_or(0, Vec::len);
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
    pub(super) const fn bytes(&self) -> usize {
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
        match &change.value {
            Some(value) => table
                .insert(change.key.as_slice(), value.as_slice())
                .map(drop),
            None => table.remove(change.key.as_slice()).map(drop),
        }
        .map_err(StoreError::database("write"))?;
    }
    Ok(())
}
