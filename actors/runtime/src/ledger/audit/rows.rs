//! Rows as they lie in a table, read page by page: bytes, and the record that they are.

use std::marker::PhantomData;
use std::vec::IntoIter;

use cryptomind_protocol::codec::DecodeError;
use cryptomind_storage::state::{Record, StateStore};
use serde::{Deserialize, Serialize};

use super::Fault;

/// Rows that are read at once: blocks have up to 900 KiB each.
const PAGE_ROWS: usize = 32;

/// A row of the table in which records `R` lie, with nothing read into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Row<R> {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    #[serde(skip)]
    kind: PhantomData<fn() -> R>,
}

impl<R: Record> Record for Row<R> {
    const TABLE: &'static str = R::TABLE;

    fn key(&self) -> Vec<u8> {
        self.key.clone()
    }

    fn value(&self) -> Vec<u8> {
        self.value.clone()
    }

    fn read(key: &[u8], value: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::new(key.to_vec(), value.to_vec()))
    }
}

impl<R> Row<R> {
    pub(super) const fn new(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self {
            key,
            value,
            kind: PhantomData,
        }
    }
}

impl<R: Record> Row<R> {
    /// The record, where these are the very bytes that it is stored as.
    pub(super) fn record(&self) -> Result<R, String> {
        let record =
            R::read(&self.key, &self.value).map_err(|error| format!("cannot be read: {error}"))?;
        if record.key() != self.key {
            return Err("lies under another's key".into());
        }
        if record.value() != self.value {
            return Err("is not written as this software writes it".into());
        }
        Ok(record)
    }
}

/// All rows of a table, in the order of their keys.
pub(super) struct Rows<'a, R> {
    store: &'a StateStore,
    page: IntoIter<Row<R>>,
    /// Where the next page begins; none after the last.
    next: Option<Vec<u8>>,
}

impl<'a, R: Record> Rows<'a, R> {
    pub(super) fn of(store: &'a StateStore) -> Self {
        Self {
            store,
            page: Vec::new().into_iter(),
            next: Some(Vec::new()),
        }
    }

    fn turn(&mut self, from: &[u8]) -> Result<(), Fault> {
        let page = self.store.range::<Row<R>>(from, &[], PAGE_ROWS, false);
        let page = page.map_err(Fault::of_all)?;
        if page.len() == PAGE_ROWS {
            self.next = page.last().map(|row| [row.key.as_slice(), &[0]].concat());
        }
        self.page = page.into_iter();
        Ok(())
    }
}

impl<R: Record> Iterator for Rows<'_, R> {
    type Item = Result<Row<R>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.page.next() {
            return Some(Ok(row));
        }
        let from = self.next.take()?;
        match self.turn(&from) {
            Ok(()) => self.page.next().map(Ok),
            Err(fault) => Some(Err(fault)),
        }
    }
}
