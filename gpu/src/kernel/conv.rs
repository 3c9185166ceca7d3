//! Convolutions of images: stride, zero padding and groups.
//!
//! A tile of an image's patches is laid out as the columns of a matrix, and the rest is a product:
//! output = weight · patches, patches' gradient = weightᵀ · upper, weight's gradient = upper ·
//! patchesᵀ. Tiles fit into a processor's cache; patches are laid out again in the backward pass
//! rather than kept. Images are divided among threads; a weight's gradient is summed over chunks of
//! the batch that follow from the shape, and over these in order.
//!
//! The gradient of a bias is [`super::sums::channels`] of `upper`.

use std::ops::Range;

use super::Update;
use super::parallel::{Chunks, Rows, Scratch, each, lend};
use super::sums::fold;
use super::window::Axis;
use crate::product::{Matrix, Place, multiply_into};

/// Values of a tile of patches, 256 KiB, unless a single row of the output has more.
const TILE_VALUES: usize = 1 << 16;
/// Most parts of a batch that are summed apart for a weight's gradient, and most values of them all.
const MAX_CHUNKS: usize = 16;
const MAX_CHUNK_VALUES: usize = 1 << 24;

/// A convolution's shape. Pairs are vertical, horizontal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Channels of the input; a multiple of the groups.
    pub channels: usize,
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Channels of the output; a multiple of the groups.
    pub filters: usize,
    /// Size of a filter.
    pub kernel: [usize; 2],
    /// From a window to the next.
    pub stride: [usize; 2],
    /// Zeros around the input, on each side.
    pub padding: [usize; 2],
    /// Each group of filters sees its share of the channels alone.
    pub groups: usize,
}

impl Conv {
    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.axes().map(|axis| axis.count)
    }

    /// Values of the weight: (filters, channels / groups, kernel height, kernel width).
    pub fn weights(&self) -> usize {
        self.filters * self.depth()
    }

    /// Values of one image, before and after.
    fn image(&self) -> (usize, usize) {
        let input = self.channels * self.height * self.width;
        (input, self.filters * self.pixels())
    }

    fn axes(&self) -> [Axis; 2] {
        let axis =
            |i: usize, size| Axis::new(size, self.kernel[i], self.stride[i], self.padding[i]);
        [axis(0, self.height), axis(1, self.width)]
    }

    /// Pixels of the output.
    fn pixels(&self) -> usize {
        let [height, width] = self.output();
        height * width
    }

    /// Values of a patch: what one output value is a sum over.
    fn depth(&self) -> usize {
        self.channels / self.groups * self.kernel[0] * self.kernel[1]
    }

    /// Patches are the pixels themselves.
    fn is_pointwise(&self) -> bool {
        (self.kernel, self.stride, self.padding) == ([1, 1], [1, 1], [0, 0])
    }

    /// Rows of the output whose patches make a tile.
    fn tile_rows(&self) -> usize {
        let [height, width] = self.output();
        (TILE_VALUES / (self.depth() * width)).clamp(1, height)
    }

    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (height, rows) = (self.output()[0], self.tile_rows());
        (0..height)
            .step_by(rows)
            .map(move |start| start..(start + rows).min(height))
    }

    fn tile_values(&self) -> usize {
        match self.is_pointwise() {
            true => 0,
            false => self.depth() * self.tile_rows() * self.output()[1],
        }
    }

    /// Number of images in `input`, once it and `output` are as long as the shape says.
    fn batch(&self, input: &[f32], output: &[f32]) -> usize {
        assert!(self.groups > 0, "there is a group");
        let divides = |count: usize| count.is_multiple_of(self.groups);
        let divided = divides(self.channels) && divides(self.filters);
        assert!(divided, "groups have equally many channels and filters");
        let (before, after) = self.image();
        assert!(before > 0 && after > 0, "an image has values");
        assert_eq!(input.len() % before, 0, "images are whole");
        let batch = input.len() / before;
        assert_eq!(output.len(), batch * after, "an output for each image");
        batch
    }

    fn chunks(&self, batch: usize) -> Chunks {
        let most = (MAX_CHUNK_VALUES / self.weights()).clamp(1, MAX_CHUNKS);
        Chunks::new(batch, most)
    }
}

/// One group of an image: where it lies in the input, in the output and in the weight.
struct Group {
    input: Range<usize>,
    output: Range<usize>,
    weight: Range<usize>,
}

impl Conv {
    fn groups(&self) -> impl Iterator<Item = Group> + use<> {
        let (input, output) = self.image();
        let sizes = [input, output, self.weights()].map(|size| size / self.groups);
        (0..self.groups).map(move |group| {
            let [input, output, weight] = sizes.map(|size| group * size..(group + 1) * size);
            Group {
                input,
                output,
                weight,
            }
        })
    }
}

