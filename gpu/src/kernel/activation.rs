//! Functions of single values, with their derivatives. What is not a number passes through all of
//! them, so that it is seen.

use super::elementary::{normal, sigmoid, tanh};
use super::lanes::on_vectors;
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
        Activation::Relu => map(input, output, threads, relu),
        Activation::Gelu => map(input, output, threads, gelu),
        Activation::GeluTanh => map(input, output, threads, gelu_tanh),
        Activation::Silu => map(input, output, threads, silu),
        Activation::Sigmoid => map(input, output, threads, logistic),
        Activation::Tanh => map(input, output, threads, tanh),
    }
}

/// The same where the input lies.
pub fn forward_in_place(kind: Activation, values: &mut [f32], threads: usize) {
    match kind {
        Activation::Relu => map_in_place(values, threads, relu),
        Activation::Gelu => map_in_place(values, threads, gelu),
        Activation::GeluTanh => map_in_place(values, threads, gelu_tanh),
        Activation::Silu => map_in_place(values, threads, silu),
        Activation::Sigmoid => map_in_place(values, threads, logistic),
        Activation::Tanh => map_in_place(values, threads, tanh),
    }
}

/// Writes to `lower` the gradient `upper` by each output times the derivative. `saved` is what
/// [`Activation::saved`] says.
pub fn backward(kind: Activation, saved: &[f32], upper: &[f32], lower: &mut [f32], threads: usize) {
    match kind {
        Activation::Relu => zip(saved, upper, lower, threads, relu_gradient),
        Activation::Gelu => zip(saved, upper, lower, threads, gelu_gradient),
        Activation::GeluTanh => zip(saved, upper, lower, threads, gelu_tanh_gradient),
        Activation::Silu => zip(saved, upper, lower, threads, silu_gradient),
        Activation::Sigmoid => zip(saved, upper, lower, threads, logistic_gradient),
        Activation::Tanh => zip(saved, upper, lower, threads, tanh_gradient),
    }
}

/// The same where the gradient by the outputs lies.
pub fn backward_in_place(kind: Activation, saved: &[f32], gradient: &mut [f32], threads: usize) {
    match kind {
        Activation::Relu => zip_in_place(saved, gradient, threads, relu_gradient),
        Activation::Gelu => zip_in_place(saved, gradient, threads, gelu_gradient),
        Activation::GeluTanh => zip_in_place(saved, gradient, threads, gelu_tanh_gradient),
        Activation::Silu => zip_in_place(saved, gradient, threads, silu_gradient),
        Activation::Sigmoid => zip_in_place(saved, gradient, threads, logistic_gradient),
        Activation::Tanh => zip_in_place(saved, gradient, threads, tanh_gradient),
    }
}

// Functions, not closures, in loops, not in `for_each`: what is not inlined to the last call is
// compiled for the oldest processor, value by value.

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn relu_gradient(y: f32, g: f32) -> f32 {
    if y <= 0.0 { 0.0 } else { g }
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

/// g·(Φ(x) + x·φ(x)).
#[inline(always)]
fn gelu_gradient(x: f32, g: f32) -> f32 {
    let (below, density) = normal(x);
    g * (below + bounded(x) * density)
}

/// Twice the argument of the hyperbolic tangent, as (1 + tanh u) / 2 is sigmoid(2u): which does not
/// lose the last bits of a negative x.
#[inline(always)]
fn gelu_angle(x: f32) -> f32 {
    2.0 * GELU_SLOPE * (x + GELU_CUBIC * (x * x * x))
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    x * sigmoid(gelu_angle(x)).0
}

/// g·(s + x·s·(1 − s)·(2u)′) with s = sigmoid(2u).
#[inline(always)]
fn gelu_tanh_gradient(x: f32, g: f32) -> f32 {
    let x = bounded(x);
    let (s, rest) = sigmoid(gelu_angle(x));
    let slope = 2.0 * GELU_SLOPE * (1.0 + 3.0 * GELU_CUBIC * (x * x));
    g * (s + x * (s * rest) * slope)
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x * sigmoid(x).0
}

/// g·(s + x·s·(1 − s)) with s = sigmoid(x).
#[inline(always)]
fn silu_gradient(x: f32, g: f32) -> f32 {
    let x = bounded(x);
    let (s, rest) = sigmoid(x);
    g * (s + x * (s * rest))
}

#[inline(always)]
fn logistic(x: f32) -> f32 {
    sigmoid(x).0
}

#[inline(always)]
fn logistic_gradient(y: f32, g: f32) -> f32 {
    g * (y * (1.0 - y))
}

#[inline(always)]
fn tanh_gradient(y: f32, g: f32) -> f32 {
    g * (1.0 - y * y)
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
        on_vectors(
            (out.values, input),
            #[inline(always)]
            |(out, input)| {
                for (y, x) in out.iter_mut().zip(input) {
                    *y = f(*x);
                }
            },
        );
    });
}

fn map_in_place(values: &mut [f32], threads: usize, f: impl Fn(f32) -> f32 + Sync) {
    let threads = worth(threads, values.len());
    each(threads, values.len(), Rows::new(values, 1), |_, part| {
        on_vectors(
            part.values,
            #[inline(always)]
            |values| {
                for value in values {
                    *value = f(*value);
                }
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
        let values = (lower.values, &saved[range.clone()], &upper[range]);
        on_vectors(
            values,
            #[inline(always)]
            |(lower, saved, upper)| {
                for (l, (s, g)) in lower.iter_mut().zip(saved.iter().zip(upper)) {
                    *l = f(*s, *g);
                }
            },
        );
    });
}

fn zip_in_place(
    saved: &[f32],
    gradient: &mut [f32],
    threads: usize,
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    assert_eq!(saved.len(), gradient.len(), "a gradient for each value");
    let threads = worth(threads, gradient.len());
    let parts = Rows::new(gradient, 1);
    each(threads, saved.len(), parts, |range, gradient| {
        on_vectors(
            (gradient.values, &saved[range]),
            #[inline(always)]
            |(gradient, saved)| {
                for (g, s) in gradient.iter_mut().zip(saved) {
                    *g = f(*s, *g);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests;
