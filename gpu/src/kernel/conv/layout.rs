//! Patches as columns of a matrix: one row for each channel and element of the kernel, one column
//! for each pixel of the output; zeros where a patch leaves the image.
//!
//! Where windows move by one and the output is as wide as the input, a row of the matrix is a piece
//! of the channel, shifted, but for the columns at the edge: these are copied whole.

use std::ops::Range;

use super::Conv;
use crate::kernel::window::Axis;

/// An element of the kernel, and what it sees of each channel.
struct Tap {
    vertical: Axis,
    horizontal: Axis,
    /// Row and column within the kernel.
    element: [usize; 2],
    /// Rows of the output that make the tile.
    rows: Range<usize>,
}

/// Calls `work` for each row of the matrix with its element of the kernel, its number and the number
/// of its channel. Element by element: what follows from it is the same for all channels.
fn each_row(shape: &Conv, rows: &Range<usize>, mut work: impl FnMut(&View, usize, usize)) {
    let [vertical, horizontal] = shape.axes();
    let [height, width] = shape.kernel;
    for element in 0..height * width {
        let view = View::new(Tap {
            vertical,
            horizontal,
            element: [element / width, element % width],
            rows: rows.clone(),
        });
        for channel in 0..shape.channels / shape.groups {
            work(&view, channel * height * width + element, channel);
        }
    }
}

/// Writes the patches of these rows of the output.
pub(super) fn write_patches(
    shape: &Conv,
    channels: &[f32],
    rows: Range<usize>,
    patches: &mut [f32],
) {
    let plane = shape.height * shape.width;
    let pixels = rows.len() * shape.output()[1];
    each_row(shape, &rows, |view, row, channel| {
        let channel = &channels[channel * plane..(channel + 1) * plane];
        let patches = &mut patches[row * pixels..(row + 1) * pixels];
        match view {
            View::Shift(shift) => shift.copy(channel, patches),
            View::Lines(tap) => tap.copy_lines(channel, patches),
        }
    });
}

/// Adds the patches of these rows of the output to where they were taken from. What was taken from
/// outside the image is lost; `patches` is used up.
pub(super) fn add_patches(
    shape: &Conv,
    patches: &mut [f32],
    rows: Range<usize>,
    channels: &mut [f32],
) {
    let plane = shape.height * shape.width;
    let pixels = rows.len() * shape.output()[1];
    each_row(shape, &rows, |view, row, channel| {
        let channel = &mut channels[channel * plane..(channel + 1) * plane];
        let patches = &mut patches[row * pixels..(row + 1) * pixels];
        match view {
            View::Shift(shift) => shift.add(patches, channel),
            View::Lines(tap) => tap.add_lines(patches, channel),
        }
    });
}

/// How an element sees a channel.
enum View {
    /// As a piece of it.
    Shift(Shift),
    /// Line by line.
    Lines(Tap),
}

impl View {
    fn new(tap: Tap) -> Self {
        match tap.is_shift() {
            true => Self::Shift(tap.shift()),
            false => Self::Lines(tap),
        }
    }
}

/// A piece of a tile's row that is a piece of a channel, but for columns at the edge.
struct Shift {
    to: Range<usize>,
    from: Range<usize>,
    /// Columns that see padding: on the left, on the right.
    edges: [Range<usize>; 2],
    width: usize,
}

impl Shift {
    fn copy(&self, channel: &[f32], patches: &mut [f32]) {
        patches[..self.to.start].fill(0.0);
        patches[self.to.end..].fill(0.0);
        patches[self.to.clone()].copy_from_slice(&channel[self.from.clone()]);
        self.clear_edges(patches);
    }

    fn add(&self, patches: &mut [f32], channel: &mut [f32]) {
        self.clear_edges(patches);
        let patches = &patches[self.to.clone()];
        let pairs = channel[self.from.clone()].iter_mut().zip(patches);
        pairs.for_each(|(v, p)| *v += p);
    }

