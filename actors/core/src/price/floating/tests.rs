use super::*;
use cryptomind_protocol::price::PriceClass;
use proptest::prelude::*;

mod hours;

fn units(units: u64) -> Amount {
    Amount::from_base_units(units)
}

const RULE: FloatingRule = FloatingRule {
    start: units_const(10_000_000_000),
    floor: units_const(1_000_000_000),
    ceiling: units_const(100_000_000_000),
    account_share_ppm: 100_000,
};

const fn units_const(units: u64) -> Amount {
    Amount::from_base_units(units)
}

fn used(at_least_ppm: u32, at_most_ppm: u32) -> Utilisation {
    Utilisation {
        at_least_ppm,
        at_most_ppm,
    }
}

fn sample(utilisation: Utilisation) -> Sample {
    Sample {
        demand_mflops: 1,
        supply_mflops: 1,
        utilisation,
    }
}

#[test]
fn between_the_edges_a_price_rests() {
    assert_eq!(Move::of(used(BUSY_PPM, BUSY_PPM)), Move::Rest);
    assert_eq!(Move::of(used(IDLE_PPM, IDLE_PPM)), Move::Rest);
    // Nobody knows, or a single account would have to be believed.
    assert_eq!(Move::of(Utilisation::UNKNOWN), Move::Rest);
    assert_eq!(Move::of(used(BUSY_PPM, Utilisation::MAX_PPM)), Move::Rest);
}

#[test]
fn beyond_them_it_moves_by_the_distance_and_two_percent_at_most() {
    assert_eq!(Move::of(used(800_000, 900_000)), Move::Up(6_000));
    assert_eq!(Move::of(used(1_033_333, 1_100_000)), Move::Up(19_999));
    assert_eq!(Move::of(used(2_000_000, 2_000_000)), Move::Up(MOVE_MAX_PPM));
    assert_eq!(Move::of(used(300_000, 350_000)), Move::Down(6_000));
    assert_eq!(Move::of(used(0, 0)), Move::Down(MOVE_MAX_PPM));
}

#[test]
fn at_its_bounds_it_stays() {
    let full = sample(used(2_000_000, 2_000_000));
    let mut last = RULE.first(PriceClass::ALL[0], Timestamp::from_ms(0));
    for minute in 1..300 {
        last = RULE.next(&last, &full, Timestamp::from_ms(minute * INTERVAL_MS));
    }
    assert_eq!(last.unit_price, RULE.ceiling);
    for minute in 300..600 {
        last = RULE.next(
            &last,
            &sample(used(0, 0)),
            Timestamp::from_ms(minute * INTERVAL_MS),
        );
    }
    assert_eq!(last.unit_price, RULE.floor);
}

#[test]
fn a_clock_that_is_set_back_leaves_the_order() {
    let first = RULE.first(PriceClass::ALL[0], Timestamp::from_ms(1000));
    let next = RULE.next(&first, &sample(used(0, 0)), Timestamp::from_ms(10));
    assert_eq!(next.at, Timestamp::from_ms(1001));
}

#[test]
fn an_average_forgets_by_its_window() {
    // After 5 minutes a step is seen to 1 - 1/e.
    let seen = (0..5).fold(0, |average, _| averaged(average, 1_000_000));
    assert!((632_000..632_200).contains(&seen), "{seen}");
    // What does not change stays, but for the rounding.
    assert!((0..100).fold(450_000, |average, _| averaged(average, 450_000)) >= 449_990);
}

prop_compose! {
    fn utilisation()(a in 0..=Utilisation::MAX_PPM, b in 0..=Utilisation::MAX_PPM) -> Utilisation {
        used(a.min(b), a.max(b))
    }
}

proptest! {
    #[test]
    fn a_move_is_two_percent_at_most_and_within_the_bounds(
        price in 1_000u64..=1 << 60,
        floor in 1_000u64..1 << 40,
        range in 0u64..1 << 60,
        seen in prop::collection::vec(utilisation(), 1..50),
    ) {
        let rule = FloatingRule { start: units(price), floor: units(floor), ceiling: units(floor + range), ..RULE };
        let mut last = rule.first(PriceClass::ALL[0], Timestamp::from_ms(0));
        for (minute, seen) in (1u64..).zip(seen) {
            let next = rule.next(&last, &sample(seen), Timestamp::from_ms(minute * INTERVAL_MS));
            let (before, after) = (last.unit_price.base_units(), next.unit_price.base_units());
            prop_assert!(before.abs_diff(after) as u128 * 50 <= before as u128);
            prop_assert!((rule.floor..=rule.ceiling).contains(&next.unit_price));
            let averaged = next.utilisation;
            prop_assert!(after <= before || averaged.at_least_ppm > BUSY_PPM);
            prop_assert!(after >= before || averaged.at_most_ppm < IDLE_PPM);
            last = next;
        }
    }

    #[test]
    fn a_fuller_market_never_costs_less(a in utilisation(), b in utilisation(), price in 1_000u64..=1 << 60) {
        let fuller = used(a.at_least_ppm.max(b.at_least_ppm), a.at_most_ppm.max(b.at_most_ppm));
        prop_assert!(Move::of(fuller).apply(units(price)) >= Move::of(a).apply(units(price)));
    }
}
