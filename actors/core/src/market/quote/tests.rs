use super::*;
use crate::market::Ability;
use crate::price::fixture::{terms, training};
use cryptomind_protocol::Amount;

fn known(n: u8, mflops: u64, availability: Availability) -> Known {
    Known {
        candidate: Candidate {
            node: NodeId::new([n; 32]),
            availability,
            strikes: 0,
            ability: Ability::new(mflops, 3500),
            unit_price: Amount::ZERO,
        },
        name: format!("miner-{n}"),
        owner: AccountId::new([n; 20]),
        basis: SpeedBasis::Runs { count: 1 },
    }
}

fn quote_of(spec: &TaskSpec, miners: &[Known]) -> Quote {
    quote(spec, &terms(), miners, &Surroundings::default(), None)
}

const FREE: Availability = Availability::Free;
const BUSY: Availability = Availability::Busy;

#[test]
fn it_names_the_group_that_would_be_chosen_and_what_became_of_the_rest() {
    let miners = [
        known(1, 9_000, BUSY),
        known(2, 1_000, FREE),
        known(3, 3_000, FREE),
        known(4, 2_000, FREE),
        known(5, 500, FREE),
    ];
    let quote = quote_of(&training(), &miners);
    let ranks: Vec<_> = quote
        .candidates
        .iter()
        .map(|c| (c.name.as_str(), c.rank))
        .collect();
    let chosen: std::collections::BTreeSet<_> = ranks[..3].iter().map(|(name, _)| *name).collect();
    assert_eq!(chosen, ["miner-2", "miner-3", "miner-4"].into());
    assert_eq!(ranks[0].1, Some(0));
    assert_eq!(ranks[3..], [("miner-5", None), ("miner-1", None)]);
    assert!(quote.candidates[4].reason.contains("another group"));
    assert!(quote.time_p50_ms.unwrap() < quote.time_p95_ms.unwrap());
    assert!(quote.cost_low <= quote.cost_high);
    assert!(
        quote.notes[1].contains("3 of them known from runs"),
        "{:?}",
        quote.notes
    );
}

#[test]
fn it_expects_what_the_choice_expects() {
    let miners = [
        known(1, 900, FREE),
        known(2, 1_000, FREE),
        known(3, 3_000, FREE),
    ];
    let quote = quote_of(&training(), &miners);
    let wanted = Wanted::of(&training(), &terms());
    let candidates: Vec<_> = miners.iter().map(|known| known.candidate).collect();
    let report = select(&wanted, &candidates, &Surroundings::default());
    assert_eq!(quote.time_p50_ms, report.expectation.map(|e| e.p50_ms));
}

#[test]
fn where_too_few_are_free_it_says_how_long_it_would_take_then() {
    let miners = [
        known(1, 900, BUSY),
        known(2, 100, FREE),
        known(3, 300, FREE),
    ];
    let quote = quote_of(&training(), &miners);
    assert!(quote.time_p50_ms.is_some());
    assert!(quote.candidates.iter().all(|c| c.rank.is_some()));
    let waits = quote.notes.last().unwrap();
    assert!(
        waits.contains("3 are online and 2 could begin now"),
        "{waits}"
    );
}

#[test]
fn where_nobody_could_it_says_so() {
    let quote = quote_of(&training(), &[]);
    assert_eq!((quote.time_p50_ms, quote.time_p95_ms), (None, None));
    assert!(quote.notes[0].contains("cannot be said"));
    let offline = [1, 2, 3].map(|n| known(n, 100, Availability::Offline));
    assert_eq!(quote_of(&training(), &offline).time_p50_ms, None);
}

#[test]
fn a_cap_that_is_too_low_is_named() {
    let mut poor = training();
    poor.max_cost = Amount::from_base_units(1);
    let quote = quote_of(&poor, &[known(1, 100, FREE)]);
    let cap = quote.notes.last().unwrap();
    assert!(cap.contains(&terms().cost_high.to_string()), "{cap}");
}
