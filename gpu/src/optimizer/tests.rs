use cryptomind_protocol::task::Schedule;
use proptest::prelude::*;

use super::*;
use crate::random::Stream;

const START: [f64; 6] = [0.5, -1.25, 0.75, 2.0, -0.3, 0.1];

fn tensor(name: &str, shape: &[usize]) -> Tensor {
    Tensor {
        name: name.into(),
        shape: shape.into(),
    }
}

/// A matrix and a vector: six values.
fn tensors() -> Vec<Tensor> {
    vec![tensor("weight", &[2, 2]), tensor("bias", &[2])]
}

fn spec(optimizer: Optimizer) -> TrainSpec {
    TrainSpec {
        optimizer,
        ..TrainSpec::default()
    }
}

const fn adamw(lr: f32, weight_decay: f32) -> Optimizer {
    Optimizer::Adamw {
        lr,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay,
    }
}

const fn adam(lr: f32, weight_decay: f32) -> Optimizer {
    Optimizer::Adam {
        lr,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay,
    }
}

const fn sgd(lr: f32, momentum: f32, nesterov: bool, weight_decay: f32) -> Optimizer {
    Optimizer::Sgd {
        lr,
        momentum,
        nesterov,
        weight_decay,
    }
}

/// Applies one gradient after the other, each given as a sum over `count` samples.
fn walk(train: &TrainSpec, gradients: &[[f64; 6]], start: [f64; 6], count: u32) -> Vec<f32> {
    train.check().unwrap();
    let rule = Rule::new(train, &tensors(), 1);
    let mut state = State::new(start.map(|p| p as f32).to_vec(), &rule);
    let mut next = state.clone();
    for g in gradients {
        let sums = g.map(|g| (g * f64::from(count)) as f32);
        rule.apply(&state, &sums, count, 0..6, &mut next);
        std::mem::swap(&mut state, &mut next);
    }
    assert_eq!(state.step, gradients.len() as u64);
    state.parameters
}

fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    for (got, want) in got.iter().zip(want) {
        let off = (f64::from(*got) - want).abs();
        assert!(off <= tolerance, "{got} for {want}");
    }
}

mod naive {
    //! PyTorch's documentation line by line, in f64.

    use super::*;

    fn rate(train: &TrainSpec, done: usize) -> f64 {
        let (lr, done) = (as_written(train.optimizer.lr()), done as f64);
        match train.schedule {
            Schedule::Constant => lr,
            Schedule::Cosine {
                warmup_steps,
                decay_steps,
                min_lr,
            } => {
                let (warmup, decay) = (f64::from(warmup_steps), f64::from(decay_steps));
                let least = as_written(min_lr);
                if done < warmup {
                    return lr * (done + 1.0) / (warmup + 1.0);
                }
                if done > decay {
                    return least;
                }
                let ratio = (done - warmup) / (decay - warmup);
                least + 0.5 * (1.0 + (std::f64::consts::PI * ratio).cos()) * (lr - least)
            }
            Schedule::Step {
                every_steps,
                factor,
            } => lr * as_written(factor).powi(done as i32 / every_steps as i32),
        }
    }

    fn clip(train: &TrainSpec, g: [f64; 6]) -> [f64; 6] {
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let factor = train
            .clip_norm
            .map_or(1.0, |most| f64::from(most) / (norm + 1e-6));
        g.map(|g| g * factor.min(1.0))
    }

    pub(super) fn walk(train: &TrainSpec, gradients: &[[f64; 6]], mut p: [f64; 6]) -> [f64; 6] {
        let (mut m, mut v, mut buffer) = ([0.0; 6], [0.0; 6], [None; 6]);
        for (done, g) in gradients.iter().enumerate() {
            let (lr, g) = (rate(train, done), clip(train, *g));
            for i in 0..6 {
                let decays = i < 4 || train.decay == DecayGroup::All;
                let decay = |wd: f32| if decays { as_written(wd) } else { 0.0 };
                let mut g = g[i];
                match train.optimizer {
                    Optimizer::Adamw { weight_decay, .. } => {
                        p[i] -= lr * decay(weight_decay) * p[i]
                    }
                    Optimizer::Adam { weight_decay, .. } | Optimizer::Sgd { weight_decay, .. } => {
                        g += decay(weight_decay) * p[i];
                    }
                }
                match train.optimizer {
                    Optimizer::Adamw {
                        beta1, beta2, eps, ..
                    }
                    | Optimizer::Adam {
                        beta1, beta2, eps, ..
                    } => {
                        let (beta1, beta2) = (as_written(beta1), as_written(beta2));
                        let t = done as i32 + 1;
                        m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                        v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                        let m_hat = m[i] / (1.0 - beta1.powi(t));
                        let v_hat: f64 = v[i] / (1.0 - beta2.powi(t));
                        p[i] -= lr * m_hat / (v_hat.sqrt() + as_written(eps));
                    }
                    Optimizer::Sgd {
                        momentum, nesterov, ..
                    } => {
                        let momentum = as_written(momentum);
                        if momentum != 0.0 {
                            let b = buffer[i].map_or(g, |b: f64| momentum * b + g);
                            buffer[i] = Some(b);
                            g = if nesterov { g + momentum * b } else { b };
                        }
                        p[i] -= lr * g;
                    }
                }
            }
        }
        p
    }
}

