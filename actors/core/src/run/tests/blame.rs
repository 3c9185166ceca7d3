//! Whose fault a loss is: the task's, until somebody shows that it can be done.

use super::*;

fn crash(world: &mut World, n: u8) {
    world.report(
        n,
        Report::Failed {
            task_fault: false,
            reason: "the process died".into(),
        },
    );
}

/// Three miners that compute until `step` and then crash, one after the other.
fn crash_all(world: &mut World, members: &[u8], step: u64) {
    world.offers_of(members);
    world.pass(500);
    assert_eq!(world.run.state, TaskState::Matched, "{}", world.run.reason);
    for n in members {
        world.report(*n, Report::Ready { fetched_bytes: 0 });
    }
    let progress = Report::Progress {
        step,
        loss: 1.0,
        samples_per_s: 1,
        timeline: Vec::new(),
    };
    world.report(members[0], progress);
    members.iter().for_each(|n| crash(world, *n));
}

#[test]
fn a_task_that_crashes_every_machine_harms_no_rating() {
    let mut world = World::new();
    for first in [1, 11, 21] {
        assert!(!world.run.state.is_final(), "three executions");
        crash_all(&mut world, &[first, first + 1, first + 2], 15);
    }
    world.check_end(TaskState::Abandoned);
    assert!(world.blamed.is_empty(), "{:?}", world.blamed);
    assert_eq!((world.lost.len(), world.run.executions), (9, 3));
    assert!(world.run.reason.contains("against nobody"));
    assert_eq!(world.paid(CLIENT), CAP, "nothing came of it");
}

/// They crash where others do not: that was their own fault.
#[test]
fn who_fails_what_others_do_is_blamed_once() {
    let mut world = World::new();
    crash_all(&mut world, &[1, 2, 3], 15);
    assert!(world.blamed.is_empty());
    world.offers_of(&[11, 12, 13]);
    world.pass(500);
    for n in [11, 12, 13] {
        world.report(n, Report::Ready { fetched_bytes: 0 });
    }
    world.checkpoint(&[11, 12, 13], 10);
    assert!(world.blamed.is_empty(), "the first group got there too");
    world.checkpoint(&[11, 12, 13], 20);
    assert_eq!(world.blamed, [node(1), node(2), node(3)]);
    (3..=4).for_each(|i| world.checkpoint(&[11, 12, 13], i * 10));
    world.report(11, finished());
    world.check_end(TaskState::Finished);
    assert_eq!(world.blamed.len(), 3, "once");
}

/// A checkpoint that waited for the crashed one alone shows nothing: it is of a step before.
#[test]
fn a_checkpoint_of_before_shows_nothing() {
    let mut world = World::new();
    world.match_three();
    for n in 1..=2 {
        let report = Report::Checkpoint {
            step: 10,
            fingerprint: Hash::of(b"10"),
            computed_ms: 0,
            stored: (n == 1).then(|| (file(1), receipt())),
        };
        world.report(n, report);
    }
    crash(&mut world, 3);
    assert_eq!(world.run.verified_step, 10);
    assert_eq!(
        (world.blamed.len(), world.held_against()),
        (0, vec![node(3)])
    );
    world.feed(Input::Cancel);
    assert!(world.blamed.is_empty(), "a client proves nothing by going");
}

/// Charges are part of the run: a coordinator that restarts holds them still.
#[test]
fn a_restart_forgets_no_charge() {
    let mut world = World::new();
    crash_all(&mut world, &[1, 2, 3], 15);
    let stored = cryptomind_protocol::codec::encode(&world.run);
    world.run = cryptomind_protocol::codec::decode(&stored).unwrap();
    world.coordinator_away(60_000);
    world.offers_of(&[11, 12, 13]);
    world.pass(500);
    for n in [11, 12, 13] {
        world.report(n, Report::Ready { fetched_bytes: 0 });
    }
    world.checkpoint(&[11, 12, 13], 20);
    assert_eq!(world.blamed, [node(1), node(2), node(3)]);
}

/// A miner that takes tasks and never starts them earns nothing, is replaced, and is blamed when others start.
#[test]
fn who_accepts_and_never_starts_gains_nothing() {
    let mut world = World::new();
    (1..=4).for_each(|n| world.feed(Input::Offered(offer(n))));
    let (idle, rest) = (3, [1, 2]);
    for n in rest {
        world.report(n, Report::Ready { fetched_bytes: 0 });
    }
    world.pass(LIMITS.prepare_ms);
    assert_eq!(world.lost, [node(idle)]);
    for n in rest {
        timers::paused(&mut world, n, 0);
    }
    (1..=4).for_each(|i| world.checkpoint(&rest, i * 10));
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    assert_eq!(
        (world.blamed.clone(), world.paid(idle)),
        (vec![node(idle)], 0)
    );
}

/// That others came to the same says something only where they are of another owner.
#[test]
fn agreement_counts_between_owners_alone() {
    let agreed_of = |owners: [u8; 3]| {
        let mut world = World::new();
        for (n, of) in (1..=3).zip(owners) {
            let mut offer = offer(n);
            offer.member.owner = owner(of);
            world.feed(Input::Offered(offer));
        }
        world.pass(500);
        (1..=3).for_each(|n| world.report(n, Report::Ready { fetched_bytes: 0 }));
        assert!(!praises(&world.run), "nothing is verified yet");
        (1..=4).for_each(|i| world.checkpoint(&[1, 2, 3], i * 10));
        praises(&world.run)
    };
    assert!(agreed_of([1, 2, 3]) && agreed_of([1, 1, 3]));
    assert!(!agreed_of([1, 1, 1]));
}

#[test]
fn nobody_is_praised_for_his_own_task() {
    let mut world = World::new();
    world.match_three();
    (1..=4).for_each(|i| world.checkpoint(&[1, 2, 3], i * 10));
    world.run.client = owner(1);
    assert_eq!(world.run.praise(node(1)), None);
    assert!(matches!(
        world.run.praise(node(2)),
        Some(Effect::Praise { agreed: true, .. })
    ));
    // Without the third, the client's own word is the only other one.
    world.run.seats.pop();
    assert!(matches!(
        world.run.praise(node(2)),
        Some(Effect::Praise { agreed: false, .. })
    ));
}

/// Whether the first member would be praised for what others came to as well.
fn praises(run: &Run) -> bool {
    matches!(
        run.praise(node(1)),
        Some(Effect::Praise { agreed: true, .. })
    )
}
