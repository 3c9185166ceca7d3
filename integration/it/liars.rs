//! Miners that lie, in a network of real processes: each is found by control tasks, and pays for it.
//!
//! The liar is a miner that was patched: it says everything that a miner says, at the same times, and computes nothing.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cryptomind_actors::miner::selftest::{machine, report};
use cryptomind_actors::transfer::{Packed, Transfer};
use cryptomind_core::batch::Epoch;
use cryptomind_gpu::dataset;
use cryptomind_gpu::selftest::{self, Extent};
use cryptomind_gpu::session::Session;
use cryptomind_net::{Connection, Endpoint, Subscription};
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::item::{Access, DatasetInfo, MODEL_FILE, PREDICTIONS_FILE};
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::node::{
    Ack, Capacity, Command, Join as JoinRequest, Match, Report, Request,
};
use cryptomind_protocol::rating::{Evidence, RatingView};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::selftest::Endurance;
use cryptomind_protocol::task::{
    Activity, Metrics, Reason, ResultFile, Split, TaskSpec, TaskState, TrainSpec, Work,
};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{AccountId, Amount, ItemId, NodeAddress, NodeId, SecretKey, Signed};
use cryptomind_sdk::Client;

use crate::nodes::{delegate, follow, key, publish_free_digits, training, within};
use crate::processes::{Join, Network, TURN, Where};

const LIMIT: Duration = Duration::from_secs(10);
/// What it says of its speed, where that is not the lie.
const CLAIMED_MFLOPS: u64 = 1_000;
/// The liar's key, and its owner's.
const LIAR: u8 = 200;
const LIARS_OWNER: u8 = 201;

/// What it delivers.
enum Lie {
    /// A model of the right shape that nobody trained.
    Untrained,
    /// What another miner answered to another task.
    Copied(Vec<u8>),
    /// A file of another name, and no model.
    Misnamed,
    /// Predictions of a model that it does not run; it trains what it is asked to.
    Guessed,
    /// The right answer, but at a tenth of the speed that it claims, in 10⁶ floating-point operations a second.
    TooSlow(u64),
}

/// A patched miner.
struct Liar {
    lie: Lie,
    connection: Connection,
    transfer: Transfer,
}

impl Liar {
    /// Joins as any miner does, and lies from then on, until the test ends.
    async fn let_in(address: &NodeAddress, lie: Lie) {
        let (node, owner) = (key(LIAR), key(LIARS_OWNER));
        delegate(address, &owner, &node, Role::Miner).await;
        let endpoint = Endpoint::dialler().unwrap();
        let connection = endpoint.dial(address, ALPN_NODE, &node).await.unwrap();
        let claimed = match lie {
            Lie::TooSlow(claimed) => claimed,
            _ => CLAIMED_MFLOPS,
        };
        let selftest = selftest(&node, &connection, claimed);
        let join = Request::Join(Box::new(joining(&owner, selftest)));
        let mut commands = connection.subscribe(&join).await.unwrap();
        let joined = within("the liar joins", commands.next::<Command>()).await;
        assert!(
            matches!(joined, Some(Ok(Command::Joined { .. }))),
            "{joined:?}"
        );
        let transfer = Transfer::new(endpoint, node);
        let liar = Self {
            lie,
            connection,
            transfer,
        };
        tokio::spawn(liar.obey(commands));
    }

    async fn obey(self, mut commands: Subscription) {
        while let Some(Ok(command)) = commands.next::<Command>().await {
            match command {
                Command::Announce { task, .. } => {
                    let ring_address = "127.0.0.1:9".into();
                    self.say(Request::Offer { task, ring_address }).await;
                }
                Command::Match(place) => self.deliver(&place).await,
                _ => {}
            }
        }
    }

    async fn say(&self, request: Request) {
        // What is refused, or comes too late, is no concern of a liar's.
        drop(self.connection.request::<_, Ack>(&request, LIMIT).await);
    }

    async fn report(&self, place: &Match, report: Report) {
        let (task, attempt) = (place.task, place.attempt);
        self.say(Request::Report {
            task,
            attempt,
            report,
        })
        .await;
    }

