//! Randomness that a seed determines.

use std::collections::BTreeMap;

/// The golden ratio's fraction, in 64 bits: SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A stream of random numbers: SplitMix64 (Steele, Lea and Flood, 2014). Equal seeds, equal streams, on any machine.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The stream of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A stream of its own for a purpose: what another part of a simulation draws does not shift it.
    pub fn branch(&self, purpose: u64) -> Self {
        let mut dice = Self::new(self.state ^ purpose.wrapping_mul(STEP).rotate_left(32));
        dice.bits();
        dice
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Bytes, for a key or an id that guards nothing.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.bits() as u8)
    }

    /// A number from 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `sides`; 0 where there are none.
    pub fn below(&mut self, sides: u64) -> u64 {
        // The bias is below sides ÷ 2⁶⁴.
        ((u128::from(self.bits()) * u128::from(sides)) >> 64) as u64
    }

    /// A normally distributed number: mean 0, deviation 1 (Box and Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// A factor whose logarithm is normally distributed with this deviation: its median is 1.
    pub fn factor(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal()).exp()
    }

    /// An exponentially distributed time with this mean.
    pub fn wait(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// `count` of the numbers below `of`, each at most once, in random order; all where there are no more.
    pub fn some(&mut self, count: usize, of: usize) -> Vec<usize> {
        // A shuffle of all (Fisher and Yates), of which what never moved is not written down.
        let mut moved = BTreeMap::new();
        let draw = |at: usize| {
            let other = at + self.below((of - at) as u64) as usize;
            let here = moved.get(&at).copied().unwrap_or(at);
            let there = moved.get(&other).copied().unwrap_or(other);
            moved.insert(other, here);
            there
        };
        (0..count.min(of)).map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_are_equal_streams_and_branches_are_others() {
        let (mut a, mut b) = (Dice::new(5), Dice::new(5));
        assert_eq!(a.bits(), b.bits());
        let (mut c, mut d) = (a.branch(1), a.branch(2));
        assert_ne!(c.bits(), d.bits());
        assert_eq!(a.bits(), b.bits(), "a branch takes nothing from its stem");
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut dice = Dice::new(1);
        let n = 100_000;
        let normal: Vec<f64> = (0..n).map(|_| dice.normal()).collect();
        let mean = normal.iter().sum::<f64>() / n as f64;
        let variance = normal.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03);
        let waits = (0..n).map(|_| dice.wait(7.0)).sum::<f64>() / n as f64;
        assert!((waits - 7.0).abs() < 0.15, "{waits}");
        let unit = (0..n).map(|_| dice.unit()).fold(0.0, f64::max);
        assert!(unit < 1.0);
    }

    #[test]
    fn some_are_distinct_and_each_is_as_likely() {
        let mut dice = Dice::new(2);
        let mut seen = [0; 10];
        for _ in 0..10_000 {
            let mut some = dice.some(3, 10);
            some.iter().for_each(|at| seen[*at] += 1);
            some.sort_unstable();
            some.dedup();
            assert_eq!(some.len(), 3);
        }
        assert!(seen.iter().all(|n| (2_700..3_300).contains(n)), "{seen:?}");
        assert_eq!(dice.some(5, 2).len(), 2);
        assert_eq!(dice.below(0), 0);
    }
}
