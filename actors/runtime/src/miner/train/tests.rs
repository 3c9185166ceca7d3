use std::net::Ipv4Addr;
use std::path::Path;

use cryptomind_net::ring::{RingPlan, RingSocket};
use cryptomind_protocol::model::{Layer, Loss};
use cryptomind_protocol::task::Optimizer;
use cryptomind_protocol::{GenesisHash, SecretKey, TaskId};
use tempfile::TempDir;

use super::*;

mod follow;
mod spans;
mod trail;

const PATIENCE: Duration = Duration::from_secs(60);

fn digits() -> (TempDir, DatasetInfo) {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in cryptomind_gpu::digits::files() {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let (info, _) = dataset::inspect_idx(dir.path()).unwrap();
    (dir, info)
}

fn plan(dir: &Path, info: &DatasetInfo, lr: f32) -> Plan {
    let name = |(name, _): &(&str, &[u8])| ((*name).to_owned(), dir.join(name));
    Plan {
        model: ModelSpec {
            input: vec![8, 8],
            layers: vec![Layer::linear(16), Layer::Relu {}, Layer::linear(10)],
            loss: Loss::default(),
        },
        train: TrainSpec {
            epochs: 2,
            global_batch: 64,
            optimizer: Optimizer::adamw(lr),
            seed: 42,
            checkpoint_steps: 10,
            ..TrainSpec::default()
        },
        info: info.clone(),
        files: cryptomind_gpu::digits::files().iter().map(name).collect(),
        threads: 1,
        metadata: BTreeMap::new(),
        committed: Arc::default(),
    }
}

/// Steps of the above: 1437 samples in batches of 64, twice.
const TOTAL: u64 = 46;

fn key(rank: u32) -> SecretKey {
    SecretKey::from_seed([rank as u8 + 1; 32])
}

/// One closed ring, seen from each of its members.
async fn rings(world: u32) -> Vec<Ring> {
    let local = (Ipv4Addr::LOCALHOST, 0).into();
    let bind = |rank| RingSocket::bind(local, key(rank), GenesisHash::new([1; 32])).unwrap();
    let sockets: Vec<RingSocket> = (0..world).map(bind).collect();
    let plan = RingPlan {
        task: TaskId::new([1; 16]),
        attempt: 1,
        rank: 0,
        members: (0..world)
            .map(|r| NodeId::of_key(&key(r).public()))
            .collect(),
        addresses: sockets.iter().map(|s| s.local_addr().to_string()).collect(),
        wire: Wire::Int8,
        profile: None,
        limit: PATIENCE,
    };
    let joins = sockets.into_iter().zip(0..).map(|(socket, rank)| {
        let plan = RingPlan {
            rank,
            ..plan.clone()
        };
        tokio::spawn(async move { socket.join(plan).await.unwrap() })
    });
    let mut rings = Vec::new();
    for join in joins.collect::<Vec<_>>() {
        rings.push(join.await.unwrap());
    }
    rings
}

async fn next(trainer: &mut Trainer) -> Event {
    let event = tokio::time::timeout(PATIENCE, trainer.events.recv());
    event.await.expect("in time").expect("the thread lives")
}

async fn started(plan: Plan) -> Trainer {
    let mut trainer = Trainer::start(plan).unwrap();
    assert!(matches!(next(&mut trainer).await, Event::Loaded));
    trainer
}

fn leg(ring: Ring, rank: u32, world: u32) -> (Leg, watch::Sender<bool>) {
    leg_of(ring, rank, Shares::equal(world))
}

fn leg_of(ring: Ring, rank: u32, shares: Shares) -> (Leg, watch::Sender<bool>) {
    let (sender, leave) = watch::channel(false);
    let leg = Leg {
        ring,
        rank,
        world: shares.weights().len() as u32,
        shares,
        attempt: 1,
        leave,
        calls: Default::default(),
        followers: Default::default(),
    };
    (leg, sender)
}

/// What a thread said until its leg ended.
#[derive(Default)]
struct Heard {
    checkpoints: Vec<(u64, Hash)>,
    states: Vec<Vec<u8>>,
    progress: Vec<(u64, f32)>,
    timelines: Vec<Vec<Span>>,
    words: Vec<(u64, Vec<Commitment>)>,
    done: Option<Box<Done>>,
}

async fn hear(trainer: &mut Trainer) -> Heard {
    let mut heard = Heard::default();
    loop {
        match next(trainer).await {
            Event::Checkpoint {
                step,
                fingerprint,
                state,
                ..
            } => {
                heard.checkpoints.push((step, fingerprint));
                heard.states.extend(state);
            }
            Event::Progress {
                step,
                loss,
                timeline,
                ..
            } => {
                heard.progress.push((step, loss));
                heard.timelines.push(timeline);
            }
            Event::Committed { first, steps } => {
                let last = heard.checkpoints.last().map_or(0, |c| c.0);
                assert!(first > last, "before the checkpoint of its last step");
                heard.words.push((first, steps));
            }
            Event::Done(done) => {
                heard.done = Some(done);
                return heard;
            }
            Event::Left => return heard,
            Event::Failed(fault) => panic!("{fault:?}"),
            Event::Broken { reason, .. } => panic!("{reason}"),
            Event::Loaded
            | Event::Standing
            | Event::Level { .. }
            | Event::Astray(_)
            | Event::Unfollowed(_) => {
                panic!("out of turn")
            }
        }
    }
}

/// One member alone, from a state to the end.
async fn alone(trainer: &mut Trainer) -> Heard {
    let ring = rings(1).await.remove(0);
    let (leg, _stay) = leg(ring, 0, 1);
    trainer.train(leg);
    hear(trainer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_alone_trains_to_the_end() {
    let (dir, info) = digits();
    let mut trainer = started(plan(dir.path(), &info, 2e-2)).await;
    let heard = alone(&mut trainer).await;
    let steps: Vec<u64> = heard.checkpoints.iter().map(|c| c.0).collect();
    assert_eq!(steps, [10, 20, 30, 40, TOTAL]);
    assert_eq!(heard.states.len(), 5);
    let (first, last) = (heard.progress[0], heard.progress[heard.progress.len() - 1]);
    assert_eq!((first.0, last.0), (1, TOTAL));
    assert!(last.1 < first.1 / 2.0, "{first:?} {last:?}");
    let done = heard.done.unwrap();
    assert_eq!((done.steps, done.samples), (TOTAL, 2 * 1437));
    let (weights, test) = done.result.unwrap();
    let accuracy = test.accuracy.unwrap();
    assert!(!weights.is_empty() && accuracy > 0.7, "{accuracy}");
    assert_eq!((trainer.committed(), trainer.prepared()), (TOTAL, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_is_timed_for_whoever_asks() {
    let (dir, info) = digits();
    let (times, taken) = std_mpsc::channel();
    let mut trainer = Trainer::start_timed(plan(dir.path(), &info, 2e-2), times).unwrap();
    assert!(matches!(next(&mut trainer).await, Event::Loaded));
    alone(&mut trainer).await;
    let taken: Vec<StepTime> = taken.try_iter().collect();
    assert_eq!(taken.len() as u64, TOTAL);
    for time in taken {
        assert!(time.busy > Duration::ZERO && time.busy <= time.wall);
    }
}

/// Whoever calls the network later has rows, not the means and deviations of what it was trained on.
#[tokio::test(flavor = "multi_thread")]
async fn the_weights_of_a_table_answer_rows_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("houses.csv");
    // Neither column has a mean near 0 or a deviation near 1; the first decides.
    let rows: Vec<[f32; 2]> = (0..400)
        .map(|i| [1e5 + 997.0 * (i * 31 % 400) as f32, 1e-3 * (i % 7) as f32])
        .collect();
    let dear = |row: &[f32; 2]| row[0] > 3e5;
    let line = |row: &[f32; 2]| format!("{},{},{}\n", row[0], row[1], dear(row));
    let lines: String = rows.iter().map(line).collect();
    std::fs::write(&file, format!("area,noise,dear\n{lines}")).unwrap();
    let (info, _) = dataset::inspect_csv(&file, "dear").unwrap();
    let mut plan = plan(dir.path(), &info, 5e-2);
    plan.model.input = vec![2];
    plan.model.layers = vec![Layer::linear(2)];
    plan.train.epochs = 20;
    plan.files = BTreeMap::from([("houses.csv".into(), file)]);
    let model = plan.model.clone();
    let mut trainer = started(plan).await;
    let done = alone(&mut trainer).await.done.unwrap();
    let (weights, test) = done.result.unwrap();
    let accuracy = test.accuracy.unwrap();
    assert!(accuracy > 0.9, "{accuracy}");

    let model = Model::load(&model, &weights).unwrap();
    let labels: Vec<u32> = rows.iter().map(|row| dear(row).into()).collect();
    let of = |inputs: Vec<f32>| Samples::labelled(inputs, labels.clone(), 2, 2);
    let mut inputs = rows.concat();
    let right = model.accuracy(&of(inputs.clone())).unwrap();
    assert!(right < 0.8, "scaling is needed");
    model.scale(&mut inputs);
    let right = model.accuracy(&of(inputs)).unwrap();
    assert!(right > 0.9, "{right}");
}

/// A group that trains from the beginning to the end: what each of its members said.
async fn group(world: u32, plan: impl Fn() -> Plan) -> Vec<Heard> {
    group_from(Shares::equal(world), &plan, |_| None).await
}

/// The same, of ranks that divide each batch so, each from where `footing` says.
async fn group_from(
    shares: Shares,
    plan: &impl Fn() -> Plan,
    footing: impl Fn(u32) -> Option<Footing>,
) -> Vec<Heard> {
    let world = shares.weights().len() as u32;
    let mut hearing = Vec::new();
    for (ring, rank) in rings(world).await.into_iter().zip(0..) {
        let mut trainer = started(plan()).await;
        if let Some(footing) = footing(rank) {
            trainer.stand(footing);
            assert!(matches!(next(&mut trainer).await, Event::Standing));
        }
        let (leg, stay) = leg_of(ring, rank, shares.clone());
        trainer.train(leg);
        hearing.push(tokio::spawn(async move {
            let heard = hear(&mut trainer).await;
            drop(stay);
            heard
        }));
    }
    let mut all = Vec::new();
    for heard in hearing {
        all.push(heard.await.unwrap());
    }
    all
}

fn accuracy(heard: &[Heard]) -> f64 {
    let done = heard[0].done.as_ref().unwrap();
    done.result.as_ref().unwrap().1.accuracy.unwrap()
}

impl Heard {
    /// What it said of its steps, one after the other.
    fn commitments(&self) -> Vec<Commitment> {
        let mut all = Vec::new();
        for (first, steps) in &self.words {
            assert_eq!(*first, all.len() as u64 + 1, "no gap");
            all.extend(steps);
        }
        all
    }
}

/// What members say of each step is the same in all, but for the samples, which are together the batch.
fn agree_on_each_step(heard: &[Heard]) {
    let all: Vec<_> = heard.iter().map(Heard::commitments).collect();
    for step in 0..TOTAL as usize {
        let mut samples = 0;
        for said in &all {
            assert!(said[step].roots.is_some());
            assert_eq!(said[step].roots, all[0][step].roots, "step {step}");
            assert_eq!(said[step].loss.to_bits(), all[0][step].loss.to_bits());
            samples += said[step].samples;
        }
        // 1437 samples in batches of 64.
        let last = (step + 1) % 23 == 0;
        assert_eq!(samples, if last { 1437 % 64 } else { 64 });
    }
    let mut roots = all[0].iter().map(|said| said.roots.unwrap().parameters);
    let first = roots.next();
    assert!(roots.all(|root| Some(root) != first), "each step's own");
}

/// In every wire format.
#[tokio::test(flavor = "multi_thread")]
async fn members_agree_at_every_checkpoint_and_learn_what_one_alone_learns() {
    let (dir, info) = digits();
    let plan = |wire| {
        let mut plan = plan(dir.path(), &info, 2e-2);
        (plan.train.wire, plan.train.checkpoint_steps) = (wire, 1);
        plan
    };
    let alone = accuracy(&group(1, || plan(Wire::F32)).await);
    for (world, wire) in [
        (2, Wire::F32),
        (3, Wire::F32),
        (3, Wire::Bf16),
        (3, Wire::Int8),
    ] {
        let heard = group(world, || plan(wire)).await;
        assert_eq!(heard[0].checkpoints.len() as u64, TOTAL);
        agree_on_each_step(&heard);
        for other in &heard[1..] {
            assert_eq!(heard[0].checkpoints, other.checkpoints, "{wire}");
            assert!(other.states.is_empty() && other.progress.is_empty());
            assert!(other.done.as_ref().unwrap().result.is_none());
        }
        let together = accuracy(&heard);
        assert!(
            (together - alone).abs() <= 0.02,
            "{wire}: {together}, alone {alone}"
        );
    }
}

/// However many members a group has, and however they divide the batch, it goes the same way: sums are rounded in another order,
/// and that is all.
#[tokio::test(flavor = "multi_thread")]
async fn the_loss_goes_the_same_way_whatever_the_number_of_members() {
    const STEPS: usize = 100;
    let (dir, info) = digits();
    let plan = || {
        let mut plan = plan(dir.path(), &info, 3e-3);
        (plan.train.epochs, plan.train.checkpoint_steps) = (5, 1_000);
        plan
    };
    let weighed = |weights: &[u32]| {
        let weights = weights.iter().map(|n| (*n).try_into().unwrap());
        Shares::new(weights.collect())
    };
    let unequal = [weighed(&[1000, 125]), weighed(&[300, 1000, 410])];
    let mut all = Vec::new();
    for shares in (1..=4).map(Shares::equal).chain(unequal) {
        let heard = group_from(shares.clone(), &plan, |_| None).await;
        let losses: Vec<f32> = heard[0]
            .commitments()
            .iter()
            .map(|said| said.loss)
            .collect();
        all.push((shares, losses, accuracy(&heard)));
    }
    let (_, alone, right) = &all[0];
    assert!(alone.len() > STEPS && alone[STEPS] < alone[0] / 2.0);
    for (shares, losses, reached) in &all {
        let pairs = alone.iter().zip(losses).take(STEPS);
        let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= 1e-4, "{shares:?}: {apart}");
        assert!(
            (reached - right).abs() <= 0.01,
            "{shares:?}: {reached}, {right}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leg_that_is_left_or_resumed_elsewhere_ends_in_the_same_bits() {
    let (dir, info) = digits();
    let mut whole = started(plan(dir.path(), &info, 3e-3)).await;
    let straight = alone(&mut whole).await;

    let mut trainer = started(plan(dir.path(), &info, 3e-3)).await;
    let ring = rings(1).await.remove(0);
    let (first, leave) = leg(ring, 0, 1);
    trainer.train(first);
    while !matches!(next(&mut trainer).await, Event::Checkpoint { .. }) {}
    leave.send_replace(true);
    let mut heard = hear(&mut trainer).await;
    trainer.stand(Footing::Stay);
    assert!(matches!(next(&mut trainer).await, Event::Standing));
    if heard.done.is_none() {
        heard = alone(&mut trainer).await;
    }
    assert_eq!(heard.checkpoints.last(), straight.checkpoints.last());

    let mut other = started(plan(dir.path(), &info, 3e-3)).await;
    other.stand(Footing::Restore(straight.states[1].clone()));
    assert!(matches!(next(&mut other).await, Event::Standing));
    assert_eq!(other.committed(), 20);
    let resumed = alone(&mut other).await;
    assert_eq!(resumed.checkpoints, straight.checkpoints[2..]);

    // A group that forms again after the last step stores its checkpoint once more.
    assert_eq!(
        alone(&mut other).await.checkpoints,
        straight.checkpoints[4..]
    );
    other.stand(Footing::Begin);
    assert!(matches!(next(&mut other).await, Event::Standing));
    assert_eq!(alone(&mut other).await.checkpoints, straight.checkpoints);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_goes_leaves_the_others_with_their_state() {
    let (dir, info) = digits();
    let mut members = Vec::new();
    for (ring, rank) in rings(2).await.into_iter().zip(0..) {
        let trainer = started(plan(dir.path(), &info, 3e-3)).await;
        members.push((trainer, leg(ring, rank, 2)));
    }
    let (gone, (_, _)) = members.pop().unwrap();
    let (mut stays, (leg, _stay)) = members.pop().unwrap();
    stays.train(leg);
    drop(gone);
    loop {
        match next(&mut stays).await {
            Event::Broken { .. } => break,
            Event::Progress { .. } => {}
            _ => panic!("a ring of one whose neighbour is gone"),
        }
    }
    assert_eq!(stays.committed(), 0);
}

/// Where members do not agree on who computes what, no step is committed, and nobody's thread ends: they may form again.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_divide_the_batch_differently_commit_nothing_and_stay() {
    let weights = |weights: [u32; 2]| Shares::new(weights.map(|n| n.try_into().unwrap()).to_vec());
    let (dir, info) = digits();
    for (others, why) in [([3, 1], "of 64 samples"), ([999, 1000], "divide the batch")] {
        let mut members = Vec::new();
        for (ring, shares) in rings(2).await.into_iter().zip([[1000, 999], others]) {
            let trainer = started(plan(dir.path(), &info, 3e-3)).await;
            let (leg, stay) = leg_of(ring, members.len() as u32, weights(shares));
            trainer.train(leg);
            members.push((trainer, stay));
        }
        for (mut trainer, _stay) in members {
            match next(&mut trainer).await {
                Event::Broken { suspect, reason } => {
                    assert!(suspect.is_none() && reason.contains(why), "{reason}");
                }
                _ => panic!("they went on"),
            }
            assert_eq!(trainer.committed(), 0);
            trainer.stand(Footing::Stay);
            assert!(matches!(next(&mut trainer).await, Event::Standing));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_diverging_task_is_the_tasks_own_fault() {
    let (dir, info) = digits();
    let mut trainer = started(plan(dir.path(), &info, 1e30)).await;
    let ring = rings(1).await.remove(0);
    let (leg, _stay) = leg(ring, 0, 1);
    trainer.train(leg);
    let fault = loop {
        if let Event::Failed(fault) = next(&mut trainer).await {
            break fault;
        }
    };
    assert!(fault.task_fault, "{fault:?}");
    assert!(
        fault.reason.contains("step") && fault.reason.contains("layer"),
        "{fault:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_is_not_what_the_catalog_says_is_the_tasks_fault() {
    let (dir, info) = digits();
    let mut lie = plan(dir.path(), &info, 3e-3);
    lie.info.train_samples += 1;
    let mut trainer = Trainer::start(lie).unwrap();
    match next(&mut trainer).await {
        Event::Failed(fault) => assert!(fault.task_fault, "{fault:?}"),
        _ => panic!("a lie was believed"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_without_a_run_ends() {
    let (dir, info) = digits();
    let mut long = plan(dir.path(), &info, 3e-3);
    long.train.epochs = 100_000;
    let counter = Arc::clone(&long.committed);
    let mut trainer = started(long).await;
    let ring = rings(1).await.remove(0);
    let (leg, stay) = leg(ring, 0, 1);
    trainer.train(leg);
    while !matches!(next(&mut trainer).await, Event::Progress { .. }) {}
    drop((trainer, stay));
    let begin = Instant::now();
    // The thread's plan holds the only other reference.
    while Arc::strong_count(&counter) > 1 {
        assert!(begin.elapsed() < PATIENCE, "the thread goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
