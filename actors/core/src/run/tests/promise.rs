//! Patience: who computes, but far more slowly than promised, does not keep its task.

use cryptomind_protocol::codec;
use cryptomind_protocol::task::Split;

use super::timers::{
    back_without_state, blamed, broken, fingerprint, paused, progress, ready, regroup, wait,
};
use super::*;
use crate::market::{Expectation, Workload};

/// A step takes one miner alone a second, three of them a third of that and the exchange; storing takes two.
const PACE: Pace = Pace {
    sync_us: 100_000,
    store_ms: 2_000,
    alone_us: 1_000_000,
    exchange_us: 100_000,
    return_ms: 1_000,
};
/// Ten steps and a checkpoint.
const ALONE_MS: u64 = LATE_GRACE_MS + LATE_FACTOR * (10_000 + 2_000);
const OF_THREE_MS: u64 = LATE_GRACE_MS + LATE_FACTOR * (3_333 + 1_000 + 2_000);

/// A task that one miner computes, of whom this is expected.
fn alone(pace: Pace) -> World {
    let mut world = World::new();
    begin(&mut world, 1, pace);
    world
}

fn begin(world: &mut World, n: u8, pace: Pace) {
    world.run.spec.miners = 1;
    world.feed(Input::Offered(offer(n)));
    world.pass(500);
    assert_eq!(world.run.state, TaskState::Matched, "{}", world.run.reason);
    world.run.pace = pace;
    ready(world, &[n]);
}

/// An inference that one miner is to do.
fn inference() -> World {
    let mut spec = spec();
    spec.miners = 1;
    spec.work = Work::Infer {
        model: ItemId::new([2; 16]),
        dataset: ItemId::new([1; 16]),
        split: Split::Test,
    };
    let terms = terms(&spec);
    World::of(spec, terms, LIMITS)
}

fn three(pace: Pace) -> World {
    let mut world = World::new();
    (1..=3).for_each(|n| world.feed(Input::Offered(offer(n))));
    world.pass(500);
    world.run.pace = pace;
    ready(&mut world, &[1, 2, 3]);
    assert_eq!(world.run.state, TaskState::Running);
    world
}

/// Time passes while the first rank tells of progress.
fn report_for(world: &mut World, ms: u64) {
    let end = world.now.plus_ms(ms);
    while world.now < end {
        let last = world.run.promise.map_or(STEPS, |promise| promise.to);
        let step = (world.run.step + 1).min(last - 1);
        progress(world, step);
        world.pass(end.ms_since(world.now).min(20_000));
    }
}

/// Nobody is lost before this time is over, and at its end these are.
fn late_after(world: &mut World, ms: u64, expected: &[u8]) {
    assert_eq!(world.run.late_at(), Some(world.now.plus_ms(ms)));
    report_for(world, ms - 1);
    blamed(world, &[]);
    assert_eq!(world.run.next_timer(), Some(world.now.plus_ms(1)));
    world.pass(1);
    match expected {
        [one] => blamed(world, &[*one]),
        all => {
            let all: Vec<_> = all.iter().map(|n| node(*n)).collect();
            assert_eq!(world.lost, all, "{}", world.run.reason);
            assert!(
                world.held_against().is_empty(),
                "one of them may have been slow"
            );
        }
    }
}

/// What the checkpoint's members say that they computed; the first of them stores it.
fn claim(world: &mut World, step: u64, claims_ms: [u64; 3]) {
    for (n, computed_ms) in (1..=3).zip(claims_ms) {
        let report = Report::Checkpoint {
            step,
            fingerprint: Hash::of(&step.to_be_bytes()),
            computed_ms,
            stored: (n == 1).then(|| (file(1), receipt())),
        };
        world.report(n, report);
    }
    assert_eq!(world.run.verified_step, step);
}

// One miner.