    fn clear_edges(&self, patches: &mut [f32]) {
        for column in self.edges.iter().cloned().flatten() {
            let values = patches[column..].iter_mut().step_by(self.width);
            values.for_each(|v| *v = 0.0);
        }
    }
}

impl Tap {
    fn is_shift(&self) -> bool {
        self.horizontal.stride == 1
            && self.vertical.stride == 1
            && self.horizontal.count == self.horizontal.size
    }

    /// Rows of the tile, counted from its start, that are inside the image.
    fn inside(&self) -> Range<usize> {
        let rows = self.vertical.inside(self.element[0]);
        let start = rows.start.clamp(self.rows.start, self.rows.end);
        let end = rows.end.clamp(start, self.rows.end);
        start - self.rows.start..end - self.rows.start
    }

    /// A row of the tile with the line of the channel that it sees.
    fn lines(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (vertical, element, start) = (self.vertical, self.element[0], self.rows.start);
        let place = move |row| Some((row, vertical.place(start + row, element)?));
        self.inside().filter_map(place)
    }

    fn copy_lines(&self, channel: &[f32], patches: &mut [f32]) {
        let (width, columns) = (
            self.horizontal.count,
            self.horizontal.inside(self.element[1]),
        );
        let stride = self.horizontal.stride;
        patches.fill(0.0);
        let Some(first) = self.horizontal.place(columns.start, self.element[1]) else {
            return;
        };
        for (row, line) in self.lines() {
            let start = line * self.horizontal.size;
            let line = &channel[start + first..start + self.horizontal.size];
            let patches = &mut patches[row * width..][columns.clone()];
            match stride {
                1 => patches.copy_from_slice(&line[..patches.len()]),
                _ => {
                    let values = patches.iter_mut().zip(line.iter().step_by(stride));
                    values.for_each(|(p, v)| *p = *v);
                }
            }
        }
    }

    fn add_lines(&self, patches: &[f32], channel: &mut [f32]) {
        let (width, columns) = (
            self.horizontal.count,
            self.horizontal.inside(self.element[1]),
        );
        let stride = self.horizontal.stride;
        let Some(first) = self.horizontal.place(columns.start, self.element[1]) else {
            return;
        };
        for (row, line) in self.lines() {
            let start = line * self.horizontal.size;
            let line = &mut channel[start + first..start + self.horizontal.size];
            let patches = &patches[row * width..][columns.clone()];
            match stride {
                1 => line.iter_mut().zip(patches).for_each(|(v, p)| *v += p),
                _ => {
                    let values = line.iter_mut().step_by(stride).zip(patches);
                    values.for_each(|(v, p)| *v += p);
                }
            }
        }
    }

    /// The pixels of the tile that are inside the image vertically, and what of the channel they
    /// see: pieces of equal length, clipped to the channel. What is clipped is at the edge.
    fn shift(&self) -> Shift {
        let width = self.horizontal.size;
        let columns = self.horizontal.inside(self.element[1]);
        let edges = [0..columns.start, columns.end..width];
        let inside = self.inside();
        let first = self.rows.start + inside.start;
        let line = self.vertical.place(first, self.element[0]);
        let (Some(line), false) = (line, inside.is_empty() || columns.is_empty()) else {
            let (to, from) = (0..0, 0..0);
            return Shift {
                to,
                from,
                edges,
                width,
            };
        };
        // The channel's piece starts at line·width + element − padding, perhaps before the channel.
        let ahead = line * width + self.element[1];
        let cut_front = self.horizontal.padding.saturating_sub(ahead);
        let from = (ahead + cut_front) - self.horizontal.padding;
        let whole = inside.len() * width - cut_front;
        let len = whole.min(self.vertical.size * width - from);
        let to = inside.start * width + cut_front;
        Shift {
            to: to..to + len,
            from: from..from + len,
            edges,
            width,
        }
    }
}
