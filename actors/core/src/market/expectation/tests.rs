use cryptomind_protocol::{NodeId, Timestamp};

use super::super::link::{Links, Measure};
use super::super::speed::WorkKind;
use super::*;

const NOW: Timestamp = Timestamp::from_ms(1);
const MB: u64 = 1_000_000;
const STORE: u8 = 200;

fn node(n: u8) -> Party {
    Party::Node(NodeId::new([n; 32]))
}

/// 100 steps of 40 MFLOP, 4 MB of gradients, 4 checkpoints of 12 MB, a result of 4 MB.
const WORKLOAD: Workload = Workload {
    kind: WorkKind::Train,
    flops: 4_000_000_000,
    steps: 100,
    parameters: MB,
    gradient_bytes: 4 * MB,
    checkpoints: 4,
    checkpoint_bytes: 12 * MB,
    result_bytes: 4 * MB,
    memory_bytes: 0,
};

fn links(pairs: &[(u8, u8, u64, u64)]) -> LinkTable {
    let mut links = Links::default();
    for (a, b, rtt_us, bytes_per_s) in pairs {
        let measure = Measure {
            rtt_us: *rtt_us,
            bytes_per_s: Some(*bytes_per_s),
        };
        links.report(node(*a), node(*b), measure, NOW);
        links.report(node(*b), node(*a), measure, NOW);
    }
    links.table(NOW)
}

fn group(mflops: &[u64]) -> Vec<(Party, Ability)> {
    let member = |(at, mflops): (usize, &u64)| (node(at as u8 + 1), Ability::new(*mflops, 3500));
    mflops.iter().enumerate().map(member).collect()
}

#[test]
fn times_are_those_of_the_formulas() {
    let links = links(&[
        (1, 2, 2_000, 100 * MB),
        (2, 3, 2_000, 100 * MB),
        (3, 4, 2_000, 100 * MB),
        (4, 1, 10_000, 10 * MB),
        (1, STORE, 0, 10 * MB),
        (2, STORE, 0, 5 * MB),
        (3, STORE, 0, 5 * MB),
        (4, STORE, 0, 5 * MB),
    ]);
    let mut group = group(&[10, 20, 20, 20]);
    group[2].1.missing_bytes = 50 * MB;
    let e = expect(&WORKLOAD, &group, &links, &[node(STORE)]).unwrap();
    // A quarter of 40 MFLOP at 10 MFLOP/s.
    assert_eq!(e.step_us, 1_000_000);
    // Six hops of 1 MB at 10 MB/s and 5 ms.
    assert_eq!(e.sync_us, 6 * (100_000 + 5_000));
    assert_eq!(e.fetch_ms, 10_000);
    // 25 steps take longer than an upload of 1.2 s: the last one alone is waited for.
    assert_eq!(e.checkpoint_ms, 1_200);
    assert_eq!(e.return_ms, 400);
    let parts = 10_000 + 100_000 + 63_000 + 1_200 + 400;
    assert_eq!(e.p50_ms, parts + GROUP_START_MS.0);
    assert_eq!((e.survival_ppm, e.estimated_links), (1_000_000, 0));
    assert!(e.p95_ms > e.p50_ms);
}

#[test]
fn uploads_that_take_longer_than_the_work_between_them_hold_it_up() {
    let links = links(&[(1, STORE, 0, MB)]);
    let e = expect(&WORKLOAD, &group(&[4_000]), &links, &[node(STORE)]).unwrap();
    // 1 s of work in 4 intervals; uploads of 12 s: four of them, less the first interval's and two more of work beside them.
    assert_eq!(e.checkpoint_ms, 12_000 + 3 * (12_000 - 250));
}

#[test]
fn one_member_exchanges_nothing_and_nobody_is_nothing() {
    let e = expect(&WORKLOAD, &group(&[10]), &LinkTable::default(), &[]).unwrap();
    assert_eq!((e.sync_us, e.step_us), (0, 4_000_000));
    assert_eq!(expect(&WORKLOAD, &[], &LinkTable::default(), &[]), None);
}

#[test]
fn losses_prolong_it_and_lessen_survival() {
    let mut group = group(&[10]);
    let sure = expect(&WORKLOAD, &group, &LinkTable::default(), &[]).unwrap();
    group[0].1.mtbf_ms = Some(400_000);
    let e = expect(&WORKLOAD, &group, &LinkTable::default(), &[]).unwrap();
    // 400 s of work, one loss to be expected, which costs half of 100 s and the rejoining.
    assert_eq!(e.p50_ms - sure.p50_ms, 50_000 + REJOIN_MS as u64);
    assert_eq!(e.survival_ppm, (PPM * (-1.0f64).exp()) as u32);
    assert!(e.p95_ms > e.p50_ms);
}

#[test]
fn doubt_about_speeds_and_links_widens_the_range() {
    let measured = links(&[(1, 2, 1_000, 10 * MB)]);
    let mut group = group(&[10, 10]);
    let sure = expect(&WORKLOAD, &group, &measured, &[]).unwrap();
    group[1].1.spread_ppm = 500_000;
    let doubtful = expect(&WORKLOAD, &group, &measured, &[]).unwrap();
    assert_eq!(doubtful.p50_ms, sure.p50_ms);
    assert!(doubtful.p95_ms > sure.p95_ms);
    let elsewhere = links(&[(8, 9, 1_000, 10 * MB)]);
    let guessed = expect(&WORKLOAD, &group, &elsewhere, &[]).unwrap();
    assert_eq!(guessed.p50_ms, sure.p50_ms);
    assert_eq!(guessed.estimated_links, 2);
    assert!(guessed.p95_ms > doubtful.p95_ms);
}

/// That all parts are late at once is much rarer than one in twenty.
#[test]
fn what_parts_add_is_added_as_deviations_are() {
    let late_by = |spread_ppm, missing_bytes| {
        let measured = links(&[(1, STORE, 0, 10 * MB)]);
        let mut group = group(&[10]);
        let ability = &mut group[0].1;
        (ability.spread_ppm, ability.missing_bytes) = (spread_ppm, missing_bytes);
        let e = expect(&WORKLOAD, &group, &measured, &[node(STORE)]).unwrap();
        (e.p95_ms - e.p50_ms) as f64
    };
    let (neither, both) = (late_by(0, 0), late_by(300_000, 1000 * MB));
    let squares = |ms: f64| ms * ms - neither * neither;
    let (slow, far) = (late_by(300_000, 0), late_by(0, 1000 * MB));
    let apart = (squares(slow) + squares(far) + neither * neither).sqrt();
    assert!((both - apart).abs() < 2.0, "{both} is not {apart}");
    // 400 s of computing, late by e^(1.645 · 0.3) in one of twenty runs; 100 s of fetching, half as long again.
    assert!((squares(slow).sqrt() - 255_255.0).abs() < 200.0, "{slow}");
    assert!((squares(far).sqrt() - 50_000.0).abs() < 2.0, "{far}");
}
