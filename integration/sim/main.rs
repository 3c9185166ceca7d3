//! A seeded simulation of the market on virtual time: several tasks share one ledger and one set of miners that die,
//! rejoin, lie, repeat themselves and fall silent, under clients that cancel and a coordinator that restarts, is away for
//! days, and whose clock jumps a day back and forth.
//!
//! Whatever happens, nothing is paid twice, no miner sits in two groups, every task ends and is settled once, by its run
//! or by the ledger, nothing expires early, and the supply stays. A seed replays its schedule; a failure names it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cryptomind_core::ledger::{Ledger, Op, Rules};
use cryptomind_core::market::{Ability, Offer, Surroundings};
use cryptomind_core::price::{Extent, ItemUse, Prices, Terms};
use cryptomind_core::rating::{self, Rating};
use cryptomind_core::run::{Effect, Input, Limits, Run, payments};
use cryptomind_protocol::block::{Ending, Transfer};
use cryptomind_protocol::genesis::{Allocation, FeeTable, Withholding};
use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo};
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::node::{Position, Report};
use cryptomind_protocol::rating::Evidence;
use cryptomind_protocol::speed::Engine;
use cryptomind_protocol::task::{
    Conditions, Member, Metrics, Optimizer, Payment, ResultFile, TaskSpec, TaskState, TrainSpec,
    Work,
};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{
    AccountId, Amount, BlobId, ItemId, NodeId, SecretKey, TaskId, Timestamp,
};

mod miners;
mod reasons;
mod settlements;
mod training;

const SEEDS: u64 = 500;
const DAY_MS: u64 = 24 * 3_600_000;
const MINERS: u8 = 7;
const STEPS: u64 = 40;
const CAP: Amount = Amount::from_base_units(1_000_000);
const STORAGE: AccountId = AccountId::new([95; 20]);
/// Longer than a clock jumps.
const HOLD_MS: u64 = 3 * DAY_MS;
const LIMITS: Limits = Limits {
    offer_window_ms: 400,
    wait_ms: 60_000,
    prepare_ms: 20_000,
    hold_ms: HOLD_MS,
};
const RULES: Rules = Rules {
    fees: FeeTable {
        send: Amount::ZERO,
        post: Amount::ZERO,
        least: Amount::ZERO,
        network_fee_ppm: 10_000,
        reward_fund_ppm: 100_000,
    },
    withholding: Withholding {
        period_ms: DAY_MS,
        max_ppm: 250_000,
    },
    faucet: Amount::ZERO,
};

/// A seed replays a schedule.
struct Dice(cryptomind_core::dice::Dice);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(cryptomind_core::dice::Dice::new(seed))
    }

    fn roll(&mut self, sides: u64) -> u64 {
        (self.0.bits() >> 33) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }
}

#[derive(Default, Clone)]
struct Miner {
    dead: bool,
    /// The task that it offered for or works on.
    engaged: Option<TaskId>,
    position: Option<Position>,
}

struct Market {
    seed: u64,
    dice: Dice,
    /// Time as it passes.
    time: Timestamp,
    /// Time as the coordinator's clock shows it: up to a day off.
    now: Timestamp,
    /// Of the last block: it never goes back.
    block_time: Timestamp,
    ledger: Ledger,
    runs: Vec<Run>,
    /// When each was posted, as time passes.
    posted: Vec<Timestamp>,
    miners: BTreeMap<NodeId, Miner>,
    ratings: BTreeMap<NodeId, Rating>,
    earned: BTreeSet<(TaskId, u64)>,
    settled: BTreeSet<TaskId>,
    expired_by_ledger: u32,
    inbox: VecDeque<(usize, Input)>,
    receipt: StoredReceipt,
}

impl Drop for Market {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this happened with seed {}", self.seed);
        }
    }
}

fn account(n: u8) -> AccountId {
    AccountId::new([n; 20])
}

fn file() -> ResultFile {
    let (name, blob) = ("f".into(), BlobId::new([1; 32]));
    ResultFile {
        name,
        blob,
        bytes: 10,
    }
}

