//! The life of a task over real processes: miners that are killed, miners that are stopped, a client that is gone.

use std::collections::BTreeMap;
use std::process::Stdio;

use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Event, Reason, TaskEvent, TaskSpec, TaskState, Work};
use cryptomind_protocol::{Amount, NodeId, TaskId};
use cryptomind_sdk::Client;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::nodes::{key, publish_digits, sums, training, within, write_closed};
use crate::processes::{Network, Part, TURN, client_command, cryptomind, person_command};

/// Long enough to be disturbed in the middle: 9,000 steps, and a checkpoint after each tenth of them.
fn long_training(dataset: cryptomind_protocol::ItemId, miners: u32) -> TaskSpec {
    let mut spec = training(dataset, miners, 200);
    if let Work::Train { train, .. } = &mut spec.work {
        train.checkpoint_steps = 900;
    }
    spec
}

/// What was seen of a task, and who has earned what of it, by its own events.
#[derive(Default)]
struct Story {
    events: Vec<TaskEvent>,
    members: Vec<NodeId>,
    earned: BTreeMap<NodeId, u64>,
}

impl Story {
    /// Takes the next event: of each checkpoint the members of then have equal parts, or other ones as they were given more or less
    /// of the work.
    fn add(&mut self, event: TaskEvent) {
        assert_eq!(event.number, self.events.len() as u64, "no gap");
        match &event.event {
            Event::Matched { members, .. } => {
                self.members = members.iter().map(|member| member.node).collect();
            }
            Event::Lost { node, .. } | Event::Left { node, .. } => {
                self.members.retain(|member| member != node);
            }
            Event::Checkpoint { earned, .. } => {
                let share = earned.base_units() / self.members.len() as u64;
                for node in &self.members {
                    *self.earned.entry(*node).or_default() += share;
                }
            }
            _ => {}
        }
        self.events.push(event);
    }

    fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|e| wanted(&e.event)).count()
    }

    fn lost(&self) -> usize {
        self.count(|event| matches!(event, Event::Lost { .. }))
    }

    fn left(&self) -> Vec<(NodeId, Amount)> {
        let left = self.events.iter().filter_map(|e| match &e.event {
            Event::Left { node, unpaid, .. } => Some((*node, *unpaid)),
            _ => None,
        });
        left.collect()
    }

    /// The groups as they were chosen, with the step from which each began.
    fn groups(&self) -> Vec<(Vec<NodeId>, u64)> {
        let groups = self.events.iter().filter_map(|e| match &e.event {
            Event::Matched {
                members,
                start_step,
                ..
            } => Some((members.iter().map(|m| m.node).collect(), *start_step)),
            _ => None,
        });
        groups.collect()
    }

    /// Every verified checkpoint is paid to who made it: as far from an equal part as shares of a batch may be.
    fn check_paid(&self) {
        let Some(Event::Settled { payments, .. }) = self.events.last().map(|e| &e.event) else {
            panic!("not settled: {:?}", self.events.last());
        };
        let mut paid = BTreeMap::<NodeId, u64>::new();
        for payment in payments.iter().filter(|p| p.reason == Reason::Work) {
            *paid.entry(payment.node.unwrap()).or_default() += payment.amount.base_units();
        }
        assert_eq!(
            paid.keys().collect::<Vec<_>>(),
            self.earned.keys().collect::<Vec<_>>()
        );
        for (node, units) in &self.earned {
            let range = units / 8..=units * 8;
            assert!(range.contains(&paid[node]), "{node}: {paid:?}");
        }
        let whole: u64 = paid.values().sum();
        let earned = self.events.iter().filter_map(|e| match &e.event {
            Event::Checkpoint { earned, .. } => Some(earned.base_units()),
            _ => None,
        });
        assert_eq!(whole, earned.sum::<u64>(), "every checkpoint is paid");
    }
}

/// A network of processes, a client with money, and the digits.
async fn staffed(miners: u8) -> (Network, Client, cryptomind_protocol::ItemId) {
    let network = Network::start(miners).await;
    let client = network.client(60, "ada").await;
    let digits = publish_digits(&client, network.dir.path()).await;
    (network, client, digits)
}

fn miner<'a>(network: &'a mut Network, node: &NodeId) -> &'a mut Part {
    let said = node.to_string();
    let found = network.miners.iter_mut().find(|part| part.said == said);
    found.expect("a member is one of the miners")
}

async fn failures(client: &Client, node: &NodeId) -> (u32, u32) {
    let miners = client.miners().await.unwrap();
    let miner = miners.iter().find(|miner| miner.node == *node).unwrap();
    (miner.rating.done, miner.rating.failed)
}

