use proptest::prelude::*;

use super::*;

/// PyTorch's documentation of AdamW, line by line, in f64, one value.
fn naive_adamw(gradients: &[f64], mut p: f64) -> f64 {
    let (lr, beta1, beta2, eps, decay) = (1e-3, 0.9f64, 0.999f64, 1e-8, 0.01);
    let (mut m, mut v) = (0.0, 0.0);
    for (t, g) in (1..).zip(gradients) {
        p -= lr * decay * p;
        m = beta1 * m + (1.0 - beta1) * g;
        v = beta2 * v + (1.0 - beta2) * g * g;
        let m_hat = m / (1.0 - beta1.powi(t));
        let v_hat = v / (1.0 - beta2.powi(t));
        p -= lr * m_hat / (v_hat.sqrt() + eps);
    }
    p
}

/// PyTorch's documentation of SGD with momentum.
fn naive_sgd(gradients: &[f64], mut p: f64) -> f64 {
    let (lr, momentum) = (0.1, 0.9);
    let mut buffer = None;
    for g in gradients {
        let b = buffer.map_or(*g, |b| momentum * b + g);
        p -= lr * b;
        buffer = Some(b);
    }
    p
}

/// Applies one gradient after the other, each given as a sum over `count` samples.
fn walk(optimizer: &Optimizer, gradients: &[f64], p: f64, count: u32) -> f64 {
    let rule = Rule::new(optimizer);
    let mut state = State::new(vec![p as f32], &rule);
    let mut next = state.clone();
    for g in gradients {
        rule.apply(&state, &[(g * f64::from(count)) as f32], count, &mut next);
        std::mem::swap(&mut state, &mut next);
    }
    assert_eq!(state.step, gradients.len() as u64);
    f64::from(state.parameters[0])
}

proptest! {
    #[test]
    fn adamw_is_the_documented_one(gs in prop::collection::vec(-3f64..3.0, 1..40), p in -2f64..2.0, count in 1u32..9) {
        let got = walk(&Optimizer::adamw(1e-3), &gs, p, count);
        prop_assert!((got - naive_adamw(&gs, p)).abs() < 1e-5, "{} for {}", got, naive_adamw(&gs, p));
    }

    #[test]
    fn sgd_is_the_documented_one(gs in prop::collection::vec(-3f64..3.0, 1..40), p in -2f64..2.0, count in 1u32..9) {
        let got = walk(&Optimizer::sgd(0.1, 0.9), &gs, p, count);
        let want = naive_sgd(&gs, p);
        prop_assert!((got - want).abs() < 1e-4, "{} for {}", got, want);
    }

    #[test]
    fn powers_by_squaring_are_powers(base in 0f64..1.0, exponent in 0i32..5000) {
        let want = base.powi(exponent);
        prop_assert!((power(base, exponent as u64) - want).abs() <= 1e-12 * want.max(1e-300));
    }
}

/// The loop runs on vectors of whatever width; the odd rest is computed like the others.
#[test]
fn each_place_is_computed_alike() {
    let rule = Rule::new(&Optimizer::adamw(1e-2));
    let state = State::new(vec![0.3; 37], &rule);
    let mut next = state.clone();
    rule.apply(&state, &[0.7; 37], 3, &mut next);
    let bits: Vec<u32> = next.parameters.iter().map(|p| p.to_bits()).collect();
    assert!(bits.iter().all(|b| *b == bits[0]), "{bits:?}");
    assert_ne!(next.parameters[0], 0.3);
}

#[test]
fn constants_are_the_numbers_that_people_wrote() {
    assert_eq!(as_written(0.999), 0.999f64);
    assert_eq!(as_written(1e-8), 1e-8f64);
    assert_eq!(as_written(0.0), 0.0);
}
