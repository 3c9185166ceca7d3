//! A sample of a message, with its type forgotten.

use std::fmt::Debug;

use cryptomind_protocol::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How to tell whether some bytes are the sample's value.
type Reads = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// A value of a message type, encoded.
pub struct Message {
    /// Unique: the rule and what is special about this value.
    pub name: String,
    /// The rule of the CDDL file that it obeys.
    pub rule: &'static str,
    /// As our codec writes it.
    pub bytes: Vec<u8>,
    /// As the independent library writes it.
    pub foreign_bytes: Vec<u8>,
    /// Whether our codec reads these bytes as this value.
    pub is_read: Reads,
    /// Whether the independent library reads these bytes as this value.
    pub is_read_by_foreign: Reads,
}

/// A sample called `rule` or `rule:note`.
pub fn message<T>(rule: &'static str, note: &str, value: T) -> Message
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + Clone + 'static,
{
    let name = match note {
        "" => rule.to_owned(),
        note => format!("{rule}:{note}"),
    };
    let mut foreign_bytes = Vec::new();
    ciborium::into_writer(&value, &mut foreign_bytes).unwrap();
    let (ours, foreign) = (value.clone(), value.clone());
    Message {
        name,
        rule,
        bytes: codec::encode(&value),
        foreign_bytes,
        is_read: Box::new(move |bytes| {
            let read: T = codec::decode(bytes).map_err(|e| e.to_string())?;
            same(&read, &ours)
        }),
        is_read_by_foreign: Box::new(move |bytes| {
            let read: T = ciborium::from_reader(bytes).map_err(|e| e.to_string())?;
            same(&read, &foreign)
        }),
    }
}

fn same<T: PartialEq + Debug>(read: &T, expected: &T) -> Result<(), String> {
    if read == expected {
        Ok(())
    } else {
        Err(format!("read {read:?}\nnot  {expected:?}"))
    }
}
