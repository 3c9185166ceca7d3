//! Parts of a step's gradients, as they become final.

use std::ops::Range;

/// A part of the arena that nothing in this step changes any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket<'a> {
    /// Where it lies in the arena.
    pub range: Range<usize>,
    /// Gradient sums over the batch.
    pub values: &'a [f32],
}

/// Who is given the buckets.
pub type OnBucket<'a> = &'a mut (dyn FnMut(Bucket<'_>) + Send);
