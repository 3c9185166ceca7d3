//! Rows of a tensor that stay in their file until a batch asks for them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use super::{DataError, wrong};
use crate::scaling::{Scaling, Shades};

/// Bytes of rows that follow each other are read at once, up to so many; one row always is.
const BLOCK_BYTES: usize = 1 << 20;
const F32_BYTES: usize = size_of::<f32>();

/// What a value is in the file, and what it becomes.
#[derive(Debug)]
pub(super) enum Kind {
    /// Little-endian.
    F32(Scaling),
    U8(Shades),
}

impl Kind {
    const fn value_bytes(&self) -> usize {
        match self {
            Self::F32(_) => F32_BYTES,
            Self::U8(_) => 1,
        }
    }

    /// Adds one row.
    fn add(&self, row: &[u8], into: &mut Vec<f32>) {
        match self {
            Self::F32(scaling) => scaling.add(floats(row), into),
            Self::U8(shades) => shades.add(row, into),
        }
    }
}

/// The values of these bytes; what is left at their end is none.
pub(super) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    let (values, _) = bytes.as_chunks::<F32_BYTES>();
    values.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// A tensor in a file that was held to its header.
#[derive(Debug)]
pub(super) struct Rows {
    /// Its name for people.
    name: String,
    kind: Kind,
    /// How many.
    count: u32,
    /// Where the first begins, bytes.
    start: u64,
    row_bytes: usize,
    /// Two batches at once take turns.
    source: Mutex<Source>,
}

#[derive(Debug)]
struct Source {
    file: File,
    buffer: Vec<u8>,
}

impl Rows {
    /// `count` rows of `row_len` values each, the first at byte `start` of the file.
    pub(super) fn new(
        name: String,
        file: File,
        kind: Kind,
        start: u64,
        (count, row_len): (u32, usize),
    ) -> Self {
        Self {
            name,
            row_bytes: row_len * kind.value_bytes(),
            kind,
            count,
            start,
            source: Mutex::new(Source {
                file,
                buffer: Vec::new(),
            }),
        }
    }

    /// Adds these rows' values.
    pub(super) fn gather(&self, rows: &[u32], into: &mut Vec<f32>) -> Result<(), DataError> {
        let mut rest = rows;
        while let Some(first) = rest.first() {
            let run = run_len(rest).min(self.rows_at_once());
            self.each(*first, run, &mut |row| self.kind.add(row, into))?;
            rest = &rest[run..];
        }
        Ok(())
    }

    /// Refuses the first sample with a value that is not finite, by reading all of them once.
    pub(super) fn check_finite(&self) -> Result<(), DataError> {
        if matches!(self.kind, Kind::U8(_)) {
            return Ok(());
        }
        let mut sample = 0u64;
        for first in (0..self.count).step_by(self.rows_at_once()) {
            let mut broken = None;
            let left = (self.count - first) as usize;
            self.each(first, left.min(self.rows_at_once()), &mut |row| {
                let place = floats(row).position(|value| !value.is_finite());
                broken = broken.or(place.map(|place| (sample, place)));
                sample += 1;
            })?;
            if let Some((sample, place)) = broken {
                return Err(wrong(
                    &self.name,
                    format!("input {place} of sample {sample} is infinite or not a number"),
                ));
            }
        }
        Ok(())
    }

    fn rows_at_once(&self) -> usize {
        (BLOCK_BYTES / self.row_bytes.max(1)).max(1)
    }

    /// Reads rows that follow each other, and hands them over one by one.
    fn each(&self, first: u32, count: usize, see: &mut dyn FnMut(&[u8])) -> Result<(), DataError> {
        if u64::from(first) + count as u64 > u64::from(self.count) {
            let reason = format!("sample {first} is asked for, there are {}", self.count);
            return Err(wrong(&self.name, reason));
        }
        let start = self.start + u64::from(first) * self.row_bytes as u64;
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = source.read(start, count * self.row_bytes);
        // Not its fault if it is short: it was long enough when it was looked at.
        let bytes = bytes.map_err(|source| DataError::Io {
            file: self.name.clone(),
            source,
        })?;
        bytes.chunks_exact(self.row_bytes).for_each(see);
        Ok(())
    }
}

impl Source {
    fn read(&mut self, start: u64, len: usize) -> io::Result<&[u8]> {
        self.buffer.resize(len, 0);
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_exact(&mut self.buffer)?;
        Ok(&self.buffer)
    }
}

/// How many rows at the front follow each other: they lie together in the file.
fn run_len(rows: &[u32]) -> usize {
    let follows = |pair: &&[u32]| pair[0].checked_add(1) == Some(pair[1]);
    1 + rows.windows(2).take_while(follows).count()
}
