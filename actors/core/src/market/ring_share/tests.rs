use cryptomind_protocol::speed::SpeedBasis;
use cryptomind_protocol::task::Quote;
use cryptomind_protocol::{AccountId, Amount, NodeId, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::market::candidate::{Ability, Availability};
use crate::market::link::{Links, Measure, Party};
use crate::market::{Known, quote};
use crate::price::fixture::{terms, training};

const NOW: Timestamp = Timestamp::from_ms(1_000);

/// So many free miners, all as fast, each pair joined by such a link.
fn neighbours(count: u8, bytes_per_s: u64) -> (Vec<Known>, Surroundings) {
    let mut links = Links::default();
    let party = |n: u8| Party::Node(NodeId::new([n; 32]));
    let measure = Measure {
        rtt_us: 200,
        bytes_per_s: Some(bytes_per_s),
    };
    for a in 1..=count {
        for b in (1..=count).filter(|b| *b != a) {
            links.report(party(a), party(b), measure, NOW);
        }
    }
    let around = Surroundings {
        links: links.table(NOW).into(),
        stores: Vec::new(),
    };
    (miners(count), around)
}

fn miners(count: u8) -> Vec<Known> {
    let known = |n: u8| Known {
        candidate: Candidate {
            node: NodeId::new([n; 32]),
            availability: Availability::Free,
            strikes: 0,
            ability: Ability::new(10, 3_500),
            unit_price: Amount::ZERO,
        },
        name: format!("miner-{n}"),
        owner: AccountId::new([n; 20]),
        basis: SpeedBasis::Runs { count: 1 },
    };
    (1..=count).map(known).collect()
}

fn asked(miners: u32, wire: Wire) -> TaskSpec {
    asking(&training(), wire, miners)
}

fn quoted(spec: &TaskSpec, bytes_per_s: u64) -> Quote {
    let (miners, around) = neighbours(4, bytes_per_s);
    quote(spec, &terms(), &miners, &around, None)
}

/// What is said of the ring, if anything is.
fn said(quote: &Quote) -> Option<&String> {
    quote.notes.iter().find(|note| note.contains("in the ring"))
}

/// The slowest link, of these, at which a group of four would spend no more than a fifth in the ring.
fn slowest_that_does(spec: &TaskSpec) -> u64 {
    let does = |rate: &u64| quoted(spec, *rate).ring_share_ppm.unwrap() <= MUCH_PPM;
    (10..40).map(|power| 1 << power).find(does).unwrap()
}

#[test]
fn of_a_fast_ring_the_share_is_told_and_nothing_advised() {
    let spec = asked(4, Wire::F32);
    let quote = quoted(&spec, 1 << 40);
    let share = quote.ring_share_ppm.unwrap();
    assert!((1..=MUCH_PPM).contains(&share), "{share}");
    assert_eq!((said(&quote), &quote.ring_advice[..]), (None, &[][..]));
}

#[test]
fn of_a_slow_ring_the_quote_says_what_would_help_and_it_does() {
    let spec = asked(4, Wire::F32);
    // A little too slow for f32.
    let rate = slowest_that_does(&spec) / 2;
    let slow = quoted(&spec, rate);
    assert!(slow.ring_share_ppm.unwrap() > MUCH_PPM);
    assert!(!slow.ring_advice.is_empty());
    let note = said(&slow).unwrap();
    assert!(note.contains("more than a fifth: "), "{note}");
    for advice in &slow.ring_advice {
        let other = quoted(&asked(advice.miners, advice.wire), rate);
        assert_eq!(other.ring_share_ppm, Some(advice.share_ppm));
        assert_eq!(other.time_p50_ms, Some(advice.time_p50_ms));
        assert!(advice.share_ppm <= MUCH_PPM);
        assert_eq!((said(&other), other.ring_advice.len()), (None, 0));
    }
    let int8 = slow.ring_advice.iter().find(|a| a.wire == Wire::Int8);
    assert_eq!(int8.map(|advice| advice.miners), Some(4));
    assert!(note.contains("wire = \"int8\" makes it"), "{note}");
}

#[test]
fn the_largest_smaller_group_that_helps_is_named() {
    let mut named = Vec::new();
    for power in 10..40 {
        let slow = quoted(&asked(4, Wire::Int8), 1 << power);
        let Some(note) = said(&slow) else { continue };
        // Nothing is coarser than int8.
        assert!(
            slow.ring_advice
                .iter()
                .all(|a| a.wire == Wire::Int8 && a.miners < 4)
        );
        for advice in &slow.ring_advice {
            assert!(note.contains(&format!("{} miners make it", advice.miners)));
            let more = quoted(&asked(advice.miners + 1, Wire::Int8), 1 << power);
            assert!(more.ring_share_ppm.unwrap() > MUCH_PPM);
        }
        named.extend(slow.ring_advice.iter().map(|a| a.miners));
    }
    assert!(!named.is_empty());
}

#[test]
fn where_nothing_helps_it_says_so() {
    let slow = quoted(&asked(4, Wire::F32), 1 << 10);
    assert!(slow.ring_advice.is_empty());
    let note = said(&slow).unwrap();
    assert!(note.contains("neither another wire format"), "{note}");
}

#[test]
fn a_miner_alone_waits_for_no_ring_and_of_unknown_links_nothing_is_said() {
    let alone = quoted(&asked(1, Wire::F32), 1 << 10);
    assert_eq!((alone.ring_share_ppm, said(&alone)), (None, None));
    let unknown = Surroundings::default();
    let unknown = quote(&asked(3, Wire::F32), &terms(), &miners(3), &unknown, None);
    assert_eq!((unknown.ring_share_ppm, said(&unknown)), (None, None));
}

proptest! {
    #[test]
    fn it_is_a_part_of_a_whole(step_us: u64, sync_us: u64) {
        let spec = asked(1, Wire::F32);
        let (miners, around) = (miners(1), Surroundings::default());
        let candidates: Vec<_> = miners.iter().map(|known| known.candidate).collect();
        let expected = select(&Wanted::of(&spec, &terms()), &candidates, &around).expectation;
        let expected = Expectation { step_us, sync_us, ..expected.unwrap() };
        let share = ring_share_ppm(&expected);
        prop_assert!(share <= 1_000_000);
        prop_assert_eq!(share > 0, u128::from(sync_us) * PPM >= u128::from(step_us) + u128::from(sync_us) && sync_us > 0);
    }

    #[test]
    fn the_largest_that_helps_is_found(miners in 0u32..70, most in 0u32..80) {
        let of = |miners| RingAdvice { wire: Wire::F32, miners, share_ppm: 0, time_p50_ms: 0 };
        let found = largest(miners, |n| (n <= most).then(|| of(n))).map(|advice| advice.miners);
        let expected = (2..miners).rev().find(|n| *n <= most);
        prop_assert_eq!(found, expected);
    }
}