#[test]
fn one_that_is_far_slower_than_promised_loses_the_task() {
    let mut world = alone(PACE);
    late_after(&mut world, ALONE_MS, &[1]);
    assert!(world.blamed.is_empty(), "the task may be as slow for all");
    assert_eq!(world.run.state, TaskState::Waiting);
    assert!(world.free_wanted, "another one is looked for");
    world.ask_free();
    let mut fast = offer(1);
    fast.ability.mflops *= 100;
    world.feed(Input::Offered(fast));
    begin(&mut world, 2, PACE);
    assert_eq!(world.run.seats[0].member.node, node(2), "others go first");
    world.checkpoint(&[2], 10);
    assert_eq!(world.blamed, [node(1)], "another one is not");
}

#[test]
fn people_are_told_how_late_it_was() {
    let mut world = alone(PACE);
    (0..4).for_each(|step| progress(&mut world, step + 1));
    world.now = world.now.plus_ms(ALONE_MS);
    world
        .run
        .apply(Input::Tick, &Surroundings::default(), world.now);
    let why = world.run.charges.first();
    let why = why.map(|charge| charge.reason.as_str());
    let expected = "late: 4 of 10 steps in 96 s, 12 s were promised";
    assert_eq!(why, Some(expected));
}

#[test]
fn each_checkpoint_has_its_own_time_and_earned_stays_earned() {
    let mut world = alone(PACE);
    for i in 1..=3 {
        report_for(&mut world, ALONE_MS - 1);
        world.checkpoint(&[1], i * 10);
    }
    late_after(&mut world, ALONE_MS, &[1]);
    world.ask_free();
    begin(&mut world, 2, PACE);
    world.checkpoint(&[2], STEPS);
    world.report(2, finished());
    world.check_end(TaskState::Finished);
    let work = world.work();
    assert_eq!(
        (world.paid(1), world.paid(2)),
        (work * 3 / 4, work - work * 3 / 4)
    );
}

/// Of the forty steps the last checkpoint covers five.
#[test]
fn the_last_steps_have_the_time_of_so_many() {
    let mut world = alone(PACE);
    world.checkpoint(&[1], 35);
    late_after(
        &mut world,
        LATE_GRACE_MS + LATE_FACTOR * (5_000 + 2_000),
        &[1],
    );
}

/// Every checkpoint is paid, but those that nobody asked for win no time.
#[test]
fn checkpoints_in_between_win_no_time() {
    let mut world = alone(PACE);
    for step in 1..=3 {
        wait(&mut world, ALONE_MS / 4);
        world.checkpoint(&[1], step);
        assert_eq!(world.run.verified_step, step);
    }
    wait(&mut world, ALONE_MS / 4);
    blamed(&world, &[1]);
}

/// The fingerprint of a checkpoint that is not stored says nothing of who stores alone.
#[test]
fn a_fingerprint_wins_no_time() {
    let mut world = alone(PACE);
    fingerprint(&mut world, 1, 10, false);
    late_after(&mut world, ALONE_MS, &[1]);
}

/// What is left is to store it: a storage node that is away is no fault of the miner's.
#[test]
fn who_has_computed_has_the_time_of_storing_too() {
    let mut world = alone(PACE);
    let begun = world.now;
    progress(&mut world, 9);
    assert_eq!(world.run.late_at(), Some(begun.plus_ms(ALONE_MS)));
    progress(&mut world, 10);
    let until = begun.plus_ms(ALONE_MS + STORE_LIMIT_MS);
    assert_eq!(world.run.late_at(), Some(until));
}

#[test]
fn who_knows_no_way_to_a_store_has_the_time_of_storing() {
    let pace = Pace {
        store_ms: 0,
        ..PACE
    };
    let mut world = alone(pace);
    late_after(
        &mut world,
        LATE_GRACE_MS + STORE_LIMIT_MS + LATE_FACTOR * 10_000,
        &[1],
    );
}

#[test]
fn an_inference_is_to_be_done_in_its_time() {
    let mut world = inference();
    begin(&mut world, 1, PACE);
    let limit = LATE_GRACE_MS + STORE_LIMIT_MS + LATE_FACTOR * (1_000 + 1_000);
    wait(&mut world, limit - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[1]);
    assert!(world.blamed.is_empty());
}

