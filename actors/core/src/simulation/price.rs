//! A price that floats in a simulation: many clients that pay no more than their limit, and miners that work for no less than
//! their reserve.
//!
//! The board is the network's own ([`PriceBoard`]), looked at once a virtual minute with the demand of the open runs and the
//! speeds of the miners that work for the present price. Where a scenario says nothing of prices, all is as cheap.

use cryptomind_protocol::price::{MemoryTier, PriceClass, WorkClass};
use cryptomind_protocol::{AccountId, Amount, Timestamp};

use super::scenario::Scenario;
use crate::dice::Dice;
use crate::price::{Demand, FloatingRule, Market, PriceBoard, Supplier};

/// What all tasks of a scenario are paid by: their models are small.
const CLASS: PriceClass = PriceClass {
    work: WorkClass::Training,
    memory: MemoryTier::Gib1,
};
/// How far the price may float, times and parts of what it starts at.
const RANGE: u64 = 100;

/// The price, and what miners want at least.
pub struct Floating {
    board: PriceBoard,
    reserves: Vec<Amount>,
    /// What each client pays for one CU at most.
    limits: Vec<Amount>,
    per_lan: usize,
}

impl Floating {
    /// As a scenario begins; nothing where it says nothing of prices.
    pub fn new(scenario: &Scenario, seed: u64) -> Option<Self> {
        let price = scenario.price.as_ref()?;
        let mut dice = Dice::new(seed).branch(5);
        let start = price.start;
        let reserves = (0..scenario.count()).map(|_| around(start, price.reserve_sigma, &mut dice));
        let reserves = reserves.collect();
        let limits = (0..price.clients).map(|_| around(price.limit, price.limit_sigma, &mut dice));
        let limits = limits.collect();
        let rule = FloatingRule {
            start,
            floor: start.mul_div(1, RANGE.into()).unwrap_or(start),
            ceiling: start.mul_div(RANGE.into(), 1).unwrap_or(start),
            account_share_ppm: price.account_share_ppm,
        };
        Some(Self {
            board: PriceBoard::new(rule, [], Timestamp::from_ms(0)),
            reserves,
            limits,
            per_lan: scenario.miners.per_lan.max(1) as usize,
        })
    }

    /// What one CU costs now.
    pub fn unit_price(&self) -> Amount {
        self.board.unit_price(CLASS)
    }

    /// The least that a miner works for.
    pub fn reserve(&self, miner: usize) -> Amount {
        self.reserves[miner]
    }

    /// Who posts the task of this number, and what it pays for one CU at most.
    pub fn client(&self, task: usize) -> (AccountId, Amount) {
        let client = task % self.limits.len();
        (account(1, client as u64), self.limits[client])
    }

    /// A miner that is online, and what it does. A local network has one owner.
    pub fn supplier(&self, miner: usize, mflops: u64, works: bool) -> Supplier {
        Supplier {
            owner: account(2, (miner / self.per_lan) as u64),
            memory: MemoryTier::Gib1,
            mflops,
            serves: works.then_some(WorkClass::Training),
            reserve: self.reserves[miner],
        }
    }

    /// A minute has passed.
    pub fn tick(&mut self, demands: Vec<Demand>, suppliers: Vec<Supplier>, now: Timestamp) {
        let market = Market { demands, suppliers };
        self.board.tick(&market, now);
    }
}

/// Lognormal: half are below the median.
fn around(median: Amount, sigma: f64, dice: &mut Dice) -> Amount {
    let median = median.base_units() as f64;
    Amount::from_base_units((median * dice.factor(sigma)) as u64)
}

fn account(side: u8, number: u64) -> AccountId {
    let mut bytes = [side; 20];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    AccountId::new(bytes)
}
