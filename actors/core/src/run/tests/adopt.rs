//! Attempts that members formed while the coordinator was away, and what is forgotten of an attempt that went further.

use cryptomind_protocol::Signed;

use crate::succession::{Ballot, Decision, Proof, Successor, Vote};

use super::*;

/// Members 1 to 3 are at this step, as it last heard.
fn at_step(step: u64) -> World {
    let mut world = World::new();
    world.match_three();
    world.report(1, progress(step));
    world
}

fn progress(step: u64) -> Report {
    Report::Progress {
        step,
        loss: 1.0,
        samples_per_s: 1,
        timeline: Vec::new(),
    }
}

/// These members formed an attempt; the voters are those of them.
pub(super) fn decision(world: &World, attempt: u32, members: &[u8], start_step: u64) -> Decision {
    let address = |n: &u8| format!("next:{n}");
    let successor = Successor {
        members: members.iter().map(|n| node(*n)).collect(),
        ring_addresses: members.iter().map(address).collect(),
        start_step,
    };
    voted(world, attempt, members, successor)
}

fn voted(world: &World, attempt: u32, voters: &[u8], successor: Successor) -> Decision {
    let vote = Vote {
        version: 1,
        task: world.run.task,
        attempt: attempt - 1,
        ballot: Ballot { round: 1, rank: 0 },
        successor: successor.digest(),
    };
    let vote = |n: &u8| Signed::sign(&vote, &NETWORK, key(*n));
    Decision {
        attempt,
        votes: voters.iter().map(vote).collect(),
        successor,
    }
}

fn proof(decision: &Decision) -> Box<Proof> {
    Box::new(Proof::of(decision, &NETWORK).unwrap())
}

pub(super) fn succeeded(world: &mut World, n: u8, decision: &Decision) {
    world.feed(Input::Succeeded {
        node: node(n),
        proof: proof(decision),
    });
}

fn pause_answered(world: &mut World, n: u8, committed: u64, prepared: bool) {
    let attempt = world.run.attempt + 1;
    world.feed(Input::Reported {
        node: node(n),
        attempt,
        report: Report::Paused {
            committed,
            prepared,
            ring_address: format!("new:{n}"),
        },
        stored_by: None,
    });
}

fn ring_broken(suspect: u8) -> Report {
    Report::RingBroken {
        committed: 0,
        suspect: Some(node(suspect)),
        reason: "silence".into(),
    }
}

#[test]
fn what_a_majority_formed_is_adopted_and_the_silent_are_lost() {
    let mut world = at_step(4);
    world.coordinator_away(3_000);
    let formed = decision(&world, 2, &[2, 3], 5);
    succeeded(&mut world, 3, &formed);
    let run = &world.run;
    assert_eq!((run.state, run.attempt), (TaskState::Matched, 2));
    assert_eq!((run.start_step, run.nodes()), (5, vec![node(2), node(3)]));
    assert_eq!(run.seats[0].ring_address, "next:2");
    assert_eq!(world.lost, [node(1)]);
    succeeded(&mut world, 2, &formed);
    [2, 3]
        .iter()
        .for_each(|n| world.report(*n, Report::Ready { fetched_bytes: 0 }));
    assert_eq!(world.run.state, TaskState::Running);
    (1..=4).for_each(|i| world.checkpoint(&[2, 3], i * 10));
    world.report(2, finished());
    world.check_end(TaskState::Finished);
    assert_eq!(world.paid(1), 0);
    assert_eq!(world.paid(2) + world.paid(3), world.work());
}

#[test]
fn it_is_adopted_in_a_pause_too_and_each_member_is_told_its_place() {
    let mut world = at_step(4);
    world.report(2, ring_broken(1));
    let formed = decision(&world, 2, &[2, 3], 5);
    let input = |n| Input::Succeeded {
        node: node(n),
        proof: proof(&formed),
    };
    let around = Surroundings::default();
    let effects = world.run.apply(input(2), &around, world.now);
    assert!(effects.contains(&Effect::Match { only: None }));
    let effects = world.run.apply(input(3), &around, world.now);
    let only = Some(node(3));
    assert_eq!(effects, [Effect::Match { only }]);
}

#[test]
fn several_attempts_are_caught_up_with_one_by_one() {
    let mut world = at_step(4);
    let first = decision(&world, 2, &[1, 2, 3], 5);
    succeeded(&mut world, 1, &first);
    let second = decision(&world, 3, &[1, 3], 7);
    succeeded(&mut world, 1, &second);
    assert_eq!((world.run.attempt, world.run.start_step), (3, 7));
    assert_eq!(world.run.nodes(), [node(1), node(3)]);
    // Of the first, from whoever is slow: old news.
    succeeded(&mut world, 3, &first);
    assert_eq!(world.run.attempt, 3);
    assert_eq!(world.lost, [node(2)]);
}

