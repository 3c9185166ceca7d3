//! Losses with their gradients, in one pass. Each gives the sum over the rows, in f64, and writes
//! the gradient of that sum. Not finite where what it is computed from is not.

use std::ops::Range;

use super::elementary::{exp, ln, ln_1p, sigmoid};
use super::lanes::{self, on_vectors};
use super::parallel::{Rows, sum, worth};

/// Rows that are summed one after the other.
const ROWS_AT_ONCE: usize = 64;

/// The cross-entropy −ln softmax(logits)\[label\] of each row of `classes` logits, for labels below
/// `classes`. The gradient is softmax − one-hot.
pub fn cross_entropy(
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    gradient: &mut [f32],
    threads: usize,
) -> f64 {
    assert_eq!(logits.len(), labels.len() * classes, "a row for each label");
    sum_rows(
        logits,
        classes,
        gradient,
        threads,
        #[inline(always)]
        |row: &[f32], index: usize, gradient: &mut [f32]| {
            cross_entropy_of_row(row, labels[index] as usize, gradient)
        },
    )
}

#[inline(always)]
fn cross_entropy_of_row(logits: &[f32], label: usize, gradient: &mut [f32]) -> f64 {
    assert!(label < logits.len(), "a label is one of the classes");
    let largest = lanes::largest(logits);
    for (g, z) in gradient.iter_mut().zip(logits) {
        *g = exp(z - largest);
    }
    let sum = lanes::wide_sum(gradient);
    let scale = (1.0 / sum) as f32;
    gradient.iter_mut().for_each(|g| *g *= scale);
    gradient[label] -= 1.0;
    ln(sum) + f64::from(largest) - f64::from(logits[label])
}

/// The mean over each row of `width` values of the squared difference to the target.
pub fn mean_square(
    input: &[f32],
    target: &[f32],
    width: usize,
    gradient: &mut [f32],
    threads: usize,
) -> f64 {
    assert_eq!(target.len(), input.len(), "a target for each value");
    let share = 1.0 / width as f64;
    sum_rows(
        input,
        width,
        gradient,
        threads,
        #[inline(always)]
        |row: &[f32], index: usize, gradient: &mut [f32]| {
            let target = &target[index * width..(index + 1) * width];
            let slope = (2.0 * share) as f32;
            let pairs = row.iter().zip(target);
            let values = gradient.iter_mut().zip(pairs);
            values.for_each(|(g, (x, t))| *g = (x - t) * slope);
            let square = |x: f32, t: f32| (x - t) * (x - t);
            f64::from(lanes::sum_pairs(row, target, square)) * share
        },
    )
}

/// The mean over each row of `width` logits of the binary cross-entropy −t·ln σ(x) − (1 − t)·ln(1 −
/// σ(x)), for targets from 0 to 1. Computed as max(x, 0) − x·t + ln(1 + e^−|x|): nothing overflows.
pub fn binary_cross_entropy(
    logits: &[f32],
    target: &[f32],
    width: usize,
    gradient: &mut [f32],
    threads: usize,
) -> f64 {
    assert_eq!(target.len(), logits.len(), "a target for each logit");
    let share = 1.0 / width as f64;
    sum_rows(
        logits,
        width,
        gradient,
        threads,
        #[inline(always)]
        |row: &[f32], index: usize, gradient: &mut [f32]| {
            let target = &target[index * width..(index + 1) * width];
            let pairs = row.iter().zip(target);
            for (g, (x, t)) in gradient.iter_mut().zip(pairs) {
                *g = (sigmoid(*x).0 - t) * share as f32;
            }
            lanes::wide_sum_pairs(row, target, binary_loss) * share
        },
    )
}

#[inline(always)]
fn binary_loss(x: f32, target: f32) -> f64 {
    let positive = if x < 0.0 { 0.0 } else { x };
    let rest = f64::from(ln_1p(exp(-x.abs())));
    f64::from(positive) - f64::from(x) * f64::from(target) + rest
}

