//! Loops on vectors, and reductions of a row in a fixed number of lanes: as fast as vectors are,
//! whatever their width, with the same bits for every width.

use pulp::{Arch, Simd, WithSimd};

const LANES: usize = 16;

/// Calls `work`, compiled for the vectors that this processor has. It must be marked to be inlined,
/// and what it calls too: what is not is compiled for the oldest processor.
///
/// `Arch::dispatch` of a closure is not enough: one that does not consume what it captured is called
/// through a shim that nobody can mark. So what is consumed comes as `arguments`, and the closure is
/// called as the `Fn` that it is.
#[inline(always)]
pub(super) fn on_vectors<A, R>(arguments: A, work: impl Fn(A) -> R) -> R {
    struct Call<A, F>(A, F);
    impl<A, R, F: Fn(A) -> R> WithSimd for Call<A, F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.1)(self.0)
        }
    }
    Arch::new().dispatch(Call(arguments, work))
}

/// The sum of `f` over the values.
#[inline(always)]
pub(super) fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] += f(block[lane]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f(*value);
    }
    fold(lanes, |a, b| a + b)
}

/// The sum of `f` over pairs of values.
#[inline(always)]
pub(super) fn sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += f(*a, *b);
    }
    fold(lanes, |a, b| a + b)
}

/// The sum of the values, in f64.
#[inline(always)]
pub(super) fn wide_sum(values: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] += f64::from(block[lane]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(*value);
    }
    fold(lanes, |a, b| a + b)
}

/// The sum of `f` over pairs of values, in f64.
#[inline(always)]
pub(super) fn wide_sum_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0f64; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += f(a[lane], b[lane]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *lane += f(*a, *b);
    }
    fold(lanes, |a, b| a + b)
}

/// The largest value; those that are not numbers are passed over.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] = larger(lanes[lane], block[lane]);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *value);
    }
    fold(lanes, larger)
}

/// By halves: the order is the same for every width of vectors.
#[inline(always)]
fn fold<T: Copy>(mut lanes: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_take_every_value_once() {
        for len in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f32> = (0..len).map(|i| i as f32 - 7.0).collect();
            let total: f32 = values.iter().sum();
            assert_eq!(sum(&values, |v| v), total);
            assert_eq!(sum_pairs(&values, &values, |a, b| 2.0 * a - b), total);
            assert_eq!(wide_sum(&values), f64::from(total));
            let difference = |a, b| f64::from(2.0 * a) - f64::from(b);
            assert_eq!(
                wide_sum_pairs(&values, &values, difference),
                f64::from(total)
            );
            let expected = values.last().copied().unwrap_or(f32::NEG_INFINITY);
            assert_eq!(largest(&values), expected);
        }
        assert_eq!(largest(&[1.0, f32::NAN, 3.0]), 3.0);
    }

    /// The test itself is compiled for the oldest processor.
    #[test]
    fn vectors_of_any_width_give_the_same_bits() {
        for len in [1, 31, 32, 1000] {
            let values = crate::kernel::testing::values("x", len);
            let here = (sum(&values, |v| v * v), wide_sum(&values), largest(&values));
            let there = on_vectors(
                &values[..],
                #[inline(always)]
                |values| (sum(values, |v| v * v), wide_sum(values), largest(values)),
            );
            assert_eq!(here, there);
        }
    }
}
