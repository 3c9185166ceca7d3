use std::sync::LazyLock;

use cryptomind_protocol::{Amount, NodeId};
use proptest::prelude::*;

use super::*;
use crate::market::speed::WorkKind;
use crate::market::{
    Ability, Availability, Candidate, Preference, Surroundings, Wanted, Workload, select,
};

/// Three seeds, played once for all tests.
static REPORT: LazyLock<Report> = LazyLock::new(|| of(3));

fn of(seeds: u64) -> Report {
    let played: Vec<_> = (0..seeds).map(OfSeed::play).collect();
    Report::of(&played)
}

#[test]
fn honesty_pays_best() {
    let report = &*REPORT;
    assert_eq!(report.misses(), Vec::<String>::new());
    assert!(report.cheat_gain_max < 0.0, "{report:#?}");
    assert!(report.overhead_max_ppm <= 60_000);
    for row in &report.policies {
        let is_wrong = row.wrong > 0.0;
        let computes = matches!(
            row.policy,
            Policy::Honest | Policy::Late | Policy::ForgedSpeed
        );
        assert_eq!(is_wrong, !computes, "{row:?}");
        assert!(
            row.wrong_max.is_none_or(|most| row.wrong <= most),
            "{row:?}"
        );
        // The simulation is about something: who is wrong is found, who is not is not.
        assert_eq!(row.excluded > 0, is_wrong, "{row:?}");
    }
}

#[test]
fn honest_miners_whose_hardware_errs_stay() {
    let honest = REPORT.honest;
    assert_eq!(honest.tasks, 300_000);
    // One in ten thousand of paid tasks and checks.
    assert!((15..55).contains(&honest.errors), "{honest:?}");
    assert!(honest.verdicts <= 5, "{honest:?}");
    assert_eq!((honest.excluded, honest.rested), (0, 0));
}

#[test]
fn colluding_second_checkers_neither_harm_nor_help() {
    for colluded in REPORT.colluders {
        assert_eq!(colluded.cases, 30_000);
        assert_eq!(colluded.honest_punished, 0, "{colluded:?}");
        assert!(colluded.wrongdoers > 14_000);
        // Four witnesses in a row collude in 0.3⁴ of all cases.
        assert!(
            (1_000..20_000).contains(&colluded.let_off_ppm()),
            "{colluded:?}"
        );
        assert!(colluded.checks_to_be_found().unwrap() < 6.0, "{colluded:?}");
    }
}

#[test]
fn a_thousand_fresh_keys_are_worth_one() {
    let fresh = REPORT.fresh_keys;
    assert_eq!((fresh.keys, fresh.seats), (1_000, 0));
    // They do get work, and it is all that one owner may have.
    assert!(fresh.paid_wrong > 0, "{fresh:?}");
    assert!(
        (500_000..=1_000_000).contains(&fresh.exposed_max_ppm),
        "{fresh:?}"
    );
}

/// So that the bars above can fail.
#[test]
fn without_checks_cheating_pays() {
    for policy in [
        Policy::WrongAlways,
        Policy::WrongOneInTen,
        Policy::WrongOnLargest,
    ] {
        let unchecked = |policy| {
            let setup = Setup {
                checks: false,
                ..setup(policy)
            };
            play(setup, 1)
        };
        let (wrong, honest) = (unchecked(policy), unchecked(Policy::Honest));
        let gained = gain(&wrong.books[8..], &honest.books[8..]);
        assert!(gained > 1.0, "{policy:?} {gained}");
        assert_eq!(wrong.checked, 0);
    }
}

#[test]
fn equal_seeds_play_alike_and_others_do_not() {
    let played = |seed| {
        let setup = Setup {
            tasks: 500,
            ..setup(Policy::WrongOneInTen)
        };
        play(setup, seed)
    };
    assert_eq!(played(1), played(1));
    assert_ne!(played(1), played(2));
}

