//! Posting, cancelling and expiring, through the real ledger and the real store.

use cryptomind_core::audit;
use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::journal::{CommitmentsRecord, NodeRecord};
use cryptomind_core::ledger::Hold;
use cryptomind_core::market::shortlist::asked_for;
use cryptomind_core::price::{FloatingRule, PriceRecord};
use cryptomind_core::transaction;
use cryptomind_protocol::audit::{Commitment, Commitments, VERSION};
use cryptomind_protocol::blob::Ticket;
use cryptomind_protocol::block::Block;
use cryptomind_protocol::genesis::{Allocation, FeeTable, Genesis, NetworkKind, Withholding};
use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo, ItemKind, Manifest};
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::node::{Capacity, Command};
use cryptomind_protocol::price::{PriceRing, Utilisation};
use cryptomind_protocol::rating::{Evidence, EvidenceRecord};
use cryptomind_protocol::task::{Conditions, Optimizer, Reason, TaskState, TrainSpec, Work};
use cryptomind_protocol::transaction::{Action, Outcome, Transaction};
use cryptomind_protocol::{Amount, GenesisHash, ItemId, SecretKey, Signed, Timestamp};
use cryptomind_storage::state::Batch;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::catalog::{CatalogActor, CatalogArguments};
use crate::control::Doubts;
use crate::coordinator::directory::Directory;
use crate::ledger::{
    LEDGER_LIMIT, LedgerActor, LedgerArguments, LedgerMsg, NetworkClock, Posting, Unposted,
};
use crate::rating::{RATING_LIMIT, RatingActor, RatingArguments, RatingMsg, RatingRef};
use crate::supervisor::{self, Child, Tree, seat};
use cryptomind_protocol::api::Fate;

const CAP: Amount = Amount::from_base_units(1_000_000_000);
const UNIT_PRICE: Amount = Amount::from_base_units(1_000_000);
const HOUR_MS: u64 = 3_600_000;

fn client() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn genesis(key: &SecretKey) -> Genesis {
    Genesis {
        version: 1,
        name: "test".into(),
        kind: NetworkKind::Development,
        created: Timestamp::from_ms(1),
        coordinator: key.public(),
        allocations: vec![Allocation {
            name: "all".into(),
            account: AccountId::of_key(&client().public()),
            amount: SUPPLY,
            vesting: None,
        }],
        fees: FeeTable::default(),
        withholding: Withholding {
            period_ms: HOUR_MS,
            max_ppm: 250_000,
        },
        faucet: Amount::ZERO,
    }
}

const HERE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A coordinator without doors, and a miner that is connected and says nothing.
struct House {
    store: StateStore,
    ledger: LedgerRef,
    matchmaker: MatchmakerRef,
    rating: RatingRef,
    tree: Tree,
    grown: watch::Receiver<u64>,
    genesis: Genesis,
    links: Links,
    commands: mpsc::Receiver<Command>,
}

impl House {
    async fn open(store: &StateStore, hold_ms: u64) -> Self {
        Self::staffed(store, hold_ms, true, None).await
    }

    /// Miners are checked here: so much is risked with somebody unknown.
    async fn checking(store: &StateStore, allowance: Amount) -> Self {
        Self::staffed(store, HOUR_MS, true, Some(allowance)).await
    }

    /// Without `whole`, there is nobody but the ledger.
    async fn staffed(
        store: &StateStore,
        hold_ms: u64,
        whole: bool,
        allowance: Option<Amount>,
    ) -> Self {
        let key = SecretKey::from_seed([9; 32]);
        let genesis = genesis(&key);
        let (ledger_seat, ledger) = seat("ledger");
        let (rating_seat, rating) = seat("rating");
        let (catalog_seat, catalog) = seat("catalog");
        let (matchmaker_seat, matchmaker) = seat("matchmaker");
        let (grown, grows) = watch::channel(0);
        let links = Links::default();
        let (_, commands) = links.enter(miner(), Activity::Idle, HERE);
        let for_ledger = LedgerArguments {
            store: store.clone(),
            genesis: genesis.clone(),
            key: key.clone(),
            directory: Directory::default(),
            clock: NetworkClock::start(),
            matchmaker: matchmaker.clone(),
            grown,
        };
        let for_rating = RatingArguments {
            store: store.clone(),
            ledger: ledger.clone(),
            doubts: Doubts::default(),
        };
        let for_catalog = CatalogArguments {
            store: store.clone(),
            ledger: ledger.clone(),
        };
        let for_matchmaker = MatchmakerArguments {
            store: store.clone(),
            ledger: ledger.clone(),
            clock: NetworkClock::start(),
            catalog,
            rating: rating.clone(),
            // Nobody sits there.
            control: seat("control").1,
            links: links.clone(),
            surveyor: Surveyor::new(NodeId::of_key(&key.public())).unwrap(),
            tickets: Tickets {
                key,
                network: genesis.hash(),
            },
            watchers: Watchers::default(),
            tariff: Tariff {
                work: FloatingRule {
                    start: UNIT_PRICE,
                    floor: Amount::from_base_units(1_000),
                    ceiling: CAP,
                    account_share_ppm: 100_000,
                },
                storage_per_mib: Amount::ZERO,
                network_fee_ppm: 0,
            },
            price_interval: TICK,
            withheld_max_ppm: genesis.withholding.max_ppm,
            allowance,
            limits: Limits {
                offer_window_ms: 400,
                wait_ms: HOUR_MS,
                prepare_ms: HOUR_MS,
                hold_ms,
            },
            posting: PostingRule {
                open_tasks: 3,
                free_cancels: 2,
            },
        };
        let mut children = vec![
            Child::new(ledger_seat, move || (LedgerActor, for_ledger.clone())),
            Child::new(rating_seat, move || (RatingActor, for_rating.clone())),
            Child::new(catalog_seat, move || (CatalogActor, for_catalog.clone())),
            Child::new(matchmaker_seat, move || {
                (MatchmakerActor, for_matchmaker.clone())
            }),
        ];
        children.truncate(if whole { 4 } else { 1 });
        let limits = supervisor::Limits::default();
        Self {
            store: store.clone(),
            ledger,
            matchmaker,
            rating,
            tree: Tree::start(limits, children).await.unwrap(),
            grown: grows,
            genesis,
            links,
            commands,
        }
    }