    /// What a miner says from its match to its result, without the work between.
    async fn deliver(&self, place: &Match) {
        let Work::Train { train, .. } = &place.spec.work else {
            return self.guess(place).await;
        };
        let samples = place.dataset.as_ref().unwrap().train_samples;
        let step = train.total_steps(samples);
        self.report(place, Report::Ready { fetched_bytes: 0 }).await;
        let (model, computed_ms) = self.model(place).await;
        let name = format!("checkpoint-{step}.safetensors");
        let stored = self.store(place, &name, b"no checkpoint".to_vec()).await;
        let checkpoint = Report::Checkpoint {
            step,
            fingerprint: Hash::new([7; 32]),
            computed_ms,
            stored: Some(stored),
        };
        self.report(place, checkpoint).await;
        let name = match &self.lie {
            Lie::Misnamed => "weights.safetensors",
            _ => MODEL_FILE,
        };
        let metrics = Metrics {
            final_loss: Some(0.01),
            test_accuracy: Some(0.99),
            ..Metrics::default()
        };
        self.finish(place, name, model, metrics).await;
    }

    /// The same class for all samples of an inference.
    async fn guess(&self, place: &Match) {
        self.report(place, Report::Ready { fetched_bytes: 0 }).await;
        let samples = place.dataset.as_ref().unwrap().test_samples;
        let lines = (0..samples).map(|index| format!("{index},3,3,0.900000\n"));
        let table: String = std::iter::once("index,label,class,probability\n".to_owned())
            .chain(lines)
            .collect();
        let metrics = Metrics {
            test_accuracy: Some(0.99),
            samples,
            ..Metrics::default()
        };
        let table = table.into_bytes();
        self.finish(place, PREDICTIONS_FILE, table, metrics).await;
    }

    async fn finish(&self, place: &Match, name: &str, content: Vec<u8>, metrics: Metrics) {
        let (file, receipt) = self.store(place, name, content).await;
        let finished = Report::Finished {
            files: vec![file],
            receipts: vec![receipt],
            metrics,
        };
        self.report(place, finished).await;
    }

    async fn store(
        &self,
        place: &Match,
        name: &str,
        content: Vec<u8>,
    ) -> (ResultFile, StoredReceipt) {
        let blob = Packed::new(content);
        let receipt = self.transfer.put(&place.sources, &place.put_ticket, &blob);
        let file = ResultFile {
            name: name.into(),
            blob: blob.id(),
            bytes: blob.len(),
        };
        (file, receipt.await.unwrap())
    }

    /// What it delivers, and for how long it says that it computed, milliseconds.
    async fn model(&self, place: &Match) -> (Vec<u8>, u64) {
        let Work::Train { model, train, .. } = &place.spec.work else {
            return (Vec::new(), 0);
        };
        match &self.lie {
            Lie::Copied(model) => (model.clone(), 50),
            Lie::Untrained | Lie::Misnamed => {
                let session = Session::with_threads(model, train, 1).unwrap();
                (
                    session.export(&[("format".to_owned(), "pt".to_owned())].into()),
                    50,
                )
            }
            Lie::TooSlow(_) | Lie::Guessed => {
                let (model, train, info) = (model.clone(), train.clone(), place.dataset.clone());
                let begin = Instant::now();
                let trained =
                    tokio::task::spawn_blocking(move || trained(&model, &train, &info.unwrap()));
                (trained.await.unwrap(), begin.elapsed().as_millis() as u64)
            }
        }
    }
}

/// What training on the digits gives, as every miner does it.
fn trained(model: &ModelSpec, train: &TrainSpec, info: &DatasetInfo) -> Vec<u8> {
    let digits = tempfile::tempdir().unwrap();
    for (name, bytes) in cryptomind_gpu::digits::files() {
        std::fs::write(digits.path().join(name), bytes).unwrap();
    }
    let file = |name: &str| digits.path().join(name);
    let (samples, scaling) = dataset::load(info, Split::Train, None, &file).unwrap();
    let per_epoch = train.steps_per_epoch(samples.len() as u64);
    let mut session = Session::with_threads(model, train, 1).unwrap();
    for number in 0..train.epochs.into() {
        let epoch = Epoch::new(train.seed, number, samples.len() as u32);
        for place in 0..per_epoch {
            let batch = epoch.step(place, train.global_batch);
            session.grad_step(&samples, batch, &mut |_| ()).unwrap();
            session.apply(batch.len() as u32).unwrap();
            session.commit();
        }
    }
    session.export(&scaling.metadata().into_iter().collect())
}