fn optimizers() -> impl Strategy<Value = Optimizer> {
    let decay = prop_oneof![Just(0.0f32), 0.0f32..0.1];
    (0..5, decay).prop_map(|(which, decay)| match which {
        0 => adamw(1e-2, decay),
        1 => adam(1e-2, decay),
        2 => sgd(0.1, 0.0, false, decay),
        3 => sgd(0.1, 0.9, false, decay),
        _ => sgd(0.1, 0.9, true, decay),
    })
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let cosine = (0u32..8, 1u32..20).prop_map(|(warmup_steps, more)| Schedule::Cosine {
        warmup_steps,
        decay_steps: warmup_steps + more,
        min_lr: 1e-3,
    });
    let step = (1u32..10).prop_map(|every_steps| Schedule::Step {
        every_steps,
        factor: 0.5,
    });
    prop_oneof![Just(Schedule::Constant), cosine, step]
}

prop_compose! {
    fn trains()(
        optimizer in optimizers(),
        schedule in schedules(),
        clip_norm in prop::option::of(0.1f32..6.0),
        decay in prop_oneof![Just(DecayGroup::All), Just(DecayGroup::Matrices)],
    ) -> TrainSpec {
        TrainSpec { optimizer, schedule, clip_norm, decay, ..TrainSpec::default() }
    }
}

proptest! {
    #[test]
    fn every_rule_is_the_documented_one(
        train in trains(),
        gradients in prop::collection::vec(prop::array::uniform6(-3f64..3.0), 1..25),
        start in prop::array::uniform6(-2f64..2.0),
        count in 1u32..9,
    ) {
        let (got, want) = (walk(&train, &gradients, start, count), naive::walk(&train, &gradients, start));
        for (got, want) in got.iter().zip(want) {
            prop_assert!((f64::from(*got) - want).abs() < 1e-4, "{} for {}", got, want);
        }
    }

    #[test]
    fn powers_by_squaring_are_powers(base in 0f64..1.0, exponent in 0i32..5000) {
        let want = base.powi(exponent);
        prop_assert!((power(base, exponent as u64) - want).abs() <= 1e-12 * want.max(1e-300));
    }

    /// What is widened and then rounded is what it was, so that a constant rate has the bits of the
    /// signed one.
    #[test]
    fn what_is_meant_rounds_to_what_is_written(bits in 1u32..0x7f80_0000) {
        let value = f32::from_bits(bits);
        prop_assert_eq!(as_written(value) as f32, value);
    }
}

/// Gradients of step `t`, exact in f32, as the Python below has them.
fn gradient(t: usize) -> [f64; 6] {
    let g = |i: usize| ((7 * t + 3 * i) % 11) as f64 - 5.0;
    std::array::from_fn(|i| g(i) / 4.0 * (1.0 + 0.5 * (i % 3) as f64))
}

