//! Functions of single values, with their derivatives. What is not a number passes through all of
//! them, so that it is seen.

use pulp::Arch;

use super::elementary::{normal, sigmoid, tanh};
use super::parallel::{Rows, each, worth};

/// √(2/π) and the cubic term of GELU's approximation (Hendrycks and Gimpel, 2016).
const GELU_SLOPE: f32 = 0.797_884_6;
const GELU_CUBIC: f32 = 0.044_715;

/// A function that is applied to each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The larger of x and 0; the derivative at 0 is 0.
    Relu,
    /// x·Φ(x), with the distribution function of the standard normal distribution.
    Gelu,
    /// x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2, which comes close to it.
    GeluTanh,
    /// x·sigmoid(x), also known as swish.
    Silu,
    /// 1 / (1 + e⁻ˣ).
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

/// What of the forward pass a backward pass takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// The input.
    Input,
    /// The output: the input's place may be used for something else.
    Output,
}

impl Activation {
    /// What [`backward`] takes as `saved`.
    pub fn saved(self) -> Saved {
        match self {
            Self::Relu | Self::Sigmoid | Self::Tanh => Saved::Output,
            Self::Gelu | Self::GeluTanh | Self::Silu => Saved::Input,
        }
    }
}

/// Writes the function of each input to `output`.
pub fn forward(kind: Activation, input: &[f32], output: &mut [f32], threads: usize) {
    match kind {
        Activation::Relu => map(input, output, threads, |x| if x <= 0.0 { 0.0 } else { x }),
        Activation::Gelu => map(input, output, threads, |x| x * normal(x).0),
        Activation::GeluTanh => map(input, output, threads, |x| x * sigmoid(gelu_angle(x)).0),
        Activation::Silu => map(input, output, threads, |x| x * sigmoid(x).0),
        Activation::Sigmoid => map(input, output, threads, |x| sigmoid(x).0),
        Activation::Tanh => map(input, output, threads, tanh),
    }
}

/// Writes to `lower` the gradient `upper` by each output times the derivative. `saved` is what
/// [`Activation::saved`] says.
pub fn backward(kind: Activation, saved: &[f32], upper: &[f32], lower: &mut [f32], threads: usize) {
    match kind {
        Activation::Relu => zip(
            saved,
            upper,
            lower,
            threads,
            |y, g| {
                if y <= 0.0 { 0.0 } else { g }
            },
        ),
        Activation::Gelu => zip(saved, upper, lower, threads, |x, g| g * gelu_slope(x)),
        Activation::GeluTanh => zip(saved, upper, lower, threads, |x, g| g * gelu_tanh_slope(x)),
        Activation::Silu => zip(saved, upper, lower, threads, |x, g| g * silu_slope(x)),
        Activation::Sigmoid => zip(saved, upper, lower, threads, |y, g| g * (y * (1.0 - y))),
        Activation::Tanh => zip(saved, upper, lower, threads, |y, g| g * (1.0 - y * y)),
    }
}

/// Φ(x) + x·φ(x).
#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    let (below, density) = normal(x);
    below + bounded(x) * density
}

/// Twice the argument of the hyperbolic tangent, as (1 + tanh u) / 2 is sigmoid(2u): which does not
/// lose the last bits of a negative x.
#[inline(always)]
fn gelu_angle(x: f32) -> f32 {
    2.0 * GELU_SLOPE * (x + GELU_CUBIC * (x * x * x))
}

/// s + x·s·(1 − s)·(2u)′ with s = sigmoid(2u).
#[inline(always)]
fn gelu_tanh_slope(x: f32) -> f32 {
    let x = bounded(x);
    let (s, rest) = sigmoid(gelu_angle(x));
    let slope = 2.0 * GELU_SLOPE * (1.0 + 3.0 * GELU_CUBIC * (x * x));
    s + x * (s * rest) * slope
}

/// s + x·s·(1 − s) with s = sigmoid(x).
#[inline(always)]
fn silu_slope(x: f32) -> f32 {
    let x = bounded(x);
    let (s, rest) = sigmoid(x);
    s + x * (s * rest)
}

/// Beyond, derivatives are 0 or 1 to the last bit, but products in them would be 0 times infinity.
#[inline(always)]
fn bounded(x: f32) -> f32 {
    const END: f32 = 120.0;
    let x = if x > END { END } else { x };
    if x < -END { -END } else { x }
}

fn map(input: &[f32], output: &mut [f32], threads: usize, f: impl Fn(f32) -> f32 + Sync) {
    assert_eq!(input.len(), output.len(), "an output for each input");
    let threads = worth(threads, output.len());
    each(threads, output.len(), Rows::new(output, 1), |range, out| {
        let input = &input[range];
        Arch::new().dispatch(
            #[inline(always)]
            || {
                out.values
                    .iter_mut()
                    .zip(input)
                    .for_each(|(y, x)| *y = f(*x))
            },
        );
    });
}

fn zip(
    saved: &[f32],
    upper: &[f32],
    lower: &mut [f32],
    threads: usize,
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    assert_eq!(saved.len(), lower.len(), "a gradient for each saved value");
    assert_eq!(upper.len(), lower.len(), "a gradient for each output");
    let threads = worth(threads, lower.len());
    each(threads, lower.len(), Rows::new(lower, 1), |range, lower| {
        let pairs = saved[range.clone()].iter().zip(&upper[range]);
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let lower = lower.values.iter_mut().zip(pairs);
                lower.for_each(|(l, (s, g))| *l = f(*s, *g));
            },
        );
    });
}

#[cfg(test)]
mod tests;
