//! How a newcomer to a group takes the state from a member while the group trains: the protocol `cryptomind-follow/1`.
//!
//! The newcomer dials a member at its ring socket, and opens a one-way stream with one frame, [`Follow`]. The member answers
//! with a one-way stream of [`Piece`]s: its committed state, then of each step the sums that the group comes to and, once the group
//! has confirmed the step, that it is committed. Who applies these sums to that state computes the bits that the members compute.
//! Where a newcomer does not keep up, the member may leave steps out and pass its state again, and the steps after that.
//! The stream ends with [`Piece::End`] where the member leaves its ring; without it, it is broken.

use serde::{Deserialize, Serialize};

use crate::TaskId;

/// The largest frame with a [`Follow`] or a [`Piece`], bytes.
pub const MAX_PIECE: usize = 256;

/// First frame from the newcomer: whose state it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follow {
    /// Of which task.
    pub task: TaskId,
    /// In which attempt.
    pub attempt: u32,
}

/// What a member passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The state after `step` steps: so many bytes of a checkpoint follow the frame.
    State {
        /// Steps that it covers.
        step: u64,
        /// Bytes.
        bytes: u64,
    },
    /// The sums that lead to the state after `step` steps: so many values follow the frame, little-endian IEEE 754 binary32 in
    /// canonical order.
    Sums {
        /// Steps after them.
        step: u64,
        /// Samples of the step, over the group.
        samples: u32,
        /// Values.
        values: u64,
    },
    /// The group has confirmed the step that the last sums lead to.
    Committed {
        /// Steps that are committed.
        step: u64,
        /// Steps that the member has committed by the time at which this leaves: how far the newcomer is behind.
        newest: u64,
    },
    /// The member leaves its ring; there is nothing after this.
    End {},
}
