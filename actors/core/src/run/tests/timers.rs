//! Nobody answers: every row of the run's table of waits, one test or more each.

use super::*;

pub(super) fn paused(world: &mut World, n: u8, committed: u64) {
    let attempt = world.run.attempt + 1;
    let report = Report::Paused {
        committed,
        prepared: true,
        ring_address: format!("new:{n}"),
    };
    world.feed(Input::Reported {
        node: node(n),
        attempt,
        report,
        stored_by: None,
    });
}

pub(super) fn ready(world: &mut World, members: &[u8]) {
    for n in members {
        world.report(*n, Report::Ready { fetched_bytes: 0 });
    }
}

/// A group that has lost somebody forms again and computes.
pub(super) fn regroup(world: &mut World, members: &[u8], committed: u64) {
    assert_eq!(world.run.state, TaskState::Regrouping);
    members.iter().for_each(|n| paused(world, *n, committed));
    ready(world, members);
    assert_eq!(world.run.state, TaskState::Running);
    let seated: Vec<_> = world.run.nodes();
    let wanted: Vec<_> = members.iter().map(|n| node(*n)).collect();
    assert_eq!(seated, wanted);
}

pub(super) fn fingerprint(world: &mut World, n: u8, step: u64, stored: bool) {
    let report = Report::Checkpoint {
        step,
        fingerprint: Hash::of(&step.to_be_bytes()),
        computed_ms: 0,
        stored: stored.then(|| (file(1), receipt())),
    };
    world.report(n, report);
}

pub(super) fn back_without_state(world: &mut World, n: u8) {
    let (node, position) = (node(n), None);
    world.feed(Input::Joined { node, position });
}

pub(super) fn progress(world: &mut World, step: u64) {
    let report = Report::Progress {
        step,
        loss: 1.0,
        samples_per_s: 1,
        timeline: Vec::new(),
    };
    world.report(1, report);
}

/// Time passes in small steps, as the matchmaker's timer has it; nothing else happens.
pub(super) fn wait(world: &mut World, ms: u64) {
    let end = world.now.plus_ms(ms);
    while world.now < end {
        world.pass(end.ms_since(world.now).min(1000));
    }
}

/// Who is lost, with that held against it, at once or when the task gets further.
pub(super) fn blamed(world: &World, expected: &[u8]) {
    let expected: Vec<_> = expected.iter().map(|n| node(*n)).collect();
    assert_eq!(
        (&world.held_against(), &world.lost),
        (&expected, &expected),
        "{}",
        world.run.reason
    );
}

// Waiting.

#[test]
fn whoever_does_not_answer_in_the_offer_window_is_not_waited_for() {
    let mut world = World::new();
    (1..=3).for_each(|n| world.feed(Input::Offered(offer(n))));
    world.pass(LIMITS.offer_window_ms - 1);
    assert_eq!(
        world.run.state,
        TaskState::Waiting,
        "the fourth may still offer"
    );
    world.pass(1);
    assert_eq!(world.run.state, TaskState::Matched);
    assert!(world.blamed.is_empty());
}

#[test]
fn nobody_comes_and_all_is_refunded() {
    let mut world = World::new();
    world.feed(Input::Offered(offer(1)));
    world.pass(500);
    assert!(world.run.reason.contains("1 of 3"), "{}", world.run.reason);
    wait(&mut world, LIMITS.wait_ms - 501);
    assert_eq!(world.run.state, TaskState::Waiting);
    world.pass(1);
    world.check_end(TaskState::Expired);
    assert_eq!((world.run.payments.len(), world.paid(CLIENT)), (1, CAP));
    assert!(world.stopped.contains(&node(1)), "its offer is not kept");
}

// Matched.

#[test]
fn who_is_not_ready_is_lost_and_the_rest_go_on() {
    let mut world = World::new();
    (1..=4).for_each(|n| world.feed(Input::Offered(offer(n))));
    assert_eq!(world.run.state, TaskState::Matched);
    ready(&mut world, &[1, 3]);
    wait(&mut world, LIMITS.prepare_ms - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[2]);
    regroup(&mut world, &[1, 3], 0);
    (1..=4).for_each(|i| world.checkpoint(&[1, 3], i * 10));
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    assert_eq!(world.paid(1) + world.paid(3), world.work());
}