fn spec(miners: u32) -> TaskSpec {
    let optimizer = Optimizer::adamw(1e-3);
    let train = TrainSpec {
        epochs: 4,
        global_batch: 10,
        optimizer,
        seed: 1,
        checkpoint_steps: 10,
        ..TrainSpec::default()
    };
    let model = ModelSpec {
        input: vec![4],
        layers: vec![Layer::linear(2)],
        loss: Loss::default(),
    };
    let work = Work::Train {
        dataset: ItemId::new([1; 16]),
        model,
        train,
    };
    TaskSpec {
        name: "sim".into(),
        work,
        miners,
        max_cost: CAP,
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

fn terms(spec: &TaskSpec) -> Terms {
    let dataset = DatasetInfo {
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
    let units = Amount::from_base_units;
    let prices = Prices {
        unit_price: units(1_000_000_000_000),
        storage_per_mib: units(7),
        network_fee_ppm: 10_000,
    };
    let item = ItemUse {
        item: ItemId::new([1; 16]),
        bytes: 1000,
        payee: account(90),
        fee: units(500),
    };
    let terms = Terms::new(
        Extent::of(spec, &dataset, None).unwrap(),
        vec![item],
        prices,
    )
    .unwrap();
    terms.check_cap(CAP).unwrap();
    terms
}

impl Market {
    fn new(seed: u64) -> Self {
        let (now, units) = (Timestamp::from_ms(10 * DAY_MS), Amount::from_base_units);
        let rest = SUPPLY.checked_sub(units(5_000_000)).unwrap();
        let clients = [
            (account(80), units(2_500_000)),
            (account(81), units(2_500_000)),
        ];
        let allocation = |(account, amount)| Allocation {
            name: "sim".into(),
            account,
            amount,
            vesting: None,
        };
        let all = clients.into_iter().chain([(account(82), rest)]);
        let mint = Op::Mint {
            allocations: all.map(allocation).collect(),
            created: now,
        };
        let mut ledger = Ledger::new(RULES);
        ledger.apply([mint], now).unwrap();
        let nodes = (1..=MINERS).map(|n| NodeId::new([n; 32]));
        let key = SecretKey::from_seed([1; 32]);
        Self {
            seed,
            dice: Dice::new(seed),
            time: now,
            now,
            block_time: now,
            ledger,
            runs: Vec::new(),
            posted: Vec::new(),
            miners: nodes.clone().map(|n| (n, Miner::default())).collect(),
            ratings: nodes.map(|n| (n, Rating::default())).collect(),
            earned: BTreeSet::new(),
            settled: BTreeSet::new(),
            expired_by_ledger: 0,
            inbox: VecDeque::new(),
            receipt: StoredReceipt::sign(file().blob, 10, now, &key),
        }
    }

    fn free(&self) -> Vec<NodeId> {
        let free = |m: &Miner| !m.dead && m.engaged.is_none();
        self.miners
            .iter()
            .filter(|(_, m)| free(m))
            .map(|(n, _)| *n)
            .collect()
    }

    /// A client posts a task, where it has the money.
    fn post(&mut self) {
        let (payer, task) = (account(80 + self.dice.roll(2) as u8), self.runs.len() as u8);
        let (task, spec) = (TaskId::new([task; 16]), spec(1 + self.dice.roll(3) as u32));
        let (terms, free) = (terms(&spec), self.free());
        let (run, effects) = Run::open(task, payer, spec, terms, LIMITS, free, self.now);
        let (available, op) = (
            self.ledger.balance(&payer).available,
            Op::OpenHold {
                task,
                payer,
                amount: CAP,
                terms: run.terms.hold(run.hold_expires()),
            },
        );
        self.begin_block();
        let opened = self.carry_out_in_ledger(op);
        assert_eq!(opened.is_some(), available >= CAP);
        if opened.is_some() {
            self.runs.push(run);
            self.posted.push(self.time);
            self.carry_out(self.runs.len() - 1, effects);
            self.drain();
        }
    }

    fn carry_out_in_ledger(&mut self, op: Op) -> Option<Vec<Transfer>> {
        let changes = self.ledger.apply([op], self.block_time);
        changes.ok().map(|changes| changes.transfers)
    }

    /// As the ledger does it: a block's time is above the last one's, and what is due by then comes first. Holds that nobody
    /// settled expire: their runs hear of it, once.
    fn begin_block(&mut self) {
        self.block_time = self.block_time.plus_ms(1).max(self.now);
        if self
            .ledger
            .next_due()
            .is_none_or(|due| due > self.block_time)
        {
            return;
        }
        let changes = self.ledger.apply([Op::Due], self.block_time).unwrap();
        for at in 0..self.runs.len() {
            let paid = payments(&changes.transfers, &self.runs[at].task);
            if !paid.is_empty() {
                self.note_settlement(at, &paid);
                let waited = self.time.ms_since(self.posted[at]);
                assert!(waited >= HOLD_MS - 2 * DAY_MS, "expired early");
                self.expired_by_ledger += 1;
                self.inbox.push_back((at, Input::HoldExpired(paid)));
            }
        }
    }

    /// A hold ends once, with all that was in it, and nothing of it ends before its time.
    fn note_settlement(&mut self, at: usize, paid: &[Payment]) {
        assert!(self.settled.insert(self.runs[at].task), "settled twice");
        assert_eq!(Amount::sum(paid.iter().map(|p| p.amount)), Some(CAP));
    }

    fn feed(&mut self, at: usize, input: Input) {
        self.inbox.push_back((at, input));
        self.drain();
    }

    /// News arrives in the order in which it was sent, and before anything else happens.
    fn drain(&mut self) {
        while let Some((at, input)) = self.inbox.pop_front() {
            self.begin_block();
            let run = &self.runs[at];
            let is_held = run.state.is_final() || self.ledger.hold(&run.task).is_some();
            // Where the hold is gone, no posting is taken until the run has heard of it.
            if is_held || matches!(input, Input::HoldExpired(_)) {
                let effects = self.runs[at].apply(input, &Surroundings::default(), self.now);
                self.carry_out(at, effects);
            }
        }
    }

    fn feed_all(&mut self, input: &Input) {
        (0..self.runs.len()).for_each(|at| self.feed(at, input.clone()));
    }

    /// What holds at every moment.
    fn check(&self) {
        self.ledger.check_invariants().unwrap();
        assert_eq!(self.ledger.supply(), SUPPLY);
        let mut seated = BTreeSet::new();
        for run in self.runs.iter().filter(|run| !run.state.is_final()) {
            let seats = run.seats.iter().map(|seat| seat.member.node);
            let newcomers = run.newcomers.iter().map(|n| n.offer.member.node);
            assert!(
                seats.chain(newcomers).all(|node| seated.insert(node)),
                "a miner in two groups"
            );
            assert!(run.earned <= run.terms.work_cost);
            assert_eq!(self.ledger.hold(&run.task).unwrap().earned(), run.earned);
        }
        let waits_for = |task: &TaskId| {
            self.runs
                .iter()
                .any(|r| r.task == *task && r.state.is_final())
        };
        let in_vain = |m: &&Miner| m.engaged.as_ref().is_some_and(waits_for);
        assert_eq!(
            self.miners.values().filter(in_vain).count(),
            0,
            "a miner was not told that a task is over"
        );
    }

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.carry(at, effect);
        }
    }

    fn carry(&mut self, at: usize, effect: Effect) {
        let task = self.runs[at].task;
        reasons::check(&effect);
        match effect {
            Effect::Announce(nodes) => nodes.into_iter().for_each(|node| self.asked(at, node)),
            Effect::AskFree => {
                let free = self.free();
                self.inbox
                    .extend(free.into_iter().map(|node| (at, Input::Free(node))));
            }
            Effect::Withdraw { node, .. } | Effect::Stop { node, .. } => self.release(node, task),
            Effect::Match { only } => self.matched(at, only),
            Effect::Pause { nodes, attempt, .. } => nodes
                .into_iter()
                .for_each(|node| self.paused(at, node, attempt)),
            Effect::Earn { checkpoint, shares } => {
                assert!(
                    self.earned.insert((task, checkpoint)),
                    "a checkpoint earned twice"
                );
                let op = Op::Earn {
                    task,
                    checkpoint,
                    shares,
                };
                self.carry_out_in_ledger(op.clone()).unwrap();
                let before = self.ledger.hold(&task).cloned();
                self.carry_out_in_ledger(op);
                assert_eq!(
                    self.ledger.hold(&task).cloned(),
                    before,
                    "a repeated report earned again"
                );
            }
            Effect::Settle(ending) => self.settle(at, ending),
            Effect::Praise { node, agreed } => self.rate(node, &Evidence::Done { agreed }),
            Effect::LetGo(node) => self.rate(node, &Evidence::Left {}),
            Effect::Blame { node, reason } => self.rate(node, &rating::failed(&reason)),
            Effect::Ran(run) => assert!(run.ms <= run.present_ms && run.flops > 0, "{run:?}"),
            Effect::Tell { .. }
            | Effect::Waited(_)
            | Effect::Keep { .. }
            | Effect::Publish { .. } => {}
        }
    }

    /// As the matchmaker does it: by the ratings that its earners have.
    fn settle(&mut self, at: usize, mut ending: Ending) {
        let withheld = |node: &NodeId| {
            let rating = self.ratings[node].score(self.now).low_milli;
            (
                *node,
                rating::withheld_ppm(rating, RULES.withholding.max_ppm),
            )
        };
        let (run, task) = (&self.runs[at], self.runs[at].task);
        ending.withheld = run.earners.iter().map(withheld).collect();
        let waited = self.time.ms_since(self.posted[at]);
        let early = run.state == TaskState::Expired && waited < LIMITS.wait_ms;
        assert!(!early, "expired after {waited} ms: {}", run.reason);
        let op = Op::Settle { task, ending };
        let transfers = self.carry_out_in_ledger(op.clone()).unwrap();
        assert_eq!(self.carry_out_in_ledger(op), None, "settled again");
        let paid = payments(&transfers, &task);
        self.note_settlement(at, &paid);
        self.runs[at].settled(paid);
    }

    fn rate(&mut self, node: NodeId, evidence: &Evidence) {
        let worse = !matches!(evidence, Evidence::Done { .. });
        let rating = self.ratings.get_mut(&node).unwrap();
        let before = rating.score(self.now).mean_milli;
        rating.hear(evidence, self.now);
        assert_eq!(worse, rating.score(self.now).mean_milli < before);
    }
}

#[test]
fn every_task_ends_settled_once_and_the_supply_stays() {
    let (mut ends, mut by_ledger) = (BTreeMap::<String, u32>::new(), 0);
    for seed in 0..SEEDS {
        let mut market = Market::new(seed);
        market.live(100 + seed * 3);
        market.fall_silent();
        assert_eq!(market.ledger.holds().count(), 0);
        assert_eq!(market.ledger.held(), Amount::ZERO);
        by_ledger += market.expired_by_ledger;
        assert_eq!(market.settled.len(), market.runs.len());
        for run in &market.runs {
            assert!(run.state.is_final() && !run.reason.is_empty() && run.ended.is_some());
            *ends.entry(run.state.to_string()).or_default() += 1;
        }
    }
    use TaskState::{Abandoned, Cancelled, Expired, Failed, Finished};
    for state in [Finished, Cancelled, Failed, Abandoned, Expired] {
        let seen = ends.get(&state.to_string()).copied().unwrap_or_default();
        assert!(seen >= 5, "the simulation tells too little: {ends:?}");
    }
    assert!(by_ledger >= 5, "the coordinator was never away for long");
}
