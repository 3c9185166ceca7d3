//! A seeded simulation: members that die, restart, report twice or never, coordinators that restart. Whatever
//! happens, a task ends, its hold is settled once, and the tokens sum.

use std::sync::LazyLock;

use cryptomind_protocol::genesis::{Allocation, FeeTable, Withholding};
use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo, ModelInfo};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::speed::WorkKind;
use cryptomind_protocol::task::{Conditions, Optimizer, TrainSpec};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{BlobId, GenesisHash, ItemId, SecretKey};

use super::*;
use crate::ledger::{Ledger, Op, Rules};
use crate::market::Ability;
use crate::price::{Extent, ItemUse, Prices};
use crate::rating::{NEWCOMER_LOW_MILLI, withheld_ppm};

mod adopt;
mod blame;
mod choice;
mod demand;
mod effort;
mod leave;
mod lives;
mod newcomer;
mod progress;
mod promise;
mod second;
mod serve;
mod timers;
mod trail;
mod weigh;

const STEPS: u64 = 40;

fn model() -> ModelSpec {
    ModelSpec {
        input: vec![4],
        layers: vec![Layer::linear(2)],
        loss: Loss::default(),
    }
}

fn spec() -> TaskSpec {
    let train = TrainSpec {
        epochs: 4,
        global_batch: 10,
        optimizer: Optimizer::adamw(1e-3),
        seed: 1,
        checkpoint_steps: 10,
        ..TrainSpec::default()
    };
    let model = model();
    TaskSpec {
        name: "test".into(),
        work: Work::Train {
            dataset: ItemId::new([1; 16]),
            model,
            train,
        },
        miners: 3,
        max_cost: Amount::from_base_units(CAP),
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
    let prices = Prices {
        unit_price: Amount::from_base_units(1_000_000_000_000),
        storage_per_mib: Amount::from_base_units(7),
        network_fee_ppm: 10_000,
    };
    let fee = Amount::from_base_units(ITEM_FEE);
    let items = vec![ItemUse {
        item: ItemId::new([1; 16]),
        bytes: 1000,
        payee: owner(ITEM_OWNER),
        fee,
    }];
    let model = ModelInfo {
        spec: model(),
        classes: dataset.classes.clone(),
        dataset: None,
        task: None,
        metrics: Metrics::default(),
    };
    let extent = Extent::of(spec, &dataset, Some(&model)).unwrap();
    Terms::new(extent, items, prices).unwrap()
}

fn owner(n: u8) -> AccountId {
    AccountId::new([n; 20])
}

const NETWORK: GenesisHash = GenesisHash::new([7; 32]);

/// Nodes in the order of their ids.
static KEYS: LazyLock<Vec<(NodeId, SecretKey)>> = LazyLock::new(|| {
    let key = |n| SecretKey::from_seed([n; 32]);
    let with_id = |key: SecretKey| (NodeId::of_key(&key.public()), key);
    let mut keys: Vec<_> = (0..=u8::MAX).map(key).map(with_id).collect();
    keys.sort_by_key(|(id, _)| *id);
    keys
});

fn key(n: u8) -> &'static SecretKey {
    &KEYS[usize::from(n)].1
}

fn node(n: u8) -> NodeId {
    KEYS[usize::from(n)].0
}

fn offer(n: u8) -> Offer {
    let member = Member {
        node: node(n),
        name: format!("m{n}"),
        owner: owner(n),
    };
    Offer {
        member,
        ring_address: format!("host:{n}"),
        engine: Engine::Cpu,
        ability: Ability::new(100, 3500),
    }
}

fn file(n: u8) -> ResultFile {
    ResultFile {
        name: "f".into(),
        blob: BlobId::new([n; 32]),
        bytes: 10,
    }
}

const CLIENT: u8 = 80;
const ITEM_OWNER: u8 = 90;
const STORAGE: u8 = 95;
const CAP: u64 = 1_000_000;
const ITEM_FEE: u64 = 500;

