use cryptomind_protocol::{AccountId, Amount};
use proptest::prelude::*;
use statrs::function::beta::inv_beta_reg;

use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);
const DONE: Evidence = Evidence::Done { agreed: true };
const DAY_MS: u64 = 24 * HOUR_MS;

fn wrong() -> Evidence {
    Evidence::Wrong {
        reason: "the second checker agrees with the first".into(),
    }
}

fn stars(stars: u8, ctm: u64) -> Evidence {
    Evidence::Stars {
        stars,
        paid: Amount::from_base_units(ctm * BASE_UNITS_PER_CTM),
        rater: AccountId::new([1; 20]),
        credibility_ppm: 1_000_000,
    }
}

fn speed(achieved_mflops: u64) -> Evidence {
    Evidence::Speed {
        achieved_mflops,
        promised_mflops: 1_000,
    }
}

fn of(evidence: &[Evidence]) -> Rating {
    let mut rating = Rating::default();
    evidence.iter().for_each(|piece| rating.hear(piece, NOW));
    rating
}

fn mean(evidence: &[Evidence]) -> u32 {
    of(evidence).score(NOW).mean_milli
}

#[test]
fn a_newcomer_is_shown_in_the_middle_and_counts_for_little() {
    let score = Rating::default().score(NOW);
    assert_eq!(score.mean_milli, NEWCOMER_MILLI);
    assert_eq!(score.low_milli, NEWCOMER_LOW_MILLI);
    assert!(mean(&[DONE]) > NEWCOMER_MILLI);
    assert!(mean(&[failed("silent for 1.5 s")]) <= NEWCOMER_MILLI - 300);
}

#[test]
fn what_is_shown_and_what_counts_meet_as_it_is_known() {
    let of_runs = |runs: usize| of(&vec![DONE; runs]).score(NOW);
    let (few, many) = (of_runs(5), of_runs(300));
    assert!(few.low_milli > 3 * NEWCOMER_LOW_MILLI, "{few:?}");
    assert!(many.mean_milli - many.low_milli < 200, "{many:?}");
    assert!(many.low_milli > 4_500, "{many:?}");
}

#[test]
fn a_wrong_answer_weighs_as_eight_right_ones_and_squared() {
    let mut evidence = vec![DONE; 30];
    let before = mean(&evidence);
    evidence.push(wrong());
    let (after, parts) = (mean(&evidence), of(&evidence).score(NOW).parts);
    // (4 + 30) of 43 instead of 35.
    assert_eq!(parts.correctness.mean_ppm, 790_698);
    let expected = (34.0f64 / 43.0).powi(2) / (34.0f64 / 35.0).powi(2);
    let found = f64::from(after) / f64::from(before);
    assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
}

#[test]
fn leaving_with_notice_is_a_quarter_of_a_failure() {
    let bad = |evidence: &[Evidence]| {
        let mean = f64::from(of(evidence).score(NOW).parts.delivery.mean_ppm) / PPM;
        4.0 / mean - 5.0
    };
    let (left, failure) = (bad(&[Evidence::Left {}]), bad(&[failed("gone")]));
    assert!((left - 0.25).abs() < 1e-4 && (failure - 1.0).abs() < 1e-4);
}

#[test]
fn the_median_of_speeds_counts_and_a_promise_that_is_outdone_little() {
    let of_speeds = |all: &[u64]| {
        let evidence: Vec<_> = all.iter().map(|mflops| speed(*mflops)).collect();
        of(&evidence).score(NOW).parts.speed_ppm
    };
    assert_eq!(of_speeds(&[]), 1_000_000);
    assert_eq!(of_speeds(&[900, 100, 1_000]), 900_000);
    assert_eq!(of_speeds(&[9_000, 9_000, 1_000]), 1_100_000);
    // Ten times the claim: a tenth of the rating, once it has run.
    assert_eq!(of_speeds(&[100; 30]), 100_000);
    let long_ago = [[100; 20], [1_000; 20]].concat();
    assert_eq!(of_speeds(&long_ago), 1_000_000, "it runs as promised now");
}

