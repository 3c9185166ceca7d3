//! Whose word on speeds counts for how much.

use super::*;

const STEP: u64 = 10;

/// A group of three that took so long from its start to a checkpoint, of which each says how long it computed.
fn counted(wall_ms: u64, claims_ms: [u64; 3], pace: Pace) -> [u64; 3] {
    let mut world = World::new();
    world.match_three();
    world.run.pace = pace;
    world.now = world.now.plus_ms(wall_ms);
    vouch(&mut world, STEP, claims_ms);
    assert_eq!(world.run.verified_step, STEP);
    [1, 2, 3].map(|n| effort(&world, n).ms)
}

fn vouch(world: &mut World, step: u64, claims_ms: [u64; 3]) {
    let first = world.run.seats[0].member.node;
    for (n, computed_ms) in (1..=3).zip(claims_ms) {
        let stored = (node(n) == first).then(|| (file(1), receipt()));
        let fingerprint = Hash::of(&step.to_be_bytes());
        world.report(
            n,
            Report::Checkpoint {
                step,
                fingerprint,
                computed_ms,
                stored,
            },
        );
    }
}

fn effort(world: &World, n: u8) -> Effort {
    let mut seats = world.run.seats.iter();
    seats.find(|s| s.member.node == node(n)).unwrap().effort
}

#[test]
fn whoever_waited_for_the_slowest_is_believed() {
    assert_eq!(
        counted(900, [300, 900, 600], Pace::default()),
        [300, 900, 600]
    );
}

#[test]
fn what_nobody_accounts_for_counts_as_everybodys() {
    // The slowest says that it was fast: it gains nothing over the truth, 900.
    assert_eq!(
        counted(900, [300, 1, 600], Pace::default()),
        [600, 301, 900]
    );
    assert_eq!(counted(900, [0, 0, 0], Pace::default()), [900, 900, 900]);
}

#[test]
fn exchange_and_storing_are_accounted_for_as_far_as_expected() {
    let pace = Pace {
        sync_us: 20_000,
        store_ms: 100,
        ..Pace::default()
    };
    // 10 steps of 20 ms and a checkpoint of 100.
    assert_eq!(counted(900, [600, 600, 600], pace), [600, 600, 600]);
    assert_eq!(counted(1_000, [600, 600, 600], pace), [700, 700, 700]);
}

#[test]
fn nobody_computes_longer_than_it_took() {
    assert_eq!(
        counted(900, [5_000, 900, 900], Pace::default()),
        [900, 900, 900]
    );
}

#[test]
fn only_verified_work_of_the_present_attempt_counts_and_once() {
    let mut world = World::new();
    world.match_three();
    world.now = world.now.plus_ms(500);
    vouch(&mut world, STEP, [500, 500, 500]);
    let first = effort(&world, 1);
    world.now = world.now.plus_ms(300);
    vouch(&mut world, 2 * STEP, [800, 800, 800]);
    let second = effort(&world, 1);
    assert_eq!((first.ms, second.ms), (500, 800));
    assert_eq!(second.flops, 2 * first.flops);
    vouch(&mut world, 2 * STEP, [9_000, 9_000, 9_000]);
    assert_eq!(effort(&world, 1), second);
}

#[test]
fn who_is_lost_and_who_ends_leaves_a_statistic() {
    let mut world = World::new();
    world.match_three();
    world.now = world.now.plus_ms(700);
    vouch(&mut world, STEP, [700, 700, 700]);
    let failed = Report::Failed {
        task_fault: false,
        reason: "the power went".into(),
    };
    world.report(2, failed);
    let [lost] = &world.ran[..] else {
        panic!("{:?}", world.ran)
    };
    assert_eq!(
        (lost.node, lost.ms, lost.kind),
        (node(2), 700, WorkKind::Train)
    );
    assert_eq!(lost.present_ms, 700);
    let extent = &world.run.terms.extent;
    let samples = samples_after(&world.run, STEP);
    // Three samples of each ten.
    assert_eq!(lost.flops, samples * extent.flops_per_sample * 3 / 10);
    world.feed(Input::Cancel);
    let nodes: Vec<_> = world.ran.iter().map(|run| run.node).collect();
    assert_eq!(nodes, [node(2), node(1), node(3)]);
}

#[test]
fn a_task_says_once_how_long_it_waited() {
    let mut world = World::new();
    world.match_three();
    let [wait] = &world.waited[..] else {
        panic!("{:?}", world.waited)
    };
    assert_eq!((wait.miners, wait.waited_ms), (3, 500));
}
