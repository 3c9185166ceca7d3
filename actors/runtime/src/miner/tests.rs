//! Whole miners over real QUIC, against a hall that plays coordinator and storage.

use cryptomind_core::audit::{self, RootSteps};
use cryptomind_core::succession::Proof;
use cryptomind_protocol::audit::Commitment;
use cryptomind_protocol::item::{Access, CARD_FILE, MODEL_FILE, ModelInfo, PREDICTIONS_FILE};
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::node::{Command, Match, Position, Report, Request};
use cryptomind_protocol::probe::{Echo, LinkReport, Peer};
use cryptomind_protocol::task::{
    Activity, Conditions, Metrics, Optimizer, ResultFile, Split, TaskSpec, TrainSpec, Work,
};
use cryptomind_protocol::{Amount, ItemId, NodeId, TaskId};

use super::*;
use hall::{Guest, Hall, PATIENCE, Said, lives};

mod hall;

const TASK: TaskId = TaskId::new([9; 16]);
/// Steps of an epoch of the digits in batches of 64.
const EPOCH: u64 = 23;
/// An attempt that nobody forms by itself.
const LATER: u32 = 10;

fn model() -> ModelSpec {
    ModelSpec {
        input: vec![8, 8],
        layers: vec![Layer::linear(32), Layer::Relu {}, Layer::linear(10)],
        loss: Loss::default(),
    }
}