const LIMITS: Limits = Limits {
    offer_window_ms: 400,
    wait_ms: 60_000,
    prepare_ms: 20_000,
    hold_ms: 24 * 3_600_000,
};

/// Withheld earnings come free after this.
const WITHHELD_MS: u64 = 3_600_000;

fn rules() -> Rules {
    Rules {
        fees: FeeTable {
            network_fee_ppm: 10_000,
            ..FeeTable::default()
        },
        withholding: Withholding {
            period_ms: WITHHELD_MS,
            max_ppm: 250_000,
        },
        faucet: Amount::ZERO,
    }
}

/// The world around a run: a ledger, and the nodes' part of it as far as the run can tell.
#[derive(Clone)]
struct World {
    run: Run,
    ledger: Ledger,
    now: Timestamp,
    settled: u32,
    stopped: Vec<NodeId>,
    blamed: Vec<NodeId>,
    praised: Vec<NodeId>,
    let_go: Vec<NodeId>,
    lost: Vec<NodeId>,
    ran: Vec<RunStatistic>,
    waited: Vec<WaitRecord>,
    left: Vec<NodeId>,
    free_wanted: bool,
    /// Who was told to pause, and whether where a step ends.
    pauses: Vec<(Vec<NodeId>, bool)>,
    /// Why the group forms, until it has.
    forms: Option<String>,
    transitions: u64,
    /// The ledger is audited after so many of them.
    audited: u64,
}

