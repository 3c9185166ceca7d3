//! Pooling of images: the largest or the mean value of each window, and the mean of a whole channel.
//!
//! Channels of a batch are planes like any others here: all are (planes, height, width).

use std::ops::Range;

use super::lanes::{self, on_vectors};
use super::parallel::{Rows, each, worth};
use super::window::Axis;

/// No place: a window of −∞ alone also gets the place of its first value.
const NOT_SEEN: u32 = u32::MAX;

/// A pooling's shape. Pairs are vertical, horizontal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Height of the input.
    pub height: usize,
    /// Width of the input.
    pub width: usize,
    /// Size of a window.
    pub kernel: [usize; 2],
    /// From a window to the next.
    pub stride: [usize; 2],
    /// Around the input, on each side: at most half a window, so that each sees a value.
    pub padding: [usize; 2],
}

impl Pool {
    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.axes().map(|axis| axis.count)
    }

    fn axes(&self) -> [Axis; 2] {
        let axis =
            |i: usize, size| Axis::new(size, self.kernel[i], self.stride[i], self.padding[i]);
        [axis(0, self.height), axis(1, self.width)]
    }

    /// Values of a plane, before and after.
    fn plane(&self) -> (usize, usize) {
        let [height, width] = self.output();
        (self.height * self.width, height * width)
    }

    /// Number of planes in `input`, once it and `output` are as long as the shape says.
    fn planes(&self, input: &[f32], output: &[f32]) -> usize {
        let half = (0..2).all(|i| 2 * self.padding[i] <= self.kernel[i]);
        assert!(half, "the padding is at most half a window");
        let (before, after) = self.plane();
        assert!(before > 0, "a plane has values");
        assert_eq!(input.len() % before, 0, "planes are whole");
        let planes = input.len() / before;
        assert_eq!(output.len(), planes * after, "an output for each window");
        planes
    }
}

/// For each element of the windows, and each row of the output in which it is inside: the outputs
/// whose windows see it so, and where in the plane the first of them sees it.
fn taps(shape: &Pool) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
    let [vertical, horizontal] = shape.axes();
    let [height, width] = shape.kernel;
    let elements = (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)));
    let elements = elements.filter_map(move |(y, x)| {
        let windows = horizontal.inside(x);
        Some((y, horizontal.place(windows.start, x)?, windows))
    });
    elements.flat_map(move |(y, first, windows)| {
        vertical.inside(y).filter_map(move |row| {
            let start = row * horizontal.count;
            let outputs = start + windows.start..start + windows.end;
            Some((outputs, vertical.place(row, y)? * horizontal.size + first))
        })
    })
}

/// Writes the largest value of each window and its place in the plane: the first one if several are
/// largest. What is not a number counts as larger than all others.
pub fn max_forward(
    shape: &Pool,
    input: &[f32],
    output: &mut [f32],
    argmax: &mut [u32],
    threads: usize,
) {
    let planes = shape.planes(input, output);
    assert_eq!(argmax.len(), output.len(), "a place for each output");
    let (before, after) = shape.plane();
    assert!(u32::try_from(before).is_ok(), "a place in a plane is a u32");
    let parts = (Rows::new(output, after), Rows::new(argmax, after));
    let threads = worth(threads, input.len());
    each(threads, planes, parts, |range, (output, argmax)| {
        let outputs = output.values.chunks_exact_mut(after);
        let outputs = outputs.zip(argmax.values.chunks_exact_mut(after));
        let planes = input[range.start * before..range.end * before].chunks_exact(before);
        on_vectors(
            planes.zip(outputs),
            #[inline(always)]
            |planes| {
                for (plane, (output, argmax)) in planes {
                    max_of_plane(shape, plane, output, argmax);
                }
            },
        );
    });
}

