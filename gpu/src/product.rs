//! Matrix products on slices: `gemm`'s kernels, chosen at run time for the processor. The one
//! module with `unsafe`: bounds are established here, by construction of [`Matrix`].
//!
//! Rows and columns are divided among threads, by `gemm` or here, never the sums, so the bits of a product do
//! not depend on their number; a test holds it to that. Long sums it divides by the size of the
//! processor's caches, but none of up to [`SLICE`] terms: longer ones are cut here into slices of so
//! many, which are added in their order. So processors of one kind with other caches agree, too.

use std::marker::PhantomData;
use std::ops::Range;

use crate::kernel::parallel::{Split, each};

/// Products of fewer multiply-adds run on the calling thread: waking others costs more.
const THREADED_FROM: usize = 48 * 48 * 256;

/// Columns that belong together where they are divided here: those that `gemm` computes at once with
/// AVX-512.
const COLUMNS: usize = 48;

/// The fewest rows whose columns are divided here. Of less than 256 values, `gemm` makes each sum in
/// another order, which must not depend on threads.
const ROWS: usize = 8;

/// The most terms that `gemm` sums as one, whatever the caches.
const SLICE: usize = 512;

/// A matrix in a slice, as stored or transposed.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// From the start of a stored line to the next, in values.
    distance: usize,
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
        Self::spaced(values, rows, columns, columns)
    }

    /// The `rows` × `columns` matrix whose rows start every `distance` values, from the first.
    pub(crate) fn spaced(values: &'a [f32], rows: usize, columns: usize, distance: usize) -> Self {
        check_lines(values.len(), rows, columns, distance);
        Self {
            values,
            rows,
            columns,
            distance,
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

    /// Some of its columns.
    fn columns(self, range: Range<usize>) -> Self {
        let start = match self.transposed {
            false => range.start,
            true => range.start * self.distance,
        };
        Self {
            values: &self.values[start..],
            columns: range.len(),
            ..self
        }
    }

    /// Some of its rows.
    fn rows(self, range: Range<usize>) -> Self {
        self.transposed().columns(range).transposed()
    }

    /// Distance in values from a row to the next, and from a column to the next.
    fn strides(&self) -> (isize, isize) {
        match self.transposed {
            false => (self.distance as isize, 1),
            true => (1, self.distance as isize),
        }
    }
}

/// Where a product goes: a row-major matrix whose rows start every `distance` values.
pub(crate) struct Place<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    distance: usize,
    /// The values are its own: of each row from its start so many as it has columns.
    values: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is an exclusive borrow of its values, which no other place has.
#[allow(unsafe_code)]
unsafe impl Send for Place<'_> {}

impl<'a> Place<'a> {
    /// The place of a `rows` × `columns` product whose rows start every `distance` values.
    pub(crate) fn spaced(
        values: &'a mut [f32],
        rows: usize,
        columns: usize,
        distance: usize,
    ) -> Self {
        check_lines(values.len(), rows, columns, distance);
        Self {
            start: values.as_mut_ptr(),
            rows,
            columns,
            distance,
            values: PhantomData,
        }
    }
}

/// An item is [`COLUMNS`] columns, the last one has what is left, too.
impl Split for Place<'_> {
    fn split(self, items: usize, _threads: usize) -> (Self, Self) {
        let middle = (items * COLUMNS).min(self.columns);
        let left = Self {
            columns: middle,
            ..self
        };
        let right = Self {
            start: self.start.wrapping_add(middle),
            columns: self.columns - middle,
            ..self
        };
        (left, right)
    }
}

fn check_lines(len: usize, rows: usize, columns: usize, distance: usize) {
    assert!(columns <= distance || rows <= 1, "rows do not overlap");
    let needed = match rows {
        0 => Some(0),
        _ => (rows - 1)
            .checked_mul(distance)
            .and_then(|start| start.checked_add(columns)),
    };
    assert!(
        needed.is_some_and(|needed| needed <= len),
        "the last row of a matrix is inside its slice"
    );
}

/// What becomes of the values that the product's place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// They are overwritten.
    Replace,
    /// The product is added to them.
    Add,
}

/// `out = a·b` or `out += a·b`, row-major, on at most `threads` threads.
pub(crate) fn multiply(
    out: &mut [f32],
    update: Update,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: usize,
) {
    assert_eq!(out.len(), a.rows * b.columns, "the product has its place");
    let out = Place::spaced(out, a.rows, b.columns, b.columns);
    multiply_into(out, update, a, b, threads);
}