impl World {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        let spec = spec();
        let terms = terms(&spec);
        Self::of(spec, terms, limits)
    }

    fn of(spec: TaskSpec, terms: Terms, limits: Limits) -> Self {
        let (task, client, now) = (
            TaskId::new([7; 16]),
            owner(CLIENT),
            Timestamp::from_ms(1000),
        );
        let (run, effects) = Run::open(task, client, spec, terms, limits, nodes(), now);
        let mut world = Self {
            ledger: funded(&run, now),
            run,
            now,
            settled: 0,
            stopped: Vec::new(),
            blamed: Vec::new(),
            praised: Vec::new(),
            let_go: Vec::new(),
            lost: Vec::new(),
            ran: Vec::new(),
            waited: Vec::new(),
            left: Vec::new(),
            free_wanted: false,
            pauses: Vec::new(),
            forms: None,
            transitions: 0,
            audited: 1,
        };
        world.carry_out(effects);
        world
    }

    fn feed(&mut self, input: Input) {
        let effects = self.run.apply(input, &Surroundings::default(), self.now);
        self.carry_out(effects);
        self.transitions += 1;
        self.check();
    }

    /// What holds after every transition.
    fn check(&self) {
        let (run, ledger) = (&self.run, &self.ledger);
        assert!(run.earned <= run.terms.work_cost && run.terms.work_cost <= run.spec.max_cost);
        assert!(!run.reason.is_empty());
        assert_eq!(run.state.is_final(), ledger.hold(&run.task).is_none());
        if let Some(hold) = ledger.hold(&run.task) {
            assert_eq!(hold.earned(), run.earned);
        }
        let owners = ledger
            .accounts()
            .filter(|a| a.debits_posted <= a.credits_posted);
        let owned: u64 = owners.map(|account| account.owned().base_units()).sum();
        assert_eq!(owned, SUPPLY.base_units(), "all tokens are somewhere");
        if self.transitions.is_multiple_of(self.audited) {
            ledger.check_invariants().unwrap();
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Earn { checkpoint, shares } => self.earn(checkpoint, shares),
                Effect::Settle(ending) => self.settle(ending),
                Effect::Stop { node, .. } => self.stopped.push(node),
                Effect::Blame { node, .. } => self.blamed.push(node),
                Effect::Praise { node, .. } => self.praised.push(node),
                Effect::LetGo(node) => self.let_go.push(node),
                Effect::Tell {
                    event: Event::Left { node, .. },
                    ..
                } => self.left.push(node),
                Effect::Tell {
                    event: Event::Lost { node, .. },
                    ..
                } => self.lost.push(node),
                Effect::Tell {
                    event: Event::Waiting { reason } | Event::Regroups { reason },
                    ..
                } => {
                    assert!(!reason.is_empty());
                    self.forms = Some(reason);
                }
                Effect::Tell {
                    event: Event::Matched { attempt, .. },
                    ..
                } => {
                    let was_said = self.forms.take().is_some();
                    assert!(was_said || attempt == 1, "no attempt is without a cause");
                }
                Effect::Ran(run) => self.ran.push(run),
                Effect::Waited(wait) => self.waited.push(wait),
                Effect::AskFree => self.free_wanted = true,
                Effect::Pause {
                    nodes, at_step_end, ..
                } => self.pauses.push((nodes, at_step_end)),
                _ => {}
            }
        }
    }

    fn earn(&mut self, checkpoint: u64, shares: Vec<Share>) {
        let op = Op::Earn {
            task: self.run.task,
            checkpoint,
            shares,
        };
        self.ledger.apply([op], self.now).unwrap();
        let earning = (1..30).map(|n| self.ledger.balance(&owner(n)).earning);
        assert_eq!(Amount::sum(earning), Some(self.run.earned));
    }

    /// As the matchmaker does it, every node rated as a newcomer.
    fn settle(&mut self, mut ending: Ending) {
        let withheld = withheld_ppm(NEWCOMER_LOW_MILLI, rules().withholding.max_ppm);
        ending.withheld = self.run.earners.iter().map(|n| (*n, withheld)).collect();
        self.settled += 1;
        let task = self.run.task;
        let op = Op::Settle { task, ending };
        let changes = self.ledger.apply([op], self.now).unwrap();
        self.run.settled(payments(&changes.transfers, &task));
    }

    /// The coordinator is away for so long; when it is back, the ledger comes first.
    fn coordinator_away(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        let changes = self.ledger.apply([Op::Due], self.now).unwrap();
        if self.ledger.hold(&self.run.task).is_none() {
            let payments = payments(&changes.transfers, &self.run.task);
            return self.feed(Input::HoldExpired(payments));
        }
        let effects = self.run.resume(nodes(), self.now);
        self.carry_out(effects);
    }

    /// Who is asked because the run wanted whoever is free.
    fn ask_free(&mut self) {
        if std::mem::take(&mut self.free_wanted) {
            let free = nodes().into_iter();
            free.for_each(|node| self.feed(Input::Free(node)));
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.feed(Input::Tick);
    }

    fn report(&mut self, n: u8, report: Report) {
        let attempt = self.run.attempt;
        let stored_by = Some(owner(STORAGE));
        self.feed(Input::Reported {
            node: node(n),
            attempt,
            report,
            stored_by,
        });
    }

    /// Miners join, are asked, and offer.
    fn offers_of(&mut self, members: &[u8]) {
        for n in members {
            self.feed(Input::Free(node(*n)));
            self.feed(Input::Offered(offer(*n)));
        }
    }

    /// Who was blamed, or will be once the task gets further.
    fn held_against(&self) -> Vec<NodeId> {
        let open = self.run.charges.iter().map(|charge| charge.node);
        self.blamed.iter().copied().chain(open).collect()
    }

    fn match_three(&mut self) {
        (1..=3).for_each(|n| self.feed(Input::Offered(offer(n))));
        self.pass(500);
        assert_eq!(self.run.state, TaskState::Matched);
        (1..=3).for_each(|n| self.report(n, Report::Ready { fetched_bytes: 0 }));
        assert_eq!(self.run.state, TaskState::Running);
    }

    fn checkpoint(&mut self, members: &[u8], step: u64) {
        let fingerprint = Hash::of(&step.to_be_bytes());
        for (rank, n) in members.iter().enumerate() {
            let stored = (rank == 0).then(|| (file(1), receipt()));
            self.report(
                *n,
                Report::Checkpoint {
                    step,
                    fingerprint,
                    computed_ms: 0,
                    stored,
                },
            );
        }
    }

    fn paid(&self, n: u8) -> u64 {
        let payments = self.run.payments.iter();
        let to = payments.filter(|p| p.payee == owner(n));
        to.map(|p| p.amount.base_units()).sum()
    }

    fn work(&self) -> u64 {
        self.run.terms.work_cost.base_units()
    }

    /// The run is over, the hold is gone, every token of it is somewhere.
    fn check_end(&self, state: TaskState) {
        assert_eq!(self.run.state, state, "{}", self.run.reason);
        assert!(!self.run.reason.is_empty() && self.run.next_timer().is_none());
        assert_eq!(self.ledger.hold(&self.run.task), None);
        assert_eq!(self.ledger.held(), Amount::ZERO);
        let payments = self.run.payments.iter();
        let sum: u64 = payments.map(|p| p.amount.base_units()).sum();
        assert_eq!(sum, CAP);
        self.ledger.check_invariants().unwrap();
        assert_eq!(self.ledger.supply(), SUPPLY);
    }
}

