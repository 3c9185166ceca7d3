//! Exponentials, logarithm and the normal distribution from additions, multiplications, divisions
//! and operations on bits: every machine computes the same bits, which `libm`s do not promise.
//!
//! Without branches and inlined, so that loops over them run on vectors within `lanes::on_vectors`.
//! What is not a number stays so. The tests hold errors to 2.5 units in the last place, those of the
//! normal distribution to 5.

/// 1.5·2²³: a number of small size added to it is rounded to an integer, which the low bits hold.
const ROUNDER: f32 = 12_582_912.0;
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln 2 in two parts; the first has few bits, so that its product with an exponent is exact (Cody
/// and Waite, 1980).
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// eˣ, with the polynomial of Cephes' `expf` (Moshier, 1989).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Outside, the result is 0 or infinite all the same, and the exponents below would overflow.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let rounded = x * LOG2_E + ROUNDER;
    let exponent = rounded.to_bits().wrapping_sub(ROUNDER.to_bits()) as i32;
    let whole = rounded - ROUNDER;
    let r = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_65;
    let p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    // In two factors, as the whole may be outside the exponents of f32: one rounding, in the last.
    let half = exponent >> 1;
    p * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// 2 to the power of an exponent from −126 to 127.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent.wrapping_add(127) as u32) << 23)
}

/// The hyperbolic tangent: Cephes' polynomial near 0, by the exponential elsewhere.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let z = x * x;
    let p = -5.704_988_7e-3;
    let p = p * z + 2.063_909e-2;
    let p = p * z - 5.373_971_6e-2;
    let p = p * z + 0.133_314_42;
    let p = p * z - 0.333_332_8;
    let near = p * z * size + size;
    let far = 1.0 - 2.0 / (exp(2.0 * size) + 1.0);
    let found = if size < 0.625 { near } else { far };
    found.copysign(x)
}

/// 1 / (1 + e⁻ˣ), and what it lacks to 1: neither loses its last bits near 0.
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> (f32, f32) {
    let e = exp(-x.abs());
    let (large, small) = (1.0 / (1.0 + e), e / (1.0 + e));
    if x < 0.0 {
        (small, large)
    } else {
        (large, small)
    }
}

/// Beyond so many deviations, density and tail of the normal distribution are 0 in f32.
const NORMAL_END: f32 = 14.5;
/// 1/√(2π).
const DENSITY_AT_ZERO: f32 = 0.398_942_3;

/// The standard normal distribution at x: the probability Φ(x) = (1 + erf(x/√2)) / 2 of a lower
/// value, and the density.
///
/// The tail is e^(−x²/2) times a smooth function, here P((a − 3) / (a + 2.5)) / (a + 2.5) for a =
/// |x|, after Shepherd and Laframboise, 1981; the polynomial is our Chebyshev fit, off by 2·10⁻⁸ at
/// most.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let a = x.abs();
    let a = if a > NORMAL_END { NORMAL_END } else { a };
    let bell = bell(a);
    let r = 1.0 / (a + 2.5);
    let v = (a - 3.0) * r;
    let p = -6.705_782e-5;
    let p = p * v - 2.064_971e-4;
    let p = p * v + 2.096_928e-4;
    let p = p * v + 1.624_564_9e-3;
    let p = p * v - 7.329_597e-5;
    let p = p * v - 1.146_394_6e-2;
    let p = p * v + 2.392_194_5e-3;
    let p = p * v + 0.110_482_566;
    let p = p * v - 0.372_286_4;
    let p = p * v + 0.668_326_74;
    let tail = bell * (p * r);
    // Of constants, so that it does not become a branch.
    let (whole, sign) = if x < 0.0 { (0.0, 1.0) } else { (1.0, -1.0) };
    (whole + sign * tail, bell * DENSITY_AT_ZERO)
}

/// e^(−a²/2). The square of the first 12 bits is exact; what they leave out is a small exponent of
/// its own, so that the rounding of a² does not grow with a.
#[inline(always)]
fn bell(a: f32) -> f32 {
    let high = f32::from_bits(a.to_bits() & 0xffff_f000);
    let rest = -0.5 * ((a - high) * (a + high));
    let p = 1.0 / 120.0;
    let p = p * rest + 1.0 / 24.0;
    let p = p * rest + 1.0 / 6.0;
    let p = p * rest + 0.5;
    let p = p * (rest * rest) + rest + 1.0;
    exp(-0.5 * (high * high)) * p
}

/// ln x of a positive, normal x, in f64. Infinite and what is not a number stay so.
#[inline(always)]
pub(super) fn ln(x: f64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const ONE: u64 = 1023 << 52;
    if x.is_nan() || x == f64::INFINITY {
        return x;
    }
    let exponent = (x.to_bits() >> 52) as i32 - 1023;
    let mantissa = f64::from_bits(x.to_bits() & MANTISSA | ONE);
    // From 1/√2 to √2.
    let (exponent, mantissa) = match mantissa > std::f64::consts::SQRT_2 {
        true => (exponent + 1, mantissa * 0.5),
        false => (exponent, mantissa),
    };
    let fraction = twice_atanh((mantissa - 1.0) / (mantissa + 1.0));
    f64::from(exponent) * std::f64::consts::LN_2 + fraction
}

/// ln(1 + x) for x from 0 to 1: the series of 2·artanh(x / (2 + x)).
#[inline(always)]
pub(super) fn ln_1p(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let square = s * s;
    let p = 2.0 / 13.0;
    let p = p * square + 2.0 / 11.0;
    let p = p * square + 2.0 / 9.0;
    let p = p * square + 2.0 / 7.0;
    let p = p * square + 2.0 / 5.0;
    let p = p * square + 2.0 / 3.0;
    p * square * s + 2.0 * s
}

/// 2·artanh(s) = ln((1 + s) / (1 − s)) for |s| ≤ 0.18, by its series.
#[inline(always)]
fn twice_atanh(s: f64) -> f64 {
    const TERMS: usize = 11;
    const FACTORS: [f64; TERMS] = {
        let (mut factors, mut term) = ([0.0; TERMS], 0);
        while term < TERMS {
            factors[term] = 2.0 / (2 * term + 1) as f64;
            term += 1;
        }
        factors
    };
    let square = s * s;
    let mut sum = 0.0;
    for factor in FACTORS.iter().rev() {
        sum = sum * square + factor;
    }
    sum * s
}

#[cfg(test)]
mod tests;
