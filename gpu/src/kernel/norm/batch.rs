//! Batch norm (Ioffe and Szegedy, 2015): each channel normalised over batch and pixels. Images have
//! some pixels a channel, rows one.
//!
//! In training a batch's own statistics are taken, and running ones follow them ([`moments`]); in
//! evaluation the running ones are taken. With n the normalised values and d = 1 / deviation, the
//! gradient by the input is weight · d · (g − mean(g) − n · mean(g · n)) over a channel.

use std::ops::Range;

use super::{Affine, AffineGradient, Seen, inverse_deviation};
use crate::kernel::lanes::{self, on_vectors};
use crate::kernel::parallel::{Rows, each, worth};
use crate::product::Update;

/// Statistics of a channel: mean, inverse deviation and variance as the running one follows it.
const STATISTICS: usize = 3;

/// The shape of a batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// Channels.
    pub channels: usize,
    /// Values of a channel in one sample: height times width of an image, 1 of a row.
    pub pixels: usize,
    /// Added to the variance.
    pub eps: f32,
}

/// Statistics over many batches, one a channel; they start as mean 0, variance 1.
#[derive(Debug)]
pub struct Running<T> {
    /// Means.
    pub mean: T,
    /// Variances.
    pub variance: T,
}

impl BatchNorm {
    /// Values of a batch's statistics.
    pub fn statistics(&self) -> usize {
        self.channels * STATISTICS
    }

    fn image(&self) -> usize {
        self.channels * self.pixels
    }

    fn check(&self, input: &[f32], output: &[f32], weight: &[f32]) {
        assert!(self.image() > 0, "an image has values");
        assert_eq!(input.len() % self.image(), 0, "images are whole");
        assert_eq!(output.len(), input.len(), "an output for each input");
        assert_eq!(weight.len(), self.channels, "a weight for each channel");
    }

    /// The values of a channel, image by image.
    fn planes<'a>(
        &self,
        values: &'a [f32],
        channel: usize,
    ) -> impl Iterator<Item = &'a [f32]> + Clone + use<'a> {
        let plane = channel * self.pixels..(channel + 1) * self.pixels;
        let images = values.chunks_exact(self.image());
        images.map(move |image| &image[plane.clone()])
    }
}

/// Writes the batch normalised by its own statistics, and for each channel mean, inverse deviation
/// and unbiased variance to `statistics`.
pub fn forward(
    shape: &BatchNorm,
    input: &[f32],
    affine: Affine<'_>,
    output: &mut [f32],
    statistics: &mut [f32],
    threads: usize,
) {
    shape.check(input, output, affine.weight);
    assert_eq!(
        statistics.len(),
        shape.statistics(),
        "three statistics a channel"
    );
    let wanted = worth(threads, input.len());
    let parts = Rows::new(&mut *statistics, STATISTICS);
    each(wanted, shape.channels, parts, |range, statistics| {
        let (statistics, _) = statistics.values.as_chunks_mut::<STATISTICS>();
        let channels = range.zip(statistics);
        on_vectors(
            channels,
            #[inline(always)]
            |channels| {
                for (channel, s) in channels {
                    *s = channel_statistics(shape, input, channel);
                }
            },
        );
    });
    let (statistics, _) = statistics.as_chunks::<STATISTICS>();
    let of = |channel: usize| [statistics[channel][0], statistics[channel][1]];
    normalise(shape, input, affine, output, threads, of);
}

#[inline(always)]
fn channel_statistics(shape: &BatchNorm, input: &[f32], channel: usize) -> [f32; STATISTICS] {
    let planes = shape.planes(input, channel);
    let count = (input.len() / shape.channels) as f64;
    let sums = planes
        .clone()
        .map(|plane| f64::from(lanes::sum(plane, |x| x)));
    let mean = (sums.sum::<f64>() / count) as f32;
    let squares = planes.map(|plane| {
        let squares = lanes::sum(plane, |x| (x - mean) * (x - mean));
        f64::from(squares)
    });
    let squares = squares.sum::<f64>();
    let variance = (squares / count) as f32;
    // Of one value there is none, see `moments`.
    let unbiased = (squares / (count - 1.0).max(1.0)) as f32;
    [mean, inverse_deviation(variance, shape.eps), unbiased]
}

