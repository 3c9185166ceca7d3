use super::*;
use crate::dice::Dice;
use cryptomind_protocol::{TaskId, Timestamp};

const SORT: Sort = Sort {
    kind: WorkKind::Train,
    engine: Engine::Cpu,
    step: step(30),
};

/// Of that class.
const fn step(size_class: u8) -> Step {
    Step {
        flops: 1 << size_class,
        parameters: 1_000,
    }
}

fn node(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

fn owner(n: u8) -> AccountId {
    AccountId::new([n; 20])
}

/// A run that achieved so many floating-point operations a second.
fn run(n: u8, size_class: u8, flops_per_s: f64) -> RunStatistic {
    RunStatistic {
        task: TaskId::new([n; 16]),
        node: node(n),
        kind: SORT.kind,
        engine: SORT.engine,
        step: step(size_class),
        flops: (flops_per_s * 100.0) as u64,
        ms: 100_000,
        present_ms: 110_000,
        at: Timestamp::from_ms(1),
    }
}

fn off(speeds: &Speeds, n: u8, truth: f64) -> f64 {
    let predicted = speeds.predict(node(n), SORT).unwrap().flops_per_s;
    (predicted / truth).ln().abs()
}

#[test]
fn of_a_node_that_has_shown_nothing_nothing_is_said() {
    assert_eq!(Speeds::default().predict(node(1), SORT), None);
}

#[test]
fn runs_go_before_other_sizes_and_those_before_the_start_test() {
    let mut speeds = Speeds::default();
    speeds.started(node(1), owner(1), 8_000_000_000);
    let tested = speeds.predict(node(1), SORT).unwrap();
    assert_eq!(tested.basis, SpeedBasis::StartTest {});
    assert!((tested.flops_per_s / 8e9 - 1.0).abs() < 1e-9);
    speeds.ran(&run(1, 20, 2e9));
    let other = speeds.predict(node(1), SORT).unwrap();
    assert_eq!(other.basis, SpeedBasis::OtherSize { size_class: 20 });
    assert!((other.flops_per_s / 2e9 - 1.0).abs() < 1e-6);
    speeds.ran(&run(1, 30, 4e9));
    let own = speeds.predict(node(1), SORT).unwrap();
    assert_eq!(own.basis, SpeedBasis::Runs { count: 1 });
    assert!((own.flops_per_s / 4e9 - 1.0).abs() < 1e-6);
    assert!(own.spread < other.spread && other.spread < tested.spread);
    speeds.forget(node(1));
    assert_eq!(speeds.predict(node(1), SORT), None);
}

#[test]
fn a_newcomers_start_test_is_read_as_others_fared_by_theirs() {
    let mut speeds = Speeds::default();
    for n in 1..=5 {
        speeds.started(node(n), owner(n), 10_000_000_000);
        speeds.ran(&run(n, 30, 1e9 * f64::from(n)));
    }
    speeds.started(node(9), owner(9), 20_000_000_000);
    let predicted = speeds.predict(node(9), SORT).unwrap();
    assert!(
        (predicted.flops_per_s / 6e9 - 1.0).abs() < 1e-6,
        "{predicted:?}"
    );
    let infer = Sort {
        kind: WorkKind::Infer,
        ..SORT
    };
    let predicted = speeds.predict(node(9), infer).unwrap();
    assert!((predicted.flops_per_s / 20e9 - 1.0).abs() < 1e-9);
}

#[test]
fn how_far_start_tests_lead_astray_is_learnt() {
    let spread_after = |sigma: f64| {
        let (mut dice, mut speeds) = (Dice::new(3), Speeds::default());
        speeds.started(node(255), owner(255), 1_000_000_000);
        let spread = |speeds: &Speeds| speeds.predict(node(255), SORT).unwrap().spread;
        assert!((spread(&speeds) - START_TEST_SPREAD).abs() < 1e-9);
        for n in 0..200 {
            speeds.started(node(n), owner(n), 1_000_000_000);
            speeds.ran(&run(n, 30, 5e8 * dice.factor(sigma)));
        }
        spread(&speeds)
    };
    for sigma in [0.1, 0.3, 0.8] {
        let learnt = spread_after(sigma);
        // Three nodes' worth of the first guess remain.
        let expected = ((3.0 * 0.25 + 200.0 * sigma * sigma) / 203.0).sqrt();
        assert!((learnt / expected - 1.0).abs() < 0.15, "{sigma}: {learnt}");
    }
}

/// Who claims ten times its speed is held to that; nobody is held to what is not known of others.
#[test]
fn a_start_test_promises_what_others_made_of_theirs() {
    let mut speeds = Speeds::default();
    for n in 1..=4 {
        speeds.started(node(n), owner(n), 10_000_000_000);
    }
    speeds.started(node(9), owner(9), 100_000_000_000);
    let promised = |speeds: &Speeds, n| speeds.promised(&node(n), SORT.kind, SORT.step);
    for n in 1..=3 {
        assert_eq!(promised(&speeds, 9), None);
        speeds.ran(&run(n, 30, 4e9));
    }
    let close = |found: Option<f64>, expected: f64| (found.unwrap() / expected - 1.0).abs() < 1e-6;
    assert!(close(promised(&speeds, 9), 40e9));
    assert!(close(promised(&speeds, 4), 4e9));
    assert_eq!(promised(&speeds, 1), None, "two others are too few");
    assert_eq!(
        speeds.promised(&node(9), SORT.kind, step(10)),
        None,
        "of another size nothing is known"
    );
    // Nobody's own nodes vouch for him: of three witnesses two are left.
    speeds.started(node(3), owner(9), 10_000_000_000);
    assert_eq!(promised(&speeds, 9), None);
    speeds.started(node(3), owner(3), 10_000_000_000);
    // Its own runs do not make its claim smaller.
    speeds.ran(&run(9, 30, 4e9));
    assert!(close(promised(&speeds, 9), 40e9));
    speeds.forget(node(1));
    assert_eq!(promised(&speeds, 9), None);
}

/// Who names a device is believed to be as fast as others who have it, as soon as three of them have shown it.
#[test]
fn a_claim_counts_for_no_more_than_what_machines_of_its_make_reached() {
    let card = |name: &str| Machine {
        threads: 8,
        devices: vec![name.into()],
        memory_bytes: 0,
    };
    let mut speeds = Speeds::default();
    let join = |speeds: &mut Speeds, n, claims: u64, name| {
        speeds.started(node(n), owner(n), claims);
        speeds.made_of(node(n), &card(name));
    };
    for n in 1..=3 {
        join(&mut speeds, n, 4_000_000_000, "A");
    }
    join(&mut speeds, 9, 100_000_000_000, "A");
    join(&mut speeds, 10, 2_000_000_000, "A");
    join(&mut speeds, 11, 100_000_000_000, "B");
    let close = |speeds: &Speeds, n, expected: f64| {
        let predicted = speeds.predict(node(n), SORT).unwrap().flops_per_s;
        assert!(
            (predicted / expected - 1.0).abs() < 1e-6,
            "{n}: {predicted}"
        );
    };
    for (n, reached) in [(1, 4e9), (2, 4e9)] {
        speeds.ran(&run(n, 30, reached));
        close(&speeds, 9, 100e9);
    }
    speeds.ran(&run(3, 30, 4e9));
    close(&speeds, 9, 5e9);
    close(&speeds, 10, 2e9);
    close(&speeds, 11, 100e9);
    let small = Sort {
        step: step(10),
        ..SORT
    };
    let predicted = speeds.predict(node(9), small).unwrap().flops_per_s;
    assert!(predicted > 99e9, "of such steps nobody has shown anything");
    // The owner of one of the three: two others are too few.
    speeds.started(node(9), owner(3), 100_000_000_000);
    close(&speeds, 9, 100e9);
    // Nor is it believed after one honest run of another size.
    speeds.started(node(9), owner(9), {
        let pace = |flops, gradients_ns| Pace {
            step: Step {
                flops,
                parameters: 0,
            },
            gradients_ns,
            update_ns: 0,
        };
        StartTest::from(1).with_paces(&[pace(1 << 10, 1_000), pace(1 << 30, 1_000)])
    });
    speeds.ran(&run(9, 10, 2e9));
    close(&speeds, 9, 5e9);
    let at_20 = Sort {
        step: step(20),
        ..SORT
    };
    let predicted = speeds.predict(node(9), at_20).unwrap().flops_per_s;
    assert!(predicted < 8.1e9, "{predicted}");
    speeds.forget(node(9));
    join(&mut speeds, 9, 100_000_000_000, "A");
    // One that is faster than all others does not raise it alone.
    speeds.started(node(9), owner(9), 100_000_000_000);
    speeds.ran(&run(2, 30, 400e9));
    let predicted = speeds.predict(node(9), SORT).unwrap().flops_per_s;
    assert!(predicted < 5.1e9, "{predicted}");
}

#[test]
fn a_run_without_time_or_work_says_nothing() {
    let mut speeds = Speeds::default();
    speeds.ran(&RunStatistic {
        ms: 0,
        ..run(1, 30, 1e9)
    });
    speeds.ran(&RunStatistic {
        flops: 0,
        ..run(1, 30, 1e9)
    });
    assert_eq!(speeds.predict(node(1), SORT), None);
}

#[test]
fn an_average_follows_a_machine_that_changed() {
    let mut speeds = Speeds::default();
    for _ in 0..50 {
        speeds.ran(&run(1, 30, 4e9));
    }
    for _ in 0..20 {
        speeds.ran(&run(1, 30, 1e9));
    }
    assert!(off(&speeds, 1, 1e9) < 0.02);
}

/// Against a hidden truth: start tests err by a factor that they share and by one of their own, runs scatter. Over 200
/// nodes the median error falls with each doubling of history, and the spread tells the truth about it.
#[test]
fn the_error_of_predictions_falls_as_history_grows() {
    let mut dice = Dice::new(7);
    let mut speeds = Speeds::default();
    let truth: Vec<f64> = (0..200).map(|_| 1e10 * dice.normal().exp()).collect();
    for (n, flops) in truth.iter().enumerate() {
        let test = flops * 2.0 * (0.4 * dice.normal()).exp();
        speeds.started(node(n as u8), owner(n as u8), test as u64);
    }
    let mut medians = vec![median_error(&speeds, &truth)];
    for rounds in [1, 3, 12] {
        for _ in 0..rounds {
            for (n, flops) in truth.iter().enumerate() {
                speeds.ran(&run(n as u8, 30, flops * (0.2 * dice.normal()).exp()));
            }
        }
        medians.push(median_error(&speeds, &truth));
    }
    assert!(medians[0] > 0.5, "start tests err: {medians:?}");
    assert!(medians.is_sorted_by(|a, b| a > b), "{medians:?}");
    assert!(medians[3] < 0.06, "{medians:?}");
    let within = truth.iter().enumerate().filter(|(n, flops)| {
        let spread = speeds.predict(node(*n as u8), SORT).unwrap().spread;
        off(&speeds, *n as u8, **flops) < spread
    });
    assert!(within.count() >= 190, "the spread covers the error");
}

fn median_error(speeds: &Speeds, truth: &[f64]) -> f64 {
    let errors = truth.iter().enumerate();
    let mut errors: Vec<f64> = errors.map(|(n, t)| off(speeds, n as u8, *t)).collect();
    errors.sort_by(f64::total_cmp);
    errors[errors.len() / 2]
}

#[test]
fn a_start_test_knows_the_size_of_steps() {
    let pace = |flops, gradients_ns| Pace {
        step: Step {
            flops,
            parameters: 1_000,
        },
        gradients_ns,
        update_ns: 0,
    };
    // 40 and 10 GFLOP/s.
    let paces = [
        pace(40_000_000_000, 1_000_000_000),
        pace(1_000_000, 100_000),
    ];
    let test = StartTest::from(7_000_000_000).with_paces(&paces);
    let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-4;
    let at = |flops| {
        let step = Step {
            flops,
            parameters: 0,
        };
        test.at(WorkKind::Train, step)
    };
    assert!(
        close(at(u64::MAX), 40e9) && close(at(500_000), 5e9),
        "the nearest, and no step takes less than the smallest"
    );
    assert!(
        close(at(200_000_000), 20e9),
        "halfway between sizes, halfway between speeds"
    );
    assert!(
        close(test.at(WorkKind::Infer, step(3)), 7e9),
        "paces are of training"
    );

    let mut speeds = Speeds::default();
    speeds.started(node(1), owner(1), test.clone());
    let predicted = |speeds: &Speeds, size_class| {
        let sort = Sort {
            step: step(size_class),
            ..SORT
        };
        speeds.predict(node(1), sort).unwrap().flops_per_s
    };
    assert!(close(predicted(&speeds, 20), 10.0622e9));
    // Another node makes half of what its own test says of such steps: so will this one of steps of any size.
    speeds.started(node(2), owner(2), test);
    speeds.ran(&run(2, 40, 20e9));
    let other = Sort {
        step: step(20),
        ..SORT
    };
    let own = speeds.predict(node(2), other).unwrap().flops_per_s;
    assert!(
        (own / 5.0311e9 - 1.0).abs() < 1e-3,
        "its own run too: {own}"
    );
    let off = predicted(&speeds, 20) / 5.0311e9 - 1.0;
    assert!(off.abs() < 1e-3, "{off}");
}

#[test]
fn a_start_test_knows_what_an_update_takes() {
    let pace = |flops, parameters, update_ns| Pace {
        step: Step { flops, parameters },
        gradients_ns: flops / 10,
        update_ns,
    };
    // Within a cache 1 ns a parameter, beyond it 4.
    let paces = [
        pace(1_000, 10_000, 10_000),
        pace(1_000_000, 1_000_000, 4_000_000),
    ];
    let test = StartTest::from(7_000_000_000).with_paces(&paces);
    let takes = |parameters| {
        let step = Step {
            flops: 1_000_000,
            parameters,
        };
        1e6 / test.at(WorkKind::Train, step) * 1e9
    };
    let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-9;
    assert!(close(takes(0), 100_000.0));
    assert!(close(takes(1_000), 101_000.0), "the nearest");
    assert!(close(takes(100_000), 300_000.0), "halfway between");
    assert!(close(takes(10_000_000), 40_100_000.0));
}
