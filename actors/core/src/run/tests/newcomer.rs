//! Newcomers: they take a lost member's place, nobody waits for them, and they earn for their own steps.

use std::sync::Arc;

use super::timers::{paused, ready};
use super::*;
use crate::market::link::{Links, Measure, Party};

/// A group of three of which the third was lost, trains on from step 10 as two.
fn two_of_three() -> World {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 10);
    world.report(
        3,
        Report::Failed {
            task_fault: false,
            reason: "its disk is full".into(),
        },
    );
    all_paused(&mut world, &[1, 2], 10);
    assert_eq!(world.run.attempt, 2);
    ready(&mut world, &[1, 2]);
    assert_eq!(world.run.state, TaskState::Running);
    world
}

/// The same, and this one follows it.
fn followed_by(n: u8) -> World {
    let mut world = two_of_three();
    assert!(world.free_wanted, "a place is vacant");
    world.feed(Input::Free(node(n)));
    world.feed(Input::Offered(offer(n)));
    assert_eq!(newcomers(&world), [node(n)]);
    world
}

fn newcomers(world: &World) -> Vec<NodeId> {
    world.run.newcomers.iter().map(Newcomer::node).collect()
}

fn level(world: &mut World, n: u8, step: u64) {
    world.report(n, Report::Level { step });
}

fn all_paused(world: &mut World, members: &[u8], committed: u64) {
    members.iter().for_each(|n| paused(world, *n, committed));
}

#[test]
fn a_newcomer_is_seated_where_a_step_ends_and_earns_for_its_steps() {
    let mut world = followed_by(4);
    assert!(!world.run.wants(node(5)), "one place, one newcomer");
    level(&mut world, 4, 13);
    let called = [1, 2, 4].map(node).to_vec();
    assert_eq!(world.pauses.last(), Some(&(called, true)));
    assert_eq!(world.run.state, TaskState::Running, "until they have left");
    paused(&mut world, 1, 15);
    assert_eq!(world.run.state, TaskState::Regrouping);
    assert_eq!(world.forms.as_deref(), Some("miners join the group"));
    paused(&mut world, 4, 15);
    paused(&mut world, 2, 15);
    assert_eq!(world.run.nodes(), [1, 2, 4].map(node));
    assert_eq!((world.run.attempt, world.run.start_step), (3, 15));
    assert_eq!(world.run.seats[2].ring_address, "new:4");
    ready(&mut world, &[1, 2, 4]);
    (2..=4).for_each(|i| world.checkpoint(&[1, 2, 4], i * 10));
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    // Ten steps of three, five of two, twenty-five of three with the newcomer.
    let share = |parts: f64| (world.work() as f64 * parts / 40.0).round() as u64;
    let about = |n: u8, parts: f64| world.paid(n).abs_diff(share(parts)) <= 3;
    assert!(about(3, 10.0 / 3.0), "{}", world.paid(3));
    assert!(about(4, 25.0 / 3.0), "{}", world.paid(4));
    assert!(about(1, 35.0 / 3.0 + 5.0 / 2.0), "{}", world.paid(1));
}

/// What members computed without it is theirs, also where their word of it comes later.
#[test]
fn a_checkpoint_on_its_way_earns_for_those_who_computed_it() {
    let mut world = followed_by(4);
    world.checkpoint(&[1], 20);
    level(&mut world, 4, 20);
    all_paused(&mut world, &[1, 2, 4], 21);
    assert_eq!((world.run.attempt, world.run.verified_step), (3, 10));
    let report = Report::Checkpoint {
        step: 20,
        fingerprint: Hash::of(&20u64.to_be_bytes()),
        computed_ms: 0,
        stored: None,
    };
    world.feed(Input::Reported {
        node: node(2),
        attempt: 2,
        report,
        stored_by: None,
    });
    assert_eq!(world.run.verified_step, 20);
    assert_eq!(world.ledger.balance(&owner(4)).earning, Amount::ZERO);
}

/// Level, and never where the others are: its word costs them two rings, and it its place.
#[test]
fn who_only_says_that_it_is_level_is_turned_away() {
    let mut world = followed_by(4);
    for attempt in [3, 4] {
        let step = 10 + u64::from(attempt);
        level(&mut world, 4, step);
        all_paused(&mut world, &[1, 2], step);
        world.pass(SUSPECT_LIMIT_MS);
        assert_eq!(world.run.attempt, attempt);
        assert_eq!(world.run.fruitless, attempt - 1, "it got the group nowhere");
        ready(&mut world, &[1, 2]);
    }
    assert!(newcomers(&world).is_empty() && world.stopped.contains(&node(4)));
    assert_eq!(world.run.strikes_of(node(4)), 1);
}

