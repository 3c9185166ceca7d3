//! Gradients between neighbours: the protocol `cryptomind-ring/1`.
//!
//! Rank r dials rank r+1. After `hello`, the caller opens one unidirectional stream for data and both
//! sides one for pings. A data frame is a [`SegmentHeader`] frame, then raw little-endian f32 values.

use serde::{Deserialize, Serialize};

use crate::TaskId;

/// Pings leave this often.
pub const PING_MS: u64 = 250;
/// A silent neighbour is suspected after this.
pub const SUSPECT_MS: u64 = 750;
/// A silent neighbour is given up after this.
pub const EVICT_MS: u64 = 1500;

/// First frame from the dialling rank: which ring this link belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: u32,
    /// The dialling rank.
    pub rank: u32,
}

/// Before the values of a segment. A frame that does not fit the receiver's place is out of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeader {
    /// Number of the collective within the attempt, from 0.
    pub sequence: u64,
    /// Which hop of the collective, from 0.
    pub hop: u32,
    /// Which segment of the buffer.
    pub segment: u32,
    /// Values that follow.
    pub values: u32,
}