/// It tells nothing of how far it is: what it promised holds, however long that is.
#[test]
fn a_long_inference_is_not_lost_for_its_silence() {
    let mut world = inference();
    let slow = Pace {
        alone_us: 400_000_000,
        ..PACE
    };
    begin(&mut world, 1, slow);
    let limit = LATE_GRACE_MS + STORE_LIMIT_MS + LATE_FACTOR * (400_000 + 1_000);
    assert_eq!(world.run.next_timer(), Some(world.now.plus_ms(limit)));
    world.run.restart_timers(world.now);
    assert_eq!(world.run.next_timer(), Some(world.now.plus_ms(limit)));
    world.pass(limit - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[1]);
}

/// The result is owed, and how long its test takes was never expected: it has the time of the stall.
#[test]
fn when_all_is_verified_no_speed_is_promised_any_more() {
    let mut world = alone(PACE);
    world.checkpoint(&[1], STEPS);
    assert_eq!((world.run.promise, world.run.late_at()), (None, None));
    wait(&mut world, STALL_LIMIT_MS - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[1]);
}

// What is not the miner's time.

#[test]
fn a_coordinator_that_was_away_makes_nobody_late() {
    let mut world = alone(PACE);
    report_for(&mut world, ALONE_MS - 1);
    world.coordinator_away(3_600_000);
    world.feed(Input::Present(node(1)));
    late_after(&mut world, ALONE_MS, &[1]);
}

#[test]
fn a_clock_that_is_set_makes_nobody_late() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let limits = Limits {
        hold_ms: 100 * DAY_MS,
        ..LIMITS
    };
    for off in [DAY_MS, 3 * DAY_MS] {
        let mut world = World::with(limits);
        world.now = world.now.plus_ms(2 * DAY_MS);
        world.feed(Input::ClockSet);
        begin(&mut world, 1, PACE);
        report_for(&mut world, ALONE_MS - 1);
        world.now = Timestamp::from_ms(off);
        world.feed(Input::ClockSet);
        late_after(&mut world, ALONE_MS, &[1]);
    }
}

/// It could not tell: what it did while it had no connection has its time afterwards.
#[test]
fn time_without_a_connection_does_not_count() {
    let mut world = alone(PACE);
    report_for(&mut world, ALONE_MS - 1);
    world.feed(Input::Disconnected(node(1)));
    wait(&mut world, AWAY_LIMIT_MS - 1);
    blamed(&world, &[]);
    world.feed(Input::Present(node(1)));
    assert_eq!(world.run.late_at(), Some(world.now.plus_ms(1)));
    world.checkpoint(&[1], 10);
    late_after(&mut world, ALONE_MS, &[1]);
}

/// Whoever breaks his connection again and again wins a little time, once.
#[test]
fn a_broken_connection_is_no_way_to_stay() {
    let mut world = alone(PACE);
    let end = world.now.plus_ms(ALONE_MS + LATE_GRACE_MS);
    while world.now < end {
        blamed(&world, &[]);
        world.feed(Input::Disconnected(node(1)));
        let left = end.ms_since(world.now);
        wait(&mut world, left.min(AWAY_LIMIT_MS - 1));
        world.feed(Input::Present(node(1)));
    }
    world.pass(0);
    blamed(&world, &[1]);
}

/// A member without the run's state is lost for that, whatever the group promised.
#[test]
fn who_is_back_empty_handed_is_lost_for_that() {
    let mut world = alone(PACE);
    report_for(&mut world, ALONE_MS - 1);
    world.feed(Input::Disconnected(node(1)));
    back_without_state(&mut world, 1);
    wait(&mut world, RETURN_LIMIT_MS);
    blamed(&world, &[1]);
    assert!(world.blamed.is_empty(), "that may be the task's fault");
}

