use super::*;
use crate::kernel::testing::{assert_close, gradient, same_bits, values};

const ALL: [Activation; 6] = [
    Activation::Relu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::Sigmoid,
    Activation::Tanh,
];

/// Φ in f64 by Simpson's rule on the density.
fn below(x: f64) -> f64 {
    const PARTS: i32 = 400;
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let width = x / f64::from(PARTS);
    let inner = |i: i32| density(f64::from(i) * width) * if i % 2 == 0 { 2.0 } else { 4.0 };
    0.5 + width / 3.0 * (density(0.0) + density(x) + (1..PARTS).map(inner).sum::<f64>())
}

fn exact(kind: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * below(x),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        }
        Activation::Silu => x * sigmoid(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
    }
}

fn saved<'a>(kind: Activation, input: &'a [f32], output: &'a [f32]) -> &'a [f32] {
    match kind.saved() {
        Saved::Input => input,
        Saved::Output => output,
    }
}

#[test]
fn activations_and_their_slopes_are_those_of_the_definitions() {
    let input: Vec<f32> = (-700..=700).map(|i| i as f32 * 0.0113 + 0.001).collect();
    let upper = values("upper", input.len());
    for kind in ALL {
        let mut output = vec![f32::NAN; input.len()];
        forward(kind, &input, &mut output, 1);
        let want: Vec<f64> = input.iter().map(|x| exact(kind, f64::from(*x))).collect();
        assert_close(&output, &want, 4e-7);
        let mut lower = vec![f32::NAN; input.len()];
        backward(kind, saved(kind, &input, &output), &upper, &mut lower, 1);
        for ((x, g), got) in input.iter().zip(&upper).zip(&lower) {
            let f = |x: &[f64]| vec![exact(kind, x[0])];
            assert_close(&[*got], &gradient(&[*x], &[*g], f), 2e-6);
        }
    }
}

#[test]
fn activations_hide_no_broken_value() {
    for kind in ALL {
        let (mut output, mut lower) = ([0.0], [0.0]);
        forward(kind, &[f32::NAN], &mut output, 1);
        assert!(output[0].is_nan(), "{kind:?}");
        backward(kind, &[f32::NAN], &[1.0], &mut lower, 1);
        assert!(kind == Activation::Relu || lower[0].is_nan(), "{kind:?}");
        backward(kind, &[0.5], &[f32::NAN], &mut lower, 1);
        assert!(lower[0].is_nan(), "{kind:?}");
    }
}

/// At ±MAX and ±∞, slopes are 0 or 1 and nothing is 0·∞ that has a limit.
#[test]
fn activations_are_finite_at_the_ends() {
    for kind in [Activation::Gelu, Activation::GeluTanh, Activation::Silu] {
        for (x, slope) in [
            (f32::MAX, 1.0),
            (f32::INFINITY, 1.0),
            (-f32::MAX, 0.0),
            (-50.0, 0.0),
        ] {
            let (mut output, mut lower) = ([f32::NAN], [f32::NAN]);
            forward(kind, &[x], &mut output, 1);
            assert!(
                (output[0] - x.max(0.0)).abs() < 1e-19 || output[0] == x,
                "{kind:?} {x}"
            );
            backward(kind, &[x], &[1.0], &mut lower, 1);
            assert!(
                (lower[0] - slope).abs() < 1e-19,
                "{kind:?} {x}: {}",
                lower[0]
            );
        }
    }
    let mut lower = [f32::NAN];
    backward(Activation::Relu, &[0.0], &[3.0], &mut lower, 1);
    assert_eq!(lower, [0.0]);
}

#[test]
fn activations_have_the_same_bits_on_any_number_of_threads() {
    let (input, upper) = (values("x", 70_001), values("upper", 70_001));
    for kind in ALL {
        same_bits(|threads| {
            let mut both = vec![0.0; 2 * input.len()];
            let (output, lower) = both.split_at_mut(input.len());
            forward(kind, &input, output, threads);
            backward(kind, saved(kind, &input, output), &upper, lower, threads);
            both
        });
    }
}

/// The test itself is compiled for the oldest processor, one value at a time.
#[test]
fn vectors_give_the_bits_of_single_values() {
    let input: Vec<f32> = (0..u32::MAX).step_by(99_991).map(f32::from_bits).collect();
    let finite: Vec<f32> = input.into_iter().filter(|x| !x.is_nan()).collect();
    let single = |kind| match kind {
        Activation::Relu => relu,
        Activation::Gelu => gelu,
        Activation::GeluTanh => gelu_tanh,
        Activation::Silu => silu,
        Activation::Sigmoid => logistic,
        Activation::Tanh => tanh,
    };
    for kind in ALL {
        let f: fn(f32) -> f32 = single(kind);
        let mut output = vec![0.0; finite.len()];
        forward(kind, &finite, &mut output, 1);
        for (x, y) in finite.iter().zip(output) {
            let same = f(*x).to_bits() == y.to_bits() || (f(*x).is_nan() && y.is_nan());
            assert!(same, "{kind:?} of {x}: {y} for {}", f(*x));
        }
    }
}