#[inline(always)]
fn max_of_plane(shape: &Pool, plane: &[f32], output: &mut [f32], argmax: &mut [u32]) {
    if (shape.kernel, shape.stride, shape.padding) == ([2, 2], [2, 2], [0, 0]) {
        return max_of_squares(shape, plane, output, argmax);
    }
    output.fill(f32::NEG_INFINITY);
    argmax.fill(NOT_SEEN);
    for (outputs, start) in taps(shape) {
        let (output, argmax) = (&mut output[outputs.clone()], &mut argmax[outputs]);
        let (plane, start) = (&plane[start..], start as u32);
        match shape.stride[1] {
            1 => take_larger::<1>(plane, start, output, argmax),
            2 => take_larger::<2>(plane, start, output, argmax),
            3 => take_larger::<3>(plane, start, output, argmax),
            stride => {
                let places = plane.iter().zip(start..).step_by(stride);
                for ((best, place), (v, here)) in output.iter_mut().zip(argmax).zip(places) {
                    take(best, place, *v, here);
                }
            }
        }
    }
}

/// The usual pooling, by windows of 2 × 2 side by side: each output is computed at once.
#[inline(always)]
fn max_of_squares(shape: &Pool, plane: &[f32], output: &mut [f32], argmax: &mut [u32]) {
    let [height, width] = shape.output();
    let outputs = output.chunks_exact_mut(width);
    let outputs = outputs.zip(argmax.chunks_exact_mut(width));
    for (row, (output, argmax)) in (0..height).zip(outputs) {
        let start = 2 * row * shape.width;
        let (upper, lower) = plane[start..start + 2 * shape.width].split_at(shape.width);
        let (upper, lower) = (
            &upper.as_chunks::<2>().0[..width],
            &lower.as_chunks::<2>().0[..width],
        );
        let (output, argmax) = (&mut output[..width], &mut argmax[..width]);
        let line = shape.width as u32;
        for column in 0..width {
            let here = (start as u32).wrapping_add((column as u32).wrapping_mul(2));
            let below = here.wrapping_add(line);
            let (mut best, mut place) = (upper[column][0], here);
            take(
                &mut best,
                &mut place,
                upper[column][1],
                here.wrapping_add(1),
            );
            take(&mut best, &mut place, lower[column][0], below);
            take(
                &mut best,
                &mut place,
                lower[column][1],
                below.wrapping_add(1),
            );
            (output[column], argmax[column]) = (best, place);
        }
    }
}

/// Windows that are `STRIDE` apart, known to the compiler: as many at a time as a vector holds.
#[inline(always)]
fn take_larger<const STRIDE: usize>(
    plane: &[f32],
    start: u32,
    output: &mut [f32],
    argmax: &mut [u32],
) {
    let (strides, rest) = plane.as_chunks::<STRIDE>();
    let whole = output.len().min(strides.len());
    let (output, last_output) = output.split_at_mut(whole);
    let (argmax, last_argmax) = argmax.split_at_mut(whole);
    let strides = &strides[..whole];
    let here = |index: usize| start.wrapping_add((index as u32).wrapping_mul(STRIDE as u32));
    for index in 0..whole {
        take(
            &mut output[index],
            &mut argmax[index],
            strides[index][0],
            here(index),
        );
    }
    // The last window's element may be the plane's last value: less than a stride is left then.
    if let ([best], [place], [v, ..]) = (last_output, last_argmax, rest) {
        take(best, place, *v, here(whole));
    }
}

#[inline(always)]
fn take(best: &mut f32, place: &mut u32, v: f32, here: u32) {
    // `|`, not `||`: no branch, so that it runs on vectors.
    let larger = (v > *best) | v.is_nan() | (*place == NOT_SEEN);
    *best = if larger { v } else { *best };
    *place = if larger { here } else { *place };
}

