//! How much of the market is asked for: what the price of a class rests on.
//!
//! Taken by the matchmaker once a minute, and by simulations. For a class (say, training with 8 GiB):
//!
//! ```text
//! supply      = Σ speed of the miners with 8 GiB or more that work for the price and are free or train already
//! demand      = Σ over funded tasks that wait or run, that train and need 8 GiB or more:
//!               min(what is left of the task / 5 min, its miners · a typical miner's speed)
//! utilisation = demand / supply
//! ```
//!
//! Tiers are nested: who serves a tier serves those below. Such a market can serve everybody just when, for every tier,
//! what needs it or more is no more than what has it or more (Hall's theorem on nested sets); so each class looks at these two.
//! A long task asks for no more than its group can do, or a week's work on one miner would look like a full market.
//!
//! **No account decides.** Whoever wants a price to move could post tasks, or bring miners, or both and pay itself. So
//!
//! - a task that a miner of its own client works on counts for nothing;
//! - the price rises by the demand *without its largest client*, over the whole supply ([`Utilisation::at_least_ppm`]), and
//!   falls by the whole demand over the supply *without its largest owner* ([`Utilisation::at_most_ppm`]);
//! - and there each account counts for a tenth of the whole supply at most ([`super::FloatingRule::account_share_ppm`]).
//!
//! Then nothing that one account adds, on either side or on both, moves the price further than the others' demand over the
//! others' supply does: for any account *i* with demand dᵢ and supply sᵢ,
//! (D − max d) / S ≤ (D − dᵢ) / (S − sᵢ) ≤ D / (S − max s). Where the others' true utilisation lies in the zone of rest, the
//! price rests, whatever *i* does; where it is beyond an edge by less than the largest of them weighs, *i* can take that one's
//! place, and the price moves by that weight (a 200th, with 200 equal accounts). An average with a cap on each account would
//! not do: at an edge of the zone a tenth is enough, and with fewer than ten accounts on a side there is nothing to average.
//!
//! Where few take part the price therefore rests more often: with an account's share at a tenth, it takes nine clients to make
//! it rise. A network of few accounts sets a larger share.

use std::collections::BTreeMap;

use cryptomind_protocol::price::{MemoryTier, PriceClass, Utilisation, WorkClass};
use cryptomind_protocol::{AccountId, Amount};

use super::PPM;

/// Over how long demand and supply are compared, seconds.
pub const WINDOW_S: u64 = 300;

/// What a funded task that waits or runs asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Who pays.
    pub client: AccountId,
    /// What it is paid by.
    pub class: PriceClass,
    /// Miners that it asked for.
    pub miners: u32,
    /// What is left of it, in 10⁶ floating-point operations.
    pub mflop: u64,
}

/// A miner that is online.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supplier {
    /// Who earns.
    pub owner: AccountId,
    /// What it has room for.
    pub memory: MemoryTier,
    /// Measured speed, in 10⁶ floating-point operations a second.
    pub mflops: u64,
    /// What it does now; a free one can do either.
    pub serves: Option<WorkClass>,
    /// The least that it works for, for one CU: where a class costs less, it is no supply of that.
    pub reserve: Amount,
}

/// Demand and supply of all classes at a moment, in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Market {
    /// What is asked for.
    pub demands: Vec<Demand>,
    /// What is offered.
    pub suppliers: Vec<Supplier>,
}

/// A class at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// What funded tasks ask for, in 10⁶ floating-point operations a second.
    pub demand_mflops: u64,
    /// What miners offer, in the same.
    pub supply_mflops: u64,
    /// The one by the other, as the module says.
    pub utilisation: Utilisation,
}

impl Demand {
    /// What it asks for in a second, where a typical miner does so much.
    fn mflops(&self, typical: Option<u64>) -> u128 {
        let over_window = u128::from(self.mflop.div_ceil(WINDOW_S));
        let group = typical.map(|speed| u128::from(speed) * u128::from(self.miners));
        over_window.min(group.unwrap_or(u128::MAX))
    }

    fn counts_for(&self, class: PriceClass) -> bool {
        self.class.work == class.work && self.class.memory >= class.memory
    }
}