/// Writes, or adds, a batch's means and unbiased variances times its samples: what running statistics
/// follow once it is summed over all parts of a batch and divided by their samples. One value a channel
/// has no unbiased variance: for such a part the running ones stay as they are.
pub fn moments(
    shape: &BatchNorm,
    statistics: &[f32],
    running: Running<&[f32]>,
    samples: usize,
    update: Update,
    sums: Running<&mut [f32]>,
) {
    assert_eq!(
        statistics.len(),
        shape.statistics(),
        "three statistics a channel"
    );
    assert_eq!(sums.mean.len(), shape.channels, "a mean for each channel");
    assert_eq!(sums.variance.len(), shape.channels, "a variance, too");
    let (statistics, _) = statistics.as_chunks::<STATISTICS>();
    let weight = samples as f32;
    let is_one_value = samples * shape.pixels == 1;
    let sums = sums.mean.iter_mut().zip(sums.variance);
    for (channel, (mean, variance)) in sums.enumerate() {
        let [of_mean, _, of_variance] = statistics[channel];
        let (of_mean, of_variance) = match is_one_value {
            true => (running.mean[channel], running.variance[channel]),
            false => (of_mean, of_variance),
        };
        if update == Update::Replace {
            (*mean, *variance) = (0.0, 0.0);
        }
        *mean += of_mean * weight;
        *variance += of_variance * weight;
    }
}

/// Writes the batch normalised by the running statistics: evaluation.
pub fn evaluate(
    shape: &BatchNorm,
    input: &[f32],
    affine: Affine<'_>,
    running: Running<&[f32]>,
    output: &mut [f32],
    threads: usize,
) {
    shape.check(input, output, affine.weight);
    assert_eq!(
        running.mean.len(),
        shape.channels,
        "a mean for each channel"
    );
    assert_eq!(running.variance.len(), shape.channels, "a variance, too");
    let of = |channel: usize| {
        let deviation = inverse_deviation(running.variance[channel], shape.eps);
        [running.mean[channel], deviation]
    };
    normalise(shape, input, affine, output, threads, of);
}

/// Normalises by the mean and inverse deviation `of` each channel.
fn normalise(
    shape: &BatchNorm,
    input: &[f32],
    affine: Affine<'_>,
    output: &mut [f32],
    threads: usize,
    of: impl Fn(usize) -> [f32; 2] + Sync,
) {
    let bias = affine.bias.inspect(|bias| {
        assert_eq!(bias.len(), shape.channels, "a bias for each channel");
    });
    each_plane(
        shape,
        output,
        threads,
        #[inline(always)]
        |channel, values, output| {
            let [mean, inverse] = of(channel);
            let weight = affine.weight[channel];
            let bias = bias.map_or(0.0, |bias| bias[channel]);
            let pairs = output.iter_mut().zip(&input[values]);
            pairs.for_each(|(y, x)| *y = (x - mean) * inverse * weight + bias);
        },
    );
}

/// Calls `work` with each plane of `output`, its channel and its place.
fn each_plane(
    shape: &BatchNorm,
    output: &mut [f32],
    threads: usize,
    work: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
) {
    let pixels = shape.pixels;
    let threads = worth(threads, output.len());
    each(
        threads,
        output.len() / pixels,
        Rows::new(output, pixels),
        |range, output| {
            on_vectors(
                range.zip(output.values.chunks_exact_mut(pixels)),
                #[inline(always)]
                |planes| {
                    for (plane, output) in planes {
                        let values = plane * pixels..(plane + 1) * pixels;
                        work(plane % shape.channels, values, output);
                    }
                },
            );
        },
    );
}

/// Writes or adds the gradients by weight and bias, the sums of g · n and of g over each channel;
/// `sums` receives them as [`input_gradient`] needs them: two values a channel.
pub fn weight_gradient(
    shape: &BatchNorm,
    seen: Seen<'_>,
    upper: &[f32],
    gradient: AffineGradient<'_>,
    update: Update,
    sums: &mut [f32],
    threads: usize,
) {
    shape.check(seen.input, upper, gradient.weight);
    assert_eq!(sums.len(), 2 * shape.channels, "two sums a channel");
    let statistics = statistics(shape, seen);
    let wanted = worth(threads, upper.len());
    each(
        wanted,
        shape.channels,
        Rows::new(&mut *sums, 2),
        |range, sums| {
            let (sums, _) = sums.values.as_chunks_mut::<2>();
            on_vectors(
                range.zip(sums),
                #[inline(always)]
                |channels| {
                    for (channel, sums) in channels {
                        *sums =
                            channel_sums(shape, seen.input, statistics[channel], upper, channel);
                    }
                },
            );
        },
    );
    let (sums, _) = sums.as_chunks::<2>();
    put(sums.iter().map(|sum| sum[0]), gradient.weight, update);
    if let Some(bias) = gradient.bias {
        assert_eq!(bias.len(), shape.channels, "a bias for each channel");
        put(sums.iter().map(|sum| sum[1]), bias, update);
    }
}