/// As [`multiply`], into rows that need not follow one another without a gap.
pub(crate) fn multiply_into(
    mut out: Place<'_>,
    update: Update,
    a: Matrix<'_>,
    b: Matrix<'_>,
    threads: usize,
) {
    let work = a.rows * a.columns * b.columns;
    if threads <= 1 || work < THREADED_FROM {
        return multiply_slices(&mut out, update, a, b, gemm::Parallelism::None);
    }
    // Such a `b` is packed first, which takes long where few rows use it, and `gemm` does it on one thread.
    if b.transposed && (ROWS..b.columns).contains(&a.rows) {
        let items = (b.columns / COLUMNS).max(1);
        return each(threads, items, out, |items, mut out| {
            let start = items.start * COLUMNS;
            let b = b.columns(start..start + out.columns);
            multiply_slices(&mut out, update, a, b, gemm::Parallelism::None);
        });
    }
    multiply_slices(&mut out, update, a, b, gemm::Parallelism::Rayon(threads));
}

/// The product of sums of any length, in slices.
fn multiply_slices(
    out: &mut Place<'_>,
    update: Update,
    a: Matrix<'_>,
    b: Matrix<'_>,
    parallelism: gemm::Parallelism,
) {
    assert_eq!(a.columns, b.rows, "inner sizes agree");
    let terms = a.columns;
    let first = 0..terms.min(SLICE);
    let (left, right) = (a.columns(first.clone()), b.rows(first));
    multiply_slice(out, update, left, right, parallelism);
    for start in (SLICE..terms).step_by(SLICE) {
        let slice = start..terms.min(start + SLICE);
        let (left, right) = (a.columns(slice.clone()), b.rows(slice));
        multiply_slice(out, Update::Add, left, right, parallelism);
    }
}

/// A product whose sums have at most [`SLICE`] terms.
#[allow(unsafe_code)]
fn multiply_slice(
    out: &mut Place<'_>,
    update: Update,
    a: Matrix<'_>,
    b: Matrix<'_>,
    parallelism: gemm::Parallelism,
) {
    assert_eq!(a.columns, b.rows, "inner sizes agree");
    assert_eq!(
        (out.rows, out.columns),
        (a.rows, b.columns),
        "the place has the product's shape"
    );
    let (a_row, a_column) = a.strides();
    let (b_row, b_column) = b.strides();
    // SAFETY: `gemm` reads a[i, k] for i < a.rows, k < a.columns at i·a_row + k·a_column, b alike,
    // and writes (reads, to add) out[i, j] at i·out.distance + j for i < a.rows, j < b.columns, which
    // are out.rows and out.columns. `Matrix` and `Place` are made by `spaced` alone, where
    // `check_lines` established that (lines − 1)·distance + length is inside the slice, of `a` and
    // `b` as of `out`; `transposed` exchanges the roles of the two indices with their strides, and
    // `columns` and `rows` leave off values before those that are left, and none of these.
    // `out` is borrowed exclusively, its rows do not overlap, and `split` gives each part columns
    // that the other has not.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.start,
            1,
            out.distance as isize,
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

    /// Matrices that lie between other values: what is around the product stays.
    #[test]
    fn spaced_products_touch_their_rows_only() {
        for (m, n, k) in [(1, 1, 1), (5, 3, 7), (33, 65, 40)] {
            let (a, b) = (values("a", m * (k + 2)), values("b", n * (k + 3)));
            let a = Matrix::spaced(&a, m, k, k + 2);
            let b = Matrix::spaced(&b, n, k, k + 3).transposed();
            let expected = naive(&a, &b);
            let mut out = vec![7.0; m * (n + 4)];
            multiply_into(
                Place::spaced(&mut out, m, n, n + 4),
                Update::Replace,
                a,
                b,
                1,
            );
            for (row, want) in out.chunks(n + 4).zip(expected.chunks(n)) {
                assert_eq!(row[n..], [7.0; 4]);
                for (got, want) in row.iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() < 1e-4, "{got} for {want}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "inside its slice")]
    fn a_matrix_does_not_leave_its_slice() {
        Matrix::spaced(&[0.0; 9], 2, 5, 5);
    }

    /// Whatever `gemm` makes of longer sums: ours are those of slices, in their order.
    #[test]
    fn long_sums_are_those_of_slices() {
        let (m, n, k) = (37, 70, 2 * SLICE + 300);
        let (a, b) = (values("a", m * k), values("b", k * n));
        let orders = [
            (Matrix::new(&a, m, k), Matrix::new(&b, n, k).transposed()),
            (Matrix::new(&a, k, m).transposed(), Matrix::new(&b, k, n)),
        ];
        for (a, b) in orders {
            let mut whole = vec![f32::NAN; m * n];
            multiply(&mut whole, Update::Replace, a, b, 2);
            let mut slices = vec![0.0; m * n];
            for range in [0..SLICE, SLICE..2 * SLICE, 2 * SLICE..k] {
                let (a, b) = (a.columns(range.clone()), b.rows(range));
                let mut slice = Place::spaced(&mut slices, m, n, n);
                multiply_slice(&mut slice, Update::Add, a, b, gemm::Parallelism::None);
            }
            assert!(whole == slices);
        }
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        for (m, n, k) in [
            (128, 512, 784),
            (512, 784, 128),
            (128, 784, 512),
            (257, 131, 1031),
            (ROWS, 1200, 512),
            (ROWS - 1, 1200, 512),
            (9, 250, 1031),
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
