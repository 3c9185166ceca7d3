//! Normalisation: values less their mean, over their deviation, then times a weight, plus a bias.
//!
//! [`rows`] does so for each row, [`batch`] for each channel over a batch.

pub mod batch;
pub mod rows;

/// What normalised values are multiplied with, and what is added.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// The weight.
    pub weight: &'a [f32],
    /// The bias, if there is one.
    pub bias: Option<&'a [f32]>,
}

/// Where the gradients of [`Affine`] go.
#[derive(Debug)]
pub struct AffineGradient<'a> {
    /// That of the weight.
    pub weight: &'a mut [f32],
    /// That of the bias, if there is one.
    pub bias: Option<&'a mut [f32]>,
}

/// What a backward pass knows of the forward pass.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Its input.
    pub input: &'a [f32],
    /// The statistics that it wrote.
    pub statistics: &'a [f32],
}

/// 1 / √(variance + eps).
#[inline(always)]
fn inverse_deviation(variance: f32, eps: f32) -> f32 {
    1.0 / (variance + eps).sqrt()
}