#[test]
fn a_group_of_which_nobody_is_ready_begins_again() {
    let mut world = World::new();
    (1..=4).for_each(|n| world.feed(Input::Offered(offer(n))));
    wait(&mut world, LIMITS.prepare_ms);
    blamed(&world, &[1, 2, 3]);
    assert_eq!(world.run.state, TaskState::Waiting);
    assert!(world.free_wanted);
}

// Running.

#[test]
fn a_group_that_falls_silent_is_lost_and_keeps_what_it_earned() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 10);
    progress(&mut world, 15);
    wait(&mut world, STALL_LIMIT_MS - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[1, 2, 3]);
    assert_eq!(world.run.state, TaskState::Waiting);
    wait(&mut world, LIMITS.wait_ms);
    world.check_end(TaskState::Expired);
    let earned: u64 = (1..=3).map(|n| world.paid(n)).sum();
    assert_eq!(earned, world.work() / 4);
    let network = (earned + ITEM_FEE) / 100;
    assert_eq!(world.paid(ITEM_OWNER), ITEM_FEE, "the data did their part");
    assert_eq!(world.paid(CLIENT), CAP - earned - ITEM_FEE - network);
}

#[test]
fn a_first_rank_that_stores_nothing_is_lost() {
    let mut world = World::new();
    world.match_three();
    fingerprint(&mut world, 2, 10, false);
    fingerprint(&mut world, 3, 10, false);
    for step in 1..STORE_LIMIT_MS / 20_000 {
        wait(&mut world, 20_000);
        progress(&mut world, step);
    }
    wait(&mut world, 19_999);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[1]);
    regroup(&mut world, &[2, 3], 10);
    world.checkpoint(&[2, 3], 20);
    assert_eq!(world.run.verified_step, 20);
}

#[test]
fn a_member_that_confirms_nothing_starves_nobody() {
    let mut world = World::new();
    world.match_three();
    for i in 1..=2 {
        fingerprint(&mut world, 1, i * 10, true);
        fingerprint(&mut world, 2, i * 10, false);
        progress(&mut world, i * 10 + 1);
        wait(&mut world, 20_000);
    }
    assert!(world.run.earned.is_zero());
    wait(&mut world, 19_999);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[3]);
    assert_eq!(world.run.verified_step, 20, "the others confirm it");
    world.feed(Input::Cancel);
    assert_eq!(world.paid(1) + world.paid(2), world.work() / 2);
    assert_eq!(world.paid(3), 0);
}

/// Checkpoints come so fast that only the last few are kept: still the silent one is found.
#[test]
fn nobody_hides_behind_many_checkpoints() {
    let mut world = World::new();
    world.match_three();
    for step in 1..=CONFIRM_LIMIT_MS / 2000 {
        fingerprint(&mut world, 1, step, true);
        fingerprint(&mut world, 2, step, false);
        blamed(&world, &[]);
        wait(&mut world, 2000);
    }
    blamed(&world, &[3]);
}

#[test]
fn the_last_checkpoint_waits_for_its_confirmation_and_no_longer() {
    let mut world = World::new();
    world.match_three();
    fingerprint(&mut world, 1, STEPS, true);
    fingerprint(&mut world, 3, STEPS, false);
    world.report(1, finished());
    wait(&mut world, CONFIRM_LIMIT_MS - 1);
    assert_eq!(world.run.state, TaskState::Running);
    world.pass(1);
    world.check_end(TaskState::Finished);
    blamed(&world, &[2]);
    assert_eq!(world.paid(1) + world.paid(3), world.work());
}

#[test]
fn a_first_rank_that_keeps_the_result_is_replaced() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], STEPS);
    assert_eq!(world.run.earned, world.run.terms.work_cost);
    wait(&mut world, STALL_LIMIT_MS - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[1]);
    regroup(&mut world, &[2, 3], STEPS);
    world.report(2, finished());
    world.check_end(TaskState::Finished);
    assert_eq!(
        (1..=3).map(|n| world.paid(n)).sum::<u64>(),
        world.work(),
        "earned is earned"
    );
}

/// The first rank still stores the result: nobody pauses it for those who have done their part.
#[test]
fn who_has_done_its_part_may_lose_its_connection() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], STEPS);
    world.feed(Input::Disconnected(node(2)));
    world.pass(AWAY_LIMIT_MS);
    assert_eq!(world.run.state, TaskState::Running);
    assert_eq!(world.run.nodes(), [node(1), node(3)]);
    assert!(world.held_against().is_empty());
    assert_eq!(world.praised, [node(2)]);
    assert_eq!(
        (&world.left[..], &world.lost[..]),
        (&[node(2)][..], &[][..])
    );
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    assert!(world.paid(2) > 0);
}