/// One of them is lost before all others have told of it.
#[test]
fn who_tells_late_of_what_was_adopted_keeps_its_seat() {
    let mut world = at_step(4);
    let first = decision(&world, 2, &[1, 2, 3], 5);
    succeeded(&mut world, 1, &first);
    let reason = "it lost its state".to_owned();
    let failed = Report::Failed {
        task_fault: false,
        reason,
    };
    world.report(3, failed);
    assert_eq!(world.run.state, TaskState::Regrouping);
    succeeded(&mut world, 2, &first);
    assert_eq!(world.run.nodes(), [node(1), node(2)]);
    let second = decision(&world, 3, &[1, 2], 6);
    succeeded(&mut world, 2, &second);
    assert_eq!((world.run.attempt, world.run.start_step), (3, 6));
}

/// The coordinator went on with the one that it reached: the others' work is not the group's.
#[test]
fn it_is_refused_where_another_attempt_was_granted() {
    let mut world = at_step(4);
    world.report(1, ring_broken(2));
    pause_answered(&mut world, 1, 4, true);
    world.pass(PAUSE_LIMIT_MS);
    assert_eq!((world.run.attempt, world.run.nodes()), (2, vec![node(1)]));
    world.stopped.clear();
    let formed = decision(&world, 2, &[2, 3], 5);
    for n in [2, 3] {
        succeeded(&mut world, n, &formed);
        world.report(n, Report::Ready { fetched_bytes: 0 });
    }
    assert_eq!(world.stopped, [node(2), node(3)]);
    assert_eq!(world.run.nodes(), [node(1)]);
    assert_eq!(world.run.state, TaskState::Matched);
}

/// It was granted a place that it never heard of, and went on with others.
#[test]
fn who_is_in_both_loses_its_seat() {
    let mut world = at_step(4);
    world.report(1, ring_broken(3));
    [1, 2]
        .iter()
        .for_each(|n| pause_answered(&mut world, *n, 4, true));
    world.pass(SUSPECT_LIMIT_MS);
    assert_eq!(world.run.nodes(), [node(1), node(2)]);
    let formed = decision(&world, 2, &[2, 3], 4);
    succeeded(&mut world, 2, &formed);
    assert_eq!(world.run.nodes(), [node(1)]);
    assert_eq!(world.run.state, TaskState::Regrouping);
    assert!(world.held_against().iter().all(|n| *n == node(3)));
}

/// Both came to the same: there is one group.
#[test]
fn what_both_came_to_is_confirmed() {
    let mut world = at_step(4);
    world.report(1, ring_broken(3));
    for n in [1, 2] {
        pause_answered(&mut world, n, 4, false);
    }
    world.pass(SUSPECT_LIMIT_MS);
    let mut successor = decision(&world, 2, &[1, 2], 4).successor;
    successor.ring_addresses = vec!["new:1".into(), "new:2".into()];
    let formed = voted(&world, 2, &[1, 2], successor);
    succeeded(&mut world, 2, &formed);
    assert_eq!(world.run.nodes(), [node(1), node(2)]);
    assert_eq!(world.run.state, TaskState::Matched);
}

#[test]
fn what_proves_nothing_changes_no_group() {
    let of = |members: &[u8], start| decision(&at_step(4), 2, members, start);
    let mut half = of(&[2, 3], 5);
    half.votes.truncate(1);
    let mut successor = of(&[2, 3], 5).successor;
    successor.members[0] = node(4);
    let stranger = voted(&at_step(4), 2, &[2, 3], successor);
    for forged in [of(&[2], 5), half, stranger, of(&[2, 3], STEPS + 1)] {
        let mut world = at_step(4);
        succeeded(&mut world, 2, &forged);
        assert_eq!(world.run.attempt, 1);
        assert_eq!(world.run.nodes(), [node(1), node(3)], "{forged:?}");
    }
}

/// The first rank stored step 10 and died before the others committed it. They compute it anew, in a smaller group whose
/// sums round otherwise: the stored file is not theirs.
#[test]
fn what_lies_beyond_the_step_agreed_on_is_forgotten() {
    let mut world = at_step(9);
    let stored = Some((file(1), receipt()));
    let fingerprint = Hash::of(b"three");
    let checkpoint = |fingerprint, stored| Report::Checkpoint {
        step: 10,
        fingerprint,
        computed_ms: 0,
        stored,
    };
    world.report(1, checkpoint(fingerprint, stored));
    world.report(2, ring_broken(1));
    for n in [2, 3] {
        pause_answered(&mut world, n, 9, true);
    }
    world.pass(SUSPECT_LIMIT_MS);
    assert_eq!(world.run.start_step, 9);
    assert!(world.run.checkpoints.is_empty());
    for n in [2, 3] {
        world.report(n, Report::Ready { fetched_bytes: 0 });
        world.report(n, checkpoint(Hash::of(b"two"), None));
    }
    assert_eq!(world.run.verified_step, 0, "nobody stored it");
    assert_eq!(world.run.seats.len(), 2);
}