/// A self-test as it should be, but for what it says of its speed.
fn selftest(node: &SecretKey, connection: &Connection, mflops: u64) -> Signed {
    let extent = Extent {
        endure: Duration::ZERO,
        threads: 1,
        memory: 64 << 20,
    };
    let mut on = |_: &'static str, _: f32| ControlFlow::Continue(());
    let mut work = selftest::run(1, extent, &mut on).unwrap();
    work.paces.clear();
    work.endurance = Endurance {
        ms: 0,
        first_mflops: mflops,
        last_mflops: mflops,
    };
    let report = report(NodeId::of_key(&node.public()), machine(1), work);
    Signed::sign(&report, &connection.network(), node)
}

fn joining(owner: &SecretKey, selftest: Signed) -> JoinRequest {
    JoinRequest {
        owner: AccountId::of_key(&owner.public()),
        name: "liar".into(),
        listen: None,
        probe: None,
        capacity: Capacity {
            memory_bytes: Some(1 << 30),
            ..Capacity::default()
        },
        selftest: Some(selftest),
        reserve: Amount::ZERO,
        activity: Activity::Idle,
        running: None,
    }
}

/// An honest miner whose owner the operator trusts, and a network that asks questions.
async fn network() -> Network {
    let trusted = AccountId::of_key(&key(110 + 50).public());
    let settings = [
        ("control.accounts", "2".to_owned()),
        ("control.trusted", format!("[\"{trusted}\"]")),
    ];
    Network::start_with(1, &settings).await
}

async fn rating_of(client: &Client, node: NodeId) -> RatingView {
    let miners = client.miners().await.unwrap();
    let miner = miners.into_iter().find(|miner| miner.node == node);
    miner.unwrap().rating
}

