//! Sessions over real QUIC: calls, strangers, a miner that is killed, and a bill that is exact to the sample.

use std::collections::BTreeMap;
use std::path::Path;

use cryptomind_gpu::dataset::Samples;
use cryptomind_gpu::inference::Model;
use cryptomind_gpu::session::Session as Weights;
use cryptomind_net::{Connection, Endpoint};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::ALPN_SERVE;
use cryptomind_protocol::item::{Access, ItemKind, ItemView, MODEL_FILE, Manifest, ModelInfo};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::serve::{Acknowledgement, Answered, Request, VERSION, to_bytes};
use cryptomind_protocol::task::{
    Event, Metrics, Optimizer, Reason, TaskState, TaskView, TrainSpec,
};
use cryptomind_protocol::{ErrorBody, SecretKey, Signed};
use cryptomind_sdk::{Client, Session, Standing};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::nodes::{LIMIT, Network, key, within};
use crate::processes;

const INPUTS: usize = 4;
const CLASSES: usize = 3;

/// A small model with its first weights, here and in the catalog.
async fn publish(client: &Client, dir: &Path) -> (ItemView, Model) {
    let spec = ModelSpec {
        input: vec![INPUTS as u32],
        layers: vec![Layer::Tanh {}, Layer::linear(CLASSES as u32)],
        loss: Loss::default(),
    };
    let train = TrainSpec {
        epochs: 1,
        global_batch: 1,
        optimizer: Optimizer::adamw(1e-3),
        seed: 7,
        checkpoint_steps: 1,
        ..TrainSpec::default()
    };
    // As of a table: its callers have values as they are.
    let scaling = [
        ("input_shift", "[1.5,-2,0.25,0]"),
        ("input_scale", "[0.5,2,4,1]"),
    ];
    let scaling = scaling.map(|(key, list)| (key.to_owned(), list.to_owned()));
    let weights = Weights::new(&spec, &train)
        .unwrap()
        .export(&BTreeMap::from(scaling));
    let file = dir.join(MODEL_FILE);
    std::fs::write(&file, &weights).unwrap();
    let files = vec![(MODEL_FILE.to_owned(), file)];
    let stored = client.upload(files, &mut |_| {}).await.unwrap();
    let (files, receipts) = stored.into_iter().unzip();
    let manifest = Manifest {
        name: "small".into(),
        kind: ItemKind::Model(ModelInfo {
            spec: spec.clone(),
            classes: ["a", "b", "c"].map(str::to_owned).to_vec(),
            dataset: None,
            task: None,
            metrics: Metrics::default(),
        }),
        files,
        access: Access::Free,
        licence: "CC0-1.0".into(),
        source: "a test".into(),
    };
    let item = client.publish(manifest, receipts).await.unwrap();
    let item = client.item_by_id(item).await.unwrap();
    (item, Model::load(&spec, &weights).unwrap())
}

fn samples(count: usize, seed: usize) -> Vec<f32> {
    let value = |n| ((n * 37 + seed * 11) % 17) as f32 / 8.0 - 1.0;
    (0..count * INPUTS).map(value).collect()
}

fn expected(model: &Model, inputs: &[f32]) -> Vec<f32> {
    let count = inputs.len() / INPUTS;
    let mut inputs = inputs.to_vec();
    model.scale(&mut inputs);
    let data = Samples::labelled(inputs, vec![0; count], INPUTS, CLASSES);
    model.probabilities(&data, 0..count).unwrap()
}

/// A call whose answer is that of the same weights here.
async fn call(session: &mut Session, model: &Model, count: usize, seed: usize) {
    let inputs = samples(count, seed);
    let answer = within("an answer", session.call(&inputs)).await.unwrap();
    assert_eq!(answer.probabilities, expected(model, &inputs));
    assert_eq!(answer.labels.len(), count);
}

