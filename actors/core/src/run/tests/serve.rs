//! Sessions: who serves earns what its client acknowledged, to the sample; nobody gains by silence, haste or forgery.

use std::collections::BTreeMap;

use cryptomind_protocol::item::ModelInfo;
use cryptomind_protocol::serve::{Acknowledgement, VERSION};
use cryptomind_protocol::task::Latency;
use cryptomind_protocol::{GenesisHash, SecretKey, Signed};

use super::*;
use crate::serve::{Refusal, Shown, open};

const NETWORK: GenesisHash = GenesisHash::new([5; 32]);
const SAMPLES: u32 = 1_000;

fn client() -> SecretKey {
    SecretKey::from_seed([CLIENT; 32])
}

fn session() -> World {
    let model = ModelSpec {
        input: vec![4],
        layers: vec![Layer::linear(2)],
        loss: Loss::default(),
    };
    let spec = TaskSpec {
        work: Work::Serve {
            model: ItemId::new([1; 16]),
            samples_max: SAMPLES,
        },
        miners: 1,
        ..spec()
    };
    let info = ModelInfo {
        spec: model,
        classes: vec!["a".into(), "b".into()],
        dataset: None,
        task: None,
        metrics: Metrics::default(),
    };
    let extent = Extent::of(&spec, None, Some(&info)).unwrap();
    let prices = Prices {
        // A price that does not divide evenly.
        unit_price: Amount::from_base_units(777_777_777_777),
        storage_per_mib: Amount::from_base_units(7),
        network_fee_ppm: 10_000,
    };
    let item = ItemUse {
        item: ItemId::new([1; 16]),
        bytes: 1000,
        payee: owner(ITEM_OWNER),
        fee: Amount::from_base_units(ITEM_FEE),
    };
    let terms = Terms::new(extent, vec![item], prices).unwrap();
    let mut world = World::of(spec, terms, LIMITS);
    world.run.caller = Some(client().public());
    world
}

fn acknowledged(attempt: u32, samples: u64, last: bool) -> Acknowledgement {
    Acknowledgement {
        version: VERSION,
        task: TaskId::new([7; 16]),
        attempt,
        samples,
        last,
    }
}

fn shown(acknowledgement: Acknowledgement, key: &SecretKey) -> Shown {
    open(&Signed::sign(&acknowledgement, &NETWORK, key), &NETWORK).unwrap()
}

impl World {
    /// The only one that is there takes it and opens its door.
    fn serve(&mut self, n: u8) {
        self.ask_free();
        self.feed(Input::Offered(offer(n)));
        self.pass(LIMITS.offer_window_ms);
        assert_eq!(self.run.state, TaskState::Matched, "{}", self.run.reason);
        self.door(n);
        assert_eq!(self.run.state, TaskState::Running);
    }

    fn door(&mut self, n: u8) {
        self.report(
            n,
            Report::Serving {
                address: format!("host:{n}"),
                fetched_bytes: 0,
                latency: Latency::default(),
            },
        );
    }

    /// The one that serves shows an acknowledgement of its attempt.
    fn show(&mut self, n: u8, samples: u64, last: bool) {
        let said = acknowledged(self.run.attempt, samples, last);
        self.shows(n, Some(shown(said, &client())), false);
    }

    fn shows(&mut self, n: u8, shown: Option<Shown>, left: bool) {
        let (node, attempt) = (node(n), self.run.attempt);
        self.feed(Input::Served {
            node,
            attempt,
            shown,
            left,
        });
    }

    fn due(&self, samples: u64) -> u64 {
        self.work() * samples / u64::from(SAMPLES)
    }

    fn pass_in_steps(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        while self.now < end {
            self.pass(end.ms_since(self.now).min(1_000));
        }
    }
}