/// The sum of `one` over the rows, each with its index and its part of the gradient.
fn sum_rows(
    input: &[f32],
    width: usize,
    gradient: &mut [f32],
    threads: usize,
    one: impl Fn(&[f32], usize, &mut [f32]) -> f64 + Sync,
) -> f64 {
    assert!(width > 0, "a row has values");
    assert_eq!(input.len() % width, 0, "rows are whole");
    assert_eq!(gradient.len(), input.len(), "a gradient for each input");
    let threads = worth(threads, input.len());
    let parts = Rows::new(gradient, width);
    let some = |range: Range<usize>, gradient: Rows<'_, f32>| {
        let rows = range.zip(gradient.values.chunks_exact_mut(width));
        on_vectors(
            rows,
            #[inline(always)]
            |rows| {
                let mut sum = 0.0;
                for (index, gradient) in rows {
                    sum += one(&input[index * width..(index + 1) * width], index, gradient);
                }
                sum
            },
        )
    };
    sum(threads, input.len() / width, ROWS_AT_ONCE, parts, some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, gradient, same_bits, values, wide};

    const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 2), (7, 17), (2, 65), (200, 3)];

    fn labels(rows: usize, classes: usize) -> Vec<u32> {
        (0..rows).map(|row| (row * 7 % classes) as u32).collect()
    }

    fn exact_cross_entropy(logits: &[f64], labels: &[u32], classes: usize) -> f64 {
        let rows = logits.chunks(classes).zip(labels);
        rows.map(|(row, label)| {
            row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[*label as usize]
        })
        .sum()
    }

    #[test]
    fn cross_entropy_is_that_of_the_definition() {
        for (rows, classes) in SHAPES {
            let logits: Vec<f32> = values("z", rows * classes)
                .iter()
                .map(|z| z * 8.0)
                .collect();
            let labels = labels(rows, classes);
            let mut g = vec![f32::NAN; logits.len()];
            let loss = cross_entropy(&logits, &labels, classes, &mut g, 1);
            let exact = |z: &[f64]| vec![exact_cross_entropy(z, &labels, classes)];
            let want = exact(&wide(&logits))[0];
            assert!(
                (loss - want).abs() < 1e-6 * want.max(1.0),
                "{loss} for {want}"
            );
            assert_close(&g, &gradient(&logits, &[1.0], exact), 1e-6);
        }
    }

    #[test]
    fn mean_square_is_that_of_the_definition() {
        for (rows, width) in SHAPES {
            let (x, t) = (values("x", rows * width), values("t", rows * width));
            let target = wide(&t);
            let exact = |x: &[f64]| {
                let squares = x.iter().zip(&target).map(|(x, t)| (x - t) * (x - t));
                vec![squares.sum::<f64>() / width as f64]
            };
            let mut g = vec![f32::NAN; x.len()];
            let loss = mean_square(&x, &t, width, &mut g, 1);
            let want = exact(&wide(&x))[0];
            assert!(
                (loss - want).abs() < 1e-6 * want.max(1.0),
                "{loss} for {want}"
            );
            assert_close(&g, &gradient(&x, &[1.0], exact), 1e-6);
        }
    }

    #[test]
    fn binary_cross_entropy_is_that_of_the_definition() {
        for (rows, width) in SHAPES {
            let x: Vec<f32> = values("x", rows * width).iter().map(|x| x * 8.0).collect();
            let t: Vec<f32> = values("t", x.len()).iter().map(|t| t * 0.5 + 0.5).collect();
            let target = wide(&t);
            let exact = |x: &[f64]| {
                let one = |(x, t): (&f64, &f64)| {
                    let s = 1.0 / (1.0 + (-x).exp());
                    -t * s.ln() - (1.0 - t) * (1.0 - s).ln()
                };
                vec![x.iter().zip(&target).map(one).sum::<f64>() / width as f64]
            };
            let mut g = vec![f32::NAN; x.len()];
            let loss = binary_cross_entropy(&x, &t, width, &mut g, 1);
            let want = exact(&wide(&x))[0];
            assert!(
                (loss - want).abs() < 1e-6 * want.max(1.0),
                "{loss} for {want}"
            );
            assert_close(&g, &gradient(&x, &[1.0], exact), 1e-6);
        }
    }

    #[test]
    fn losses_do_not_overflow_and_show_broken_values() {
        let mut g = [0.0; 2];
        assert_eq!(cross_entropy(&[1e30, -1e30], &[0], 2, &mut g, 1), 0.0);
        assert!(cross_entropy(&[-1e30, 1e30], &[0], 2, &mut g, 1) > 1e30);
        let certain = binary_cross_entropy(&[1e30, -1e30], &[1.0, 0.0], 2, &mut g, 1);
        assert_eq!((certain, g), (0.0, [0.0, 0.0]));
        for broken in [f32::NAN, f32::INFINITY] {
            assert!(!cross_entropy(&[0.0, broken], &[0], 2, &mut g, 1).is_finite());
            assert!(!cross_entropy(&[broken, 0.0], &[0], 2, &mut g, 1).is_finite());
            assert!(!mean_square(&[broken, 0.0], &[0.0; 2], 2, &mut g, 1).is_finite());
            assert!(!binary_cross_entropy(&[broken, 0.0], &[0.0; 2], 2, &mut g, 1).is_finite());
        }
    }

    #[test]
    #[should_panic(expected = "one of the classes")]
    fn cross_entropy_refuses_other_labels() {
        cross_entropy(&[0.0; 2], &[2], 2, &mut [0.0; 2], 1);
    }

    #[test]
    fn losses_have_the_same_bits_on_any_number_of_threads() {
        let (x, t) = (values("x", 1031 * 65), values("t", 1031 * 65));
        let labels = labels(1031, 65);
        let with_loss = |run: &dyn Fn(&mut [f32]) -> f64| {
            let mut g = vec![0.0; x.len() + 2];
            let bits = run(&mut g[2..]).to_bits();
            (g[0], g[1]) = (
                f32::from_bits(bits as u32),
                f32::from_bits((bits >> 32) as u32),
            );
            g
        };
        same_bits(|n| with_loss(&|g| cross_entropy(&x, &labels, 65, g, n)));
        same_bits(|n| with_loss(&|g| mean_square(&x, &t, 65, g, n)));
        same_bits(|n| with_loss(&|g| binary_cross_entropy(&x, &t, 65, g, n)));
    }
}