fn put(sums: impl Iterator<Item = f32>, gradient: &mut [f32], update: Update) {
    for (gradient, sum) in gradient.iter_mut().zip(sums) {
        *gradient = match update {
            Update::Replace => sum,
            Update::Add => *gradient + sum,
        };
    }
}

#[inline(always)]
fn channel_sums(
    shape: &BatchNorm,
    input: &[f32],
    [mean, inverse, _]: [f32; STATISTICS],
    upper: &[f32],
    channel: usize,
) -> [f32; 2] {
    let planes = shape
        .planes(input, channel)
        .zip(shape.planes(upper, channel));
    let (mut along, mut level) = (0.0, 0.0);
    for (x, g) in planes {
        along += f64::from(lanes::sum_pairs(x, g, |x, g| g * ((x - mean) * inverse)));
        level += f64::from(lanes::sum(g, |g| g));
    }
    [along as f32, level as f32]
}

/// Writes the gradient by the input. `sums` are those of [`weight_gradient`].
pub fn input_gradient(
    shape: &BatchNorm,
    seen: Seen<'_>,
    weight: &[f32],
    sums: &[f32],
    upper: &[f32],
    lower: &mut [f32],
    threads: usize,
) {
    shape.check(seen.input, upper, weight);
    assert_eq!(lower.len(), upper.len(), "a gradient for each input");
    assert_eq!(sums.len(), 2 * shape.channels, "two sums a channel");
    let statistics = statistics(shape, seen);
    let (sums, _) = sums.as_chunks::<2>();
    let share = 1.0 / (upper.len() / shape.channels).max(1) as f32;
    each_plane(
        shape,
        lower,
        threads,
        #[inline(always)]
        |channel, values, lower| {
            let [mean, inverse, _] = statistics[channel];
            let [along, level] = sums[channel].map(|sum| sum * share);
            let scale = weight[channel] * inverse;
            let pairs = seen.input[values.clone()].iter().zip(&upper[values]);
            let values = lower.iter_mut().zip(pairs);
            values.for_each(|(l, (x, g))| *l = scale * (g - level - (x - mean) * inverse * along));
        },
    );
}

