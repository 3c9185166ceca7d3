//! A seeded simulation of the market on virtual time: several tasks share one ledger and one set of miners that die,
//! rejoin, lie, repeat themselves and fall silent, under clients that cancel and a coordinator that restarts.
//!
//! Whatever happens, nothing is paid twice, no miner sits in two groups, every task ends and is settled once,
//! and the supply stays. A seed replays its schedule; a failure names it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cryptomind_core::ledger::{Ledger, Op, Share};
use cryptomind_core::market::Offer;
use cryptomind_core::price::{Extent, ItemUse, Prices, Terms};
use cryptomind_core::rating::{self, Evidence, Rating};
use cryptomind_core::run::{Effect, Input, Limits, Run};
use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo};
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::{Layer, ModelSpec};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::node::{Position, Report};
use cryptomind_protocol::task::{
    Member, Metrics, Optimizer, ResultFile, TaskSpec, TaskState, TrainSpec, Work,
};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{
    AccountId, Amount, BlobId, ItemId, NodeId, SecretKey, TaskId, Timestamp,
};

const SEEDS: u64 = 200;
const MINERS: u8 = 7;
const STEPS: u64 = 40;
const CAP: Amount = Amount::from_base_units(1_000_000);
const STORAGE: AccountId = AccountId::new([95; 20]);

/// A small generator (SplitMix64), so that a seed replays a schedule.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33) % sides
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
    now: Timestamp,
    ledger: Ledger,
    runs: Vec<Run>,
    miners: BTreeMap<NodeId, Miner>,
    ratings: BTreeMap<NodeId, Rating>,
    earned: BTreeSet<(TaskId, u64)>,
    settled: BTreeSet<TaskId>,
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
    };
    let model = ModelSpec {
        input: vec![4],
        layers: vec![Layer::Linear { out: 2 }],
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
    }
}

