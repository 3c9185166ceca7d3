//! Multi-head self-attention on a packed (batch, tokens, 3 · width) of queries, keys and values, in
//! this order, each divided among the heads (Vaswani et al., 2017).
//!
//! A head's scores are computed for some queries at a time, and only with the keys that these see.
//! They are not kept: the forward pass saves each row's largest score and the inverse of its sum, by
//! which the backward pass computes the probabilities again (Dao et al., 2022). Heads are divided
//! among threads; what they give is gathered in a second pass.

use std::ops::Range;

use super::Update;
use super::lanes::{self, on_vectors};
use super::parallel::{Rows, Scratch, each, lend, worth};
use super::softmax::exponentials;
use crate::product::{Matrix, Place, multiply_into};

/// Queries whose scores are computed at a time.
const TILE_QUERIES: usize = 64;
/// What is saved of a row of scores: the largest, and the inverse of the sum of the exponentials.
const STATISTICS: usize = 2;

/// The shape of a self-attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Values of a query, key or value of one head.
    pub head_width: usize,
    /// A token sees itself and those before it only.
    pub causal: bool,
}

impl Attention {
    /// Values of a token of the output: those of all heads.
    pub fn width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Values that [`forward`] saves.
    pub fn statistics(&self, batch: usize) -> usize {
        batch * self.heads * self.tokens * STATISTICS
    }

    /// Values of a head's output for one sequence.
    fn head(&self) -> usize {
        self.tokens * self.head_width
    }

    /// Values of a tile of scores.
    fn tile(&self) -> usize {
        TILE_QUERIES.min(self.tokens) * self.tokens
    }

    fn tiles(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let tokens = self.tokens;
        let starts = (0..tokens).step_by(TILE_QUERIES);
        starts.map(move |start| start..(start + TILE_QUERIES).min(tokens))
    }

    /// How many keys these queries, or some of them, see.
    fn keys(&self, queries: &Range<usize>) -> usize {
        match self.causal {
            true => queries.end,
            false => self.tokens,
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    /// Number of sequences in `qkv`, once it and `output` are as long as the shape says.
    fn batch(&self, qkv: &[f32], output: &[f32]) -> usize {
        let sequence = self.tokens * self.width();
        assert!(sequence > 0, "a sequence has values");
        assert_eq!(output.len() % sequence, 0, "sequences are whole");
        assert_eq!(
            qkv.len(),
            3 * output.len(),
            "query, key and value for each output"
        );
        output.len() / sequence
    }
}

/// One head's part of a sequence: queries, keys and values where they lie.
struct Head<'a> {
    shape: &'a Attention,
    /// The sequence, from the head's first query on.
    values: &'a [f32],
}

impl<'a> Head<'a> {
    /// The head with this number, counted through the whole batch.
    fn new(shape: &'a Attention, qkv: &'a [f32], index: usize) -> Self {
        let sequence = 3 * shape.tokens * shape.width();
        let start = index / shape.heads * sequence;
        let column = index % shape.heads * shape.head_width;
        Self {
            shape,
            values: &qkv[start + column..start + sequence],
        }
    }

    /// Rows of queries (part 0), keys (1) or values (2).
    fn part(&self, part: usize, tokens: Range<usize>) -> Matrix<'a> {
        let (width, distance) = (self.shape.width(), 3 * self.shape.width());
        let start = tokens.start * distance + part * width;
        let columns = self.shape.head_width;
        Matrix::spaced(&self.values[start..], tokens.len(), columns, distance)
    }

    /// The scores of these queries with all keys that one of them sees, not yet scaled.
    fn scores<'s>(&self, queries: &Range<usize>, scratch: &'s mut [f32]) -> &'s mut [f32] {
        let keys = self.shape.keys(queries);
        let scores = &mut scratch[..queries.len() * keys];
        let (q, k) = (self.part(0, queries.clone()), self.part(1, 0..keys));
        put(
            scores,
            Update::Replace,
            (queries.len(), keys),
            q,
            k.transposed(),
        );
        scores
    }
}

/// A product on the calling thread, without gaps between the rows.
fn put(
    out: &mut [f32],
    update: Update,
    (rows, columns): (usize, usize),
    a: Matrix<'_>,
    b: Matrix<'_>,
) {
    multiply_into(Place::spaced(out, rows, columns, columns), update, a, b, 1);
}

/// Values of scratch that [`forward`] needs.
pub fn forward_scratch(shape: &Attention, batch: usize, threads: usize) -> usize {
    batch * shape.heads * shape.head() + threads.max(1) * shape.tile()
}