fn statistics<'a>(shape: &BatchNorm, seen: Seen<'a>) -> &'a [[f32; STATISTICS]] {
    assert_eq!(
        seen.statistics.len(),
        shape.statistics(),
        "three statistics a channel"
    );
    seen.statistics.as_chunks().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, gradient, same_bits, twice, values, wide};

    fn channel_of(shape: &BatchNorm, index: usize) -> usize {
        index / shape.pixels % shape.channels
    }

    /// Mean and biased variance of each channel.
    fn moments(shape: &BatchNorm, input: &[f64]) -> Vec<(f64, f64)> {
        let of = |channel| {
            let inside = |(i, x): (usize, &f64)| (channel_of(shape, i) == channel).then_some(*x);
            let x: Vec<f64> = input.iter().enumerate().filter_map(inside).collect();
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let squares = x.iter().map(|x| (x - mean).powi(2));
            (mean, squares.sum::<f64>() / x.len() as f64)
        };
        (0..shape.channels).map(of).collect()
    }

    fn exact(
        shape: &BatchNorm,
        input: &[f64],
        weight: &[f64],
        bias: &[f64],
        moments: &[(f64, f64)],
    ) -> Vec<f64> {
        let value = |(i, x): (usize, &f64)| {
            let c = channel_of(shape, i);
            let (mean, variance) = moments[c];
            (x - mean) / (variance + f64::from(shape.eps)).sqrt() * weight[c] + bias[c]
        };
        input.iter().enumerate().map(value).collect()
    }

    struct Case {
        input: Vec<f32>,
        weight: Vec<f32>,
        bias: Vec<f32>,
        upper: Vec<f32>,
    }

    fn case(shape: &BatchNorm, batch: usize) -> Case {
        let len = batch * shape.image();
        Case {
            input: values("x", len).iter().map(|x| x + 0.5).collect(),
            weight: values("w", shape.channels),
            bias: values("b", shape.channels),
            upper: values("g", len),
        }
    }

    /// Output, statistics, and the gradients by input, weight and bias, these two added twice.
    fn run(shape: &BatchNorm, case: &Case, threads: usize) -> [Vec<f32>; 5] {
        let (mut output, mut lower) = (
            vec![f32::NAN; case.input.len()],
            vec![f32::NAN; case.input.len()],
        );
        let mut statistics = vec![f32::NAN; shape.statistics()];
        let affine = Affine {
            weight: &case.weight,
            bias: Some(&case.bias),
        };
        forward(
            shape,
            &case.input,
            affine,
            &mut output,
            &mut statistics,
            threads,
        );
        let seen = Seen {
            input: &case.input,
            statistics: &statistics,
        };
        let nan = vec![f32::NAN; shape.channels];
        let (mut by_weight, mut by_bias, mut sums) = (nan.clone(), nan.clone(), nan.repeat(2));
        for update in [Update::Replace, Update::Add] {
            let gradient = AffineGradient {
                weight: &mut by_weight,
                bias: Some(&mut by_bias),
            };
            weight_gradient(
                shape,
                seen,
                &case.upper,
                gradient,
                update,
                &mut sums,
                threads,
            );
        }
        input_gradient(
            shape,
            seen,
            &case.weight,
            &sums,
            &case.upper,
            &mut lower,
            threads,
        );
        [output, statistics, lower, by_weight, by_bias]
    }

    #[test]
    fn batch_norm_and_its_gradients_are_those_of_the_definition() {
        for (batch, channels, pixels) in [(1, 1, 1), (5, 3, 1), (2, 3, 7), (4, 1, 49), (3, 2, 20)] {
            let shape = BatchNorm {
                channels,
                pixels,
                eps: 1e-2,
            };
            let case = case(&shape, batch);
            let (x, w, b) = (wide(&case.input), wide(&case.weight), wide(&case.bias));
            let [output, statistics, lower, by_weight, by_bias] = run(&shape, &case, 1);
            let (m, n) = (moments(&shape, &x), (batch * pixels) as f64);
            assert_close(&output, &exact(&shape, &x, &w, &b, &m), 1e-5);
            let want = gradient(&case.input, &case.upper, |x| {
                exact(&shape, x, &w, &b, &moments(&shape, x))
            });
            assert_close(&lower, &want, 2e-5);
            let want = gradient(&case.weight, &case.upper, |w| exact(&shape, &x, w, &b, &m));
            assert_close(&by_weight, &twice(&want), 1e-5);
            let want = gradient(&case.bias, &case.upper, |b| exact(&shape, &x, &w, b, &m));
            assert_close(&by_bias, &twice(&want), 1e-5);

            let (before_mean, before_variance) = (vec![0.3; channels], vec![0.7; channels]);
            let (mut mean, mut variance) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
            for update in [Update::Replace, Update::Add] {
                let sums = Running {
                    mean: &mut mean[..],
                    variance: &mut variance[..],
                };
                let running = Running {
                    mean: &before_mean[..],
                    variance: &before_variance[..],
                };
                super::moments(&shape, &statistics, running, batch, update, sums);
            }
            let weight = 2.0 * batch as f64;
            let of = |(mean, variance): &(f64, f64)| match n > 1.0 {
                true => (weight * mean, weight * variance * n / (n - 1.0)),
                false => (weight * 0.3, weight * 0.7),
            };
            let (of_mean, of_variance): (Vec<f64>, Vec<f64>) = m.iter().map(of).unzip();
            assert_close(&mean, &of_mean, 1e-5);
            assert_close(&variance, &of_variance, 1e-5);
            let mut output = vec![f32::NAN; x.len()];
            let affine = Affine {
                weight: &case.weight,
                bias: Some(&case.bias),
            };
            let running = Running {
                mean: &mean[..],
                variance: &variance[..],
            };
            evaluate(&shape, &case.input, affine, running, &mut output, 1);
            let pairs = mean.iter().zip(&variance);
            let m: Vec<_> = pairs.map(|(m, v)| (f64::from(*m), f64::from(*v))).collect();
            assert_close(&output, &exact(&shape, &x, &w, &b, &m), 1e-5);
        }
    }

    #[test]
    fn batch_norm_has_the_same_bits_on_any_number_of_threads() {
        for (batch, channels, pixels) in [(64, 31, 49), (1031, 96, 1)] {
            let shape = BatchNorm {
                channels,
                pixels,
                eps: 1e-5,
            };
            let case = case(&shape, batch);
            same_bits(|threads| run(&shape, &case, threads).concat());
            same_bits(|threads| {
                let mut output = vec![f32::NAN; case.input.len()];
                let affine = Affine {
                    weight: &case.weight,
                    bias: None,
                };
                let (mean, variance) = (vec![0.5f32; channels], vec![2.0f32; channels]);
                let running = Running {
                    mean: &mean[..],
                    variance: &variance[..],
                };
                evaluate(&shape, &case.input, affine, running, &mut output, threads);
                output
            });
        }
    }
}
