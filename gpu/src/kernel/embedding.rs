//! Rows of a table by number, and positions added to the rows of a sequence.

use super::Update;
use super::lanes::on_vectors;
use super::parallel::{Rows, each, worth};

/// A table with a row of values for each number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// Rows of the table.
    pub rows: usize,
    /// Values of a row.
    pub width: usize,
}

impl Embedding {
    fn check(&self, numbers: &[u32], table: &[f32], values: &[f32]) {
        assert!(self.width > 0, "a row has values");
        assert_eq!(
            table.len(),
            self.rows * self.width,
            "the table has its rows"
        );
        assert_eq!(
            values.len(),
            numbers.len() * self.width,
            "a row for each number"
        );
    }
}

/// Writes the table's row of each number, which is below the number of rows, to `output`.
pub fn forward(
    shape: &Embedding,
    table: &[f32],
    numbers: &[u32],
    output: &mut [f32],
    threads: usize,
) {
    shape.check(numbers, table, output);
    let width = shape.width;
    let threads = worth(threads, output.len());
    each(
        threads,
        numbers.len(),
        Rows::new(output, width),
        |range, output| {
            let rows = output.values.chunks_exact_mut(width);
            for (row, number) in rows.zip(&numbers[range]) {
                let start = *number as usize * width;
                row.copy_from_slice(&table[start..start + width]);
            }
        },
    );
}

/// The gradient of the table: each row's is the sum of `upper` where the row was taken, in order.
pub fn backward(
    shape: &Embedding,
    numbers: &[u32],
    upper: &[f32],
    gradient: &mut [f32],
    update: Update,
    threads: usize,
) {
    shape.check(numbers, gradient, upper);
    let width = shape.width;
    let threads = worth(threads, upper.len() + gradient.len());
    each(
        threads,
        shape.rows,
        Rows::new(gradient, width),
        |rows, gradient| {
            if update == Update::Replace {
                gradient.values.fill(0.0);
            }
            for (number, upper) in numbers.iter().zip(upper.chunks_exact(width)) {
                let number = *number as usize;
                if rows.contains(&number) {
                    let start = (number - rows.start) * width;
                    let sums = gradient.values[start..start + width].iter_mut();
                    sums.zip(upper).for_each(|(sum, g)| *sum += g);
                }
            }
        },
    );
}

/// Adds to each of the `tokens` rows of a sequence the row of its position. `values` is (batch,
/// tokens, width), `positions` at least (tokens, width).
pub fn add_positions(
    positions: &[f32],
    tokens: usize,
    width: usize,
    values: &mut [f32],
    threads: usize,
) {
    let sequence = check_positions(positions, tokens, width, values);
    let batch = values.len() / sequence;
    let threads = worth(threads, values.len());
    each(
        threads,
        batch * tokens,
        Rows::new(values, width),
        |range, rows| {
            for (index, row) in range.zip(rows.values.chunks_exact_mut(width)) {
                let start = index % tokens * width;
                let position = &positions[start..start + width];
                row.iter_mut().zip(position).for_each(|(v, p)| *v += p);
            }
        },
    );
}

/// The gradient of the positions: sums over the batch, in order. Positions beyond `tokens` were not
/// used: 0. The gradient by the values is `upper` itself.
pub fn positions_backward(
    tokens: usize,
    width: usize,
    upper: &[f32],
    gradient: &mut [f32],
    update: Update,
    threads: usize,
) {
    let sequence = check_positions(gradient, tokens, width, upper);
    let threads = worth(threads, upper.len());
    each(
        threads,
        gradient.len() / width,
        Rows::new(gradient, width),
        |rows, gradient| {
            if update == Update::Replace {
                gradient.values.fill(0.0);
            }
            let used = rows.start.min(tokens) * width..rows.end.min(tokens) * width;
            on_vectors(
                gradient.values,
                #[inline(always)]
                |gradient| {
                    for upper in upper.chunks_exact(sequence) {
                        let pairs = gradient.iter_mut().zip(&upper[used.clone()]);
                        pairs.for_each(|(sum, g)| *sum += g);
                    }
                },
            );
        },
    );
}

fn check_positions(positions: &[f32], tokens: usize, width: usize, values: &[f32]) -> usize {
    let sequence = tokens * width;
    assert!(sequence > 0, "a sequence has values");
    assert!(positions.len() >= sequence, "a position for each token");
    assert_eq!(positions.len() % width, 0, "positions are whole");
    assert_eq!(values.len() % sequence, 0, "sequences are whole");
    sequence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, gradient, same_bits, twice, values, wide};

    fn numbers(count: usize, rows: usize) -> Vec<u32> {
        (0..count).map(|i| (i * i * 7 % rows) as u32).collect()
    }

    #[test]
    fn embedding_gathers_rows_and_sums_their_gradients() {
        for (rows, width, count) in [(1, 1, 1), (3, 5, 20), (65, 8, 33), (10, 2, 1)] {
            let shape = Embedding { rows, width };
            let (table, numbers) = (values("table", rows * width), numbers(count, rows));
            let exact = |table: &[f64]| -> Vec<f64> {
                let row = |n: &u32| table[*n as usize * width..][..width].to_vec();
                numbers.iter().flat_map(row).collect()
            };
            let mut output = vec![f32::NAN; count * width];
            forward(&shape, &table, &numbers, &mut output, 1);
            assert_eq!(wide(&output), exact(&wide(&table)));
            let upper = values("g", output.len());
            let want = gradient(&table, &upper, exact);
            let mut g = vec![f32::NAN; table.len()];
            backward(&shape, &numbers, &upper, &mut g, Update::Replace, 1);
            assert_close(&g, &want, 1e-5);
            backward(&shape, &numbers, &upper, &mut g, Update::Add, 1);
            assert_close(&g, &twice(&want), 1e-5);
        }
    }

    #[test]
    fn positions_are_added_and_their_gradients_summed() {
        for (batch, tokens, width, all) in [(1, 1, 1, 1), (3, 4, 5, 4), (2, 3, 7, 9)] {
            let positions = values("p", all * width);
            let x = values("x", batch * tokens * width);
            let exact = |p: &[f64]| -> Vec<f64> {
                let at = |i: usize| f64::from(x[i]) + p[i % (tokens * width)];
                (0..x.len()).map(at).collect()
            };
            let mut output = x.clone();
            add_positions(&positions, tokens, width, &mut output, 1);
            assert_close(&output, &exact(&wide(&positions)), 1e-6);
            let upper = values("g", output.len());
            let want = gradient(&positions, &upper, exact);
            let mut g = vec![f32::NAN; positions.len()];
            positions_backward(tokens, width, &upper, &mut g, Update::Replace, 1);
            assert_close(&g, &want, 1e-5);
            positions_backward(tokens, width, &upper, &mut g, Update::Add, 1);
            assert_close(&g, &twice(&want), 1e-5);
        }
    }

    #[test]
    fn embedding_has_the_same_bits_on_any_number_of_threads() {
        let shape = Embedding {
            rows: 65,
            width: 48,
        };
        let (table, numbers) = (values("table", 65 * 48), numbers(2048, 65));
        let upper = values("g", 2048 * 48);
        same_bits(|threads| {
            let mut output = vec![0.0; upper.len()];
            forward(&shape, &table, &numbers, &mut output, threads);
            add_positions(&table, 64, 48, &mut output, threads);
            let mut g = vec![0.0; table.len()];
            backward(&shape, &numbers, &upper, &mut g, Update::Replace, threads);
            positions_backward(64, 48, &upper, &mut g, Update::Add, threads);
            output.extend(g);
            output
        });
    }
}