/// What was paid for work is the price of these samples, rounded down, and the rest came back.
fn bill(ended: &TaskView, samples: u64, samples_max: u64, work_max: u64) {
    assert_eq!(ended.step, samples, "{}", ended.reason);
    let paid = |reason| -> u64 {
        let of = ended.payments.iter().filter(|p| p.reason == reason);
        of.map(|p| p.amount.base_units()).sum()
    };
    let due = u128::from(work_max) * u128::from(samples) / u128::from(samples_max);
    assert_eq!(u128::from(paid(Reason::Work)), due);
    assert!(due > 0, "a bill of nothing proves nothing");
    let all: u64 = ended.payments.iter().map(|p| p.amount.base_units()).sum();
    assert_eq!(all, ended.spec.max_cost.base_units());
}

async fn work_max(client: &Client, model: &ItemView, samples: u32) -> u64 {
    let spec = cryptomind_sdk::serving(model, samples);
    let quote = client.quote(&spec).await.unwrap();
    quote.work_cost.base_units()
}

async fn dial(session: &mut Session, caller: &SecretKey) -> Connection {
    let Standing::Serving { address, .. } = session.standing() else {
        panic!("{:?}", session.standing());
    };
    let endpoint = Endpoint::dialler().unwrap();
    endpoint.dial(&address, ALPN_SERVE, caller).await.unwrap()
}