/// A ledger in which the run's hold is open.
fn funded(run: &Run, now: Timestamp) -> Ledger {
    let mut ledger = Ledger::new(rules());
    let cap = run.spec.max_cost;
    let rest = SUPPLY.checked_sub(cap).unwrap();
    let allocation = |(account, amount)| Allocation {
        name: "test".into(),
        account,
        amount,
        vesting: None,
    };
    let mint = Op::Mint {
        allocations: [(run.client, cap), (owner(81), rest)]
            .map(allocation)
            .to_vec(),
        created: now,
    };
    let hold = Op::OpenHold {
        task: run.task,
        payer: run.client,
        amount: cap,
        terms: run.terms.hold(run.hold_expires()),
    };
    ledger.apply([mint], now).unwrap();
    ledger.apply([hold], now).unwrap();
    ledger
}

fn nodes() -> Vec<NodeId> {
    (1..=4).map(node).collect()
}

/// Signed once: a signature takes longer than all that a run does with it.
static RECEIPT: LazyLock<StoredReceipt> = LazyLock::new(|| {
    let key = SecretKey::from_seed([1; 32]);
    StoredReceipt::sign(BlobId::new([1; 32]), 10, Timestamp::from_ms(0), &key)
});

fn receipt() -> StoredReceipt {
    RECEIPT.clone()
}

fn finished() -> Report {
    Report::Finished {
        files: vec![file(2)],
        receipts: Vec::new(),
        metrics: Metrics::default(),
    }
}

/// All goes well: everybody gets an equal part of the work, the owner the fee, the client the rest.
#[test]
fn three_members_share_the_work() {
    let mut world = World::new();
    world.match_three();
    (1..=4).for_each(|i| world.checkpoint(&[1, 2, 3], i * 10));
    world.report(1, finished());
    world.check_end(TaskState::Finished);
    assert_eq!(world.settled, 1);
    assert_eq!(
        world.stopped,
        [node(1), node(2), node(3)],
        "members hear that it is over"
    );
    let work = world.work();
    let shares: Vec<_> = (1..=3).map(|n| world.paid(n)).collect();
    assert_eq!(shares.iter().sum::<u64>(), work);
    assert!(
        shares.iter().all(|s| s.abs_diff(work / 3) <= 4),
        "{shares:?}"
    );
    assert_eq!(world.paid(ITEM_OWNER), ITEM_FEE);
    assert_eq!(world.paid(STORAGE), 7, "a MiB begun");
    let network = (work + ITEM_FEE + 7) / 100;
    assert_eq!(world.paid(CLIENT), CAP - work - ITEM_FEE - 7 - network);
}

