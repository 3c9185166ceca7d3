//! The first exchange of every connection: who are you, and are you at the other end of this TLS session?
//!
//! `hello` → `hello_ok` → `auth` → `welcome`. Server and caller sign under different tags, each over
//! the caller's nonce, the server's nonce, the caller's key, the server's key, the hash of the *server's*
//! certificate public key as that side sees it, and the ALPN. So a signature relayed into another TLS
//! session fails, and one reflected back proves nothing: its tag is the other side's, and a caller
//! key equal to the server's is refused.

use serde::{Deserialize, Serialize};

use crate::key::{Hash, Nonce};
use crate::{GenesisHash, PublicKey, SecretKey, Signature};

/// What the server's signature is for.
pub const SERVER_TAG: &str = "cryptomind/hello-server/1";
/// What the caller's signature is for.
pub const CALLER_TAG: &str = "cryptomind/hello-caller/1";

/// First frame, from the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Fresh from the caller.
    pub nonce: Nonce,
    /// Who the caller says it is: an account's key on the API, a node's elsewhere.
    pub caller: PublicKey,
    /// The caller's software, for the log: at most [`MAX_AGENT_CHARS`] characters are kept.
    pub agent: String,
}

/// How much of a caller's self-description is kept.
pub const MAX_AGENT_CHARS: usize = 64;

/// Second frame, from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloOk {
    /// Fresh from the server.
    pub nonce: Nonce,
    /// The server's node key.
    pub server: PublicKey,
    /// The network that the server belongs to.
    pub network: GenesisHash,
    /// The server's clock, so that a caller can tell its own drift. Milliseconds since 1970.
    pub now_ms: u64,
    /// By the server's key over [`Transcript::message`].
    pub signature: Signature,
}

/// Third frame, from the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auth {
    /// By the caller's key over [`Transcript::message`].
    pub signature: Signature,
}

/// Fourth frame, from the server: the caller is who it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The largest frame that the server reads from now on.
    pub max_frame_bytes: u32,
}

/// What both sides sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript<'a> {
    /// From [`Hello`].
    pub caller_nonce: Nonce,
    /// From [`HelloOk`].
    pub server_nonce: Nonce,
    /// From [`Hello`].
    pub caller: PublicKey,
    /// From [`HelloOk`].
    pub server: PublicKey,
    /// From [`HelloOk`].
    pub network: GenesisHash,
    /// BLAKE3 of the server certificate's SubjectPublicKeyInfo, as this side sees it.
    pub certificate: Hash,
    /// The negotiated protocol.
    pub alpn: &'a str,
}

impl Transcript<'_> {
    /// The bytes that are signed under `tag`. Every part is of fixed length but the tag and the
    /// ALPN, which carry theirs.
    pub fn message(&self, tag: &str) -> Vec<u8> {
        let mut m = Vec::with_capacity(256);
        for text in [tag, self.alpn] {
            m.extend_from_slice(&(text.len() as u32).to_be_bytes());
            m.extend_from_slice(text.as_bytes());
        }
        m.extend_from_slice(self.caller_nonce.as_bytes());
        m.extend_from_slice(self.server_nonce.as_bytes());
        m.extend_from_slice(self.caller.as_bytes());
        m.extend_from_slice(self.server.as_bytes());
        m.extend_from_slice(self.network.as_bytes());
        m.extend_from_slice(self.certificate.as_bytes());
        m
    }

    /// Signs as the server or as the caller, by `tag`.
    pub fn sign(&self, tag: &str, key: &SecretKey) -> Signature {
        key.sign(&self.message(tag))
    }

    /// Whether the server signed this. A caller with the server's own key is refused.
    pub fn server_signed(&self, signature: &Signature) -> bool {
        self.caller != self.server && self.server.verify(&self.message(SERVER_TAG), signature)
    }

    /// Whether the caller signed this. A caller with the server's own key is refused.
    pub fn caller_signed(&self, signature: &Signature) -> bool {
        self.caller != self.server && self.caller.verify(&self.message(CALLER_TAG), signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript(caller: &SecretKey, server: &SecretKey) -> Transcript<'static> {
        Transcript {
            caller_nonce: Nonce::new([1; 16]),
            server_nonce: Nonce::new([2; 16]),
            caller: caller.public(),
            server: server.public(),
            network: GenesisHash::new([3; 32]),
            certificate: Hash::of(b"certificate"),
            alpn: crate::frame::ALPN_API,
        }
    }

    #[test]
    fn a_reflected_or_relayed_signature_proves_nothing() {
        let (caller, server) = (SecretKey::from_seed([4; 32]), SecretKey::from_seed([5; 32]));
        let t = transcript(&caller, &server);
        let by_server = t.sign(SERVER_TAG, &server);
        let by_caller = t.sign(CALLER_TAG, &caller);
        assert!(t.server_signed(&by_server) && t.caller_signed(&by_caller));
        // Reflected: the server's signature sent back as the caller's, even by a caller with its key.
        assert!(!t.caller_signed(&by_server) && !t.server_signed(&by_caller));
        let mirror = transcript(&server, &server);
        assert!(!mirror.caller_signed(&mirror.sign(CALLER_TAG, &server)));
        // Relayed: the same exchange under another certificate, another protocol, another nonce.
        let other = Transcript {
            certificate: Hash::of(b"another"),
            ..t.clone()
        };
        assert!(!other.caller_signed(&by_caller) && !other.server_signed(&by_server));
        let other = Transcript {
            alpn: crate::frame::ALPN_NODE,
            ..t.clone()
        };
        assert!(!other.caller_signed(&by_caller));
        let other = Transcript {
            server_nonce: Nonce::new([9; 16]),
            ..t
        };
        assert!(!other.caller_signed(&by_caller));
    }
}
