//! A seeded simulation of training itself on virtual time: the coordinator's [`Run`], each member's [`Machine`] and the ring's real
//! schedule, over a network that delays, loses, repeats and parts, on machines that die, stop and come back.
//!
//! Whatever happens: after each commit a member's state is, bit for bit, that of one machine which computed the same steps; no step
//! is skipped or applied twice; all who train on one ring have the same past; an attempt that nobody granted was formed by a strict
//! majority of the one before; what earns extends what earned before; every schedule ends. The kill matrix: every number of members,
//! every rank, every phase of a step, with the coordinator there and away: the survivors commit the same step within the time
//! allowed, and lose none.

use std::cell::RefCell;

use cryptomind_core::batch::Shares;
use cryptomind_core::member::{
    Effect as MemberEffect, Ending, FOLLOW_LIMIT_MS, Footing, Input as MemberInput,
    Member as Machine, Order, Place,
};
use cryptomind_core::ring;
use cryptomind_core::succession::{Decision, Message, Paused, Proof, Voter};
use cryptomind_protocol::ring::{EVICT_MS, PING_MS};

use cryptomind_protocol::GenesisHash;

use super::*;

mod arithmetic;
mod node;
mod watch;
mod world;

use arithmetic::{Lineage, Oracle, Value, Weights, add, applied, fingerprint, gradients};
use node::{Command, Local, Node, Packet, Piece, Request};
use watch::{Point, Victim, Watch};
use world::{Conditions, Event, Fault, RESENT_MS, World};

const STEPS: u64 = 20;
const CHECKPOINT_STEPS: u64 = 5;

static RECEIPT: std::sync::LazyLock<StoredReceipt> = std::sync::LazyLock::new(|| {
    let key = SecretKey::from_seed([1; 32]);
    StoredReceipt::sign(file().blob, 10, Timestamp::from_ms(0), &key)
});

/// A network in one town, and short steps.
const QUIET: Conditions = Conditions {
    delay_ms: 12,
    loss: 0,
    repeated: 5,
    compute_ms: 60,
    link_ms: 10_000,
};
/// A step on it, with four members: computing, nine hops, applying.
const STEP_MS: u64 = 60 + 9 * 12 + 10;
/// From a death to the next commit of all survivors, without the step itself.
const RECOVERY_MS: u64 = 2_000;
/// What a death while the group forms again may take beyond: that one's silence.
const REGROUPING_MS: u64 = 2_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(10 * DAY_MS + ms)
}

const NETWORK: GenesisHash = GenesisHash::new([7; 32]);

/// Members, and whoever takes their places.
static VOTERS: std::sync::LazyLock<Vec<Voter>> = std::sync::LazyLock::new(|| {
    let voter = |n| Voter {
        key: SecretKey::from_seed([n; 32]),
        network: NETWORK,
    };
    (1..=8).map(voter).collect()
});
static IDS: std::sync::LazyLock<Vec<NodeId>> =
    std::sync::LazyLock::new(|| VOTERS.iter().map(Voter::node).collect());

fn id(node: usize) -> NodeId {
    IDS[node]
}

fn number(node: NodeId) -> usize {
    IDS.iter().position(|id| *id == node).unwrap()
}

fn spec(miners: u32) -> TaskSpec {
    let mut spec = super::spec(miners);
    if let Work::Train { train, .. } = &mut spec.work {
        (train.epochs, train.checkpoint_steps) = (2, CHECKPOINT_STEPS as u32);
    }
    spec
}

fn quiet(name: String, seed: u64, members: usize) -> World {
    World::new(name, seed, members, QUIET)
}

fn lived(mut world: World) -> World {
    world.live();
    world.watch.check_end(&world);
    world
}

/// Points of an attempt's steps, in their order, for this many members.
fn points(members: usize) -> Vec<Point> {
    let hops = (0..ring::hops(members)).map(Point::Hop);
    let barriers = (0..members - 1).map(Point::Barrier);
    let first = [Point::Computing].into_iter().chain(hops);
    let then = [Point::Applying].into_iter().chain(barriers);
    first
        .chain(then)
        .chain([Point::Committed, Point::Uploading])
        .collect()
}

/// A member at a point of its fourth step, or at its first checkpoint.
fn victim(rank: usize, point: Point) -> Victim {
    let visit = if point == Point::Uploading { 1 } else { 4 };
    Victim { rank, point, visit }
}

