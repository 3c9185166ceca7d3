//! A million transitions of random tasks: after every one the tokens sum, nobody has earned more than the work costs, and nothing
//! is settled twice.

use std::collections::BTreeMap;

use cryptomind_protocol::task::Split;

use super::*;

const TRANSITIONS: u64 = 1_000_000;
/// Between two audits of the whole ledger.
const AUDIT_EVERY: u64 = 1_000;

/// Training of any length by up to four miners, or an inference.
fn random_spec(dice: &mut Dice) -> TaskSpec {
    let mut random = spec();
    if dice.roll(6) == 0 {
        random.miners = 1;
        random.work = Work::Infer {
            model: ItemId::new([2; 16]),
            dataset: ItemId::new([1; 16]),
            split: Split::Test,
        };
        return random;
    }
    random.miners = 1 + dice.roll(4) as u32;
    if let Work::Train { train, .. } = &mut random.work {
        train.epochs = 1 + dice.roll(8) as u32;
        train.global_batch = 5 + dice.roll(46) as u32;
        train.checkpoint_steps = 1 + dice.roll(20) as u32;
    }
    random
}

/// The next checkpoint of a group, and at the end its result: without it few tasks would get anywhere by chance.
fn honest_work(world: &mut World, dice: &mut Dice) {
    let number = |id: &NodeId| (0..=u8::MAX).find(|n| node(*n) == *id).unwrap();
    let members: Vec<u8> = world.run.nodes().iter().map(number).collect();
    match world.run.state {
        TaskState::Waiting => {
            let asked: Vec<u8> = world.run.asked.iter().map(number).collect();
            asked
                .iter()
                .for_each(|n| world.feed(Input::Offered(offer(*n))));
            world.pass(LIMITS.offer_window_ms);
        }
        TaskState::Matched => {
            for n in members {
                world.report(n, Report::Ready { fetched_bytes: 0 });
            }
        }
        TaskState::Regrouping => world.pass(SUSPECT_LIMIT_MS),
        TaskState::Running if world.run.is_verified_whole() || !world.run.is_training() => {
            world.report(members[0], finished());
        }
        TaskState::Running => {
            let steps = world.run.terms.extent.steps;
            let step = (world.run.verified_step + 1 + dice.roll(20)).min(steps);
            world.checkpoint(&members, step);
        }
        _ => {}
    }
    world.ask_free();
}

#[test]
fn a_million_transitions_keep_the_supply() {
    let (mut transitions, mut seed) = (0, 0);
    let mut ends = BTreeMap::<String, u32>::new();
    while transitions < TRANSITIONS {
        seed += 1;
        let mut dice = Dice(seed);
        let spec = random_spec(&mut dice);
        let mut world = {
            let terms = terms(&spec);
            World::of(spec, terms, LIMITS)
        };
        world.audited = AUDIT_EVERY;
        for _ in 0..dice.roll(400) {
            match dice.roll(3) {
                0 => honest_work(&mut world, &mut dice),
                _ => random_news(&mut world, &mut dice),
            }
        }
        fall_silent(&mut world);
        assert!(world.settled <= 1, "seed {seed}");
        world.check_end(world.run.state);
        transitions += world.transitions;
        *ends.entry(world.run.state.to_string()).or_default() += 1;
    }
    assert_eq!(ends.len(), 5, "not every end was seen: {ends:?}");
}
