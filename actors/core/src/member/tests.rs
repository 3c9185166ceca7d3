//! One member, by hand.

use cryptomind_protocol::{GenesisHash, SecretKey};

use super::*;

const TASK: TaskId = TaskId::new([1; 16]);

fn voter(n: u8) -> Voter {
    Voter {
        key: SecretKey::from_seed([n + 1; 32]),
        network: GenesisHash::new([7; 32]),
    }
}

fn node(n: u8) -> NodeId {
    voter(n).node()
}

fn now() -> Timestamp {
    Timestamp::from_ms(1_000)
}

fn place(attempt: u32, world: u8, rank: u32, start_step: u64) -> Place {
    Place {
        attempt,
        members: (0..world).map(node).collect(),
        ring_addresses: (0..world).map(|n| format!("h:{n}")).collect(),
        shares: Shares::equal(world.into()),
        rank,
        start_step,
        resume: None,
    }
}

fn at(committed: u64, prepared: bool) -> Paused {
    Paused {
        committed,
        prepared,
    }
}

/// Rank 0 of this many, training.
fn training(world: u8) -> Member {
    let (mut member, effects) = Member::start(TASK, voter(0), place(1, world, 0, 0), 1);
    assert_eq!(effects, [Effect::Prepare]);
    let steps = [
        (
            Input::Loaded { fetched_bytes: 3 },
            Effect::Stand(Footing::Stay),
        ),
        (
            Input::Standing(at(0, false)),
            Effect::Join {
                limit_ms: JOIN_LIMIT_MS,
            },
        ),
        (Input::Joined, Effect::Train),
    ];
    for (input, effect) in steps {
        assert!(member.apply(input, now()).contains(&effect));
    }
    member
}

fn broken(committed: u64) -> Input {
    Input::Broken {
        suspect: Some(node(1)),
        reason: "silence".into(),
        at: at(committed, true),
    }
}

fn bound() -> Input {
    Input::Bound {
        ring_address: "new".into(),
    }
}

fn reports(effects: &[Effect]) -> Vec<(u32, &Report)> {
    let reports = effects.iter().filter_map(|effect| match effect {
        Effect::Report { attempt, report } => Some((*attempt, report)),
        _ => None,
    });
    reports.collect()
}

#[test]
fn a_member_goes_on_with_what_it_has_where_it_can() {
    let file = ResultFile {
        name: "checkpoint".into(),
        blob: cryptomind_protocol::BlobId::new([1; 32]),
        bytes: 1,
    };
    let restore = Some(Footing::Restore(file.clone()));
    let footing = |here, start, resume| Footing::of(here, start, resume);
    assert_eq!(footing(at(7, true), 7, Some(&file)), Some(Footing::Stay));
    assert_eq!(footing(at(6, true), 7, Some(&file)), Some(Footing::Commit));
    assert_eq!(footing(at(6, false), 7, Some(&file)), restore);
    assert_eq!(footing(at(8, true), 7, Some(&file)), restore);
    assert_eq!(footing(at(8, false), 0, None), Some(Footing::Begin));
    assert_eq!(footing(at(0, false), 7, None), None);
}

#[test]
fn on_a_pause_it_leaves_the_ring_and_says_where_it_stands() {
    let mut member = training(3);
    let pause = Input::Order(Order::Pause {
        attempt: 2,
        at_step_end: false,
    });
    let comes = Effect::Report {
        attempt: 2,
        report: Report::Coming {},
    };
    let effects = member.apply(pause.clone(), now());
    assert_eq!(effects, [Effect::Leave, comes.clone()]);
    let again = member.apply(pause.clone(), now());
    assert_eq!(again, std::slice::from_ref(&comes));
    let effects = member.apply(Input::Rested(at(5, true)), now());
    assert_eq!(effects, [Effect::Finish], "what is stored now still earns");
    assert_eq!(member.apply(pause.clone(), now()), [comes]);
    assert_eq!(member.apply(Input::Saved, now()), [Effect::Bind]);
    let effects = member.apply(bound(), now());
    let paused = Report::Paused {
        committed: 5,
        prepared: true,
        ring_address: "new".into(),
    };
    assert_eq!(reports(&effects), [(2, &paused)]);
    assert_eq!(reports(&member.apply(pause, now())), [(2, &paused)]);
    let order = Input::Order(Order::Match(place(2, 2, 0, 6)));
    assert_eq!(member.apply(order, now()), [Effect::Stand(Footing::Commit)]);
}