/// Each attempt has its own time, from when it computes on; who is left has more to do.
#[test]
fn a_new_attempt_has_its_own_time() {
    let mut world = three(PACE);
    report_for(&mut world, OF_THREE_MS - 1);
    world.report(2, broken(Some(node(3))));
    paused(&mut world, 1, 6);
    paused(&mut world, 2, 6);
    wait(&mut world, SUSPECT_LIMIT_MS);
    assert_eq!(world.run.state, TaskState::Matched);
    assert_eq!(world.run.late_at(), None);
    wait(&mut world, LIMITS.prepare_ms - 1);
    ready(&mut world, &[1, 2]);
    // Four steps of half a second each, their exchange, and the checkpoint.
    let limit = LATE_GRACE_MS + LATE_FACTOR * (2_000 + 400 + 2_000);
    assert_eq!(world.run.late_at(), Some(world.now.plus_ms(limit)));
    world.report(1, broken(Some(node(2))));
    paused(&mut world, 1, 6);
    wait(&mut world, SUSPECT_LIMIT_MS);
    ready(&mut world, &[1]);
    let limit = LATE_GRACE_MS + LATE_FACTOR * (4_000 + 2_000);
    assert_eq!(world.run.late_at(), Some(world.now.plus_ms(limit)));
}

// Groups.

#[test]
fn a_group_loses_who_says_itself_that_it_is_slow() {
    let mut world = three(PACE);
    // Else it would be given less to compute.
    world.run.weighed = u32::MAX;
    report_for(&mut world, 7_000);
    claim(&mut world, 10, [3_400, 6_700, 3_300]);
    late_after(&mut world, OF_THREE_MS, &[2]);
    assert!(world.blamed.is_empty(), "until the others get further");
    let done = world.run.step;
    regroup(&mut world, &[1, 3], done);
    world.checkpoint(&[1, 3], 20);
    assert_eq!(world.blamed, [node(2)]);
}

/// What is claimed in another attempt says nothing of this one.
#[test]
fn a_group_of_which_nobody_knows_who_is_slow_begins_again() {
    let mut world = three(PACE);
    late_after(&mut world, OF_THREE_MS, &[1, 2, 3]);
    assert_eq!(world.run.state, TaskState::Waiting);
    let mut world = three(PACE);
    report_for(&mut world, 7_000);
    claim(&mut world, 10, [3_400, 6_700, 3_300]);
    world.report(1, broken(None));
    regroup(&mut world, &[1, 2, 3], 10);
    late_after(&mut world, OF_THREE_MS, &[1, 2, 3]);
    assert_eq!(world.run.verified_step, 10);
}

/// All computed as long as they promised, or all far longer: the cause is none of them, or every one.
#[test]
fn the_slowest_is_not_lost_for_being_the_slowest() {
    for claims in [[3_300, 4_000, 3_200], [7_000, 7_000, 7_000]] {
        let mut world = three(PACE);
        report_for(&mut world, 7_000);
        claim(&mut world, 10, claims);
        late_after(&mut world, OF_THREE_MS, &[1, 2, 3]);
    }
}

/// Its work is done: what it waits for has limits that name who owes it.
#[test]
fn a_computed_checkpoint_waits_for_who_owes_something() {
    let mut world = three(PACE);
    report_for(&mut world, OF_THREE_MS - 1);
    (2..=3).for_each(|n| fingerprint(&mut world, n, 10, false));
    assert_eq!(world.run.late_at(), None);
    report_for(&mut world, STORE_LIMIT_MS);
    blamed(&world, &[1]);

    let mut world = three(PACE);
    report_for(&mut world, OF_THREE_MS - 1);
    fingerprint(&mut world, 1, 10, true);
    fingerprint(&mut world, 2, 10, false);
    report_for(&mut world, CONFIRM_LIMIT_MS);
    blamed(&world, &[3]);
}

/// Who waits for one fingerprint more does not know who is slow.
#[test]
fn one_fingerprint_wins_a_group_no_time() {
    let mut world = three(PACE);
    fingerprint(&mut world, 3, 10, false);
    late_after(&mut world, OF_THREE_MS, &[1, 2, 3]);
}

// Without a promise.