/// A node that claims ten times its speed counts for a tenth where miners are compared.
#[test]
fn a_forged_speed_gains_nothing() {
    let honest = of(&[vec![DONE; 10], vec![speed(1_000); 10]].concat());
    let forged = of(&[vec![DONE; 10], vec![speed(100); 10]].concat());
    let worth = |rating: &Rating, claimed: u32| claimed * rating.score(NOW).low_milli;
    assert!(worth(&forged, 10) <= worth(&honest, 1) * 101 / 100);
}

#[test]
fn votes_move_little_however_many_there_are() {
    let done = vec![DONE; 20];
    let with = |vote: Evidence| mean(&[done.clone(), vec![vote; 100_000]].concat());
    let without = mean(&done);
    let (loved, hated) = (with(stars(5, 1_000)), with(stars(1, 1_000)));
    assert!(loved * 20 <= without * 21, "{loved} of {without}");
    assert!(hated * 12 >= without * 11, "{hated} of {without}");
    // Friends pay each other a hundredth of a token: ten of them weigh as much as one vote for a token.
    let small = Evidence::Stars {
        stars: 5,
        paid: Amount::from_base_units(BASE_UNITS_PER_CTM / 100),
        rater: AccountId::new([2; 20]),
        credibility_ppm: 1_000_000,
    };
    let (ten, one) = (of(&vec![small; 10]), of(&[stars(5, 1)]));
    assert_eq!(ten.stars_milli(NOW), one.stars_milli(NOW));
}

#[test]
fn the_best_rating_is_five_stars() {
    let all = [
        vec![DONE; 5_000],
        vec![speed(2_000); 15],
        vec![stars(5, 1_000); 500],
    ];
    assert_eq!(mean(&all.concat()), BEST_MILLI);
}

#[test]
fn it_fades_to_a_newcomers() {
    let mut rating = of(&[vec![DONE; 50], vec![failed("gone"); 10], vec![wrong()]].concat());
    let later = |days: u64| rating.score(NOW.plus_ms(days * DAY_MS));
    assert_ne!(later(30), rating.score(NOW));
    assert_eq!(later(20_000).mean_milli, NEWCOMER_MILLI);
    assert_eq!(later(20_000).low_milli, NEWCOMER_LOW_MILLI);
    // Within the hour it is the same.
    let hour_ends = (hour(NOW) + 1) * HOUR_MS - 1;
    assert_eq!(
        rating.score(Timestamp::from_ms(hour_ends)),
        rating.score(NOW)
    );
    rating.hear(&DONE, NOW.plus_ms(DAY_MS));
    assert_eq!(rating.last_change, "saw a run through, and others agreed");
}

/// A new key hides nothing, a good name covers nothing.
#[test]
fn a_node_is_rated_as_the_lower_one_of_itself_and_its_owner() {
    let (veteran, newcomer) = (of(&vec![DONE; 100]), Rating::default());
    let seen = view(&newcomer, &veteran, NOW);
    assert_eq!(seen.low_milli, NEWCOMER_LOW_MILLI);
    let mut owner = veteran.clone();
    (0..3).for_each(|_| owner.hear(&wrong(), NOW));
    let seen = view(&veteran, &owner, NOW);
    assert!(seen.rating_milli < veteran.score(NOW).mean_milli);
    assert_eq!(seen.rating_milli, owner.score(NOW).mean_milli);
}

#[test]
fn three_wrong_answers_within_90_days_exclude_an_owner() {
    let excluded_at = |days: &[u64], now: u64| {
        let mut owner = Rating::default();
        let at = |day: u64| NOW.plus_ms(day * DAY_MS);
        days.iter().for_each(|day| owner.hear(&wrong(), at(*day)));
        view(&Rating::default(), &owner, at(now)).bar
    };
    assert_eq!(excluded_at(&[0, 40], 40), None);
    let Some(Bar::Excluded { wrong, until }) = excluded_at(&[0, 40, 80], 80) else {
        panic!("it is not excluded");
    };
    assert_eq!((wrong, until), (3, NOW.plus_ms(90 * DAY_MS)));
    assert_eq!(excluded_at(&[0, 40, 80], 90), None, "the first is forgiven");
    assert_eq!(excluded_at(&[0, 40, 100], 100), None);
    assert!(excluded_at(&[0, 40, 100, 120], 120).is_some());
}