/// `miner explain` comes to the coordinator's numbers by itself, from events that all say why.
async fn explains(network: &Network, node: &NodeId) -> serde_json::Value {
    let mut explain = client_command(network, 60, &["miner", "explain", &node.to_string()]);
    let output = within("the explanation", explain.output()).await.unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["agrees"], true, "{said}");
    assert_eq!(said["rating"], said["recomputed"]);
    let events = said["events"].as_array().unwrap();
    let words = |event: &serde_json::Value| event["reason"].as_str().unwrap().contains(' ');
    assert!(!events.is_empty() && events.iter().all(words), "{said}");
    let last = events.last().unwrap();
    assert_eq!(last["rating_milli"], said["rating"]["rating_milli"]);
    said
}

async fn nothing_is_held(client: &Client) {
    let status = client.status().await.unwrap();
    assert_eq!((status.supply, status.held), (SUPPLY, Amount::ZERO));
}

/// SIGKILL to the same miner at its first and its second verified checkpoint: it is tried again, then replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_killed_twice_is_tried_again_then_replaced() {
    let _turn = TURN.lock().await;
    let (mut network, ada, digits) = staffed(2).await;
    let (task, held) = ada.post(long_training(digits, 1)).await.unwrap();
    let mut watch = ada.watch(task, 0);
    let mut story = Story::default();
    let mut killed: Vec<NodeId> = Vec::new();
    while let Some(event) = within("the next event", watch.next()).await {
        story.add(event.unwrap());
        let is_checkpoint = matches!(story.events.last().unwrap().event, Event::Checkpoint { .. });
        // Once in each of the first two executions.
        if is_checkpoint && killed.len() < 2 && story.groups().len() == killed.len() + 1 {
            let node = story.members[0];
            let part = miner(&mut network, &node);
            part.kill().await;
            part.start_again().await;
            killed.push(node);
        }
    }
    assert_eq!(ada.task(task).await.unwrap().state, TaskState::Finished);
    let groups = story.groups();
    assert_eq!((story.lost(), groups.len()), (2, 3), "{groups:?}");
    assert_eq!(groups[0].0, groups[1].0, "a second attempt");
    assert_ne!(groups[1].0, groups[2].0, "then another miner");
    assert!(
        0 < groups[1].1 && groups[1].1 < groups[2].1,
        "from where it was verified: {groups:?}"
    );
    story.check_paid();
    assert_eq!(sums(&story.events).values().sum::<u64>(), held.base_units());
    assert_eq!(failures(&ada, &killed[0]).await, (0, 2));
    assert_eq!(failures(&ada, &groups[2].0[0]).await, (1, 0));
    let (worse, better) = (
        explains(&network, &killed[0]).await,
        explains(&network, &groups[2].0[0]).await,
    );
    let low = |said: &serde_json::Value| said["rating"]["low_milli"].as_u64().unwrap();
    assert!(low(&worse) < low(&better), "{worse} {better}");
    nothing_is_held(&ada).await;
}

/// Follows a task, and stops a member's process with SIGTERM at the first checkpoint.
async fn stop_one(
    network: &mut Network,
    client: &Client,
    task: TaskId,
    whom: fn(&[NodeId]) -> NodeId,
) -> (Story, NodeId) {
    let mut watch = client.watch(task, 0);
    let (mut story, mut stopped) = (Story::default(), None);
    while let Some(event) = within("the next event", watch.next()).await {
        story.add(event.unwrap());
        let last = &story.events.last().unwrap().event;
        if matches!(last, Event::Checkpoint { .. }) && stopped.is_none() {
            let node = whom(&story.members);
            let code = miner(network, &node).stop().await;
            assert_eq!(code, Some(0), "it ends in good order");
            stopped = Some(node);
        }
    }
    assert_eq!(client.task(task).await.unwrap().state, TaskState::Finished);
    (story, stopped.unwrap())
}

/// One of three is stopped by its owner: it is let go, the others go on, and it counts as a quarter of a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_is_stopped_leaves_its_group() {
    let _turn = TURN.lock().await;
    let (mut network, ada, digits) = staffed(3).await;
    let (task, held) = ada.post(long_training(digits, 3)).await.unwrap();
    let last = |members: &[NodeId]| *members.last().unwrap();
    let (story, stopped) = stop_one(&mut network, &ada, task, last).await;
    let left: Vec<_> = story.left().iter().map(|(node, _)| *node).collect();
    assert_eq!((left, story.lost()), (vec![stopped], 0));
    assert_eq!(failures(&ada, &stopped).await, (0, 0));
    let said = explains(&network, &stopped).await;
    assert_eq!(said["rating"]["left"], 1);
    assert_eq!(said["events"][0]["reason"], "left a run with notice");
    story.check_paid();
    assert_eq!(sums(&story.events).values().sum::<u64>(), held.base_units());
    nothing_is_held(&ada).await;
}

