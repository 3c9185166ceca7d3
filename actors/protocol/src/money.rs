//! Money: integers and checked arithmetic. There is no float near it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Base units in one CTM.
pub const BASE_UNITS_PER_CTM: u64 = 1_000_000_000;

/// All tokens that exist, for ever.
pub const SUPPLY: Amount = Amount(100_000_000 * BASE_UNITS_PER_CTM);

/// An amount of tokens in base units (10⁻⁹ CTM).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Amount(u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// This many base units.
    pub const fn from_base_units(units: u64) -> Self {
        Self(units)
    }

    /// The number of base units.
    pub const fn base_units(self) -> u64 {
        self.0
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `self + other`, or nothing where it would overflow.
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// `self - other`, or nothing where it would be below zero.
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// `self · numerator / denominator`, rounded down. Nothing where the denominator is zero or the
    /// result does not fit.
    pub fn mul_div(self, numerator: u128, denominator: u128) -> Option<Self> {
        let product = u128::from(self.0).checked_mul(numerator)?;
        u64::try_from(product.checked_div(denominator)?)
            .ok()
            .map(Self)
    }

    /// `self · numerator / denominator`, rounded up.
    pub fn mul_div_ceil(self, numerator: u128, denominator: u128) -> Option<Self> {
        if denominator == 0 {
            return None;
        }
        let product = u128::from(self.0).checked_mul(numerator)?;
        u64::try_from(product.div_ceil(denominator)).ok().map(Self)
    }

    /// The sum of all, or nothing where it would overflow.
    pub fn sum(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
}

impl fmt::Display for Amount {
    /// `1.25 CTM`: all digits that are not trailing zeros, never rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / BASE_UNITS_PER_CTM, self.0 % BASE_UNITS_PER_CTM);
        let text = if rest == 0 {
            format!("{whole} CTM")
        } else {
            let digits = format!("{rest:09}");
            format!("{whole}.{} CTM", digits.trim_end_matches('0'))
        };
        f.pad(&text)
    }
}

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount: write CTM with at most nine decimals, such as 0.25")]
pub struct ParseAmountError(String);

impl FromStr for Amount {
    type Err = ParseAmountError;

    /// Reads CTM: `2`, `0.25`, `1.5 CTM`.
    fn from_str(text: &str) -> Result<Self, ParseAmountError> {
        parse_ctm(text.trim().trim_end_matches("CTM").trim_end())
            .ok_or_else(|| ParseAmountError(text.chars().take(40).collect()))
    }
}

fn parse_ctm(text: &str) -> Option<Amount> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let rest: u64 = format!("{decimals:0<9}").parse().ok()?;
    whole
        .checked_mul(BASE_UNITS_PER_CTM)?
        .checked_add(rest)
        .map(Amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(units: u64) {
            let amount = Amount::from_base_units(units);
            prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        }

        /// Parts by `mul_div` never add up to more than the whole.
        #[test]
        fn shares_never_exceed_the_whole(units: u64, shares in proptest::collection::vec(0u64..1000, 1..8)) {
            let whole = Amount::from_base_units(units);
            let total: u128 = shares.iter().map(|s| u128::from(*s)).sum();
            prop_assume!(total > 0);
            let parts = shares.iter().map(|s| whole.mul_div(u128::from(*s), total).unwrap());
            prop_assert!(Amount::sum(parts).unwrap() <= whole);
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "1e9",
            "0.0000000001",
            "18446744074",
            "1,5",
            "NaN",
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
        assert_eq!(
            Amount::from_base_units(u64::MAX).checked_add(Amount::from_base_units(1)),
            None
        );
        assert_eq!(Amount::ZERO.checked_sub(Amount::from_base_units(1)), None);
    }
}