#[test]
fn who_fails_again_and_again_rests() {
    let rating = of(&vec![failed("silent for 1.5 s"); 4]);
    let seen = view(&rating, &rating, NOW);
    let Some(Bar::Rests { failed, of, until }) = seen.bar else {
        panic!("{:?}", seen.bar);
    };
    assert_eq!((failed, of, until), (4, 4, NOW.plus_ms(600_000)));
    assert_eq!(view(&rating, &rating, until).bar, None);
}

#[test]
fn reasons_are_kept_and_cut() {
    let endless = failed(&"x".repeat(100_000));
    let rating = of(&[endless]);
    assert!(rating.last_change.len() < 300);
    let rating = of(&[failed("silent for 1.5 s")]);
    assert_eq!(
        view(&rating, &rating, NOW).last_change,
        "failed: silent for 1.5 s"
    );
}

#[test]
fn stars_outside_one_to_five_are_refused() {
    for stars in [0, 6, 255] {
        assert_eq!(check_stars(stars), Err(StarsError(stars)));
    }
    assert!((1..=5).all(|stars| check_stars(stars).is_ok()));
    assert_eq!(ErrorBody::from(StarsError(6)).code, "stars_out_of_range");
}

#[test]
fn the_better_a_rating_the_less_is_withheld() {
    let withheld = |milli| withheld_ppm(milli, 1_000_000);
    assert_eq!(withheld(NEWCOMER_LOW_MILLI), WITHHELD_MOST_PPM);
    // 0.30 − 0.25 · 0.7
    assert_eq!(withheld(3_500), 125_000);
    assert_eq!(withheld(BEST_MILLI), WITHHELD_LEAST_PPM);
    assert_eq!(withheld(u32::MAX), WITHHELD_LEAST_PPM);
    assert_eq!(withheld(1000), WITHHELD_MOST_PPM);
    assert_eq!(withheld(1002), 249_900);
    assert_eq!(withheld(0), WITHHELD_MOST_PPM);
    let falls = |milli: u32| withheld(milli + 1) <= withheld(milli);
    assert!((0..BEST_MILLI).all(falls));
}

#[test]
fn no_more_is_withheld_than_the_genesis_allows() {
    assert_eq!(withheld_ppm(0, 100_000), 100_000);
    assert_eq!(withheld_ppm(BEST_MILLI, 100_000), WITHHELD_LEAST_PPM);
    assert_eq!(withheld_ppm(0, 0), 0);
    assert_eq!(withheld_ppm(BEST_MILLI, 0), 0);
}

/// The formulas of the module, from all evidence at once.
fn naive(heard: &[(Evidence, u64)], now_h: u64) -> (f64, f64) {
    let kept = |hour: u64, half_life_h: f64| 0.5f64.powf((now_h - hour) as f64 / half_life_h);
    let sum = |half_life_h: f64, worth: &dyn Fn(&Evidence) -> f64| -> f64 {
        let each = heard
            .iter()
            .map(|(e, hour)| worth(e) * kept(*hour, half_life_h));
        each.sum()
    };
    let right = sum(60.0 * 24.0, &|e| match e {
        Evidence::Done { agreed: true } | Evidence::Right {} => 1.0,
        _ => 0.0,
    });
    let bad = sum(60.0 * 24.0, &|e| match e {
        Evidence::Wrong { .. } => 8.0,
        _ => 0.0,
    });
    let done = sum(14.0 * 24.0, &|e| match e {
        Evidence::Done { .. } => 1.0,
        _ => 0.0,
    });
    let undone = sum(14.0 * 24.0, &|e| match e {
        Evidence::Failed { .. } => 1.0,
        Evidence::Left {} => 0.25,
        _ => 0.0,
    });
    let weight = |e: &Evidence| match e {
        Evidence::Stars { paid, .. } => (paid.base_units() as f64 / 1e9).sqrt(),
        _ => 0.0,
    };
    let weights = sum(60.0 * 24.0, &weight);
    let given = sum(60.0 * 24.0, &|e| match e {
        Evidence::Stars { stars, .. } => f64::from(*stars) * weight(e),
        _ => 0.0,
    });
    let speeds = heard.iter().filter_map(|(e, _)| match e {
        Evidence::Speed {
            achieved_mflops, ..
        } => Some(*achieved_mflops as f64 / 1e3),
        _ => None,
    });
    let speeds: Vec<f64> = speeds.collect();
    let mut last = speeds[speeds.len().saturating_sub(15)..].to_vec();
    last.sort_by(f64::total_cmp);
    let v = last.get(last.len() / 2).copied().unwrap_or(1.0).min(1.1);
    let u = (35.0 + given) / (10.0 + weights);
    let rating = |c: f64, d: f64| 5_000.0 * c * c * d * v * (0.85 + 0.03 * u);
    let mean = |good: f64, bad: f64| (4.0 + good) / (5.0 + good + bad);
    let low = |good: f64, bad: f64| inv_beta_reg(4.0 + good, 1.0 + bad, 0.05);
    (
        rating(mean(right, bad), mean(done, undone)).min(5_000.0),
        rating(low(right, bad), low(done, undone)).min(5_000.0),
    )
}