#[test]
fn what_is_acknowledged_is_earned_and_the_rest_comes_back() {
    let mut world = session();
    world.serve(1);
    for samples in [1, 64, 64, 333] {
        world.show(1, samples, false);
        assert_eq!(world.run.earned.base_units(), world.due(samples));
    }
    world.show(1, 334, true);
    world.check_end(TaskState::Finished);
    assert_eq!(world.paid(1), world.due(334));
    let network = (world.due(334) + ITEM_FEE) / 100;
    assert_eq!(world.paid(ITEM_OWNER), ITEM_FEE);
    assert_eq!(
        world.paid(CLIENT),
        CAP - world.due(334) - ITEM_FEE - network
    );
    assert!(world.blamed.is_empty());
}

#[test]
fn the_last_sample_ends_it() {
    let mut world = session();
    world.serve(1);
    world.show(1, SAMPLES.into(), false);
    world.check_end(TaskState::Finished);
    assert_eq!(world.paid(1), world.work());
}

#[test]
fn what_does_not_count_is_named_and_changes_nothing() {
    let mut world = session();
    world.serve(1);
    world.show(1, 100, false);
    let (before, said) = (world.run.clone(), |samples| acknowledged(1, samples, true));
    let stranger = SecretKey::from_seed([9; 32]);
    let other_task = Acknowledgement {
        task: TaskId::new([8; 16]),
        ..said(101)
    };
    let cases = [
        (shown(said(99), &client()), "lower"),
        (shown(said(u64::from(SAMPLES) + 1), &client()), "too_high"),
        (shown(said(101), &stranger), "not_the_clients"),
        (shown(other_task, &client()), "of_another_task"),
        (
            shown(acknowledged(2, 101, true), &client()),
            "of_another_attempt",
        ),
    ];
    for (shown, name) in cases {
        let refusal = world.run.judge(&node(1), 1, &shown).unwrap_err();
        let code = cryptomind_protocol::ErrorBody::from(refusal).code;
        assert!(code.ends_with(name), "{code}");
        world.shows(1, Some(shown), false);
        assert_eq!(world.run, before, "{name}");
    }
    // What is known already is no news, and no wrong.
    let again = shown(acknowledged(1, 100, false), &client());
    assert_eq!(world.run.judge(&node(1), 1, &again), Ok(()));
    world.shows(1, Some(again), false);
    assert_eq!(world.run.earned, before.earned);
    // Nobody but the one that serves shows anything.
    world.shows(2, Some(shown(said(200), &client())), true);
    assert_eq!(world.run.earned, before.earned);
}

#[test]
fn other_reports_earn_nothing_in_a_session() {
    let mut world = session();
    world.serve(1);
    let before = world.run.clone();
    let fingerprint = Hash::of(b"state");
    for report in [
        finished(),
        Report::Ready { fetched_bytes: 1 },
        Report::Progress {
            step: 500,
            loss: 0.0,
            samples_per_s: 1,
            timeline: Vec::new(),
        },
        Report::Checkpoint {
            step: 500,
            fingerprint,
            computed_ms: 0,
            stored: Some((file(1), receipt())),
        },
        Report::RingBroken {
            committed: 500,
            suspect: None,
            reason: "r".into(),
        },
    ] {
        world.report(1, report);
        assert_eq!(world.run, before);
    }
}

/// Redirected: another miner counts on from what is earned, which stays with who earned it.
#[test]
fn a_lost_miner_keeps_what_it_earned_and_another_serves() {
    let mut world = session();
    world.serve(1);
    world.show(1, 70, false);
    let old = shown(acknowledged(1, 90, false), &client());
    world.feed(Input::Disconnected(node(1)));
    world.pass_in_steps(AWAY_LIMIT_MS);
    assert_eq!(world.lost, [node(1)]);
    assert!(world.blamed.is_empty(), "it may be the model's fault");
    world.serve(2);
    assert_eq!((world.run.attempt, world.run.start_step), (2, 70));
    let refused = world.run.judge(&node(2), 2, &old);
    assert!(matches!(refused, Err(Refusal::OtherAttempt { .. })));
    world.shows(2, Some(old), false);
    assert_eq!(world.run.earned.base_units(), world.due(70));
    world.show(2, 100, true);
    assert_eq!(world.blamed, [node(1)], "another one got further");
    world.check_end(TaskState::Finished);
    assert_eq!(world.paid(1), world.due(70));
    assert_eq!(world.paid(2), world.due(100) - world.due(70));
}