/// Twelve steps of PyTorch 2.15 from [`START`], whose first four values are a matrix `w` and the
/// other two a vector `b`, on the CPU, `foreach=False`:
///
/// ```python
/// for t in range(12):
///     for group in opt.param_groups: group["lr"] = rate(t)
///     g = [((7*t + 3*i) % 11 - 5) / 4 * (1 + 0.5 * (i % 3)) for i in range(6)]
///     w.grad, b.grad = torch.tensor(g[:4]).reshape(2, 2), torch.tensor(g[4:])
///     if clip: torch.nn.utils.clip_grad_norm_([w, b], clip)
///     opt.step()
/// ```
/// `rate` is nanoGPT's `get_lr` or 0.01·0.5^(t // 4) where there is a schedule.
#[test]
fn every_rule_walks_as_pytorchs() {
    let plain = |optimizer| spec(optimizer);
    let clipped = |optimizer, norm| TrainSpec {
        clip_norm: Some(norm),
        ..spec(optimizer)
    };
    let matrices = |optimizer| TrainSpec {
        decay: DecayGroup::Matrices,
        ..spec(optimizer)
    };
    let scheduled = |schedule| TrainSpec {
        schedule,
        ..spec(adamw(0.01, 0.1))
    };
    let cosine = Schedule::Cosine {
        warmup_steps: 3,
        decay_steps: 9,
        min_lr: 0.001,
    };
    let falls = Schedule::Step {
        every_steps: 4,
        factor: 0.5,
    };
    let cases = [
        (
            plain(adamw(0.01, 0.1)),
            [
                0.50913167,
                -1.23864985,
                0.737844884,
                1.95950854,
                -0.272924334,
                0.123480737,
            ],
        ),
        (
            plain(adam(0.01, 0.1)),
            [
                0.508898675,
                -1.24257565,
                0.741222203,
                1.95846891,
                -0.273880243,
                0.124192052,
            ],
        ),
        (
            plain(sgd(0.05, 0.0, false, 0.01)),
            [
                0.559439838,
                -1.20481491,
                0.720374942,
                1.93810141,
                -0.223513424,
                0.124127597,
            ],
        ),
        (
            plain(sgd(0.05, 0.9, false, 0.01)),
            [
                0.587556183,
                -1.38513255,
                0.92133534,
                1.83887684,
                0.0822151825,
                0.361793488,
            ],
        ),
        (
            plain(sgd(0.05, 0.9, true, 0.01)),
            [
                0.637638271,
                -1.32505155,
                0.874144316,
                1.7937994,
                0.118182696,
                0.357609123,
            ],
        ),
        (
            clipped(sgd(0.05, 0.9, false, 0.0), 1.0),
            [
                0.636735201,
                -1.21278012,
                0.608788908,
                1.94797027,
                -0.0109329689,
                0.175452888,
            ],
        ),
        // Three of the twelve gradients are longer.
        (
            clipped(sgd(0.05, 0.0, false, 0.0), 3.5),
            [
                0.564165533,
                -1.20523596,
                0.717740834,
                1.94954765,
                -0.220913157,
                0.123459868,
            ],
        ),
        (
            matrices(adamw(0.01, 0.1)),
            [
                0.50913167,
                -1.23864985,
                0.737844884,
                1.95950854,
                -0.276289225,
                0.124932587,
            ],
        ),
        (
            matrices(sgd(0.05, 0.9, false, 0.1)),
            [
                0.451285452,
                -1.06327093,
                0.743971527,
                1.38874948,
                0.0798127428,
                0.370825857,
            ],
        ),
        (
            scheduled(cosine),
            [
                0.50212276,
                -1.25195611,
                0.744287908,
                1.98356104,
                -0.283556312,
                0.112915069,
            ],
        ),
        (
            scheduled(falls),
            [
                0.512245953,
                -1.24356997,
                0.73766011,
                1.96963418,
                -0.277128398,
                0.12556459,
            ],
        ),
    ];
    let gradients: Vec<_> = (0..12).map(gradient).collect();
    for (train, want) in cases {
        let got = walk(&train, &gradients, START, 4);
        println!("{:?}: {got:?}", train.optimizer);
        assert_close(&got, &want, 5e-7);
    }
}