/// A request as somebody who is no library of ours might make it.
async fn ask(
    door: &Connection,
    acknowledgement: Signed,
    count: u32,
    values: &[f32],
) -> Result<Answered, ErrorBody> {
    let (mut sender, mut receiver) = door.open().await.unwrap();
    let request = Request::Call {
        samples: count,
        acknowledgement,
    };
    sender.frame(&request).await.unwrap();
    // A door that wants no more says why in its answer.
    let _ = sender.bytes(&to_bytes(values)).await;
    let _ = sender.finish().await;
    let answer: Option<Answer<Answered>> = receiver.frame(LIMIT).await.unwrap();
    answer.unwrap().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_answers_its_client_alone_and_is_paid_by_what_that_got() {
    let network = Network::start(2).await;
    let client = network.client(60).await;
    client.register("ada").await.unwrap();
    client.faucet().await.unwrap();
    let (item, model) = publish(&client, network.dir.path()).await;
    let work_max = work_max(&client, &item, 500).await;
    let mut session = client.serve(&item, 500, None).await.unwrap();
    let task = session.task();
    call(&mut session, &model, 1, 0).await;
    for seed in 1..20 {
        call(&mut session, &model, 1 + seed % 5, seed).await;
    }
    call(&mut session, &model, 64, 20).await;
    let wrong = session.call(&samples(65, 0)).await.unwrap_err();
    assert_eq!(wrong.code, "bad_samples");
    let wrong = session.call(&[0.5; INPUTS + 1]).await.unwrap_err();
    assert_eq!(wrong.code, "bad_samples");

    // A stranger is told so by name, whatever it signs.
    let genesis = client.network();
    let said = |samples, attempt, last| Acknowledgement {
        version: VERSION,
        task,
        attempt,
        samples,
        last,
    };
    let stranger = dial(&mut session, &key(77)).await;
    let signed = Signed::sign(&said(0, 1, false), &genesis, &key(77));
    let refused = ask(&stranger, signed, 1, &samples(1, 0)).await.unwrap_err();
    assert_eq!(refused.code, "not_the_client");

    // The client itself can claim nothing that is not so.
    let accepted = session.accepted();
    let door = dial(&mut session, &key(60)).await;
    let sign = |said: &Acknowledgement| Signed::sign(said, &genesis, &key(60));
    let mut forged = sign(&said(accepted, 1, false));
    forged.signature = sign(&said(accepted + 1, 1, false)).signature;
    let cases = [
        (
            sign(&said(accepted - 65, 1, false)),
            "acknowledgement_lower",
        ),
        (
            sign(&said(accepted + 1, 1, false)),
            "acknowledgement_too_high",
        ),
        (
            sign(&said(accepted, 2, false)),
            "acknowledgement_of_another_attempt",
        ),
        (
            Signed::sign(&said(accepted, 1, false), &genesis, &key(77)),
            "acknowledgement_not_the_clients",
        ),
        (forged, "acknowledgement_forged"),
    ];
    for (signed, code) in cases {
        let refused = ask(&door, signed, 1, &samples(1, 0)).await.unwrap_err();
        assert_eq!(refused.code, code);
    }
    let too_many = ask(&door, sign(&said(accepted, 1, false)), 65, &[]).await;
    assert_eq!(too_many.unwrap_err().code, "bad_call");
    // Answered and never acknowledged: 64 samples and no more. What was acknowledged above counts.
    for _ in 0..64 {
        let signed = sign(&said(accepted, 1, false));
        ask(&door, signed, 1, &samples(1, 0)).await.unwrap();
    }
    let signed = sign(&said(accepted, 1, false));
    let refused = ask(&door, signed, 1, &samples(1, 0)).await.unwrap_err();
    assert_eq!(refused.code, "unacknowledged");

    let ended = within("the end", session.end()).await.unwrap();
    assert_eq!(ended.state, TaskState::Finished, "{}", ended.reason);
    bill(&ended, accepted, 500, work_max);
    let status = client.status().await.unwrap();
    assert_eq!((status.supply, status.held.base_units()), (SUPPLY, 0));

    // A session that is used up ends by itself, and a call after that is refused.
    let mut short = client.serve(&item, 3, None).await.unwrap();
    call(&mut short, &model, 2, 0).await;
    let refused = within("a refusal", short.call(&samples(2, 0))).await;
    assert_eq!(refused.unwrap_err().code, "session_exhausted");
    call(&mut short, &model, 1, 1).await;
    let ended = within("the end", short.end()).await.unwrap();
    assert_eq!((ended.state, ended.step), (TaskState::Finished, 3));

    // Cancelled in the middle: what was acknowledged is paid, although it was not reported yet.
    let work_max = self::work_max(&client, &item, 40).await;
    let mut cancelled = client.serve(&item, 40, None).await.unwrap();
    call(&mut cancelled, &model, 10, 0).await;
    call(&mut cancelled, &model, 10, 1).await;
    client.cancel(cancelled.task()).await.unwrap();
    let ended = within("the end", client.wait(cancelled.task(), LIMIT))
        .await
        .unwrap();
    assert_eq!(ended.state, TaskState::Cancelled);
    bill(&ended, 10, 40, work_max);
    network.stop().await;
}

/// A power cut at the miner: another one takes over at its own door, and both are paid what the client got from them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_miner_is_replaced_and_the_session_goes_on() {
    let _turn = processes::TURN.lock().await;
    let mut network = processes::Network::start(2).await;
    let client = network.client(60, "ada").await;
    let (item, model) = publish(&client, network.dir.path()).await;
    let work_max = work_max(&client, &item, 1_000).await;
    let mut session = client.serve(&item, 1_000, None).await.unwrap();
    let task = session.task();
    for seed in 0..8 {
        call(&mut session, &model, 4, seed).await;
    }
    // What the first miner earned is told: nothing of it can be lost any more.
    let mut events = client.watch(task, 0);
    let earned = loop {
        let event = within("an acknowledgement", events.next()).await.unwrap();
        if let Event::Acknowledged { samples, .. } = event.unwrap().event {
            break samples;
        }
    };
    assert!((1..=28).contains(&earned), "{earned}");
    let Standing::Serving { name, .. } = session.standing() else {
        panic!("{:?}", session.standing());
    };
    let victim = usize::from(name == "n111");
    network.miners[victim].kill().await;
    for seed in 8..16 {
        call(&mut session, &model, 4, seed).await;
    }
    let Standing::Serving {
        name: other,
        attempt,
        samples,
        ..
    } = session.standing()
    else {
        panic!("{:?}", session.standing());
    };
    assert_ne!(other, name);
    assert_eq!(attempt, 2);
    assert!(samples >= earned);
    let ended = within("the end", session.end()).await.unwrap();
    assert_eq!(ended.state, TaskState::Finished, "{}", ended.reason);
    bill(&ended, samples + 8 * 4, 1_000, work_max);
    let paid = ended.payments.iter().filter(|p| p.reason == Reason::Work);
    assert_eq!(paid.count(), 2, "both miners");
    let status = client.status().await.unwrap();
    assert_eq!((status.supply, status.held.base_units()), (SUPPLY, 0));
}