// Regrouping.

#[test]
fn who_says_nothing_in_a_pause_is_lost() {
    let mut world = World::new();
    world.match_three();
    world.report(2, broken(None));
    paused(&mut world, 1, 0);
    paused(&mut world, 2, 0);
    wait(&mut world, WORD_LIMIT_MS - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[3]);
    assert_eq!(
        (world.run.state, world.run.attempt),
        (TaskState::Matched, 2)
    );
}

fn comes(world: &mut World, n: u8) {
    world.feed(Input::Reported {
        node: node(n),
        attempt: world.run.attempt + 1,
        report: Report::Coming {},
        stored_by: None,
    });
}

/// It ends what it computes: the others wait for it, and hear that they are to.
#[test]
fn who_says_that_it_comes_is_waited_for() {
    let mut world = World::new();
    world.match_three();
    world.report(2, broken(None));
    [1, 2].iter().for_each(|n| paused(&mut world, *n, 0));
    for _ in 0..3 {
        comes(&mut world, 3);
        wait(&mut world, PAUSE_LIMIT_MS);
        assert_eq!(world.run.state, TaskState::Regrouping);
    }
    paused(&mut world, 3, 0);
    blamed(&world, &[]);
    assert_eq!(world.run.seats.len(), 3);
    assert_eq!(world.run.state, TaskState::Matched);
}

#[test]
fn who_says_that_it_comes_and_falls_silent_is_lost() {
    let mut world = World::new();
    world.match_three();
    world.report(2, broken(None));
    comes(&mut world, 3);
    [1, 2].iter().for_each(|n| paused(&mut world, *n, 0));
    wait(&mut world, PAUSE_LIMIT_MS);
    blamed(&world, &[]);
    wait(&mut world, WORD_LIMIT_MS - 1);
    assert_eq!(world.run.state, TaskState::Regrouping);
    world.pass(1);
    blamed(&world, &[3]);
    assert_eq!(world.run.state, TaskState::Matched);
}

#[test]
fn who_comes_and_never_is_there_is_lost() {
    let mut world = World::new();
    world.match_three();
    world.report(2, broken(None));
    [1, 2].iter().for_each(|n| paused(&mut world, *n, 0));
    for _ in 0..COMING_LIMIT_MS / PAUSE_LIMIT_MS {
        assert_eq!(world.run.state, TaskState::Regrouping);
        comes(&mut world, 3);
        wait(&mut world, PAUSE_LIMIT_MS);
    }
    blamed(&world, &[3]);
    assert_eq!(world.run.state, TaskState::Matched);
}

/// Whoever has no connection cannot have heard: it has the time of a pause to come back, and then that of a word.
#[test]
fn who_comes_back_in_a_pause_has_time_for_a_word() {
    let mut world = World::new();
    world.match_three();
    world.feed(Input::Disconnected(node(3)));
    world.report(2, broken(None));
    [1, 2].iter().for_each(|n| paused(&mut world, *n, 0));
    wait(&mut world, PAUSE_LIMIT_MS - 1);
    let position = Some(Position {
        task: world.run.task,
        attempt: world.run.attempt,
        committed: 0,
    });
    let node = node(3);
    world.feed(Input::Joined { node, position });
    blamed(&world, &[]);
    paused(&mut world, 3, 0);
    assert_eq!(world.run.seats.len(), 3);
    assert_eq!(world.run.state, TaskState::Matched);
}

#[test]
fn who_is_suspected_and_silent_is_not_waited_for() {
    let mut world = World::new();
    world.match_three();
    world.report(2, broken(Some(node(3))));
    paused(&mut world, 1, 0);
    wait(&mut world, SUSPECT_LIMIT_MS);
    blamed(&world, &[]);
    paused(&mut world, 2, 0);
    blamed(&world, &[3]);
    assert_eq!(world.run.state, TaskState::Matched);
}

/// It was silent for as long as a connection may be.
#[test]
fn whose_connection_breaks_in_a_pause_is_suspected() {
    let mut world = World::new();
    world.match_three();
    world.report(2, broken(None));
    paused(&mut world, 1, 0);
    paused(&mut world, 2, 0);
    wait(&mut world, SUSPECT_LIMIT_MS);
    world.feed(Input::Disconnected(node(3)));
    world.pass(1);
    blamed(&world, &[3]);
    assert_eq!(world.run.state, TaskState::Matched);
}

