//! Signatures over received bytes.
//!
//! A signature covers: the length of a tag, the tag, the network's genesis hash, the payload as it
//! was received. Nothing is ever encoded again to be verified, and nothing signed for one purpose
//! or one network passes for another.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::{GenesisHash, PublicKey, SecretKey, Signature};

/// A payload type that accounts or nodes sign. Implementors deny unknown keys and carry a version.
pub trait Payload: Serialize + DeserializeOwned {
    /// What the signature is for; no two purposes share a tag.
    const TAG: &'static str;
    /// The largest payload that is read.
    const MAX_BYTES: usize;
}

/// A payload with its signature, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The CBOR bytes that were signed.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
    /// Who signed.
    pub signer: PublicKey,
    /// ed25519 over tag, network and payload.
    pub signature: Signature,
}

/// Why a signed payload is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The payload exceeds its kind's limit.
    #[error("the signed payload has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The signer's key is no key: of small order, or no canonical point of the curve.
    #[error("the signer's key is weak or no key at all: make another with `cryptomind key new`")]
    WeakKey,
    /// Not signed by this key, for this purpose, on this network.
    #[error("the signature does not fit: wrong key, wrong network or changed bytes")]
    Signature,
    /// Rightly signed bytes that are no such payload.
    #[error("the signed payload is malformed: {0}")]
    Payload(#[from] DecodeError),
}

/// The bytes that a signature covers.
fn message(tag: &str, network: &GenesisHash, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(4 + tag.len() + 32 + payload.len());
    message.extend_from_slice(&(tag.len() as u32).to_be_bytes());
    message.extend_from_slice(tag.as_bytes());
    message.extend_from_slice(network.as_bytes());
    message.extend_from_slice(payload);
    message
}

impl Signed {
    /// Signs `payload` for `network`.
    pub fn sign<T: Payload>(payload: &T, network: &GenesisHash, key: &SecretKey) -> Self {
        let payload = codec::encode(payload);
        let signature = key.sign(&message(T::TAG, network, &payload));
        Self {
            payload,
            signer: key.public(),
            signature,
        }
    }

    /// Checks size, key and signature first and reads the payload after.
    pub fn verify<T: Payload>(&self, network: &GenesisHash) -> Result<T, VerifyError> {
        if self.payload.len() > T::MAX_BYTES {
            return Err(VerifyError::TooLarge {
                bytes: self.payload.len(),
                max: T::MAX_BYTES,
            });
        }
        let message = message(T::TAG, network, &self.payload);
        match self.signer.verify_as_usable(&message, &self.signature) {
            None => Err(VerifyError::WeakKey),
            Some(false) => Err(VerifyError::Signature),
            Some(true) => Ok(codec::decode(&self.payload)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pay {
        version: u8,
        units: u64,
    }
    impl Payload for Pay {
        const TAG: &'static str = "test/pay/1";
        const MAX_BYTES: usize = 64;
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vote {
        version: u8,
        units: u64,
    }
    impl Payload for Vote {
        const TAG: &'static str = "test/vote/1";
        const MAX_BYTES: usize = 64;
    }

    #[test]
    fn a_signature_fits_one_purpose_one_network_and_these_bytes() {
        let (key, here) = (SecretKey::from_seed([3; 32]), GenesisHash::new([1; 32]));
        let signed = Signed::sign(
            &Pay {
                version: 1,
                units: 5,
            },
            &here,
            &key,
        );
        assert_eq!(
            signed.verify::<Pay>(&here),
            Ok(Pay {
                version: 1,
                units: 5
            })
        );
        assert_eq!(signed.verify::<Vote>(&here), Err(VerifyError::Signature));
        assert_eq!(
            signed.verify::<Pay>(&GenesisHash::new([2; 32])),
            Err(VerifyError::Signature)
        );
        let weak = Signed {
            signer: PublicKey::new([0; 32]),
            ..signed.clone()
        };
        assert_eq!(weak.verify::<Pay>(&here), Err(VerifyError::WeakKey));
        for byte in 0..signed.payload.len() {
            let mut changed = signed.clone();
            changed.payload[byte] ^= 1;
            assert_eq!(changed.verify::<Pay>(&here), Err(VerifyError::Signature));
        }
    }
}
