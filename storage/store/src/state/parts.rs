//! Records in parts: a row each, under the record's key and the part's number.
//!
//! Written once, read whole. What is read must be what was written: parts from 0 on without gaps, all but the
//! last one full.

use cryptomind_protocol::codec::DecodeError;

use super::{Entry, Record, decode};
use crate::StoreError;

/// Bytes of a part's number, big-endian, after the record's key.
pub(super) const NUMBER_BYTES: usize = 2;

/// Whether records of this kind are stored in parts.
pub(super) const fn has<R: Record>() -> bool {
    R::PART_BYTES != usize::MAX
}

/// The key of a part.
pub(super) fn key(record: &[u8], number: u16) -> Vec<u8> {
    [record, &number.to_be_bytes()].concat()
}

/// The rows of a record.
pub(super) fn split<R: Record>(record: &[u8], value: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let count = value.len().div_ceil(R::PART_BYTES);
    assert!(
        count <= usize::from(u16::MAX),
        "a record of {} bytes",
        value.len()
    );
    let parts = value.chunks(R::PART_BYTES).zip(0u16..);
    parts
        .map(|(part, number)| (key(record, number), part.to_vec()))
        .collect()
}

/// Parts of one record, in the order in which they were read.
struct Gathered {
    key: Vec<u8>,
    parts: Vec<(u16, Vec<u8>)>,
}

impl Gathered {
    fn record<R: Record>(mut self) -> Result<R, StoreError> {
        self.parts.sort_unstable_by_key(|(number, _)| *number);
        let last = self.parts.len() - 1;
        for (at, (number, part)) in self.parts.iter().enumerate() {
            let full = part.len() == R::PART_BYTES || (at == last && !part.is_empty());
            if usize::from(*number) != at || !full {
                return Err(damaged::<R>(&self.key, at * R::PART_BYTES));
            }
        }
        let value: Vec<u8> = self.parts.into_iter().flat_map(|(_, part)| part).collect();
        decode::<R>(&self.key, &value)
    }
}

fn damaged<R: Record>(key: &[u8], at: usize) -> StoreError {
    StoreError::Record {
        table: R::TABLE,
        key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
        source: DecodeError::Truncated { at },
    }
}

/// Reads at most `limit` records from rows in the order of their keys, or from the last key back.
pub(super) fn read<'a, R: Record>(
    rows: impl Iterator<Item = Result<Entry<'a>, redb::StorageError>>,
    limit: usize,
) -> Result<Vec<R>, StoreError> {
    let mut records = Vec::new();
    let mut gathered: Option<Gathered> = None;
    for row in rows {
        let (row_key, part) = row.map_err(StoreError::database("read"))?;
        let row_key = row_key.value();
        let cut = row_key.len().checked_sub(NUMBER_BYTES);
        let (key, number) = row_key.split_at(cut.ok_or_else(|| damaged::<R>(row_key, 0))?);
        let number = number.iter().fold(0, |n, byte| (n << 8) | u16::from(*byte));
        if let Some(whole) = gathered.take_if(|g| g.key != key) {
            records.push(whole.record()?);
            if records.len() == limit {
                return Ok(records);
            }
        }
        let new = || Gathered {
            key: key.to_vec(),
            parts: Vec::new(),
        };
        let parts = &mut gathered.get_or_insert_with(new).parts;
        parts.push((number, part.value().to_vec()));
    }
    if let Some(whole) = gathered.filter(|_| records.len() < limit) {
        records.push(whole.record()?);
    }
    Ok(records)
}