/// The coordinator goes after the second step, and comes back long after.
const BACK_MS: u64 = 60_000;

fn is_away(world: &mut World) {
    world.watch.coordinator_leaves_after_two = true;
    world.after(BACK_MS, Event::Fault(Fault::CoordinatorUp));
}

#[test]
fn training_without_trouble_is_one_attempt() {
    for members in 2..=4 {
        for seed in 0..10 {
            let world = lived(quiet(format!("quiet {members} {seed}"), seed, members));
            assert_eq!(
                (world.run.state, world.run.attempt),
                (TaskState::Finished, 1)
            );
        }
    }
}

#[test]
fn training_kill_matrix_with_the_coordinator() {
    let mut longest = 0;
    for members in 2..=4 {
        for rank in 0..members {
            for point in points(members) {
                let name = format!("kill {members} {rank} {point:?}");
                let mut world = quiet(name, 7, members);
                world.watch.victims.push_back(victim(rank, point));
                let world = lived(world);
                longest = longest.max(world.watch.check_recovery(RECOVERY_MS + STEP_MS));
                assert_eq!(world.run.state, TaskState::Finished);
            }
        }
    }
    println!("with the coordinator: {longest} ms at most");
}

#[test]
fn training_kill_matrix_without_the_coordinator() {
    let mut longest = 0;
    for members in 2..=4 {
        for rank in 0..members {
            for point in points(members) {
                let name = format!("kill, coordinator away {members} {rank} {point:?}");
                let mut world = quiet(name, 8, members);
                world.watch.victims.push_back(victim(rank, point));
                is_away(&mut world);
                let world = lived(world);
                assert_eq!(world.run.state, TaskState::Finished);
                if members == 2 {
                    // Exactly half: it waits for the coordinator.
                    assert!(world.watch.formed.is_empty());
                    assert!(world.watch.recovered().unwrap() > BACK_MS - 20_000);
                } else {
                    longest = longest.max(world.watch.check_recovery(RECOVERY_MS + STEP_MS));
                    assert!(!world.watch.formed.is_empty());
                }
            }
        }
    }
    println!("without the coordinator: {longest} ms at most");
}

/// A second one dies while the group forms again.
#[test]
fn training_kill_matrix_of_regrouping() {
    use Point::{Decided, Joining, Paused, Promised, Proposed, Resting, Voted};
    let (mut longest, mut held) = ([0; 2], 0);
    for away in [false, true] {
        for members in 3..=4 {
            for (first, second) in pairs(members) {
                let points: &[Point] = match away {
                    true => &[Resting, Promised, Proposed, Voted, Decided, Joining],
                    false => &[Resting, Paused, Joining],
                };
                for point in points {
                    let name = format!("regrouping {members} {first} {second} {point:?} {away}");
                    let mut world = quiet(name, 9, members);
                    let visit = 1;
                    let then = Victim {
                        rank: second,
                        point: *point,
                        visit,
                    };
                    world
                        .watch
                        .victims
                        .extend([victim(first, Point::Computing), then]);
                    if away {
                        is_away(&mut world);
                    }
                    let world = lived(world);
                    assert!(world.run.state.is_final());
                    if world.watch.killed.len() < 2 {
                        continue;
                    }
                    let ms = world.watch.recovery().unwrap();
                    if away && ms > BACK_MS / 2 {
                        // Half of the last group, or less, was left.
                        held += 1;
                    } else {
                        longest[usize::from(away)] = longest[usize::from(away)].max(ms);
                        assert!(ms <= RECOVERY_MS + STEP_MS + REGROUPING_MS, "{ms} ms");
                    }
                }
            }
        }
    }
    println!("two deaths, with and without the coordinator: {longest:?} ms; {held} waited for it");
    assert!(held >= 36, "three lost two");
}

/// What joining may add to a step of the others.
const JOIN_MS: u64 = 200;

/// One of a group dies, and its machine comes back at once: a newcomer.
fn with_newcomer(name: String, seed: u64, members: usize, rank: usize) -> World {
    let mut world = quiet(name, seed, members);
    world
        .watch
        .victims
        .push_back(victim(rank, Point::Computing));
    for ms in [1_500, 3_000] {
        (0..members).for_each(|node| world.after(ms, Event::Fault(Fault::Restart(node))));
    }
    world
}