/// A miner that owns no token takes its first task: what it can lose is only what is withheld of its earnings.
#[test]
fn a_miner_without_a_token_takes_its_first_task() {
    let mut world = World::new();
    let balance = |world: &World| world.ledger.balance(&owner(2));
    assert!(world.ledger.account(&owner(2)).is_none());
    world.match_three();
    (1..=4).for_each(|i| world.checkpoint(&[1, 2, 3], i * 10));
    assert!(!balance(&world).earning.is_zero());
    world.report(1, finished());
    let earned = Amount::from_base_units(world.paid(2));
    let withheld = earned.mul_div(250_000, 1_000_000).unwrap();
    let now = balance(&world);
    assert!(!withheld.is_zero());
    assert_eq!((now.locked, now.earning), (withheld, Amount::ZERO));
    assert_eq!(now.available, earned.checked_sub(withheld).unwrap());
    let unlocks = world.ledger.unlocks(&owner(2)).unwrap();
    assert!(unlocks >= world.now.plus_ms(WITHHELD_MS));
    world.now = unlocks;
    world.ledger.apply([Op::Due], world.now).unwrap();
    let now = balance(&world);
    assert_eq!((now.locked, now.available), (Amount::ZERO, earned));
}

/// A member dies between two checkpoints: it keeps what it earned and gets nothing since.
#[test]
fn a_dead_member_is_not_paid_since_the_last_checkpoint() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 10);
    world.report(
        1,
        Report::Progress {
            step: 15,
            loss: 1.0,
            samples_per_s: 1,
            timeline: Vec::new(),
        },
    );
    let reason = "silent".to_owned();
    world.report(
        2,
        Report::RingBroken {
            committed: 16,
            suspect: Some(node(3)),
            reason,
        },
    );
    assert_eq!(world.run.state, TaskState::Regrouping);
    for (n, committed, prepared) in [(1, 16, false), (2, 15, true)] {
        let ring_address = format!("new:{n}");
        let report = Report::Paused {
            committed,
            prepared,
            ring_address,
        };
        let attempt = world.run.attempt + 1;
        world.feed(Input::Reported {
            node: node(n),
            attempt,
            report,
            stored_by: None,
        });
    }
    assert_eq!(
        world.run.state,
        TaskState::Regrouping,
        "the suspect may still answer"
    );
    world.pass(SUSPECT_LIMIT_MS);
    assert_eq!(
        (world.run.state, world.run.attempt),
        (TaskState::Matched, 2)
    );
    assert_eq!((world.run.start_step, world.run.seats.len()), (16, 2));
    assert_eq!(world.lost, [node(3)]);
    assert!(world.blamed.is_empty(), "it may be the task's fault");
    [1, 2]
        .iter()
        .for_each(|n| world.report(*n, Report::Ready { fetched_bytes: 0 }));
    (2..=4).for_each(|i| world.checkpoint(&[1, 2], i * 10));
    assert_eq!(world.blamed, [node(3)], "the others got further");
    world.report(1, finished());
    assert_eq!(world.run.state, TaskState::Finished);
    let work = world.work();
    assert!(
        world.paid(3).abs_diff(work / 12) <= 2,
        "a third of a quarter: {}",
        world.paid(3)
    );
    assert_eq!((1..=3).map(|n| world.paid(n)).sum::<u64>(), work);
}

/// The result may overtake the last fingerprints; it is delivered once they are there.
#[test]
fn a_result_waits_for_its_last_checkpoint() {
    let mut world = World::new();
    world.match_three();
    world.report(1, finished());
    assert_eq!(world.run.state, TaskState::Running);
    world.checkpoint(&[1, 2, 3], STEPS);
    assert_eq!((world.run.state, world.settled), (TaskState::Finished, 1));
}

