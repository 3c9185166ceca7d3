//! Which parts of an arena are done, each once.

use std::ops::Range;

/// Parts that do not overlap.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// In the arena's order, none empty.
    ranges: Vec<Range<usize>>,
    values: usize,
}

impl Parts {
    /// Adds a part; false where some of it is among them already, and then nothing changes.
    pub(super) fn add(&mut self, part: Range<usize>) -> bool {
        if part.is_empty() {
            return true;
        }
        let place = self.ranges.partition_point(|done| done.end <= part.start);
        let next = self.ranges.get(place);
        if next.is_some_and(|next| next.start < part.end) {
            return false;
        }
        self.values += part.len();
        self.ranges.insert(place, part);
        true
    }

    /// How many values lie in them.
    pub(super) const fn values(&self) -> usize {
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_in_two_parts() {
        let mut parts = Parts::default();
        assert!(parts.add(10..20) && parts.add(0..5) && parts.add(20..21));
        for taken in [0..1, 4..6, 5..11, 9..30, 10..20, 12..13, 19..21, 0..100] {
            assert!(!parts.add(taken.clone()), "{taken:?}");
        }
        assert_eq!(parts.values(), 16);
        assert!(parts.add(5..10) && parts.add(21..30));
        assert!(parts.add(7..7), "nothing is no double");
        assert_eq!(parts.values(), 30);
    }
}