#[test]
fn a_pause_that_nobody_answers_begins_again() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 10);
    world.report(2, broken(None));
    wait(&mut world, WORD_LIMIT_MS);
    blamed(&world, &[1, 2, 3]);
    assert_eq!(
        (world.run.state, world.run.verified_step),
        (TaskState::Waiting, 10)
    );
}

pub(super) fn broken(suspect: Option<NodeId>) -> Report {
    Report::RingBroken {
        committed: 0,
        suspect,
        reason: "silence".into(),
    }
}

// Members come and go.

#[test]
fn a_miner_that_vanishes_keeps_what_it_earned_and_no_more() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 10);
    world.feed(Input::Disconnected(node(3)));
    wait(&mut world, AWAY_LIMIT_MS - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[3]);
    regroup(&mut world, &[1, 2], 12);
    (2..=4).for_each(|i| world.checkpoint(&[1, 2], i * 10));
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    assert!(world.paid(3).abs_diff(world.work() / 12) <= 1);
}

/// It comes back without the run's state: once what was on its way has had its time, it is lost, and may be asked anew.
#[test]
fn a_member_that_comes_back_empty_handed_is_not_waited_for() {
    let mut world = World::new();
    world.match_three();
    world.feed(Input::Disconnected(node(3)));
    back_without_state(&mut world, 3);
    wait(&mut world, RETURN_LIMIT_MS - 1);
    blamed(&world, &[]);
    world.pass(1);
    blamed(&world, &[3]);
}

/// Coming back again and again is no answer.
#[test]
fn a_member_that_comes_back_empty_handed_does_not_win_time() {
    let mut world = World::new();
    world.match_three();
    for _ in 0..3 {
        world.feed(Input::Disconnected(node(3)));
        back_without_state(&mut world, 3);
        wait(&mut world, RETURN_LIMIT_MS / 4);
        blamed(&world, &[]);
    }
    wait(&mut world, RETURN_LIMIT_MS / 4);
    blamed(&world, &[3]);
}

/// Its process ended well, and what it had to say is on its way.
#[test]
fn a_report_that_was_on_its_way_counts() {
    let mut world = World::new();
    world.match_three();
    fingerprint(&mut world, 1, STEPS, true);
    fingerprint(&mut world, 2, STEPS, false);
    world.feed(Input::Disconnected(node(3)));
    back_without_state(&mut world, 3);
    wait(&mut world, RETURN_LIMIT_MS - 1);
    fingerprint(&mut world, 3, STEPS, false);
    assert_eq!(world.run.verified_step, STEPS);
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    blamed(&world, &[]);
}

/// The result is here and waits for the others' word: whoever sent it is done.
#[test]
fn a_first_rank_that_has_delivered_may_forget_the_run() {
    let mut world = World::new();
    world.match_three();
    fingerprint(&mut world, 1, STEPS, true);
    world.report(1, finished());
    world.feed(Input::Disconnected(node(1)));
    back_without_state(&mut world, 1);
    wait(&mut world, AWAY_LIMIT_MS);
    (2..=3).for_each(|n| fingerprint(&mut world, n, STEPS, false));
    world.check_end(TaskState::Finished);
    blamed(&world, &[]);
}

#[test]
fn a_group_that_gets_nowhere_is_not_kept_for_ever() {
    let mut world = World::new();
    world.match_three();
    for _ in 0..=MAX_FRUITLESS_ATTEMPTS {
        world.report(1, broken(None));
        (1..=3).for_each(|n| paused(&mut world, n, 0));
    }
    assert_eq!(world.run.state, TaskState::Waiting);
    assert!(
        world.held_against().is_empty(),
        "nobody knows whose fault it was"
    );
}

/// A member breaks the ring again and again, and goes back each time, while others tell of progress.
#[test]
fn a_group_that_verifies_nothing_is_not_kept_for_ever() {
    let mut world = World::new();
    world.match_three();
    for attempt in 1..MAX_ATTEMPTS_A_CHECKPOINT {
        progress(&mut world, 5);
        world.report(3, broken(None));
        (1..=3).for_each(|n| paused(&mut world, n, 0));
        assert_eq!(world.run.attempt, attempt + 1);
    }
    progress(&mut world, 5);
    world.report(3, broken(None));
    (1..=3).for_each(|n| paused(&mut world, n, 0));
    assert_eq!(world.run.state, TaskState::Waiting);
    assert!(world.held_against().is_empty());
}

