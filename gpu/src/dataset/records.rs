//! A bound on the records of a CSV file. The reader of the library takes a record whole, with 8 bytes for each comma,
//! before anyone can count its cells.

use std::io::{self, Read};

/// The longest record, bytes.
const MAX_RECORD_BYTES: usize = 4 << 20;

/// Where in a record it is. Line ends between quotes belong to a cell; quotes count at a cell's start only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Cell,
    Quoted,
    /// After a quote in a quoted cell: its end, or one half of a quote in it.
    Closed,
}

/// Passes on what it reads, as long as no record is too long.
pub(super) struct Bounded<R> {
    source: R,
    place: Place,
    /// Bytes of the record at hand.
    len: usize,
}

impl<R: Read> Bounded<R> {
    pub(super) const fn new(source: R) -> Self {
        Self {
            source,
            place: Place::Start,
            len: 0,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let many = self.source.read(into)?;
        for byte in &into[..many] {
            self.place = match (self.place, byte) {
                (Place::Quoted, b'"') => Place::Closed,
                (Place::Quoted, _) | (Place::Start | Place::Closed, b'"') => Place::Quoted,
                (_, b'\n' | b'\r' | b',') => Place::Start,
                _ => Place::Cell,
            };
            self.len = match (self.place, byte) {
                (Place::Start, b'\n' | b'\r') => 0,
                _ => self.len + 1,
            };
            if self.len > MAX_RECORD_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("a row has more than {MAX_RECORD_BYTES} bytes"),
                ));
            }
        }
        Ok(many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut all = Vec::new();
        let done = Bounded::new(bytes).read_to_end(&mut all);
        done.map(|_| all).map_err(|e| e.to_string())
    }

    #[test]
    fn rows_of_any_number_pass_and_none_that_is_too_long() {
        let rows = b"1,\"a\"\"\nb\",3\r\n".repeat(MAX_RECORD_BYTES / 8);
        assert_eq!(read(&rows).unwrap(), rows);
        let most = [&vec![b','; MAX_RECORD_BYTES][..], b"\n1\n"].concat();
        assert!(read(&most).is_ok());
        let refused = |bytes: &[u8]| read(bytes).unwrap_err().contains("more than 4194304 bytes");
        assert!(refused(&vec![b','; MAX_RECORD_BYTES + 1]));
        assert!(refused(&b"\"\n\",".repeat(MAX_RECORD_BYTES)));
        // A quote within a cell is one of its characters.
        assert!(read(&b"5\" screen,\"3\"\"\"\n".repeat(MAX_RECORD_BYTES / 8)).is_ok());
    }
}
