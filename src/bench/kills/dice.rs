//! What a seed draws: SplitMix64 (Steele, Lea and Flood, 2014). The same seed draws the same.

/// A small generator of numbers that look random. Not for secrets that guard anything.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence number `stream` of this seed.
    pub const fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        dice.draw();
        dice
    }

    const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `sides`, which is at least 1.
    pub const fn roll(&mut self, sides: u64) -> u64 {
        self.draw() % sides
    }

    /// Bytes, for a key or an id.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.draw() as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_again_and_streams_differ() {
        let drawn = |seed, stream| Dice::new(seed, stream).bytes::<16>();
        assert_eq!(drawn(1, 2), drawn(1, 2));
        assert_ne!(drawn(1, 2), drawn(1, 3));
        assert_ne!(drawn(1, 2), drawn(2, 2));
        let mut dice = Dice::new(1, 0);
        assert!((0..1000).all(|_| dice.roll(6) < 6));
    }
}