/// Writes (batch, tokens, width): for each token the mean of the values that its head's query sees,
/// weighed by softmax(query · key / √head width). `statistics` are for the backward pass.
pub fn forward(
    shape: &Attention,
    qkv: &[f32],
    output: &mut [f32],
    statistics: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let batch = shape.batch(qkv, output);
    assert_eq!(
        statistics.len(),
        shape.statistics(batch),
        "two statistics a row"
    );
    let heads = batch * shape.heads;
    let scratch = lend(scratch, forward_scratch(shape, batch, threads));
    let (head_outputs, scratch) = scratch.split_at_mut(heads * shape.head());
    let parts = (
        Rows::new(&mut *head_outputs, shape.head()),
        Rows::new(statistics, shape.tokens * STATISTICS),
        Scratch::new(scratch, shape.tile()),
    );
    each(
        threads,
        heads,
        parts,
        |range, (outputs, statistics, scratch)| {
            let statistics = statistics
                .values
                .chunks_exact_mut(shape.tokens * STATISTICS);
            let outputs = outputs.values.chunks_exact_mut(shape.head());
            for (index, (output, statistics)) in range.zip(outputs.zip(statistics)) {
                let head = Head::new(shape, qkv, index);
                head_forward(&head, output, statistics, scratch.values);
            }
        },
    );
    gather(shape, 1, head_outputs, output, threads);
}

fn head_forward(head: &Head<'_>, output: &mut [f32], statistics: &mut [f32], scratch: &mut [f32]) {
    let (shape, width) = (head.shape, head.shape.head_width);
    let (statistics, _) = statistics.as_chunks_mut::<STATISTICS>();
    for queries in shape.tiles() {
        let (keys, statistics) = (shape.keys(&queries), &mut statistics[queries.clone()]);
        let scores = head.scores(&queries, scratch);
        on_vectors(
            (&mut *scores, &mut *statistics),
            #[inline(always)]
            |(scores, statistics)| weigh(shape, queries.start, scores, keys, statistics),
        );
        let output = &mut output[queries.start * width..queries.end * width];
        let weights = Matrix::new(scores, queries.len(), keys);
        let values = head.part(2, 0..keys);
        put(
            output,
            Update::Replace,
            (queries.len(), width),
            weights,
            values,
        );
        for (row, [_, inverse]) in output.chunks_exact_mut(width).zip(statistics) {
            row.iter_mut().for_each(|v| *v *= *inverse);
        }
    }
}

/// Scores to exponentials, 0 for the keys that a query does not see, with each row's statistics.
/// Rows are computed whole: the few values that do not fill a vector cost more than those unseen.
#[inline(always)]
fn weigh(
    shape: &Attention,
    first: usize,
    scores: &mut [f32],
    keys: usize,
    statistics: &mut [[f32; STATISTICS]],
) {
    let rows = scores.chunks_exact_mut(keys).zip(statistics);
    for (query, (row, statistics)) in (first..).zip(rows) {
        let seen = shape.keys(&(query..query + 1));
        let largest = lanes::largest(&row[..seen]);
        exponentials(row, largest, shape.scale());
        row[seen..].fill(0.0);
        *statistics = [largest, 1.0 / lanes::sum(row, |v| v)];
    }
}

/// Values of scratch that [`backward`] needs.
pub fn backward_scratch(shape: &Attention, batch: usize, threads: usize) -> usize {
    3 * batch * shape.heads * shape.head() + 2 * threads.max(1) * shape.tile()
}

/// Writes the gradient by `qkv`.
pub fn backward(
    shape: &Attention,
    qkv: &[f32],
    statistics: &[f32],
    upper: &[f32],
    lower: &mut [f32],
    scratch: &mut [f32],
    threads: usize,
) {
    let batch = shape.batch(qkv, upper);
    assert_eq!(
        statistics.len(),
        shape.statistics(batch),
        "two statistics a row"
    );
    assert_eq!(lower.len(), qkv.len(), "a gradient for each input");
    let heads = batch * shape.heads;
    let scratch = lend(scratch, backward_scratch(shape, batch, threads));
    let (gradients, scratch) = scratch.split_at_mut(3 * heads * shape.head());
    let parts = (
        Rows::new(&mut *gradients, 3 * shape.head()),
        Scratch::new(scratch, 2 * shape.tile()),
    );
    let (statistics, _) = statistics.as_chunks::<STATISTICS>();
    each(threads, heads, parts, |range, (gradients, scratch)| {
        let gradients = gradients.values.chunks_exact_mut(3 * shape.head());
        for (index, gradients) in range.zip(gradients) {
            let head = Head::new(shape, qkv, index);
            let statistics = &statistics[index * shape.tokens..(index + 1) * shape.tokens];
            let start = index / shape.heads * shape.tokens * shape.width();
            let upper = &upper[start + index % shape.heads * shape.head_width..];
            head_backward(&head, statistics, upper, gradients, scratch.values);
        }
    });
    gather(shape, 3, gradients, lower, threads);
}

