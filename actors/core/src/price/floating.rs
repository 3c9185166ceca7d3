//! The unit price of a class floats: once a minute it moves with demand and supply, or rests.
//!
//! Owned by the matchmaker, as a [`PriceBoard`](super::PriceBoard) of all classes; the same lines run in simulations. A
//! task's price is fixed when it is funded: see [`super::Terms`].
//!
//! ```text
//! u ← u + w · (sample − u),  w = 1 − exp(−1 min / 5 min)         for both figures of a Utilisation
//! at least 0.70 is used:  p ← p · (1 + min(2 %, 0.06 · (u − 0.70)))
//! at most 0.45 is used:   p ← p · (1 − min(2 %, 0.06 · (0.45 − u)))
//! else p rests;           always floor ≤ p ≤ ceiling
//! ```
//!
//! This is the dead-zone rule of Gonka's network, with demand that is funded and supply that is measured. Its base-fee
//! relatives (EIP-1559: Buterin and others, 2019) have no zone of rest and keep swinging around their target.
//!
//! **It does not oscillate.** Say that supply follows the price with elasticity ε within τ minutes, and demand stands
//! still after a step. While u > 0.70 the price rises, by r ≤ 2 % a minute; a first-order lag runs behind a ramp by its time
//! constant, so u, which is averaged over 5 minutes, runs behind what the price deserves by r · ε · (5 + τ) at most. The
//! price has turned too far only where that brings u below 0.45. So it never turns where
//!
//! ```text
//! 0.02 · ε · (5 + τ) < ln(0.70 / 0.45) = 0.44      such as ε = 1, τ = 15 min
//! ```
//!
//! In market terms: it comes to rest in the zone without turning back. A test runs the hours.
//!
//! **It rests in time.** Let a falling price have brought u to 0.45 · e^−z. Then z falls by ε · 0.06 · (0.45 − u) a minute: it
//! takes (z + ln(450,000 / 17)) / (0.06 · 0.45 · ε) minutes until u is within 17 millionths of the zone, where a move rounds to
//! nothing, and about one time of 1 / (0.06 · 0.45 · ε) more since moves are whole millionths: 8 hours for ε = 1, a day for
//! ε = 0.3. A rising price is there sooner.
//!
//! **Invariants**: one move is 2 % at most; floor and ceiling hold; miners' reserves and clients' caps are no input (they say who
//! takes part); all is integers, rounded towards rest.

use cryptomind_protocol::price::{PriceClass, PricePoint, Utilisation};
use cryptomind_protocol::{Amount, Timestamp};
use serde::{Deserialize, Serialize};

use super::PPM;
use super::sample::Sample;

/// How often a price moves, milliseconds. It is the caller's to keep to it.
pub const INTERVAL_MS: u64 = 60_000;
/// Above this utilisation a price rises, in millionths.
pub const BUSY_PPM: u32 = 700_000;
/// Below this utilisation it falls.
pub const IDLE_PPM: u32 = 450_000;
/// How much it moves for a utilisation that is off by 1, in millionths of the price.
pub const GAIN_PPM: u32 = 60_000;
/// The most that it moves at once, in millionths of the price.
pub const MOVE_MAX_PPM: u32 = 20_000;
/// Weight of a new sample in the average: 1 − exp(−1/5), in millionths.
const SAMPLE_WEIGHT_PPM: u64 = 181_269;

/// What holds for every class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingRule {
    /// What a class costs at first.
    pub start: Amount,
    /// The least that it costs.
    pub floor: Amount,
    /// The most that it costs. Below the floor, the floor holds.
    pub ceiling: Amount,
    /// What one account counts for at most, on either side, in millionths of the supply.
    pub account_share_ppm: u32,
}

/// How a price moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Up, by so many millionths of it.
    Up(u32),
    /// Down.
    Down(u32),
    /// Not at all.
    Rest,
}

impl Move {
    /// What a utilisation asks for.
    pub fn of(utilisation: Utilisation) -> Self {
        if utilisation.at_least_ppm > BUSY_PPM {
            Self::Up(move_ppm(utilisation.at_least_ppm - BUSY_PPM))
        } else if utilisation.at_most_ppm < IDLE_PPM {
            Self::Down(move_ppm(IDLE_PPM - utilisation.at_most_ppm))
        } else {
            Self::Rest
        }
    }

    /// A price after it; a part of a base unit does not count.
    fn apply(self, price: Amount) -> Amount {
        let part = |ppm: u32| price.mul_div(ppm.into(), PPM).unwrap_or(Amount::ZERO);
        let moved = match self {
            Self::Up(ppm) => price.checked_add(part(ppm)),
            Self::Down(ppm) => price.checked_sub(part(ppm)),
            Self::Rest => None,
        };
        moved.unwrap_or(price)
    }
}

fn move_ppm(distance_ppm: u32) -> u32 {
    let wanted = u64::from(distance_ppm) * u64::from(GAIN_PPM) / PPM as u64;
    wanted.min(MOVE_MAX_PPM.into()) as u32
}

fn averaged(before: u32, seen: u32) -> u32 {
    let (old, new) = (PPM as u64 - SAMPLE_WEIGHT_PPM, SAMPLE_WEIGHT_PPM);
    ((u64::from(before) * old + u64::from(seen) * new) / PPM as u64) as u32
}

impl FloatingRule {
    /// A class of which nothing is known yet.
    pub fn first(&self, class: PriceClass, now: Timestamp) -> PricePoint {
        PricePoint {
            at: now,
            class,
            unit_price: self.within(self.start),
            demand_mflops: 0,
            supply_mflops: 0,
            utilisation: Utilisation::UNKNOWN,
        }
    }

    /// A minute later. Times of points grow, even where a clock is set back.
    pub fn next(&self, last: &PricePoint, sample: &Sample, now: Timestamp) -> PricePoint {
        let (before, seen) = (last.utilisation, sample.utilisation);
        let utilisation = Utilisation {
            at_least_ppm: averaged(before.at_least_ppm, seen.at_least_ppm),
            at_most_ppm: averaged(before.at_most_ppm, seen.at_most_ppm),
        };
        PricePoint {
            at: now.max(last.at.plus_ms(1)),
            class: last.class,
            unit_price: self.within(Move::of(utilisation).apply(last.unit_price)),
            demand_mflops: sample.demand_mflops,
            supply_mflops: sample.supply_mflops,
            utilisation,
        }
    }

    /// The price nearest to this one that is not below the floor and not above the ceiling.
    pub fn within(&self, price: Amount) -> Amount {
        price.min(self.ceiling).max(self.floor)
    }
}

#[cfg(test)]
mod tests;
