use super::*;
use proptest::prelude::*;

const CLASS: PriceClass = PriceClass {
    work: WorkClass::Training,
    memory: MemoryTier::Gib8,
};
const TENTH: u32 = 100_000;

fn account(number: u8) -> AccountId {
    AccountId::new([number; 20])
}

fn demand(client: u8, miners: u32, mflop: u64) -> Demand {
    Demand {
        client: account(client),
        class: CLASS,
        miners,
        mflop,
    }
}

fn supplier(owner: u8, mflops: u64) -> Supplier {
    Supplier {
        owner: account(owner),
        memory: MemoryTier::Gib8,
        mflops,
        serves: None,
        reserve: Amount::ZERO,
    }
}

/// Clients 0 and on with tasks of so many operations, each on as many miners as it takes; owners 100 and on with a miner each.
fn market(tasks: &[u64], speeds: &[u64]) -> Market {
    Market {
        demands: (0..)
            .zip(tasks)
            .map(|(n, mflop)| demand(n, u32::MAX, *mflop))
            .collect(),
        suppliers: (100..)
            .zip(speeds)
            .map(|(n, mflops)| supplier(n, *mflops))
            .collect(),
    }
}

#[test]
fn utilisation_is_demand_over_supply_without_whoever_has_most() {
    let market = market(&[300 * 40; 20], &[100; 20]);
    let sample = market.sample(CLASS, TENTH);
    assert_eq!((sample.demand_mflops, sample.supply_mflops), (800, 2000));
    let utilisation = sample.utilisation;
    assert_eq!(utilisation.at_least_ppm, 19 * 40 * 1_000_000 / 2000);
    assert_eq!(utilisation.at_most_ppm, (800 * 1_000_000 / 1900) as u32);
}

#[test]
fn a_long_task_asks_for_no_more_than_its_miners_do() {
    let mut market = market(&[], &[100; 10]);
    market.demands.push(demand(1, 3, 1_000_000_000));
    assert_eq!(market.sample(CLASS, TENTH).demand_mflops, 300);
}

#[test]
fn an_account_counts_for_a_tenth_of_the_supply() {
    let market = market(&[300 * 1000, 300 * 1000, 300 * 1000], &[100; 20]);
    let sample = market.sample(CLASS, TENTH);
    assert_eq!(sample.demand_mflops, 3000);
    assert_eq!(sample.utilisation.at_least_ppm, 200_000);
    let whole = market.sample(CLASS, 1_000_000);
    assert_eq!(whole.utilisation.at_least_ppm, 1_000_000);
}

#[test]
fn a_miner_serves_its_tier_and_those_below_and_one_kind_at_a_time() {
    let offered = |memory, serves| {
        let miner = Supplier {
            memory,
            serves,
            ..supplier(1, 100)
        };
        let market = Market {
            suppliers: vec![miner],
            ..Market::default()
        };
        market.sample(CLASS, TENTH).supply_mflops
    };
    assert_eq!(offered(MemoryTier::Gib1, None), 0);
    assert_eq!(offered(MemoryTier::Gib80, None), 100);
    assert_eq!(offered(MemoryTier::Gib8, Some(WorkClass::Training)), 100);
    assert_eq!(offered(MemoryTier::Gib8, Some(WorkClass::Inference)), 0);
}

#[test]
fn what_needs_more_memory_counts_below_too() {
    let mut market = market(&[300 * 100], &[100; 10]);
    market.demands[0].class.memory = MemoryTier::Gib24;
    let asked = |memory| {
        market
            .sample(PriceClass { memory, ..CLASS }, TENTH)
            .demand_mflops
    };
    assert_eq!(asked(MemoryTier::Gib1), 100);
    assert_eq!(asked(MemoryTier::Gib24), 100);
    assert_eq!(asked(MemoryTier::Gib80), 0);
    market.demands[0].class.work = WorkClass::Inference;
    assert_eq!(market.sample(CLASS, TENTH).demand_mflops, 0);
}