/// It takes the state while the others train, and they stand still no longer than for a word and a ring.
#[test]
fn training_a_newcomer_joins_where_a_step_ends() {
    let mut longest = 0;
    for members in 2..=4 {
        for rank in 0..members {
            for seed in 0..10 {
                let name = format!("newcomer {members} {rank} {seed}");
                let world = lived(with_newcomer(name, seed, members, rank));
                assert_eq!(world.run.state, TaskState::Finished);
                let all: Vec<_> = (0..members).collect();
                assert_eq!(world.watch.last_earners(), all, "it has its part");
                assert_eq!((world.run.attempt, world.watch.steps_lost), (3, 0));
                let recovered = world.watch.recovered().unwrap();
                longest = longest.max(world.watch.longest_gap(recovered));
            }
        }
    }
    println!("a newcomer's joining: {longest} ms between two commits at most");
    assert!(longest <= JOIN_MS + STEP_MS, "{longest} ms");
}

/// A newcomer that dies, wherever it is, or the member that it follows: the others finish, with every bit.
#[test]
fn training_kill_matrix_of_newcomers() {
    use Point::{Joining, Level, Paused, Preparing, Resting};
    for members in 2..=4 {
        for rank in 0..members {
            for other in 0..members {
                for point in [Preparing, Level, Resting, Paused, Joining] {
                    let name = format!("newcomer dies {members} {rank} {other} {point:?}");
                    let mut world = with_newcomer(name, 11, members, rank);
                    let visit = 1;
                    let then = Victim {
                        rank: other,
                        point,
                        visit,
                    };
                    world.watch.victims.push_back(then);
                    world.live();
                    assert!(world.run.state.is_final());
                    let is_left = world.nodes.iter().any(|node| node.is_alive);
                    assert!(!is_left || world.run.state == TaskState::Finished);
                }
            }
        }
    }
}

fn pairs(members: usize) -> impl Iterator<Item = (usize, usize)> {
    let all = (0..members).flat_map(move |a| (0..members).map(move |b| (a, b)));
    all.filter(|(a, b)| a != b)
}

/// Before the ring is closed for the first time only the coordinator can see that somebody is gone.
#[test]
fn training_kill_matrix_of_the_beginning() {
    for members in 2..=4 {
        for rank in 0..members {
            for point in [Point::Preparing, Point::Joining] {
                let mut world = quiet(format!("beginning {members} {rank} {point:?}"), 3, members);
                let visit = 1;
                world.watch.victims.push_back(Victim { rank, point, visit });
                let world = lived(world);
                assert_eq!(world.run.state, TaskState::Finished);
                let ms = world.watch.recovery().unwrap();
                assert!(ms <= LIMITS.prepare_ms + RECOVERY_MS, "{ms} ms");
            }
        }
    }
}

#[test]
fn training_a_pause_of_a_second_is_no_death_and_a_longer_one_is() {
    for members in 2..=4 {
        for node in 0..members {
            for seed in 0..6 {
                for (ms, attempts) in [(1_000, 1), (2_200, 2)] {
                    let name = format!("pause {members} {node} {seed} {ms}");
                    let mut world = quiet(name, seed, members);
                    let when = 1_200 + 37 * seed;
                    world.after(when, Event::Fault(Fault::Stop(node, ms)));
                    let world = lived(world);
                    // Who was given up may come back.
                    let as_many = world.run.attempt == attempts;
                    assert!(as_many || (attempts > 1 && world.run.attempt > attempts));
                    assert_eq!(world.run.state, TaskState::Finished);
                }
            }
        }
    }
}

/// Two halves of four: neither goes on by itself; the coordinator goes on with the one that it reaches.
#[test]
fn training_no_half_goes_on_by_itself() {
    for seed in 0..30 {
        for side in 0..3 {
            let mut world = quiet(format!("halves {seed} {side}"), seed, 4);
            let mut pairs = vec![(0, 2), (0, 3), (1, 2), (1, 3)];
            match side {
                0 => pairs.extend([(0, 4), (1, 4)]),
                1 => pairs.extend([(2, 4), (3, 4)]),
                _ => is_away(&mut world),
            }
            world.after(1_500, Event::Fault(Fault::Part(pairs)));
            world.after(12_000, Event::Fault(Fault::Heal));
            world.watch.is_parted_in_half = true;
            lived(world);
        }
    }
}

