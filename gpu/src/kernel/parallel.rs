//! Work on many items divided among threads, with the outputs that belong to them.
//!
//! Runs on rayon's pool, which `gemm` uses too, by halving: nothing is allocated. What an item gets
//! never depends on who computes it; [`sum`] adds in an order that follows from the number of items.

use std::ops::Range;

/// A thread is worth waking for this many values.
const VALUES_PER_THREAD: usize = 1 << 13;

/// Outputs that are divided with the items they belong to.
pub(crate) trait Split: Sized + Send {
    /// Those of the first `items` items, for `threads` threads, and the rest.
    fn split(self, items: usize, threads: usize) -> (Self, Self);
}

/// `width` values an item; the last item may have fewer.
pub(crate) struct Rows<'a, T> {
    pub(crate) values: &'a mut [T],
    pub(super) width: usize,
}

impl<'a, T> Rows<'a, T> {
    pub(crate) fn new(values: &'a mut [T], width: usize) -> Self {
        Self { values, width }
    }
}

impl<T: Send> Split for Rows<'_, T> {
    fn split(self, items: usize, _threads: usize) -> (Self, Self) {
        let middle = (items * self.width).min(self.values.len());
        let (left, right) = self.values.split_at_mut(middle);
        (Self::new(left, self.width), Self::new(right, self.width))
    }
}

/// `width` values a thread, whatever its items.
pub(super) struct Scratch<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) width: usize,
}

impl<'a> Scratch<'a> {
    pub(super) fn new(values: &'a mut [f32], width: usize) -> Self {
        Self { values, width }
    }
}

/// As much of the scratch as is needed.
pub(super) fn lend(scratch: &mut [f32], needed: usize) -> &mut [f32] {
    assert!(
        scratch.len() >= needed,
        "there is the scratch that was asked for"
    );
    &mut scratch[..needed]
}

impl Split for Scratch<'_> {
    fn split(self, _items: usize, threads: usize) -> (Self, Self) {
        let (left, right) = self.values.split_at_mut(threads * self.width);
        (Self::new(left, self.width), Self::new(right, self.width))
    }
}

impl Split for () {
    fn split(self, _items: usize, _threads: usize) -> (Self, Self) {
        ((), ())
    }
}

impl<A: Split, B: Split> Split for (A, B) {
    fn split(self, items: usize, threads: usize) -> (Self, Self) {
        let (a, b) = (self.0.split(items, threads), self.1.split(items, threads));
        ((a.0, b.0), (a.1, b.1))
    }
}

impl<A: Split, B: Split, C: Split> Split for (A, B, C) {
    fn split(self, items: usize, threads: usize) -> (Self, Self) {
        let (a, b, c) = (
            self.0.split(items, threads),
            self.1.split(items, threads),
            self.2.split(items, threads),
        );
        ((a.0, b.0, c.0), (a.1, b.1, c.1))
    }
}

/// As many of these threads as are worth waking for so many values.
pub(super) fn worth(threads: usize, values: usize) -> usize {
    threads.min(values / VALUES_PER_THREAD).max(1)
}

/// Calls `work` for ranges that together are `0..items`, each with its part of the outputs, on at
/// most `threads` threads.
pub(crate) fn each<P: Split>(
    threads: usize,
    items: usize,
    parts: P,
    work: impl Fn(Range<usize>, P) + Sync,
) {
    divide(threads, 0..items, parts, &work);
}

fn divide<P: Split>(
    threads: usize,
    items: Range<usize>,
    parts: P,
    work: &(impl Fn(Range<usize>, P) + Sync),
) {
    let len = items.len();
    if threads <= 1 || len <= 1 {
        return work(items, parts);
    }
    let left_threads = threads / 2;
    let left_items = (len * left_threads).div_ceil(threads);
    let middle = items.start + left_items;
    let (left, right) = parts.split(left_items, left_threads);
    rayon::join(
        || divide(left_threads, items.start..middle, left, work),
        || divide(threads - left_threads, middle..items.end, right, work),
    );
}