/// Groups come and vanish until the network gives up: what the last ones earned is theirs, the rest is the client's.
#[test]
fn when_all_groups_are_lost_the_task_is_abandoned() {
    let mut world = World::new();
    for first in [1, 11, 21] {
        let members = [first, first + 1, first + 2];
        world.offers_of(&members);
        world.pass(500);
        ready(&mut world, &members);
        world.checkpoint(&members, world.run.verified_step + 10);
        members
            .iter()
            .for_each(|n| world.feed(Input::Disconnected(node(*n))));
        wait(&mut world, AWAY_LIMIT_MS);
    }
    world.check_end(TaskState::Abandoned);
    let of_group = |first: u8| (first..first + 3).map(|n| world.paid(n)).sum::<u64>();
    assert_eq!([1, 11, 21].map(of_group), [world.work() / 4; 3]);
}

/// The network could not do it, and nothing came of the data: nobody is paid for anything.
#[test]
fn a_task_that_never_got_anywhere_costs_nothing() {
    let mut world = World::new();
    for first in [1, 11, 21] {
        let members = [first, first + 1, first + 2];
        world.offers_of(&members);
        world.pass(500);
        ready(&mut world, &members);
        members
            .iter()
            .for_each(|n| world.feed(Input::Disconnected(node(*n))));
        wait(&mut world, AWAY_LIMIT_MS);
    }
    world.check_end(TaskState::Abandoned);
    assert_eq!((world.run.payments.len(), world.paid(CLIENT)), (1, CAP));
}

// The client.

#[test]
fn a_client_that_is_silent_for_ever_pays_for_work_and_gets_the_rest() {
    let mut world = World::new();
    world.match_three();
    for i in 1..=4 {
        wait(&mut world, 200_000);
        world.checkpoint(&[1, 2, 3], i * 10);
    }
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    assert_eq!((1..=3).map(|n| world.paid(n)).sum::<u64>(), world.work());
    assert!(world.paid(CLIENT) > 0);
}

/// Where the data were there when the client cancels, their owner is due its fee.
#[test]
fn a_client_that_cancels_late_pays_for_the_data() {
    let mut world = World::new();
    world.feed(Input::Offered(offer(1)));
    let mut early = World::new();
    early.feed(Input::Cancel);
    early.check_end(TaskState::Cancelled);
    assert_eq!(early.paid(CLIENT), CAP);
    let mut late = World::new();
    late.match_three();
    late.feed(Input::Cancel);
    late.check_end(TaskState::Cancelled);
    assert_eq!(late.paid(ITEM_OWNER), ITEM_FEE);
}

// The coordinator.

#[test]
fn a_coordinator_that_was_away_counts_no_time() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 10);
    fingerprint(&mut world, 1, 20, true);
    world.coordinator_away(2 * STALL_LIMIT_MS);
    assert_eq!(world.run.state, TaskState::Running);
    wait(&mut world, AWAY_LIMIT_MS - 1);
    for n in 1..=3 {
        let position = Some(Position {
            task: world.run.task,
            attempt: 1,
            committed: 21,
        });
        world.feed(Input::Joined {
            node: node(n),
            position,
        });
    }
    wait(&mut world, AWAY_LIMIT_MS);
    blamed(&world, &[]);
    world.checkpoint(&[1, 2, 3], 20);
    assert_eq!(
        (world.run.state, world.run.verified_step),
        (TaskState::Running, 20)
    );
}

#[test]
fn whoever_does_not_come_back_with_the_coordinator_is_lost() {
    let mut world = World::new();
    world.match_three();
    world.coordinator_away(60_000);
    [1, 2]
        .iter()
        .for_each(|n| world.feed(Input::Present(node(*n))));
    wait(&mut world, AWAY_LIMIT_MS);
    blamed(&world, &[3]);
}

/// Every state survives the coordinator's absence, with all its time before it.
#[test]
fn timers_start_anew_in_every_state() {
    let waiting = World::new();
    let mut matched = World::new();
    (1..=4).for_each(|n| matched.feed(Input::Offered(offer(n))));
    let mut running = World::new();
    running.match_three();
    let mut regrouping = World::new();
    regrouping.match_three();
    regrouping.report(1, broken(Some(node(2))));
    for mut world in [waiting, matched, running, regrouping] {
        let state = world.run.state;
        world.coordinator_away(LIMITS.hold_ms / 2);
        let next = world.run.next_timer().unwrap();
        assert!(next > world.now || state == TaskState::Regrouping);
        world.pass(0);
        assert_eq!((world.run.state, world.settled), (state, 0));
        fall_silent(&mut world);
        world.check_end(world.run.state);
        assert_eq!(world.settled, 1);
    }
}

