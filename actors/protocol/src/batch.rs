//! How the members of a group divide a batch.

use serde::{Deserialize, Serialize};

/// How much of each batch a member computes, beside what the others weigh: 1 to [`Weight::MOST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Weight(u32);

/// A number that is no weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no weight: 1 to {most}", most = Weight::MOST)]
pub struct WeightError(u32);

impl Weight {
    /// The largest.
    pub const MOST: u32 = 1_000_000;

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<u32> for Weight {
    type Error = WeightError;

    fn try_from(number: u32) -> Result<Self, WeightError> {
        match (1..=Self::MOST).contains(&number) {
            true => Ok(Self(number)),
            false => Err(WeightError(number)),
        }
    }
}

impl From<Weight> for u32 {
    fn from(weight: Weight) -> Self {
        weight.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn only_a_weight_is_read_as_one() {
        for number in [1, 125, Weight::MOST] {
            let weight: Weight = codec::decode(&codec::encode(&number)).unwrap();
            assert_eq!(weight.get(), number);
            assert_eq!(codec::encode(&weight), codec::encode(&number));
        }
        for number in [0, Weight::MOST + 1, u32::MAX] {
            assert!(codec::decode::<Weight>(&codec::encode(&number)).is_err());
        }
    }
}
