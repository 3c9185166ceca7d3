//! A lost member's place is taken while the others train: who comes takes the state from them, and they stand still for a moment
//! only.
//!
//! Each miner is a process of its own, on the network of `deaths.rs`: one kills itself in a step, is started again, and comes back
//! with nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_sdk::Watch;

use crate::deaths::{Commit, EPOCH, LOOK_AGAIN, SLACK, Trail, is_all};
use crate::nodes::{publish_free_digits, training, within};
use crate::processes::{Network, TURN};

/// How much longer than a step the others may be without one when somebody joins.
const JOIN: Duration = Duration::from_millis(200);
/// Long enough that it comes back before the end.
const EPOCHS: u32 = 300;
/// Who dies, in a group of this many.
const DEATHS: [(u8, u32); 3] = [(2, 1), (3, 0), (4, 2)];

fn trails(network: &Network) -> Vec<Trail> {
    network.trails().map(|file| Trail::read(&file)).collect()
}

/// Which miner died, once one has.
async fn dead(network: &Network) -> usize {
    loop {
        if let Some(dead) = trails(network).iter().position(|trail| trail.at.is_some()) {
            return dead;
        }
        // Nothing tells of a line in a file; whoever waits has a limit.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How large each attempt's group was, and who took the state from it.
#[derive(Debug, Default)]
struct Told {
    groups: Vec<usize>,
    follows: Vec<bool>,
    /// Why it formed again.
    pauses: Vec<String>,
}

async fn hear(watch: &mut Watch) -> Told {
    let mut told = Told::default();
    while let Some(event) = within("what follows", watch.next()).await {
        match event.unwrap().event {
            Event::Matched { members, .. } => told.groups.push(members.len()),
            Event::Follows { level, .. } => told.follows.push(level),
            Event::Regroups { reason } => told.pauses.push(reason),
            _ => {}
        }
    }
    told
}

/// No step is lost, all have the same bits, and nobody stands still for long. Gives the longest that one did.
fn check(trails: &[Trail]) -> u64 {
    let mut prints: BTreeMap<(u32, u64), &str> = BTreeMap::new();
    for commit in trails.iter().flat_map(|trail| &trail.commits) {
        let first = prints
            .entry((commit.attempt, commit.step))
            .or_insert(&commit.print);
        assert_eq!(*first, commit.print, "{commit:?}");
    }
    let joined = trails.iter().find(|trail| trail.at.is_some()).unwrap();
    let back: Vec<&Commit> = joined.commits.iter().filter(|c| c.attempt > 2).collect();
    assert!(!back.is_empty(), "it trained with the others again");
    let mut longest = 0;
    for trail in trails.iter().filter(|trail| trail.at.is_none()) {
        let all: Vec<_> = (1..=EPOCH * u64::from(EPOCHS)).collect();
        assert_eq!(trail.steps(), all);
        let turns = trail
            .commits
            .windows(2)
            .filter(|pair| pair[1].attempt > 2 && pair[0].attempt < pair[1].attempt);
        let gap = turns.map(|pair| pair[1].ms - pair[0].ms).max().unwrap();
        longest = longest.max(gap.saturating_sub(trail.step_ms()));
    }
    longest
}

#[allow(clippy::print_stdout, reason = "how long it takes is read by people")]
async fn comes_back(world: u8, rank: u32) {
    let mut network = Network::rehearsing(world).await;
    let client = network.client(60, "ada").await;
    let digits = publish_free_digits(&client, network.dir.path()).await;
    network.rehearse(&format!("1 {rank} computing 60 kill\n"));
    let spec = training(digits, world.into(), EPOCHS);
    let (task, _) = client.post(spec).await.unwrap();
    let mut watch = client.watch(task, 0);
    let listening = tokio::spawn(async move { hear(&mut watch).await });
    let miner = within("one dies", dead(&network)).await;
    network.revive(miner, false).await;
    let told = listening.await.unwrap();
    let view = client.task(task).await.unwrap();
    assert_eq!(view.state, TaskState::Finished, "{}", view.reason);
    let world = usize::from(world);
    assert_eq!(told.groups, [world, world - 1, world], "{told:?}");
    assert_eq!(told.follows, [false, true]);
    let [broke, joins] = &told.pauses[..] else {
        panic!("{told:?}");
    };
    assert!(broke.starts_with("the ring broke: "), "{broke}");
    assert_eq!(joins, "miners join the group");
    let longest = check(&trails(&network));
    println!("{world} members, rank {rank}: the others stood still for {longest} ms");
    let slack = if is_all() { Duration::ZERO } else { SLACK };
    assert!(
        Duration::from_millis(longest) <= JOIN + slack,
        "{longest} ms"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_takes_the_state_from_those_that_train() {
    let _turn = TURN.lock().await;
    let cases = if is_all() { &DEATHS[..] } else { &DEATHS[1..2] };
    for (world, rank) in cases {
        comes_back(*world, *rank).await;
    }
}
