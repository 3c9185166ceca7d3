//! Against f64, over all sizes of f32.

use super::*;

/// Values of both signs and every exponent, with odd mantissas, and the special ones.
fn all_sizes() -> impl Iterator<Item = f32> {
    let special = [
        0.0,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::INFINITY,
        f32::from_bits(1),
        0.625,
    ];
    let bits = (0..0x7f80_0000u32).step_by(9973);
    let values = bits.map(f32::from_bits).chain(special);
    // Most exponents are far from where the functions bend: more there.
    let near = (0..400_000).map(|i| i as f32 * 2.7e-4);
    values.chain(near).flat_map(|v| [v, -v])
}

/// How far `got` is from `want`, in units of the last place of an f32 of that size.
fn ulps(got: f32, want: f64) -> f64 {
    if f64::from(got) == want || (want.abs() > f64::from(f32::MAX) && got.is_infinite()) {
        return 0.0;
    }
    let size = (want.abs() as f32).clamp(f32::MIN_POSITIVE, f32::MAX);
    let unit = f64::from(f32::from_bits(size.to_bits() & 0x7f80_0000)) * 2f64.powi(-23);
    (f64::from(got) - want).abs() / unit
}

fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> (f64, f32) {
    all_sizes()
        .map(|x| (ulps(f(x), exact(f64::from(x))), x))
        .fold(
            (0.0, 0.0),
            |a, b| if b.0 > a.0 || b.0.is_nan() { b } else { a },
        )
}

#[test]
fn the_functions_are_exact_to_two_and_a_half_units() {
    let exact_sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    for (name, found) in [
        ("exp", worst(exp, f64::exp)),
        ("tanh", worst(tanh, f64::tanh)),
        ("sigmoid", worst(|x| sigmoid(x).0, exact_sigmoid)),
        (
            "1 - sigmoid",
            worst(|x| sigmoid(x).1, |x| exact_sigmoid(-x)),
        ),
    ] {
        println!("{name}: {} units at {}", found.0, found.1);
        assert!(found.0 <= 2.5, "{name}: {} units at {}", found.0, found.1);
    }
}

/// The complementary error function in f64: its series near 0, Lentz's continued fraction beyond.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..120 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - sum * 2.0 / std::f64::consts::PI.sqrt();
    }
    let fraction = (1..200).rev().fold(x, |f, n| x + f64::from(n) / 2.0 / f);
    (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
}

#[test]
fn the_normal_distribution_is_exact_to_its_tail() {
    let below = worst(
        |x| normal(x).0,
        |x| 0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2),
    );
    let density = worst(
        |x| normal(x).1,
        |x| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt(),
    );
    println!("below: {below:?}, density: {density:?}");
    assert!(below.0 <= 5.0, "{} units at {}", below.0, below.1);
    assert!(density.0 <= 4.0, "{} units at {}", density.0, density.1);
}

#[test]
fn limits_are_kept_and_what_is_no_number_passes() {
    let (large, nan) = (f32::INFINITY, f32::NAN);
    assert_eq!([exp(large), exp(-large), exp(0.0)], [large, 0.0, 1.0]);
    assert_eq!([tanh(large), tanh(-large), tanh(0.0)], [1.0, -1.0, 0.0]);
    assert!(tanh(-0.0).is_sign_negative());
    assert_eq!((sigmoid(large), sigmoid(-large)), ((1.0, 0.0), (0.0, 1.0)));
    assert_eq!((normal(large), normal(-large)), ((1.0, 0.0), (0.0, 0.0)));
    assert!(exp(nan).is_nan() && tanh(nan).is_nan() && ln(f64::NAN).is_nan());
    assert!(sigmoid(nan).0.is_nan() && normal(nan).0.is_nan() && normal(nan).1.is_nan());
    let tiny = f32::from_bits(3);
    assert_eq!(tanh(tiny), tiny);
}

#[test]
fn logarithms_are_those_of_the_library() {
    for i in 1..100_000 {
        let x = f64::from(i) * 1.7e-3;
        for x in [x, x * 1e30, x * 1e-30] {
            assert!(
                (ln(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(1.0),
                "{x}"
            );
        }
        let unit = i as f32 * 1e-5;
        let off = ulps(ln_1p(unit), f64::from(unit).ln_1p());
        assert!(off <= 2.5, "{unit}: {off} units");
    }
    assert_eq!((ln(1.0), ln(f64::INFINITY)), (0.0, f64::INFINITY));
    assert_eq!(ln_1p(0.0), 0.0);
    assert_eq!(ln_1p(1e-30), 1e-30);
}