#[test]
fn without_the_coordinator_it_asks_the_others_and_tells_of_the_broken_ring_later() {
    let mut member = training(3);
    member.apply(Input::Connected(false), now());
    let effects = member.apply(broken(5), now());
    assert_eq!(effects, [Effect::Settle, Effect::Bind]);
    member.apply(bound(), now());
    let timer = member.next_timer().unwrap();
    assert_eq!(timer, now(), "its turn is at once");
    let effects = member.apply(Input::Tick, timer);
    let asked = effects.iter().filter(|e| matches!(e, Effect::Send { .. }));
    assert_eq!(asked.count(), 2);
    let effects = member.apply(Input::Connected(true), now());
    assert!(matches!(
        reports(&effects)[..],
        [(1, Report::RingBroken { .. })]
    ));
    let by = now().plus_ms(ORDER_LIMIT_MS);
    assert_eq!(member.next_timer(), Some(by), "it may answer");
}

#[test]
fn a_coordinator_that_does_not_answer_counts_as_away() {
    let mut member = training(3);
    let effects = member.apply(broken(5), now());
    assert_eq!(reports(&effects).len(), 1);
    member.apply(bound(), now());
    let by = now().plus_ms(ORDER_LIMIT_MS);
    assert_eq!(member.next_timer(), Some(by));
    member.apply(Input::Tick, by);
    let turn = member.next_timer().unwrap();
    assert!(!member.apply(Input::Tick, turn).is_empty());
}

#[test]
fn it_waits_for_ever_for_nobody() {
    let mut member = training(2);
    member.apply(Input::Connected(false), now());
    member.apply(broken(5), now());
    member.apply(bound(), now());
    let end = now().plus_ms(COORDINATOR_LIMIT_MS);
    let effects = member.apply(Input::Tick, end);
    assert!(matches!(
        effects.last(),
        Some(Effect::End(Ending::Failed { .. }))
    ));
    let mut member = training(1);
    member.apply(Input::Done(at(40, false)), now());
    let stored = Input::Stored(Report::Leaving { reason: "-".into() });
    member.apply(stored, now());
    let end = now().plus_ms(FAREWELL_LIMIT_MS);
    assert_eq!(member.next_timer(), Some(end));
    let effects = member.apply(Input::Tick, end);
    assert_eq!(effects, [Effect::End(Ending::Finished)]);
}

#[test]
fn who_leaves_alone_saves_first_and_who_has_others_says_so() {
    let leave = || {
        Input::Order(Order::Leave {
            reason: "its owner".into(),
        })
    };
    let mut member = training(2);
    assert_eq!(reports(&member.apply(leave(), now())).len(), 1);
    assert_eq!(member.phase(), Phase::Training);
    let mut member = training(1);
    assert_eq!(member.apply(leave(), now()), [Effect::Leave]);
    let effects = member.apply(Input::Rested(at(5, false)), now());
    assert_eq!(effects, [Effect::Save]);
    let effects = member.apply(Input::Saved, now());
    assert_eq!(reports(&effects).len(), 1);
}

/// A newcomer's place: behind the last of this many.
fn newcomer(attempt: u32, world: u8) -> Member {
    let place = place(attempt, world, world.into(), 0);
    let (mut member, effects) = Member::start(TASK, voter(9), place, 1);
    assert_eq!(effects, [Effect::Prepare]);
    let effects = member.apply(Input::Loaded { fetched_bytes: 3 }, now());
    assert_eq!(effects, [Effect::Follow]);
    assert_eq!(member.phase(), Phase::Following);
    member
}

const fn pause(attempt: u32, at_step_end: bool) -> Input {
    Input::Order(Order::Pause {
        attempt,
        at_step_end,
    })
}

