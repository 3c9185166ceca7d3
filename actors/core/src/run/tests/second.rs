//! A second attempt on the same miner, then the next one, then a refund.

use super::*;

/// A task for one miner, for which 1 and 2 have been asked.
fn alone() -> World {
    let mut world = World::new();
    world.run.spec.miners = 1;
    world
}

fn begin(world: &mut World, n: u8) {
    assert_eq!(world.run.state, TaskState::Matched, "{}", world.run.reason);
    assert_eq!(world.run.nodes(), [node(n)]);
    world.report(n, Report::Ready { fetched_bytes: 0 });
}

/// SIGKILL, and its owner's service manager starts it again at once.
fn killed(world: &mut World, n: u8) {
    world.feed(Input::Disconnected(node(n)));
    world.pass(500);
    world.feed(Input::Joined {
        node: node(n),
        position: None,
    });
    world.pass(RETURN_LIMIT_MS);
    world.ask_free();
}

#[test]
fn a_miner_killed_twice_is_tried_again_and_then_replaced() {
    let mut world = alone();
    world.feed(Input::Offered(offer(1)));
    world.pass(500);
    begin(&mut world, 1);
    world.checkpoint(&[1], 10);

    killed(&mut world, 1);
    assert_eq!(world.run.state, TaskState::Waiting);
    let mut faster = offer(2);
    faster.ability.mflops *= 10;
    world.feed(Input::Offered(faster.clone()));
    world.feed(Input::Offered(offer(1)));
    world.pass(500);
    begin(&mut world, 1);
    assert_eq!(
        world.run.start_step, 10,
        "from the last verified checkpoint"
    );
    world.checkpoint(&[1], 20);

    killed(&mut world, 1);
    assert!(!world.run.wants(node(1)), "twice is enough");
    world.feed(Input::Offered(offer(1)));
    world.feed(Input::Offered(faster));
    world.pass(500);
    begin(&mut world, 2);
    (3..=4).for_each(|i| world.checkpoint(&[2], i * 10));
    world.report(2, finished());
    world.check_end(TaskState::Finished);
    let work = world.work();
    assert_eq!((world.paid(1), world.paid(2)), (work / 2, work - work / 2));
    assert_eq!(world.blamed, [node(1), node(1)]);
}

/// It is not back in time: the task does not wait for it.
#[test]
fn who_is_not_back_in_time_is_replaced_at_once() {
    let mut world = alone();
    world.feed(Input::Offered(offer(1)));
    world.pass(500);
    begin(&mut world, 1);
    world.feed(Input::Disconnected(node(1)));
    world.pass(AWAY_LIMIT_MS);
    world.ask_free();
    world.feed(Input::Offered(offer(2)));
    world.pass(500);
    begin(&mut world, 2);
}

/// Nobody else is there: what was earned is paid, the rest comes back.
#[test]
fn without_another_miner_the_rest_is_refunded() {
    let mut world = alone();
    world.feed(Input::Offered(offer(1)));
    world.pass(500);
    begin(&mut world, 1);
    world.checkpoint(&[1], 10);
    for _ in 0..2 {
        killed(&mut world, 1);
        if world.run.wants(node(1)) || world.run.asked.contains(&node(1)) {
            world.feed(Input::Offered(offer(1)));
            world.pass(500);
            begin(&mut world, 1);
        }
    }
    world.pass(LIMITS.wait_ms);
    world.check_end(TaskState::Expired);
    assert_eq!(world.paid(1), world.work() / 4);
    assert!(world.blamed.is_empty(), "nobody showed that it can be done");
}

/// The others are told why somebody else was chosen.
#[test]
fn whoever_waits_behind_a_second_attempt_is_told() {
    let mut world = alone();
    world.feed(Input::Offered(offer(1)));
    world.pass(500);
    begin(&mut world, 1);
    killed(&mut world, 1);
    world.feed(Input::Offered(offer(2)));
    world.feed(Input::Offered(offer(1)));
    world.now = world.now.plus_ms(500);
    let effects = world
        .run
        .apply(Input::Tick, &Surroundings::default(), world.now);
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Withdraw { node, reason } => Some((*node, reason.clone())),
        _ => None,
    });
    let (who, why) = told.unwrap();
    assert_eq!(who, node(2));
    assert!(why.contains("second attempt"), "{why}");
}
