//! The softmax of rows.

use super::elementary::exp;
use super::lanes::{self, on_vectors};
use super::parallel::{Rows, each, worth};

/// Writes e^xᵢ / Σ e^xⱼ for each row of `width` values. Not a number where a row has no finite
/// largest value.
pub fn forward(input: &[f32], width: usize, output: &mut [f32], threads: usize) {
    assert_eq!(input.len(), output.len(), "an output for each input");
    let rows = rows(input.len(), width);
    let threads = worth(threads, input.len());
    each(threads, rows, Rows::new(output, width), |range, output| {
        let input = &input[range.start * width..range.end * width];
        let rows = input
            .chunks_exact(width)
            .zip(output.values.chunks_exact_mut(width));
        on_vectors(
            rows,
            #[inline(always)]
            |rows| {
                for (input, output) in rows {
                    output.copy_from_slice(input);
                    exponentials(output, lanes::largest(input), 1.0);
                    let scale = 1.0 / lanes::sum(output, |y| y);
                    output.iter_mut().for_each(|y| *y *= scale);
                }
            },
        );
    });
}

/// Writes yᵢ·(gᵢ − Σ gⱼ·yⱼ) for each row: `output` is what [`forward`] wrote.
pub fn backward(output: &[f32], width: usize, upper: &[f32], lower: &mut [f32], threads: usize) {
    assert_eq!(output.len(), lower.len(), "a gradient for each input");
    assert_eq!(upper.len(), lower.len(), "a gradient for each output");
    let rows = rows(output.len(), width);
    let threads = worth(threads, output.len());
    each(threads, rows, Rows::new(lower, width), |range, lower| {
        let values = range.start * width..range.end * width;
        let rows = output[values.clone()].chunks_exact(width);
        let rows = rows.zip(upper[values].chunks_exact(width));
        let rows = lower.values.chunks_exact_mut(width).zip(rows);
        on_vectors(
            rows,
            #[inline(always)]
            |rows| {
                for (lower, (y, g)) in rows {
                    let mean = lanes::sum_pairs(y, g, |y, g| y * g);
                    let pairs = y.iter().zip(g);
                    let lower = lower.iter_mut().zip(pairs);
                    lower.for_each(|(l, (y, g))| *l = y * (g - mean));
                }
            },
        );
    });
}

/// Replaces each value by e^((x − largest)·scale), which does not overflow up to the largest.
#[inline(always)]
pub(super) fn exponentials(values: &mut [f32], largest: f32, scale: f32) {
    for v in values.iter_mut() {
        *v = exp((*v - largest) * scale);
    }
}

fn rows(len: usize, width: usize) -> usize {
    assert!(width > 0, "a row has values");
    assert_eq!(len % width, 0, "rows are whole");
    len / width
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, gradient, same_bits, values, wide};

    fn exact(input: &[f64], width: usize) -> Vec<f64> {
        let row = |row: &[f64]| -> Vec<f64> {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
            row.iter().map(|x| (x - largest).exp() / sum).collect()
        };
        input.chunks(width).flat_map(row).collect()
    }

    #[test]
    fn softmax_and_its_gradient_are_those_of_the_definition() {
        for (rows, width) in [(1, 1), (3, 2), (5, 17), (2, 65)] {
            let input: Vec<f32> = values("x", rows * width).iter().map(|x| x * 9.0).collect();
            let upper = values("g", rows * width);
            let mut output = vec![f32::NAN; input.len()];
            forward(&input, width, &mut output, 1);
            assert_close(&output, &exact(&wide(&input), width), 1e-6);
            let mut lower = vec![f32::NAN; input.len()];
            backward(&output, width, &upper, &mut lower, 1);
            assert_close(&lower, &gradient(&input, &upper, |x| exact(x, width)), 1e-6);
        }
    }

    #[test]
    fn softmax_does_not_overflow_and_shows_broken_rows() {
        let mut output = [0.0; 6];
        let input = [1e30, -1e30, f32::NEG_INFINITY, 0.0, f32::NAN, 1.0];
        forward(&input, 3, &mut output, 1);
        assert_eq!(output[..3], [1.0, 0.0, 0.0]);
        assert!(output[3..].iter().all(|v| v.is_nan()));
    }

    #[test]
    fn softmax_has_the_same_bits_on_any_number_of_threads() {
        let (input, upper) = (values("x", 1031 * 65), values("g", 1031 * 65));
        same_bits(|threads| {
            let mut both = vec![0.0; 2 * input.len()];
            let (output, lower) = both.split_at_mut(input.len());
            forward(&input, 65, output, threads);
            backward(output, 65, &upper, lower, threads);
            both
        });
    }
}
