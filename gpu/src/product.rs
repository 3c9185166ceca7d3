//! Matrix products on slices: `gemm`'s kernels, chosen at run time for the processor. The one
//! module with `unsafe`: bounds are established here, by construction of [`Matrix`].
//!
//! `gemm` divides only rows and columns among threads, never the sums, so the bits of a product do
//! not depend on their number; a test holds it to that.

/// Products of fewer multiply-adds run on the calling thread: waking others costs more.
const THREADED_FROM: usize = 48 * 48 * 256;

/// A matrix in a slice, as stored or transposed.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// The row-major `rows` × `columns` matrix of these values.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(
            values.len(),
            rows * columns,
            "a matrix has rows × columns values"
        );
        Self {
            values,
            rows,
            columns,
            transposed: false,
        }
    }

    /// The same values, rows and columns exchanged.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            transposed: !self.transposed,
            ..self
        }
    }

    /// Distance in values from a row to the next, and from a column to the next.
    fn strides(&self) -> (isize, isize) {
        match self.transposed {
            false => (self.columns as isize, 1),
            true => (1, self.rows as isize),
        }
    }
}

/// What becomes of the values that the product's place holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = a·b` or `out += a·b`, row-major, on at most `threads` threads.
#[allow(unsafe_code)]
pub(crate) fn multiply(
    out: &mut [f32],
    update: Update,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: usize,
) {
    assert_eq!(a.columns, b.rows, "inner sizes agree");
    assert_eq!(out.len(), a.rows * b.columns, "the product has its place");
    let (a_row, a_column) = a.strides();
    let (b_row, b_column) = b.strides();
    let parallelism = match a.rows * a.columns * b.columns {
        work if threads > 1 && work >= THREADED_FROM => gemm::Parallelism::Rayon(threads),
        _ => gemm::Parallelism::None,
    };
    // SAFETY: `gemm` reads a[i, k] for i < a.rows, k < a.columns at i·a_row + k·a_column, b alike,
    // and writes out[i, j] at i·b.columns + j. By `Matrix::new` and `strides` these are inside the
    // slices, by the assertions above inside `out`; `out` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns as isize,
            update == Update::Add,
            a.values.as_ptr(),
            a_column,
            a_row,
            b.values.as_ptr(),
            b_column,
            b_row,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    fn values(name: &str, len: usize) -> Vec<f32> {
        let mut stream = Stream::new("test", 1, name);
        (0..len).map(|_| stream.signed_unit()).collect()
    }

    fn at(m: &Matrix<'_>, row: usize, column: usize) -> f64 {
        let (r, c) = m.strides();
        f64::from(m.values[row * r as usize + column * c as usize])
    }

    fn naive(a: &Matrix<'_>, b: &Matrix<'_>) -> Vec<f64> {
        let cell = |i, j| (0..a.columns).map(|k| at(a, i, k) * at(b, k, j)).sum();
        (0..a.rows)
            .flat_map(|i| (0..b.columns).map(move |j| (i, j)))
            .map(|(i, j)| cell(i, j))
            .collect()
    }

    /// Every path of `gemm`: one row, one column, tiny, packed, deep; both orders of each operand.
    #[test]
    fn products_agree_with_three_loops() {
        let sizes = [
            (1, 1, 1),
            (11, 10, 64),
            (32, 64, 64),
            (64, 64, 11),
            (1, 70, 33),
            (70, 1, 2),
        ];
        for (m, n, k) in sizes.into_iter().chain([(3, 5, 700), (130, 90, 600)]) {
            let (a, b) = (values("a", m * k), values("b", k * n));
            let lefts = [Matrix::new(&a, m, k), Matrix::new(&a, k, m).transposed()];
            let rights = [Matrix::new(&b, k, n), Matrix::new(&b, n, k).transposed()];
            for (left, right) in lefts
                .iter()
                .flat_map(|l| rights.iter().map(move |r| (l, r)))
            {
                let expected = naive(left, right);
                let mut out = vec![f32::NAN; m * n];
                multiply(&mut out, Update::Replace, *left, *right, 1);
                multiply(&mut out, Update::Add, *left, *right, 1);
                for (got, want) in out.iter().zip(&expected) {
                    let off = (f64::from(*got) - 2.0 * want).abs();
                    assert!(
                        off < 1e-4 * (k as f64).sqrt(),
                        "{m}×{k}×{n}: {got} for {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        for (m, n, k) in [
            (128, 512, 784),
            (512, 784, 128),
            (128, 784, 512),
            (257, 131, 1031),
        ] {
            let (a, b) = (values("a", m * k), values("b", k * n));
            let (a, b) = (Matrix::new(&a, m, k), Matrix::new(&b, n, k).transposed());
            let run = |threads| {
                let mut out = vec![0.0; m * n];
                multiply(&mut out, Update::Replace, a, b, threads);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let one = run(1);
            for threads in [2, 3, 4, 7] {
                assert!(run(threads) == one, "{m}×{k}×{n} on {threads} threads");
            }
        }
    }
}
