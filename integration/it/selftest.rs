//! A miner tests itself before it joins, the coordinator believes only what its node signed, and what the test says of speed
//! holds in the next task.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cryptomind_actors::miner::selftest::{challenge, keep, kept, machine, report};
use cryptomind_config::Selftest;
use cryptomind_core::market::speed::{Sort, Speeds, StartTest};
use cryptomind_core::selftest::kept_paces;
use cryptomind_gpu::selftest::{Extent, run};
use cryptomind_net::Endpoint;
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::model::Layer;
use cryptomind_protocol::node::{Capacity, Command, Join, Request};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::selftest::Report;
use cryptomind_protocol::speed::RunStatistic;
use cryptomind_protocol::task::{Activity, TaskSpec, TaskState, Work};
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, ItemId, NodeId, SecretKey, Signed, Timestamp,
};
use serde_json::Value;

use crate::nodes::{Network, delegate, follow, key, publish_free_digits, training, within};
use crate::processes::{self, TURN, Where, client_command, text};

const SHORT: Extent = Extent {
    endure: Duration::ZERO,
    threads: 1,
    memory: 64 << 20,
};

/// What a node is told that joins with this.
async fn joining(
    network: &Network,
    node: &SecretKey,
    shown: Option<&Report>,
) -> Result<(), ErrorBody> {
    let address = network.coordinator.address();
    let dialler = Endpoint::dialler().unwrap();
    let connection = dialler.dial(&address, ALPN_NODE, node).await.unwrap();
    let join = Join {
        owner: AccountId::of_key(&key(61).public()),
        name: "rig".into(),
        listen: None,
        probe: None,
        capacity: Capacity {
            mflops: u64::MAX,
            ..Capacity::default()
        },
        reserve: Amount::ZERO,
        activity: Activity::Idle,
        running: None,
        selftest: shown.map(|report| Signed::sign(report, &connection.network(), node)),
    };
    let join = Request::Join(Box::new(join));
    let mut commands = connection.subscribe(&join).await?;
    match within("an answer", commands.next::<Command>()).await {
        Some(Ok(Command::Joined { .. })) => Ok(()),
        Some(Err(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_no_right_report_of_its_own_is_not_let_in() {
    let network = Network::start(0).await;
    let (rig, thief) = (key(11), key(12));
    for node in [&rig, &thief] {
        delegate(&network.coordinator.address(), &key(61), node, Role::Miner).await;
    }
    let mut on = |_: &'static str, _: f32| std::ops::ControlFlow::Continue(());
    let work = run(challenge().unwrap(), SHORT, &mut on).unwrap();
    let mine = report(NodeId::of_key(&rig.public()), machine(1), work);
    let mut wrong = mine.clone();
    wrong.work.trainings[0].loss = 1.4;
    let mut early = mine.clone();
    early.made = Timestamp::from_ms(mine.made.as_ms() + 3_600_000);
    for (node, shown, code) in [
        (&rig, None, "no_selftest"),
        (&rig, Some(&wrong), "computes_wrongly"),
        (&rig, Some(&early), "selftest_from_the_future"),
        (&thief, Some(&mine), "foreign_selftest"),
    ] {
        let refusal = joining(&network, node, shown).await.unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.help.is_some(), "{refusal}");
    }
    joining(&network, &rig, Some(&mine)).await.unwrap();
    let client = network.client(61).await;
    let miners = client.miners().await.unwrap();
    assert_eq!(miners.len(), 1, "refused ones are not written down");
    let promised = mine.work.mflops();
    assert_eq!(miners[0].mflops, promised, "not what it says unsigned");
    network.stop().await;
}

fn kept_at(home: &Path) -> Option<Report> {
    kept(&home.join("selftest.json"))
}

/// Over real processes: the report is there before the miner is, and the next start goes without a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_joins_after_its_test_and_keeps_the_report() {
    let _turn = TURN.lock().await;
    let mut network = processes::Network::start(0).await;
    let client = network.client(60, "ada").await;
    let home = network.dir.path().join("node-110");
    let join = processes::Join {
        dir: network.dir.path(),
        address: &network.address,
        number: 110,
        role: Role::Miner,
        at: Where::here(),
        env: vec![],
    };
    let looking = async {
        let mut absent = 0_u32;
        while client.status().await.unwrap().miners == 0 {
            absent += u32::from(kept_at(&home).is_none());
        }
        assert!(kept_at(&home).is_some(), "it joined without a report");
        absent
    };
    let (miner, absent) = within("it joins", async { tokio::join!(join.start(), looking) }).await;
    assert!(absent > 0, "nobody looked before");
    network.miners.push(miner);
    let first = kept_at(&home).unwrap();
    network.miners[0].kill().await;
    network.miners[0].start_again().await;
    assert_eq!(kept_at(&home).unwrap(), first, "taken once");
}

/// A miner that runs for weeks is tested again, between two tasks, by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_grows_old_is_made_anew_while_the_miner_runs() {
    let _turn = TURN.lock().await;
    let mut network = processes::Network::start(1).await;
    let client = network.client(60, "ada").await;
    let home = network.dir.path().join("node-110");
    network.miners[0].kill().await;
    let begin = Instant::now();
    network.miners[0].start_again().await;
    let left = 3 * begin.elapsed() + Duration::from_secs(2);
    network.miners[0].kill().await;
    let holds_ms = Selftest::default().hours * 3_600_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let made = (now + left).as_millis() as u64 - holds_ms;
    let old = Report {
        made: Timestamp::from_ms(made),
        ..kept_at(&home).unwrap()
    };
    keep(&home.join("selftest.json"), &old).unwrap();
    network.miners[0].start_again().await;
    assert_eq!(kept_at(&home).unwrap(), old, "it still held");
    let anew = async {
        while kept_at(&home).is_none_or(|kept| kept.work.challenge == old.work.challenge) {
            client.status().await.unwrap();
        }
    };
    within("it is tested again", anew).await;
    let digits = publish_free_digits(&client, network.dir.path()).await;
    let (posted, _) = client.post(training(digits, 1, 1)).await.unwrap();
    follow(&client, posted, |_| ()).await;
    let task = client.task(posted).await.unwrap();
    assert_eq!(task.state, TaskState::Finished, "{}", task.reason);
}

/// Every named check, as a program reads it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_says_of_each_check_what_is_found_and_needed() {
    let _turn = TURN.lock().await;
    let network = processes::Network::start(1).await;
    let home = network.dir.path().join("node-110");
    let before = kept_at(&home).unwrap();
    let file = home.join("miner.toml").display().to_string();
    let words = ["miner", "selftest", "--seconds", "1", "--miner", &file];
    let mut command = client_command(&network, 60, &words);
    let output = within("the test", command.output()).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = std::str::from_utf8(&output.stdout).unwrap();
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let check = |name: &str| {
        let found = lines.iter().find(|line| line["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {said}"))
    };
    for name in [
        "threads",
        "memory",
        "devices",
        "data folder",
        "coordinator",
        "clock",
        "port",
        "link",
        "products",
        "bandwidth",
        "filled",
        "training",
        "paces",
        "endurance",
        "report",
    ] {
        let check = check(name);
        assert!(
            check["found"].is_string() && check["needed"].is_string(),
            "{check}"
        );
        let is_good = check["verdict"] == "good";
        assert!(is_good || check["remedy"].is_string(), "{check}");
        assert_ne!(check["verdict"], "bad", "{check}");
    }
    for name in ["clock", "port", "link", "report"] {
        assert_eq!(check(name)["verdict"], "good", "{}", check(name));
    }
    let after = kept_at(&home).unwrap();
    assert_ne!(
        before.work.challenge, after.work.challenge,
        "the miner's own report"
    );
    assert_eq!(after.machine.threads, 1, "with the miner's own threads");
    assert!(after.work.endurance.ms >= 1_000);
}

