//! Softmax cross-entropy in one pass: the loss of a batch, summed, and its gradient by the logits.

/// The sum over rows of −ln softmax(logits)\[label\]. `gradient` receives softmax − one-hot, a row
/// of `classes` values a label. Labels must be below `classes`. Not finite where logits are not.
pub(crate) fn cross_entropy(
    logits: &[f32],
    labels: impl Iterator<Item = usize>,
    classes: usize,
    gradient: &mut [f32],
) -> f64 {
    let rows = logits.chunks_exact(classes);
    let gradients = gradient.chunks_exact_mut(classes);
    rows.zip(gradients)
        .zip(labels)
        .map(|((row, gradient), label)| one_row(row, label, gradient))
        .sum()
}

/// The largest logit is subtracted first: no exponential overflows.
fn one_row(logits: &[f32], label: usize, gradient: &mut [f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f64;
    for (g, z) in gradient.iter_mut().zip(logits) {
        *g = (z - largest).exp();
        sum += f64::from(*g);
    }
    let scale = (1.0 / sum) as f32;
    gradient.iter_mut().for_each(|g| *g *= scale);
    gradient[label] -= 1.0;
    sum.ln() + f64::from(largest) - f64::from(logits[label])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_and_gradient_are_those_of_the_definition() {
        let logits = [1.0f32, 2.0, 3.0, 0.5, 0.5, 0.5];
        let mut gradient = [0f32; 6];
        let loss = cross_entropy(&logits, [2usize, 0].into_iter(), 3, &mut gradient);
        let sum = 1f64.exp() + 2f64.exp() + 3f64.exp();
        assert!((loss - (sum.ln() - 3.0 + 3f64.ln())).abs() < 1e-6);
        let expected = [1f64.exp() / sum, 2f64.exp() / sum, 3f64.exp() / sum - 1.0];
        for (got, want) in gradient
            .iter()
            .zip(expected.iter().chain(&[-2. / 3., 1. / 3.]))
        {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} for {want}");
        }
    }

    #[test]
    fn large_logits_do_not_overflow_and_broken_ones_show() {
        let mut gradient = [0f32; 2];
        let loss = |logits: [f32; 2], g: &mut [f32]| cross_entropy(&logits, [0].into_iter(), 2, g);
        assert_eq!(loss([1e30, -1e30], &mut gradient), 0.0);
        assert!(loss([-1e30, 1e30], &mut gradient) > 1e30);
        for broken in [f32::NAN, f32::INFINITY] {
            assert!(!loss([0.0, broken], &mut gradient).is_finite());
            assert!(!loss([broken, 0.0], &mut gradient).is_finite());
        }
    }
}
