//! What the kernels' tests share: values, comparisons, derivatives by finite differences.

use crate::random::Stream;

/// Values from −1 to 1 that this name draws.
pub(super) fn values(name: &str, len: usize) -> Vec<f32> {
    let mut stream = Stream::new("test", 1, name);
    (0..len).map(|_| stream.signed_unit()).collect()
}

/// The values in f64.
pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// The values doubled: what a gradient is that was written once and added once.
pub(super) fn twice(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| 2.0 * v).collect()
}

/// Fails where a value is off by more than `tolerance` of its size, or of 1 if it is smaller.
pub(super) fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (f64::from(*got) - want).abs();
        let allowed = tolerance * want.abs().max(1.0);
        assert!(off <= allowed, "at {index}: {got} for {want}");
    }
}

/// The gradient at `x` of the sum of the outputs of `f`, each times its value of `upper`: by central
/// differences in f64.
pub(super) fn gradient(x: &[f32], upper: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut x = wide(x);
    let upper = wide(upper);
    let weighed = |x: &[f64]| -> f64 {
        let outputs = f(x);
        assert_eq!(outputs.len(), upper.len());
        outputs.iter().zip(&upper).map(|(y, g)| y * g).sum()
    };
    (0..x.len())
        .map(|i| {
            let here = x[i];
            x[i] = here + STEP;
            let above = weighed(&x);
            x[i] = here - STEP;
            let below = weighed(&x);
            x[i] = here;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// Fails where the result depends on the number of threads.
pub(super) fn same_bits(run: impl Fn(usize) -> Vec<f32>) {
    let bits = |threads| {
        run(threads)
            .into_iter()
            .map(f32::to_bits)
            .collect::<Vec<_>>()
    };
    let one = bits(1);
    for threads in [2, 3, 7] {
        assert!(bits(threads) == one, "{threads} threads give other bits");
    }
}
