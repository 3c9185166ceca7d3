//! Members of a group die, or stop, at every point of a step: the others go on with the same step, with the same bits.
//!
//! Each miner is a process of its own, and sends itself the signal (see `rehearsal.rs` of the miner). `cargo test` has a group of
//! three, with one rank a point. `DEATHS=all cargo test -p cryptomind --test it deaths` has groups of two, three and four, with
//! every rank at every point, and nothing else on the machine: there it has to be within two seconds and a step.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cryptomind_protocol::ItemId;
use cryptomind_protocol::task::{Event, TaskState};
use cryptomind_sdk::Client;

use crate::nodes::{publish_free_digits, training, within};
use crate::processes::{Network, TURN};

/// From a death to the next commit of all others, without the step itself.
const RECOVERY: Duration = Duration::from_secs(2);
/// What it may take beyond where other tests have the same two cores: a machine that is held up proves nothing.
const SLACK: Duration = Duration::from_secs(2);
/// Steps of a task: 45 an epoch.
const STEPS: u64 = 4 * 45;
/// Committed steps from which on somebody may die.
const FROM: u64 = 60;
/// Points of a step.
const POINTS: [&str; 5] = [
    "computing",
    "summing",
    "applying",
    "confirming",
    "committed",
];

/// Who shall do what where.
#[derive(Debug, Clone, Copy)]
struct Case {
    world: u32,
    rank: u32,
    point: &'static str,
    signal: &'static str,
}

/// One commit of a member's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Commit {
    ms: u64,
    attempt: u32,
    step: u64,
    print: String,
}

/// What a member noted of a task.
#[derive(Debug, Default)]
struct Trail {
    commits: Vec<Commit>,
    /// When it sent itself its signal.
    at: Option<u64>,
}

impl Trail {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let mut trail = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let ms = words[1].parse().unwrap();
            match words[0] {
                "at" => trail.at = Some(ms),
                _ => trail.commits.push(Commit {
                    ms,
                    attempt: words[2].parse().unwrap(),
                    step: words[3].parse().unwrap(),
                    print: words[4].to_owned(),
                }),
            }
        }
        trail
    }

    fn steps(&self) -> Vec<u64> {
        self.commits.iter().map(|c| c.step).collect()
    }

    /// The usual time from one commit to the next.
    fn step_ms(&self) -> u64 {
        let pairs = self.commits.windows(2);
        let mut times: Vec<_> = pairs.map(|pair| pair[1].ms - pair[0].ms).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// How long after that moment it committed its next step.
    fn gap_ms(&self, after: u64) -> u64 {
        let next = self.commits.iter().find(|c| c.ms > after);
        next.expect("it goes on").ms - after
    }
}

/// A group that is put through cases, one after another.
struct Stage {
    network: Network,
    client: Client,
    digits: ItemId,
}

impl Stage {
    async fn set(world: u8) -> Self {
        let network = Network::rehearsing(world).await;
        let client = network.client(60, "ada").await;
        let digits = publish_free_digits(&client, network.dir.path()).await;
        Self {
            network,
            client,
            digits,
        }
    }

    /// Puts the group through a case, and gives the longest time that a survivor was without a step.
    async fn play(&mut self, case: Case) -> u64 {
        let Case {
            world,
            rank,
            point,
            signal,
        } = case;
        let cue = format!("1 {rank} {point} {FROM} {signal}\n");
        self.network.rehearse(&cue);
        let spec = training(self.digits, world, 4);
        let (task, _) = self.client.post(spec).await.unwrap();
        let mut watch = self.client.watch(task, 0);
        let (mut groups, mut last) = (Vec::new(), None);
        loop {
            let what = format!("{case:?}: what follows {last:?}");
            let Some(event) = within(&what, watch.next()).await else {
                break;
            };
            let event = event.unwrap().event;
            if let Event::Matched { members, .. } = &event {
                groups.push(members.len());
            }
            last = Some(event);
        }
        let view = self.client.task(task).await.unwrap();
        assert_eq!(view.state, TaskState::Finished, "{case:?}: {}", view.reason);
        assert_eq!(groups, [world as usize, world as usize - 1], "{case:?}");
        let trails = self.network.trails().map(|file| Trail::read(&file));
        let trails: Vec<_> = trails.collect();
        let gap = check(case, &trails);
        let victim = trails.iter().position(|t| t.at.is_some()).unwrap();
        self.network.revive(victim, signal == "stop").await;
        within("all are free again", self.network.all_free(&self.client)).await;
        gap
    }
}

