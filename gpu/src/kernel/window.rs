//! Windows that move over a line of an image: which of them see a place through their k-th element.

use std::ops::Range;

/// How windows lie along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    /// Values of the line.
    pub(super) size: usize,
    /// Elements of a window.
    pub(super) kernel: usize,
    /// From a window to the next.
    pub(super) stride: usize,
    /// What is added at both ends.
    pub(super) padding: usize,
    /// Number of windows.
    pub(super) count: usize,
}

impl Axis {
    pub(super) fn new(size: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        assert!(kernel > 0 && stride > 0, "a window has a size and moves");
        let padded = size + 2 * padding;
        assert!(kernel <= padded, "a window fits into the padded image");
        Self {
            size,
            kernel,
            stride,
            padding,
            count: (padded - kernel) / stride + 1,
        }
    }

    /// The windows whose `element` lies inside the line, not in the padding.
    pub(super) fn inside(&self, element: usize) -> Range<usize> {
        let first = self.padding.saturating_sub(element).div_ceil(self.stride);
        let end = match (self.size + self.padding).checked_sub(element) {
            Some(room) if room > 0 => (room - 1) / self.stride + 1,
            _ => 0,
        };
        let end = end.min(self.count);
        first.min(end)..end
    }

    /// Where the window's element lies, if it is inside.
    pub(super) fn place(&self, window: usize, element: usize) -> Option<usize> {
        let place = (window * self.stride + element).checked_sub(self.padding)?;
        (place < self.size).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_inside_are_those_with_a_place() {
        for size in 1..8 {
            for (kernel, stride, padding) in [(1, 1, 0), (3, 1, 1), (2, 3, 1), (5, 2, 4), (4, 5, 2)]
            {
                if kernel > size + 2 * padding {
                    continue;
                }
                let axis = Axis::new(size, kernel, stride, padding);
                for element in 0..kernel {
                    let inside = axis.inside(element);
                    for window in 0..axis.count {
                        let place = axis.place(window, element);
                        assert_eq!(
                            place.is_some(),
                            inside.contains(&window),
                            "{axis:?} {element}"
                        );
                    }
                }
            }
        }
    }
}