#[test]
fn nothing_is_known_of_an_empty_market() {
    let utilisation = |market: &Market| market.sample(CLASS, TENTH).utilisation;
    assert_eq!(utilisation(&Market::default()), Utilisation::UNKNOWN);
    // One owner's word is none.
    assert_eq!(utilisation(&market(&[], &[100])), Utilisation::UNKNOWN);
    let unserved = utilisation(&market(&[300, 300], &[]));
    assert_eq!(unserved.at_most_ppm, Utilisation::MAX_PPM);
}

#[test]
fn slow_miners_without_number_make_no_task_smaller() {
    let mut market = market(&[], &[100; 20]);
    market.demands.push(demand(1, 3, 1_000_000_000));
    market
        .suppliers
        .extend((0..10_000).map(|_| supplier(200, 0)));
    market.suppliers.push(supplier(201, u64::MAX));
    assert_eq!(market.sample(CLASS, TENTH).demand_mflops, 300);
}

/// Amounts that are often nothing and sometimes large.
fn amounts(most: usize) -> impl Strategy<Value = Vec<u64>> {
    let amount = prop_oneof![Just(0), 0u64..100_000, 0u64..1 << 40];
    prop::collection::vec(amount, 0..most)
}

/// Speeds of a few miners, none of them nothing.
fn speeds() -> impl Strategy<Value = Vec<u64>> {
    let speed = prop_oneof![1u64..1000, 1u64..1 << 40];
    prop::collection::vec(speed, 1..20)
}

/// Demand over supply, all of both.
fn true_ppm(tasks: &[u64], speeds: &[u64]) -> u32 {
    let demand: u128 = tasks
        .iter()
        .map(|mflop| u128::from(mflop.div_ceil(WINDOW_S)))
        .sum();
    let supply: u128 = speeds.iter().map(|speed| u128::from(*speed)).sum();
    (demand * PPM / supply).min(Utilisation::MAX_PPM.into()) as u32
}

proptest! {
    #[test]
    fn the_order_of_tasks_and_miners_is_irrelevant(
        tasks in amounts(20),
        speeds in amounts(20),
        rotation in 0usize..20,
    ) {
        let straight = market(&tasks, &speeds);
        let mut turned = straight.clone();
        turned.demands.reverse();
        turned.demands.rotate_left(rotation % tasks.len().max(1));
        turned.suppliers.reverse();
        turned.suppliers.rotate_left(rotation % speeds.len().max(1));
        for class in PriceClass::ALL {
            prop_assert_eq!(straight.sample(class, TENTH), turned.sample(class, TENTH));
        }
    }

    #[test]
    fn the_two_figures_have_the_true_one_between_them(tasks in amounts(20), speeds in speeds(), share in 0u32..=1_000_000) {
        let sample = market(&tasks, &speeds).sample(CLASS, share);
        let Utilisation { at_least_ppm, at_most_ppm } = sample.utilisation;
        let exact = true_ppm(&tasks, &speeds);
        prop_assert!(at_least_ppm <= exact && exact <= at_most_ppm && at_most_ppm <= Utilisation::MAX_PPM);
    }

    /// Whatever one account asks for, offers, or both: the market looks no fuller than the others make it, and no emptier.
    #[test]
    fn no_account_makes_the_market_look_fuller_or_emptier(
        tasks in amounts(20),
        speeds in speeds(),
        asked in amounts(3),
        offered in amounts(3),
    ) {
        let others = true_ppm(&tasks, &speeds);
        let mut all = market(&tasks, &speeds);
        all.demands.extend(asked.iter().map(|mflop| demand(255, u32::MAX, *mflop)));
        all.suppliers.extend(offered.iter().map(|mflops| supplier(255, mflops + 1)));
        let sample = all.sample(CLASS, TENTH);
        prop_assert!(sample.utilisation.at_least_ppm <= others);
        prop_assert!(sample.utilisation.at_most_ppm >= others);
    }
}

#[test]
fn who_works_for_more_is_no_supply() {
    let dear = Supplier {
        reserve: Amount::from_base_units(11),
        ..supplier(9, 500)
    };
    let market = Market {
        demands: Vec::new(),
        suppliers: vec![supplier(8, 100), dear],
    };
    let supply = |price| {
        let market = market.at_price(Amount::from_base_units(price));
        market.sample(CLASS, TENTH).supply_mflops
    };
    assert_eq!((supply(10), supply(11)), (100, 600));
}