fn check_line(line: &str, model: &Model, inputs: &[f32]) {
    let said: serde_json::Value = serde_json::from_str(line).unwrap();
    let probabilities = expected(model, inputs);
    let label = said["label"].as_u64().unwrap() as usize;
    assert_eq!(said["class"], ["a", "b", "c"][label]);
    let probability = said["probability"].as_f64().unwrap() as f32;
    assert!((probability - probabilities[label]).abs() < 1e-6, "{said}");
    assert!(said["latency"]["compute_us"].is_u64(), "{said}");
}

fn row(inputs: &[f32]) -> String {
    let values: Vec<_> = inputs.iter().map(ToString::to_string).collect();
    values.join(",") + "\n"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_answer_lines_and_files_and_say_what_it_cost() {
    let _turn = processes::TURN.lock().await;
    let network = processes::Network::start(1).await;
    let client = network.client(60, "ada").await;
    let (_, model) = publish(&client, network.dir.path()).await;
    let rows: Vec<_> = (0..3).map(|seed| samples(1, seed)).collect();

    // A line in, a line out, until input ends.
    let mut serving = processes::client_command(
        &network,
        60,
        &["model", "serve", "ada/small", "--samples", "10"],
    )
    .spawn()
    .unwrap();
    let mut stdin = serving.stdin.take().unwrap();
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
    for inputs in &rows {
        stdin.write_all(row(inputs).as_bytes()).await.unwrap();
        let line = within("a line", lines.next_line()).await.unwrap();
        check_line(&line.unwrap(), &model, inputs);
    }
    drop(stdin);
    let output = within("the end", serving.wait_with_output()).await.unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    assert!(notes.contains("3 samples answered; it cost"), "{notes}");

    // Ctrl-C ends the session, not only the command.
    let mut serving = processes::client_command(&network, 60, &["model", "serve", "ada/small"])
        .spawn()
        .unwrap();
    let mut stdin = serving.stdin.take().unwrap();
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
    stdin.write_all(row(&rows[0]).as_bytes()).await.unwrap();
    within("a line", lines.next_line()).await.unwrap().unwrap();
    let id = serving.id().unwrap().to_string();
    let mut interrupt = Command::new("kill");
    interrupt.args(["-INT", &id]);
    within("kill", interrupt.status()).await.unwrap();
    let output = within("the end", serving.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(130));
    let newest = client.tasks(None).await.unwrap().remove(0);
    assert_eq!((newest.state, newest.step), (TaskState::Finished, 1));
    let latency = newest.metrics.unwrap().latency.unwrap();
    assert!(latency.queue_us > 0 && latency.load_us > 0, "{latency:?}");

    // A whole file.
    let file = network.dir.path().join("rows.csv");
    let text: String = rows.iter().map(|inputs| row(inputs)).collect();
    std::fs::write(&file, format!("w,x,y,z\n{text}")).unwrap();
    let file = processes::shown(&file);
    let mut inferring = processes::client_command(
        &network,
        60,
        &["model", "infer", "ada/small", "--input", &file],
    );
    let output = within("the end", inferring.output()).await.unwrap();
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.lines().count(), rows.len());
    for (line, inputs) in said.lines().zip(&rows) {
        check_line(line, &model, inputs);
    }
    let newest = client.tasks(None).await.unwrap().remove(0);
    assert_eq!((newest.state, newest.step), (TaskState::Finished, 3));
}