/// The loop runs on vectors of whatever width; the odd rest is computed like the others.
#[test]
fn each_place_is_computed_alike() {
    let tensors = [tensor("a", &[36, 1]), tensor("b", &[1])];
    let rule = Rule::new(&spec(Optimizer::adamw(1e-2)), &tensors, 1);
    let state = State::new(vec![0.3; 37], &rule);
    let mut next = state.clone();
    rule.apply(&state, &[0.7; 37], 3, 0..37, &mut next);
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

#[test]
fn a_gradient_is_clipped_from_its_norm_on() {
    let step = |clip_norm, g: [f64; 6]| {
        let train = TrainSpec {
            clip_norm,
            ..spec(sgd(1.0, 0.0, false, 0.0))
        };
        walk(&train, &[g], [0.0; 6], 3)
    };
    let g = [3.0, 0.0, 0.0, 0.0, 4.0, 0.0];
    // Below, the bits are those without a limit.
    assert_eq!(step(Some(5.1), g), step(None, g));
    // At the norm PyTorch already takes a millionth off, and so it does here.
    assert_close(&step(Some(5.0), g), &g.map(|g| -g * 5.0 / 5.000_001), 1e-6);
    assert_close(&step(Some(0.5), g), &g.map(|g| -g / 10.0), 1e-6);
    assert_eq!(step(Some(0.5), [0.0; 6]), [0.0; 6]);
    let huge = step(Some(1.0), [1e37; 6]);
    assert_close(&huge, &[-1.0 / 6f64.sqrt(); 6], 1e-6);
}

#[test]
fn segments_are_as_few_as_can_be() {
    let tensors = [
        tensor("layers.0.bias", &[3]),
        tensor("layers.0.weight", &[3, 2]),
        tensor("layers.1.bias", &[3]),
        tensor("layers.1.running_mean", &[3]),
        tensor("layers.1.running_var", &[3]),
        tensor("layers.1.weight", &[3]),
        tensor("layers.2.bias", &[3]),
        tensor("layers.2.weight", &[3, 3, 1, 1]),
    ];
    let of = |decay| -> Vec<_> {
        let segments = segments(&tensors, decay);
        segments.into_iter().map(|s| (s.range, s.kind)).collect()
    };
    let (decay, plain, follow) = (Kind::Decay, Kind::Plain, Kind::Follow);
    let all = [(0..12, decay), (12..18, follow), (18..33, decay)];
    assert_eq!(of(DecayGroup::All), all);
    let matrices = [
        (0..3, plain),
        (3..9, decay),
        (9..12, plain),
        (12..18, follow),
        (18..24, plain),
        (24..33, decay),
    ];
    assert_eq!(of(DecayGroup::Matrices), matrices);
    assert_eq!(segments(&[], DecayGroup::All), []);
}

#[test]
fn running_statistics_follow_and_keep_no_moments() {
    let tensors = [tensor("running_mean", &[2]), tensor("weight", &[1])];
    for optimizer in [
        adamw(0.1, 0.1),
        adam(0.1, 0.1),
        sgd(0.1, 0.0, false, 0.1),
        sgd(0.1, 0.9, true, 0.1),
    ] {
        let train = TrainSpec {
            clip_norm: Some(1e-3),
            ..spec(optimizer)
        };
        let rule = Rule::new(&train, &tensors, 1);
        let state = State::new(vec![1.0, -2.0, 0.5], &rule);
        let mut next = state.clone();
        next.moments.iter_mut().for_each(|m| m.fill(f32::NAN));
        // Sums over four samples, of means 3 and 0.
        rule.apply(&state, &[12.0, 0.0, 2.0], 4, 0..3, &mut next);
        assert_close(&next.parameters[..2], &[1.2, -1.8], 1e-6);
        assert_ne!(next.parameters[2], 0.5);
        for moment in &next.moments {
            assert_eq!(moment[..2], [0.0, 0.0]);
            assert!(moment[2] > 0.0);
        }
    }
}

/// What a step over a million parameters takes, printed: it is little beside computing gradients.
#[test]
fn a_million_parameters_are_quick() {
    const LEN: usize = 1 << 20;
    let tensors = [tensor("weight", &[LEN / 2, 2])];
    let mut stream = Stream::new("test", 1, "gradients");
    let gradients: Vec<f32> = (0..LEN).map(|_| stream.signed_unit()).collect();
    let train = spec(Optimizer::adamw(1e-3));
    let clipped = TrainSpec {
        clip_norm: Some(1.0),
        ..train.clone()
    };
    for (name, train) in [("AdamW", train), ("clipped", clipped)] {
        for threads in [1, 2] {
            let rule = Rule::new(&train, &tensors, threads);
            let mut state = State::new(gradients.clone(), &rule);
            let mut next = state.clone();
            let mut times: Vec<_> = (0..50)
                .map(|_| {
                    let start = std::time::Instant::now();
                    rule.apply(&state, &gradients, 32, 0..LEN, &mut next);
                    std::mem::swap(&mut state, &mut next);
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            println!("{name}, {threads} threads: {:?} a step", times[25]);
            assert!(times[25].as_millis() < 500, "{:?}", times[25]);
        }
    }
}
