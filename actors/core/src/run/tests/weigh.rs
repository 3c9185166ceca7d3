//! How members divide a batch, and what that is worth.

use cryptomind_protocol::Signed;
use cryptomind_protocol::audit::{Commitment, Commitments, Part, VERSION};
use cryptomind_protocol::succession::{Ballot, Decision, Successor, Vote};

use super::timers::{paused, ready};
use super::*;
use crate::audit::Opened;
use crate::batch::Shares;
use crate::succession::Proof;

/// Members 1 to 3 run a task, of whom the market believes these speeds: of 40 steps, whose batches thirds and sevenths divide.
fn running(mflops: [u64; 3]) -> World {
    let mut spec = spec();
    if let Work::Train { train, .. } = &mut spec.work {
        (train.global_batch, train.epochs) = (84, 20);
    }
    let terms = terms(&spec);
    let mut world = World::of(spec, terms, LIMITS);
    for (n, mflops) in (1..).zip(mflops) {
        let mut offer = offer(n);
        offer.ability.mflops = mflops;
        world.feed(Input::Offered(offer));
    }
    world.pass(500);
    (1..=3).for_each(|n| world.report(n, Report::Ready { fetched_bytes: 0 }));
    assert_eq!(world.run.state, TaskState::Running);
    world
}

fn seat(world: &World, n: u8) -> &Seat {
    let mut seats = world.run.seats.iter();
    seats.find(|seat| seat.member.node == node(n)).unwrap()
}

fn weights(world: &World, members: &[u8]) -> Vec<u32> {
    let weight = |n: &u8| seat(world, *n).weight.get();
    members.iter().map(weight).collect()
}

/// Each says that it computed so long until a checkpoint that comes after as long as the slowest took.
fn computed(world: &mut World, step: u64, ms: [u64; 3]) {
    world.now = world.now.plus_ms(ms.into_iter().max().unwrap());
    let first = world.run.seats[0].member.node;
    for (n, computed_ms) in (1..).zip(ms) {
        let report = Report::Checkpoint {
            step,
            fingerprint: Hash::of(b"a state"),
            computed_ms,
            stored: (node(n) == first).then(|| (file(1), receipt())),
        };
        world.report(n, report);
    }
    assert_eq!(world.run.verified_step, step);
}

/// The ring breaks, all are there again.
fn regroup(world: &mut World) {
    let (broken, reason) = (world.run.attempt, "noise".to_owned());
    let (committed, suspect) = (world.run.step, None);
    let report = Report::RingBroken {
        committed,
        suspect,
        reason,
    };
    world.report(1, report);
    for n in 1..=3 {
        let report = Report::Paused {
            committed,
            prepared: false,
            ring_address: "h:1".into(),
        };
        world.feed(Input::Reported {
            node: node(n),
            attempt: broken + 1,
            report,
            stored_by: None,
        });
    }
    assert_eq!(world.run.attempt, broken + 1);
}

#[test]
fn who_is_believed_to_be_twice_as_fast_computes_and_earns_twice_as_much() {
    let mut world = running([400, 200, 100]);
    assert_eq!(weights(&world, &[1, 2, 3]), [1000, 500, 250]);
    assert_eq!(world.run.shares().part_len(70, 0), 40);
    (1..=4).for_each(|i| world.checkpoint(&[1, 2, 3], i * 10));
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    let work = world.work();
    let paid = [1, 2, 3].map(|n| world.paid(n));
    assert_eq!(paid.iter().sum::<u64>(), work);
    for (paid, sevenths) in paid.into_iter().zip([4, 2, 1]) {
        assert!(paid.abs_diff(work * sevenths / 7) <= 4, "{paid} of {work}");
    }
}

