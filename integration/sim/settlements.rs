//! Ten thousand tasks are settled while three in ten of all orders that concern money come a second time, any time
//! later: after later checkpoints, after the settlement, in the middle of other tasks.
//!
//! The expectation is kept here by plain sums, not by the ledger: each hold pays exactly what it owes, once; no
//! repeated order moves anything; at the end every account has what the sums say, to the last base unit.

use std::collections::BTreeMap;

use cryptomind_core::ledger::{Changes, Ledger, Op, Refusal, Rules};
use cryptomind_protocol::block::{Ending, HoldTerms, Share};
use cryptomind_protocol::genesis::{Allocation, FeeTable, Withholding};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{AccountId, Amount, NodeId, TaskId, Timestamp};

use crate::Dice;

const TASKS: u64 = 10_000;
/// Open at a time: so far apart orders change places.
const OPEN: usize = 50;
const CLIENTS: u64 = 10;
const MINERS: u64 = 20;
const OWNERS: u64 = 5;
/// Repeated orders wait here; when there are so many, one comes out with each new order.
const LATE: usize = 200;
const START: u64 = 1_000_000_000;

fn units(units: u64) -> Amount {
    Amount::from_base_units(units)
}

/// Clients are 0.., miners 100.., owners of items 200...
fn account(number: u64) -> AccountId {
    AccountId::new([number as u8; 20])
}

/// A task from its hold to its settlement, with what it must pay.
struct Task {
    id: TaskId,
    payer: AccountId,
    amount: u64,
    /// The owner of the item in use, and what is due to it.
    item: (AccountId, u64),
    checkpoints: u64,
    /// Checkpoints that have earned.
    earned: u64,
    is_open: bool,
    /// Base units by payee and reason: work and fees. The rest goes back.
    owed: BTreeMap<(AccountId, Reason), u64>,
}

impl Task {
    fn draw(number: u64, dice: &mut Dice) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Self {
            id: TaskId::new(id),
            payer: account(dice.roll(CLIENTS)),
            amount: 1_000 + dice.roll(9_000),
            item: (account(200 + dice.roll(OWNERS)), dice.roll(900)),
            checkpoints: dice.roll(5),
            earned: 0,
            is_open: false,
            owed: BTreeMap::new(),
        }
    }

    fn paid(&self) -> u64 {
        self.owed.values().sum()
    }

    fn owe(&mut self, to: AccountId, reason: Reason, amount: u64) {
        *self.owed.entry((to, reason)).or_default() += amount;
    }

    fn open(&self) -> Op {
        Op::OpenHold {
            task: self.id,
            payer: self.payer,
            amount: units(self.amount),
            terms: HoldTerms {
                expires: NOW.plus_ms(1),
                work_max: units(self.amount - self.item.1),
                items: vec![(self.item.0, units(self.item.1))],
                storage_per_mib: Amount::ZERO,
                storage_max: Amount::ZERO,
                network_fee_ppm: 0,
            },
        }
    }

    /// The next checkpoint: one to three miners earn a part of what is left.
    fn earn(&mut self, dice: &mut Dice) -> Op {
        self.earned += 1;
        let mut shares = Vec::new();
        for _ in 0..1 + dice.roll(3) {
            let miner = 100 + dice.roll(MINERS);
            let amount = dice.roll((self.amount - self.item.1 - self.paid()) / 4 + 1);
            let (account, node) = (account(miner), NodeId::new([miner as u8; 32]));
            self.owe(account, Reason::Work, amount);
            let amount = units(amount);
            shares.push(Share {
                account,
                node,
                amount,
            });
        }
        Op::Earn {
            task: self.id,
            checkpoint: self.earned * 10,
            shares,
        }
    }

    fn settle(&mut self) -> Op {
        let (payee, amount) = self.item;
        self.owe(payee, Reason::ItemFee, amount);
        let ending = Ending {
            items_used: true,
            ..Ending::default()
        };
        Op::Settle {
            task: self.id,
            ending,
        }
    }
}

struct Settlements {
    seed: u64,
    dice: Dice,
    ledger: Ledger,
    tasks: Vec<Task>,
    late: Vec<Op>,
    /// Base units that each account must have, and what open holds keep of it.
    balances: BTreeMap<AccountId, (u64, u64)>,
    orders: u64,
    repeated: u64,
    settled: u64,
}

impl Drop for Settlements {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this happened with seed {}", self.seed);
        }
    }
}

