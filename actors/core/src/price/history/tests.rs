use std::collections::BTreeMap;

use super::*;
use cryptomind_protocol::Amount;
use cryptomind_protocol::price::Utilisation;

fn point(minute: u64) -> PricePoint {
    PricePoint {
        at: Timestamp::from_ms(1_700_000_000_000 + minute * 60_000),
        class: PriceClass::ALL[0],
        unit_price: Amount::from_base_units(minute),
        demand_mflops: 0,
        supply_mflops: 0,
        utilisation: Utilisation::UNKNOWN,
    }
}

/// What a table holds that every point was put into.
fn stored(minutes: impl Iterator<Item = u64>) -> BTreeMap<Vec<u8>, PriceRecord> {
    let records = minutes.flat_map(|minute| PriceRecord::of(point(minute)));
    records.map(|record| (record.key(), record)).collect()
}

fn ring(
    table: &BTreeMap<Vec<u8>, PriceRecord>,
    ring: PriceRing,
    now: Timestamp,
) -> Vec<PricePoint> {
    let of_ring = table.values().filter(|record| record.ring == ring);
    in_order(of_ring.map(|record| record.point).collect(), ring, now)
}

#[test]
fn four_hundred_days_leave_a_day_of_minutes_and_a_year_of_hours() {
    const MINUTES: u64 = 400 * 24 * 60;
    let table = stored(0..MINUTES);
    assert_eq!(
        table.len() as u64,
        PriceRing::Minutes.points() + PriceRing::Hours.points()
    );
    let last = point(MINUTES - 1);
    let minutes = ring(&table, PriceRing::Minutes, last.at);
    let expected: Vec<_> = (MINUTES - 24 * 60..MINUTES).map(point).collect();
    assert_eq!(minutes, expected);
    let hours = ring(&table, PriceRing::Hours, last.at);
    assert_eq!(hours.len() as u64, PriceRing::Hours.points());
    assert_eq!(hours.last(), Some(&last));
    let apart = hours.windows(2).map(|pair| pair[1].at.ms_since(pair[0].at));
    assert!(apart.take(hours.len() - 2).all(|ms| ms == 3_600_000));
}

#[test]
fn what_is_left_of_a_time_long_ago_is_not_shown() {
    let table = stored((0..100).chain(100_000..100_010));
    let minutes = ring(&table, PriceRing::Minutes, point(100_010).at);
    assert_eq!(minutes, (100_000..100_010).map(point).collect::<Vec<_>>());
}

#[test]
fn classes_and_rings_share_no_key() {
    let mut keys = std::collections::BTreeSet::new();
    for class in PriceClass::ALL {
        for record in PriceRecord::of(PricePoint { class, ..point(0) }) {
            assert!(
                record
                    .key()
                    .starts_with(&PriceRecord::prefix(class, record.ring))
            );
            assert!(keys.insert(record.key()));
        }
    }
}