/// One that does not heed the call: all are asked at once, and it is found out by its silence.
#[test]
fn a_call_that_nobody_heeds_becomes_a_pause() {
    let mut world = followed_by(4);
    level(&mut world, 4, 13);
    let progress = |step| Report::Progress {
        step,
        loss: 1.0,
        samples_per_s: 1,
        timeline: Vec::new(),
    };
    world.report(1, progress(15));
    world.pass(6_000);
    assert_eq!(world.run.state, TaskState::Running, "a step may be long");
    world.report(1, progress(18));
    assert_eq!(world.run.state, TaskState::Regrouping);
    assert_eq!(
        world.pauses.last().map(|(_, at_step_end)| *at_step_end),
        Some(false)
    );
}

/// Its first word of a state that it took from another is no proof against it.
#[test]
fn a_newcomer_that_was_given_a_false_state_is_not_blamed() {
    let mut world = followed_by(4);
    level(&mut world, 4, 13);
    all_paused(&mut world, &[1, 2, 4], 15);
    ready(&mut world, &[1, 2, 4]);
    for n in [1, 2, 4] {
        let report = Report::Checkpoint {
            step: 20,
            fingerprint: Hash::of(&[u8::from(n == 4)]),
            computed_ms: 0,
            stored: (n == 1).then(|| (file(1), receipt())),
        };
        world.report(n, report);
    }
    assert!(world.lost.contains(&node(4)));
    assert!(!world.held_against().contains(&node(4)));
}

/// A checkpoint of the step at which it joins is vouched for by those who computed it.
#[test]
fn nobody_waits_for_its_word_of_what_was_done_before() {
    let mut world = followed_by(4);
    level(&mut world, 4, 19);
    let stored = Some((file(1), receipt()));
    let report = |stored| Report::Checkpoint {
        step: 20,
        fingerprint: Hash::of(b"20"),
        computed_ms: 0,
        stored,
    };
    world.report(2, report(None));
    all_paused(&mut world, &[1, 2, 4], 20);
    assert_eq!(world.run.nodes(), [1, 2, 4].map(node));
    world.report(1, report(stored));
    assert_eq!(world.run.verified_step, 20);
    assert_eq!(world.ledger.balance(&owner(4)).earning, Amount::ZERO);
}

#[test]
fn the_group_waits_a_moment_for_a_newcomer_and_no_longer() {
    let mut world = followed_by(4);
    level(&mut world, 4, 13);
    all_paused(&mut world, &[1, 2], 15);
    assert_eq!(world.run.state, TaskState::Regrouping);
    world.pass(SUSPECT_LIMIT_MS);
    assert_eq!(world.run.nodes(), [1, 2].map(node));
    assert_eq!(newcomers(&world), [node(4)], "it follows anew");
    assert!(!world.run.newcomers[0].is_level);
}

#[test]
fn a_newcomer_that_is_behind_follows_anew() {
    let mut world = followed_by(4);
    level(&mut world, 4, 13);
    paused(&mut world, 4, 13);
    all_paused(&mut world, &[1, 2], 15);
    paused(&mut world, 4, 13);
    assert_eq!(world.run.nodes(), [1, 2].map(node));
    assert_eq!(newcomers(&world), [node(4)]);
    ready(&mut world, &[1, 2]);
    level(&mut world, 4, 16);
    all_paused(&mut world, &[1, 2, 4], 17);
    assert_eq!(world.run.nodes(), [1, 2, 4].map(node));
}

fn ring_broken(world: &mut World, suspect: Option<NodeId>, reason: &str) {
    let report = Report::RingBroken {
        committed: 14,
        suspect,
        reason: reason.into(),
    };
    world.report(1, report);
}

/// A member dies while the group is called: the pause is at once, and whoever is level is in it.
#[test]
fn a_loss_on_the_way_takes_the_newcomer_along() {
    let mut world = followed_by(4);
    level(&mut world, 4, 13);
    ring_broken(&mut world, Some(node(2)), "silent for 1500 ms");
    let called = [1, 2, 4].map(node).to_vec();
    assert_eq!(world.pauses.last(), Some(&(called, false)));
    let name = &world.run.seats[1].member.name;
    let why = format!("the ring broke: {name} silent for 1500 ms");
    assert_eq!(world.forms, Some(why));
    all_paused(&mut world, &[1, 4], 14);
    world.pass(SUSPECT_LIMIT_MS);
    assert_eq!(world.run.nodes(), [1, 4].map(node));
}

/// The members went on by themselves meanwhile: what it answered was of an attempt that never was, and it follows them anew.
#[test]
fn a_newcomers_answer_is_worth_nothing_once_the_members_formed_by_themselves() {
    let mut world = followed_by(4);
    level(&mut world, 4, 13);
    ring_broken(&mut world, None, "a sum was not done");
    paused(&mut world, 4, 14);
    let formed = super::adopt::decision(&world, world.run.attempt + 1, &[1, 2], 14);
    super::adopt::succeeded(&mut world, 1, &formed);
    assert_eq!(world.run.nodes(), [1, 2].map(node));
    ready(&mut world, &[1, 2]);
    let follows = &world.run.newcomers[0];
    assert!(!follows.is_level && follows.paused.is_none() && follows.misses == 0);
    assert!(world.run.called.is_none(), "nobody waits to be let in");
    level(&mut world, 4, 16);
    all_paused(&mut world, &[1, 2, 4], 17);
    assert_eq!(world.run.nodes(), [1, 2, 4].map(node));
}

