//! Gradients between neighbours: the protocol `cryptomind-ring/1`.
//!
//! Each rank dials those that it sends to: the next one for [`Wire::F32`] and [`Wire::Bf16`], all others for
//! [`Wire::Int8`]. After `hello`, the caller opens one unidirectional stream for data, whose first frame is a [`Link`],
//! and both sides one for pings. A data frame is a [`SegmentHeader`] frame, then the segment's values in the format
//! that the header names.

use serde::{Deserialize, Serialize};

use crate::TaskId;

/// Pings leave this often.
pub const PING_MS: u64 = 250;
/// A silent neighbour is suspected after this.
pub const SUSPECT_MS: u64 = 750;
/// A silent neighbour is given up after this.
pub const EVICT_MS: u64 = 1500;
/// Values that share a scale in [`Wire::Int8`].
pub const INT8_GROUP: usize = 512;

/// How the values of a sum travel. With each, all ranks end with the same bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// Little-endian IEEE 754 binary32: exact, four bytes a value.
    #[default]
    F32,
    /// Its upper half, rounded to nearest, ties to even: two bytes a value, eight significant bits. Rounded at each hop
    /// of the ring, so N times in all.
    Bf16,
    /// Groups of [`INT8_GROUP`] values, fewer in a segment's last: their scale as a little-endian binary32, the largest
    /// magnitude divided by 127, then a signed byte a value, which times the scale is the value. Rounded twice, however
    /// many ranks there are: by each rank for the owner of the segment, and of the sum by the owner.
    Int8,
}

impl Wire {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    // The type of the argument is serde's.
    pub(crate) const fn is_exact(&self) -> bool {
        matches!(self, Self::F32)
    }

    /// How many ranks ahead the farthest is that a rank sends to, in a ring of `world`.
    pub const fn farthest(self, world: usize) -> usize {
        match self {
            Self::F32 | Self::Bf16 => 1,
            Self::Int8 => world.saturating_sub(1),
        }
    }

    /// How many bytes a segment of `values` takes.
    pub const fn bytes(self, values: usize) -> usize {
        match self {
            Self::F32 => 4 * values,
            Self::Bf16 => 2 * values,
            Self::Int8 => values + 4 * values.div_ceil(INT8_GROUP),
        }
    }
}

impl std::fmt::Display for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

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
    /// The attempt.
    pub attempt: u32,
    /// Number of the collective within the attempt, from 0.
    pub sequence: u64,
    /// Which hop of the collective, from 0.
    pub hop: u32,
    /// Which segment of the buffer.
    pub segment: u32,
    /// Values that follow.
    pub values: u32,
    /// And how they are written.
    pub wire: Wire,
}
