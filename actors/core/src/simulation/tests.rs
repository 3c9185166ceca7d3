use super::group::{Step, step_ms};
use super::outcome::percentile;
use super::scenario::{Demand, Job, Miners, Network, Price, Surge, Wire};
use super::truth::{Place, Truth};
use super::*;
use cryptomind_protocol::Amount;

const MBIT: u64 = 125_000;

/// Three local networks of eight miners: see `config/scenarios/three-lans.toml`.
fn three_lans() -> Scenario {
    Scenario {
        name: "three-lans".into(),
        duration_ms: 120_000,
        miners: Miners {
            lans: 3,
            per_lan: 8,
            mflops: 50_000,
            speed_sigma: 0.5,
            start_test_sigma: 0.2,
            load_sigma: 0.1,
            stay_ms: None,
            away_ms: 0,
        },
        network: Network {
            inside: Wire {
                bytes_per_s: 1000 * MBIT,
                rtt_us: 300,
            },
            between: Wire {
                bytes_per_s: 20 * MBIT,
                rtt_us: 30_000,
            },
            scatter: 0.2,
            noise: 0.2,
            random_peers: 8,
            near_peers: 8,
            flatterers: 0.0,
            stores: 1,
        },
        job: Job {
            parameters: 10_000_000,
            steps: 200,
            batch: 256,
            checkpoint_steps: 100,
            miners: 4,
            dataset_bytes: 40_000_000,
        },
        demand: Demand {
            first_ms: 60_000,
            gap_ms: None,
            surge: None,
        },
        price: None,
    }
}

/// Twelve local networks of five; miners come and go; tasks come all the time.
fn churn() -> Scenario {
    let base = three_lans();
    Scenario {
        name: "churn".into(),
        duration_ms: 2 * 3_600_000,
        miners: Miners {
            lans: 12,
            per_lan: 5,
            stay_ms: Some(3_600_000),
            away_ms: 600_000,
            ..base.miners.clone()
        },
        job: Job {
            parameters: 2_000_000,
            checkpoint_steps: 50,
            ..base.job.clone()
        },
        demand: Demand {
            first_ms: 60_000,
            gap_ms: Some(60_000),
            surge: None,
        },
        ..base
    }
}

#[test]
fn three_lans_are_done_three_times_as_fast_as_by_lot() {
    let comparison = compare(&three_lans(), 100);
    let by_lot = comparison.against(Policy::Random).unwrap();
    let by_speed = comparison.against(Policy::SpeedOnly).unwrap();
    let market = comparison.of(Policy::Market);
    assert_eq!(market.outcome.finished, 100);
    assert!(by_lot >= 3.0, "{by_lot}");
    assert!(by_speed >= 1.5, "{by_speed}");
    assert!(market.outcome.in_one_lan >= 95);
}

#[test]
fn equal_seeds_are_equal_outcomes() {
    let scenario = churn();
    let first = simulate(&scenario, Policy::Market, 3);
    assert_eq!(first, simulate(&scenario, Policy::Market, 3));
    assert_ne!(first, simulate(&scenario, Policy::Market, 4));
}

/// Machines go away in the middle of tasks, and tasks end all the same; nearly all with their result.
#[test]
fn tasks_survive_miners_that_come_and_go() {
    let outcome = &market_alone(&churn(), 4);
    assert!(outcome.posted > 320, "{}", outcome.posted);
    assert_eq!(outcome.posted, outcome.finished + outcome.unfinished);
    assert!(outcome.lost > 20, "{}", outcome.lost);
    assert!(outcome.finished * 100 >= outcome.posted * 98);
}

/// What is expected is neither promised nor guessed: the median of what tasks take is near it, and nineteen of twenty do
/// not exceed what is said of nineteen of twenty; where machines come and go too.
#[test]
fn expectations_agree_with_the_hidden_truth() {
    for outcome in [market_alone(&three_lans(), 60), market_alone(&churn(), 4)] {
        let median = percentile(&outcome.over_expected, 50).unwrap();
        assert!((0.9..1.1).contains(&median), "{median}");
        assert!(outcome.within_p95 * 20 >= outcome.finished * 19);
        // It is no empty word either.
        let range = percentile(&outcome.range, 50).unwrap();
        assert!(range < 1.5, "{range}");
    }
}

fn market_alone(scenario: &Scenario, seeds: u64) -> Outcome {
    let mut all = Outcome::default();
    (0..seeds).for_each(|seed| all.add(simulate(scenario, Policy::Market, seed)));
    all
}