/// Gives each output's gradient to the place that [`max_forward`] noted.
pub fn max_backward(
    shape: &Pool,
    argmax: &[u32],
    upper: &[f32],
    lower: &mut [f32],
    threads: usize,
) {
    let planes = shape.planes(lower, upper);
    assert_eq!(argmax.len(), upper.len(), "a place for each output");
    let (before, after) = shape.plane();
    let threads = worth(threads, lower.len());
    each(threads, planes, Rows::new(lower, before), |range, lower| {
        let values = range.start * after..range.end * after;
        let uppers = upper[values.clone()].chunks_exact(after);
        let uppers = uppers.zip(argmax[values].chunks_exact(after));
        for (lower, (upper, argmax)) in lower.values.chunks_exact_mut(before).zip(uppers) {
            lower.fill(0.0);
            let pairs = upper.iter().zip(argmax);
            pairs.for_each(|(g, place)| lower[*place as usize] += g);
        }
    });
}

/// Writes the mean of each window, padding counted as zeros.
pub fn average_forward(shape: &Pool, input: &[f32], output: &mut [f32], threads: usize) {
    let planes = shape.planes(input, output);
    let (before, after) = shape.plane();
    let (stride, share) = (shape.stride[1], share(shape));
    let threads = worth(threads, input.len());
    each(
        threads,
        planes,
        Rows::new(output, after),
        |range, output| {
            let planes = input[range.start * before..range.end * before].chunks_exact(before);
            for (plane, output) in planes.zip(output.values.chunks_exact_mut(after)) {
                output.fill(0.0);
                for (outputs, start) in taps(shape) {
                    let values = plane[start..].iter().step_by(stride);
                    let pairs = output[outputs].iter_mut().zip(values);
                    pairs.for_each(|(sum, v)| *sum += v);
                }
                output.iter_mut().for_each(|sum| *sum *= share);
            }
        },
    );
}

/// Gives each value of a window its share of the output's gradient.
pub fn average_backward(shape: &Pool, upper: &[f32], lower: &mut [f32], threads: usize) {
    let planes = shape.planes(lower, upper);
    let (before, after) = shape.plane();
    let (stride, share) = (shape.stride[1], share(shape));
    let threads = worth(threads, lower.len());
    each(threads, planes, Rows::new(lower, before), |range, lower| {
        let uppers = upper[range.start * after..range.end * after].chunks_exact(after);
        for (upper, lower) in uppers.zip(lower.values.chunks_exact_mut(before)) {
            lower.fill(0.0);
            for (outputs, start) in taps(shape) {
                let values = lower[start..].iter_mut().step_by(stride);
                let pairs = values.zip(&upper[outputs]);
                pairs.for_each(|(sum, g)| *sum += g * share);
            }
        }
    });
}

fn share(shape: &Pool) -> f32 {
    1.0 / (shape.kernel[0] * shape.kernel[1]) as f32
}

/// Writes the mean of each plane of `pixels` values.
pub fn global_average_forward(pixels: usize, input: &[f32], output: &mut [f32], threads: usize) {
    assert_eq!(
        input.len(),
        output.len() * pixels,
        "an output for each plane"
    );
    let share = 1.0 / pixels as f32;
    let threads = worth(threads, input.len());
    each(
        threads,
        output.len(),
        Rows::new(output, 1),
        |range, output| {
            let planes = input[range.start * pixels..range.end * pixels].chunks_exact(pixels);
            on_vectors(
                output.values.iter_mut().zip(planes),
                #[inline(always)]
                |pairs| {
                    for (y, plane) in pairs {
                        *y = lanes::sum(plane, |v| v) * share;
                    }
                },
            );
        },
    );
}

/// Gives each value of a plane its share of the output's gradient.
pub fn global_average_backward(pixels: usize, upper: &[f32], lower: &mut [f32], threads: usize) {
    assert_eq!(
        lower.len(),
        upper.len() * pixels,
        "an output for each plane"
    );
    let share = 1.0 / pixels as f32;
    let threads = worth(threads, lower.len());
    each(
        threads,
        upper.len(),
        Rows::new(lower, pixels),
        |range, lower| {
            let planes = lower.values.chunks_exact_mut(pixels);
            planes
                .zip(&upper[range])
                .for_each(|(plane, g)| plane.fill(g * share));
        },
    );
}

#[cfg(test)]
mod tests;