#[test]
fn a_miner_that_cannot_go_on_is_replaced_and_three_are_enough() {
    let mut world = session();
    for n in 1..=3 {
        world.serve(n);
        world.report(
            n,
            Report::Failed {
                task_fault: false,
                reason: "the disk is full".into(),
            },
        );
    }
    world.check_end(TaskState::Abandoned);
    assert_eq!(world.paid(CLIENT), CAP);
}

// Its waits: see the table.

#[test]
fn who_opens_no_door_is_lost() {
    let mut world = session();
    world.feed(Input::Offered(offer(1)));
    world.pass(LIMITS.offer_window_ms);
    world.report(1, Report::Ready { fetched_bytes: 0 });
    world.pass_in_steps(LIMITS.prepare_ms - 1);
    assert!(world.lost.is_empty());
    world.pass(1);
    assert_eq!(world.lost, [node(1)]);
    assert_eq!(world.run.state, TaskState::Waiting);
}

#[test]
fn a_session_that_nobody_uses_ends_and_nobody_is_blamed() {
    let mut world = session();
    world.serve(1);
    world.run.pace.alone_us = 1_000_000;
    world.run.promise_next(world.now);
    assert_eq!(world.run.promise, None, "its client sets the pace");
    world.pass_in_steps(IDLE_LIMIT_MS / 2);
    world.show(1, 5, false);
    world.pass_in_steps(IDLE_LIMIT_MS - 1);
    assert_eq!(world.run.closing, None);
    world.pass(1);
    assert_eq!(world.run.closing, Some(TaskState::Finished));
    assert_eq!(world.stopped, [node(1)], "it is asked for its last word");
    world.shows(1, Some(shown(acknowledged(1, 9, false), &client())), true);
    world.check_end(TaskState::Finished);
    assert_eq!(world.paid(1), world.due(9));
    assert!(world.blamed.is_empty() && world.lost.is_empty());
}

#[test]
fn who_cancels_pays_what_it_acknowledged_before() {
    let mut world = session();
    world.serve(1);
    world.show(1, 10, false);
    world.feed(Input::Cancel);
    world.feed(Input::Cancel);
    assert_eq!(world.run.state, TaskState::Running);
    assert_eq!(world.stopped, [node(1)]);
    world.shows(1, Some(shown(acknowledged(1, 50, false), &client())), true);
    world.check_end(TaskState::Cancelled);
    assert_eq!(world.paid(1), world.due(50));
}

#[test]
fn a_miner_that_shows_nothing_does_not_hold_up_a_cancellation() {
    let mut world = session();
    world.serve(1);
    world.show(1, 10, false);
    world.feed(Input::Cancel);
    world.pass(CLOSE_LIMIT_MS - 1);
    assert_eq!(world.run.state, TaskState::Running);
    world.pass(1);
    world.check_end(TaskState::Cancelled);
    assert_eq!(world.paid(1), world.due(10));
    assert!(world.blamed.is_empty());
}

#[test]
fn cancelled_without_a_miner_it_ends_at_once() {
    let mut world = session();
    world.feed(Input::Cancel);
    world.check_end(TaskState::Cancelled);
    assert_eq!(world.paid(CLIENT), CAP);
}

#[test]
fn a_coordinator_that_comes_back_waits_anew() {
    let mut world = session();
    world.serve(1);
    world.show(1, 10, false);
    world.pass_in_steps(IDLE_LIMIT_MS - 1_000);
    world.coordinator_away(2_000);
    world.feed(Input::Joined {
        node: node(1),
        position: Some(Position {
            task: world.run.task,
            attempt: 1,
            committed: 0,
        }),
    });
    world.pass_in_steps(IDLE_LIMIT_MS - 1);
    assert_eq!(world.run.closing, None);
    world.show(1, 20, true);
    world.check_end(TaskState::Finished);
    assert_eq!(world.paid(1), world.due(20));
}