#[test]
fn who_promised_nothing_is_never_late() {
    let of_nothing = alone(Pace::default());
    let unknown_exchange = three(Pace {
        exchange_us: 0,
        ..PACE
    });
    for mut world in [of_nothing, unknown_exchange] {
        assert_eq!((world.run.promise, world.run.late_at()), (None, None));
        report_for(&mut world, 10 * ALONE_MS);
        blamed(&world, &[]);
        assert_eq!(world.run.state, TaskState::Running);
    }
}

/// What was stored before there were promises.
#[test]
fn an_old_pace_promises_nothing() {
    #[derive(Serialize)]
    struct Old {
        sync_us: u64,
        store_ms: u64,
    }
    let old = Old {
        sync_us: 5,
        store_ms: 7,
    };
    let pace: Pace = codec::decode(&codec::encode(&old)).unwrap();
    assert_eq!((pace.sync_us, pace.store_ms), (5, 7));
    assert_eq!(pace.promised_ms(10, 1), None);
    let world = alone(PACE);
    let kept: Run = codec::decode(&codec::encode(&world.run)).unwrap();
    assert_eq!(kept, world.run);
}

// What was expected.

const EXPECTED: Expectation = Expectation {
    start_ms: 500,
    fetch_ms: 9_000,
    step_us: 200_000,
    sync_us: 50_000,
    checkpoint_ms: 400,
    return_ms: 300,
    p50_ms: 20_000,
    p95_ms: 30_000,
    survival_ppm: 1_000_000,
    estimated_links: 0,
};

fn workload() -> Workload {
    let spec = spec();
    Workload::of(&spec, &terms(&spec))
}

#[test]
fn a_promise_is_what_was_expected_when_the_group_was_chosen() {
    let pace = Pace::of(&EXPECTED, &workload(), 3);
    assert_eq!(pace.promised_ms(10, 3), Some(2_500));
    assert_eq!(pace.promised_ms(10, 1), Some(6_000), "alone, no exchange");
    assert_eq!((pace.store_ms, pace.return_ms), (400, 300));
    let guessed = Expectation {
        estimated_links: 1,
        ..EXPECTED
    };
    let pace = Pace::of(&guessed, &workload(), 3);
    assert_eq!(pace.promised_ms(10, 3), Some(4_000));
    assert_eq!(pace.sync_us, 50_000);
}

/// Four checkpoints of 4 s each beside work of 2.5 s between two: 4 s, and three times the 1.5 s that each takes longer.
#[test]
fn storing_that_takes_longer_than_the_work_is_known_for_one() {
    let slow = Expectation {
        checkpoint_ms: 4_000 + 3 * 1_500,
        ..EXPECTED
    };
    assert_eq!(Pace::of(&slow, &workload(), 3).store_ms, 4_000);
}

#[test]
fn who_is_chosen_has_promised() {
    let world = alone(PACE);
    let mut fresh = World::new();
    fresh.run.spec.miners = 1;
    let mut slow = offer(1);
    slow.ability.mflops = 1;
    fresh.feed(Input::Offered(slow));
    fresh.pass(500);
    assert!(fresh.run.pace.alone_us > 0);
    ready(&mut fresh, &[1]);
    let of = |world: &World| world.run.promise.map(|p| (p.from, p.to, p.since));
    assert_eq!(of(&fresh), Some((0, 10, fresh.now)));
    assert_eq!(of(&world), Some((0, 10, world.now)));
}

/// Random lives of groups that promised something end like all others.
#[test]
fn every_life_of_who_promised_ends_settled_once() {
    let mut promised = 0;
    for seed in 0..500 {
        let (mut world, mut dice, mut seen) = (World::new(), Dice(seed), false);
        world.run.spec.miners = 1 + (seed % 3) as u32;
        for _ in 0..dice.roll(200) {
            random_news(&mut world, &mut dice);
            seen |= world.run.late_at().is_some();
            if world.run.state == TaskState::Matched {
                world.run.pace = PACE;
            }
        }
        promised += u32::from(seen);
        fall_silent(&mut world);
        world.check_end(world.run.state);
        assert!(world.settled <= 1, "seed {seed}");
    }
    assert!(promised > 100, "{promised} of 500 promised anything");
}