fn terms(spec: &TaskSpec) -> Terms {
    let dataset = DatasetInfo {
        format: DataFormat::Csv {
            file: "a.csv".into(),
            label: "y".into(),
            split_seed: 0,
        },
        train_samples: 100,
        test_samples: 10,
        input: vec![4],
        classes: vec!["a".into(), "b".into()],
    };
    let units = Amount::from_base_units;
    let prices = Prices {
        unit_price: units(1_000_000_000_000),
        storage_per_mib: units(7),
        network_fee_ppm: 10_000,
    };
    let item = ItemUse {
        item: ItemId::new([1; 16]),
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
        let (now, units) = (Timestamp::from_ms(1000), Amount::from_base_units);
        let rest = SUPPLY.checked_sub(units(5_000_000)).unwrap();
        let clients = [
            (account(80), units(2_500_000)),
            (account(81), units(2_500_000)),
        ];
        let allocations = clients.into_iter().chain([(account(82), rest)]).collect();
        let mut ledger = Ledger::default();
        ledger.apply(Op::Genesis { allocations }, now).unwrap();
        let nodes = (1..=MINERS).map(|n| NodeId::new([n; 32]));
        let key = SecretKey::from_seed([1; 32]);
        Self {
            seed,
            dice: Dice(seed),
            now,
            ledger,
            runs: Vec::new(),
            miners: nodes.clone().map(|n| (n, Miner::default())).collect(),
            ratings: nodes.map(|n| (n, Rating::new(n, now))).collect(),
            earned: BTreeSet::new(),
            settled: BTreeSet::new(),
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
        let (available, op) = (
            self.ledger.balance(&payer).available,
            Op::OpenHold {
                task,
                payer,
                amount: CAP,
            },
        );
        let opened = self.ledger.apply(op, self.now);
        assert_eq!(opened.is_ok(), available >= CAP);
        if opened.is_ok() {
            let limits = Limits {
                offer_window_ms: 400,
                wait_ms: 60_000,
                prepare_ms: 20_000,
            };
            let terms = terms(&spec);
            let (run, effects) = Run::open(task, payer, spec, terms, limits, self.free(), self.now);
            self.runs.push(run);
            self.carry_out(self.runs.len() - 1, effects);
            self.drain();
        }
    }

    fn feed(&mut self, at: usize, input: Input) {
        self.inbox.push_back((at, input));
        self.drain();
    }

    /// News arrives in the order in which it was sent, and before anything else happens.
    fn drain(&mut self) {
        while let Some((at, input)) = self.inbox.pop_front() {
            let effects = self.runs[at].apply(input, self.now);
            self.carry_out(at, effects);
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
            assert!(
                run.seats.iter().all(|seat| seated.insert(seat.member.node)),
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
        let (task, now) = (self.runs[at].task, self.now);
        match effect {
            Effect::Announce(nodes) => nodes.into_iter().for_each(|node| self.asked(at, node)),
            Effect::AskFree => {
                let free = self.free();
                self.inbox
                    .extend(free.into_iter().map(|node| (at, Input::Free(node))));
            }
            Effect::Withdraw { node, .. } | Effect::Stop { node, .. } => self.release(node, task),
            Effect::Match { only } => self.matched(at, only),
            Effect::Pause { nodes, attempt } => nodes
                .into_iter()
                .for_each(|node| self.paused(at, node, attempt)),
            Effect::Earn { checkpoint, shares } => {
                assert!(
                    self.earned.insert((task, checkpoint)),
                    "a checkpoint earned twice"
                );
                let share = |(m, amount): (Member, Amount)| Share {
                    account: m.owner,
                    node: m.node,
                    amount,
                };
                let shares = shares.into_iter().map(share).collect();
                let op = Op::Earn {
                    task,
                    checkpoint,
                    shares,
                };
                self.ledger.apply(op.clone(), now).unwrap();
                let before = self.ledger.hold(&task).cloned();
                drop(self.ledger.apply(op, now));
                assert_eq!(
                    self.ledger.hold(&task).cloned(),
                    before,
                    "a repeated report earned again"
                );
            }
            Effect::Settle(fees) => {
                assert!(self.settled.insert(task), "settled twice");
                let op = Op::Settle { task, fees };
                let changes = self.ledger.apply(op.clone(), now).unwrap();
                self.ledger.apply(op, now).unwrap_err();
                let payments = changes.holds[0].payments().to_vec();
                assert_eq!(Amount::sum(payments.iter().map(|p| p.amount)), Some(CAP));
                self.runs[at].settled(payments);
            }
            Effect::Praise(node) => self.rate(node, Evidence::Done),
            Effect::Blame { node, reason } => self.rate(node, Evidence::Failed { reason }),
            Effect::Tell { .. } | Effect::Publish { .. } => {}
        }
    }

    fn rate(&mut self, node: NodeId, evidence: Evidence) {
        let worse = matches!(evidence, Evidence::Failed { .. });
        let rated =
            rating::apply(self.ratings.get_mut(&node).unwrap(), evidence, self.now).unwrap();
        assert_eq!(worse, rated.after_milli < rated.before_milli);
    }
}

// Miners.
impl Market {
    /// A free miner offers, declines, or says nothing.
    fn asked(&mut self, at: usize, node: NodeId) {
        let (miner, mood) = (self.miners.get_mut(&node).unwrap(), self.dice.roll(10));
        let number = node.as_bytes()[0];
        if miner.dead || mood == 0 {
            return;
        }
        if miner.engaged.is_some() || mood == 1 {
            let reason = "busy".into();
            return self.inbox.push_back((at, Input::Declined { node, reason }));
        }
        miner.engaged = Some(self.runs[at].task);
        let member = Member {
            node,
            name: format!("m{number}"),
            owner: account(number),
        };
        let rating_milli = self.ratings[&node].rating_milli();
        let offer = Offer {
            member,
            ring_address: "r".into(),
            mflops: 100,
            rating_milli,
        };
        self.inbox.push_back((at, Input::Offered(offer)));
    }

    fn release(&mut self, node: NodeId, task: TaskId) {
        let miner = self.miners.get_mut(&node).unwrap();
        if miner.engaged == Some(task) {
            (miner.engaged, miner.position) = (None, None);
            let runs = 0..self.runs.len();
            self.inbox.extend(
                runs.filter(|_| !miner.dead)
                    .map(|at| (at, Input::Free(node))),
            );
        }
    }

    fn matched(&mut self, at: usize, only: Option<NodeId>) {
        let run = &self.runs[at];
        let (task, attempt, committed) = (run.task, run.attempt, run.start_step);
        for seat in run
            .seats
            .iter()
            .filter(|s| only.is_none_or(|n| n == s.member.node))
        {
            let miner = self.miners.get_mut(&seat.member.node).unwrap();
            miner.position = (!miner.dead).then_some(Position {
                task,
                attempt,
                committed,
            });
        }
    }

    fn paused(&mut self, at: usize, node: NodeId, attempt: u32) {
        if self.miners[&node].dead || self.dice.one_in(6) {
            return;
        }
        let (committed, prepared) = (self.runs[at].step + self.dice.roll(2), !self.dice.one_in(4));
        let report = Report::Paused {
            committed,
            prepared,
            ring_address: "s".into(),
        };
        self.inbox
            .push_back((at, self.report(node, attempt, report, None)));
    }

    fn report(
        &self,
        node: NodeId,
        attempt: u32,
        report: Report,
        stored_by: Option<AccountId>,
    ) -> Input {
        Input::Reported {
            node,
            attempt,
            report,
            stored_by,
        }
    }

    /// One member of one group does what comes next, or goes wrong.
    fn work(&mut self) {
        let at = self.dice.roll(self.runs.len() as u64) as usize;
        let (dice, run) = (&mut self.dice, &self.runs[at]);
        let Some(seat) = run.seats.get(dice.roll(3) as usize) else {
            return;
        };
        let node = seat.member.node;
        if self.miners[&node].dead || run.state.is_final() {
            return;
        }
        let next = (run.verified_step / 10 + 1).min(4) * 10;
        let lie = u8::from(dice.one_in(60));
        let stored = (!dice.one_in(10)).then(|| (file(), self.receipt.clone()));
        let report = match dice.roll(24) {
            0..=5 => Report::Ready { fetched_bytes: 1 },
            6..=8 => Report::Progress {
                step: (run.step + dice.roll(8)).min(STEPS + 1),
                loss: 1.0,
                samples_per_s: 1,
            },
            9..=20 => Report::Checkpoint {
                step: next,
                fingerprint: Hash::of(&[lie, next as u8]),
                stored,
            },
            21 if dice.one_in(3) => {
                let suspect = run.seats.last().map(|seat| seat.member.node);
                Report::RingBroken {
                    committed: run.step,
                    suspect,
                    reason: "silence".into(),
                }
            }
            22 if dice.one_in(4) => Report::Failed {
                task_fault: dice.one_in(3),
                reason: "no room".into(),
            },
            _ => Report::Finished {
                files: vec![file()],
                receipts: Vec::new(),
                metrics: Metrics::default(),
            },
        };
        let attempt = run.attempt - u32::from(run.attempt > 0 && dice.one_in(12));
        let input = self.report(node, attempt, report, Some(STORAGE));
        for _ in 0..1 + self.dice.roll(2) {
            self.feed(at, input.clone());
        }
    }

    /// A miner's connection breaks or its machine dies; or it comes back, with its state or without.
    fn die_or_return(&mut self) {
        let node = NodeId::new([1 + self.dice.roll(MINERS.into()) as u8; 32]);
        let seated = self
            .runs
            .iter()
            .any(|r| !r.state.is_final() && r.seats.iter().any(|s| s.member.node == node));
        let miner = self.miners.get_mut(&node).unwrap();
        miner.dead = !miner.dead;
        if !seated {
            (miner.engaged, miner.position) = (None, None);
        }
        if miner.dead {
            return self.feed_all(&Input::Disconnected(node));
        }
        miner.position = miner.position.filter(|_| self.dice.roll(3) > 0);
        let position = miner.position;
        self.feed_all(&Input::Joined { node, position });
    }

    /// The coordinator restarts: offers are forgotten, groups are not.
    fn restart(&mut self) {
        let seats = self
            .runs
            .iter()
            .flat_map(|run| run.seats.iter().map(|seat| (run.task, seat.member.node)));
        let seats: BTreeSet<_> = seats.collect();
        for (node, miner) in &mut self.miners {
            miner.engaged = miner.engaged.filter(|task| seats.contains(&(*task, *node)));
        }
        for at in 0..self.runs.len() {
            let free = self.free();
            let effects = self.runs[at].resume(free, self.now);
            self.carry_out(at, effects);
        }
        self.drain();
        let back: Vec<_> = self
            .miners
            .iter()
            .filter(|(_, m)| !m.dead)
            .map(|(n, m)| (*n, m.position))
            .collect();
        back.into_iter()
            .for_each(|(node, position)| self.feed_all(&Input::Joined { node, position }));
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.feed_all(&Input::Tick);
    }

    fn live(&mut self, moments: u64) {
        for _ in 0..moments {
            match self.dice.roll(100) {
                _ if self.runs.is_empty() => self.post(),
                0..=2 => self.post(),
                3..=4 => self.die_or_return(),
                5 if self.dice.one_in(4) => self.restart(),
                6 if self.dice.one_in(8) => {
                    let at = self.dice.roll(self.runs.len() as u64) as usize;
                    self.feed(at, Input::Cancel);
                }
                7..=20 => {
                    let ms = self.dice.roll(600);
                    self.pass(ms);
                }
                _ => self.work(),
            }
            self.check();
        }
    }

    /// Nobody works any more: timers alone must end every task.
    fn fall_silent(&mut self) {
        for _ in 0..5000 {
            let Some(next) = self.runs.iter().filter_map(Run::next_timer).min() else {
                return;
            };
            self.pass(next.ms_since(self.now).max(20));
            self.check();
        }
        panic!(
            "tasks are open for ever: {:?}",
            self.runs.iter().map(|r| r.state).collect::<Vec<_>>()
        );
    }
}

#[test]
fn every_task_ends_settled_once_and_the_supply_stays() {
    let mut ends = BTreeMap::<String, u32>::new();
    for seed in 0..SEEDS {
        let mut market = Market::new(seed);
        market.live(100 + seed * 3);
        market.fall_silent();
        assert_eq!(market.ledger.open_holds().count(), 0);
        assert_eq!(market.ledger.held(), Amount::ZERO);
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
}
