use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_ms(1);

fn newcomer() -> Rating {
    Rating::new(NodeId::new([1; 32]), NOW)
}

fn failed() -> Evidence {
    Evidence::Failed {
        reason: "silent for 1.5 s".into(),
    }
}

fn after(evidence: Evidence) -> Rated {
    apply(&mut newcomer(), evidence, NOW).unwrap()
}

#[test]
fn a_newcomer_starts_in_the_middle_and_one_failure_shows() {
    assert_eq!(newcomer().rating_milli(), NEWCOMER_MILLI);
    assert!(after(failed()).after_milli <= NEWCOMER_MILLI - 300);
    assert!(after(Evidence::Done).after_milli > NEWCOMER_MILLI);
    assert!(after(Evidence::Stars(5)).after_milli > NEWCOMER_MILLI);
    assert!(after(Evidence::Stars(1)).after_milli < NEWCOMER_MILLI);
}

#[test]
fn the_formula_is_the_documented_one() {
    let rating = Rating {
        done: 8,
        failed: 2,
        stars: 18,
        votes: 4,
        ..newcomer()
    };
    // ¾ · 5 · 11.5/15 + ¼ · 53/14 = 2.875 + 0.9464…
    assert_eq!(rating.rating_milli(), 3821);
}

#[test]
fn a_change_keeps_its_reason() {
    let mut rating = newcomer();
    let rated = apply(&mut rating, failed(), NOW.plus_ms(5)).unwrap();
    assert_eq!(rated.before_milli, NEWCOMER_MILLI);
    assert_eq!(rated.reason, "failed: silent for 1.5 s");
    assert_eq!(rating.view().last_change, rated.reason);
    assert_eq!(rating.view().rating_milli, rated.after_milli);
    assert_eq!(rating.changed, NOW.plus_ms(5));
    let endless = Evidence::Failed {
        reason: "x".repeat(100_000),
    };
    apply(&mut rating, endless, NOW).unwrap();
    assert!(rating.last_change.len() < 300);
}

#[test]
fn stars_outside_one_to_five_change_nothing() {
    for stars in [0, 6, 255] {
        let mut rating = newcomer();
        let refused = apply(&mut rating, Evidence::Stars(stars), NOW);
        assert_eq!(refused, Err(StarsError(stars)));
        assert_eq!(rating, newcomer());
    }
    assert_eq!(ErrorBody::from(StarsError(6)).code, "stars_out_of_range");
}

#[test]
fn the_better_a_rating_the_less_is_withheld() {
    let withheld = |milli| withheld_ppm(milli, 1_000_000);
    // 0.30 − 0.25 · 0.7
    assert_eq!(withheld(NEWCOMER_MILLI), 125_000);
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

fn any_rating() -> impl Strategy<Value = Rating> {
    let votes = prop_oneof![0u32..50, 0u32..u32::MAX / 5];
    let counts = || prop_oneof![4 => 0u32..100, 1 => any::<u32>()];
    (counts(), counts(), votes, 0u32..=400).prop_map(|(done, failed, votes, quality)| Rating {
        done,
        failed,
        votes,
        stars: votes + (u64::from(votes) * u64::from(quality) / 100) as u32,
        ..newcomer()
    })
}

proptest! {
    #[test]
    fn good_news_never_lowers_and_bad_news_never_raises(rating in any_rating(), more in 1u8..5) {
        let with = |evidence| {
            let mut changed = rating.clone();
            apply(&mut changed, evidence, NOW).unwrap().after_milli
        };
        let now = rating.rating_milli();
        prop_assert!(now <= BEST_MILLI);
        prop_assert!(with(Evidence::Done) >= now);
        prop_assert!(with(failed()) <= now);
        prop_assert!(with(Evidence::Stars(5)) >= now);
        prop_assert!(with(Evidence::Stars(1)) <= now);
        prop_assert!(with(Evidence::Stars(more)) <= with(Evidence::Stars(more + 1)));
    }

    /// Who fails more of the same work is never rated better.
    #[test]
    fn failures_count(done in 0u32..1000, failed in 0u32..1000, more in 0u32..1000) {
        let of = |done, failed| Rating { done, failed, ..newcomer() }.rating_milli();
        prop_assert!(of(done, failed + more) <= of(done, failed));
    }
}
