//! The board: what a CU of each class costs now.

use std::collections::BTreeMap;

use cryptomind_protocol::price::{PriceClass, PricePoint};
use cryptomind_protocol::{Amount, Timestamp};

use super::floating::FloatingRule;
use super::sample::Market;

/// The present price of every class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceBoard {
    rule: FloatingRule,
    points: BTreeMap<PriceClass, PricePoint>,
}

impl PriceBoard {
    /// A board that goes on from what was recorded: of each class the latest point counts, and a class without one starts.
    /// Where the rule's bounds have changed, they hold at once.
    pub fn new(
        rule: FloatingRule,
        recorded: impl IntoIterator<Item = PricePoint>,
        now: Timestamp,
    ) -> Self {
        let first = PriceClass::ALL.map(|class| (class, rule.first(class, now)));
        let mut points = BTreeMap::from(first);
        let mut latest = BTreeMap::new();
        for point in recorded {
            let known = latest.entry(point.class).or_insert(point);
            *known = if known.at < point.at { point } else { *known };
        }
        for point in latest.values_mut() {
            point.unit_price = rule.within(point.unit_price);
        }
        points.append(&mut latest);
        Self { rule, points }
    }

    /// Every class as it stands.
    pub fn points(&self) -> impl Iterator<Item = &PricePoint> {
        self.points.values()
    }

    /// What a CU of `class` costs a task that is funded now.
    pub fn unit_price(&self, class: PriceClass) -> Amount {
        let point = self.points.get(&class);
        point.map_or(self.rule.start, |point| point.unit_price)
    }

    /// A minute has passed: every price moves or rests. To be called every [`super::INTERVAL_MS`], and at once after
    /// nothing: time in which nobody looked does not count.
    pub fn tick(&mut self, market: &Market, now: Timestamp) {
        for point in self.points.values_mut() {
            let market = market.at_price(point.unit_price);
            let sample = market.sample(point.class, self.rule.account_share_ppm);
            *point = self.rule.next(point, &sample, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::sample::{Demand, Supplier};
    use cryptomind_protocol::AccountId;
    use cryptomind_protocol::price::{MemoryTier, WorkClass};

    const RULE: FloatingRule = FloatingRule {
        start: Amount::from_base_units(10_000_000),
        floor: Amount::from_base_units(1_000_000),
        ceiling: Amount::from_base_units(100_000_000),
        account_share_ppm: 100_000,
    };

    fn at(minute: u64) -> Timestamp {
        Timestamp::from_ms(1_000_000_000 + minute * 60_000)
    }

    /// Training of 8 GiB is asked for twice over, inference not at all.
    fn market() -> Market {
        let class = PriceClass {
            work: WorkClass::Training,
            memory: MemoryTier::Gib8,
        };
        let account = |n: u8| AccountId::new([n; 20]);
        Market {
            demands: (0..30)
                .map(|n| Demand {
                    client: account(n),
                    class,
                    miners: 16,
                    mflop: 400 * 300,
                })
                .collect(),
            suppliers: (100..130)
                .map(|n| Supplier {
                    owner: account(n),
                    memory: MemoryTier::Gib24,
                    mflops: 200,
                    serves: None,
                    reserve: Amount::ZERO,
                })
                .collect(),
        }
    }

    #[test]
    fn each_class_moves_by_its_own_demand() {
        let mut board = PriceBoard::new(RULE, [], at(0));
        for minute in 1..60 {
            board.tick(&market(), at(minute));
        }
        let price = |text: &str| board.unit_price(text.parse().unwrap());
        assert!(price("training-8g") > RULE.start);
        // What needs more needs this too.
        assert_eq!(price("training-1g"), price("training-8g"));
        // Nobody asks for 24 GiB, and nobody has 80.
        assert!(price("training-24g") < RULE.start);
        assert!(price("inference-8g") < RULE.start);
        assert_eq!(price("training-80g"), RULE.start);
    }

    #[test]
    fn a_restart_goes_on_where_it_was() {
        let mut whole = PriceBoard::new(RULE, [], at(0));
        let mut recorded = Vec::new();
        for minute in 1..30 {
            whole.tick(&market(), at(minute));
            recorded.extend(whole.points().copied());
        }
        recorded.reverse();
        let mut again = PriceBoard::new(RULE, recorded, at(1_000));
        assert_eq!(again, whole);
        again.tick(&market(), at(1_000));
        whole.tick(&market(), at(1_000));
        assert_eq!(again, whole);
    }

    #[test]
    fn new_bounds_hold_at_once() {
        let board = PriceBoard::new(RULE, [], at(0));
        let floor = Amount::from_base_units(20_000_000);
        let raised = FloatingRule { floor, ..RULE };
        let board = PriceBoard::new(raised, board.points().copied(), at(1));
        assert!(board.points().all(|point| point.unit_price == floor));
    }
}