/// With P the probabilities, S the scores and dO the gradient by the output: dV = Pᵀ·dO, dP =
/// dO·Vᵀ, dS = P ∘ (dP − the row's sum of P ∘ dP) · scale, dQ = dS·K, dK = dSᵀ·Q.
fn head_backward(
    head: &Head<'_>,
    statistics: &[[f32; STATISTICS]],
    upper: &[f32],
    gradients: &mut [f32],
    scratch: &mut [f32],
) {
    let (shape, width) = (head.shape, head.shape.head_width);
    let (by_query, others) = gradients.split_at_mut(shape.head());
    let (by_key, by_value) = others.split_at_mut(shape.head());
    let (scratch, other_scratch) = scratch.split_at_mut(shape.tile());
    by_key.fill(0.0);
    by_value.fill(0.0);
    for queries in shape.tiles() {
        let (rows, keys) = (queries.len(), shape.keys(&queries));
        let statistics = &statistics[queries.clone()];
        let upper = &upper[queries.start * shape.width()..];
        let upper = Matrix::spaced(upper, rows, width, shape.width());
        let weights = head.scores(&queries, scratch);
        on_vectors(
            &mut *weights,
            #[inline(always)]
            |weights| weigh_again(shape, queries.start, weights, keys, statistics),
        );
        let weights = &*weights;
        let matrix = Matrix::new(weights, rows, keys).transposed();
        put(
            &mut by_value[..keys * width],
            Update::Add,
            (keys, width),
            matrix,
            upper,
        );

        let slopes = &mut other_scratch[..rows * keys];
        let values = head.part(2, 0..keys).transposed();
        put(slopes, Update::Replace, (rows, keys), upper, values);
        on_vectors(
            &mut *slopes,
            #[inline(always)]
            |slopes| softmax_gradient(shape, weights, slopes, keys),
        );
        let slopes = Matrix::new(slopes, rows, keys);
        let place = &mut by_query[queries.start * width..queries.end * width];
        put(
            place,
            Update::Replace,
            (rows, width),
            slopes,
            head.part(1, 0..keys),
        );
        let place = &mut by_key[..keys * width];
        put(
            place,
            Update::Add,
            (keys, width),
            slopes.transposed(),
            head.part(0, queries),
        );
    }
}

/// Scores to probabilities, by what the forward pass saved.
#[inline(always)]
fn weigh_again(
    shape: &Attention,
    first: usize,
    scores: &mut [f32],
    keys: usize,
    statistics: &[[f32; STATISTICS]],
) {
    let rows = scores.chunks_exact_mut(keys).zip(statistics);
    for (query, (row, [largest, inverse])) in (first..).zip(rows) {
        exponentials(row, *largest, shape.scale());
        row.iter_mut().for_each(|v| *v *= inverse);
        row[shape.keys(&(query..query + 1))..].fill(0.0);
    }
}

/// Gradients by the probabilities to gradients by the scores before they were scaled. Where a
/// probability is 0, so is what comes of it.
#[inline(always)]
fn softmax_gradient(shape: &Attention, weights: &[f32], slopes: &mut [f32], keys: usize) {
    let scale = shape.scale();
    let rows = weights.chunks_exact(keys);
    for (weights, slopes) in rows.zip(slopes.chunks_exact_mut(keys)) {
        let mean = lanes::sum_pairs(weights, slopes, |p, g| p * g);
        let pairs = slopes.iter_mut().zip(weights);
        pairs.for_each(|(g, p)| *g = p * (*g - mean) * scale);
    }
}

/// From (batch, heads, parts, tokens, head width) to (batch, tokens, parts, heads, head width).
fn gather(shape: &Attention, parts: usize, heads: &[f32], output: &mut [f32], threads: usize) {
    let (width, row) = (shape.head_width, parts * shape.width());
    let rows = output.len() / row;
    let threads = worth(threads, output.len());
    each(threads, rows, Rows::new(output, row), |range, output| {
        for (index, row) in range.zip(output.values.chunks_exact_mut(row)) {
            let (sequence, token) = (index / shape.tokens, index % shape.tokens);
            for (place, values) in row.chunks_exact_mut(width).enumerate() {
                let (part, head) = (place / shape.heads, place % shape.heads);
                let block = (sequence * shape.heads + head) * parts + part;
                let start = block * shape.head() + token * width;
                values.copy_from_slice(&heads[start..start + width]);
            }
        }
    });
}

#[cfg(test)]
mod tests;