impl Settlements {
    fn new(seed: u64) -> Self {
        let clients = (0..CLIENTS).map(account);
        let mut allocations: Vec<_> = clients.map(|client| (client, units(START))).collect();
        let rest = SUPPLY.checked_sub(units(CLIENTS * START)).unwrap();
        let balances = allocations.iter().map(|(client, _)| (*client, (START, 0)));
        let balances = balances.collect();
        allocations.push((AccountId::of_system("reserve"), rest));
        let allocation = |(account, amount)| Allocation {
            name: "start".into(),
            account,
            amount,
            vesting: None,
        };
        let mint = Op::Mint {
            allocations: allocations.into_iter().map(allocation).collect(),
            created: NOW,
        };
        let mut ledger = Ledger::new(RULES);
        ledger.apply([mint], NOW).unwrap();
        Self {
            seed,
            dice: Dice::new(seed),
            ledger,
            tasks: Vec::new(),
            late: Vec::new(),
            balances,
            orders: 0,
            repeated: 0,
            settled: 0,
        }
    }

    /// An order comes for the first time; three in ten will come again.
    fn order(&mut self, op: Op) -> Changes {
        self.orders += 1;
        // Whether a posting comes again is for the transaction's id to notice, not for its hold.
        if self.dice.roll(10) < 3 && !matches!(op, Op::OpenHold { .. }) {
            self.late.push(op.clone());
        }
        self.ledger.apply([op], NOW).unwrap()
    }

    /// An order that was carried out before comes again: nothing moves.
    fn repeat(&mut self) {
        let nth = self.dice.roll(self.late.len() as u64) as usize;
        let op = self.late.swap_remove(nth);
        self.repeated += 1;
        let is_settlement = matches!(op, Op::Settle { .. });
        match self.ledger.apply([op], NOW) {
            Ok(changes) => {
                assert!(!is_settlement, "a hold is settled once");
                assert!(changes.is_empty(), "paid twice: {changes:?}");
            }
            Err(refusal) => {
                assert!(matches!(refusal, Refusal::HoldNotOpen(_)), "{refusal}");
            }
        }
    }

    /// One of the open tasks goes one order further.
    fn step(&mut self) {
        let nth = self.dice.roll(self.tasks.len() as u64) as usize;
        let mut task = self.tasks.swap_remove(nth);
        if !task.is_open {
            self.order(task.open());
            task.is_open = true;
            self.balances.get_mut(&task.payer).unwrap().1 += task.amount;
        } else if task.earned < task.checkpoints {
            let op = task.earn(&mut self.dice);
            self.order(op);
        } else {
            return self.settle(task);
        }
        self.tasks.push(task);
    }

    fn settle(&mut self, mut task: Task) {
        let op = task.settle();
        let changes = self.order(op);
        let mut paid = BTreeMap::new();
        for t in &changes.transfers {
            assert_eq!((t.payer, t.task), (task.payer, Some(task.id)));
            *paid.entry((t.payee, t.reason)).or_default() += t.amount.base_units();
        }
        self.book(&task);
        let rest = task.amount - task.paid();
        task.owe(task.payer, Reason::Refund, rest);
        task.owed.retain(|_, amount| *amount > 0);
        assert_eq!(paid, task.owed, "exactly what is owed");
        self.settled += 1;
    }

    fn book(&mut self, task: &Task) {
        let payer = self.balances.get_mut(&task.payer).unwrap();
        payer.0 -= task.paid();
        payer.1 -= task.amount;
        for ((payee, _), amount) in &task.owed {
            self.balances.entry(*payee).or_default().0 += amount;
        }
    }

    fn check(&self) {
        self.ledger.check_invariants().unwrap();
        assert_eq!(self.ledger.supply(), SUPPLY);
        for (account, (owned, held)) in &self.balances {
            let balance = self.ledger.balance(account);
            let known = (balance.available.base_units(), balance.held.base_units());
            assert_eq!(known, (owned - held, *held), "{account}");
        }
    }
}

const NOW: Timestamp = Timestamp::from_ms(1);

const RULES: Rules = Rules {
    fees: FeeTable {
        send: Amount::ZERO,
        post: Amount::ZERO,
        least: Amount::ZERO,
        network_fee_ppm: 0,
        reward_fund_ppm: 0,
    },
    withholding: Withholding {
        period_ms: 1,
        max_ppm: 0,
    },
    faucet: Amount::ZERO,
};

fn settle_all(seed: u64) {
    let mut all = Settlements::new(seed);
    let mut posted = 0;
    while all.settled < TASKS {
        while posted < TASKS && all.tasks.len() < OPEN {
            let task = Task::draw(posted, &mut all.dice);
            all.tasks.push(task);
            posted += 1;
        }
        all.step();
        while all.late.len() > LATE {
            all.repeat();
        }
        if all.orders.is_multiple_of(5_000) {
            all.check();
        }
    }
    while !all.late.is_empty() {
        all.repeat();
    }
    all.check();
    assert_eq!(all.ledger.holds().count(), 0, "none is missing");
    assert_eq!(all.ledger.held(), Amount::ZERO);
    let share = all.repeated * 100 / (all.orders - TASKS);
    assert!((28..=32).contains(&share), "{share} % of orders came again");
}

#[test]
fn ten_thousand_settlements_pay_once_whatever_comes_again() {
    settle_all(1);
}
