//! Ids: newtypes over fixed byte strings, with a text form that cannot be mistyped unnoticed.
//!
//! Text is a prefix that names the kind, then lower-case base32 of the bytes and a three-byte
//! checksum (BLAKE3 over prefix and bytes). In CBOR an id is a byte string, in JSON its text.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const CHECKSUM_BYTES: usize = 3;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text starts with another kind's prefix, or with none.
    #[error("an id of a {kind} starts with `{prefix}`, this is `{found}`")]
    Prefix {
        /// What the id names.
        kind: &'static str,
        /// The prefix of that kind.
        prefix: &'static str,
        /// The text, shortened.
        found: String,
    },
    /// Not base32, or not of the right length.
    #[error("`{found}` is not a whole {kind} id: copy it again, all of it")]
    Form {
        /// What the id names.
        kind: &'static str,
        /// The text, shortened.
        found: String,
    },
    /// Base32 of the right length whose checksum does not match: a typing error.
    #[error("`{found}` has a typing error: its checksum does not match")]
    Checksum {
        /// The text, shortened.
        found: String,
    },
}

fn base32() -> Encoding {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding()
        .expect("a constant alphabet of 32 symbols is valid")
}

fn checksum(prefix: &str, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prefix.as_bytes());
    hasher.update(bytes);
    let hash = hasher.finalize();
    let mut out = [0; CHECKSUM_BYTES];
    out.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    out
}

fn to_text(prefix: &str, bytes: &[u8]) -> String {
    let mut payload = bytes.to_vec();
    payload.extend_from_slice(&checksum(prefix, bytes));
    format!("{prefix}{}", base32().encode(&payload))
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

fn from_text<const N: usize>(
    kind: &'static str,
    prefix: &'static str,
    text: &str,
) -> Result<[u8; N], ParseIdError> {
    let found = || shorten(text);
    let Some(rest) = text.strip_prefix(prefix) else {
        return Err(ParseIdError::Prefix {
            kind,
            prefix,
            found: found(),
        });
    };
    let payload = base32()
        .decode(rest.as_bytes())
        .map_err(|_| ParseIdError::Form {
            kind,
            found: found(),
        })?;
    let Some((bytes, sum)) = payload.split_at_checked(N) else {
        return Err(ParseIdError::Form {
            kind,
            found: found(),
        });
    };
    if sum.len() != CHECKSUM_BYTES {
        return Err(ParseIdError::Form {
            kind,
            found: found(),
        });
    }
    if sum != checksum(prefix, bytes) {
        return Err(ParseIdError::Checksum { found: found() });
    }
    Ok(bytes.try_into().expect("split at N"))
}

/// Serialises a fixed byte string: bytes in CBOR, the given text in human-readable formats.
pub(crate) fn serialize_bytes<S: Serializer>(
    bytes: &[u8],
    text: impl FnOnce() -> String,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&text())
    } else {
        serializer.serialize_bytes(bytes)
    }
}

