//! Frames: a u32 big-endian length, then one CBOR message. Limits are checked before memory is taken.

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;

/// The largest frame from a caller that has not proven who it is.
pub const MAX_FRAME_BEFORE_AUTH: usize = 64 * 1024;

/// The largest frame after that.
pub const MAX_FRAME: usize = 1024 * 1024;

/// ALPN of the clients' API.
pub const ALPN_API: &str = "cryptomind/1";
/// ALPN between miners, storage nodes and coordinator.
pub const ALPN_NODE: &str = "cryptomind-node/1";
/// ALPN of bytes by content address.
pub const ALPN_BLOB: &str = "cryptomind-blob/1";
/// ALPN of the ring between miners of a group.
pub const ALPN_RING: &str = "cryptomind-ring/1";
/// ALPN between the members of a group that agree on who goes on.
pub const ALPN_MEMBER: &str = "cryptomind-member/1";
/// ALPN between a newcomer to a group and the member whose state it takes.
pub const ALPN_FOLLOW: &str = "cryptomind-follow/1";
/// ALPN between miners that measure how far they are from each other.
pub const ALPN_PROBE: &str = "cryptomind-probe/1";
/// ALPN between a task's client and the miner that serves its calls.
pub const ALPN_SERVE: &str = "cryptomind-serve/1";

/// A frame longer than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes was announced, at most {max} are allowed here")]
pub struct FrameTooLarge {
    /// The announced length.
    pub length: usize,
    /// The limit.
    pub max: usize,
}

/// Reads a frame's length and holds it against its limit.
pub const fn length(header: [u8; LENGTH_BYTES], max: usize) -> Result<usize, FrameTooLarge> {
    let length = u32::from_be_bytes(header) as usize;
    if length > max {
        Err(FrameTooLarge { length, max })
    } else {
        Ok(length)
    }
}

/// The frame around an encoded message.
pub fn wrap(message: &[u8]) -> Vec<u8> {
    debug_assert!(message.len() <= MAX_FRAME, "a message fits a frame");
    let mut frame = Vec::with_capacity(LENGTH_BYTES + message.len());
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}
