//! The crash matrix over a small money workload: purses, a journal of payments, a block number.
//!
//! It has what a ledger does to a file: records that are rewritten, a journal that grows, an index
//! from which entries go, and now and then large records that come and go, so that the file grows
//! and shrinks.

use std::sync::atomic::AtomicU64;

use cryptomind_storage::state::{Batch, Record, StateStore};
use serde::{Deserialize, Serialize};

use crate::backend::SkippedSyncs;
use crate::matrix::{Finding, Script, Violation, Workload};
use crate::trace::{Dice, Loss};

const STEPS: usize = 500;
const PURSES: u64 = 24;
const SUPPLY: u64 = 1_000_000;
/// Payments stay in the index of open ones for so many steps, documents in the store.
const OPEN_STEPS: usize = 30;
const DOCUMENT_EVERY: usize = 12;
const DOCUMENT_BYTES: usize = 20_000;

#[derive(Debug, Serialize, Deserialize)]
struct Purse {
    number: u64,
    balance: u64,
}

impl Record for Purse {
    const TABLE: &'static str = "purses/1";
    fn key(&self) -> Vec<u8> {
        self.number.to_be_bytes().into()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Payment {
    block: u64,
    from: u64,
    to: u64,
    amount: u64,
}

impl Record for Payment {
    const TABLE: &'static str = "payments/1";
    fn key(&self) -> Vec<u8> {
        self.block.to_be_bytes().into()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Head(u64);

impl Record for Head {
    const TABLE: &'static str = "head/1";
    fn key(&self) -> Vec<u8> {
        b"head".into()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Open(u64);

impl Record for Open {
    const TABLE: &'static str = "open/1";
    fn key(&self) -> Vec<u8> {
        self.0.to_be_bytes().into()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Document(u64, String);

impl Record for Document {
    const TABLE: &'static str = "documents/1";
    fn key(&self) -> Vec<u8> {
        self.0.to_be_bytes().into()
    }
}

/// Step 0 fills the purses; each other one is a payment in a block of its own.
pub struct Money;

impl Money {
    fn genesis() -> Batch {
        let mut batch = Batch::new();
        let balance = SUPPLY / PURSES;
        (1..PURSES).for_each(|number| batch.put(&Purse { number, balance }));
        let rest = SUPPLY - balance * (PURSES - 1);
        let (number, balance) = (0, rest);
        batch.put(&Purse { number, balance });
        batch.put(&Head(0));
        batch
    }

    fn pay(store: &StateStore, block: u64, dice: &mut Dice) -> Batch {
        let (from, to) = two_purses(dice);
        let balance = |number| purse(store, number).balance;
        let amount = dice.next() % (balance(from) + 1);
        let mut batch = Batch::new();
        for (number, balance) in [(from, balance(from) - amount), (to, balance(to) + amount)] {
            batch.put(&Purse { number, balance });
        }
        batch.put(&Payment {
            block,
            from,
            to,
            amount,
        });
        batch.put(&Head(block));
        batch.put(&Open(block));
        batch
    }
}

fn two_purses(dice: &mut Dice) -> (u64, u64) {
    let from = dice.next() % PURSES;
    let to = (from + 1 + dice.next() % (PURSES - 1)) % PURSES;
    (from, to)
}

fn purse(store: &StateStore, number: u64) -> Purse {
    store.get(&number.to_be_bytes()).unwrap().unwrap()
}

fn load<R: Record>(store: &StateStore) -> Result<Vec<R>, String> {
    store.load().map_err(|error| error.to_string())
}

impl Workload for Money {
    fn step(&self, store: &StateStore, number: usize) -> Batch {
        if number == 0 {
            return Self::genesis();
        }
        let block = number as u64;
        let mut dice = Dice::new(block);
        let mut batch = Self::pay(store, block, &mut dice);
        if let Some(old) = number.checked_sub(OPEN_STEPS) {
            let key = (old as u64).to_be_bytes();
            batch.delete::<Open>(&key);
            batch.delete::<Document>(&key);
        }
        if number.is_multiple_of(DOCUMENT_EVERY) {
            let text = "text ".repeat(dice.below(DOCUMENT_BYTES / 5));
            batch.put(&Document(block, text));
        }
        batch
    }

    fn content(&self, store: &StateStore) -> Result<[u8; 32], String> {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: String| {
            hasher.update(text.as_bytes());
        };
        add(format!("{:?}", load::<Purse>(store)?));
        add(format!("{:?}", load::<Payment>(store)?));
        add(format!("{:?}", load::<Head>(store)?));
        add(format!("{:?}", load::<Open>(store)?));
        add(format!("{:?}", load::<Document>(store)?));
        Ok(hasher.finalize().into())
    }

    /// The purses are what the journal makes of the genesis, the journal has every block up to the
    /// head, and nothing was made or lost.
    fn check(&self, store: &StateStore, steps: usize) -> Result<(), String> {
        let head = load::<Head>(store)?.first().map(|head| head.0);
        expect(head, (steps as u64).checked_sub(1), "the head")?;
        if steps == 0 {
            return Ok(());
        }
        let payments = load::<Payment>(store)?;
        let blocks = payments.iter().map(|payment| payment.block);
        let all = (1..steps as u64).collect::<Vec<_>>();
        expect(blocks.collect(), all, "the journal's blocks")?;
        let purses = load::<Purse>(store)?;
        let balances = purses.iter().map(|purse| purse.balance);
        let balances = balances.collect::<Vec<_>>();
        expect(balances.iter().sum(), SUPPLY, "the supply")?;
        let mut expected = vec![SUPPLY / PURSES; PURSES as usize];
        expected[0] = SUPPLY - SUPPLY / PURSES * (PURSES - 1);
        for payment in &payments {
            expected[payment.from as usize] -= payment.amount;
            expected[payment.to as usize] += payment.amount;
        }
        expect(balances, expected, "the balances")
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(found: T, wanted: T, what: &str) -> Result<(), String> {
    let right = found == wanted;
    right
        .then_some(())
        .ok_or_else(|| format!("{what}: {found:?} instead of {wanted:?}"))
}

#[test]
fn a_power_cut_at_any_sync_loses_nothing_acknowledged() {
    let script = Script::new(&Money, STEPS);
    let trace = script.record(|disk| disk);
    let start = std::time::Instant::now();
    let second = [Loss::Everything, Loss::Subset(7), Loss::Short(7)];
    let report = script.matrix(&trace, &Loss::kinds(2), &second);
    println!("{report:#?} {:?}", start.elapsed());
    report.expect_none();
}

#[test]
fn the_matrix_sees_a_skipped_sync() {
    let script = Script::new(&Money, 60);
    for every in [2, 5, 20] {
        let trace = script.record(|inner| SkippedSyncs {
            inner,
            every,
            syncs: AtomicU64::new(0),
        });
        let report = script.matrix(&trace, &Loss::kinds(1), &[]);
        let lost = |finding: &&Finding| matches!(finding.violation, Violation::Lost { .. });
        let lost = report.findings.iter().filter(lost).count();
        println!("{every}: {lost} {:?}", report.findings.len());
        assert!(lost > 0, "one of {every} syncs skipped: {report:?}");
    }
}
