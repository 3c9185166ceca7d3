//! CBOR, by serde_cbor, here and nowhere else: replacing the library is a change of this file.
//!
//! The library sets no limit on nesting from a hostile peer beyond its own recursion guard and
//! accepts what two versions would read differently. So every input passes [`check`] first: one
//! item, definite lengths, text keys without duplicates, bounded depth and size.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Deepest nesting that a message has, with room to grow.
pub const MAX_DEPTH: usize = 32;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside an item, or a declared length exceeds what is there.
    #[error("cut short at byte {at}")]
    Truncated {
        /// Offset of the item.
        at: usize,
    },
    /// More bytes follow the message.
    #[error("{extra} bytes follow the message")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A CBOR form that the protocol does not use: indefinite lengths, tags, keys that are not text.
    #[error("{form} at byte {at} is not allowed here")]
    Form {
        /// What was found.
        form: &'static str,
        /// Offset of the item.
        at: usize,
    },
    /// A key occurs twice in one map.
    #[error("the key `{key}` occurs twice")]
    DuplicateKey {
        /// The key, shortened.
        key: String,
    },
    /// Well-formed CBOR that is not the wanted message.
    #[error("{0}")]
    Shape(String),
}

/// The CBOR form of `value`: maps with text keys, definite lengths.
///
/// # Panics
/// Never for this crate's messages: writing to memory cannot fail, and they hold nothing that CBOR lacks.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_cbor::to_vec(value).expect("messages are made of what CBOR has")
}

/// Reads one message that fills `bytes`. Keys that the type lacks are ignored unless the type
/// denies them, as all signed payloads do.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    check(bytes)?;
    serde_cbor::from_slice(bytes).map_err(|e| DecodeError::Shape(e.to_string()))
}

/// Checks the form of one CBOR item that fills `bytes`, without building it.
pub fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    reader.item(0)?;
    match bytes.len() - reader.at {
        0 => Ok(()),
        extra => Err(DecodeError::Trailing { extra }),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Result<&'a [u8], DecodeError> {
        let at = self.at;
        let rest = &self.bytes[at..];
        let count = usize::try_from(count).map_err(|_| DecodeError::Truncated { at })?;
        let taken = rest.get(..count).ok_or(DecodeError::Truncated { at })?;
        self.at += count;
        Ok(taken)
    }

    /// Major type and argument of the next head.
    fn head(&mut self) -> Result<(u8, u8, u64), DecodeError> {
        let at = self.at;
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        let argument = match info {
            0..=23 => u64::from(info),
            24..=27 => self
                .take(1 << (info - 24))?
                .iter()
                .fold(0, |n, b| (n << 8) | u64::from(*b)),
            31 => {
                return Err(DecodeError::Form {
                    form: "an indefinite length",
                    at,
                });
            }
            _ => {
                return Err(DecodeError::Form {
                    form: "a reserved head",
                    at,
                });
            }
        };
        Ok((major, info, argument))
    }

    fn item(&mut self, depth: usize) -> Result<(), DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        let at = self.at;
        let (major, info, argument) = self.head()?;
        match major {
            0 | 1 => Ok(()),
            2 => self.take(argument).map(drop),
            3 => self.text(argument, at).map(drop),
            4 => self.items(argument, depth, at),
            5 => self.map(argument, depth, at),
            6 => Err(DecodeError::Form { form: "a tag", at }),
            _ if matches!(info, 20..=22 | 25..=27) => Ok(()),
            _ => Err(DecodeError::Form {
                form: "a simple value",
                at,
            }),
        }
    }

    fn items(&mut self, count: u64, depth: usize, at: usize) -> Result<(), DecodeError> {
        // Every item takes a byte at least, so a declared count beyond the rest is a lie.
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(DecodeError::Truncated { at });
        }
        (0..count).try_for_each(|_| self.item(depth + 1))
    }

    fn map(&mut self, count: u64, depth: usize, at: usize) -> Result<(), DecodeError> {
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(DecodeError::Truncated { at });
        }
        let mut keys = std::collections::BTreeSet::new();
        for _ in 0..count {
            let key_at = self.at;
            let (major, _, argument) = self.head()?;
            if major != 3 {
                return Err(DecodeError::Form {
                    form: "a key that is not text",
                    at: key_at,
                });
            }
            let key = self.text(argument, key_at)?;
            if !keys.insert(key) {
                return Err(DecodeError::DuplicateKey {
                    key: key.chars().take(40).collect(),
                });
            }
            self.item(depth + 1)?;
        }
        Ok(())
    }

    fn text(&mut self, length: u64, at: usize) -> Result<&'a str, DecodeError> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Form {
            form: "text that is not UTF-8",
            at,
        })
    }
}

#[cfg(test)]
mod tests;