#[test]
fn a_task_ends_with_its_time_whatever_its_group_says() {
    let mut world = World::with(Limits {
        hold_ms: 3_600_000,
        ..LIMITS
    });
    world.match_three();
    world.checkpoint(&[1, 2, 3], 10);
    while world.now < world.run.ends() {
        assert_eq!(world.run.state, TaskState::Running);
        let next = world.run.step + 1;
        progress(&mut world, next);
        world.pass(150_000);
    }
    world.check_end(TaskState::Expired);
    assert_eq!(world.settled, 1, "by the run, not by the ledger");
    assert_eq!(
        (1..=3).map(|n| world.paid(n)).sum::<u64>(),
        world.work() / 4
    );
    assert!(world.blamed.is_empty());
}

/// The coordinator is away until the hold expires: the ledger pays what was earned, the run learns it.
#[test]
fn a_coordinator_that_is_lost_strands_nothing() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 20);
    world.coordinator_away(world.run.hold_expires().ms_since(world.now));
    world.check_end(TaskState::Expired);
    assert_eq!(world.settled, 0, "the ledger did");
    let earned: u64 = (1..=3).map(|n| world.paid(n)).sum();
    assert_eq!(earned, world.work() / 2);
    assert_eq!(world.paid(ITEM_OWNER), ITEM_FEE);
    assert_eq!(world.ledger.balance(&owner(1)).locked, Amount::ZERO);
    assert_eq!(world.stopped, [node(1), node(2), node(3)]);
}

#[test]
fn an_expired_hold_without_earnings_goes_back_whole() {
    let mut world = World::new();
    world.match_three();
    world.coordinator_away(2 * LIMITS.hold_ms);
    world.check_end(TaskState::Expired);
    assert_eq!((world.run.payments.len(), world.paid(CLIENT)), (1, CAP));
}

/// A moment before its expiry the hold is still the run's.
#[test]
fn a_hold_does_not_expire_early() {
    let mut world = World::new();
    world.coordinator_away(world.run.hold_expires().ms_since(world.now) - 1);
    assert_eq!(world.run.state, TaskState::Waiting);
    world.pass(0);
    world.check_end(TaskState::Expired);
    assert_eq!(world.settled, 1);
}

/// News that comes after the end of a run changes nothing, however it ended.
#[test]
fn nothing_happens_after_the_end() {
    let mut world = World::new();
    world.match_three();
    world.coordinator_away(2 * LIMITS.hold_ms);
    let end = world.run.clone();
    world.feed(Input::HoldExpired(Vec::new()));
    world.feed(Input::Cancel);
    world.checkpoint(&[1, 2, 3], 10);
    world.pass(LIMITS.hold_ms);
    assert_eq!(world.run, end);
}

/// The machine's clock is set while members compute, prepare, pause and wait: nothing ends early, nobody is blamed, no wait
/// gets a day longer.
#[test]
fn a_clock_that_is_set_ends_nothing() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let limits = Limits {
        hold_ms: 100 * DAY_MS,
        ..LIMITS
    };
    let make = || {
        let mut world = World::with(limits);
        world.now = world.now.plus_ms(10 * DAY_MS);
        world.feed(Input::ClockSet);
        world
    };
    let waiting = make();
    let mut matched = make();
    (1..=4).for_each(|n| matched.feed(Input::Offered(offer(n))));
    let mut running = make();
    running.match_three();
    fingerprint(&mut running, 1, 10, true);
    running.feed(Input::Disconnected(node(2)));
    let mut regrouping = make();
    regrouping.match_three();
    regrouping.report(1, broken(Some(node(2))));
    for world in [waiting, matched, running, regrouping] {
        for off in [9 * DAY_MS, 11 * DAY_MS] {
            let mut world = world.clone();
            let state = world.run.state;
            world.now = Timestamp::from_ms(off);
            world.feed(Input::ClockSet);
            world.pass(0);
            blamed(&world, &[]);
            assert_eq!((world.run.state, world.settled), (state, 0));
            let next = world.run.next_timer().unwrap();
            assert!(next.ms_since(world.now) <= STALL_LIMIT_MS);
            fall_silent(&mut world);
            world.check_end(world.run.state);
        }
    }
}
