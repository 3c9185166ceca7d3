//! Sums of tensors: of two alike, and of rows with one row.

use super::lanes::on_vectors;
use super::parallel::{Rows, each, worth};

/// Adds to each value the other one in its place.
pub fn add(values: &mut [f32], other: &[f32], threads: usize) {
    assert_eq!(values.len(), other.len(), "two tensors alike");
    let threads = worth(threads, values.len());
    each(threads, other.len(), Rows::new(values, 1), |range, part| {
        on_vectors(
            (part.values, &other[range]),
            #[inline(always)]
            |(values, other)| {
                for (value, other) in values.iter_mut().zip(other) {
                    *value += other;
                }
            },
        );
    });
}

/// Multiplies each value with the same number.
pub fn scale(values: &mut [f32], factor: f32, threads: usize) {
    let threads = worth(threads, values.len());
    each(threads, values.len(), Rows::new(values, 1), |_, part| {
        for value in part.values {
            *value *= factor;
        }
    });
}

/// Writes the same row to all rows.
pub fn fill_rows(values: &mut [f32], row: &[f32], threads: usize) {
    assert_eq!(values.len() % row.len().max(1), 0, "rows are whole");
    let threads = worth(threads, values.len());
    let rows = values.len() / row.len().max(1);
    each(threads, rows, Rows::new(values, row.len()), |_, part| {
        let rows = part.values.chunks_exact_mut(part.width);
        rows.for_each(|to| to.copy_from_slice(row));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{same_bits, values};

    #[test]
    fn sums_are_those_of_loops() {
        let (mut sum, other) = (values("a", 30_001), values("b", 30_001));
        let expected: Vec<f32> = sum.iter().zip(&other).map(|(a, b)| a + b).collect();
        add(&mut sum, &other, 3);
        assert_eq!(sum, expected);
        scale(&mut sum, 0.5, 3);
        assert!(sum.iter().zip(&expected).all(|(a, b)| *a == b * 0.5));
        let mut rows = vec![f32::NAN; 4 * 7001];
        fill_rows(&mut rows, &other[..7001], 3);
        assert!(rows.chunks_exact(7001).all(|row| row == &other[..7001]));
    }

    #[test]
    fn sums_have_the_same_bits_on_any_number_of_threads() {
        let (a, b) = (values("a", 70_001), values("b", 70_001));
        same_bits(|threads| {
            let mut sum = a.clone();
            add(&mut sum, &b, threads);
            sum
        });
    }
}
