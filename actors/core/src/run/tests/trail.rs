//! Commitments of a run's members: what is taken in, kept and told, and that it costs nobody anything.

use cryptomind_protocol::audit::{Commitment, Commitments, Part, Roots, VERSION};

use super::*;
use crate::batch::Shares;

/// What rank `rank` of three honestly says of these steps.
fn said(attempt: u32, rank: u32, steps: std::ops::RangeInclusive<u64>) -> Commitments {
    let honest = |step: u64| {
        let root = Hash::of(&step.to_be_bytes());
        Commitment {
            loss: 0.5,
            samples: Shares::equal(3).part_len(10, rank),
            roots: Some(Roots {
                gradients: root,
                parameters: root,
            }),
        }
    };
    Commitments {
        version: VERSION,
        task: TaskId::new([7; 16]),
        attempt,
        rank,
        first: *steps.start(),
        steps: steps.map(honest).collect(),
    }
}

/// The effects of a member's word.
fn hear(world: &mut World, n: u8, said: Commitments) -> Vec<Effect> {
    let opened = Box::new(Opened::assumed(said));
    let input = Input::Committed {
        node: node(n),
        opened,
    };
    let mut run = world.run.clone();
    let effects = run.apply(input.clone(), &Surroundings::default(), world.now);
    world.feed(input);
    effects
}

fn running() -> World {
    let mut world = World::new();
    world.match_three();
    world
}

fn told(effects: &[Effect]) -> Vec<&Event> {
    let told = effects.iter().filter_map(|effect| match effect {
        Effect::Tell { event, .. } => Some(event),
        _ => None,
    });
    told.collect()
}

#[test]
fn what_members_sign_is_kept_and_compared() {
    let mut world = running();
    for (n, rank) in [(1, 0), (2, 1), (3, 2)] {
        for (number, steps) in [(0, 1..=5), (1, 6..=10)] {
            let effects = hear(&mut world, n, said(1, rank, steps));
            let kept = matches!(effects[..], [Effect::Keep { node: whose, number: of, .. }]
                if whose == node(n) && of == number);
            assert!(kept, "{effects:?}");
        }
    }
    let view = world.run.trail.view().unwrap();
    assert_eq!((view.compared, view.last, view.signatures), (10, 10, 6));
    assert!(view.parted.is_empty());
}

/// That is decided where checkpoints are compared.
#[test]
fn who_parts_from_the_others_is_named_and_loses_nothing() {
    let mut world = running();
    hear(&mut world, 1, said(1, 0, 1..=10));
    let mut odd = said(1, 1, 1..=10);
    let root = odd.steps[6].roots.as_mut().unwrap();
    root.parameters = Hash::of(b"another");
    hear(&mut world, 2, odd);
    let effects = hear(&mut world, 3, said(1, 2, 1..=10));
    let parted = Event::Parted {
        node: node(2),
        name: "m2".into(),
        step: 7,
        part: Part::Parameters,
    };
    assert_eq!(told(&effects), [&parted]);
    let view = world.run.trail.view().unwrap();
    assert_eq!((view.compared, view.parted.len()), (10, 1));
    assert_eq!((view.parted[0].node, view.parted[0].attempt), (node(2), 1));
    (1..=4).for_each(|i| world.checkpoint(&[1, 2, 3], i * 10));
    world.report(1, finished());
    assert_eq!(world.run.state, TaskState::Finished);
    assert!(world.blamed.is_empty() && world.lost.is_empty());
    assert!(world.paid(2) > 0);
}

#[test]
fn what_is_not_its_word_on_this_attempt_changes_nothing() {
    let mut world = running();
    let cases = [
        (1, said(2, 0, 1..=5)),
        (1, said(0, 0, 1..=5)),
        // Another's rank, and one that is not there.
        (1, said(1, 1, 1..=5)),
        (1, said(1, 3, 1..=5)),
        // Who is no member.
        (9, said(1, 0, 1..=5)),
        // Steps that the run has not.
        (1, said(1, 0, STEPS..=STEPS + 1)),
    ];
    for (n, said) in cases {
        assert_eq!(hear(&mut world, n, said), []);
    }
    assert_eq!(world.run.trail.view(), None);
    hear(&mut world, 1, said(1, 0, 1..=5));
    assert_eq!(hear(&mut world, 1, said(1, 0, 1..=5)), [], "once is enough");
    assert_eq!(world.run.trail.view().unwrap().signatures, 1);
}

#[test]
fn a_new_attempt_compares_anew_and_counts_on() {
    let mut world = running();
    hear(&mut world, 1, said(1, 0, 1..=5));
    hear(&mut world, 2, said(1, 1, 1..=5));
    world.report(
        1,
        Report::RingBroken {
            committed: 5,
            suspect: Some(node(3)),
            reason: "silent".into(),
        },
    );
    let attempt = world.run.attempt + 1;
    for n in [1, 2] {
        let report = Report::Paused {
            committed: 5,
            prepared: false,
            ring_address: "h:1".into(),
        };
        world.feed(Input::Reported {
            node: node(n),
            attempt,
            report,
            stored_by: None,
        });
    }
    world.pass(SUSPECT_LIMIT_MS);
    assert_eq!((world.run.attempt, world.run.start_step), (2, 5));
    // Late news of the attempt before, and of what is done already.
    assert_eq!(hear(&mut world, 1, said(1, 0, 6..=6)), []);
    assert_eq!(hear(&mut world, 1, said(2, 0, 5..=6)), []);
    let of_two = |rank| {
        let mut said = said(2, rank, 6..=8);
        (said.steps.iter_mut()).for_each(|step| step.samples = Shares::equal(2).part_len(10, rank));
        said
    };
    let effects = hear(&mut world, 1, of_two(0));
    assert!(
        matches!(effects[..], [Effect::Keep { number: 1, .. }]),
        "{effects:?}"
    );
    hear(&mut world, 2, of_two(1));
    let view = world.run.trail.view().unwrap();
    assert_eq!((view.compared, view.last, view.signatures), (3, 8, 4));
    assert!(view.parted.is_empty());
}

#[test]
fn a_flood_of_partings_is_bounded() {
    let mut world = running();
    world.run.trail = Trail::flooded(node(1));
    hear(&mut world, 1, said(1, 0, 1..=1));
    hear(&mut world, 2, said(1, 1, 1..=1));
    let mut odd = said(1, 2, 1..=1);
    odd.steps[0].loss = 9.0;
    assert!(told(&hear(&mut world, 3, odd)).is_empty());
    assert_eq!(world.run.trail.view().unwrap().parted.len(), MAX_PARTINGS);
}

/// Restored from the disk, it goes on: what waited in memory is passed over.
#[test]
fn after_a_restart_nothing_is_said_twice_and_nobody_is_named() {
    let mut world = running();
    hear(&mut world, 1, said(1, 0, 1..=5));
    let stored = cryptomind_protocol::codec::encode(&world.run);
    world.run = cryptomind_protocol::codec::decode(&stored).unwrap();
    assert_eq!(hear(&mut world, 1, said(1, 0, 1..=5)), []);
    hear(&mut world, 1, said(1, 0, 6..=8));
    for (n, rank) in [(2, 1), (3, 2)] {
        hear(&mut world, n, said(1, rank, 1..=8));
    }
    let view = world.run.trail.view().unwrap();
    assert_eq!((view.compared, view.last, view.signatures), (3, 8, 4));
    assert!(view.parted.is_empty());
}