fn any_evidence() -> impl Strategy<Value = Evidence> {
    prop_oneof![
        4 => any::<bool>().prop_map(|agreed| Evidence::Done { agreed }),
        1 => Just(Evidence::Left {}),
        1 => Just(failed("gone")),
        1 => Just(Evidence::Right {}),
        1 => Just(wrong()),
        2 => (0u64..3_000).prop_map(speed),
        1 => (1u8..=5, 0u64..1_000).prop_map(|(given, ctm)| stars(given, ctm)),
    ]
}

fn any_history() -> impl Strategy<Value = Vec<(Evidence, u64)>> {
    let history = prop::collection::vec((any_evidence(), 0u64..400), 0..80);
    // Hours since the piece before.
    history.prop_map(|mut history| {
        let mut hour = hour(NOW);
        for (_, passed) in &mut history {
            hour += *passed;
            *passed = hour;
        }
        history
    })
}

fn told(history: &[(Evidence, u64)]) -> Rating {
    let mut rating = Rating::default();
    for (evidence, hour) in history {
        rating.hear(evidence, Timestamp::from_ms(hour * HOUR_MS));
    }
    rating
}

proptest! {
    #[test]
    fn it_is_what_the_formulas_say_of_all_evidence_at_once(history in any_history(), passed in 0u64..2_000) {
        let last = history.last().map_or(hour(NOW), |(_, hour)| *hour);
        let score = told(&history).score(Timestamp::from_ms((last + passed) * HOUR_MS));
        let (mean, low) = naive(&history, last + passed);
        // Parts are rounded to millionths before they are multiplied.
        prop_assert!((f64::from(score.mean_milli) - mean).abs() < 1.0, "{} {mean}", score.mean_milli);
        prop_assert!((f64::from(score.low_milli) - low).abs() < 1.0, "{} {low}", score.low_milli);
        prop_assert!(score.low_milli <= score.mean_milli && score.mean_milli <= BEST_MILLI);
    }

    #[test]
    fn good_news_never_lowers_and_bad_news_never_raises(history in any_history()) {
        let last = history.last().map_or(hour(NOW), |(_, hour)| *hour);
        let at = Timestamp::from_ms(last * HOUR_MS);
        let before = told(&history);
        let with = |evidence: Evidence| {
            let mut rating = before.clone();
            rating.hear(&evidence, at);
            rating.score(at)
        };
        let now = before.score(at);
        for good in [DONE, Evidence::Done { agreed: false }, Evidence::Right {}, stars(5, 7)] {
            let score = with(good);
            prop_assert!(score.mean_milli >= now.mean_milli && score.low_milli >= now.low_milli);
        }
        for bad in [Evidence::Left {}, failed("gone"), wrong(), stars(1, 7)] {
            let score = with(bad);
            prop_assert!(score.mean_milli <= now.mean_milli && score.low_milli <= now.low_milli);
        }
    }
}
