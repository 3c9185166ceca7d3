//! Stateless resets (RFC 9000 §10.3): a node that was killed and is back tells those who still talk to its former self that
//! this one is gone, with their first packet. Without, they would find out by its silence, seconds later.
//!
//! The proof is a token that only the node can make: a keyed hash of the connection id that the packet was for. The key is
//! derived from the node's own, so it is the same after a restart; ids are random, and so long that one that comes
//! twice is rare and a collection of tokens is small.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::SecretKey;
use cryptomind_protocol::key::Hash;
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};

const TAG: &[u8] = b"cryptomind/stateless-reset/1";
/// Bytes of a connection id.
pub(crate) const ID_BYTES: usize = 8;
/// The same on a ring's socket, whose peers put one into each of the packets that fill a link: three bytes fewer are 0.2 % of its rate.
/// Whoever asks for the tokens of all of them, at [`PAUSE`], does so for 17 years.
pub(crate) const RING_ID_BYTES: usize = 5;
/// A reset is shorter than the packet that it answers, so that none answers another for ever, and they come no denser than
/// this: thousands of peers hear within seconds of a restart, and a flood of garbage gets a trickle.
const PAUSE: Duration = Duration::from_micros(500);

/// Settings of the socket of the node with `key`, whose connections have ids of so many bytes.
pub(crate) fn endpoint_config<const BYTES: usize>(key: &SecretKey) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey::of(key)));
    config
        .cid_generator(|| Box::new(RandomIds::<BYTES>))
        .min_reset_interval(PAUSE);
    config
}

struct ResetKey([u8; 32]);

impl ResetKey {
    fn of(key: &SecretKey) -> Self {
        Self(*keyed(TAG, key.seed()).as_bytes())
    }
}

/// BLAKE3 of a secret and what follows it: nothing can be appended to what was hashed (it has no length extension).
fn keyed(secret: &[u8], data: &[u8]) -> Hash {
    Hash::of(&[secret, data].concat())
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(keyed(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = keyed(&self.0, data);
        let differ = expected.as_bytes().iter().zip(signature);
        let differ = differ.fold(0, |differ, (a, b)| differ | (a ^ b));
        let is_same = differ == 0 && signature.len() == self.signature_len();
        is_same.then_some(()).ok_or(CryptoError)
    }
}

/// Connection ids of so many bytes, without any form: their randomness is what keeps tokens from being of use twice.
struct RandomIds<const BYTES: usize>;

impl<const BYTES: usize> ConnectionIdGenerator for RandomIds<BYTES> {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; BYTES];
        // A system without randomness has no keys for TLS either: no connection comes of these.
        let _ = getrandom::fill(&mut bytes);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(key: u8, id: &[u8]) -> [u8; 32] {
        let mut token = [0; 32];
        ResetKey::of(&SecretKey::from_seed([key; 32])).sign(id, &mut token);
        token
    }

    #[test]
    fn a_token_is_the_nodes_and_the_ids() {
        assert_eq!(
            token(1, b"id"),
            token(1, b"id"),
            "after a restart as before"
        );
        assert_ne!(token(1, b"id"), token(2, b"id"));
        assert_ne!(token(1, b"id"), token(1, b"if"));
        let key = ResetKey::of(&SecretKey::from_seed([1; 32]));
        assert!(key.verify(b"id", &token(1, b"id")).is_ok());
        for wrong in [&token(2, b"id")[..], &token(1, b"id")[..31], &[]] {
            assert!(key.verify(b"id", wrong).is_err());
        }
    }

    #[test]
    fn ids_differ() {
        let mut ids = RandomIds::<RING_ID_BYTES>;
        assert_ne!(ids.generate_cid(), ids.generate_cid());
        assert_eq!(ids.generate_cid().len(), ids.cid_len());
    }
}