/// One member's state differs: it is lost, blamed and named; the other two go on.
#[test]
fn a_member_that_computes_something_else_is_lost() {
    let mut world = World::new();
    world.match_three();
    for n in 1..=3 {
        let stored = (n == 1).then(|| (file(1), receipt()));
        let fingerprint = Hash::of(&[u8::from(n == 2)]);
        world.report(
            n,
            Report::Checkpoint {
                step: 10,
                fingerprint,
                computed_ms: 0,
                stored,
            },
        );
    }
    assert_eq!(world.blamed, [node(2)]);
    assert_eq!(
        (world.run.state, world.run.earned),
        (TaskState::Regrouping, Amount::ZERO)
    );
}

/// One that was asked dies unanswered: the others have answered, and are not kept waiting for it.
#[test]
fn a_group_does_not_wait_for_the_dead() {
    let mut world = World::new();
    (1..=3).for_each(|n| world.feed(Input::Offered(offer(n))));
    assert_eq!(
        world.run.state,
        TaskState::Waiting,
        "the fourth may still offer"
    );
    world.feed(Input::Disconnected(node(4)));
    assert_eq!(world.run.state, TaskState::Matched);
}

/// A member's word about itself is held against what can be: absurd numbers change nothing.
#[test]
fn absurd_numbers_are_passed_over() {
    let mut world = World::new();
    world.match_three();
    world.report(
        1,
        Report::Progress {
            step: u64::MAX,
            loss: 0.0,
            samples_per_s: u64::MAX,
            timeline: Vec::new(),
        },
    );
    let reason = "r".to_owned();
    world.report(
        1,
        Report::RingBroken {
            committed: u64::MAX,
            suspect: None,
            reason,
        },
    );
    let report = Report::Paused {
        committed: u64::MAX,
        prepared: true,
        ring_address: "r".into(),
    };
    let attempt = world.run.attempt + 1;
    world.feed(Input::Reported {
        node: node(1),
        attempt,
        report,
        stored_by: None,
    });
    world.pass(PAUSE_LIMIT_MS);
    assert!(world.run.step <= STEPS && world.run.start_step <= STEPS);
    assert_eq!(
        super::work_after(&world.run, u64::MAX),
        world.run.terms.work_cost
    );
}

/// One member alone cannot fail a task for all.
#[test]
fn a_fault_of_the_task_takes_a_majority() {
    let mut world = World::new();
    world.match_three();
    let fault = || Report::Failed {
        task_fault: true,
        reason: "NaN".into(),
    };
    world.report(1, fault());
    world.report(1, fault());
    assert_eq!(world.run.state, TaskState::Running);
    world.report(2, fault());
    assert_eq!(world.run.state, TaskState::Failed);
}

/// A result that is sent before the work is done is not believed early.
#[test]
fn a_result_before_its_time_ends_nothing() {
    let mut world = World::new();
    world.match_three();
    world.report(1, finished());
    world.checkpoint(&[1, 2, 3], 10);
    assert_eq!((world.run.state, world.settled), (TaskState::Running, 0));
}

/// The matchmaker alone restarts in the middle: members that stayed connected are neither lost nor blamed.
#[test]
fn a_restarted_matchmaker_blames_nobody() {
    let mut world = World::new();
    world.match_three();
    let effects = world.run.resume(nodes(), world.now);
    world.carry_out(effects);
    (1..=3).for_each(|n| world.feed(Input::Present(node(n))));
    world.pass(AWAY_LIMIT_MS);
    assert_eq!(world.run.state, TaskState::Running);
    assert!(world.blamed.is_empty() && world.lost.is_empty());
}

#[test]
fn cancelling_pays_what_was_earned() {
    let mut world = World::new();
    world.match_three();
    world.checkpoint(&[1, 2, 3], 20);
    world.feed(Input::Cancel);
    world.feed(Input::Cancel);
    world.check_end(TaskState::Cancelled);
    assert_eq!(world.settled, 1);
    assert_eq!(
        (1..=3).map(|n| world.paid(n)).sum::<u64>(),
        world.work() / 2
    );
}