#[test]
fn within_an_attempt_no_weight_changes_and_the_next_one_goes_by_what_was_measured() {
    let mut world = running([100; 3]);
    computed(&mut world, 10, [4_000, 2_000, 8_000]);
    assert_eq!(world.run.shares().tell(), []);
    regroup(&mut world);
    assert_eq!(weights(&world, &[1, 2, 3]), [500, 1000, 250]);
    // As fast as they were, they took as long as each other with these shares: so it stays.
    (1..=3).for_each(|n| world.report(n, Report::Ready { fetched_bytes: 0 }));
    computed(&mut world, 20, [3_429; 3]);
    regroup(&mut world);
    assert_eq!(weights(&world, &[1, 2, 3]), [500, 1000, 250]);
    // One slows down; what was measured before fades.
    for step in [30, 40] {
        (1..=3).for_each(|n| world.report(n, Report::Ready { fetched_bytes: 0 }));
        computed(&mut world, step, [10_000, 5_000, 5_000]);
        if step == 30 {
            regroup(&mut world);
        }
    }
    let effort = |n| seat(&world, n).effort;
    assert!(effort(1).newest().unwrap() < effort(2).newest().unwrap() / 2.0);
}

/// What was believed of them was wrong, and no member is lost that would have the group begin another attempt.
#[test]
fn a_group_that_would_be_much_faster_pauses_to_be_weighed_anew() {
    let mut world = running([100; 3]);
    computed(&mut world, 10, [4_000, 2_000, 8_000]);
    let all = [1, 2, 3];
    assert_eq!(world.pauses, [(all.map(node).to_vec(), true)]);
    assert_eq!(world.run.state, TaskState::Running, "until they have left");
    paused(&mut world, 1, 12);
    let why = "the members divide their batches anew, by how fast each was measured";
    assert_eq!(world.forms.as_deref(), Some(why));
    (2..=3).for_each(|n| paused(&mut world, n, 12));
    assert_eq!((world.run.attempt, world.run.start_step), (2, 12));
    assert_eq!(weights(&world, &all), [500, 1000, 250]);
    assert_eq!((world.run.fruitless, world.run.unverified_attempts), (0, 0));
    assert_eq!(world.run.weighed, 1);
    ready(&mut world, &all);
    let pauses = world.pauses.len();
    computed(&mut world, 20, [3_429; 3]);
    assert_eq!(world.pauses.len(), pauses, "it is as fast as it can be");
    (3..=4).for_each(|i| world.checkpoint(&all, i * 10));
    world.report(1, finished());
    world.check_end(TaskState::Finished);
}

/// Of a batch of four, two equals of three compute one sample and the third computes two.
#[test]
fn equals_whose_parts_differ_by_a_sample_are_left_alone() {
    let mut spec = spec();
    if let Work::Train { train, .. } = &mut spec.work {
        (train.global_batch, train.checkpoint_steps) = (4, 25);
    }
    let terms = terms(&spec);
    let mut world = World::of(spec, terms, LIMITS);
    (1..=3).for_each(|n| world.feed(Input::Offered(offer(n))));
    world.pass(500);
    ready(&mut world, &[1, 2, 3]);
    let first = world.run.seats[0].member.node;
    let ms = [1, 2, 3].map(|n| if node(n) == first { 20_000 } else { 10_000 });
    computed(&mut world, 25, ms);
    assert_eq!(world.pauses, []);
}

/// Who was lost and came back has no part of what was done meanwhile, nor of what it did and lost.
#[test]
fn who_comes_back_is_paid_from_then_on() {
    let mut world = running([100; 3]);
    world.checkpoint(&[1, 2, 3], 10);
    world.report(
        3,
        Report::Failed {
            task_fault: false,
            reason: "its disk is full".into(),
        },
    );
    [1, 2].iter().for_each(|n| paused(&mut world, *n, 14));
    ready(&mut world, &[1, 2]);
    world.feed(Input::Free(node(3)));
    world.feed(Input::Offered(offer(3)));
    world.report(3, Report::Level { step: 16 });
    [1, 2, 3].iter().for_each(|n| paused(&mut world, *n, 17));
    assert_eq!(world.run.nodes(), [1, 2, 3].map(node));
    ready(&mut world, &[1, 2, 3]);
    world.checkpoint(&[1, 2, 3], 20);
    let earned = world.ledger.balance(&owner(3)).earning.base_units() as f64;
    let due = world.work() as f64 / 40.0 * (10.0 / 3.0 + 3.0 / 3.0);
    assert!((earned - due).abs() < 4.0, "{earned}, not {due}");
}

