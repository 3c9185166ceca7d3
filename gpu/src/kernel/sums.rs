//! Sums over a batch: gradients of what is added to every row (a bias of a linear layer) or to every
//! value of a channel (a bias of a convolution).

use super::Update;
use super::lanes::{self, on_vectors};
use super::parallel::{Chunks, Rows, each, lend, worth};

/// Most parts in which rows are summed apart.
const MAX_CHUNKS: usize = 32;

/// The chunks in which gradients of a vector are summed over rows.
pub(super) fn row_chunks(rows: usize) -> Chunks {
    Chunks::new(rows, MAX_CHUNKS)
}

/// Values of scratch that [`rows`] needs.
pub fn rows_scratch(rows: usize, width: usize) -> usize {
    row_chunks(rows).count() * width
}

/// The sum of the rows of `width` values, `width` being the length of `sums`.
pub fn rows(values: &[f32], sums: &mut [f32], update: Update, scratch: &mut [f32], threads: usize) {
    let width = sums.len();
    assert!(width > 0, "a row has values");
    assert_eq!(values.len() % width, 0, "rows are whole");
    let chunks = row_chunks(values.len() / width);
    let scratch = lend(scratch, chunks.count() * width);
    let threads = worth(threads, values.len());
    each(
        threads,
        chunks.count(),
        Rows::new(scratch, width),
        |range, parts| {
            for (chunk, part) in range.zip(parts.values.chunks_exact_mut(width)) {
                let items = chunks.items(chunk);
                let values = &values[items.start * width..items.end * width];
                on_vectors(
                    (values, part),
                    #[inline(always)]
                    |(values, part)| add_rows(values, part),
                );
            }
        },
    );
    fold(scratch, sums, update);
}

#[inline(always)]
fn add_rows(values: &[f32], sums: &mut [f32]) {
    sums.fill(0.0);
    for row in values.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
    }
}

/// Writes the sum of the parts, each as long as `sums`, or adds it. The first part is used up.
pub(super) fn fold(parts: &mut [f32], sums: &mut [f32], update: Update) {
    let width = sums.len();
    let (first, others) = parts.split_at_mut(width.min(parts.len()));
    for part in others.chunks_exact(width) {
        first.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
    }
    match update {
        Update::Replace => {
            sums.fill(0.0);
            sums[..first.len()].copy_from_slice(first);
        }
        Update::Add => sums.iter_mut().zip(first).for_each(|(sum, v)| *sum += *v),
    }
}

/// The sum over batch and `pixels` of each channel of `values` (batch, channels, pixels), the number
/// of channels being the length of `sums`.
pub fn channels(values: &[f32], pixels: usize, sums: &mut [f32], update: Update, threads: usize) {
    let image = sums.len() * pixels;
    assert!(image > 0, "an image has values");
    assert_eq!(values.len() % image, 0, "images are whole");
    let threads = worth(threads, values.len());
    each(threads, sums.len(), Rows::new(sums, 1), |range, sums| {
        on_vectors(
            range.zip(sums.values),
            #[inline(always)]
            |channels| {
                for (channel, sum) in channels {
                    let plane = |image: &[f32]| {
                        let values = &image[channel * pixels..(channel + 1) * pixels];
                        f64::from(lanes::sum(values, |v| v))
                    };
                    let total = values.chunks_exact(image).map(plane).sum::<f64>() as f32;
                    *sum = match update {
                        Update::Replace => total,
                        Update::Add => *sum + total,
                    };
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{assert_close, same_bits, twice, values};

    #[test]
    fn sums_agree_with_two_loops() {
        for (rows_, width) in [(1, 1), (3, 5), (33, 1), (100, 17), (2048, 64)] {
            let x = values("x", rows_ * width);
            let column = |c| (0..rows_).map(|r| f64::from(x[r * width + c])).sum::<f64>();
            let want: Vec<f64> = (0..width).map(column).collect();
            let mut scratch = vec![f32::NAN; rows_scratch(rows_, width)];
            let mut sums = vec![f32::NAN; width];
            rows(&x, &mut sums, Update::Replace, &mut scratch, 1);
            assert_close(&sums, &want, 1e-5);
            rows(&x, &mut sums, Update::Add, &mut scratch, 1);
            assert_close(&sums, &twice(&want), 1e-5);
        }
    }

    #[test]
    fn sums_of_channels_agree_with_three_loops() {
        for (batch, count, pixels) in [(1, 1, 1), (3, 2, 5), (4, 7, 49), (2, 3, 100)] {
            let x = values("x", batch * count * pixels);
            let at = |b: usize, c: usize, p: usize| f64::from(x[(b * count + c) * pixels + p]);
            let sum = |c| {
                (0..batch)
                    .flat_map(|b| (0..pixels).map(move |p| at(b, c, p)))
                    .sum()
            };
            let want: Vec<f64> = (0..count).map(sum).collect();
            let mut sums = vec![f32::NAN; count];
            channels(&x, pixels, &mut sums, Update::Replace, 1);
            assert_close(&sums, &want, 1e-5);
            channels(&x, pixels, &mut sums, Update::Add, 1);
            assert_close(&sums, &twice(&want), 1e-5);
        }
    }

    #[test]
    fn sums_have_the_same_bits_on_any_number_of_threads() {
        let x = values("x", 1031 * 96);
        same_bits(|threads| {
            let (mut sums, mut scratch) = (vec![0.0; 96], vec![0.0; rows_scratch(1031, 96)]);
            rows(&x, &mut sums, Update::Replace, &mut scratch, threads);
            sums
        });
        same_bits(|threads| {
            let mut sums = vec![0.0; 31];
            channels(&x[..64 * 31 * 48], 48, &mut sums, Update::Replace, threads);
            sums
        });
    }
}