#[test]
fn all_tasks_are_done_and_paid_once() {
    for policy in [Policy::Honest, Policy::Late, Policy::WrongAlways] {
        let played = play(setup(policy), 0);
        assert_eq!(played.tasks, 10_000, "{policy:?}");
        let received: u64 = played.books.iter().map(|books| books.received).sum();
        assert_eq!(received, played.paid, "{policy:?}");
    }
}

#[test]
fn each_bar_that_is_missed_is_said() {
    let good = &*REPORT;
    let missed = |change: &dyn Fn(&mut Report)| {
        let mut report = good.clone();
        report.policies.iter_mut().for_each(|row| {
            row.gain = row.gain.map(|_| -1.0);
            row.overhead_ppm = 50_000;
            row.wrong = 0.0;
        });
        change(&mut report);
        report.misses()
    };
    assert_eq!(missed(&|_| ()), Vec::<String>::new());
    assert_eq!(
        missed(&|report| report.policies[1].gain = Some(0.0)),
        ["wrong_always gains 0.00 tasks' pay"]
    );
    let says = |change: &dyn Fn(&mut Report), text: &str| {
        let missed = missed(change);
        assert!(missed.len() == 1 && missed[0].contains(text), "{missed:?}");
    };
    says(&|report| report.policies[2].wrong = 1e6, "the checks imply");
    says(&|report| report.policies[0].overhead_ppm = 60_001, "6.00 %");
    says(
        &|report| report.honest.excluded = 1,
        "1 honest miners were excluded",
    );
    says(&|report| report.honest.rested = 1, "had to rest");
    says(
        &|report| report.colluders[0].honest_punished = 1,
        "punished",
    );
    says(&|report| report.colluders[1].let_off = 9_000, "let off");
    says(
        &|report| report.colluders[1].excluded = 0,
        "no colluder was found",
    );
    says(&|report| report.fresh_keys.seats = 1, "second checks");
    says(
        &|report| report.fresh_keys.exposed_max_ppm = 1_000_001,
        "cap",
    );
}

#[test]
fn a_rarer_check_implies_more_wrong_results() {
    assert!((bound(1_000_000, 40) - 3.0).abs() < 1e-9);
    assert!(bound(500_000, 40) > 6.0 && bound(500_000, 40) < 7.5);
    assert!(bound(20_000, 40) > 150.0 && bound(20_000, 40) < 200.0);
    assert!(bound(20_000, 4_000) < bound(20_000, 40));
}

/// One miner is wanted, all cost the same, and no links are known.
fn chosen(miners: &[(u64, u32)]) -> usize {
    let wanted = Wanted {
        workload: Workload {
            kind: WorkKind::Train,
            flops: 1_000_000_000_000,
            steps: 100,
            parameters: 0,
            gradient_bytes: 0,
            checkpoints: 1,
            checkpoint_bytes: 0,
            result_bytes: 0,
            memory_bytes: 0,
        },
        miners: 1,
        preference: Preference::Balanced,
        rating_floor_milli: 0,
        strikes: 3,
        work_cap: Amount::from_base_units(u64::MAX),
    };
    let candidates = miners
        .iter()
        .enumerate()
        .map(|(at, (mflops, milli))| Candidate {
            node: NodeId::new([at as u8; 32]),
            availability: Availability::Free,
            strikes: 0,
            ability: Ability::new(*mflops, *milli),
            unit_price: Amount::from_base_units(1),
        });
    let candidates: Vec<_> = candidates.collect();
    let report = select(&wanted, &candidates, &Surroundings::default());
    report.chosen[0].as_bytes()[0].into()
}

proptest! {
    /// The choice by believed speed times rating stands in for the market's.
    #[test]
    fn the_choice_is_the_markets(miners in prop::collection::vec((1_000u64..100_000, 100u32..5_000), 1..10)) {
        let worth = |at: usize| u128::from(miners[at].0) * u128::from(miners[at].1);
        let best = (0..miners.len()).map(worth).max().unwrap();
        let found = worth(chosen(&miners));
        // Times are floating point numbers: equals within rounding.
        prop_assert!(found * 1_000_000 >= best * 999_999, "{} {}", found, best);
    }
}