/// Also before the group was weighed anew, though their checkpoint comes later.
#[test]
fn each_step_is_paid_as_it_was_divided() {
    let mut world = running([100; 3]);
    computed(&mut world, 10, [4_000, 2_000, 8_000]);
    let all = [1, 2, 3];
    all.iter().for_each(|n| paused(&mut world, *n, 15));
    ready(&mut world, &all);
    assert_eq!(weights(&world, &all), [500, 1000, 250]);
    world.checkpoint(&all, 20);
    let earned = |world: &World, n| world.ledger.balance(&owner(n)).earning.base_units() as f64;
    let step = world.work() as f64 / 40.0;
    for (n, part) in (1..).zip([2.0, 4.0, 1.0]) {
        let due = 15.0 * step / 3.0 + 5.0 * step * part / 7.0;
        assert!((earned(&world, n) - due).abs() < 4.0, "{n}: {due}");
    }
}

#[test]
fn a_group_does_not_pause_for_little() {
    let calls = |step, ms| {
        let mut world = running([100; 3]);
        computed(&mut world, step, ms);
        !world.pauses.is_empty()
    };
    assert!(calls(10, [4_000, 4_000, 6_000]));
    assert!(!calls(10, [4_000, 4_000, 4_900]), "by less than a quarter");
    assert!(calls(30, [6_000, 3_000, 12_000]), "two seconds are gained");
    assert!(!calls(30, [3_000, 1_500, 6_000]), "one second is");
    assert!(calls(10, [400, 300, 10_000]), "two are as fast at least");
    assert!(!calls(10, [200, 100, 900]), "that measures nobody");
}

#[test]
fn a_group_whose_speeds_never_rest_is_left_alone() {
    let mut world = running([100; 3]);
    world.run.weighed = 8;
    computed(&mut world, 10, [4_000, 2_000, 8_000]);
    assert_eq!(world.pauses, []);
}

#[test]
fn a_moment_measures_nobody() {
    let mut world = running([100, 100, 50]);
    computed(&mut world, 10, [1, 300, 2]);
    regroup(&mut world);
    assert_eq!(weights(&world, &[1, 2, 3]), [1000, 1000, 500]);
}

/// Believed twice as fast as those that were measured turned out to be against what was believed of them.
#[test]
fn who_was_not_measured_is_judged_by_how_far_off_the_market_was() {
    let mut world = running([100; 3]);
    computed(&mut world, 10, [4_000, 4_000, 4_000]);
    let measured = seat(&world, 1).effort.newest().unwrap();
    let seat = world
        .run
        .seats
        .iter_mut()
        .find(|s| s.member.node == node(3));
    let seat = seat.unwrap();
    (seat.effort, seat.mflops) = (Effort::default(), 200);
    regroup(&mut world);
    assert!(measured > 0.0);
    assert_eq!(weights(&world, &[1, 2, 3]), [500, 500, 1000]);
}

#[test]
fn effort_follows_the_weights() {
    let mut world = running([300, 100, 100]);
    computed(&mut world, 10, [5_000; 3]);
    let flops = [1, 2, 3].map(|n| seat(&world, n).effort.flops);
    assert_eq!(weights(&world, &[1, 2, 3]), [1000, 333, 333]);
    let all = samples_after(&world.run, 10) * world.run.terms.extent.flops_per_sample;
    assert_eq!(flops, [50, 17, 17].map(|samples| all * samples / 84));
}

