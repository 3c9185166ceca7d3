//! Pooling of images: the largest or the mean value of each window, and the mean of a whole channel.
//!
//! Channels of a batch are planes like any others here: all are (planes, height, width).

use std::ops::Range;

use pulp::Arch;

use super::lanes;
use super::parallel::{Rows, each, worth};
use super::window::Axis;

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
        self.axes().map(|axis| axis.count())
    }

    fn axes(&self) -> [Axis; 2] {
        let axis = |i: usize, size| Axis {
            size,
            kernel: self.kernel[i],
            stride: self.stride[i],
            padding: self.padding[i],
        };
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

/// For each element of the windows of one row of the output that is inside: which windows, and where
/// in the plane the first of them sees it.
fn taps(shape: &Pool, row: usize) -> impl Iterator<Item = (Range<usize>, usize)> + use<> {
    let [vertical, horizontal] = shape.axes();
    let lines = (0..vertical.kernel).filter_map(move |element| vertical.place(row, element));
    lines.flat_map(move |line| {
        (0..horizontal.kernel).filter_map(move |element| {
            let windows = horizontal.inside(element);
            let first = horizontal.place(windows.start, element)?;
            Some((windows, line * horizontal.size + first))
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
        Arch::new().dispatch(|| {
            for (plane, (output, argmax)) in planes.zip(outputs) {
                max_of_plane(shape, plane, output, argmax);
            }
        });
    });
}

#[inline(always)]
fn max_of_plane(shape: &Pool, plane: &[f32], output: &mut [f32], argmax: &mut [u32]) {
    let width = shape.output()[1];
    let rows = output.chunks_exact_mut(width);
    for (row, (output, argmax)) in rows.zip(argmax.chunks_exact_mut(width)).enumerate() {
        output.fill(f32::NEG_INFINITY);
        // Nothing was seen: a window of −∞ alone has a place too.
        argmax.fill(u32::MAX);
        for (windows, start) in taps(shape, row) {
            let (output, argmax) = (&mut output[windows.clone()], &mut argmax[windows]);
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
}

/// Windows that are `STRIDE` apart, known to the compiler: as many at a time as a vector holds.
#[inline(always)]
fn take_larger<const STRIDE: usize>(
    plane: &[f32],
    start: u32,
    output: &mut [f32],
    argmax: &mut [u32],
) {
    let outputs = output.iter_mut().zip(argmax);
    // The last window's element may be the plane's last value: less than a stride is left then.
    let (strides, rest) = plane.as_chunks::<STRIDE>();
    let firsts = strides.iter().map(|stride| stride[0]);
    for (index, ((best, place), v)) in outputs.zip(firsts.chain(rest.first().copied())).enumerate()
    {
        let here = start.wrapping_add((index as u32).wrapping_mul(STRIDE as u32));
        take(best, place, v, here);
    }
}

#[inline(always)]
fn take(best: &mut f32, place: &mut u32, v: f32, here: u32) {
    let larger = v > *best || v.is_nan() || *place == u32::MAX;
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
    let (width, stride) = (shape.output()[1], shape.stride[1]);
    let share = share(shape);
    let threads = worth(threads, input.len());
    each(
        threads,
        planes,
        Rows::new(output, after),
        |range, output| {
            let planes = input[range.start * before..range.end * before].chunks_exact(before);
            for (plane, output) in planes.zip(output.values.chunks_exact_mut(after)) {
                for (row, output) in output.chunks_exact_mut(width).enumerate() {
                    output.fill(0.0);
                    for (windows, start) in taps(shape, row) {
                        let values = plane[start..].iter().step_by(stride);
                        let pairs = output[windows].iter_mut().zip(values);
                        pairs.for_each(|(sum, v)| *sum += v);
                    }
                    output.iter_mut().for_each(|sum| *sum *= share);
                }
            }
        },
    );
}

/// Gives each value of a window its share of the output's gradient.
pub fn average_backward(shape: &Pool, upper: &[f32], lower: &mut [f32], threads: usize) {
    let planes = shape.planes(lower, upper);
    let (before, after) = shape.plane();
    let (width, stride) = (shape.output()[1], shape.stride[1]);
    let share = share(shape);
    let threads = worth(threads, lower.len());
    each(threads, planes, Rows::new(lower, before), |range, lower| {
        let uppers = upper[range.start * after..range.end * after].chunks_exact(after);
        for (upper, lower) in uppers.zip(lower.values.chunks_exact_mut(before)) {
            lower.fill(0.0);
            for (row, upper) in upper.chunks_exact(width).enumerate() {
                for (windows, start) in taps(shape, row) {
                    let values = lower[start..].iter_mut().step_by(stride);
                    let pairs = values.zip(&upper[windows]);
                    pairs.for_each(|(sum, g)| *sum += g * share);
                }
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
            Arch::new().dispatch(|| {
                let pairs = output.values.iter_mut().zip(planes);
                pairs.for_each(|(y, plane)| *y = lanes::sum(plane, |v| v) * share);
            });
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
