//! What the same work costs elsewhere: on a card that is rented by the hour.
//!
//! Shown beside a quote, so that a client can compare. The card is taken to run at the speed of the table for as long as the
//! work takes, and to be paid for no longer: what starting, fetching and idling cost comes on top there.

use serde::{Deserialize, Serialize};

/// Milliseconds of an hour.
const HOUR_MS: u128 = 3_600_000;

/// A card and what an hour of it costs. Not tokens: 10⁻⁶ US dollars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RentedCard {
    /// Which, and where, for people.
    pub name: String,
    /// Price of an hour, 10⁻⁶ US dollars.
    pub micro_usd_per_hour: u64,
    /// Speed, 10⁶ floating-point operations a second: above 0.
    pub mflops: u64,
}

/// What a work takes and costs on a rented card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rent {
    /// The card.
    pub name: String,
    /// How long it computes, milliseconds, rounded up.
    pub ms: u64,
    /// What that costs, 10⁻⁶ US dollars, rounded up.
    pub micro_usd: u64,
}

impl RentedCard {
    /// Of so much work, 10⁻⁶ CU (10⁶ floating-point operations).
    pub fn rent(&self, micro_cu: u64) -> Rent {
        let ms = (u128::from(micro_cu) * 1000).div_ceil(u128::from(self.mflops.max(1)));
        let cost = (u128::from(self.micro_usd_per_hour) * ms).div_ceil(HOUR_MS);
        let whole = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Rent {
            name: self.name.clone(),
            ms: whole(ms),
            micro_usd: whole(cost),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_work_costs_an_hour() {
        let card = RentedCard {
            name: "card".into(),
            micro_usd_per_hour: 2_450_000,
            mflops: 19_500_000,
        };
        let hour = card.rent(19_500_000 * 3600);
        assert_eq!((hour.ms, hour.micro_usd), (3_600_000, 2_450_000));
        let moment = card.rent(1);
        assert_eq!((moment.ms, moment.micro_usd), (1, 1), "rounded up");
        assert_eq!(
            card.rent(u64::MAX).micro_usd,
            643_796_623_655_106,
            "no overflow"
        );
    }
}