/// The sum of `work` over ranges of at most `most` items, each with its part of the outputs. Items
/// are halved until they are so few, whatever the number of threads, and halves are added.
pub(super) fn sum<P: Split>(
    threads: usize,
    items: usize,
    most: usize,
    parts: P,
    work: impl Fn(Range<usize>, P) -> f64 + Sync,
) -> f64 {
    sum_range(threads, 0..items, most.max(1), parts, &work)
}

fn sum_range<P: Split>(
    threads: usize,
    items: Range<usize>,
    most: usize,
    parts: P,
    work: &(impl Fn(Range<usize>, P) -> f64 + Sync),
) -> f64 {
    let len = items.len();
    if len <= most {
        return work(items, parts);
    }
    let middle = items.start + len / 2;
    let left_threads = (threads / 2).max(1);
    let right_threads = (threads - threads / 2).max(1);
    let (left, right) = parts.split(len / 2, left_threads);
    let left = || sum_range(left_threads, items.start..middle, most, left, work);
    let right = || sum_range(right_threads, middle..items.end, most, right, work);
    let (left, right) = match threads {
        0 | 1 => (left(), right()),
        _ => rayon::join(left, right),
    };
    left + right
}

/// Items taken together where a sum over them is to have an order that does not depend on threads.
#[derive(Clone, Copy)]
pub(super) struct Chunks {
    items: usize,
    size: usize,
}

impl Chunks {
    /// At most `most` chunks of equal size, the last one perhaps smaller.
    pub(super) fn new(items: usize, most: usize) -> Self {
        let size = items.div_ceil(most.max(1)).max(1);
        Self { items, size }
    }

    /// Number of chunks.
    pub(super) fn count(&self) -> usize {
        self.items.div_ceil(self.size)
    }

    /// The items of a chunk.
    pub(super) fn items(&self, chunk: usize) -> Range<usize> {
        chunk * self.size..((chunk + 1) * self.size).min(self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_visited_once_with_its_own_part() {
        for (items, threads) in [(0, 2), (1, 7), (2, 7), (5, 3), (100, 7), (64, 2)] {
            let mut out = vec![0usize; items * 3];
            each(threads, items, Rows::new(&mut out, 3), |range, rows| {
                assert_eq!(rows.values.len(), range.len() * 3);
                for (item, row) in range.zip(rows.values.chunks_mut(3)) {
                    row.iter_mut().for_each(|v| *v += item + 1);
                }
            });
            assert!(out.iter().enumerate().all(|(i, v)| *v == i / 3 + 1));
        }
    }

    #[test]
    fn threads_do_not_share_scratch() {
        for threads in [1, 2, 3, 7] {
            let mut scratch = vec![0f32; threads * 2];
            let parts = Scratch::new(&mut scratch, 2);
            each(threads, 100, parts, |range, scratch| {
                assert!(scratch.values.len() >= 2);
                scratch.values[0] += range.len() as f32;
            });
            assert_eq!(scratch.iter().sum::<f32>(), 100.0);
        }
    }

    #[test]
    fn a_sum_has_one_order() {
        let run = |threads| {
            sum(threads, 1000, 7, (), |items, ()| {
                items.map(|i| 1.0 / (i as f64 + 1.0)).sum()
            })
        };
        assert!((run(1) - 7.485_470_860_550_345).abs() < 1e-12);
        for threads in [2, 3, 7] {
            assert_eq!(run(threads).to_bits(), run(1).to_bits());
        }
    }

    #[test]
    fn chunks_are_a_partition() {
        for (items, most) in [(1, 16), (16, 16), (17, 16), (100, 16), (5, 1)] {
            let chunks = Chunks::new(items, most);
            assert!(chunks.count() <= most);
            let all: Vec<usize> = (0..chunks.count()).flat_map(|c| chunks.items(c)).collect();
            assert_eq!(all, (0..items).collect::<Vec<_>>());
        }
    }
}
