//! Keys and signatures: ed25519, strict verification only.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::ZeroizeOnDrop;

use crate::id::{deserialize_bytes, serialize_bytes};

fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let bytes = HEXLOWER
        .decode(text.as_bytes())
        .map_err(|_| "not lower-case hex".to_owned())?;
    bytes
        .try_into()
        .map_err(|_| format!("not {N} bytes of hex"))
}

macro_rules! fixed {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// Takes the bytes as they are.
            pub const fn new(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0[..6]))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize_bytes(&self.0, || self.to_string(), serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize_bytes($what, from_hex, deserializer).map(Self)
            }
        }
    };
}

fixed!(
    /// An ed25519 public key as it came over the wire. Whether it is a good one: [`PublicKey::is_usable`].
    PublicKey, 32, "a public key"
);
fixed!(
    /// An ed25519 signature.
    Signature, 64, "a signature"
);
fixed!(
    /// A number used once: 128 random bits.
    Nonce, 16, "a nonce"
);
fixed!(
    /// A BLAKE3 hash of something that is not addressed by it.
    Hash, 32, "a hash"
);

impl Hash {
    /// BLAKE3 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl PublicKey {
    /// Whether anything can be signed with this key: it is a point of the curve in its one canonical form, and
    /// not one of the few of small order, for which a signature fits nearly every message.
    pub fn is_usable(&self) -> bool {
        self.point().is_some()
    }

    /// Whether `signature` over `message` was made by this key. Weak keys and malleable signatures fail, and so do
    /// signatures that fit only the equation times eight, as verifiers of whole batches check it: two verifiers
    /// of one chain must never differ.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        self.point()
            .is_some_and(|key| is_signed(&key, message, signature))
    }

    /// As [`PublicKey::verify`], with a weak key told from a wrong signature.
    pub(crate) fn verify_as_usable(&self, message: &[u8], signature: &Signature) -> Option<bool> {
        Some(is_signed(&self.point()?, message, signature))
    }

    fn point(&self) -> Option<VerifyingKey> {
        let key = VerifyingKey::from_bytes(&self.0).ok()?;
        (self.is_canonical() && !key.is_weak()).then_some(key)
    }

    /// Whether the y coordinate, the low 255 bits, is below the field's prime, 2²⁵⁵ − 19.
    fn is_canonical(&self) -> bool {
        let [first, middle @ .., last] = &self.0;
        last & 0x7f != 0x7f || *first < 0xed || middle.iter().any(|byte| *byte != 0xff)
    }
}

fn is_signed(key: &VerifyingKey, message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    key.verify_strict(message, &signature).is_ok()
}

/// An ed25519 secret key. It leaves memory when dropped and is never shown. Its public half is kept beside it:
/// deriving it takes as long as signing.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

/// The signing key clears itself.
impl ZeroizeOnDrop for SecretKey {}

impl SecretKey {
    /// Takes 32 random bytes as a key.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The 32 bytes, for the key file alone.
    pub fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` as it is. Callers sign tagged messages: see [`crate::signed`].
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

/// Why a key file's text is not a secret key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a whole key file: it should be one line, `cryptomind-secret-key-1` and 64 hex digits; \
     restore it from your backup"
)]
pub struct ParseKeyError;

const KEY_FILE_TAG: &str = "cryptomind-secret-key-1";

/// What the second line of a key file begins with, where it has one: the account's id follows.
pub const KEY_FILE_ACCOUNT: &str = "account ";

impl SecretKey {
    /// What a key file holds: one line, a tag and hex.
    pub fn to_file_text(&self) -> String {
        format!("{KEY_FILE_TAG} {}\n", HEXLOWER.encode(self.seed()))
    }
}

impl FromStr for SecretKey {
    type Err = ParseKeyError;

    /// Reads what [`SecretKey::to_file_text`] wrote. A second line may name the account, where the key is not its first:
    /// that is for people, and passed over here.
    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let text = text.trim();
        let (key, rest) = text.split_once('\n').unwrap_or((text, KEY_FILE_ACCOUNT));
        if !rest.starts_with(KEY_FILE_ACCOUNT) || rest.contains('\n') {
            return Err(ParseKeyError);
        }
        let hex = key
            .trim_end()
            .strip_prefix(KEY_FILE_TAG)
            .ok_or(ParseKeyError)?
            .trim_start();
        from_hex(hex)
            .map(Self::from_seed)
            .map_err(|_| ParseKeyError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_over_the_right_message_verifies() {
        let (key, other) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
        let signature = key.sign(b"message");
        assert!(key.public().verify(b"message", &signature));
        assert!(!other.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"massage", &signature));
    }

    /// The all-zero point has order 4: with lax verification one signature fits every message.
    #[test]
    fn a_weak_key_verifies_nothing() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey::new(identity).verify(b"any", &Signature::new(signature)));
        assert!(!PublicKey::new([0; 32]).verify(b"any", &Signature::new([0; 64])));
    }

    #[test]
    fn a_key_file_may_name_its_account_and_nothing_else() {
        let text = SecretKey::from_seed([9; 32]).to_file_text();
        let read = |rest: &str| format!("{text}{rest}").parse::<SecretKey>().is_ok();
        assert!(read("account cm1abc\n"));
        assert!(!read("account cm1abc\nmore"));
        assert!(!read("more"));
        assert!(!read(&text));
    }

    #[test]
    fn a_truncated_key_file_is_refused() {
        let text = SecretKey::from_seed([9; 32]).to_file_text();
        assert_eq!(text.parse::<SecretKey>().unwrap().seed(), &[9; 32]);
        for cut in 0..text.trim_end().len() {
            assert!(text[..cut].parse::<SecretKey>().is_err(), "{cut}");
        }
    }
}