/// A small generator, so that a seed replays a schedule.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

fn random_news(world: &mut World, dice: &mut Dice) {
    let n = 1 + dice.roll(4) as u8;
    let step = world.run.step + dice.roll(12);
    let attempt = (world.run.attempt + dice.roll(3) as u32).saturating_sub(dice.roll(2) as u32);
    let fingerprint = Hash::of(&[u8::from(dice.roll(30) == 0)]);
    let report = match dice.roll(11) {
        0 | 1 => Report::Ready { fetched_bytes: 1 },
        2 | 3 => Report::Progress {
            step,
            loss: 1.0,
            samples_per_s: 1,
            timeline: Vec::new(),
        },
        4..=6 => Report::Checkpoint {
            step,
            fingerprint,
            computed_ms: 0,
            stored: Some((file(1), receipt())),
        },
        7 => Report::Paused {
            committed: step,
            prepared: dice.roll(2) == 0,
            ring_address: "r".into(),
        },
        8 => finished(),
        9 if dice.roll(4) == 0 => Report::Leaving {
            reason: "its owner stops it".into(),
        },
        _ if dice.roll(4) == 0 => Report::Failed {
            task_fault: dice.roll(8) == 0,
            reason: "x".into(),
        },
        _ => Report::RingBroken {
            committed: step,
            suspect: Some(node(1)),
            reason: "y".into(),
        },
    };
    let task = world.run.task;
    let position = Some(Position {
        task,
        attempt,
        committed: step,
    })
    .filter(|_| dice.roll(3) > 0);
    match dice.roll(14) {
        0 | 1 => world.feed(Input::Offered(offer(n))),
        2 => world.feed(Input::Declined {
            node: node(n),
            reason: "busy".into(),
        }),
        3 if dice.roll(2) == 0 => world.feed(Input::Present(node(n))),
        3 => world.feed(Input::Disconnected(node(n))),
        4 => world.feed(Input::Joined {
            node: node(n),
            position,
        }),
        5 => world.pass(dice.roll(3000)),
        6 if dice.roll(10) == 0 => world.coordinator_away(dice.roll(3_600_000)),
        6 if dice.roll(100) == 0 => world.coordinator_away(2 * LIMITS.hold_ms),
        7 if dice.roll(60) == 0 => world.feed(Input::Cancel),
        _ => {
            let stored_by = Some(owner(STORAGE)).filter(|_| dice.roll(5) > 0);
            world.feed(Input::Reported {
                node: node(n),
                attempt,
                report,
                stored_by,
            });
        }
    }
    world.ask_free();
}

/// Only timers go on; they alone must end it.
fn fall_silent(world: &mut World) {
    for _ in 0..400 {
        let Some(at) = world.run.next_timer() else {
            return;
        };
        let wait = at.ms_since(world.now).max(100);
        world.pass(wait);
        world.ask_free();
    }
    panic!("{:?} for ever: {}", world.run.state, world.run.reason);
}

/// A thousand random lives: every one ends, is settled once, and keeps the supply.
#[test]
fn every_life_ends_settled_once() {
    let mut by_the_ledger = 0;
    for seed in 0..1000 {
        let (mut world, mut dice) = (World::new(), Dice(seed));
        for _ in 0..dice.roll(200) {
            random_news(&mut world, &mut dice);
        }
        fall_silent(&mut world);
        world.check_end(world.run.state);
        assert!(world.settled <= 1, "seed {seed}");
        by_the_ledger += u32::from(world.settled == 0);
        let again = Op::Settle {
            task: world.run.task,
            ending: Ending::default(),
        };
        world.ledger.apply([again], world.now).unwrap_err();
    }
    assert!((5..500).contains(&by_the_ledger), "{by_the_ledger}");
}
