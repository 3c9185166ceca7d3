//! The price of computing: a class each, and what it was over time.
//!
//! A unit price is paid for one CU (10¹² floating-point operations as the model's graph counts them). It differs by
//! *class*: what is done, and how much memory a miner needs for it. `cryptomind-core` says how it moves.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Amount, Timestamp};

/// What is done with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkClass {
    /// It is fitted.
    Training,
    /// It is run.
    Inference,
}

/// How much memory a miner has for a task, in steps: a miner belongs to the highest that it reaches, and serves that
/// one and all below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryTier {
    /// Any miner; a task needs 1 GiB or less.
    Gib1,
    /// 8 GiB.
    Gib8,
    /// 24 GiB.
    Gib24,
    /// 80 GiB, and more.
    Gib80,
}

/// What has a unit price of its own. Its text, in CBOR and JSON too, is such as `training-8g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub struct PriceClass {
    /// What is done.
    pub work: WorkClass,
    /// The memory that it takes.
    pub memory: MemoryTier,
}

/// Why a text is not a class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a class: give one of {}", PriceClass::ALL.map(PriceClass::as_str).join(", "))]
pub struct ParseClassError {
    /// The text, shortened.
    found: String,
}

impl MemoryTier {
    /// From the least.
    pub const ALL: [Self; 4] = [Self::Gib1, Self::Gib8, Self::Gib24, Self::Gib80];

    /// What a miner of this tier has at least, bytes.
    pub const fn bytes(self) -> u64 {
        let gib = match self {
            Self::Gib1 => 1,
            Self::Gib8 => 8,
            Self::Gib24 => 24,
            Self::Gib80 => 80,
        };
        gib << 30
    }
}

impl PriceClass {
    /// Every class.
    pub const ALL: [Self; 8] = {
        const fn of(work: WorkClass, memory: MemoryTier) -> PriceClass {
            PriceClass { work, memory }
        }
        use MemoryTier::{Gib1, Gib8, Gib24, Gib80};
        use WorkClass::{Inference, Training};
        [
            of(Training, Gib1),
            of(Training, Gib8),
            of(Training, Gib24),
            of(Training, Gib80),
            of(Inference, Gib1),
            of(Inference, Gib8),
            of(Inference, Gib24),
            of(Inference, Gib80),
        ]
    };

    /// Its text.
    pub const fn as_str(self) -> &'static str {
        match (self.work, self.memory) {
            (WorkClass::Training, MemoryTier::Gib1) => "training-1g",
            (WorkClass::Training, MemoryTier::Gib8) => "training-8g",
            (WorkClass::Training, MemoryTier::Gib24) => "training-24g",
            (WorkClass::Training, MemoryTier::Gib80) => "training-80g",
            (WorkClass::Inference, MemoryTier::Gib1) => "inference-1g",
            (WorkClass::Inference, MemoryTier::Gib8) => "inference-8g",
            (WorkClass::Inference, MemoryTier::Gib24) => "inference-24g",
            (WorkClass::Inference, MemoryTier::Gib80) => "inference-80g",
        }
    }
}

impl fmt::Display for PriceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for PriceClass {
    type Err = ParseClassError;

    fn from_str(text: &str) -> Result<Self, ParseClassError> {
        let named = Self::ALL.into_iter().find(|class| class.as_str() == text);
        named.ok_or_else(|| ParseClassError {
            found: text.chars().take(40).collect(),
        })
    }
}

impl From<PriceClass> for &'static str {
    fn from(class: PriceClass) -> Self {
        class.as_str()
    }
}

impl TryFrom<String> for PriceClass {
    type Error = ParseClassError;

    fn try_from(text: String) -> Result<Self, ParseClassError> {
        text.parse()
    }
}

/// How much of the market's speed is asked for, in millionths; more than [`Utilisation::MAX_PPM`] is said to be that.
///
/// Two figures, so that no single account moves a price: see `cryptomind_core::price::Sample`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilisation {
    /// It is at least this, whoever of the clients is left out.
    pub at_least_ppm: u32,
    /// It is at most this, whoever of the miners' owners is left out.
    pub at_most_ppm: u32,
}

impl Utilisation {
    /// Twice as much is asked for as can be done: what is beyond moves a price no faster.
    pub const MAX_PPM: u32 = 2_000_000;
    /// Nothing is known: anything may be.
    pub const UNKNOWN: Self = Self {
        at_least_ppm: 0,
        at_most_ppm: Self::MAX_PPM,
    };
}

/// The price of a class at a moment, and what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricePoint {
    /// When.
    pub at: Timestamp,
    /// Of what.
    pub class: PriceClass,
    /// For one CU, from then on.
    pub unit_price: Amount,
    /// What funded tasks ask for, in 10⁶ floating-point operations a second.
    pub demand_mflops: u64,
    /// What miners offer, in the same.
    pub supply_mflops: u64,
    /// The one by the other, averaged over some minutes: what moves the price.
    pub utilisation: Utilisation,
}

/// How far apart the points of a history are, and so how far back it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceRing {
    /// A minute; it goes back a day.
    Minutes,
    /// An hour; it goes back a year.
    Hours,
}

impl PriceRing {
    /// From one point to the next, milliseconds.
    pub const fn step_ms(self) -> u64 {
        match self {
            Self::Minutes => 60_000,
            Self::Hours => 3_600_000,
        }
    }

    /// Points that are kept.
    pub const fn points(self) -> u64 {
        match self {
            Self::Minutes => 24 * 60,
            Self::Hours => 365 * 24,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_known_by_its_text() {
        for class in PriceClass::ALL {
            assert_eq!(class.to_string().parse(), Ok(class));
        }
        let texts: std::collections::BTreeSet<_> = PriceClass::ALL
            .map(PriceClass::as_str)
            .into_iter()
            .collect();
        assert_eq!(texts.len(), PriceClass::ALL.len());
    }

    #[test]
    fn another_text_is_refused_with_those_that_would_do() {
        let refusal = "training-9g".parse::<PriceClass>().unwrap_err().to_string();
        assert!(refusal.contains("training-8g"), "{refusal}");
        assert!(refusal.contains("`training-9g`"), "{refusal}");
    }
}