/// A quarter of all miners say that all their links are ten times as good as they are. One alone gains nothing by it; pairs
/// of them confirm each other, and what that costs the tasks is bounded.
#[test]
fn flatterers_do_not_spoil_the_choice() {
    let honest = market_alone(&three_lans(), 40);
    let mut scenario = three_lans();
    scenario.network.flatterers = 0.25;
    let flattered = market_alone(&scenario, 40);
    let median = |outcome: &Outcome| {
        let times: Vec<f64> = outcome.completion_ms.iter().map(|ms| *ms as f64).collect();
        percentile(&times, 50).unwrap()
    };
    let ratio = median(&flattered) / median(&honest);
    assert!(ratio < 1.15, "{ratio}");
}

#[test]
fn a_surge_brings_more_tasks() {
    let mut scenario = churn();
    let calm = simulate(&scenario, Policy::Market, 2).posted;
    scenario.demand.surge = Some(Surge {
        from_ms: 0,
        until_ms: scenario.duration_ms,
        factor: 3.0,
    });
    let surge = simulate(&scenario, Policy::Market, 2).posted;
    assert!(
        surge > 2 * calm && surge < 4 * calm,
        "{surge} against {calm}"
    );
}

/// Two ranks, reckoned by hand: the slower one's half of the work, then two hops of half of the gradients each.
#[test]
fn a_step_of_two_is_its_slower_half_and_two_hops() {
    let mut scenario = three_lans();
    (scenario.network.scatter, scenario.miners.speed_sigma) = (0.0, 0.0);
    let truth = Truth::new(&scenario, 1);
    let step = Step {
        batch: 10,
        flops_per_sample: 50_000_000.0 * 100.0,
        gradient_bytes: 2.0 * 2_500.0 * 80.0,
    };
    // 500 ms for 5 samples, twice that where the machine is busy; 80 ms for a half of the gradients and 15 ms of latency
    // between two local networks; one round trip of 30 ms to confirm.
    let far = step_ms(&truth, &[0, 8], &[1.0, 2.0], &step);
    assert!((far - (1_000.0 + 2.0 * 95.0 + 30.0)).abs() < 1e-6, "{far}");
    let alone = step_ms(&truth, &[0], &[1.0], &step);
    assert!((alone - 1_000.0).abs() < 1e-6, "{alone}");
    assert_eq!(truth.lan(Place::Store(0)), None);
}

#[test]
fn a_percentile_is_the_nearest_rank() {
    let values = [5.0, 1.0, 4.0, 2.0, 3.0];
    assert_eq!(percentile(&values, 50), Some(3.0));
    assert_eq!(percentile(&values, 100), Some(5.0));
    assert_eq!(percentile(&values, 0), Some(1.0));
    assert_eq!(percentile(&[], 50), None);
}

/// Sixty miners of ten owners, of which about half are busy at the price that half of them work for; three times the demand
/// in the second of four hours.
fn surging() -> Scenario {
    let base = three_lans();
    let hour_ms = 3_600_000;
    Scenario {
        name: "surge".into(),
        duration_ms: 4 * hour_ms,
        miners: Miners {
            lans: 10,
            per_lan: 6,
            ..base.miners.clone()
        },
        // Near each other: what is to be seen is the price, not the links.
        network: Network {
            between: Wire {
                bytes_per_s: 1000 * MBIT,
                rtt_us: 1_000,
            },
            ..base.network.clone()
        },
        job: Job {
            parameters: 200_000,
            steps: 3_200,
            batch: 2_560,
            checkpoint_steps: 1_600,
            miners: 3,
            dataset_bytes: 1_000_000,
        },
        demand: Demand {
            first_ms: 60_000,
            gap_ms: Some(24_000),
            surge: Some(Surge {
                from_ms: hour_ms,
                until_ms: 2 * hour_ms,
                factor: 3.0,
            }),
        },
        ..base
    }
}

/// Three times the demand for an hour: the price rises, clients leave and miners join that work for no less, and it comes back.
#[test]
fn a_surge_raises_the_price_and_it_comes_back() {
    let hour = 60;
    let scenario = Scenario {
        price: Some(Price {
            start: Amount::from_base_units(10_000_000),
            reserve_sigma: 0.8,
            clients: 100,
            limit: Amount::from_base_units(20_000_000),
            limit_sigma: 0.5,
            account_share_ppm: 100_000,
        }),
        ..surging()
    };
    let outcome = simulate(&scenario, Policy::Market, 1);
    let [curve] = &outcome.prices[..] else {
        panic!("{} curves", outcome.prices.len())
    };
    let moved = |pair: &[u64]| pair[0].abs_diff(pair[1]) * 50 <= pair[0];
    assert!(curve.windows(2).all(moved), "more than 2 % in a minute");
    // What the surge left waiting holds it up until it is done.
    let (before, most) = (curve[hour - 1], *curve.iter().max().unwrap());
    let after = curve[4 * hour - 1];
    assert!(most > 2 * before, "{before} {most} {after}");
    assert!(2 * after < most, "{before} {most} {after}");
    assert!(outcome.too_dear > 0 && outcome.too_dear < outcome.posted);
    assert_eq!(outcome.posted, outcome.finished);
}