#[test]
fn a_newcomer_follows_says_when_it_is_level_and_takes_its_seat() {
    let mut member = newcomer(2, 2);
    let level = Report::Level { step: 7 };
    let effects = member.apply(Input::News(level.clone()), now());
    assert_eq!(reports(&effects), [(2, &level)]);
    assert!(
        member.apply(pause(3, true), now()).is_empty(),
        "its end comes by itself"
    );
    let effects = member.apply(Input::Rested(at(8, true)), now());
    assert_eq!(effects, [Effect::Bind]);
    let effects = member.apply(bound(), now());
    let paused = Report::Paused {
        committed: 8,
        prepared: true,
        ring_address: "new".into(),
    };
    assert_eq!(reports(&effects), [(3, &paused)]);
    let mut seat = place(3, 3, 2, 9);
    seat.members[2] = node(9);
    let effects = member.apply(Input::Order(Order::Match(seat)), now());
    assert_eq!(effects, [Effect::Stand(Footing::Commit)]);
    member.apply(Input::Standing(at(9, false)), now());
    let effects = member.apply(Input::Joined, now());
    let fetched_bytes = 3;
    let ready = Report::Ready { fetched_bytes };
    assert_eq!(
        reports(&effects),
        [(3, &ready)],
        "with what it fetched at first"
    );
}

#[test]
fn a_newcomer_follows_on_where_the_group_goes_on_without_it() {
    let mut member = newcomer(2, 2);
    let next = |attempt| Input::Order(Order::Match(place(attempt, 2, 2, 5)));
    assert_eq!(member.apply(next(3), now()), [Effect::Follow]);
    // Whom it followed has left its ring; what follows is not known yet.
    let effects = member.apply(Input::Rested(at(6, false)), now());
    assert_eq!(effects, [Effect::Follow]);
    member.apply(pause(4, false), now());
    member.apply(Input::Rested(at(6, false)), now());
    member.apply(bound(), now());
    assert_eq!(member.apply(next(4), now()), [Effect::Follow]);
    // While it still fetches, it only learns whom to follow.
    let (mut member, _) = Member::start(TASK, voter(9), place(2, 2, 2, 0), 1);
    assert!(member.apply(next(3), now()).is_empty());
    assert_eq!(member.place().attempt, 3);
}

#[test]
fn a_newcomer_has_no_part_in_the_members_agreement() {
    let mut member = newcomer(2, 2);
    member.apply(Input::Connected(false), now());
    assert_eq!(member.next_timer(), None);
    let ballot = succession::Ballot { round: 1, rank: 0 };
    let heard = Input::Heard {
        from: node(0),
        attempt: 2,
        message: Message::Prepare { ballot },
    };
    assert!(member.apply(heard, now()).is_empty());
}

#[test]
fn called_it_trains_on_to_the_end_of_a_step() {
    let mut member = training(3);
    let effects = member.apply(pause(2, true), now());
    assert_eq!(effects, [Effect::LeaveAtStepEnd]);
    assert_eq!(member.phase(), Phase::Training);
    let effects = member.apply(Input::Rested(at(5, false)), now());
    assert_eq!(effects, [Effect::Settle, Effect::Bind]);
    let effects = member.apply(bound(), now());
    assert!(matches!(
        reports(&effects)[..],
        [(2, Report::Paused { .. })]
    ));
    // All steps are done before anybody can join.
    let mut member = training(3);
    member.apply(pause(2, true), now());
    member.apply(Input::Done(at(40, false)), now());
    assert_eq!(member.phase(), Phase::Storing);
    assert!(
        member.apply(pause(2, true), now()).is_empty(),
        "no step is left"
    );
}

/// One member's word does not make the others leave without a word.
#[test]
fn who_was_not_called_and_left_says_that_the_ring_broke() {
    let mut member = training(3);
    let effects = member.apply(Input::Rested(at(5, false)), now());
    assert!(matches!(
        reports(&effects)[..],
        [(1, Report::RingBroken { suspect: None, .. })]
    ));
}
