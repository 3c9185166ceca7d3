//! Who is asked, and who is not.

use cryptomind_protocol::Timestamp;

use super::*;
use crate::market::link::{Links, Measure, Party};
use crate::market::select::Preference;
use crate::market::speed::WorkKind;
use crate::market::workload::Workload;

const NOW: Timestamp = Timestamp::from_ms(1);
const RATING: u32 = 3_500;
const PRICE: Amount = Amount::from_base_units(1_000);

fn node(n: usize) -> NodeId {
    let mut bytes = [0; NodeId::LEN];
    bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
    NodeId::new(bytes)
}

/// Number n computes n + 1 times as fast as number 0.
fn crowd(count: usize) -> FreeMiners {
    let mut free = FreeMiners::default();
    for n in 0..count {
        free.enter(node(n), Ability::new(n as u64 + 1, RATING));
    }
    free
}

fn wanted(miners: usize) -> Wanted {
    Wanted {
        workload: Workload {
            kind: WorkKind::Train,
            flops: 1_000_000_000_000,
            steps: 100,
            parameters: 10_000_000,
            gradient_bytes: 40_000_000,
            checkpoints: 1,
            checkpoint_bytes: 1_000,
            result_bytes: 1_000,
            memory_bytes: 1_000,
        },
        miners,
        preference: Preference::Balanced,
        rating_floor_milli: 0,
        strikes: 2,
        work_cap: Amount::from_base_units(u64::MAX),
    }
}

fn asked(free: &FreeMiners, wanted: &Wanted, seed: u64) -> Vec<NodeId> {
    skipping(free, wanted, seed, &|_| false)
}

fn skipping(
    free: &FreeMiners,
    wanted: &Wanted,
    seed: u64,
    skip: &dyn Fn(&NodeId) -> bool,
) -> Vec<NodeId> {
    let asking = Asking {
        wanted,
        unit_price: PRICE,
        skip,
        around: &Surroundings::default(),
    };
    free.shortlist(&asking, &mut Dice::new(seed))
}

#[test]
fn few_are_all_asked() {
    let free = crowd(ALL);
    assert_eq!(asked(&free, &wanted(1), 1).len(), ALL);
    let but_one = skipping(&free, &wanted(1), 1, &|n| *n == node(3));
    assert_eq!(but_one.len(), ALL - 1);
    assert!(asked(&FreeMiners::default(), &wanted(1), 1).is_empty());
}

#[test]
fn of_many_the_best_are_asked_and_some_by_lot() {
    let free = crowd(10_000);
    let (first, again) = (asked(&free, &wanted(1), 1), asked(&free, &wanted(1), 1));
    assert_eq!(first, again, "a seed decides");
    assert_eq!(first.len(), asked_for(1));
    let best: Vec<_> = (9_994..10_000).rev().map(node).collect();
    assert_eq!(first[..6], best);
    let others = |seed| asked(&free, &wanted(1), seed)[6..].to_vec();
    assert_ne!(others(1), others(2));
    assert!(others(3).iter().all(|n| *n < node(9_994)));
}

#[test]
fn everybody_is_drawn_sooner_or_later() {
    let free = crowd(100);
    let lists = (0..2_000).flat_map(|seed| asked(&free, &wanted(1), seed));
    let seen: BTreeSet<NodeId> = lists.collect();
    assert_eq!(seen.len(), 100);
}

#[test]
fn only_whoever_passes_the_gates_is_asked_and_none_twice() {
    let mut free = crowd(1_000);
    for n in 500..1_000 {
        let mut dear = Ability::new(n as u64 + 1, RATING);
        dear.reserve = Amount::from_base_units(1_001);
        free.enter(node(n), dear);
    }
    for seed in 0..50 {
        let list = skipping(&free, &wanted(3), seed, &|n| *n == node(499));
        assert_eq!(list.len(), asked_for(3));
        assert!(list.iter().all(|n| *n < node(499)));
        assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
    }
}

#[test]
fn whoever_left_is_asked_no_more_and_whoever_is_left_can_still_be_drawn() {
    let mut free = crowd(200);
    (0..200).step_by(2).for_each(|n| free.leave(&node(n)));
    free.leave(&node(0));
    assert_eq!(free.len(), 100);
    let lists = (0..2_000).flat_map(|seed| asked(&free, &wanted(1), seed));
    let seen: BTreeSet<NodeId> = lists.collect();
    assert_eq!(seen, (1..200).step_by(2).map(node).collect());
    (0..200).for_each(|n| free.leave(&node(n)));
    assert!(free.is_empty() && asked(&free, &wanted(1), 1).is_empty());
}

#[test]
fn where_all_others_are_skipped_the_last_are_found() {
    let free = crowd(5_000);
    let list = skipping(&free, &wanted(1), 7, &|n| *n >= node(3));
    assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), 3);
}

/// A neighbourhood of slow miners is the better group, as its exchange is short; by speed alone nobody would ask it.
#[test]
fn for_a_group_its_neighbourhood_is_asked() {
    let mut free = FreeMiners::default();
    let mut links = Links::default();
    for n in 0..300 {
        free.enter(node(n), Ability::new(50_000 + 100 * n as u64, RATING));
        for peer in n + 1..n + 8 {
            let in_lan = n / 8 == peer / 8 && n < 8;
            let measure = Measure {
                rtt_us: if in_lan { 300 } else { 60_000 },
                bytes_per_s: Some(if in_lan { 110_000_000 } else { 2_000_000 }),
            };
            let (a, b) = (Party::Node(node(n)), Party::Node(node(peer)));
            links.report(a, b, measure, NOW);
            links.report(b, a, measure, NOW);
        }
    }
    let around = Surroundings {
        links: links.table(NOW).into(),
        stores: Vec::new(),
    };
    let wanted = wanted(4);
    let asking = Asking {
        wanted: &wanted,
        unit_price: PRICE,
        skip: &|_| false,
        around: &around,
    };
    let list = free.shortlist(&asking, &mut Dice::new(1));
    assert_eq!(list.len(), asked_for(4));
    let in_lan = list.iter().filter(|n| **n < node(8)).count();
    assert!(in_lan >= 4, "{in_lan} of the neighbourhood");
}

#[test]
fn a_better_rating_counts_as_speed_does() {
    let mut free = crowd(100);
    free.enter(node(500), Ability::new(90, 5_000));
    assert_eq!(asked(&free, &wanted(1), 1)[0], node(500));
}