/// Reads what [`serialize_bytes`] wrote, from either form.
pub(crate) fn deserialize_bytes<'de, D: Deserializer<'de>, const N: usize>(
    what: &'static str,
    parse: fn(&str) -> Result<[u8; N], String>,
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    struct Fixed<const N: usize> {
        what: &'static str,
        parse: fn(&str) -> Result<[u8; N], String>,
    }
    impl<const N: usize> Visitor<'_> for Fixed<N> {
        type Value = [u8; N];
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} of {N} bytes", self.what)
        }
        fn visit_bytes<E: serde::de::Error>(self, v: &[u8]) -> Result<[u8; N], E> {
            v.try_into().map_err(|_| E::invalid_length(v.len(), &self))
        }
        fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<[u8; N], E> {
            (self.parse)(v).map_err(E::custom)
        }
    }
    let human = deserializer.is_human_readable();
    let visitor = Fixed { what, parse };
    if human {
        deserializer.deserialize_str(visitor)
    } else {
        deserializer.deserialize_bytes(visitor)
    }
    .map_err(D::Error::custom)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $bytes;
            /// What every text form of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Takes the bytes as they are.
            pub const fn new(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// Prefix and eight characters: enough for a table, never for a parser.
            pub fn short(&self) -> String {
                self.to_string().chars().take($prefix.len() + 8).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&to_text($prefix, &self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                from_text($kind, $prefix, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_bytes(&self.0, || self.to_string(), serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_bytes(
                    concat!("an id of a ", $kind),
                    |text| from_text($kind, $prefix, text).map_err(|e| e.to_string()),
                    deserializer,
                )
                .map(Self)
            }
        }
    };
}

id!(
    /// An account: the first 20 bytes of BLAKE3 over a tag and its first key. Money belongs to accounts only.
    AccountId, 20, "account", "cm1"
);
id!(
    /// A node: its ed25519 public key, so that whoever holds an address can pin the node behind it.
    NodeId, 32, "node", "cmn1"
);
id!(
    /// A task, and the hold that pays for it. Derived from the transaction that posted it.
    TaskId, 16, "task", "cmt1"
);
id!(
    /// An item of the catalog: a dataset or a model.
    ItemId, 16, "item", "cmi1"
);
id!(
    /// A blob: BLAKE3-256 of its bytes.
    BlobId, 32, "blob", "cmb1"
);
id!(
    /// An entry of the chain and its receipt: the block's height, 8 bytes, and the place in the block, 4 bytes.
    ReceiptId, 12, "receipt", "cmr1"
);
id!(
    /// A network: BLAKE3 of its genesis. Every signature is bound to it.
    GenesisHash, 32, "network", "cmg1"
);

impl AccountId {
    /// The account whose first key is `key`.
    pub fn of_key(key: &crate::PublicKey) -> Self {
        Self::tagged("cryptomind/account/1", key.as_bytes())
    }

    /// An account without a key, such as the network's fees: nobody can sign for it.
    pub fn of_system(name: &str) -> Self {
        Self::tagged("cryptomind/system-account/1", name.as_bytes())
    }

    fn tagged(tag: &str, bytes: &[u8]) -> Self {
        let hash = blake3::derive_key(tag, bytes);
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&hash[..Self::LEN]);
        Self(id)
    }
}

impl NodeId {
    /// The node with this key.
    pub const fn of_key(key: &crate::PublicKey) -> Self {
        Self(*key.as_bytes())
    }

    /// The key that the node proves in its first exchange.
    pub const fn key(&self) -> crate::PublicKey {
        crate::PublicKey::new(self.0)
    }
}

impl TaskId {
    /// The task that transaction `transaction` of `account` posts.
    pub fn of_transaction(account: &AccountId, transaction: &[u8; 16]) -> Self {
        Self(derive16("cryptomind/task/1", account, transaction))
    }
}

impl ItemId {
    /// The item that transaction `transaction` of `account` publishes.
    pub fn of_transaction(account: &AccountId, transaction: &[u8; 16]) -> Self {
        Self(derive16("cryptomind/item/1", account, transaction))
    }

    /// The model that `task` trains.
    pub fn of_task(task: &TaskId) -> Self {
        let hash = blake3::derive_key("cryptomind/trained-item/1", task.as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Self(id)
    }
}

fn derive16(tag: &str, account: &AccountId, transaction: &[u8; 16]) -> [u8; 16] {
    let mut bytes = account.as_bytes().to_vec();
    bytes.extend_from_slice(transaction);
    let hash = blake3::derive_key(tag, &bytes);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id
}

impl ReceiptId {
    /// The entry at `index` of the block at `height`.
    pub fn at(height: u64, index: u32) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&height.to_be_bytes());
        bytes[8..].copy_from_slice(&index.to_be_bytes());
        Self(bytes)
    }

    /// The height of its block.
    pub fn height(&self) -> u64 {
        self.0[..8]
            .iter()
            .fold(0, |n, byte| (n << 8) | u64::from(*byte))
    }

    /// Its place in the block, from 0.
    pub fn index(&self) -> u32 {
        self.0[8..]
            .iter()
            .fold(0, |n, byte| (n << 8) | u32::from(*byte))
    }
}

impl BlobId {
    /// The address of these bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests;
