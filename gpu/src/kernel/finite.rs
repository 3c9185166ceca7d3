//! Whether numbers are numbers.

use std::sync::atomic::{AtomicBool, Ordering};

use super::parallel::{each, worth};

/// Whether all values are finite.
pub fn all_finite(values: &[f32], threads: usize) -> bool {
    let broken = AtomicBool::new(false);
    let threads = worth(threads, values.len());
    each(threads, values.len(), (), |range, ()| {
        if !finite(&values[range]) {
            broken.store(true, Ordering::Relaxed);
        }
    });
    !broken.into_inner()
}

/// Without early exit, so that it runs on vectors.
fn finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let broken = |bits: u32| u32::from(bits & EXPONENT == EXPONENT);
    values.iter().fold(0, |seen, v| seen | broken(v.to_bits())) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_none_is_seen_anywhere() {
        let fine = [0.0, -0.0, f32::MIN_POSITIVE / 2.0, f32::MAX, f32::MIN];
        let mut values: Vec<f32> = fine.into_iter().cycle().take(40_000).collect();
        for threads in [1, 2, 3] {
            assert!(all_finite(&[], threads) && all_finite(&values, threads));
            for place in [0, 13_333, 20_000, 39_999] {
                for none in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let before = std::mem::replace(&mut values[place], none);
                    assert!(!all_finite(&values, threads), "{none} at {place}");
                    values[place] = before;
                }
            }
        }
    }
}
