//! Members that leave: let go where a step ends, without harm to anybody.

use super::timers::paused;
use super::*;

fn leave(world: &mut World, n: u8) {
    world.report(
        n,
        Report::Leaving {
            reason: "its owner stops this miner".into(),
        },
    );
}

fn no_failure(world: &World) {
    assert!(world.held_against().is_empty() && world.lost.is_empty());
    assert!(world.run.strikes.is_empty());
}

#[test]
fn a_member_that_leaves_is_let_go_and_the_rest_go_on_at_once() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 10);
    leave(&mut world, 3);
    assert_eq!(world.run.state, TaskState::Regrouping);
    assert!(
        !world.stopped.contains(&node(3)),
        "not in the middle of a step"
    );
    paused(&mut world, 1, 16);
    paused(&mut world, 2, 15);
    assert_eq!(
        (world.run.state, world.run.start_step),
        (TaskState::Matched, 16),
        "nobody waits for it"
    );
    assert_eq!(world.stopped, [node(3)]);
    assert_eq!(world.left, [node(3)]);
    assert_eq!(world.let_go, [node(3)]);
    no_failure(&world);
    for n in [1, 2] {
        world.report(n, Report::Ready { fetched_bytes: 0 });
    }
    (2..=4).for_each(|i| world.checkpoint(&[1, 2], i * 10));
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    assert!(
        world.paid(3).abs_diff(world.work() / 12) <= 1,
        "what it earned"
    );
    no_failure(&world);
}

/// It goes without waiting, or its machine ends it: it said so.
#[test]
fn a_member_that_announced_it_may_go_without_a_word() {
    let mut world = World::new();
    world.match_three();
    leave(&mut world, 1);
    world.feed(Input::Disconnected(node(1)));
    assert_eq!(world.left, [node(1)]);
    assert_eq!(world.let_go, [node(1)]);
    paused(&mut world, 2, 3);
    paused(&mut world, 3, 3);
    assert_eq!(world.run.state, TaskState::Matched);
    no_failure(&world);
}

/// A group that leaves whole: the task waits from its last checkpoint on, as if it had not been begun.
#[test]
fn a_member_that_was_alone_is_let_go_at_once() {
    let mut world = World::new();
    world.run.spec.miners = 1;
    world.feed(Input::Offered(offer(1)));
    world.pass(500);
    world.report(1, Report::Ready { fetched_bytes: 0 });
    world.checkpoint(&[1], 7);
    leave(&mut world, 1);
    assert_eq!(world.run.state, TaskState::Waiting);
    assert_eq!((world.run.executions, world.run.verified_step), (0, 7));
    assert_eq!(
        (&world.stopped[..], &world.left[..]),
        (&[node(1)][..], &[node(1)][..])
    );
    assert_eq!(world.let_go, [node(1)]);
    no_failure(&world);
    world.ask_free();
    world.feed(Input::Offered(offer(2)));
    world.pass(500);
    assert_eq!(
        (world.run.nodes(), world.run.start_step),
        (vec![node(2)], 7)
    );
}

/// Whoever takes a task and leaves it again and again is not asked again; that is no failure, and earns nothing.
#[test]
fn who_leaves_again_and_again_is_not_asked_again() {
    let mut world = World::new();
    world.run.spec.miners = 1;
    for _ in 0..MAX_LEAVES {
        world.feed(Input::Joined {
            node: node(1),
            position: None,
        });
        world.feed(Input::Offered(offer(1)));
        world.pass(500);
        assert_eq!(world.run.state, TaskState::Matched);
        leave(&mut world, 1);
        world.ask_free();
    }
    assert_eq!(world.run.state, TaskState::Waiting);
    assert!(!world.run.wants(node(1)));
    world.feed(Input::Offered(offer(1)));
    world.pass(500);
    assert_eq!(world.run.state, TaskState::Waiting);
    assert_eq!(world.paid(1), 0);
}

/// Its part is done and verified: it is praised, and the others are not disturbed.
#[test]
fn who_leaves_when_all_is_verified_has_done_its_part() {
    let mut world = World::new();
    world.match_three();
    (1..=4).for_each(|i| world.checkpoint(&[1, 2, 3], i * 10));
    leave(&mut world, 2);
    assert_eq!(world.run.state, TaskState::Running);
    assert_eq!(
        (&world.left[..], &world.praised[..]),
        (&[node(2)][..], &[node(2)][..])
    );
    assert!(world.let_go.is_empty());
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    assert_eq!(world.praised, [node(2), node(1), node(3)]);
    let shares: Vec<_> = (1..=3).map(|n| world.paid(n)).collect();
    assert_eq!(shares.iter().sum::<u64>(), world.work());
}

/// It says so while the group forms again, or with the number of an attempt that is over.
#[test]
fn a_leave_is_heard_in_every_state() {
    for forming in [false, true] {
        let mut world = World::new();
        world.match_three();
        let reason = "silence".to_owned();
        if forming {
            let broken = Report::RingBroken {
                committed: 0,
                suspect: None,
                reason,
            };
            world.report(1, broken);
        }
        let report = Report::Leaving {
            reason: "gone".into(),
        };
        world.feed(Input::Reported {
            node: node(2),
            attempt: 0,
            report,
            stored_by: None,
        });
        for n in [1, 3] {
            paused(&mut world, n, 0);
        }
        assert_eq!(world.run.nodes(), [node(1), node(3)]);
        no_failure(&world);
    }
}
