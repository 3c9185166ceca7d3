//! Patches as columns of a matrix: one row for each channel and element of the kernel, one column
//! for each pixel of the output; zeros where a patch leaves the image.
//!
//! Where windows move by one and the output is as wide as the input, a row of the matrix is a piece
//! of the channel, shifted, but for the columns at the edge: these are copied whole.

use std::ops::Range;

use super::Conv;
use crate::kernel::window::Axis;

/// One row of the matrix: an element of the kernel, and the part of a channel that it sees.
struct Tap {
    vertical: Axis,
    horizontal: Axis,
    /// Row and column within the kernel.
    element: [usize; 2],
    /// Rows of the output that make the tile.
    rows: Range<usize>,
}

/// Each row of the matrix with the number of its channel.
fn taps(shape: &Conv, rows: Range<usize>) -> impl Iterator<Item = (usize, Tap)> + use<> {
    let [vertical, horizontal] = shape.axes();
    let [height, width] = shape.kernel;
    let channels = shape.channels / shape.groups;
    (0..channels * height * width).map(move |row| {
        let tap = Tap {
            vertical,
            horizontal,
            element: [row / width % height, row % width],
            rows: rows.clone(),
        };
        (row / (height * width), tap)
    })
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
    for ((channel, tap), patches) in taps(shape, rows).zip(patches.chunks_exact_mut(pixels)) {
        let channel = &channels[channel * plane..(channel + 1) * plane];
        match tap.is_shift() {
            true => tap.copy_shifted(channel, patches),
            false => tap.copy_lines(channel, patches),
        }
    }
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
    for ((channel, tap), patches) in taps(shape, rows).zip(patches.chunks_exact_mut(pixels)) {
        let channel = &mut channels[channel * plane..(channel + 1) * plane];
        match tap.is_shift() {
            true => tap.add_shifted(patches, channel),
            false => tap.add_lines(patches, channel),
        }
    }
}

impl Tap {
    fn is_shift(&self) -> bool {
        self.horizontal.stride == 1
            && self.vertical.stride == 1
            && self.horizontal.count() == self.horizontal.size
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
            self.horizontal.count(),
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
            self.horizontal.count(),
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
    fn shifted(&self) -> (Range<usize>, Range<usize>) {
        let width = self.horizontal.size;
        let inside = self.inside();
        let line = self
            .vertical
            .place(self.rows.start + inside.start, self.element[0]);
        let (Some(line), false) = (line, inside.is_empty()) else {
            return (0..0, 0..0);
        };
        // The channel's piece starts at line·width + element − padding, perhaps before the channel.
        let ahead = line * width + self.element[1];
        let cut_front = self.horizontal.padding.saturating_sub(ahead);
        let from = (ahead + cut_front) - self.horizontal.padding;
        let whole = inside.len() * width - cut_front;
        let room = (self.vertical.size * width).saturating_sub(from);
        let len = whole.min(room);
        let to = inside.start * width + cut_front;
        (to..to + len, from..from + len)
    }

    /// The columns of a row of the tile that see padding: on the left, on the right.
    fn edges(&self) -> (Range<usize>, Range<usize>) {
        let inside = self.horizontal.inside(self.element[1]);
        (0..inside.start, inside.end..self.horizontal.size)
    }

    fn clear_edges(&self, patches: &mut [f32]) {
        let (left, right) = self.edges();
        if left.is_empty() && right.is_empty() {
            return;
        }
        for row in patches.chunks_exact_mut(self.horizontal.size) {
            row[left.clone()].iter_mut().for_each(|v| *v = 0.0);
            row[right.clone()].iter_mut().for_each(|v| *v = 0.0);
        }
    }

    fn copy_shifted(&self, channel: &[f32], patches: &mut [f32]) {
        if self.horizontal.inside(self.element[1]).is_empty() {
            return patches.fill(0.0);
        }
        let (to, from) = self.shifted();
        patches[..to.start].fill(0.0);
        patches[to.end..].fill(0.0);
        patches[to].copy_from_slice(&channel[from]);
        self.clear_edges(patches);
    }

    fn add_shifted(&self, patches: &mut [f32], channel: &mut [f32]) {
        if self.horizontal.inside(self.element[1]).is_empty() {
            return;
        }
        self.clear_edges(patches);
        let (to, from) = self.shifted();
        let pairs = channel[from].iter_mut().zip(&patches[to]);
        pairs.for_each(|(v, p)| *v += p);
    }
}