    /// More miners, the last the fastest. They are there as long as what is returned is.
    async fn crowd(&self, count: u8) -> Vec<mpsc::Receiver<Command>> {
        let mut commands = Vec::new();
        for n in 100..100 + count {
            let (node, mut record) = (NodeId::new([n; 32]), miner());
            (record.node, record.capacity.mflops) = (node, 1_000 + u64::from(n));
            commands.push(self.links.enter(record, Activity::Idle, HERE).1);
            self.comes_free(node);
        }
        // Counted after all have joined.
        let counts = self
            .matchmaker
            .call(MatchmakerMsg::CountsOf, MATCHMAKER_LIMIT);
        assert_eq!(counts.await.unwrap().miners_free, usize::from(count) + 1);
        commands
    }

    /// A node joins, and nobody asks it anything first.
    fn comes_free(&self, node: NodeId) {
        let position = None;
        let joined = MatchmakerMsg::Joined { node, position };
        self.matchmaker.cast(joined).unwrap();
        self.matchmaker.cast(MatchmakerMsg::Released(node)).unwrap();
    }

    async fn decline(&self, task: TaskId, node: NodeId) {
        let reason = "busy".to_owned();
        let declined = |reply| MatchmakerMsg::Declined {
            node,
            task,
            reason,
            reply,
        };
        let answer = self.matchmaker.call(declined, MATCHMAKER_LIMIT).await;
        answer.unwrap().unwrap();
    }

    async fn offer(&self, task: TaskId, node: NodeId) {
        let offered = |reply| MatchmakerMsg::Offered {
            node,
            task,
            ring_address: "127.0.0.1:9".into(),
            reply,
        };
        let answer = self.matchmaker.call(offered, MATCHMAKER_LIMIT).await;
        answer.unwrap().unwrap();
    }

    /// A run as it is stored when all is that was decided so far.
    async fn settled(&self, task: TaskId) -> Run {
        self.open_tasks().await;
        self.ledger.settled(&self.store).await.unwrap();
        self.run(task)
    }

    fn signed(&self, id: u8, action: Action) -> Box<Verified> {
        let transaction = Transaction {
            version: 1,
            id: Nonce::new([id; 16]),
            account: AccountId::of_key(&client().public()),
            valid_until: clock::now().plus_ms(HOUR_MS),
            max_fee: Amount::ZERO,
            action,
        };
        let network = self.genesis.hash();
        let signed = Signed::sign(&transaction, &network, &client());
        Box::new(transaction::open(signed, &network).unwrap())
    }