/// Threads for each of so many items that are computed at a time.
fn inner_threads(threads: usize, items: usize) -> usize {
    (threads / items.clamp(1, threads.max(1))).max(1)
}

/// Values of scratch that [`forward`] and [`input_gradient`] need.
pub fn scratch(shape: &Conv, threads: usize) -> usize {
    threads.max(1) * shape.tile_values()
}

/// Writes (batch, filters, output height, output width) for an input (batch, channels, height,
/// width).
pub fn forward(
    shape: &Conv,
    input: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    output: &mut [f32],
    room: &mut [f32],
    threads: usize,
) {
    let batch = shape.batch(input, output);
    assert_eq!(weight.len(), shape.weights(), "the weight has its values");
    assert!(
        bias.is_none_or(|b| b.len() == shape.filters),
        "a bias for each filter"
    );
    let (before, after) = shape.image();
    let inner = inner_threads(threads, batch);
    let parts = (
        Rows::new(output, after),
        Scratch::new(lend(room, scratch(shape, threads)), shape.tile_values()),
    );
    each(threads, batch, parts, |range, (output, scratch)| {
        let images = input[range.start * before..range.end * before].chunks_exact(before);
        for (image, output) in images.zip(output.values.chunks_exact_mut(after)) {
            if let Some(bias) = bias {
                let planes = output.chunks_exact_mut(shape.pixels());
                planes.zip(bias).for_each(|(plane, b)| plane.fill(*b));
            }
            let update = if bias.is_some() {
                Update::Add
            } else {
                Update::Replace
            };
            image_forward(
                shape,
                image,
                weight,
                (output, update),
                scratch.values,
                inner,
            );
        }
    });
}

fn image_forward(
    shape: &Conv,
    image: &[f32],
    weight: &[f32],
    (output, update): (&mut [f32], Update),
    scratch: &mut [f32],
    threads: usize,
) {
    let (filters, depth) = (shape.filters / shape.groups, shape.depth());
    for group in shape.groups() {
        let weight = Matrix::new(&weight[group.weight], filters, depth);
        let (image, output) = (&image[group.input], &mut output[group.output]);
        for rows in shape.tiles() {
            let pixels = tile_pixels(shape, &rows);
            let patches = patches(shape, image, rows, scratch);
            let place = &mut output[pixels.start..];
            let place = Place::spaced(place, filters, pixels.len(), shape.pixels());
            multiply_into(place, update, weight, patches, threads);
        }
    }
}

/// Writes the gradient by the input.
pub fn input_gradient(
    shape: &Conv,
    weight: &[f32],
    upper: &[f32],
    lower: &mut [f32],
    room: &mut [f32],
    threads: usize,
) {
    let batch = shape.batch(lower, upper);
    assert_eq!(weight.len(), shape.weights(), "the weight has its values");
    let (before, after) = shape.image();
    let inner = inner_threads(threads, batch);
    let parts = (
        Rows::new(lower, before),
        Scratch::new(lend(room, scratch(shape, threads)), shape.tile_values()),
    );
    each(threads, batch, parts, |range, (lower, scratch)| {
        let uppers = upper[range.start * after..range.end * after].chunks_exact(after);
        for (upper, lower) in uppers.zip(lower.values.chunks_exact_mut(before)) {
            image_gradient(shape, weight, upper, lower, scratch.values, inner);
        }
    });
}

fn image_gradient(
    shape: &Conv,
    weight: &[f32],
    upper: &[f32],
    lower: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (filters, depth) = (shape.filters / shape.groups, shape.depth());
    if !shape.is_pointwise() {
        lower.fill(0.0);
    }
    for group in shape.groups() {
        let weight = &weight[group.weight];
        let (upper, lower) = (&upper[group.output], &mut lower[group.input]);
        for rows in shape.tiles() {
            let pixels = tile_pixels(shape, &rows);
            let by_patches = Matrix::new(weight, filters, depth).transposed();
            if shape.is_pointwise() {
                let upper = upper_tile(shape, upper, &pixels);
                let place = &mut lower[pixels.start..];
                let place = Place::spaced(place, depth, pixels.len(), shape.pixels());
                multiply_into(place, Update::Replace, by_patches, upper, threads);
                continue;
            }
            let tile = &mut scratch[..depth * pixels.len()];
            if filters == 1 {
                spread(weight, &upper[pixels], tile);
            } else {
                let upper = upper_tile(shape, upper, &pixels);
                let place = Place::spaced(tile, depth, pixels.len(), pixels.len());
                multiply_into(place, Update::Replace, by_patches, upper, threads);
            }
            layout::add_patches(shape, tile, rows, lower);
        }
    }
}

/// The product of a column and a row, which `gemm` is slow at: a group of one filter has it.
fn spread(weight: &[f32], upper: &[f32], tile: &mut [f32]) {
    for (row, w) in tile.chunks_exact_mut(upper.len()).zip(weight) {
        row.iter_mut().zip(upper).for_each(|(t, g)| *t = w * g);
    }
}

