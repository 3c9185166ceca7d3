//! Normalisation of rows: layer norm (Ba, Kiros and Hinton, 2016), and RMS norm (Zhang and Sennrich,
//! 2019), which leaves the mean where it is.
//!
//! With n = (x − mean) · d the normalised row, d = 1 / deviation and h = g · weight, the gradient by
//! the input is d · (h − mean(h) − n · mean(h · n)); for RMS norm without mean(h).

use super::{Affine, AffineGradient, Seen, inverse_deviation};
use crate::kernel::lanes::{self, on_vectors};
use crate::kernel::parallel::{Rows, each, lend, worth};
use crate::kernel::sums::{fold, row_chunks};
use crate::product::Update;

/// Statistics of a row: mean (0 for RMS norm) and inverse deviation.
const STATISTICS: usize = 2;

/// The shape of a normalisation of rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowNorm {
    /// Values of a row.
    pub width: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Layer norm; otherwise RMS norm.
    pub centred: bool,
}

impl RowNorm {
    /// Values of the statistics of so many rows.
    pub fn statistics(&self, rows: usize) -> usize {
        rows * STATISTICS
    }

    fn rows(&self, values: &[f32], statistics: &[f32], weight: &[f32]) -> usize {
        assert!(self.width > 0, "a row has values");
        assert_eq!(values.len() % self.width, 0, "rows are whole");
        let rows = values.len() / self.width;
        assert_eq!(statistics.len(), rows * STATISTICS, "two statistics a row");
        assert_eq!(weight.len(), self.width, "a weight for each column");
        rows
    }
}