fn training(miners: u32, epochs: u32) -> TaskSpec {
    TaskSpec {
        name: "digits-mlp".into(),
        work: Work::Train {
            dataset: ItemId::new([1; 16]),
            model: model(),
            train: TrainSpec {
                epochs,
                global_batch: 64,
                optimizer: Optimizer::adamw(3e-3),
                seed: 42,
                checkpoint_steps: 20,
                ..TrainSpec::default()
            },
        },
        miners,
        max_cost: Amount::from_base_units(1),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

fn ids(guests: &[Guest]) -> Vec<NodeId> {
    guests.iter().map(Guest::id).collect()
}

/// Announces, matches and seats a training group; returns its place.
async fn seated(hall: &mut Hall, members: &[NodeId], epochs: u32) -> Match {
    let spec = training(members.len() as u32, epochs);
    let digits = hall.digits();
    let addresses = hall.announce(TASK, &spec, members).await;
    let place = hall.place(TASK, &spec, &digits, members, addresses);
    hall.seat(&place);
    place
}

async fn ready(hall: &mut Hall, at: (NodeId, u32)) -> u64 {
    let ready = |report: &Report| match report {
        Report::Ready { fetched_bytes } => Some(*fetched_bytes),
        _ => None,
    };
    hall.report("ready", at, ready).await
}

async fn progress(hall: &mut Hall, at: (NodeId, u32), beyond: u64) -> u64 {
    let progress = |report: &Report| match report {
        Report::Progress { step, .. } => (*step > beyond).then_some(*step),
        _ => None,
    };
    hall.report("progress", at, progress).await
}

async fn finished(hall: &mut Hall, at: (NodeId, u32)) -> (Vec<ResultFile>, Metrics) {
    let finished = |report: &Report| match report {
        Report::Finished {
            files,
            receipts,
            metrics,
        } => {
            let fits = files
                .iter()
                .zip(receipts)
                .all(|(f, r)| f.blob == r.blob && r.is_signed());
            assert!(fits && files.len() == receipts.len());
            Some((files.clone(), metrics.clone()))
        }
        _ => None,
    };
    hall.report("the result", at, finished).await
}

async fn failed(hall: &mut Hall, at: (NodeId, u32)) -> (bool, String) {
    let failed = |report: &Report| match report {
        Report::Failed { task_fault, reason } => Some((*task_fault, reason.clone())),
        _ => None,
    };
    hall.report("a failure", at, failed).await
}

async fn leaving(hall: &mut Hall, at: (NodeId, u32)) -> String {
    let leaving = |report: &Report| match report {
        Report::Leaving { reason } => Some(reason.clone()),
        _ => None,
    };
    hall.report("a leave", at, leaving).await
}

/// What a miner's node signed of its steps, to the last one.
async fn commitments(hall: &mut Hall, node: NodeId, total: u64) -> Vec<Commitment> {
    let committed = |report: &Report| match report {
        Report::Committed { commitments } => Some(commitments.clone()),
        _ => None,
    };
    let mut all = Vec::new();
    while (all.len() as u64) < total {
        let signed = hall.report("commitments", (node, 1), committed).await;
        let opened = audit::open(signed, &hall::NETWORK, node, (TASK, 1)).unwrap();
        let (said, _) = opened.into_parts();
        assert_eq!(said.first, all.len() as u64 + 1, "no gap");
        all.extend(said.steps);
    }
    all
}

async fn turned(hall: &mut Hall, node: NodeId, from: Activity, to: Activity) {
    let turned = |(who, request): &Said| match request {
        Request::Activity { from: f, to: t, .. } => {
            (*who == node && *f == from && *t == to).then_some(())
        }
        _ => None,
    };
    hall.hear(&format!("{from} → {to}"), turned).await;
}

async fn stop(hall: &mut Hall, node: NodeId) {
    let reason = "all is done".into();
    hall.tell(node, Command::Stop { task: TASK, reason });
}

#[tokio::test(flavor = "multi_thread")]
async fn three_miners_train_and_go_back_to_their_programs() {
    let mut hall = Hall::open();
    let guests = hall.miners(3).await;
    let members = ids(&guests);
    let mut mining = Vec::new();
    for guest in &guests {
        mining.push(guest.mines().await);
    }
    let total = 20 * EPOCH;
    let place = seated(&mut hall, &members, 20).await;
    let bytes: u64 = place.dataset_files.iter().map(|f| f.bytes).sum();
    for node in &members {
        assert_eq!(ready(&mut hall, (*node, 1)).await, bytes);
        turned(&mut hall, *node, Activity::Mining, Activity::Preparing).await;
        turned(&mut hall, *node, Activity::Preparing, Activity::Training).await;
    }
    assert!(
        !mining.iter().any(|pid| lives(pid)),
        "owner's programs run beside the task"
    );
    assert_eq!(progress(&mut hall, (members[0], 1), 0).await, 1);

    let mut checkpoints = Vec::new();
    for node in &members {
        checkpoints.push(hall.fingerprints((*node, 1), total).await);
    }
    let steps: Vec<u64> = checkpoints[0].keys().copied().collect();
    let expected: Vec<u64> = (1..=total).filter(|s| s % 20 == 0 || *s == total).collect();
    assert_eq!(steps, expected);
    for (step, (fingerprint, file)) in &checkpoints[0] {
        assert!(
            !hall
                .blob(file.as_ref().expect("rank 0 stores it"))
                .is_empty()
        );
        for other in &checkpoints[1..] {
            assert_eq!(other[step], (fingerprint.clone(), None));
        }
    }

    let Work::Train {
        model: spec, train, ..
    } = &place.spec.work
    else {
        panic!("it is training");
    };
    let root_steps = RootSteps::new(spec, train, 3, total);
    let mut said = Vec::new();
    for node in &members {
        said.push(commitments(&mut hall, *node, total).await);
    }
    for (step, first) in (1..).zip(&said[0]) {
        assert_eq!(first.roots.is_some(), root_steps.contains(step), "{step}");
        let of_step = said.iter().map(|said| said[step as usize - 1]);
        assert!(
            of_step
                .clone()
                .all(|other| (other.roots, other.loss) == (first.roots, first.loss))
        );
        let samples: u32 = of_step.map(|said| said.samples).sum();
        assert_eq!(samples, if step % EPOCH == 0 { 1437 % 64 } else { 64 });
    }

    let (files, metrics) = finished(&mut hall, (members[0], 1)).await;
    assert!(metrics.test_accuracy.unwrap() > 0.9, "{metrics:?}");
    assert_eq!(metrics.samples, 20 * 1437);
    let names: Vec<_> = files.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, [MODEL_FILE, CARD_FILE]);
    let card = String::from_utf8(hall.blob(&files[1])).unwrap();
    assert!(
        card.contains("# digits-mlp") && card.contains("3 miners"),
        "{card}"
    );
    let weights = hall.blob(&files[0]);
    cryptomind_gpu::inference::Model::load(&model(), &weights).unwrap();

    for node in &members {
        stop(&mut hall, *node).await;
    }
    for (guest, before) in guests.into_iter().zip(mining) {
        turned(&mut hall, guest.id(), Activity::Training, Activity::Mining).await;
        let pid = guest.mines().await;
        assert_ne!(pid, before);
        guest.node.shutdown().await;
        assert!(!lives(&pid), "a miner that ends leaves nothing running");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_reports_its_loss_and_the_others_go_on() {
    let mut hall = Hall::open();
    let guests = hall.miners(3).await;
    let members = ids(&guests);
    let epochs = 60;
    let total = u64::from(epochs) * EPOCH;
    let mut place = seated(&mut hall, &members, epochs).await;
    progress(&mut hall, (members[0], 1), 0).await;
    let before = guests[2].node.worker.actor().unwrap();
    before.kill();
    let (task_fault, reason) = failed(&mut hall, (members[2], 1)).await;
    assert!(!task_fault && reason.contains("restarted"), "{reason}");
    turned(&mut hall, members[2], Activity::Training, Activity::Mining).await;
    guests[2].mines().await;

    let stay = &members[..2];
    for node in stay {
        let report = hall.report("a broken ring", (*node, 1), |report| match report {
            Report::RingBroken { committed, .. } => Some(*committed),
            _ => None,
        });
        report.await;
    }
    // An attempt that comes after whatever they may form by themselves, where this coordinator is slow.
    let mut positions = Vec::new();
    for node in stay {
        hall.tell(
            *node,
            Command::Pause {
                task: TASK,
                attempt: LATER,
                at_step_end: false,
            },
        );
        let paused = |report: &Report| match report {
            Report::Paused {
                committed,
                prepared,
                ring_address,
            } => Some((*committed, *prepared, ring_address.clone())),
            _ => None,
        };
        positions.push(hall.report("paused", (*node, LATER), paused).await);
    }
    let start = positions.iter().map(|p| p.0).max().unwrap();
    assert!(start < total);
    for (committed, prepared, _) in &positions {
        assert!(
            *committed == start || (committed + 1 == start && *prepared),
            "{positions:?}"
        );
    }
    place.attempt = LATER;
    place.start_step = start;
    place.members.truncate(2);
    place.ring_addresses = positions.into_iter().map(|p| p.2).collect();
    hall.seat(&place);
    finished_together(&mut hall, (stay, LATER), total).await;
    // The one whose worker died is available again.
    let other = TaskId::new([8; 16]);
    hall.announce(other, &training(1, 1), &members[2..]).await;
}

/// Two members go on from where they are to the same end.
async fn finished_together(hall: &mut Hall, (members, attempt): (&[NodeId], u32), total: u64) {
    for node in members {
        ready(hall, (*node, attempt)).await;
    }
    let first = hall.fingerprints((members[0], attempt), total).await;
    let second = hall.fingerprints((members[1], attempt), total).await;
    let prints = |all: &std::collections::BTreeMap<u64, (String, _)>| -> Vec<String> {
        all.values().map(|(print, _)| print.clone()).collect()
    };
    assert_eq!(prints(&first), prints(&second));
    let (_, metrics) = finished(hall, (members[0], attempt)).await;
    assert!(metrics.test_accuracy.unwrap() > 0.9, "{metrics:?}");
}

/// What a member says first of an attempt after the first, which must be what its group decided.
async fn succeeded(hall: &mut Hall, node: NodeId, members: &[NodeId]) -> Proof {
    let of_next = |(who, request): &Said| match request {
        _ if *who != node => None,
        Request::Succeeded { decision, .. } => Some(Some(decision.clone())),
        Request::Report { attempt, .. } => (*attempt > 1).then_some(None),
        _ => None,
    };
    let first = hall.hear("of the next attempt", of_next).await;
    let decision = first.expect("the decision comes before other news of its attempt");
    let proof = Proof::of(&decision, &hall::NETWORK).expect("votes that are signed");
    assert!(proof.follows(TASK, members));
    proof
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_on_without_their_coordinator_and_it_hears_of_it() {
    let mut hall = Hall::open();
    let guests = hall.miners(3).await;
    let members = ids(&guests);
    let epochs = 100;
    let mut place = seated(&mut hall, &members, epochs).await;
    progress(&mut hall, (members[0], 1), 0).await;
    let place_kept = hall.go_away().await;
    for guest in &guests {
        let mut joined = guest.node.joined.clone();
        joined.wait_for(|joined| !*joined).await.unwrap();
    }
    guests[2].node.worker.actor().unwrap().kill();
    for guest in &guests[..2] {
        guest.attempt(2).await;
    }
    hall.come_back(place_kept).await;
    let stay = &members[..2];
    let first = succeeded(&mut hall, stay[0], &members).await;
    let second = succeeded(&mut hall, stay[1], &members).await;
    assert_eq!(first, second);
    let successor = first.successor();
    assert_eq!((first.attempt(), &successor.members[..]), (2, stay));
    // As a coordinator says it to those that keep their places: with fresh tickets.
    place.attempt = 2;
    place.start_step = successor.start_step;
    place.members.truncate(2);
    place.ring_addresses = successor.ring_addresses.clone();
    hall.seat(&place);
    finished_together(&mut hall, (stay, 2), u64::from(epochs) * EPOCH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_comes_back_finds_the_run_and_misses_nothing() {
    let mut hall = Hall::open();
    let guests = hall.miners(2).await;
    let members = ids(&guests);
    let total = 120 * EPOCH;
    seated(&mut hall, &members, 120).await;
    progress(&mut hall, (members[0], 1), 0).await;
    hall.restart().await;
    for node in &members {
        let joined = |(who, request): &Said| match request {
            Request::Join(join) if who == node => join.running,
            _ => None,
        };
        let Position {
            task,
            attempt,
            committed,
        } = hall.hear("a run's member joining", joined).await;
        assert!(task == TASK && attempt == 1 && committed >= 1);
    }
    let first = hall.fingerprints((members[0], 1), total).await;
    let second = hall.fingerprints((members[1], 1), total).await;
    let expected = (1..=total).filter(|s| s % 20 == 0 || *s == total).count();
    assert_eq!((first.len(), second.len()), (expected, expected));
    finished(&mut hall, (members[0], 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_goes_on_from_a_checkpoint_and_a_damaged_source_is_noticed() {
    let mut hall = Hall::open();
    let guests = hall.miners(1).await;
    let node = guests[0].id();
    let mut place = seated(&mut hall, &[node], 2).await;
    let total = 2 * EPOCH;
    let checkpoints = hall.fingerprints((node, 1), total).await;
    finished(&mut hall, (node, 1)).await;
    stop(&mut hall, node).await;
    turned(&mut hall, node, Activity::Training, Activity::Mining).await;

    let newcomer = hall.miner(7).await;
    let id = newcomer.id();
    let addresses = hall.announce(TASK, &place.spec.clone(), &[id]).await;
    let resume = checkpoints[&20].1.clone().unwrap();
    hall.damage_once(place.dataset_files[0].blob);
    hall.damage_once(resume.blob);
    place.attempt = 2;
    place.start_step = 20;
    let bytes: u64 = place.dataset_files.iter().map(|f| f.bytes).sum();
    let least = bytes + resume.bytes;
    place.resume = Some(resume);
    place.members[0].node = id;
    place.ring_addresses = addresses;
    hall.seat(&place);
    assert!(ready(&mut hall, (id, 2)).await >= least);
    let resumed = hall.fingerprints((id, 2), total).await;
    assert_eq!(resumed.keys().collect::<Vec<_>>(), [&40, &total]);
    for (step, (print, _)) in &resumed {
        assert_eq!(*print, checkpoints[step].0, "step {step}");
    }
    finished(&mut hall, (id, 2)).await;
}

/// One of two is stopped: it says so, goes on until it is let go, and is gone then.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_miner_goes_on_until_it_is_let_go() {
    let mut hall = Hall::open();
    let mut guests = hall.miners(2).await;
    let members = ids(&guests);
    seated(&mut hall, &members, 2000).await;
    for node in &members {
        ready(&mut hall, (*node, 1)).await;
    }
    let node = members[1];
    let leaver = guests.pop().unwrap();
    let going = tokio::spawn(leaver.node.shutdown());
    let reason = leaving(&mut hall, (node, 1)).await;
    assert!(reason.contains("owner"), "{reason}");
    assert!(!going.is_finished());
    let step = progress(&mut hall, (members[0], 1), 0).await;
    progress(&mut hall, (members[0], 1), step).await;
    stop(&mut hall, node).await;
    tokio::time::timeout(PATIENCE, going)
        .await
        .unwrap()
        .unwrap();
}

/// A miner that is alone stores where it stands first.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_miner_that_is_alone_stores_what_it_did() {
    let mut hall = Hall::open();
    let mut guests = hall.miners(1).await;
    let node = guests[0].id();
    let mut spec = training(1, 2000);
    if let Work::Train { train, .. } = &mut spec.work {
        train.checkpoint_steps = u32::MAX;
    }
    let digits = hall.digits();
    let addresses = hall.announce(TASK, &spec, &[node]).await;
    let place = hall.place(TASK, &spec, &digits, &[node], addresses);
    hall.seat(&place);
    ready(&mut hall, (node, 1)).await;
    let before = progress(&mut hall, (node, 1), 0).await;
    let going = tokio::spawn(guests.pop().unwrap().node.shutdown());
    let stored = |report: &Report| match report {
        Report::Checkpoint { step, stored, .. } => Some((*step, stored.is_some())),
        _ => None,
    };
    let (step, is_stored) = hall.report("a checkpoint", (node, 1), stored).await;
    assert!(is_stored && step >= before, "step {step} after {before}");
    leaving(&mut hall, (node, 1)).await;
    stop(&mut hall, node).await;
    tokio::time::timeout(PATIENCE, going)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_fetched_and_run() {
    let mut hall = Hall::open();
    let guest = hall.miner(0).await;
    let (node, digits) = (guest.id(), hall.digits());
    let Work::Train { train, .. } = training(1, 1).work else {
        unreachable!()
    };
    let session = cryptomind_gpu::session::Session::new(&model(), &train).unwrap();
    let (blob, bytes) = hall.put(&session.export(&Default::default()));
    let spec = TaskSpec {
        work: Work::Infer {
            model: ItemId::new([2; 16]),
            dataset: ItemId::new([1; 16]),
            split: Split::Test,
        },
        ..training(1, 1)
    };
    let addresses = hall.announce(TASK, &spec, &[node]).await;
    let mut place = hall.place(TASK, &spec, &digits, &[node], addresses);
    place.model = Some(ModelInfo {
        spec: model(),
        classes: digits.0.classes.clone(),
        dataset: None,
        task: None,
        metrics: Metrics::default(),
    });
    place.model_files = vec![cryptomind_protocol::item::FileEntry {
        name: MODEL_FILE.into(),
        blob,
        bytes,
    }];
    hall.seat(&place);
    ready(&mut hall, (node, 1)).await;
    let (files, metrics) = finished(&mut hall, (node, 1)).await;
    assert_eq!(files[0].name, PREDICTIONS_FILE);
    assert_eq!(metrics.samples, 360);
    let csv = String::from_utf8(hall.blob(&files[0])).unwrap();
    assert_eq!(csv.lines().count(), 361);
    turned(&mut hall, node, Activity::Preparing, Activity::Inferring).await;
    turned(&mut hall, node, Activity::Inferring, Activity::Mining).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_miner_declines_and_a_stopped_one_is_free() {
    let mut hall = Hall::open();
    let guest = hall.miner(0).await;
    let node = guest.id();
    seated(&mut hall, &[node], 10_000).await;
    progress(&mut hall, (node, 1), 0).await;
    let other = TaskId::new([8; 16]);
    let spec = Box::new(training(1, 1));
    hall.tell(node, Command::Announce { task: other, spec });
    let declined = |(_, request): &Said| match request {
        Request::Decline { task, reason } if *task == other => Some(reason.clone()),
        _ => None,
    };
    let reason = hall.hear("a decline", declined).await;
    assert!(
        reason.contains(&format!("busy with task {TASK}")),
        "{reason}"
    );
    stop(&mut hall, node).await;
    turned(&mut hall, node, Activity::Training, Activity::Mining).await;
    let status = guest
        .node
        .worker
        .call(WorkerMsg::Status, PATIENCE)
        .await
        .unwrap();
    assert_eq!((status.activity, status.position), (Activity::Mining, None));
    hall.announce(other, &training(1, 1), &[node]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_out_is_said_and_costs_the_miner_nothing() {
    let mut hall = Hall::open();
    let guest = hall.miner(0).await;
    let (node, spec, digits) = (guest.id(), training(1, 1), hall.digits());
    guest.mines().await;
    // A match without an offer, and a pause without a run.
    let place = hall.place(TASK, &spec, &digits, &[node], vec!["127.0.0.1:1".into()]);
    hall.seat(&place);
    assert!(failed(&mut hall, (node, 1)).await.1.contains("offer"));
    hall.tell(
        node,
        Command::Pause {
            task: TASK,
            attempt: 2,
            at_step_end: false,
        },
    );
    failed(&mut hall, (node, 2)).await;
    // Data that is not what the catalog says.
    let mut lie = digits.clone();
    lie.0.test_samples += 1;
    lie.0.train_samples -= 1;
    let addresses = hall.announce(TASK, &spec, &[node]).await;
    hall.seat(&hall.place(TASK, &spec, &lie, &[node], addresses));
    let (task_fault, reason) = failed(&mut hall, (node, 1)).await;
    assert!(task_fault, "{reason}");
    turned(&mut hall, node, Activity::Preparing, Activity::Mining).await;
    guest.mines().await;
    // A blob that is nowhere.
    let mut gone = digits.clone();
    gone.1[0].blob = cryptomind_protocol::BlobId::new([3; 32]);
    let addresses = hall.announce(TASK, &spec, &[node]).await;
    hall.seat(&hall.place(TASK, &spec, &gone, &[node], addresses));
    let (task_fault, reason) = failed(&mut hall, (node, 1)).await;
    assert!(
        !task_fault && reason.contains("cannot be fetched"),
        "{reason}"
    );
    guest.mines().await;
}

/// Where a miner says that it can be measured.
async fn probe_address(hall: &mut Hall, node: NodeId) -> String {
    let joined = |(who, request): &Said| match request {
        Request::Join(join) if *who == node => join.probe.clone(),
        _ => None,
    };
    hall.hear("a probe port", joined).await
}

/// An order to `caller` to measure `callee`, with a ticket for that.
fn probe(
    hall: &Hall,
    (caller, callee): (NodeId, NodeId),
    address: &str,
    nonce: u8,
    bulk_bytes: u64,
) -> Command {
    let peer = Peer {
        node: callee,
        address: address.into(),
        nonce: Nonce::new([nonce; 16]),
        ticket: hall.probe_ticket((caller, callee), bulk_bytes),
        bulk_bytes,
    };
    Command::Probe { peers: vec![peer] }
}

/// The greeting that `by` had from `from` first.
async fn greeted(hall: &mut Hall, by: NodeId, from: NodeId) -> Echo {
    let echo = |(who, request): &Said| match request {
        Request::Links { echoes, .. } if *who == by => {
            echoes.iter().find(|echo| echo.from == from).cloned()
        }
        _ => None,
    };
    hall.hear("an echo", echo).await
}

async fn measured(hall: &mut Hall, by: NodeId, to: NodeId) -> LinkReport {
    let report = |(who, request): &Said| match request {
        Request::Links { reports, .. } if *who == by => {
            reports.iter().find(|report| report.to == to).copied()
        }
        _ => None,
    };
    hall.hear("a measurement", report).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_miners_measure_each_other() {
    let mut hall = Hall::open();
    let guests = hall.miners(2).await;
    let nodes = ids(&guests);
    let mut ports = Vec::new();
    for node in &nodes {
        ports.push(probe_address(&mut hall, *node).await);
    }
    for (own, other) in [(0, 1), (1, 0)] {
        let nonce = 20 + own as u8;
        let both = (nodes[own], nodes[other]);
        let order = probe(&hall, both, &ports[other], nonce, 1 << 20);
        hall.tell(nodes[own], order);
        let report = measured(&mut hall, nodes[own], nodes[other]).await;
        assert!((1..1_000_000).contains(&report.rtt_us), "{report:?}");
        assert!(report.bytes_per_s.unwrap() > 1_000_000, "{report:?}");
        let echo = greeted(&mut hall, nodes[other], nodes[own]).await;
        assert_eq!(echo.nonce, Nonce::new([nonce; 16]));
        let from: std::net::SocketAddr = echo.address.parse().unwrap();
        assert!(from.ip().is_loopback());
    }
    // A peer that is not who it should be, an address that is none, and another's ticket are not reported, and stop nothing.
    let there = (nodes[0], nodes[1]);
    hall.tell(
        nodes[0],
        probe(&hall, (nodes[0], nodes[0]), &ports[1], 1, 0),
    );
    hall.tell(nodes[0], probe(&hall, there, "nowhere", 2, 0));
    let back = probe(&hall, (nodes[1], nodes[1]), &ports[1], 4, 0);
    hall.tell(nodes[0], back);
    hall.tell(nodes[0], probe(&hall, there, &ports[1], 3, 0));
    let report = measured(&mut hall, nodes[0], nodes[1]).await;
    assert_eq!(report.bytes_per_s, None);
    let echo = greeted(&mut hall, nodes[1], nodes[0]).await;
    assert_eq!(echo.nonce, Nonce::new([3; 16]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_with_a_task_measures_nobody() {
    let mut hall = Hall::open();
    let guests = hall.miners(2).await;
    let nodes = ids(&guests);
    let port = probe_address(&mut hall, nodes[1]).await;
    seated(&mut hall, &nodes[..1], 10_000).await;
    let step = progress(&mut hall, (nodes[0], 1), 0).await;
    let there = (nodes[0], nodes[1]);
    hall.tell(nodes[0], probe(&hall, there, &port, 1, 0));
    let step = progress(&mut hall, (nodes[0], 1), step).await;
    progress(&mut hall, (nodes[0], 1), step).await;
    stop(&mut hall, nodes[0]).await;
    turned(&mut hall, nodes[0], Activity::Training, Activity::Mining).await;
    hall.tell(nodes[0], probe(&hall, there, &port, 2, 0));
    let echo = greeted(&mut hall, nodes[1], nodes[0]).await;
    assert_eq!(
        echo.nonce,
        Nonce::new([2; 16]),
        "the first order came during a task"
    );
}

#[tokio::test]
async fn a_miner_without_an_owner_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = format!("cm://{}@127.0.0.1:9", NodeId::new([7; 32]));
    let mut settings = cryptomind_config::Miner::new(coordinator.parse().unwrap());
    settings.node.data_dir = dir.path().to_owned();
    let key = SecretKey::from_seed([1; 32]);
    let error = crate::miner::start(MinerConfig { settings, key }).await;
    let error = error.unwrap_err();
    assert_eq!(error.code, "no_owner");
    assert!(error.help.unwrap().contains("--account"));
}