/// Hidden layers, samples a step, epochs: steps of 0.7 to 1,500 million operations.
const TASKS: [(&[u32], u32, u32); 4] = [
    (&[64], 32, 500),
    (&[256, 256], 128, 60),
    (&[512, 512, 512], 128, 12),
    (&[1024, 1024], 256, 10),
];

fn of_size(dataset: ItemId, (hidden, batch, epochs): (&[u32], u32, u32)) -> TaskSpec {
    let mut spec = training(dataset, 1, epochs);
    let Work::Train { model, train, .. } = &mut spec.work else {
        unreachable!()
    };
    let between = |out: &u32| [Layer::linear(*out), Layer::Relu {}];
    model.layers = hidden.iter().flat_map(between).collect();
    model.layers.push(Layer::linear(10));
    (train.global_batch, train.checkpoint_steps) = (batch, 10_000);
    spec
}

/// What the market takes this report to promise for steps of the run's size, 10⁶ operations a second.
fn promised(report: &Report, run: &RunStatistic) -> u64 {
    let test = StartTest::from(report.work.mflops() * 1_000_000);
    let mut speeds = Speeds::default();
    let owner = AccountId::of_key(&key(50).public());
    speeds.started(run.node, owner, test.with_paces(&kept_paces(&report.work)));
    let sort = Sort {
        kind: run.kind,
        engine: run.engine,
        step: run.step,
    };
    (speeds.predict(run.node, sort).unwrap().flops_per_s / 1e6) as u64
}

/// On a machine that has other things to do, the order of magnitude; `--nocapture` shows the ratios.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_promises_what_the_next_task_reaches() {
    let _turn = TURN.lock().await;
    let network = Network::tested(1, 1).await;
    let report = kept_at(&network.dir.path().join("miner-0")).unwrap();
    println!("{:?}", report.work.paces);
    let (client, digits) = network.client_with_digits(60, "ada").await;
    let mut off = Vec::new();
    for task in TASKS {
        let (posted, _) = client.post(of_size(digits, task)).await.unwrap();
        follow(&client, posted, |_| ()).await;
        let runs = client.runs(None, None).await.unwrap();
        let run = runs.iter().find(|run| run.task == posted).unwrap();
        let (reached, promised) = (run.mflops().unwrap(), promised(&report, run));
        let ratio = reached as f64 / promised as f64;
        println!(
            "{:?}: {reached} of {promised} MFLOP/s, {ratio:.2}",
            run.step
        );
        off.push(ratio);
    }
    assert!(
        off.iter().all(|ratio| (0.3..=3.0).contains(ratio)),
        "{off:?}"
    );
    network.stop().await;
}