/// Writes the normalised rows, and each row's mean and inverse deviation to `statistics`.
pub fn forward(
    shape: &RowNorm,
    input: &[f32],
    affine: Affine<'_>,
    output: &mut [f32],
    statistics: &mut [f32],
    threads: usize,
) {
    let rows = shape.rows(input, statistics, affine.weight);
    assert_eq!(output.len(), input.len(), "an output for each input");
    let bias = affine.bias.inspect(|bias| {
        assert_eq!(bias.len(), shape.width, "a bias for each column");
    });
    let width = shape.width;
    let parts = (Rows::new(output, width), Rows::new(statistics, STATISTICS));
    let threads = worth(threads, input.len());
    each(threads, rows, parts, |range, (output, statistics)| {
        let input = input[range.start * width..range.end * width].chunks_exact(width);
        let (statistics, _) = statistics.values.as_chunks_mut::<STATISTICS>();
        let outputs = output.values.chunks_exact_mut(width).zip(statistics);
        on_vectors(
            input.zip(outputs),
            #[inline(always)]
            |rows| {
                for (input, (output, statistics)) in rows {
                    *statistics = row_statistics(shape, input);
                    normalise(input, *statistics, affine.weight, output);
                    if let Some(bias) = bias {
                        output.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn row_statistics(shape: &RowNorm, row: &[f32]) -> [f32; STATISTICS] {
    let share = 1.0 / shape.width as f32;
    let mean = match shape.centred {
        true => lanes::sum(row, |x| x) * share,
        false => 0.0,
    };
    let variance = lanes::sum(row, |x| (x - mean) * (x - mean)) * share;
    [mean, inverse_deviation(variance, shape.eps)]
}

#[inline(always)]
fn normalise(row: &[f32], [mean, inverse]: [f32; STATISTICS], weight: &[f32], output: &mut [f32]) {
    let pairs = row.iter().zip(weight);
    let values = output.iter_mut().zip(pairs);
    values.for_each(|(y, (x, w))| *y = (x - mean) * inverse * w);
}

/// Writes the gradient by the input.
pub fn input_gradient(
    shape: &RowNorm,
    seen: Seen<'_>,
    weight: &[f32],
    upper: &[f32],
    lower: &mut [f32],
    threads: usize,
) {
    let rows = shape.rows(seen.input, seen.statistics, weight);
    assert_eq!(upper.len(), seen.input.len(), "a gradient for each output");
    assert_eq!(lower.len(), seen.input.len(), "a gradient for each input");
    let width = shape.width;
    let (statistics, _) = seen.statistics.as_chunks::<STATISTICS>();
    let threads = worth(threads, lower.len());
    each(threads, rows, Rows::new(lower, width), |range, lower| {
        let values = range.start * width..range.end * width;
        let inputs = seen.input[values.clone()].chunks_exact(width);
        let uppers = upper[values].chunks_exact(width);
        let rows = inputs.zip(uppers).zip(&statistics[range]);
        on_vectors(
            lower.values.chunks_exact_mut(width).zip(rows),
            #[inline(always)]
            |rows| {
                for (lower, ((input, upper), statistics)) in rows {
                    row_gradient(shape, (input, *statistics), weight, upper, lower);
                }
            },
        );
    });
}

#[inline(always)]
fn row_gradient(
    shape: &RowNorm,
    (input, [mean, inverse]): (&[f32], [f32; STATISTICS]),
    weight: &[f32],
    upper: &[f32],
    lower: &mut [f32],
) {
    let share = 1.0 / shape.width as f32;
    let values = lower.iter_mut().zip(upper.iter().zip(weight));
    values.for_each(|(h, (g, w))| *h = g * w);
    let along = lanes::sum_pairs(lower, input, |h, x| h * ((x - mean) * inverse)) * share;
    let level = match shape.centred {
        true => lanes::sum(lower, |h| h) * share,
        false => 0.0,
    };
    let values = lower.iter_mut().zip(input);
    values.for_each(|(h, x)| *h = inverse * (*h - level - (x - mean) * inverse * along));
}

/// Values of scratch that [`weight_gradient`] needs.
pub fn weight_gradient_scratch(shape: &RowNorm, rows: usize) -> usize {
    row_chunks(rows).count() * 2 * shape.width
}

/// Writes or adds the gradients by weight and bias: sums over the rows of g · n and of g.
pub fn weight_gradient(
    shape: &RowNorm,
    seen: Seen<'_>,
    upper: &[f32],
    gradient: AffineGradient<'_>,
    update: Update,
    scratch: &mut [f32],
    threads: usize,
) {
    let rows = shape.rows(seen.input, seen.statistics, gradient.weight);
    assert_eq!(upper.len(), seen.input.len(), "a gradient for each output");
    let (width, chunks) = (shape.width, row_chunks(rows));
    let scratch = lend(scratch, weight_gradient_scratch(shape, rows));
    let (weights, biases) = scratch.split_at_mut(chunks.count() * width);
    let (statistics, _) = seen.statistics.as_chunks::<STATISTICS>();
    let parts = (Rows::new(weights, width), Rows::new(biases, width));
    let threads = worth(threads, upper.len());
    each(
        threads,
        chunks.count(),
        parts,
        |range, (weights, biases)| {
            let biases = biases.values.chunks_exact_mut(width);
            let sums = weights.values.chunks_exact_mut(width).zip(biases);
            for (chunk, (weight, bias)) in range.zip(sums) {
                let rows = chunks.items(chunk);
                let values = rows.start * width..rows.end * width;
                let (input, upper) = (&seen.input[values.clone()], &upper[values]);
                let statistics = &statistics[rows];
                on_vectors(
                    (weight, bias),
                    #[inline(always)]
                    |(weight, bias)| sum_rows(input, statistics, upper, weight, bias),
                );
            }
        },
    );
    fold(weights, gradient.weight, update);
    if let Some(bias) = gradient.bias {
        assert_eq!(bias.len(), width, "a bias for each column");
        fold(biases, bias, update);
    }
}

#[inline(always)]
fn sum_rows(
    input: &[f32],
    statistics: &[[f32; STATISTICS]],
    upper: &[f32],
    weight: &mut [f32],
    bias: &mut [f32],
) {
    weight.fill(0.0);
    bias.fill(0.0);
    let width = weight.len();
    let rows = input.chunks_exact(width).zip(upper.chunks_exact(width));
    for ((input, upper), [mean, inverse]) in rows.zip(statistics) {
        let sums = weight.iter_mut().zip(bias.iter_mut());
        let pairs = input.iter().zip(upper);
        for ((weight, bias), (x, g)) in sums.zip(pairs) {
            *weight += g * ((x - mean) * inverse);
            *bias += g;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, gradient, same_bits, twice, values, wide};

    fn exact(shape: &RowNorm, input: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let row = |row: &[f64]| -> Vec<f64> {
            let n = row.len() as f64;
            let mean = if shape.centred {
                row.iter().sum::<f64>() / n
            } else {
                0.0
            };
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let deviation = (variance + f64::from(shape.eps)).sqrt();
            let column = |(i, x): (usize, &f64)| (x - mean) / deviation * weight[i] + bias[i];
            row.iter().enumerate().map(column).collect()
        };
        input.chunks(shape.width).flat_map(row).collect()
    }

    fn run(
        shape: &RowNorm,
        input: &[f32],
        weight: &[f32],
        bias: &[f32],
        upper: &[f32],
        threads: usize,
    ) -> [Vec<f32>; 4] {
        let rows = input.len() / shape.width;
        let (mut output, mut lower) = (vec![f32::NAN; input.len()], vec![f32::NAN; input.len()]);
        let mut statistics = vec![f32::NAN; shape.statistics(rows)];
        let affine = Affine {
            weight,
            bias: Some(bias),
        };
        forward(shape, input, affine, &mut output, &mut statistics, threads);
        let seen = Seen {
            input,
            statistics: &statistics,
        };
        input_gradient(shape, seen, weight, upper, &mut lower, threads);
        let (mut by_weight, mut by_bias) =
            (vec![f32::NAN; shape.width], vec![f32::NAN; shape.width]);
        let mut scratch = vec![f32::NAN; weight_gradient_scratch(shape, rows)];
        for update in [Update::Replace, Update::Add] {
            let gradient = AffineGradient {
                weight: &mut by_weight,
                bias: Some(&mut by_bias),
            };
            weight_gradient(shape, seen, upper, gradient, update, &mut scratch, threads);
        }
        [output, lower, by_weight, by_bias]
    }

    #[test]
    fn row_norms_and_their_gradients_are_those_of_the_definition() {
        for (rows, width) in [(1, 1), (1, 2), (3, 5), (7, 16), (40, 33)] {
            for centred in [true, false] {
                let shape = RowNorm {
                    width,
                    eps: 1e-2,
                    centred,
                };
                let input: Vec<f32> = values("x", rows * width).iter().map(|x| x + 0.5).collect();
                let (weight, bias) = (values("w", width), values("b", width));
                let upper = values("g", input.len());
                let (x, w, b) = (wide(&input), wide(&weight), wide(&bias));
                let [output, lower, by_weight, by_bias] =
                    run(&shape, &input, &weight, &bias, &upper, 1);
                assert_close(&output, &exact(&shape, &x, &w, &b), 1e-5);
                assert_close(
                    &lower,
                    &gradient(&input, &upper, |x| exact(&shape, x, &w, &b)),
                    2e-5,
                );
                let want = gradient(&weight, &upper, |w| exact(&shape, &x, w, &b));
                assert_close(&by_weight, &twice(&want), 1e-5);
                let want = gradient(&bias, &upper, |b| exact(&shape, &x, &w, b));
                assert_close(&by_bias, &twice(&want), 1e-5);
            }
        }
    }

    #[test]
    fn row_norms_do_without_a_bias() {
        let shape = RowNorm {
            width: 3,
            eps: 1e-5,
            centred: true,
        };
        let (input, weight) = (values("x", 6), values("w", 3));
        let (mut with, mut without, mut statistics) = ([0.0; 6], [0.0; 6], [0.0; 4]);
        let affine = Affine {
            weight: &weight,
            bias: None,
        };
        forward(&shape, &input, affine, &mut without, &mut statistics, 1);
        let affine = Affine {
            bias: Some(&[0.0; 3]),
            ..affine
        };
        forward(&shape, &input, affine, &mut with, &mut statistics, 1);
        assert_eq!(with, without);
    }

    #[test]
    fn row_norms_have_the_same_bits_on_any_number_of_threads() {
        let shape = RowNorm {
            width: 96,
            eps: 1e-5,
            centred: true,
        };
        let (input, upper) = (values("x", 1031 * 96), values("g", 1031 * 96));
        let (weight, bias) = (values("w", 96), values("b", 96));
        same_bits(|threads| run(&shape, &input, &weight, &bias, &upper, threads).concat());
    }
}
