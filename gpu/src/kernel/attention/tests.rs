use proptest::prelude::*;

use super::*;
use crate::kernel::testing::{assert_close, gradient, same_bits, values, wide};

fn exact(shape: &Attention, qkv: &[f64]) -> Vec<f64> {
    let (tokens, width, d) = (shape.tokens, shape.width(), shape.head_width);
    let mut output = vec![0.0; qkv.len() / 3];
    for (sequence, out) in qkv
        .chunks(3 * tokens * width)
        .zip(output.chunks_mut(tokens * width))
    {
        let at = |part: usize, token: usize, column: usize| {
            sequence[token * 3 * width + part * width + column]
        };
        for (head, query) in (0..shape.heads).flat_map(|h| (0..tokens).map(move |q| (h, q))) {
            let columns = head * d..(head + 1) * d;
            let keys = if shape.causal { query + 1 } else { tokens };
            let score = |key: usize| -> f64 {
                let products = columns.clone().map(|c| at(0, query, c) * at(1, key, c));
                (products.sum::<f64>() / (d as f64).sqrt()).exp()
            };
            let scores: Vec<f64> = (0..keys).map(score).collect();
            let sum: f64 = scores.iter().sum();
            for c in columns.clone() {
                let weighed = scores
                    .iter()
                    .enumerate()
                    .map(|(key, s)| s / sum * at(2, key, c));
                out[query * width + c] = weighed.sum();
            }
        }
    }
    output
}

/// Output, and gradient for `upper`.
fn run(shape: &Attention, qkv: &[f32], upper: &[f32], threads: usize) -> (Vec<f32>, Vec<f32>) {
    let batch = upper.len() / (shape.tokens * shape.width());
    let mut output = vec![f32::NAN; upper.len()];
    let mut statistics = vec![f32::NAN; shape.statistics(batch)];
    let mut scratch = vec![f32::NAN; forward_scratch(shape, batch, threads)];
    forward(
        shape,
        qkv,
        &mut output,
        &mut statistics,
        &mut scratch,
        threads,
    );
    let mut lower = vec![f32::NAN; qkv.len()];
    let mut scratch = vec![f32::NAN; backward_scratch(shape, batch, threads)];
    backward(
        shape,
        qkv,
        &statistics,
        upper,
        &mut lower,
        &mut scratch,
        threads,
    );
    (output, lower)
}

fn check(batch: usize, shape: &Attention) {
    let len = batch * shape.tokens * shape.width();
    let qkv: Vec<f32> = values("qkv", 3 * len).iter().map(|v| v * 2.0).collect();
    let upper = values("g", len);
    let (output, lower) = run(shape, &qkv, &upper, 1);
    assert_close(&output, &exact(shape, &wide(&qkv)), 1e-5);
    assert_close(&lower, &gradient(&qkv, &upper, |x| exact(shape, x)), 1e-5);
}

#[test]
fn attention_and_its_gradient_are_those_of_the_definition() {
    let sizes = [(1, 1, 1, 1), (1, 7, 3, 1), (2, 20, 1, 4), (1, 67, 2, 2)];
    for (batch, tokens, heads, head_width) in sizes {
        for causal in [true, false] {
            let shape = Attention {
                tokens,
                heads,
                head_width,
                causal,
            };
            check(batch, &shape);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_attention_and_its_gradient_are_those_of_the_definition(
        batch in 1usize..3,
        tokens in 1usize..20,
        heads in 1usize..4,
        head_width in 1usize..6,
        causal: bool,
    ) {
        check(batch, &Attention { tokens, heads, head_width, causal });
    }
}

#[test]
fn attention_does_not_overflow() {
    let shape = Attention {
        tokens: 3,
        heads: 1,
        head_width: 2,
        causal: true,
    };
    let qkv: Vec<f32> = values("qkv", 18).iter().map(|v| v * 1e4).collect();
    let (output, lower) = run(&shape, &qkv, &[1.0; 6], 1);
    assert!(output.iter().chain(&lower).all(|v| v.is_finite()));
}

/// What a token sees does not depend on those that follow.
#[test]
fn attention_does_not_look_ahead() {
    let shape = Attention {
        tokens: 70,
        heads: 2,
        head_width: 4,
        causal: true,
    };
    let mut qkv = values("qkv", 70 * 24);
    let upper = values("g", 70 * 8);
    let (before, _) = run(&shape, &qkv, &upper, 1);
    qkv[66 * 24..].iter_mut().for_each(|v| *v += 3.0);
    let (after, _) = run(&shape, &qkv, &upper, 1);
    assert_eq!(before[..66 * 8], after[..66 * 8]);
    assert_ne!(before[66 * 8..], after[66 * 8..]);
}

#[test]
fn attention_has_the_same_bits_on_any_number_of_threads() {
    for causal in [true, false] {
        let shape = Attention {
            tokens: 100,
            heads: 3,
            head_width: 16,
            causal,
        };
        let qkv = values("qkv", 3 * 3 * 100 * 48);
        let upper = values("g", 3 * 100 * 48);
        same_bits(|threads| {
            let (output, lower) = run(&shape, &qkv, &upper, threads);
            [output, lower].concat()
        });
    }
}