#[test]
fn what_goes_wrong_with_a_newcomer_costs_the_group_nothing() {
    const FAILED: fn() -> Report = || Report::Failed {
        task_fault: true,
        reason: "no room".into(),
    };
    const LEAVING: fn() -> Report = || Report::Leaving {
        reason: "its owner stops it".into(),
    };
    let wrong: [fn(&mut World); 4] = [
        |world| world.report(4, FAILED()),
        |world| world.report(4, LEAVING()),
        |world| world.feed(Input::Disconnected(node(4))),
        |world| world.pass(LIMITS.prepare_ms),
    ];
    for goes_wrong in wrong {
        let mut world = followed_by(4);
        world.free_wanted = false;
        goes_wrong(&mut world);
        assert!(newcomers(&world).is_empty());
        assert_eq!(world.run.state, TaskState::Running);
        assert_eq!(world.run.nodes(), [1, 2].map(node));
        assert!(world.stopped.contains(&node(4)) && world.free_wanted);
        assert!(!world.blamed.contains(&node(4)));
    }
}

#[test]
fn nobody_is_asked_where_the_task_is_nearly_done() {
    let mut world = two_of_three();
    world.report(
        1,
        Report::Progress {
            step: 36,
            loss: 1.0,
            samples_per_s: 1,
            timeline: Vec::new(),
        },
    );
    assert!(!world.run.wants(node(4)));
    world.feed(Input::Free(node(4)));
    world.feed(Input::Offered(offer(4)));
    assert!(newcomers(&world).is_empty());
}

#[test]
fn a_newcomer_hears_that_the_task_is_over() {
    let mut world = followed_by(4);
    world.feed(Input::Cancel);
    world.check_end(TaskState::Cancelled);
    assert!(world.stopped.contains(&node(4)));
    let mut world = followed_by(4);
    for n in [1, 2] {
        world.report(
            n,
            Report::Failed {
                task_fault: false,
                reason: "no room".into(),
            },
        );
    }
    assert_eq!(world.run.state, TaskState::Waiting);
    assert!(newcomers(&world).is_empty() && world.stopped.contains(&node(4)));
    assert!(world.run.wants(node(4)), "it may offer again");
}

/// Over a slow link the others would wait for it at every step.
#[test]
fn who_would_slow_the_group_down_does_not_join_it() {
    let mut world = two_of_three();
    world.run.pace = Pace {
        alone_us: 3_000,
        exchange_us: 1_000,
        ..Pace::default()
    };
    let mut links = Links::default();
    let at = |n| Party::Node(node(n));
    for (a, b, rtt_us) in [
        (1, 2, 500),
        (1, 4, 80_000),
        (2, 4, 80_000),
        (1, 5, 500),
        (2, 5, 500),
    ] {
        let bytes_per_s = Some(100_000_000);
        let measure = Measure {
            rtt_us,
            bytes_per_s,
        };
        links.report(at(a), at(b), measure, world.now);
        links.report(at(b), at(a), measure, world.now);
    }
    let around = Surroundings {
        links: Arc::new(links.table(world.now)),
        stores: Vec::new(),
    };
    let offers = |world: &mut World, n: u8| {
        world.feed(Input::Free(node(n)));
        let effects = world
            .run
            .apply(Input::Offered(offer(n)), &around, world.now);
        world.carry_out(effects);
    };
    world.free_wanted = false;
    offers(&mut world, 4);
    assert!(newcomers(&world).is_empty());
    let is_asked = world.free_wanted && !world.run.wants(node(4));
    assert!(is_asked, "another is");
    offers(&mut world, 5);
    assert_eq!(newcomers(&world), [node(5)]);
}

/// A number from outside is no number to count on from.
#[test]
fn a_report_of_the_last_attempt_that_there_can_be_changes_nothing() {
    let mut world = followed_by(4);
    for (n, report) in [
        (1, Report::Level { step: u64::MAX }),
        (4, Report::Level { step: u64::MAX }),
    ] {
        world.report(n, report);
    }
    for n in [1, 4] {
        let report = Report::Checkpoint {
            step: 10,
            fingerprint: Hash::of(b"a state"),
            computed_ms: 0,
            stored: None,
        };
        world.feed(Input::Reported {
            node: node(n),
            attempt: u32::MAX,
            report,
            stored_by: None,
        });
    }
    assert!(!world.run.newcomers[0].is_level);
    assert_eq!((world.run.attempt, world.run.verified_step), (2, 10));
}