/// These members of the present group, by rank, have formed the attempt after this one by themselves.
fn formed_after(world: &World, attempt: u32, members: &[NodeId], addresses: Vec<String>) -> Input {
    let successor = Successor {
        members: members.to_vec(),
        ring_addresses: addresses,
        start_step: 10,
    };
    let vote = Vote {
        version: 1,
        task: world.run.task,
        attempt,
        ballot: Ballot { round: 1, rank: 0 },
        successor: successor.digest(),
    };
    let key_of = |member: &NodeId| key((1..=3).find(|n| node(*n) == *member).unwrap());
    let vote = |member| Signed::sign(&vote, &NETWORK, key_of(member));
    let decision = Decision {
        attempt: attempt + 1,
        votes: members.iter().map(vote).collect(),
        successor,
    };
    Input::Succeeded {
        node: members[0],
        proof: Box::new(Proof::of(&decision, &NETWORK).unwrap()),
    }
}

#[test]
fn those_who_go_on_by_themselves_keep_their_weights() {
    let mut world = running([400, 200, 100]);
    computed(&mut world, 10, [2_000, 8_000, 8_000]);
    let mut members = world.run.nodes();
    members.retain(|member| *member != node(3));
    let addresses = members.iter().map(|member| format!("next:{member}"));
    let formed = formed_after(&world, 1, &members, addresses.collect());
    let before = world.run.shares_of_group();
    let group = world.run.group.clone();
    world.feed(formed);
    assert_eq!((world.run.attempt, world.run.group.len()), (2, 2));
    assert_eq!(weights(&world, &[2, 1]), [500, 1000]);
    assert_eq!(world.run.shares(), before.kept(&group, &world.run.group));
    assert_eq!(world.run.shares(), world.run.shares_of_group());
}

/// The coordinator granted the same attempt, weighed anew, and went away before anybody heard.
#[test]
fn weights_that_nobody_heard_of_count_for_nothing() {
    let mut world = running([100; 3]);
    computed(&mut world, 10, [4_000, 2_000, 8_000]);
    (1..=3).for_each(|n| paused(&mut world, n, 10));
    assert_eq!(weights(&world, &[1, 2, 3]), [500, 1000, 250]);
    let addresses = world.run.seats.iter().map(|s| s.ring_address.clone());
    let formed = formed_after(&world, 1, &world.run.group, addresses.collect());
    world.feed(formed);
    assert_eq!(world.run.attempt, 2);
    assert_eq!(world.run.shares().tell(), []);
    assert_eq!(world.run.shares(), world.run.shares_of_group());
    let divided = world.run.divided.last().unwrap();
    let weights = divided.weights.iter().map(|(_, weight)| *weight);
    assert!(weights.eq(world.run.weights.iter().copied()));
}

#[test]
fn the_audit_expects_of_each_what_it_weighs() {
    let mut world = running([400, 100, 100]);
    let said = |rank: u32, samples| Commitments {
        version: VERSION,
        task: world.run.task,
        attempt: 1,
        rank,
        first: 1,
        steps: vec![Commitment {
            loss: 0.5,
            samples,
            roots: None,
        }],
    };
    // 84 by 4, 1 and 1. The third says that it computed more than its part.
    let all = [56, 14, 15].into_iter().zip(0..);
    let all: Vec<_> = all.map(|(samples, rank)| said(rank, samples)).collect();
    for (said, rank) in all.into_iter().zip(0..) {
        let node = world.run.seats[rank].member.node;
        let opened = Box::new(Opened::assumed(said));
        world.feed(Input::Committed { node, opened });
    }
    let parted = world.run.trail.view().unwrap().parted;
    let parted: Vec<_> = parted.iter().map(|p| (p.node, p.part)).collect();
    assert_eq!(parted, [(world.run.seats[2].member.node, Part::Samples)]);
}

/// Of a run that was stored before there were weights nothing is known of them, or of speeds.
#[test]
fn a_run_without_weights_divides_equally_until_it_knows_better() {
    let mut world = running([400, 200, 100]);
    world.run.weights.clear();
    for seat in &mut world.run.seats {
        (seat.weight, seat.mflops) = (Weight::default(), 0);
    }
    assert_eq!(world.run.shares_of_group(), Shares::equal(3));
    regroup(&mut world);
    assert_eq!(world.run.shares().tell(), []);
}