/// Values of scratch that [`weight_gradient`] needs.
pub fn weight_gradient_scratch(shape: &Conv, batch: usize, threads: usize) -> usize {
    shape.chunks(batch).count() * shape.weights() + threads.max(1) * shape.tile_values()
}

/// Writes or adds the gradient by the weight.
pub fn weight_gradient(
    shape: &Conv,
    input: &[f32],
    upper: &[f32],
    gradient: &mut [f32],
    update: Update,
    scratch: &mut [f32],
    threads: usize,
) {
    let batch = shape.batch(input, upper);
    let chunks = shape.chunks(batch);
    let scratch = lend(scratch, weight_gradient_scratch(shape, batch, threads));
    assert_eq!(gradient.len(), shape.weights(), "the weight has its values");
    let (before, after) = shape.image();
    let inner = inner_threads(threads, chunks.count());
    let (sums, scratch) = scratch.split_at_mut(chunks.count() * shape.weights());
    let parts = (
        Rows::new(sums, shape.weights()),
        Scratch::new(scratch, shape.tile_values()),
    );
    each(threads, chunks.count(), parts, |range, (sums, scratch)| {
        for (chunk, sums) in range.zip(sums.values.chunks_exact_mut(shape.weights())) {
            sums.fill(0.0);
            for image in chunks.items(chunk) {
                let upper = &upper[image * after..(image + 1) * after];
                let image = &input[image * before..(image + 1) * before];
                add_weight_gradient(shape, image, upper, sums, scratch.values, inner);
            }
        }
    });
    fold_transposed(shape, sums, gradient, update);
}

/// Adds one image's share to the sums, (depth, filters) in each group: `gemm` is fastest when the
/// longer side of a product is the stored one.
fn add_weight_gradient(
    shape: &Conv,
    image: &[f32],
    upper: &[f32],
    sums: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let (filters, depth) = (shape.filters / shape.groups, shape.depth());
    for group in shape.groups() {
        let (image, upper) = (&image[group.input], &upper[group.output]);
        let sums = &mut sums[group.weight];
        for rows in shape.tiles() {
            let upper = upper_tile(shape, upper, &tile_pixels(shape, &rows));
            let patches = patches(shape, image, rows, scratch);
            let place = Place::spaced(sums, depth, filters, filters);
            multiply_into(place, Update::Add, patches, upper.transposed(), threads);
        }
    }
}

/// The sum of the chunks' sums, as (filters, depth) in each group. Without a batch it is 0.
fn fold_transposed(shape: &Conv, sums: &mut [f32], gradient: &mut [f32], update: Update) {
    let (filters, depth) = (shape.filters / shape.groups, shape.depth());
    if sums.is_empty() {
        return fold(sums, gradient, update);
    }
    let (first, others) = sums.split_at_mut(shape.weights());
    fold(others, first, Update::Add);
    let groups = gradient.chunks_exact_mut(filters * depth);
    for (gradient, sums) in groups.zip(first.chunks_exact(filters * depth)) {
        for (filter, row) in gradient.chunks_exact_mut(depth).enumerate() {
            let column = sums.iter().skip(filter).step_by(filters);
            match update {
                Update::Replace => row.iter_mut().zip(column).for_each(|(g, s)| *g = *s),
                Update::Add => row.iter_mut().zip(column).for_each(|(g, s)| *g += *s),
            }
        }
    }
}

fn tile_pixels(shape: &Conv, rows: &Range<usize>) -> Range<usize> {
    let width = shape.output()[1];
    rows.start * width..rows.end * width
}

/// Some pixels of a group's gradient by the output: (filters, pixels).
fn upper_tile<'a>(shape: &Conv, upper: &'a [f32], pixels: &Range<usize>) -> Matrix<'a> {
    let filters = shape.filters / shape.groups;
    Matrix::spaced(
        &upper[pixels.start..],
        filters,
        pixels.len(),
        shape.pixels(),
    )
}

/// The patches of these rows of the output: (depth, pixels). Laid out in `scratch` unless they lie
/// in the image so.
fn patches<'a>(
    shape: &Conv,
    image: &'a [f32],
    rows: Range<usize>,
    scratch: &'a mut [f32],
) -> Matrix<'a> {
    let pixels = tile_pixels(shape, &rows);
    let depth = shape.depth();
    if shape.is_pointwise() {
        let distance = shape.pixels();
        return Matrix::spaced(&image[pixels.start..], depth, pixels.len(), distance);
    }
    let tile = &mut scratch[..depth * pixels.len()];
    layout::write_patches(shape, image, rows, tile);
    Matrix::new(tile, depth, pixels.len())
}

mod layout;
#[cfg(test)]
mod tests;