/// A miner that is alone stores what it did before it goes: it is paid for all of it, and the next one goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_leaves_alone_loses_nothing() {
    let _turn = TURN.lock().await;
    let (mut network, ada, digits) = staffed(2).await;
    let (task, _) = ada.post(long_training(digits, 1)).await.unwrap();
    let (story, stopped) = stop_one(&mut network, &ada, task, |members| members[0]).await;
    assert_eq!(story.left(), [(stopped, Amount::ZERO)]);
    assert_eq!(story.lost(), 0);
    let groups = story.groups();
    assert_eq!(groups.len(), 2);
    assert_ne!(groups[0].0, groups[1].0);
    assert!(groups[1].1 >= 900, "{groups:?}");
    assert_eq!(failures(&ada, &stopped).await, (0, 0));
    story.check_paid();
    nothing_is_held(&ada).await;
}

/// `task submit` is killed as soon as it has posted. The task goes on to its end, its miners get what they earned, and the
/// result waits for whoever comes back with the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_finds_its_result_later() {
    let _turn = TURN.lock().await;
    let (network, ada, _) = staffed(3).await;
    let home = network.dir.path().join("client");
    std::fs::create_dir(&home).unwrap();
    write_closed(&home.join("ada.key"), &key(60).to_file_text());
    let mut submit = cryptomind(&home)
        .args(["--coordinator", &network.address.to_string(), "--key"])
        .arg(home.join("ada.key"))
        .args(["--format", "json", "task", "submit", "--watch"])
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/config/tasks/digits.toml"
        ))
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(home.join("log")).unwrap())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(submit.stdout.take().unwrap()).lines();
    let first = within("the task is posted", said.next_line())
        .await
        .unwrap();
    let log = || std::fs::read_to_string(home.join("log"));
    let posted = first.unwrap_or_else(|| panic!("{:?}", log()));
    submit.kill().await.unwrap();
    let posted: serde_json::Value = serde_json::from_str(&posted).unwrap();
    let task: TaskId = posted["task"].as_str().unwrap().parse().unwrap();

    let view = ada.wait(task, crate::nodes::LIMIT).await.unwrap();
    assert_eq!(view.state, TaskState::Finished, "{}", view.reason);
    let work = view.payments.iter().filter(|p| p.reason == Reason::Work);
    assert_eq!(
        Amount::sum(work.map(|p| p.amount)),
        Some(view.earned),
        "all that was earned is paid"
    );
    let placement = ada.locate_task(task).await.unwrap();
    let mut silent = |_: cryptomind_sdk::Progress<'_>| {};
    let out = home.join("out");
    let fetched = ada.download(&placement, &view.files, &out, &mut silent);
    let fetched = within("the result", fetched).await.unwrap();
    assert_eq!(fetched.len(), view.files.len());
    assert!(fetched.iter().all(|path| path.exists()));
    nothing_is_held(&ada).await;
    shows_where_a_step_went(&network, task).await;
}

/// `task watch --timeline`, after the end: of the newest step, for people and for programs.
async fn shows_where_a_step_went(network: &Network, task: TaskId) {
    let task = task.to_string();
    let words = ["task", "watch", &task, "--timeline"];
    let mut watch = client_command(network, 60, &words);
    let said = within("the events", watch.output()).await.unwrap();
    let events = String::from_utf8(said.stdout).unwrap();
    let events = events.lines().map(serde_json::from_str);
    let events: Vec<serde_json::Value> = events.collect::<Result<_, _>>().unwrap();
    let spans =
        |event: &serde_json::Value| event["event"]["progress"]["timeline"].as_array().cloned();
    let spans = events.iter().rev().find_map(spans).expect("a step's spans");
    let stages: Vec<_> = spans
        .iter()
        .map(|span| span["stage"].as_str().unwrap())
        .collect();
    assert_eq!(
        stages,
        ["compute", "ring", "apply", "confirm"],
        "its gradients are one bundle"
    );
    let at = |span: usize, key| spans[span][key].as_u64().unwrap();
    assert!(at(0, "us") > 0 && at(1, "us") > 0);
    assert!(
        at(2, "begin_us") >= at(1, "begin_us") + at(1, "us"),
        "{spans:?}"
    );
    assert!(
        at(3, "begin_us") >= at(2, "begin_us") + at(2, "us"),
        "{spans:?}"
    );
    let mut watch = person_command(network, 60, &words);
    let said = within("the drawing", watch.output()).await.unwrap();
    let drawn = String::from_utf8(said.stdout).unwrap();
    for stage in stages {
        let is_drawn = |line: &str| line.contains(stage) && line.trim_end().ends_with("ms");
        assert!(drawn.lines().any(is_drawn), "{stage}: {drawn}");
    }
}