    async fn post(&self, id: u8) -> (TaskId, Accepted) {
        let transaction = self.signed(id, Action::Post { spec: spec() });
        let accepted = self.try_post(transaction).await.unwrap();
        match accepted.outcome {
            Outcome::Posted { task, held } => {
                assert_eq!(held, CAP);
                (task, accepted)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn try_post(&self, transaction: Box<Verified>) -> Result<Accepted, ErrorBody> {
        self.try_post_for(transaction, None).await
    }

    async fn try_post_for(
        &self,
        transaction: Box<Verified>,
        only: Option<NodeId>,
    ) -> Result<Accepted, ErrorBody> {
        let message = |reply| MatchmakerMsg::Post {
            transaction,
            spec: Box::new(spec()),
            materials: Box::new(materials()),
            only,
            reply,
        };
        let answer = self.matchmaker.call(message, MATCHMAKER_LIMIT).await;
        answer.unwrap()
    }

    async fn cancel(
        &self,
        transaction: Box<Verified>,
        task: TaskId,
    ) -> Result<Accepted, ErrorBody> {
        let message = |reply| MatchmakerMsg::Cancel {
            transaction,
            task,
            reply,
        };
        let answer = self.matchmaker.call(message, MATCHMAKER_LIMIT).await;
        answer.unwrap()
    }

    async fn open_tasks(&self) -> usize {
        let counts = self
            .matchmaker
            .call(MatchmakerMsg::CountsOf, MATCHMAKER_LIMIT);
        counts.await.unwrap().open_tasks
    }

    async fn prices(&self) -> Vec<PricePoint> {
        let prices = self
            .matchmaker
            .call(MatchmakerMsg::PricesOf, MATCHMAKER_LIMIT);
        prices.await.unwrap()
    }

    fn run(&self, task: TaskId) -> Run {
        self.store.get::<Run>(task.as_bytes()).unwrap().unwrap()
    }

    fn block(&self, accepted: &Accepted) -> Block {
        let height = accepted.receipt.height().to_be_bytes();
        self.store.get::<Block>(&height).unwrap().unwrap()
    }

    /// The run has ended without costing anything, on the disk too.
    fn check_refunded(&self, task: TaskId, state: TaskState) {
        let run = self.run(task);
        assert_eq!(run.state, state, "{}", run.reason);
        let [refund] = &run.payments[..] else {
            panic!("{:?}", run.payments);
        };
        assert_eq!((refund.amount, refund.reason), (CAP, Reason::Refund));
        assert!(self.store.load::<Hold>().unwrap().is_empty());
        assert!(self.store.load::<OpenRun>().unwrap().is_empty());
        let events = self.store.load::<cryptomind_core::journal::EventRecord>();
        let last = events.unwrap().pop().unwrap();
        assert!(matches!(last.event, Event::Settled { .. }), "{last:?}");
    }
}

fn miner() -> NodeRecord {
    NodeRecord {
        node: NodeId::new([5; 32]),
        name: "miner".into(),
        role: Role::Miner,
        owner: AccountId::new([5; 20]),
        address: None,
        capacity: Capacity {
            threads: 1,
            devices: Vec::new(),
            mflops: 100,
            ..Capacity::default()
        },
        reserve: Amount::ZERO,
        steps: Vec::new(),
        machine: None,
        seen: Timestamp::from_ms(1),
    }
}

fn spec() -> TaskSpec {
    TaskSpec {
        name: "test".into(),
        work: Work::Train {
            dataset: ItemId::new([1; 16]),
            model: ModelSpec {
                input: vec![4],
                layers: vec![Layer::linear(2)],
                loss: Loss::default(),
            },
            train: TrainSpec {
                epochs: 4,
                global_batch: 10,
                optimizer: Optimizer::adamw(1e-3),
                seed: 1,
                checkpoint_steps: 10,
                ..TrainSpec::default()
            },
        },
        miners: 1,
        max_cost: CAP,
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

fn materials() -> Materials {
    let info = DatasetInfo {
        format: DataFormat::Csv {
            file: "a.csv".into(),
            label: "y".into(),
            split_seed: 0,
            targets: Vec::new(),
        },
        train_samples: 100,
        test_samples: 10,
        input: vec![4],
        classes: vec!["a".into(), "b".into()],
        values: Vec::new(),
    };
    Materials {
        dataset: Some(ItemRecord {
            item: ItemId::new([1; 16]),
            owner: AccountId::new([8; 20]),
            manifest: Manifest {
                name: "data".into(),
                kind: ItemKind::Dataset(info),
                files: Vec::new(),
                access: Access::Free,
                licence: "CC0".into(),
                source: "test".into(),
            },
            published: Timestamp::from_ms(1),
            uses: 0,
        }),
        model: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posting_and_its_cancelling_are_an_entry_each() {
    let store = StateStore::in_memory().unwrap();
    let mut house = House::open(&store, HOUR_MS).await;
    let (task, posted) = house.post(1).await;
    assert_eq!(house.run(task).state, TaskState::Waiting);
    let entry = &house.block(&posted).entries[posted.receipt.index() as usize];
    assert!(entry.transaction.is_some() && entry.decisions.len() == 1);
    assert!(matches!(
        house.commands.recv().await,
        Some(Command::Announce { .. })
    ));

    let transaction = house.signed(2, Action::Cancel { task });
    let cancelled = house.cancel(transaction.clone(), task).await.unwrap();
    assert_eq!(cancelled.outcome, Outcome::Cancelling { task });
    let block = house.block(&cancelled);
    let receipt = &block.receipts[cancelled.receipt.index() as usize];
    assert_eq!(receipt.transfers.len(), 1);
    house.check_refunded(task, TaskState::Cancelled);

    let again = house.cancel(transaction, task).await.unwrap();
    assert_eq!(again, cancelled, "the same bytes get the first answer");
    let other = house.signed(3, Action::Cancel { task });
    let refused = house.cancel(other, task).await.unwrap_err();
    assert_eq!(refused.code, "task_not_found");
}

/// Nobody but the ledger is there when a hold expires: the matchmaker learns it when it starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_expired_in_its_absence_ends_its_run() {
    let store = StateStore::in_memory().unwrap();
    let first = House::open(&store, 500).await;
    let (task, _) = first.post(1).await;
    first.tree.stop().await;

    let mut ledger_alone = House::staffed(&store, 500, false, None).await;
    let before = *ledger_alone.grown.borrow();
    let is_open = ledger_alone.ledger.open_holds(vec![task]).await.unwrap();
    if is_open[0] {
        let grown = ledger_alone.grown.wait_for(|height| *height > before);
        grown.await.unwrap();
    }
    ledger_alone.tree.stop().await;
    assert_eq!(ledger_alone.run(task).state, TaskState::Waiting);

    let second = House::open(&store, 500).await;
    assert_eq!(second.open_tasks().await, 0);
    second.ledger.settled(&store).await.unwrap();
    second.check_refunded(task, TaskState::Expired);
    let balances = |reply| LedgerMsg::BalancesOf(AccountId::of_key(&client().public()), reply);
    let balances = second.ledger.call(balances, LEDGER_LIMIT).await.unwrap();
    assert_eq!((balances.available, balances.held), (SUPPLY, Amount::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_ledger_settled_ends_a_run_at_once() {
    let store = StateStore::in_memory().unwrap();
    let house = House::open(&store, HOUR_MS).await;
    let (task, _) = house.post(1).await;
    let (kept, _) = house.post(2).await;
    let expired = vec![(task, Vec::new())];
    house
        .matchmaker
        .cast(MatchmakerMsg::HoldsExpired(expired))
        .unwrap();
    assert_eq!(house.open_tasks().await, 1);
    house.ledger.settled(&store).await.unwrap();
    assert_eq!(house.run(task).state, TaskState::Expired);
    assert_eq!(house.run(kept).state, TaskState::Waiting);
}

/// Who takes tasks back again and again is made to wait, and told for how long; a repeated transaction still has its answer.
#[tokio::test(flavor = "multi_thread")]
async fn who_posts_and_cancels_in_a_loop_is_made_to_wait() {
    let store = StateStore::in_memory().unwrap();
    let house = House::open(&store, HOUR_MS).await;
    let first = house.signed(1, Action::Post { spec: spec() });
    let mut answers = Vec::new();
    for number in 0..3 {
        let post = match number {
            0 => first.clone(),
            _ => house.signed(10 + number, Action::Post { spec: spec() }),
        };
        let accepted = house.try_post(post).await.unwrap();
        let Outcome::Posted { task, .. } = accepted.outcome else {
            panic!("{:?}", accepted.outcome);
        };
        answers.push(accepted);
        let cancel = house.signed(20 + number, Action::Cancel { task });
        house.cancel(cancel, task).await.unwrap();
    }
    let next = house.signed(30, Action::Post { spec: spec() });
    let refusal = house.try_post(next).await.unwrap_err();
    assert_eq!(refusal.code, "cancelled_too_often");
    assert!(refusal.message.contains("3 tasks in a row"), "{refusal}");
    assert!((1..=1000).contains(&refusal.retry_after_ms.unwrap()));
    let again = house.try_post(first).await.unwrap();
    assert_eq!(again.outcome, answers[0].outcome);
    assert_eq!(house.open_tasks().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_no_more_open_tasks_than_it_may() {
    let store = StateStore::in_memory().unwrap();
    let house = House::open(&store, HOUR_MS).await;
    let (first, _) = house.post(1).await;
    for id in 2..=3 {
        house.post(id).await;
    }
    let post = house.signed(4, Action::Post { spec: spec() });
    let refusal = house.try_post(post).await.unwrap_err();
    assert_eq!(refusal.code, "too_many_open_tasks");
    assert!(refusal.message.contains("3 open tasks"), "{refusal}");
    let cancel = house.signed(5, Action::Cancel { task: first });
    house.cancel(cancel, first).await.unwrap();
    house.post(6).await;
}

/// A restart finds the open runs by their index, and only those.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_what_is_open() {
    let store = StateStore::in_memory().unwrap();
    let first = House::open(&store, HOUR_MS).await;
    let (ended, _) = first.post(1).await;
    let (open, _) = first.post(2).await;
    let transaction = first.signed(3, Action::Cancel { task: ended });
    first.cancel(transaction, ended).await.unwrap();
    first.tree.stop().await;
    let second = House::open(&store, HOUR_MS).await;
    assert_eq!(second.open_tasks().await, 1);
    let transaction = second.signed(4, Action::Cancel { task: open });
    second.cancel(transaction, open).await.unwrap();
    assert_eq!(second.open_tasks().await, 0);
    second.check_refunded(open, TaskState::Cancelled);
}

/// A coordinator that is there ends a task with its time, like one that comes late.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_nobody_ends_ends_with_its_time() {
    let store = StateStore::in_memory().unwrap();
    let mut house = House::open(&store, 1000).await;
    let (task, posted) = house.post(1).await;
    let height = posted.receipt.height();
    let grown = house.grown.wait_for(|grown| *grown > height);
    grown.await.unwrap();
    assert_eq!(house.open_tasks().await, 0);
    house.ledger.settled(&store).await.unwrap();
    house.check_refunded(task, TaskState::Expired);
}

/// What was decided on a ledger that died is not carried out by the next one: some of what it rests on may be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_does_not_outlive_the_ledger_that_it_was_made_on() {
    let store = StateStore::in_memory().unwrap();
    let house = House::staffed(&store, HOUR_MS, false, None).await;
    let life = house.ledger.settled(&store).await.unwrap();
    let posting = |number, life| {
        let (node, role) = (NodeId::new([number; 32]), Role::Miner);
        let expires = clock::now().plus_ms(HOUR_MS);
        let delegate = Action::Delegate {
            node,
            role,
            expires,
        };
        Posting {
            transaction: Some(*house.signed(number, delegate)),
            life,
            ..Posting::default()
        }
    };
    house.ledger.post(posting(1, Some(life))).await.unwrap();

    let first = house.ledger.actor().unwrap();
    first.kill();
    house.ledger.successor(Some(&first)).await.unwrap();
    let late = house.ledger.post(posting(2, Some(life))).await;
    assert!(matches!(late, Err(Unposted::Unknown(_))), "{late:?}");
    let refused = house.ledger.record(Some(life), Batch::new()).await;
    assert!(refused.is_err());
    let life = house.ledger.settled(&store).await.unwrap();
    house.ledger.post(posting(3, Some(life))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_are_noted_with_what_is_asked_for_and_offered() {
    let store = StateStore::in_memory().unwrap();
    let house = House::open(&store, HOUR_MS).await;
    let (task, _) = house.post(1).await;
    assert_eq!(house.run(task).terms.prices.unit_price, UNIT_PRICE);
    let shows_both = |point: &PricePoint| (point.demand_mflops, point.supply_mflops) == (1, 100);
    let noted = async {
        loop {
            // A stored point is one that was shown before.
            let shown = house.prices().await;
            let stored = points(&store, shown[0].class, PriceRing::Hours).unwrap();
            if stored.iter().any(shows_both) {
                return stored;
            }
        }
    };
    let stored = tokio::time::timeout(MATCHMAKER_LIMIT, noted).await.unwrap();
    // One client and one owner move nothing.
    assert!(stored.iter().all(|point| point.unit_price == UNIT_PRICE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_charged_the_price_as_it_was_stored() {
    let store = StateStore::in_memory().unwrap();
    let (class, unit_price) = (PriceClass::ALL[0], Amount::from_base_units(2_345_678));
    let point = PricePoint {
        at: clock::now(),
        class,
        unit_price,
        demand_mflops: 0,
        supply_mflops: 0,
        utilisation: Utilisation::UNKNOWN,
    };
    let mut batch = Batch::new();
    PriceRecord::of(point)
        .iter()
        .for_each(|record| batch.put(record));
    store.commit(batch).await.unwrap();
    let house = House::open(&store, HOUR_MS).await;
    let prices: Vec<_> = house.prices().await.iter().map(|p| p.unit_price).collect();
    assert_eq!((prices[0], prices[1]), (unit_price, UNIT_PRICE));
    let (task, _) = house.post(1).await;
    assert_eq!(house.run(task).terms.prices.unit_price, unit_price);
}

/// Both explanations are the choice itself: the miner that would be chosen, and why nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_and_a_miner_are_told_why() {
    let store = StateStore::in_memory().unwrap();
    let absent = NodeRecord {
        node: NodeId::new([6; 32]),
        ..miner()
    };
    let mut batch = Batch::new();
    batch.put(&miner());
    batch.put(&absent);
    store.commit(batch).await.unwrap();
    let house = House::open(&store, HOUR_MS).await;
    let ask = |reply| MatchmakerMsg::WhyNoWork(miner().owner, reply);
    let rows = house.matchmaker.call(ask, MATCHMAKER_LIMIT).await;
    let rows = rows.unwrap().unwrap();
    let mut reasons: Vec<_> = rows.iter().map(|row| row.reason.as_str()).collect();
    reasons.sort_unstable();
    let connected = [
        "it is not connected to the coordinator",
        "no task waits for miners",
    ];
    assert_eq!(reasons, connected);

    let (task, _) = house.post(1).await;
    let run = Box::new(house.run(task));
    let explain = |reply| MatchmakerMsg::Explain(run, reply);
    let told = house.matchmaker.call(explain, MATCHMAKER_LIMIT).await;
    let told = told.unwrap().unwrap();
    assert_eq!((told.needed, told.able), (1, 1));
    let fates: Vec<_> = told.verdicts.iter().map(|v| (v.node, v.fate)).collect();
    let expected = [(miner().node, Fate::Chosen), (absent.node, Fate::Barred)];
    assert_eq!(fates, expected);
    assert!(
        told.verdicts
            .iter()
            .all(|verdict| !verdict.reason.is_empty())
    );
    assert!(told.advice.unwrap().contains("1 miners can do it now"));

    let ask = |reply| MatchmakerMsg::WhyNoWork(miner().owner, reply);
    let rows = house.matchmaker.call(ask, MATCHMAKER_LIMIT).await;
    let rows = rows.unwrap().unwrap();
    let waits = rows.iter().find(|row| row.node == miner().node).unwrap();
    assert_eq!(waits.task, Some(task));
    assert!(
        waits.reason.starts_with("chosen as rank 0"),
        "{}",
        waits.reason
    );
    // A stranger has no miner here.
    let stranger = AccountId::new([77; 20]);
    let ask = |reply| MatchmakerMsg::WhyNoWork(stranger, reply);
    let rows = house.matchmaker.call(ask, MATCHMAKER_LIMIT).await;
    assert_eq!(rows.unwrap().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_crowd_few_are_asked_and_the_next_where_these_decline() {
    let store = StateStore::in_memory().unwrap();
    let house = House::open(&store, HOUR_MS).await;
    let _crowd = house.crowd(150).await;
    let (task, _) = house.post(1).await;
    let first = house.settled(task).await.asked;
    assert_eq!(first.len(), asked_for(1), "of 151");
    assert!(first.contains(&NodeId::new([249; 32])), "the fastest");
    for node in &first {
        house.decline(task, *node).await;
    }
    let second = house.settled(task).await.asked;
    assert_eq!(second.len(), asked_for(1));
    assert!(second.iter().all(|node| !first.contains(node)), "once each");

    // Who says nothing is not waited for, nor asked again: others are, one after the other.
    let others = async {
        loop {
            let asked = house.settled(task).await.asked;
            if asked.len() == asked_for(1) && asked != second {
                return asked;
            }
        }
    };
    let third = tokio::time::timeout(MATCHMAKER_LIMIT, others)
        .await
        .unwrap();
    assert!(
        third
            .iter()
            .all(|node| !first.contains(node) && !second.contains(node))
    );
    house.tree.stop().await;
}

/// A control task is for one miner, however many are free and faster.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_one_miner_is_asked_of_nobody_else() {
    let store = StateStore::in_memory().unwrap();
    let house = House::open(&store, HOUR_MS).await;
    let _crowd = house.crowd(5).await;
    let only = NodeId::new([101; 32]);
    let transaction = house.signed(1, Action::Post { spec: spec() });
    let task = TaskId::of_transaction(&transaction.account(), transaction.id().as_bytes());
    house.try_post_for(transaction, Some(only)).await.unwrap();
    assert_eq!(house.settled(task).await.asked, [only]);
    house.decline(task, only).await;
    assert_eq!(house.settled(task).await.asked, []);
    // Whoever joins later is not asked either; the one that it is for is, when it is back.
    let [stranger, back] = [miner().node, only];
    for node in [stranger, back] {
        let position = None;
        house
            .matchmaker
            .cast(MatchmakerMsg::Joined { node, position })
            .unwrap();
    }
    assert_eq!(house.settled(task).await.asked, [only]);
    house.tree.stop().await;
}

/// Whoever is matched is told where the dataset is.
async fn store_with_item() -> StateStore {
    let store = StateStore::in_memory().unwrap();
    let mut batch = Batch::new();
    batch.put(&materials().dataset.unwrap());
    store.commit(batch).await.unwrap();
    store
}

/// What the member of this key says of two steps.
fn commitments(task: TaskId, key: &SecretKey, network: &GenesisHash, first: u64) -> Signed {
    let step = Commitment {
        loss: 0.5,
        samples: 10,
        roots: None,
    };
    let said = Commitments {
        version: VERSION,
        task,
        attempt: 1,
        rank: 0,
        first,
        steps: vec![step; 2],
    };
    Signed::sign(&said, network, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_signs_of_its_steps_is_kept_as_it_came() {
    let store = store_with_item().await;
    let house = House::open(&store, HOUR_MS).await;
    let (key, network) = (SecretKey::from_seed([3; 32]), house.genesis.hash());
    let (node, mut record) = (NodeId::of_key(&key.public()), miner());
    record.node = node;
    let _commands = house.links.enter(record, Activity::Idle, HERE).1;
    house.comes_free(node);
    let (task, _) = house.post(1).await;
    for asked in house.settled(task).await.asked {
        if asked != node {
            house.decline(task, asked).await;
        }
    }
    house.offer(task, node).await;
    assert_eq!(house.settled(task).await.group, [node]);
    let signed = [1, 3].map(|first| commitments(task, &key, &network, first));
    // The last one was told twice.
    for signed in [&signed[0], &signed[1], &signed[1]] {
        let opened = audit::open(signed.clone(), &network, node, (task, 1)).unwrap();
        let committed = |reply| MatchmakerMsg::Committed {
            node,
            task,
            opened: Box::new(opened),
            reply,
        };
        let answer = house.matchmaker.call(committed, MATCHMAKER_LIMIT).await;
        answer.unwrap().unwrap();
    }
    let kept: Vec<CommitmentsRecord> = store.load().unwrap();
    let kept: Vec<_> = kept.into_iter().map(|kept| kept.commitments).collect();
    assert_eq!(kept, signed, "durable when they are acknowledged");
    let view = house.run(task).trail.view().unwrap();
    assert_eq!((view.compared, view.last, view.signatures), (4, 4, 2));
    house.tree.stop().await;
}

/// A task may take longer than a day, and nothing renews what its members fetch and store with.
#[tokio::test(flavor = "multi_thread")]
async fn a_members_tickets_are_good_until_its_tasks_hold_expires() {
    let store = store_with_item().await;
    let mut house = House::open(&store, 72 * HOUR_MS).await;
    let node = miner().node;
    house.comes_free(node);
    let (task, _) = house.post(1).await;
    house.offer(task, node).await;
    let expires = house.settled(task).await.hold_expires();
    let place = loop {
        if let Some(Command::Match(place)) = house.commands.recv().await {
            break place;
        }
    };
    for ticket in [&place.get_ticket, &place.put_ticket] {
        let ticket: Ticket = ticket.verify(&house.genesis.hash()).unwrap();
        assert_eq!(ticket.expires, expires);
    }
    house.tree.stop().await;
}

/// Where miners are checked, whoever came free gets nothing before it is known what it is asked first.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_came_free_waits_for_what_it_is_asked_first() {
    let store = store_with_item().await;
    let house = House::checking(&store, CAP).await;
    let (node, position) = (miner().node, None);
    let joined = MatchmakerMsg::Joined { node, position };
    house.matchmaker.cast(joined).unwrap();
    let (paid, _) = house.post(1).await;
    assert_eq!(house.settled(paid).await.asked, []);
    let transaction = house.signed(2, Action::Post { spec: spec() });
    let control = TaskId::of_transaction(&transaction.account(), transaction.id().as_bytes());
    house.try_post_for(transaction, Some(node)).await.unwrap();
    assert_eq!(house.settled(control).await.asked, [node]);
    house
        .matchmaker
        .cast(MatchmakerMsg::Released(node))
        .unwrap();
    assert_eq!(house.settled(paid).await.asked, [], "one after the other");
    house.offer(control, node).await;
    assert_eq!(house.settled(control).await.seats.len(), 1);
    let cancel = house.signed(3, Action::Cancel { task: control });
    house.cancel(cancel, control).await.unwrap();
    assert_eq!(house.settled(paid).await.asked, [], "it came free again");
    house
        .matchmaker
        .cast(MatchmakerMsg::Released(node))
        .unwrap();
    let asked = async { while house.settled(paid).await.asked != [node] {} };
    tokio::time::timeout(MATCHMAKER_LIMIT, asked).await.unwrap();
    house.tree.stop().await;
}

/// All miners of these tests come from one place and have shown nothing.
#[tokio::test(flavor = "multi_thread")]
async fn newcomers_of_a_place_have_one_small_task_at_a_time() {
    let store = store_with_item().await;
    let mut batch = Batch::new();
    for n in [100, 101] {
        let node = NodeId::new([n; 32]);
        batch.put(&NodeRecord { node, ..miner() });
    }
    store.commit(batch).await.unwrap();
    let house = House::checking(&store, CAP).await;
    let mut crowd = house.crowd(2).await;
    let (first, _) = house.post(1).await;
    let [taker, other] = [100, 101].map(|n| NodeId::new([n; 32]));
    for node in house.settled(first).await.asked {
        if node != taker {
            house.decline(first, node).await;
        }
    }
    house.offer(first, taker).await;
    assert_eq!(house.settled(first).await.seats.len(), 1);
    let (second, _) = house.post(2).await;
    for node in house.settled(second).await.asked {
        house.offer(second, node).await;
    }
    let run = house.settled(second).await;
    assert_eq!((run.seats.len(), run.asked), (0, Vec::new()));
    let mut told = async || loop {
        if let Some(Command::Withdraw { reason, .. }) = crowd[1].recv().await {
            return reason;
        }
    };
    let reason = tokio::time::timeout(MATCHMAKER_LIMIT, told())
        .await
        .unwrap();
    assert!(
        reason.contains("a newcomer from the same place works already"),
        "{reason}"
    );
    let explain = |reply| MatchmakerMsg::Explain(Box::new(house.run(second)), reply);
    let told = house.matchmaker.call(explain, MATCHMAKER_LIMIT).await;
    let told = told.unwrap().unwrap();
    let of_other = told.verdicts.iter().find(|v| v.node == other).unwrap();
    assert!(
        of_other.reason.contains("from the same place"),
        "{of_other:?}"
    );

    // The first task is over: now the others may.
    let cancel = house.signed(3, Action::Cancel { task: first });
    house.cancel(cancel, first).await.unwrap();
    let asked = async {
        loop {
            let asked = house.settled(second).await.asked;
            if asked.contains(&other) {
                return;
            }
        }
    };
    tokio::time::timeout(MATCHMAKER_LIMIT, asked).await.unwrap();
    house.tree.stop().await;
}

/// What is too much for whoever is there is said with the price, not after the posting.
#[tokio::test(flavor = "multi_thread")]
async fn a_quote_says_where_a_task_is_too_much_for_newcomers() {
    for (allowance, fits) in [(CAP, true), (Amount::ZERO, false)] {
        let store = store_with_item().await;
        let mut batch = Batch::new();
        let node = NodeId::new([100; 32]);
        batch.put(&NodeRecord { node, ..miner() });
        store.commit(batch).await.unwrap();
        let house = House::checking(&store, allowance).await;
        let _crowd = house.crowd(1).await;
        let quote = |reply| MatchmakerMsg::QuoteOf {
            account: miner().owner,
            spec: Box::new(spec()),
            materials: Box::new(materials()),
            reply,
        };
        let quote = house.matchmaker.call(quote, MATCHMAKER_LIMIT).await;
        let quote = quote.unwrap().unwrap();
        assert_eq!(quote.time_p50_ms.is_some(), fits, "{quote:?}");
        let said = quote.notes.iter().any(|note| note.contains("are new"));
        assert_eq!(said, !fits, "{quote:?}");
        house.tree.stop().await;
    }
}

/// As the matchmaker's outbox does it, once it is on the disk.
async fn heard(house: &House, evidence: EvidenceRecord) {
    let mut batch = Batch::new();
    batch.put(&evidence);
    house.store.commit(batch).await.unwrap();
    let node = evidence.node;
    house.rating.cast(RatingMsg::Heard(evidence)).unwrap();
    house.matchmaker.cast(MatchmakerMsg::Rated(node)).unwrap();
}

fn evidence(number: u64, at: Timestamp, evidence: Evidence) -> EvidenceRecord {
    EvidenceRecord {
        task: TaskId::new([8; 16]),
        number,
        node: miner().node,
        owner: miner().owner,
        at,
        evidence,
    }
}

async fn rating(house: &House) -> RatingView {
    let ask = |reply| RatingMsg::RatingsOf(vec![miner().node], reply);
    let mut views = house.rating.call(ask, RATING_LIMIT).await.unwrap();
    RatingView {
        at: Timestamp::from_ms(0),
        ..views.remove(0)
    }
}

async fn store_with_miner() -> StateStore {
    let store = StateStore::in_memory().unwrap();
    let mut batch = Batch::new();
    batch.put(&miner());
    store.commit(batch).await.unwrap();
    store
}

/// What is heard late, or twice, counts in its place: a restart comes to the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_rating_is_the_same_in_whatever_order_it_is_heard() {
    let store = store_with_miner().await;
    let house = House::open(&store, HOUR_MS).await;
    let start = clock::now();
    let kinds = [
        Evidence::Done { agreed: true },
        cryptomind_core::rating::failed("silent for 1.5 s"),
        Evidence::Speed {
            achieved_mflops: 700,
            promised_mflops: 1_000,
        },
        Evidence::Left {},
    ];
    // 7 and 40 have no common part: each place once, in no order.
    for n in (0..40).map(|n| n * 7 % 40) {
        let at = Timestamp::from_ms(start.as_ms() - (40 - n) * 24 * HOUR_MS);
        let piece = evidence(n, at, kinds[n as usize % kinds.len()].clone());
        heard(&house, piece.clone()).await;
        heard(&house, piece).await;
    }
    let before = rating(&house).await;
    assert_eq!((before.done, before.failed, before.left), (10, 10, 10));
    assert_eq!(before.parts.speed_ppm, 700_000);
    house.tree.stop().await;
    let house = House::open(&store, HOUR_MS).await;
    assert_eq!(rating(&house).await, before);
}

/// A house whose miner failed four times, so long ago.
async fn house_of_failures(ago_ms: u64) -> House {
    let house = House::open(&store_with_miner().await, HOUR_MS).await;
    let at = Timestamp::from_ms(clock::now().as_ms() - ago_ms);
    for number in 0..4 {
        let failed = cryptomind_core::rating::failed("gone");
        heard(&house, evidence(number, at, failed)).await;
    }
    house
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_again_and_again_is_passed_over_and_told_why() {
    let house = house_of_failures(0).await;
    assert!(rating(&house).await.bar.is_some());
    let ask = |reply| MatchmakerMsg::WhyNoWork(miner().owner, reply);
    let rows = house.matchmaker.call(ask, MATCHMAKER_LIMIT).await;
    let idle = &rows.unwrap().unwrap()[0].reason;
    assert!(idle.contains("rests"), "{idle}");
    let (task, _) = house.post(1).await;
    let run = house.settled(task).await;
    assert_eq!(run.asked, [], "it rests");
    let explain = |reply| MatchmakerMsg::Explain(Box::new(run), reply);
    let told = house.matchmaker.call(explain, MATCHMAKER_LIMIT).await;
    let told = told.unwrap().unwrap();
    assert_eq!(told.able, 0);
    let reason = &told.verdicts[0].reason;
    assert!(reason.contains("failed 4 of its last 4 runs"), "{reason}");
    let advice = told.advice.unwrap();
    assert!(advice.contains("1 get no work"), "{advice}");
    house.tree.stop().await;
}

/// Its ten minutes are over in a second.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_rested_is_asked_by_itself() {
    let house = house_of_failures(599_000).await;
    let (task, _) = house.post(1).await;
    let asked = async { while house.settled(task).await.asked.is_empty() {} };
    tokio::time::timeout(LEDGER_LIMIT, asked).await.unwrap();
    assert_eq!(house.settled(task).await.asked, [miner().node]);
    house.tree.stop().await;
}
