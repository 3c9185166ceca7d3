//! At least one value of every message, and of every variant of every choice in one.
//!
//! A new variant does not compile here until it has a sample: see `all_variants`.

use std::collections::BTreeSet;

use cryptomind_protocol::api;
use cryptomind_protocol::audit::{self, Commitment, Commitments, Part, Parting, Roots, TrailView};
use cryptomind_protocol::blob::{self, GetOk, HasOk, PutOk, Right, Source, Ticket};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::follow::{Follow, Piece};
use cryptomind_protocol::genesis::{
    Allocation, FeeTable, Genesis, NetworkKind, Vesting, Withholding,
};
use cryptomind_protocol::hello::{Auth, Hello, HelloOk, Welcome};
use cryptomind_protocol::item::{
    Access, DataFormat, DatasetInfo, FileEntry, ItemKind, ItemView, Manifest, ModelInfo, TextLevel,
};
use cryptomind_protocol::key::{Hash, Nonce};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::node::{
    self, Ack, Capacity, Command, Enrolment, Join, Match, Newcomer, Position, Report,
};
use cryptomind_protocol::price::{PriceClass, PricePoint, PriceRing, Utilisation};
use cryptomind_protocol::probe::{self, Echo, LinkReport, Peer};
use cryptomind_protocol::rating::{
    Bar, Evidence, EvidenceKey, EvidenceRecord, Odds, RatingParts, RatingView,
};
use cryptomind_protocol::ring::{Link, SegmentHeader, Wire};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::selftest;
use cryptomind_protocol::serve::{self, Acknowledgement, Answered};
use cryptomind_protocol::signed::Payload;
use cryptomind_protocol::speed::{Engine, RunStatistic, SpeedBasis, Step, WorkKind};
use cryptomind_protocol::succession::{Ballot, Decision, Paused, Standing, Successor, Vote, Word};
use cryptomind_protocol::task::{
    Activity, Candidate, Conditions, DecayGroup, Event, Latency, Member, Metrics, Optimizer,
    Payment, Preference, Quote, Reason, RingAdvice, Schedule, Split, TaskEvent, TaskSpec,
    TaskState, TaskView, TrainSpec, UsualWait, Work,
};
use cryptomind_protocol::timeline::{Span, Stage};
use cryptomind_protocol::transaction::{
    Accepted, Action, Outcome, StoredReceipt, Transaction, sign_rotation,
};
use cryptomind_protocol::{
    AccountId, Amount, BlobId, ErrorBody, ErrorClass, GenesisHash, ItemId, NodeAddress, NodeId,
    ReceiptId, SecretKey, Signature, Signed, TaskId, Timestamp,
};

use crate::message::{Message, message};

const AT: Timestamp = Timestamp::from_ms(1_800_000_000_000);
const TASK: TaskId = TaskId::new([3; 16]);
const ITEM: ItemId = ItemId::new([4; 16]);
const BLOB: BlobId = BlobId::new([5; 32]);
const ACCOUNT: AccountId = AccountId::new([6; 20]);
const NETWORK: GenesisHash = GenesisHash::new([7; 32]);

/// Fails to compile when a variant is missing in the list, and at run time when it has no sample.
macro_rules! all_variants {
    ($values:expr, $($pattern:pat),+ $(,)?) => {{
        let seen: BTreeSet<&str> = $values.iter().map(|value| match value {
            $($pattern => stringify!($pattern)),+
        }).collect();
        let all = BTreeSet::from([$(stringify!($pattern)),+]);
        assert_eq!(seen, all, "every variant has a sample");
    }};
}

pub mod chain;