/// Two of three go on by themselves; the third has the coordinator, which goes on with it alone. One of both earns.
#[test]
fn training_of_two_sides_the_coordinators_earns() {
    for seed in 0..30 {
        let mut world = quiet(format!("sides {seed}"), seed, 3);
        let pairs = vec![(0, 2), (1, 2), (0, 3), (1, 3)];
        world.after(1_200, Event::Fault(Fault::Part(pairs)));
        world.after(15_000, Event::Fault(Fault::Heal));
        let world = lived(world);
        assert_eq!(world.run.state, TaskState::Finished);
        assert_eq!((world.watch.formed.len(), world.watch.adopted()), (1, 0));
        assert_eq!(world.watch.last_earners(), [2]);
    }
}

/// The coordinator is on the majority's side, or comes back to it before it granted anything: all of its work earns.
#[test]
fn training_without_the_coordinator_is_caught_up_with() {
    for seed in 0..30 {
        let mut world = quiet(format!("caught up {seed}"), seed, 4);
        world.after(900, Event::Fault(Fault::CoordinatorDown));
        world.after(1_100, Event::Fault(Fault::Kill(3)));
        world.after(4_500, Event::Fault(Fault::Kill(2)));
        world.after(9_000, Event::Fault(Fault::CoordinatorUp));
        world.conditions.compute_ms = 600;
        let world = lived(world);
        assert_eq!(world.run.state, TaskState::Finished);
        assert_eq!((world.watch.formed.len(), world.watch.adopted()), (2, 2));
        assert_eq!((world.run.attempt, world.watch.steps_lost), (3, 0));
        assert_eq!(world.watch.last_earners(), [0, 1]);
    }
}

/// What happens to one of many schedules, drawn.
fn storm(seed: u64) -> World {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let members = 2 + dice.roll(3) as usize;
    let conditions = Conditions {
        delay_ms: 1 + dice.roll(60),
        loss: dice.roll(12),
        repeated: dice.roll(20),
        compute_ms: 20 + dice.roll(200),
        link_ms: 1_000 + dice.roll(10_000),
    };
    let mut world = World::new(format!("storm {seed}"), seed, members, conditions);
    for _ in 0..1 + dice.roll(5) {
        let (when, node) = (800 + dice.roll(5_000), dice.roll(members as u64) as usize);
        let lasts = 200 + dice.roll(9_000);
        let (fault, then) = match dice.roll(10) {
            0..=2 => (Fault::Kill(node), None),
            3 => (Fault::Kill(node), Some(Fault::Restart(node))),
            4..=5 => (Fault::Stop(node, 200 + dice.roll(3_000)), None),
            6..=7 => (Fault::Part(parted(&mut dice, members)), Some(Fault::Heal)),
            _ => (Fault::CoordinatorDown, Some(Fault::CoordinatorUp)),
        };
        world.after(when, Event::Fault(fault));
        if let Some(then) = then {
            world.after(when + lasts, Event::Fault(then));
        }
    }
    world
}

/// Two sides, the coordinator on one of them; or one link.
fn parted(dice: &mut Dice, members: usize) -> Vec<(usize, usize)> {
    let everybody = 0..=members;
    let sides: Vec<_> = everybody.clone().map(|_| dice.one_in(2)).collect();
    let all = everybody.clone().flat_map(|a| (0..a).map(move |b| (a, b)));
    let parted: Vec<_> = all.filter(|(a, b)| sides[*a] != sides[*b]).collect();
    match dice.one_in(3) {
        true => parted.into_iter().take(1).collect(),
        false => parted,
    }
}

#[test]
fn training_storms_end_and_every_bit_is_right() {
    let seeds = 0..1_000;
    let (mut finished, mut formed, mut attempts, mut adopted, mut lost) = (0, 0, 0, 0, 0);
    let mut ends = BTreeMap::<String, u32>::new();
    for seed in seeds {
        let world = lived(storm(seed));
        finished += u32::from(world.run.state == TaskState::Finished);
        formed += world.watch.formed.len();
        adopted += world.watch.adopted();
        attempts += world.run.attempt;
        lost += world.watch.steps_lost;
        *ends.entry(world.run.state.to_string()).or_default() += 1;
    }
    println!(
        "{ends:?}, {attempts} attempts, {formed} formed by members, {adopted} of them adopted, {lost} steps again"
    );
    assert!(
        finished > 500 && formed > 50 && adopted > 20,
        "too little: {ends:?} {formed} {adopted}"
    );
}
