//! Why a connection is closed: the fixed table of QUIC close codes and the sentences that go with them.
//!
//! The ring adds codes of its own above 0x100: see [`crate::ring`].

use cryptomind_protocol::{ErrorBody, ErrorClass};
use quinn::VarInt;

/// Longest reason that is sent or shown, in bytes.
pub(crate) const MAX_REASON_BYTES: usize = 200;

/// A reason from the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    Done,
    Busy,
    BusyAddress,
    HandshakeTimeout,
    HelloMalformed,
    HelloTooLarge,
    NotProven,
    WrongNode,
    Stranger,
}

const TABLE: [Close; 9] = [
    Close::Done,
    Close::Busy,
    Close::BusyAddress,
    Close::HandshakeTimeout,
    Close::HelloMalformed,
    Close::HelloTooLarge,
    Close::NotProven,
    Close::WrongNode,
    Close::Stranger,
];

impl Close {
    /// The code on the wire: never changed, only added to.
    pub(crate) const fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub(crate) fn from_code(code: VarInt) -> Option<Self> {
        TABLE.into_iter().find(|close| close.code() == code)
    }

    /// The sentence that the peer reads.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Busy => "this node has as many connections as it takes; try again later",
            Self::BusyAddress => "your address has as many connections here as one may have",
            Self::HandshakeTimeout => "the hello exchange took too long",
            Self::HelloMalformed => "the hello exchange was malformed",
            Self::HelloTooLarge => "a frame before authentication exceeds 64 KiB",
            Self::NotProven => "your signature does not prove your key over this connection",
            Self::WrongNode => "another node was expected at this address",
            Self::Stranger => "you are no neighbour in this ring and attempt",
        }
    }

    /// The error of whoever is told so by its peer.
    pub(crate) fn error(self) -> ErrorBody {
        let (class, code, retry_ms) = match self {
            Self::Done => (ErrorClass::Network, "connection_closed", Some(1_000)),
            Self::Busy => (ErrorClass::Capacity, "busy", Some(1_000)),
            Self::BusyAddress => (ErrorClass::Capacity, "busy_address", Some(1_000)),
            Self::HandshakeTimeout => (ErrorClass::Network, "handshake_timeout", Some(1_000)),
            Self::HelloMalformed => (ErrorClass::User, "malformed_hello", None),
            Self::HelloTooLarge => (ErrorClass::User, "frame_too_large", None),
            Self::NotProven => (ErrorClass::Auth, "not_proven", None),
            Self::WrongNode => (ErrorClass::Auth, "wrong_node", None),
            Self::Stranger => (ErrorClass::Auth, "stranger", None),
        };
        let error = ErrorBody::new(class, code, format!("refused: {}", self.reason()));
        match retry_ms {
            Some(ms) => error.with_retry_after_ms(ms),
            None => error,
        }
    }

    /// Closes `connection` for this reason.
    pub(crate) fn apply(self, connection: &quinn::Connection) {
        connection.close(self.code(), self.reason().as_bytes());
    }
}

/// A reason as it may be shown: bounded, without control characters.
pub(crate) fn readable(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reason[..reason.len().min(MAX_REASON_BYTES)]).into_owned();
    text.replace(|c: char| c.is_control(), " ")
}

/// The longest prefix of `reason` that may be sent.
pub(crate) fn sendable(reason: &str) -> &[u8] {
    let end = (0..=reason.len().min(MAX_REASON_BYTES))
        .rev()
        .find(|at| reason.is_char_boundary(*at));
    &reason.as_bytes()[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own_and_reads_back() {
        for (at, close) in TABLE.into_iter().enumerate() {
            assert_eq!(close.code(), VarInt::from_u32(at as u32));
            assert_eq!(Close::from_code(close.code()), Some(close));
            assert!(close.reason().len() <= MAX_REASON_BYTES);
        }
        assert_eq!(Close::from_code(VarInt::from_u32(TABLE.len() as u32)), None);
    }

    #[test]
    fn reasons_are_cut_at_characters_and_shown_without_escapes() {
        assert_eq!(sendable(&"é".repeat(150)).len(), MAX_REASON_BYTES);
        assert_eq!(sendable(&format!("a{}", "é".repeat(150))).len(), 199);
        assert_eq!(readable(b"\x1b[31mred\n"), " [31mred ");
    }
}