fn ctm(n: u64) -> Amount {
    Amount::from_base_units(n * 1_000_000_000)
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn node_id() -> NodeId {
    NodeId::of_key(&key(1).public())
}

fn signed<T: Payload>(payload: &T) -> Signed {
    Signed::sign(payload, &NETWORK, &key(2))
}

fn ticket(right: Right) -> Ticket {
    Ticket {
        version: 1,
        bearer: key(1).public(),
        right,
        task: Some(TASK),
        expires: AT,
    }
}

fn get_ticket() -> Signed {
    signed(&ticket(Right::Get { blobs: vec![BLOB] }))
}

fn put_ticket() -> Signed {
    signed(&ticket(Right::Put { max_bytes: 1 << 40 }))
}

fn probe_ticket() -> probe::Ticket {
    probe::Ticket {
        version: 1,
        caller: node_id(),
        callee: NodeId::of_key(&key(3).public()),
        bulk_bytes: probe::MAX_BULK_BYTES,
        expires: AT,
    }
}

fn selftest() -> selftest::Report {
    use selftest::{Endurance, Filled, Machine, Pace, Product, Training};
    selftest::Report {
        version: selftest::VERSION,
        node: node_id(),
        made: AT,
        release: "0.1.0".into(),
        machine: Machine {
            threads: 2,
            devices: vec!["CPU".into()],
            memory_bytes: 16 << 30,
        },
        work: selftest::Work {
            challenge: 7,
            products: vec![Product {
                size: 515,
                mflops: 40_000,
                right: true,
            }],
            copy_bytes_per_s: 10 << 30,
            filled: Filled {
                wanted: 16 << 30,
                bytes: 12 << 30,
                ms: 4_000,
                right: true,
            },
            trainings: vec![Training {
                model: "relu".into(),
                loss: 0.015625,
            }],
            paces: vec![Pace {
                step: Step {
                    flops: 5_000_000,
                    parameters: 9_000,
                },
                gradients_ns: 500_000,
                update_ns: 20_000,
            }],
            endurance: Endurance {
                ms: 5_000,
                first_mflops: 26_000,
                last_mflops: 25_000,
            },
            determinism_class: None,
        },
    }
}

fn model() -> ModelSpec {
    ModelSpec {
        input: vec![8, 8],
        layers: vec![
            Layer::linear(64),
            Layer::Relu {},
            Layer::Tanh {},
            Layer::linear(10),
        ],
        loss: Loss::default(),
    }
}

/// The same with something else for its outputs.
fn model_by(loss: Loss) -> ModelSpec {
    ModelSpec { loss, ..model() }
}

/// Every layer of images, with and without its defaults.
fn image_model() -> ModelSpec {
    let layers = vec![
        Layer::Reshape {
            shape: vec![1, 8, 8],
        },
        Layer::conv2d(8, 3, 1),
        Layer::Conv2d {
            filters: 8,
            kernel: [3, 5],
            stride: [2, 1],
            padding: [0, 2],
            groups: 4,
            bias: false,
        },
        Layer::BatchNorm {},
        Layer::Silu {},
        Layer::max_pool(2),
        Layer::AvgPool {
            size: [3, 2],
            stride: [1, 2],
            padding: [1, 0],
        },
        Layer::Sigmoid {},
        Layer::GlobalAvgPool {},
        Layer::Flatten {},
        Layer::Softmax {},
        Layer::Linear {
            out: 10,
            each: false,
            bias: false,
        },
    ];
    ModelSpec::new(vec![8, 8], layers)
}

/// Every layer of sequences, with and without its defaults.
fn sequence_model() -> ModelSpec {
    let branch = vec![
        Layer::LayerNorm { bias: false },
        Layer::Attention {
            heads: 4,
            causal: false,
            bias: false,
        },
        Layer::Dropout { rate_ppm: 100_000 },
        Layer::LayerNorm { bias: true },
        Layer::Attention {
            heads: 2,
            causal: true,
            bias: true,
        },
    ];
    let layers = vec![
        Layer::Embedding {
            rows: 65,
            width: 16,
            positions: true,
        },
        Layer::Residual { layers: branch },
        Layer::RmsNorm {},
        Layer::Gelu {},
        Layer::GeluTanh {},
        Layer::linear_each(65),
    ];
    ModelSpec::new(vec![32], layers)
}

fn all_layers() {
    let mut layers: Vec<Layer> = [model(), image_model(), sequence_model()]
        .into_iter()
        .flat_map(|model| model.layers)
        .collect();
    let inner: Vec<Layer> = layers.iter().flat_map(|l| l.inner().to_vec()).collect();
    layers.extend(inner);
    all_variants!(
        layers,
        Layer::Linear { .. },
        Layer::Conv2d { .. },
        Layer::MaxPool { .. },
        Layer::AvgPool { .. },
        Layer::GlobalAvgPool {},
        Layer::BatchNorm {},
        Layer::LayerNorm { .. },
        Layer::RmsNorm {},
        Layer::Embedding { .. },
        Layer::Attention { .. },
        Layer::Residual { .. },
        Layer::Dropout { .. },
        Layer::Relu {},
        Layer::Gelu {},
        Layer::GeluTanh {},
        Layer::Silu {},
        Layer::Tanh {},
        Layer::Sigmoid {},
        Layer::Softmax {},
        Layer::Flatten {},
        Layer::Reshape { .. },
    );
}

fn train(optimizer: Optimizer) -> TrainSpec {
    TrainSpec {
        epochs: 30,
        global_batch: 32,
        optimizer,
        seed: u64::MAX,
        checkpoint_steps: 100,
        ..TrainSpec::default()
    }
}

fn training(optimizer: Optimizer, access: Access) -> TaskSpec {
    TaskSpec {
        name: "digits-mlp".into(),
        work: Work::Train {
            dataset: ITEM,
            model: model(),
            train: train(optimizer),
        },
        miners: 3,
        max_cost: ctm(2),
        access,
        conditions: Conditions::default(),
    }
}

fn inference() -> TaskSpec {
    TaskSpec {
        name: "read-digits".into(),
        work: Work::Infer {
            model: ITEM,
            dataset: ItemId::new([9; 16]),
            split: Split::Test,
        },
        miners: 1,
        max_cost: ctm(1),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

fn serving() -> TaskSpec {
    TaskSpec {
        work: Work::Serve {
            model: ITEM,
            samples_max: 1_000,
        },
        ..inference()
    }
}

const LATENCY: Latency = Latency {
    queue_us: 450_000,
    fetch_us: 3_000,
    load_us: 400,
    compute_us: 31,
    return_us: 190,
};

fn acknowledgement(last: bool) -> Acknowledgement {
    Acknowledgement {
        version: 1,
        task: TASK,
        attempt: 2,
        samples: 77,
        last,
    }
}

fn commitments() -> Commitments {
    let between = Commitment {
        loss: 0.5,
        samples: 22,
        roots: None,
    };
    let roots = Roots {
        gradients: Hash::of(b"gradients"),
        parameters: Hash::of(b"parameters"),
    };
    Commitments {
        version: audit::VERSION,
        task: TASK,
        attempt: 2,
        rank: 1,
        first: 99,
        steps: vec![
            between,
            Commitment {
                roots: Some(roots),
                ..between
            },
        ],
    }
}

fn parting(part: Part) -> Parting {
    Parting {
        attempt: 2,
        step: 100,
        node: node_id(),
        name: "rig".into(),
        part,
    }
}

fn trails() -> Vec<Message> {
    let parts = [Part::Gradients, Part::Parameters, Part::Loss, Part::Samples];
    all_variants!(
        parts,
        Part::Gradients,
        Part::Parameters,
        Part::Loss,
        Part::Samples,
    );
    let trail = TrailView {
        compared: 100,
        last: 100,
        signatures: 6,
        parted: parts.map(parting).to_vec(),
    };
    let view = TaskView {
        trail: Some(trail),
        ..task_view(TaskState::Finished)
    };
    vec![
        message("task-view", "trail", view),
        message("commitments", "", commitments()),
    ]
}

fn spec() -> TaskSpec {
    training(Optimizer::adamw(1e-3), Access::Free)
}

fn file() -> FileEntry {
    FileEntry {
        name: "model.safetensors".into(),
        blob: BLOB,
        bytes: 19_000,
    }
}

fn receipt() -> StoredReceipt {
    StoredReceipt::sign(BLOB, 19_000, AT, &key(1))
}

fn metrics() -> Metrics {
    Metrics {
        final_loss: Some(0.03),
        test_accuracy: Some(0.981),
        test_loss: None,
        samples: 43_110,
        compute_ms: 1_500,
        latency: None,
    }
}

fn dataset(format: DataFormat) -> DatasetInfo {
    DatasetInfo {
        format,
        train_samples: 1437,
        test_samples: 360,
        input: vec![8, 8],
        classes: vec!["0".into(), "1".into()],
        values: Vec::new(),
    }
}

fn idx() -> DataFormat {
    DataFormat::Idx {
        train_images: "train-images.gz".into(),
        train_labels: "train-labels.gz".into(),
        test_images: "test-images.gz".into(),
        test_labels: "test-labels.gz".into(),
        scale: 16.0,
    }
}

fn csv() -> DataFormat {
    DataFormat::Csv {
        file: "iris.csv".into(),
        label: "species".into(),
        split_seed: 7,
        targets: Vec::new(),
    }
}

fn text(level: TextLevel) -> DatasetInfo {
    let format = DataFormat::Text {
        file: "shakespeare.txt".into(),
        level,
        held_out_ppm: 100_000,
    };
    let names = match level {
        TextLevel::Character => vec!["\n".into(), "é".into()],
        TextLevel::Byte => (0..256).map(|byte| format!("0x{byte:02x}")).collect(),
    };
    DatasetInfo {
        input: vec![64],
        classes: names,
        ..dataset(format)
    }
}

fn tensors() -> DataFormat {
    DataFormat::Safetensors {
        train: "train.safetensors".into(),
        test: "test.safetensors".into(),
    }
}

/// Numbers to predict in place of classes.
fn with_values(format: DataFormat) -> DatasetInfo {
    DatasetInfo {
        classes: Vec::new(),
        values: vec!["price".into(), "area".into()],
        ..dataset(format)
    }
}

fn csv_values() -> DataFormat {
    DataFormat::Csv {
        file: "houses.csv".into(),
        label: String::new(),
        split_seed: 7,
        targets: vec!["price".into(), "area".into()],
    }
}

fn model_info() -> ModelInfo {
    ModelInfo {
        spec: model(),
        classes: vec!["0".into()],
        dataset: Some(ITEM),
        task: Some(TASK),
        metrics: metrics(),
    }
}

fn manifest(kind: ItemKind, access: Access) -> Manifest {
    Manifest {
        name: "digits".into(),
        kind,
        files: vec![file()],
        access,
        licence: "CC-BY-4.0".into(),
        source: "UCI".into(),
    }
}

fn a_manifest() -> Manifest {
    manifest(
        ItemKind::Dataset(dataset(idx())),
        Access::Paid { fee: ctm(1) },
    )
}

fn member() -> Member {
    Member {
        node: node_id(),
        name: "rig".into(),
        owner: ACCOUNT,
    }
}

fn payment(reason: Reason, node: Option<NodeId>) -> Payment {
    Payment {
        payer: ACCOUNT,
        payee: AccountId::new([8; 20]),
        amount: ctm(1),
        reason,
        node,
    }
}

fn source() -> Source {
    Source {
        node: node_id(),
        address: "127.0.0.1:7701".into(),
    }
}

fn basics() -> Vec<Message> {
    let classes = [
        ErrorClass::User,
        ErrorClass::Auth,
        ErrorClass::Funds,
        ErrorClass::Capacity,
        ErrorClass::Task,
        ErrorClass::Network,
        ErrorClass::Internal,
    ];
    all_variants!(
        classes,
        ErrorClass::User,
        ErrorClass::Auth,
        ErrorClass::Funds,
        ErrorClass::Capacity,
        ErrorClass::Task,
        ErrorClass::Network,
        ErrorClass::Internal,
    );
    let error = |class| ErrorBody::new(class, "a_code", "what happened");
    let full = error(ErrorClass::User)
        .with_help("do this")
        .with_retry_after_ms(500);
    let plain = classes.map(|class| message("error", &format!("{class:?}"), error(class)));
    let mut all = Vec::from(plain);
    all.push(message("error", "full", full.clone()));
    all.push(message("answer-ack", "ok", Answer::Ok(Ack {})));
    all.push(message("answer-ack", "error", Answer::<Ack>::Error(full)));
    all.push(message("signed-ticket", "", get_ticket()));
    all.push(message("probe-ticket", "", probe_ticket()));
    all.push(message("selftest-report", "", selftest()));
    let mut classed = selftest();
    classed.work.determinism_class = Some(Hash::new([7; 32]));
    all.push(message("selftest-report", "classed", classed));
    all
}

fn hellos() -> Vec<Message> {
    let (nonce, signature) = (Nonce::new([1; 16]), Signature::new([2; 64]));
    let hello = Hello {
        nonce,
        caller: key(1).public(),
        agent: "cryptomind/0.1.0".into(),
    };
    let ok = HelloOk {
        nonce,
        server: key(2).public(),
        network: NETWORK,
        now_ms: AT.as_ms(),
        signature,
    };
    let welcome = Welcome {
        max_frame_bytes: 1 << 20,
    };
    vec![
        message("hello", "", hello),
        message("hello-ok", "", ok),
        message("auth", "", Auth { signature }),
        message("welcome", "", welcome),
    ]
}

fn genesis(kind: NetworkKind) -> Genesis {
    Genesis {
        version: 1,
        name: "cryptomind-dev".into(),
        kind,
        created: AT,
        coordinator: key(3).public(),
        allocations: allocations(),
        fees: FeeTable {
            send: ctm(1),
            post: ctm(2),
            least: Amount::from_base_units(1000),
            network_fee_ppm: 10_000,
            reward_fund_ppm: 100_000,
        },
        withholding: Withholding {
            period_ms: 604_800_000,
            max_ppm: 200_000,
        },
        faucet: ctm(100),
    }
}

fn allocations() -> Vec<Allocation> {
    let vesting = Vesting {
        first_ms: 31_536_000_000,
        every_ms: 2_592_000_000,
        parts: 36,
    };
    let allocation = |name: &str, percent: u64, vesting| Allocation {
        name: name.into(),
        account: AccountId::of_system(name),
        amount: ctm(percent * 1_000_000),
        vesting,
    };
    vec![
        allocation("investors", 85, None),
        allocation("team", 15, Some(vesting)),
    ]
}

fn networks() -> Vec<Message> {
    let roles = [Role::Coordinator, Role::Miner, Role::Storage, Role::Client];
    all_variants!(
        roles,
        Role::Coordinator,
        Role::Miner,
        Role::Storage,
        Role::Client
    );
    let kinds = [NetworkKind::Main, NetworkKind::Development];
    all_variants!(kinds, NetworkKind::Main, NetworkKind::Development);
    let roles = roles.map(|role| message("role", &role.to_string(), role));
    let geneses = kinds.map(|kind| message("genesis", &format!("{kind:?}"), genesis(kind)));
    roles.into_iter().chain(geneses).collect()
}

fn tasks() -> Vec<Message> {
    let sgd = Optimizer::sgd(0.1, 0.9);
    all_layers();
    let losses = [
        Loss::CrossEntropy,
        Loss::MeanSquare,
        Loss::BinaryCrossEntropy,
    ];
    all_variants!(
        losses,
        Loss::CrossEntropy,
        Loss::MeanSquare,
        Loss::BinaryCrossEntropy,
    );
    all_variants!(
        [spec().work, inference().work, serving().work],
        Work::Train { .. },
        Work::Infer { .. },
        Work::Serve { .. },
    );
    let paid = Access::Paid { fee: ctm(1) };
    all_variants!(
        [Access::Free, paid, Access::Owner],
        Access::Free,
        Access::Paid { .. },
        Access::Owner,
    );
    let on_training_split = match inference().work {
        Work::Infer { model, dataset, .. } => Work::Infer {
            model,
            dataset,
            split: Split::Train,
        },
        other => other,
    };
    let on_training_split = TaskSpec {
        work: on_training_split,
        ..inference()
    };
    let asking = |preference, max_unit_price| TaskSpec {
        conditions: Conditions {
            preference,
            min_rating_milli: 3500,
            max_unit_price,
        },
        ..inference()
    };
    let mut all = vec![
        message("task-spec", "fast", asking(Preference::Fast, None)),
        message(
            "task-spec",
            "cheap",
            asking(Preference::Cheap, Some(ctm(11))),
        ),
        message("task-spec", "rated", asking(Preference::Balanced, None)),
        message("task-spec", "adamw", spec()),
        message(
            "metrics",
            "test-loss",
            Metrics {
                test_loss: Some(1.75),
                ..metrics()
            },
        ),
        message("model-spec", "", model()),
        message("model-spec", "images", image_model()),
        message("model-spec", "sequences", sequence_model()),
        message("model-spec", "log-odds", model_by(losses[2])),
        message("model-spec", "values", model_by(losses[1])),
        message("task-spec", "sgd", training(sgd, paid)),
        message("task-spec", "infer", inference()),
        message("task-spec", "infer-train", on_training_split),
        message("task-spec", "serve", serving()),
        message("quote", "", quote()),
        message("quote", "nobody", quote_of_nobody()),
    ];
    all.extend(training_rules());
    all.extend(task_views());
    all.extend(trails());
    all.extend(payments());
    all
}

/// Every optimizer, schedule and group of what decays.
fn training_rules() -> Vec<Message> {
    let nesterov = Optimizer::Sgd {
        lr: 0.1,
        momentum: 0.9,
        nesterov: true,
        weight_decay: 5e-4,
    };
    let optimizers = [
        Optimizer::adam(1e-3),
        nesterov,
        Optimizer::adamw(1e-3),
        Optimizer::adamw(6e-4),
    ];
    all_variants!(
        optimizers,
        Optimizer::Adamw { .. },
        Optimizer::Adam { .. },
        Optimizer::Sgd { .. },
    );
    let cosine = Schedule::Cosine {
        warmup_steps: 100,
        decay_steps: 5000,
        min_lr: 1e-4,
    };
    let step = Schedule::Step {
        every_steps: 30,
        factor: 0.1,
    };
    let schedules = [Schedule::Constant, step, cosine, Schedule::Constant];
    all_variants!(
        schedules,
        Schedule::Constant,
        Schedule::Cosine { .. },
        Schedule::Step { .. },
    );
    let decays = [
        DecayGroup::All,
        DecayGroup::Matrices,
        DecayGroup::Matrices,
        DecayGroup::All,
    ];
    all_variants!(decays, DecayGroup::All, DecayGroup::Matrices);
    let clips = [None, None, Some(1.0), Some(0.25)];
    let names = ["adam", "nesterov", "cosine", "clipped"];
    let rules = optimizers.into_iter().zip(schedules).zip(decays).zip(clips);
    let message_of = |(name, (((optimizer, schedule), decay), clip_norm))| {
        let train = TrainSpec {
            clip_norm,
            schedule,
            decay,
            ..train(optimizer)
        };
        message("task-spec", name, trained_by(train))
    };
    let coarse = TrainSpec {
        wire: Wire::Int8,
        ..train(Optimizer::adamw(1e-3))
    };
    let rules = names.into_iter().zip(rules).map(message_of);
    rules
        .chain([message("task-spec", "coarse", trained_by(coarse))])
        .collect()
}

fn trained_by(train: TrainSpec) -> TaskSpec {
    let work = Work::Train {
        dataset: ITEM,
        model: model(),
        train,
    };
    TaskSpec { work, ..spec() }
}

fn quote() -> Quote {
    let candidate = |basis, rank: Option<u32>| Candidate {
        node: node_id(),
        name: "rig".into(),
        owner: ACCOUNT,
        mflops: 25_000,
        basis,
        rating_milli: 5000,
        free: true,
        rank,
        reason: "chosen as rank 0".into(),
    };
    let bases = [
        SpeedBasis::Runs { count: 7 },
        SpeedBasis::OtherSize { size_class: 30 },
        SpeedBasis::StartTest {},
    ];
    Quote {
        micro_cu: 1_600,
        unit_price: ctm(10),
        work_cost: ctm(1),
        item_fees: ctm(2),
        storage_cost_max: ctm(3),
        network_fee_max: ctm(4),
        cost_low: ctm(5),
        cost_high: ctm(6),
        time_p50_ms: Some(1000),
        time_p95_ms: Some(9000),
        usual_wait: Some(usual_wait()),
        candidates: vec![
            candidate(bases[0], Some(0)),
            candidate(bases[1], Some(1)),
            candidate(bases[2], None),
        ],
        ring_share_ppm: Some(430_000),
        ring_advice: vec![RingAdvice {
            wire: Wire::Int8,
            miners: 3,
            share_ppm: 150_000,
            time_p50_ms: 700,
        }],
        notes: vec!["three miners are ready".into()],
    }
}

fn quote_of_nobody() -> Quote {
    Quote {
        time_p50_ms: None,
        time_p95_ms: None,
        usual_wait: None,
        candidates: Vec::new(),
        ring_share_ppm: None,
        ring_advice: Vec::new(),
        ..quote()
    }
}

const fn usual_wait() -> UsualWait {
    UsualWait {
        p50_ms: 800,
        p90_ms: 60_000,
        tasks: 12,
    }
}

fn task_view(state: TaskState) -> TaskView {
    TaskView {
        task: TASK,
        client: ACCOUNT,
        spec: spec(),
        state,
        reason: "all work is done".into(),
        posted: AT,
        ended: Some(AT),
        members: vec![member()],
        attempt: 2,
        step: 1350,
        total_steps: 1350,
        earned: ctm(1),
        payments: vec![payment(Reason::Refund, None)],
        files: vec![file()],
        metrics: Some(metrics()),
        item: Some(ITEM),
        events: 60,
        trail: None,
    }
}

fn task_views() -> Vec<Message> {
    let states = [
        TaskState::Waiting,
        TaskState::Matched,
        TaskState::Running,
        TaskState::Regrouping,
        TaskState::Finished,
        TaskState::Cancelled,
        TaskState::Failed,
        TaskState::Abandoned,
        TaskState::Expired,
    ];
    all_variants!(
        states,
        TaskState::Waiting,
        TaskState::Matched,
        TaskState::Running,
        TaskState::Regrouping,
        TaskState::Finished,
        TaskState::Cancelled,
        TaskState::Failed,
        TaskState::Abandoned,
        TaskState::Expired,
    );
    let new = TaskView {
        ended: None,
        metrics: None,
        item: None,
        ..task_view(TaskState::Waiting)
    };
    let mut all = vec![message("task-view", "new", new)];
    let one = |state: TaskState| message("task-view", &state.to_string(), task_view(state));
    all.extend(states.map(one));
    all
}

fn payments() -> Vec<Message> {
    let reasons = [
        Reason::Genesis,
        Reason::Faucet,
        Reason::Send,
        Reason::Work,
        Reason::ItemFee,
        Reason::Storage,
        Reason::NetworkFee,
        Reason::Refund,
        Reason::TransactionFee,
        Reason::RewardFund,
        Reason::Forfeit,
    ];
    all_variants!(
        reasons,
        Reason::Genesis,
        Reason::Faucet,
        Reason::Send,
        Reason::Work,
        Reason::ItemFee,
        Reason::Storage,
        Reason::NetworkFee,
        Reason::Refund,
        Reason::TransactionFee,
        Reason::RewardFund,
        Reason::Forfeit,
    );
    let one = |r: Reason| message("payment", &format!("{r:?}"), payment(r, Some(node_id())));
    let mut all = Vec::from(reasons.map(one));
    all.push(message("payment", "no-node", payment(Reason::Refund, None)));
    all
}

fn event_values() -> Vec<Event> {
    let (node, name) = (node_id(), "rig".to_owned());
    let activity = |from, to, reason| Event::Activity {
        node,
        name: name.clone(),
        from,
        to,
        reason,
    };
    vec![
        Event::Announced {
            miners: 4,
            needed: 3,
        },
        Event::Offered {
            node,
            name: name.clone(),
        },
        Event::Waiting {
            reason: "2 of 3 are ready".into(),
        },
        Event::Matched {
            attempt: 1,
            members: vec![member()],
            start_step: 0,
        },
        activity(Activity::Mining, Activity::Preparing, None),
        activity(
            Activity::Training,
            Activity::Inferring,
            Some("a task".into()),
        ),
        activity(Activity::Idle, Activity::Idle, None),
        Event::Fetched {
            node,
            name: name.clone(),
            bytes: 72_000,
        },
        Event::Progress {
            step: 45,
            total_steps: 1350,
            loss: 0.7,
            samples_per_s: 90_000,
            timeline: vec![],
        },
        Event::Checkpoint {
            step: 100,
            earned: ctm(1),
        },
        Event::Serving {
            node,
            name: name.clone(),
            address: NodeAddress {
                node,
                host: "127.0.0.1".into(),
                port: 40_004,
            },
            attempt: 2,
            samples: 64,
            latency: LATENCY,
        },
        Event::Acknowledged {
            samples: 77,
            earned: ctm(1),
        },
        Event::Lost {
            node,
            name: name.clone(),
            reason: "silent for 1500 ms".into(),
            unpaid: ctm(1),
            remaining: 2,
        },
        Event::Stored {
            files: vec![file()],
            metrics: metrics(),
        },
        Event::Stored {
            files: vec![],
            metrics: Metrics {
                latency: Some(LATENCY),
                ..metrics()
            },
        },
        Event::Settled {
            state: TaskState::Finished,
            reason: "all work is done".into(),
            payments: vec![payment(Reason::Work, Some(node_id()))],
        },
        Event::Left {
            node,
            name,
            reason: "its owner stops this miner".into(),
            unpaid: ctm(1),
            remaining: 2,
        },
        Event::Parted {
            node,
            name: "rig".into(),
            step: 100,
            part: Part::Parameters,
        },
        Event::Follows {
            node,
            name: "rig".into(),
            level: true,
        },
        Event::Progress {
            step: 46,
            total_steps: 1350,
            loss: 0.7,
            samples_per_s: 90_000,
            timeline: timeline(),
        },
        Event::Regroups {
            reason: "miners join the group".into(),
        },
    ]
}

/// Two bundles of buckets: the first is applied while the second is on its way.
fn timeline() -> Vec<Span> {
    let spans = [
        (Stage::Compute, 0, 4100),
        (Stage::Ring, 1900, 2600),
        (Stage::Apply, 4510, 210),
        (Stage::Ring, 4100, 900),
        (Stage::Apply, 5010, 190),
        (Stage::Confirm, 5210, 330),
    ];
    let span = |(stage, begin_us, us)| Span {
        stage,
        begin_us,
        us,
    };
    spans.map(span).to_vec()
}

fn events() -> Vec<Message> {
    let events = event_values();
    all_variants!(
        events,
        Event::Announced { .. },
        Event::Offered { .. },
        Event::Waiting { .. },
        Event::Matched { .. },
        Event::Activity { .. },
        Event::Fetched { .. },
        Event::Progress { .. },
        Event::Checkpoint { .. },
        Event::Serving { .. },
        Event::Acknowledged { .. },
        Event::Lost { .. },
        Event::Left { .. },
        Event::Stored { .. },
        Event::Settled { .. },
        Event::Parted { .. },
        Event::Follows { .. },
        Event::Regroups { .. },
    );
    let one = |(number, event): (usize, Event)| {
        let event = TaskEvent {
            number: number as u64,
            at: AT,
            event,
        };
        message("task-event", &number.to_string(), event)
    };
    events.into_iter().enumerate().map(one).collect()
}

fn items() -> Vec<Message> {
    let csv_manifest = manifest(ItemKind::Dataset(dataset(csv())), Access::Owner);
    let bare_model = ModelInfo {
        dataset: None,
        task: None,
        metrics: Metrics::default(),
        ..model_info()
    };
    let model_manifest = manifest(ItemKind::Model(model_info()), Access::Free);
    all_variants!(
        [a_manifest().kind, model_manifest.kind.clone()],
        ItemKind::Dataset(_),
        ItemKind::Model(_),
    );
    all_variants!(
        [idx(), csv(), text(TextLevel::Byte).format, tensors()],
        DataFormat::Idx { .. },
        DataFormat::Csv { .. },
        DataFormat::Text { .. },
        DataFormat::Safetensors { .. }
    );
    all_variants!(
        [TextLevel::Character, TextLevel::Byte],
        TextLevel::Character,
        TextLevel::Byte
    );
    let of_data = |info| manifest(ItemKind::Dataset(info), Access::Free);
    let view = |note, manifest| {
        let view = ItemView {
            item: ITEM,
            owner: ACCOUNT,
            nickname: "ada".into(),
            manifest,
            published: AT,
            uses: 1,
        };
        message("item-view", note, view)
    };
    vec![
        view("idx", a_manifest()),
        view("csv", csv_manifest),
        view("csv-values", of_data(with_values(csv_values()))),
        view("text-characters", of_data(text(TextLevel::Character))),
        view("text-bytes", of_data(text(TextLevel::Byte))),
        view("safetensors", of_data(dataset(tensors()))),
        view("safetensors-values", of_data(with_values(tensors()))),
        view("model", model_manifest),
        view(
            "model-bare",
            manifest(ItemKind::Model(bare_model), Access::Free),
        ),
    ]
}

fn transaction(action: Action) -> Transaction {
    Transaction {
        version: 1,
        id: Nonce::new([1; 16]),
        account: ACCOUNT,
        valid_until: AT,
        max_fee: Amount::ZERO,
        action,
    }
}

fn transactions() -> Vec<Message> {
    let actions = [
        Action::Register {
            nickname: "ada".into(),
        },
        Action::Faucet {},
        Action::Send {
            to: ACCOUNT,
            amount: ctm(1),
        },
        Action::Publish {
            manifest: a_manifest(),
            receipts: vec![receipt()],
        },
        Action::Post { spec: spec() },
        Action::Cancel { task: TASK },
        Action::Rate {
            task: TASK,
            stars: 5,
        },
        Action::RotateKey {
            key: key(4).public(),
            proof: sign_rotation(&NETWORK, &ACCOUNT, &key(4)),
        },
        Action::Delegate {
            node: node_id(),
            role: Role::Miner,
            expires: AT,
        },
        Action::Revoke { node: node_id() },
    ];
    all_variants!(
        actions,
        Action::Register { .. },
        Action::Faucet {},
        Action::Send { .. },
        Action::Publish { .. },
        Action::Post { .. },
        Action::Cancel { .. },
        Action::Rate { .. },
        Action::RotateKey { .. },
        Action::Delegate { .. },
        Action::Revoke { .. },
    );
    let number = |(n, action)| message("transaction", &format!("{n}"), transaction(action));
    let mut all: Vec<_> = actions.into_iter().enumerate().map(number).collect();
    let paid = Transaction {
        max_fee: ctm(1),
        ..transaction(Action::Faucet {})
    };
    all.push(message("transaction", "max-fee", paid));
    all
}

fn outcomes() -> Vec<Message> {
    let outcomes = [
        Outcome::Registered {
            nickname: "ada".into(),
        },
        Outcome::Moved { amount: ctm(1) },
        Outcome::Published { item: ITEM },
        Outcome::Posted {
            task: TASK,
            held: ctm(2),
        },
        Outcome::Cancelling { task: TASK },
        Outcome::Rated { task: TASK },
        Outcome::Rotated {
            key: key(4).public(),
        },
        Outcome::Delegated {
            node: node_id(),
            role: Role::Storage,
            expires: AT,
        },
        Outcome::Revoked { node: node_id() },
    ];
    all_variants!(
        outcomes,
        Outcome::Registered { .. },
        Outcome::Moved { .. },
        Outcome::Published { .. },
        Outcome::Posted { .. },
        Outcome::Cancelling { .. },
        Outcome::Rated { .. },
        Outcome::Rotated { .. },
        Outcome::Delegated { .. },
        Outcome::Revoked { .. },
    );
    let number = |(n, outcome)| {
        let receipt = chain::RECEIPT;
        message("accepted", &format!("{n}"), Accepted { receipt, outcome })
    };
    outcomes.into_iter().enumerate().map(number).collect()
}

/// Every request of the clients' API.
pub fn api_requests() -> Vec<api::Request> {
    use api::Request;
    let transaction = transaction(Action::Faucet {});
    vec![
        Request::Status {},
        Request::Submit {
            transaction: signed(&transaction),
        },
        Request::Account {
            account: Some(ACCOUNT),
            nickname: None,
        },
        Request::Account {
            account: None,
            nickname: Some("ada".into()),
        },
        Request::History {
            before: None,
            limit: 1000,
        },
        Request::Items {
            kind: None,
            limit: 100,
        },
        Request::Items {
            kind: Some("model".into()),
            limit: 100,
        },
        Request::Item {
            item: Some(ITEM),
            path: None,
        },
        Request::Item {
            item: None,
            path: Some("ada/digits".into()),
        },
        Request::Place { bytes: 1 << 30 },
        Request::Locate {
            item: Some(ITEM),
            task: None,
        },
        Request::Locate {
            item: None,
            task: Some(TASK),
        },
        Request::Quote {
            spec: Box::new(spec()),
        },
        Request::Task { task: TASK },
        Request::Tasks {
            state: None,
            limit: 20,
        },
        Request::Tasks {
            state: Some(TaskState::Running),
            limit: 20,
        },
        Request::Watch {
            task: TASK,
            from: 0,
        },
        Request::Miners {},
        Request::Links { node: None },
        Request::Links {
            node: Some(node_id()),
        },
        Request::ReportLinks {
            reports: vec![link_report(Some(125_000_000))],
        },
        Request::Knock {
            node: node_id(),
            port: 7720,
        },
        Request::EnrolmentRequests {},
        Request::Delegations {},
        Request::Explain { task: TASK },
        Request::WhyNoWork {},
        Request::History {
            before: Some(chain::RECEIPT),
            limit: 1000,
        },
        Request::Ledger {},
        Request::Block { height: 1 << 33 },
        Request::Follow { from: 0 },
        Request::Receipt {
            receipt: chain::RECEIPT,
        },
        Request::Prices {},
        Request::PriceHistory {
            class: PriceClass::ALL[1],
            every: PriceRing::Minutes,
            from: AT,
            limit: 1000,
        },
        Request::PriceHistory {
            class: PriceClass::ALL[6],
            every: PriceRing::Hours,
            from: AT,
            limit: 1000,
        },
        Request::Runs {
            node: None,
            before: None,
            limit: 1000,
        },
        Request::Runs {
            node: Some(node_id()),
            before: Some(api::RunKey {
                at: AT,
                task: TASK,
                node: node_id(),
            }),
            limit: 1000,
        },
        Request::Evidence {
            owner: ACCOUNT,
            after: None,
            limit: 1000,
        },
        Request::Evidence {
            owner: ACCOUNT,
            after: Some(EvidenceKey {
                at: AT,
                task: TASK,
                number: 7,
            }),
            limit: 1000,
        },
    ]
}

fn rating_view(bar: Option<Bar>) -> RatingView {
    let odds = |mean_ppm| Odds {
        mean_ppm,
        low_ppm: 472_871,
    };
    RatingView {
        rating_milli: 3500,
        low_milli: 900,
        parts: RatingParts {
            correctness: odds(1_000_000),
            delivery: odds(800_000),
            speed_ppm: 1_100_000,
            stars_milli: 3500,
        },
        done: 3,
        failed: 1,
        left: 1,
        wrong: 0,
        streak: 12,
        votes: 2,
        bar,
        at: AT,
        last_change: "lost during a run".into(),
    }
}

fn ratings() -> Vec<Message> {
    let bars = [
        Bar::Rests {
            failed: 2,
            of: 5,
            until: AT,
        },
        Bar::Excluded {
            wrong: 3,
            until: AT,
        },
        Bar::Doubted {},
    ];
    all_variants!(
        bars,
        Bar::Rests { .. },
        Bar::Excluded { .. },
        Bar::Doubted {}
    );
    let evidence = [
        Evidence::Done { agreed: true },
        Evidence::Left {},
        Evidence::Failed {
            reason: "silent for 1.5 s".into(),
        },
        Evidence::Right {},
        Evidence::Wrong {
            reason: "another loss".into(),
        },
        Evidence::Speed {
            achieved_mflops: 900,
            promised_mflops: 1000,
        },
        Evidence::Stars {
            stars: 5,
            paid: ctm(3),
            rater: ACCOUNT,
            credibility_ppm: 1_000_000,
        },
    ];
    all_variants!(
        evidence,
        Evidence::Done { .. },
        Evidence::Left {},
        Evidence::Failed { .. },
        Evidence::Right {},
        Evidence::Wrong { .. },
        Evidence::Speed { .. },
        Evidence::Stars { .. }
    );
    let record = |(n, evidence)| {
        let record = EvidenceRecord {
            task: TASK,
            number: 256,
            node: node_id(),
            owner: ACCOUNT,
            at: AT,
            evidence,
        };
        message("evidence-record", &format!("{n}"), record)
    };
    let bars = bars.map(Some).into_iter().chain([None]).enumerate();
    let views = bars.map(|(n, bar)| message("rating-view", &format!("{n}"), rating_view(bar)));
    views
        .chain(evidence.into_iter().enumerate().map(record))
        .collect()
}

fn api_answers() -> Vec<Message> {
    let rating = rating_view(None);
    let miner = api::MinerView {
        node: node_id(),
        name: "rig".into(),
        owner: ACCOUNT,
        owner_name: "carol".into(),
        online: true,
        activity: Activity::Mining,
        task: None,
        mflops: 25_000,
        memory_bytes: None,
        reserve: Amount::ZERO,
        devices: vec!["CPU, 2 threads".into()],
        rating,
    };
    let request = api::EnrolmentRequest {
        node: node_id(),
        name: "rig".into(),
        role: Role::Miner,
        address: "203.0.113.7:40000".into(),
    };
    let fates = [
        api::Fate::Chosen,
        api::Fate::Ready,
        api::Fate::PassedOver,
        api::Fate::Barred,
    ];
    all_variants!(
        fates,
        api::Fate::Chosen,
        api::Fate::Ready,
        api::Fate::PassedOver,
        api::Fate::Barred
    );
    let verdict = |fate| api::MinerVerdict {
        node: node_id(),
        name: "rig".into(),
        fate,
        reason: "it is not connected".into(),
    };
    let explanation = |advice: Option<&str>| api::Explanation {
        task: TASK,
        state: TaskState::Waiting,
        reason: "2 miners were asked".into(),
        needed: 3,
        able: 2,
        advice: advice.map(Into::into),
        usual_wait: advice.map(|_| usual_wait()),
        verdicts: fates.map(verdict).into(),
    };
    let work = |task| api::WorkVerdict {
        node: node_id(),
        name: "rig".into(),
        task,
        reason: "no task waits for miners".into(),
    };
    let delegation = |name: Option<&str>| api::DelegationView {
        node: node_id(),
        name: name.map(Into::into),
        role: Role::Storage,
        expires: AT,
    };
    let placement = api::Placement {
        sources: vec![source()],
        ticket: put_ticket(),
    };
    let busy = api::MinerView {
        task: Some(TASK),
        memory_bytes: Some(16 << 30),
        reserve: ctm(9),
        ..miner.clone()
    };
    vec![
        message("miner-view", "", miner),
        message("miner-view", "busy", busy),
        message("enrolment-request", "", request),
        message("explanation", "", explanation(Some("wait"))),
        message("explanation", "ended", explanation(None)),
        message("work-verdict", "", work(Some(TASK))),
        message("work-verdict", "idle", work(None)),
        message("delegation-view", "", delegation(Some("rig"))),
        message("delegation-view", "unseen", delegation(None)),
        message("placement", "", placement),
        message("network-status", "", network_status()),
    ]
}

/// A price of every class.
fn prices() -> Vec<Message> {
    let point = |class| PricePoint {
        at: AT,
        class,
        unit_price: ctm(10),
        demand_mflops: 12_000,
        supply_mflops: 25_000,
        utilisation: Utilisation {
            at_least_ppm: 450_000,
            at_most_ppm: 500_000,
        },
    };
    let message = |class: PriceClass| message("price-point", class.as_str(), point(class));
    PriceClass::ALL.map(message).into()
}

fn link_views() -> Vec<Message> {
    use api::LinkBasis;
    let bases = [LinkBasis::BothEnds, LinkBasis::OneEnd, LinkBasis::Estimated];
    all_variants!(
        bases,
        LinkBasis::BothEnds,
        LinkBasis::OneEnd,
        LinkBasis::Estimated
    );
    let view = |known| api::LinkView {
        from: node_id(),
        from_name: "rig".into(),
        to: NodeId::of_key(&key(2).public()),
        to_name: "other".into(),
        rtt_us: Some(310),
        bytes_per_s: Some(125_000_000),
        known,
        age_ms: Some(4_000),
        lan: true,
    };
    let unknown = api::LinkView {
        rtt_us: None,
        bytes_per_s: None,
        age_ms: None,
        ..view(LinkBasis::Estimated)
    };
    let number = |(n, basis)| message("link-view", &format!("{n}"), view(basis));
    let mut all: Vec<_> = bases.into_iter().enumerate().map(number).collect();
    all.push(message("link-view", "unknown", unknown));
    all
}

fn run_statistics() -> Vec<Message> {
    let statistic = |(kind, engine)| RunStatistic {
        task: TASK,
        node: node_id(),
        kind,
        engine,
        step: Step {
            flops: 1 << 30,
            parameters: 50_000,
        },
        flops: 123_456_789_012,
        ms: 4_000,
        present_ms: 5_000,
        at: AT,
    };
    let sorts = [
        (WorkKind::Train, Engine::Cpu),
        (WorkKind::Infer, Engine::Cuda),
        (WorkKind::Infer, Engine::OpenCl),
    ];
    let number = |(n, sort)| message("run-statistic", &format!("{n}"), statistic(sort));
    sorts.into_iter().enumerate().map(number).collect()
}

fn network_status() -> api::NetworkStatus {
    api::NetworkStatus {
        account: ACCOUNT,
        genesis: genesis(NetworkKind::Development),
        network: NETWORK,
        now: AT,
        miners: 3,
        miners_free: 2,
        storage_nodes: 1,
        supply: cryptomind_protocol::money::SUPPLY,
        held: ctm(2),
        open_tasks: 1,
        unit_price: ctm(10),
    }
}

fn accounts() -> Vec<Message> {
    let account = api::AccountView {
        account: ACCOUNT,
        nickname: Some("ada".into()),
        available: ctm(100),
        held: ctm(2),
        earning: Amount::ZERO,
        locked: ctm(3),
        unlocks: Some(AT),
    };
    let unnamed = api::AccountView {
        nickname: None,
        locked: Amount::ZERO,
        unlocks: None,
        ..account.clone()
    };
    let transfer = api::TransferView {
        receipt: chain::RECEIPT,
        number: 1,
        at: AT,
        payer: ACCOUNT,
        payer_name: "ada".into(),
        payee: AccountId::of_system("fees"),
        payee_name: "fees".into(),
        amount: Amount::from_base_units(1),
        reason: Reason::NetworkFee,
        task: Some(TASK),
    };
    let no_task = api::TransferView {
        task: None,
        ..transfer.clone()
    };
    let knocked = |bytes_per_s| api::Knocked {
        address: "192.168.1.7:7720".into(),
        rtt_us: 310,
        bytes_per_s,
    };
    vec![
        message("knocked", "", knocked(Some(125_000_000))),
        message("knocked", "unmeasured", knocked(None)),
        message("account-view", "", account),
        message("account-view", "unnamed", unnamed),
        message("transfer-view", "", transfer),
        message("transfer-view", "no-task", no_task),
    ]
}

/// Every request between nodes, with every report.
pub fn node_requests() -> Vec<node::Request> {
    use node::Request;
    let join = Join {
        owner: ACCOUNT,
        name: "rig".into(),
        listen: None,
        probe: Some("192.168.1.7:40003".into()),
        capacity: Capacity {
            threads: 2,
            devices: vec!["CPU".into()],
            engine: Engine::Cpu,
            mflops: 25_000,
            memory_bytes: Some(16 << 30),
            free_bytes: 1 << 34,
        },
        reserve: ctm(9),
        activity: Activity::Training,
        running: Some(Position {
            task: TASK,
            attempt: 1,
            committed: 99,
        }),
        selftest: Some(signed(&selftest())),
    };
    let storage = Join {
        selftest: None,
        listen: Some("0.0.0.0:7701".into()),
        probe: None,
        capacity: Capacity {
            engine: Engine::OpenCl,
            memory_bytes: None,
            ..join.capacity.clone()
        },
        reserve: Amount::ZERO,
        running: None,
        ..join.clone()
    };
    let mut all = vec![
        Request::Enrol {
            owner: ACCOUNT,
            role: Role::Miner,
            name: "rig".into(),
        },
        Request::Join(Box::new(join)),
        Request::Join(Box::new(storage)),
        Request::Offer {
            task: TASK,
            ring_address: "127.0.0.1:40001".into(),
        },
        Request::Decline {
            task: TASK,
            reason: "the owner pauses".into(),
        },
        Request::Succeeded {
            task: TASK,
            decision: decision(),
        },
        Request::Activity {
            from: Activity::Mining,
            to: Activity::Preparing,
            task: Some(TASK),
        },
        Request::Activity {
            from: Activity::Idle,
            to: Activity::Mining,
            task: None,
        },
        Request::Links {
            reports: vec![link_report(None), link_report(Some(125_000_000))],
            echoes: vec![Echo {
                from: node_id(),
                nonce: Nonce::new([8; 16]),
                address: "192.168.1.7:50123".into(),
            }],
        },
    ];
    all.extend(reports().into_iter().map(|report| Request::Report {
        task: TASK,
        attempt: 1,
        report,
    }));
    all
}

fn link_report(bytes_per_s: Option<u64>) -> LinkReport {
    LinkReport {
        to: node_id(),
        rtt_us: 310,
        bytes_per_s,
    }
}

fn reports() -> Vec<Report> {
    let checkpoint = |stored| Report::Checkpoint {
        step: 100,
        fingerprint: Hash::of(b"state"),
        computed_ms: 4_000,
        stored,
    };
    let broken = |suspect| Report::RingBroken {
        committed: 99,
        suspect,
        reason: "silent".into(),
    };
    let reports = vec![
        Report::Ready { fetched_bytes: 0 },
        Report::Progress {
            step: 45,
            loss: 0.5,
            samples_per_s: 90_000,
            timeline: vec![],
        },
        checkpoint(None),
        checkpoint(Some((file(), receipt()))),
        broken(None),
        broken(Some(node_id())),
        Report::Paused {
            committed: 99,
            prepared: true,
            ring_address: "127.0.0.1:40002".into(),
        },
        Report::Finished {
            files: vec![file()],
            receipts: vec![receipt()],
            metrics: metrics(),
        },
        Report::Serving {
            address: "127.0.0.1:40004".into(),
            fetched_bytes: 19_000,
            latency: LATENCY,
        },
        Report::Served {
            acknowledgement: Some(signed(&acknowledgement(false))),
            left: false,
        },
        Report::Served {
            acknowledgement: None,
            left: true,
        },
        Report::Failed {
            task_fault: false,
            reason: "the disk is full".into(),
        },
        Report::Leaving {
            reason: "its owner stops this miner".into(),
        },
        Report::Committed {
            commitments: signed(&commitments()),
        },
        Report::Coming {},
        Report::Level { step: 1_234 },
        Report::Progress {
            step: 46,
            loss: 0.5,
            samples_per_s: 90_000,
            timeline: timeline(),
        },
    ];
    all_variants!(
        reports,
        Report::Ready { .. },
        Report::Progress { .. },
        Report::Checkpoint { .. },
        Report::RingBroken { .. },
        Report::Coming {},
        Report::Paused { .. },
        Report::Finished { .. },
        Report::Serving { .. },
        Report::Served { .. },
        Report::Failed { .. },
        Report::Leaving { .. },
        Report::Committed { .. },
        Report::Level { .. },
    );
    reports
}

fn training_match() -> Match {
    Match {
        task: TASK,
        attempt: 1,
        spec: spec(),
        dataset: Some(dataset(idx())),
        dataset_files: vec![file()],
        model: None,
        model_files: vec![],
        caller: None,
        members: vec![member()],
        ring_addresses: vec!["127.0.0.1:40001".into()],
        newcomers: vec![],
        weights: vec![],
        rank: 0,
        start_step: 0,
        resume: None,
        sources: vec![source()],
        get_ticket: get_ticket(),
        put_ticket: put_ticket(),
    }
}

fn commands() -> Vec<Message> {
    let resumed = Match {
        spec: inference(),
        model: Some(model_info()),
        model_files: vec![file()],
        start_step: 100,
        resume: Some(file()),
        ..training_match()
    };
    let unequal = Match {
        members: vec![member(), member()],
        ring_addresses: vec!["127.0.0.1:40001".into(), "127.0.0.1:40002".into()],
        weights: [1000, 125].map(|n| n.try_into().unwrap()).to_vec(),
        ..training_match()
    };
    let session = Match {
        spec: serving(),
        dataset: None,
        dataset_files: vec![],
        model: Some(model_info()),
        model_files: vec![file()],
        caller: Some(key(2).public()),
        ..training_match()
    };
    let newcomer = Match {
        newcomers: vec![Newcomer {
            node: node_id(),
            ring_address: "127.0.0.1:40005".into(),
        }],
        rank: 1,
        ..training_match()
    };
    let commands = [
        Command::Joined { now: AT },
        Command::Announce {
            task: TASK,
            spec: Box::new(spec()),
        },
        Command::Withdraw {
            task: TASK,
            reason: "others were chosen".into(),
        },
        Command::Match(Box::new(training_match())),
        Command::Match(Box::new(resumed)),
        Command::Match(Box::new(session)),
        Command::Pause {
            task: TASK,
            attempt: 2,
            at_step_end: false,
        },
        Command::Stop {
            task: TASK,
            reason: "cancelled".into(),
        },
        Command::Probe {
            peers: vec![Peer {
                node: node_id(),
                address: "192.168.1.7:40003".into(),
                nonce: Nonce::new([8; 16]),
                ticket: signed(&probe_ticket()),
                bulk_bytes: probe::MAX_BULK_BYTES,
            }],
        },
        Command::Pause {
            task: TASK,
            attempt: 2,
            at_step_end: true,
        },
        Command::Match(Box::new(newcomer)),
        Command::Match(Box::new(unequal)),
    ];
    all_variants!(
        commands,
        Command::Joined { .. },
        Command::Announce { .. },
        Command::Withdraw { .. },
        Command::Match(_),
        Command::Pause { .. },
        Command::Stop { .. },
        Command::Probe { .. },
    );
    let number = |(n, command)| message("command", &format!("{n}"), command);
    commands.into_iter().enumerate().map(number).collect()
}

fn enrolments() -> Vec<Message> {
    let granted = Enrolment::Granted { expires: AT };
    let both = [Enrolment::Pending {}, granted];
    all_variants!(both, Enrolment::Pending {}, Enrolment::Granted { .. });
    let number = |(n, enrolment)| message("enrolment", &format!("{n}"), enrolment);
    both.into_iter().enumerate().map(number).collect()
}

/// Every request on a blob stream.
pub fn blob_requests() -> Vec<blob::Request> {
    use blob::Request;
    vec![
        Request::Has {
            blob: BLOB,
            ticket: get_ticket(),
        },
        Request::Get {
            blob: BLOB,
            first_chunk: 3,
            ticket: get_ticket(),
        },
        Request::Put {
            blob: BLOB,
            bytes: 65_537,
            ticket: put_ticket(),
        },
    ]
}

/// Every request on a probe stream.
pub fn probe_requests() -> Vec<probe::Request> {
    use probe::Request;
    let nonce = Nonce::new([8; 16]);
    vec![
        Request::Greet {
            nonce,
            ticket: signed(&probe_ticket()),
        },
        Request::Ping {},
        Request::Bulk { bytes: 1 << 20 },
    ]
}

fn blobs() -> Vec<Message> {
    let has = HasOk {
        present: true,
        bytes: 65_537,
    };
    let rights = [
        Right::Get { blobs: vec![BLOB] },
        Right::Put {
            max_bytes: u64::MAX,
        },
    ];
    all_variants!(rights, Right::Get { .. }, Right::Put { .. });
    let number = |(n, right)| message("ticket", &format!("{n}"), ticket(right));
    let mut all: Vec<_> = rights.into_iter().enumerate().map(number).collect();
    let without_task = Ticket {
        task: None,
        ..ticket(Right::Get { blobs: vec![] })
    };
    all.extend([
        message("ticket", "no-task", without_task),
        message("has-ok", "", has),
        message("get-ok", "", GetOk { bytes: 65_537 }),
        message("put-ok", "", PutOk { first_chunk: 1 }),
        message("stored-receipt", "", receipt()),
    ]);
    all
}

/// Every request to a session's door.
pub fn serve_requests() -> Vec<serve::Request> {
    use serve::Request;
    let signed = |last| signed(&acknowledgement(last));
    vec![
        Request::Call {
            samples: 3,
            acknowledgement: signed(false),
        },
        Request::Acknowledge {
            acknowledgement: signed(true),
        },
    ]
}

fn sessions() -> Vec<Message> {
    let answered = Answered {
        classes: 10,
        labels: vec![7, 2, 1],
        queue_us: 0,
        compute_us: 31,
    };
    let number = |(n, request)| message("serve-request", &format!("{n}"), request);
    let mut all: Vec<_> = serve_requests()
        .into_iter()
        .enumerate()
        .map(number)
        .collect();
    all.extend([
        message("acknowledgement", "", acknowledgement(false)),
        message("acknowledgement", "last", acknowledgement(true)),
        message("answered", "", answered),
    ]);
    all
}

fn rings() -> Vec<Message> {
    let link = Link {
        task: TASK,
        attempt: 1,
        rank: 2,
    };
    let segment = |wire| SegmentHeader {
        attempt: 7,
        sequence: 1 << 40,
        hop: 3,
        segment: 2,
        values: 1603,
        wire,
    };
    let segments = Wire::ALL.map(|wire| message("ring-segment", &wire.to_string(), segment(wire)));
    let link = [message("ring-link", "", link)];
    link.into_iter().chain(segments).collect()
}

/// What a newcomer asks of a member, and what it gets.
fn follows() -> Vec<Message> {
    let pieces = [
        Piece::State {
            step: 99,
            bytes: 1 << 20,
        },
        Piece::Sums {
            step: 100,
            samples: 512,
            values: 12_345,
        },
        Piece::Committed {
            step: 100,
            newest: 101,
        },
        Piece::End {},
    ];
    all_variants!(
        pieces,
        Piece::State { .. },
        Piece::Sums { .. },
        Piece::Committed { .. },
        Piece::End {},
    );
    let number = |(n, piece)| message("follow-piece", &format!("{n}"), piece);
    let (task, attempt) = (TASK, 2);
    let follow = [message("follow", "", Follow { task, attempt })];
    let pieces = pieces.into_iter().enumerate().map(number);
    follow.into_iter().chain(pieces).collect()
}

fn successor() -> Successor {
    Successor {
        members: vec![node_id(), NodeId::new([9; 32])],
        ring_addresses: vec!["127.0.0.1:40001".into(), "[2001:db8::1]:40002".into()],
        start_step: 1_234,
    }
}

fn vote() -> Vote {
    Vote {
        version: 1,
        task: TASK,
        attempt: 1,
        ballot: BALLOT,
        successor: successor().digest(),
    }
}

fn decision() -> Decision {
    Decision {
        attempt: 2,
        successor: successor(),
        votes: vec![signed(&vote())],
    }
}

const BALLOT: Ballot = Ballot { round: 3, rank: 1 };

/// What members tell each other.
fn member_messages() -> Vec<Message> {
    use cryptomind_protocol::succession::Message as Said;
    let standing = |suspect| Standing {
        at: Paused {
            committed: 1_233,
            prepared: true,
        },
        ring_address: "127.0.0.1:40001".into(),
        suspect,
    };
    let promise = |suspect, accepted| Said::Promise {
        ballot: BALLOT,
        standing: standing(suspect),
        accepted,
    };
    let all = [
        ("prepare", Said::Prepare { ballot: BALLOT }),
        ("coming", Said::Coming { ballot: BALLOT }),
        ("promise", promise(None, None)),
        (
            "promise-accepted",
            promise(Some(node_id()), Some((BALLOT, successor()))),
        ),
        (
            "propose",
            Said::Propose {
                ballot: BALLOT,
                successor: successor(),
            },
        ),
        ("accepted", Said::Accepted(signed(&vote()))),
        (
            "refused",
            Said::Refused {
                ballot: Ballot::default(),
                promised: BALLOT,
            },
        ),
        ("deferred", Said::Deferred { ballot: BALLOT }),
        ("decided", Said::Decided(decision())),
    ];
    let said: Vec<_> = all.iter().map(|(_, said)| said).collect();
    all_variants!(
        said,
        Said::Prepare { .. },
        Said::Coming { .. },
        Said::Promise { .. },
        Said::Propose { .. },
        Said::Accepted(_),
        Said::Refused { .. },
        Said::Deferred { .. },
        Said::Decided(_),
    );
    let word = |said| Word {
        task: TASK,
        attempt: 1,
        message: said,
    };
    let words = all.map(|(name, said)| message("member-word", name, word(said)));
    let vote = [message("vote", "", vote())];
    vote.into_iter().chain(words).collect()
}

fn requests() -> Vec<Message> {
    let api = api_requests().into_iter().enumerate();
    let node = node_requests().into_iter().enumerate();
    let blob = blob_requests().into_iter().enumerate();
    let probe = probe_requests().into_iter().enumerate();
    let mut all = Vec::new();
    all.extend(api.map(|(n, r)| message("api-request", &n.to_string(), r)));
    all.extend(node.map(|(n, r)| message("node-request", &n.to_string(), r)));
    all.extend(blob.map(|(n, r)| message("blob-request", &n.to_string(), r)));
    all.extend(probe.map(|(n, r)| message("probe-request", &n.to_string(), r)));
    all
}

/// All samples, in the order of the golden vectors.
pub fn all() -> Vec<Message> {
    let groups: [fn() -> Vec<Message>; 24] = [
        basics,
        hellos,
        networks,
        tasks,
        events,
        items,
        transactions,
        outcomes,
        requests,
        api_answers,
        prices,
        link_views,
        run_statistics,
        ratings,
        accounts,
        commands,
        enrolments,
        blobs,
        rings,
        member_messages,
        follows,
        sessions,
        chain::messages,
        || vec![message("ack", "", Ack {})],
    ];
    groups.into_iter().flat_map(|group| group()).collect()
}