/// An answer is proved wrong, and what was withheld is gone; the others get the work.
async fn found_out(network: &Network, bob: &Client, mut task: TaskSpec) {
    let liar = NodeId::of_key(&key(LIAR).public());
    let proved = async {
        loop {
            let rating = rating_of(bob, liar).await;
            if rating.wrong > 0 {
                return rating;
            }
            tokio::task::yield_now().await;
        }
    };
    let rating = within("the liar is found out", proved).await;
    assert_eq!(rating.streak, 0);
    assert!(rating.low_milli < cryptomind_core::rating::NEWCOMER_LOW_MILLI);
    assert!(rating.rating_milli < 1_500, "{rating:?}");

    let owner = Client::connect(network.address.clone(), key(LIARS_OWNER))
        .await
        .unwrap();
    let account = AccountId::of_key(&key(LIARS_OWNER).public());
    let evidence = bob.evidence(account, None).await.unwrap();
    let wrongs = evidence
        .iter()
        .filter(|e| matches!(e.evidence, Evidence::Wrong { .. }));
    assert!(wrongs.count() > 0);
    let history = owner.history(None, 100).await.unwrap();
    let sum = |reason| {
        let of = history.iter().filter(|entry| entry.reason == reason);
        of.map(|entry| entry.amount.base_units()).sum::<u64>()
    };
    // A newcomer has a fifth withheld, the most that this network withholds.
    let (paid, forfeited) = (sum(Reason::Work), sum(Reason::Forfeit));
    assert!(
        forfeited > 0 && forfeited <= paid / 5,
        "{forfeited} of {paid}"
    );

    // A client who asks for more than that gets the work done by whoever is left.
    task.conditions.min_rating_milli = 1_500;
    works(bob, task).await;
    let honest = NodeId::of_key(&key(110).public());
    let rating = rating_of(bob, honest).await;
    assert_eq!((rating.wrong, rating.bar), (0, None));
    assert!(rating.streak > 0, "whoever was asked too was right");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_trains_nothing_is_found_out_and_pays_for_it() {
    finds_out(Lie::Untrained).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_delivers_no_model_is_found_out_and_pays_for_it() {
    finds_out(Lie::Misnamed).await;
}

/// What clients ask is asked again: an inference, of a model that anybody may use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_guesses_what_a_model_says_is_found_out_and_pays_for_it() {
    let _turn = TURN.lock().await;
    let network = network().await;
    let ada = network.client(60, "ada").await;
    let digits = publish_free_digits(&ada, network.dir.path()).await;
    let bob = network.client(61, "bob").await;
    let mut task = training(digits, 1, 10);
    task.access = Access::Free;
    let (trained, _) = bob.post(task.clone()).await.unwrap();
    follow(&bob, trained, |_| {}).await;
    let inference = TaskSpec {
        work: Work::Infer {
            model: ItemId::of_task(&trained),
            dataset: digits,
            split: Split::Test,
        },
        ..task.clone()
    };
    let asking = async {
        loop {
            let (posted, _) = bob.post(inference.clone()).await.unwrap();
            follow(&bob, posted, |_| {}).await;
        }
    };
    Liar::let_in(&network.address, Lie::Guessed).await;
    tokio::select! {
        () = found_out(&network, &ada, task) => {}
        () = asking => unreachable!(),
    }
}

async fn finds_out(lie: Lie) {
    let _turn = TURN.lock().await;
    let network = network().await;
    let ada = network.client(60, "ada").await;
    let digits = publish_free_digits(&ada, network.dir.path()).await;
    let bob = network.client(61, "bob").await;
    Liar::let_in(&network.address, lie).await;
    found_out(&network, &bob, training(digits, 1, 10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_gives_anothers_answer_is_found_out_and_pays_for_it() {
    let _turn = TURN.lock().await;
    let network = network().await;
    let ada = network.client(60, "ada").await;
    let digits = publish_free_digits(&ada, network.dir.path()).await;
    let bob = network.client(61, "bob").await;
    let (task, _) = bob.post(training(digits, 1, 10)).await.unwrap();
    follow(&bob, task, |_| {}).await;
    let model = ItemId::of_task(&task);
    let placement = bob.locate_item(model).await.unwrap();
    let files = bob.item_by_id(model).await.unwrap().manifest.files;
    let there = network.dir.path().join("copied");
    let mut silent = |_: cryptomind_sdk::Progress<'_>| {};
    let fetched = bob.download(&placement, &files, &there, &mut silent);
    let fetched = within("the model", fetched).await.unwrap();
    let weights = fetched
        .iter()
        .find(|path| path.ends_with(MODEL_FILE))
        .unwrap();
    let copied = Lie::Copied(std::fs::read(weights).unwrap());
    Liar::let_in(&network.address, copied).await;
    found_out(&network, &bob, training(digits, 1, 10)).await;
}

/// Three others show what start tests are worth at such work, one after the other, so that none takes another's processor; who
/// claims ten times as much as it has is held to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_that_claims_ten_times_its_speed_is_lowered() {
    let _turn = TURN.lock().await;
    let network = Network::start(0).await;
    let ada = network.client(60, "ada").await;
    let digits = publish_free_digits(&ada, network.dir.path()).await;
    let bob = network.client(61, "bob").await;
    let mut most = 0;
    for number in 110..113 {
        let join = Join {
            dir: network.dir.path(),
            address: &network.address,
            number,
            role: Role::Miner,
            at: Where::here(),
            env: vec![],
        };
        let mut miner = join.start().await;
        let said = bob.miners().await.unwrap();
        most = most.max(said.iter().map(|miner| miner.mflops).max().unwrap());
        works(&bob, training(digits, 1, 60)).await;
        miner.stop().await;
    }
    Liar::let_in(&network.address, Lie::TooSlow(most * 10)).await;
    works(&bob, training(digits, 1, 60)).await;
    let liar = NodeId::of_key(&key(LIAR).public());
    let shown = async {
        loop {
            let rating = rating_of(&bob, liar).await;
            if rating.parts.speed_ppm != 1_000_000 {
                return rating;
            }
            tokio::task::yield_now().await;
        }
    };
    let rating = within("the liar has shown its speed", shown).await;
    // A tenth, give or take what else the machine did meanwhile.
    assert!(rating.parts.speed_ppm < 500_000, "{rating:?}");
    assert!(
        rating.rating_milli < cryptomind_core::rating::NEWCOMER_MILLI * 2 / 3,
        "{rating:?}"
    );
}

/// A client's task that ends well.
async fn works(client: &Client, task: TaskSpec) {
    let (task, _) = client.post(task).await.unwrap();
    follow(client, task, |_| {}).await;
    let view = client.task(task).await.unwrap();
    assert_eq!(view.state, TaskState::Finished, "{}", view.reason);
    assert!(view.metrics.unwrap().test_accuracy.unwrap() > 0.9);
}