impl Supplier {
    fn counts_for(&self, class: PriceClass) -> bool {
        self.memory >= class.memory && self.serves.is_none_or(|work| work == class.work)
    }
}

/// One side of the market: how much each account asks for, or offers.
struct Side(BTreeMap<AccountId, u128>);

impl Side {
    fn of(amounts: impl Iterator<Item = (AccountId, u128)>) -> Self {
        let mut side = BTreeMap::new();
        for (account, amount) in amounts {
            *side.entry(account).or_default() += amount;
        }
        Self(side)
    }

    fn total(&self) -> u128 {
        self.0.values().sum()
    }

    /// Who has most; of equals the last.
    fn largest(&self) -> Option<AccountId> {
        let largest = self.0.iter().max_by_key(|(_, amount)| **amount);
        largest.map(|(account, _)| *account)
    }

    /// Everybody but the largest, each at most `most`.
    fn without_largest(&self, most: u128) -> u128 {
        let largest = self.largest();
        let others = self
            .0
            .iter()
            .filter(|(account, _)| Some(**account) != largest);
        others.map(|(_, amount)| (*amount).min(most)).sum()
    }
}

impl Market {
    /// Only who works for this price.
    pub fn at_price(&self, unit_price: Amount) -> Self {
        let suppliers = self.suppliers.iter().copied();
        Self {
            demands: self.demands.clone(),
            suppliers: suppliers.filter(|s| s.reserve <= unit_price).collect(),
        }
    }

    /// A class as it stands. One account counts for `share_ppm` of the supply at most.
    pub fn sample(&self, class: PriceClass, share_ppm: u32) -> Sample {
        let suppliers: Vec<_> = self
            .suppliers
            .iter()
            .filter(|supplier| supplier.counts_for(class))
            .collect();
        let speeds = suppliers.iter().map(|s| (s.owner, u128::from(s.mflops)));
        let supply = Side::of(speeds);
        let typical = typical_mflops(&suppliers, supply.largest());
        let wanted = self.demands.iter().filter(|d| d.counts_for(class));
        let demand = Side::of(wanted.map(|d| (d.client, d.mflops(typical))));
        let most = supply.total() * u128::from(share_ppm) / PPM;
        Sample {
            demand_mflops: saturated(demand.total()),
            supply_mflops: saturated(supply.total()),
            utilisation: Utilisation {
                at_least_ppm: at_least_ppm(demand.without_largest(most), supply.total()),
                at_most_ppm: at_most_ppm(demand.total(), supply.without_largest(most)),
            },
        }
    }
}

/// The speed of the miner that does the median operation: half of the supply is no faster. Slow miners, however many,
/// hardly move it, and the largest owner does not: nobody makes others' tasks look larger or smaller by bringing miners.
fn typical_mflops(suppliers: &[&Supplier], largest: Option<AccountId>) -> Option<u64> {
    let all = || suppliers.iter().map(|s| (s.mflops, s.owner));
    let others = all().filter(|(_, owner)| Some(*owner) != largest);
    let mut speeds: Vec<u64> = others.map(|(mflops, _)| mflops).collect();
    if speeds.is_empty() {
        speeds = all().map(|(mflops, _)| mflops).collect();
    }
    speeds.sort_unstable();
    let total: u128 = speeds.iter().map(|speed| u128::from(*speed)).sum();
    let mut below = 0;
    speeds.into_iter().find(|speed| {
        below += u128::from(*speed);
        2 * below >= total
    })
}

/// Without supply any demand is too much.
fn at_least_ppm(demand: u128, supply: u128) -> u32 {
    if demand == 0 {
        return 0;
    }
    ratio_ppm(demand, supply)
}

/// Without supply nothing can be said against a high price.
fn at_most_ppm(demand: u128, supply: u128) -> u32 {
    ratio_ppm(demand, supply)
}

fn ratio_ppm(demand: u128, supply: u128) -> u32 {
    let most = u128::from(Utilisation::MAX_PPM);
    let ratio = demand.saturating_mul(PPM).checked_div(supply);
    ratio.map_or(Utilisation::MAX_PPM, |ppm| ppm.min(most) as u32)
}

fn saturated(mflops: u128) -> u64 {
    u64::try_from(mflops).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