/// All that have the same key have the same bits.
fn agree<'a>(
    case: Case,
    commits: impl Iterator<Item = &'a Commit>,
    key: impl Fn(&Commit) -> (u32, u64),
) {
    let mut prints: BTreeMap<(u32, u64), &str> = BTreeMap::new();
    for commit in commits {
        let first = prints.entry(key(commit)).or_insert(&commit.print);
        assert_eq!(*first, commit.print, "{case:?}: {commit:?}");
    }
}

/// No step is lost, each has the same bits everywhere, and the survivors are soon at it again.
fn check(case: Case, trails: &[Trail]) -> u64 {
    let died = trails.iter().filter_map(|t| t.at).collect::<Vec<_>>();
    assert_eq!(died.len(), 1, "{case:?}: one, and once");
    // A step that only the dead one committed is computed anew by the others, in a smaller group: with other bits.
    let of_attempt = |commit: &Commit| (commit.attempt, commit.step);
    agree(case, trails.iter().flat_map(|t| &t.commits), of_attempt);
    let survivors = || trails.iter().filter(|t| t.at.is_none());
    let of_step = |commit: &Commit| (0, commit.step);
    agree(case, survivors().flat_map(|t| &t.commits), of_step);
    let mut longest = 0;
    for trail in survivors() {
        let all: Vec<_> = (1..=STEPS).collect();
        assert_eq!(trail.steps(), all, "{case:?}");
        let (gap, step) = (trail.gap_ms(died[0]), trail.step_ms());
        let slack = if is_all() { Duration::ZERO } else { SLACK };
        let limit = (RECOVERY + slack).as_millis() as u64 + step;
        assert!(gap <= limit, "{case:?}: {gap} ms, and a step takes {step}");
        longest = longest.max(gap);
    }
    longest
}

fn is_all() -> bool {
    std::env::var("DEATHS").is_ok_and(|which| which == "all")
}

/// Who dies again and again gets no more work: so the stage is set anew now and then.
const CASES_A_STAGE: usize = 3;

#[allow(clippy::print_stdout, reason = "the whole matrix is read by people")]
async fn play_all(world: u32, cases: &[Case]) {
    for cases in cases.chunks(CASES_A_STAGE) {
        let mut stage = Stage::set(world as u8).await;
        for case in cases {
            let gap = stage.play(*case).await;
            println!("{case:?}: {gap} ms");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn survivors_finish_the_same_step_whatever_the_other_was_at() {
    let _turn = TURN.lock().await;
    let case = |world, rank, point, signal| Case {
        world,
        rank,
        point,
        signal,
    };
    if !is_all() {
        let ranks = (0..3).cycle();
        let mut cases: Vec<_> = POINTS
            .into_iter()
            .zip(ranks)
            .map(|(point, rank)| case(3, rank, point, "kill"))
            .collect();
        cases.insert(0, case(3, 1, "summing", "stop"));
        return play_all(3, &cases).await;
    }
    for world in 2..=4 {
        let mut cases = Vec::new();
        for (point, rank) in POINTS
            .into_iter()
            .flat_map(|p| (0..world).map(move |r| (p, r)))
        {
            cases.push(case(world, rank, point, "kill"));
            cases.push(case(world, rank, point, "stop"));
        }
        play_all(world, &cases).await;
    }
}