/// What counts by counting: the reference knows who serves in which attempt, and nothing of how the run decides.
#[derive(Default)]
struct Reference {
    acknowledged: u64,
    paid: BTreeMap<u8, u64>,
}

impl Reference {
    fn hear(&mut self, world: &World, n: u8, said: &Acknowledgement, is_client: bool) {
        let run = &world.run;
        let serves = run.state == TaskState::Running
            && run.seats.iter().any(|seat| seat.member.node == node(n));
        let fits = said.task == run.task && said.attempt == run.attempt;
        let range = self.acknowledged..=u64::from(SAMPLES);
        if serves && fits && is_client && range.contains(&said.samples) {
            let news = world.due(said.samples) - world.due(self.acknowledged);
            *self.paid.entry(n).or_default() += news;
            self.acknowledged = said.samples;
        }
    }
}

/// Acknowledgements, true and false, losses, cancels and absences of the coordinator in any order: what is paid is what was
/// acknowledged, and no token is made or lost.
#[test]
fn whatever_happens_acknowledged_samples_are_paid_to_the_sample() {
    let mut served = [0; 5];
    for seed in 0..300 {
        let (mut world, mut dice) = (session(), Dice(seed));
        let mut reference = Reference::default();
        for _ in 0..dice.roll(120) {
            let n = 1 + dice.roll(4) as u8;
            match dice.roll(20) {
                0..=2 => world.feed(Input::Offered(offer(n))),
                3..=5 => world.door(n),
                6 => world.feed(Input::Disconnected(node(n))),
                7 => world.pass(dice.roll(15_000)),
                8 if dice.roll(10) == 0 => world.feed(Input::Cancel),
                9 if dice.roll(5) == 0 => world.report(
                    n,
                    Report::Failed {
                        task_fault: dice.roll(4) == 0,
                        reason: "x".into(),
                    },
                ),
                10 if dice.roll(5) == 0 => world.coordinator_away(dice.roll(20_000)),
                11 => world.feed(Input::Joined {
                    node: node(n),
                    position: None,
                }),
                _ => {
                    let serving = world.run.seats.first().map(|seat| seat.member.node);
                    let n = (1..=4).find(|n| Some(node(*n)) == serving).unwrap_or(n);
                    let attempt = (world.run.attempt + u32::from(dice.roll(8) == 0))
                        .saturating_sub(u32::from(dice.roll(8) == 0));
                    let step = dice.roll(40) as i64 - 8;
                    let samples = reference.acknowledged.saturating_add_signed(step);
                    let mut said = acknowledged(attempt, samples, dice.roll(40) == 0);
                    if dice.roll(15) == 0 {
                        said.task = TaskId::new([8; 16]);
                    }
                    let is_client = dice.roll(15) > 0;
                    let key = if is_client {
                        client()
                    } else {
                        SecretKey::from_seed([9; 32])
                    };
                    reference.hear(&world, n, &said, is_client);
                    let is_left = dice.roll(30) == 0;
                    world.shows(n, Some(shown(said, &key)), is_left);
                }
            }
            world.ask_free();
            let due = world.due(reference.acknowledged);
            assert_eq!(world.run.earned.base_units(), due, "seed {seed}");
        }
        fall_silent(&mut world);
        world.check_end(world.run.state);
        for n in 1..=4 {
            let due = reference.paid.get(&n).copied().unwrap_or_default();
            assert_eq!(world.paid(n), due, "seed {seed}, miner {n}");
        }
        served[reference.paid.len()] += 1;
    }
    assert!(
        served[0] > 0 && served[1] > 0 && served[2] > 0,
        "{served:?}"
    );
}
