//! The crash matrix over a small money workload: purses, a journal of payments, a block number.
//!
//! It does to a file what a ledger does: records are rewritten, others come and go, and some of these
//! are large, so that the file grows and shrinks.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::AtomicU64;

use cryptomind_storage::state::{Batch, Record, StateStore};
use serde::{Deserialize, Serialize};

use crate::backend::SkippedSyncs;
use crate::matrix::{Finding, Script, Violation, Workload};
use crate::trace::{Dice, Loss};

/// Steps of the whole matrix.
const STEPS: usize = 500;
const PURSES: u64 = 24;
const SUPPLY: u64 = 1_000_000;
/// Payments and documents go after so many steps.
const KEPT_STEPS: usize = 40;
/// Documents come in every other of such spans, so that the file grows and shrinks.
const SPAN_STEPS: usize = 60;
const DOCUMENT_BYTES: usize = 12_000;

#[derive(Debug, Hash, Serialize, Deserialize)]
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

#[derive(Debug, Hash, Serialize, Deserialize)]
struct Payment {
    block: u64,
    from: u64,
    to: u64,
    /// The balances that it leaves.
    from_after: u64,
    to_after: u64,
}

impl Record for Payment {
    const TABLE: &'static str = "payments/1";
    fn key(&self) -> Vec<u8> {
        self.block.to_be_bytes().into()
    }
}

#[derive(Debug, Hash, Serialize, Deserialize)]
struct Head(u64);

impl Record for Head {
    const TABLE: &'static str = "head/1";
    fn key(&self) -> Vec<u8> {
        b"head".into()
    }
}

#[derive(Debug, Hash, Serialize, Deserialize)]
struct Document(u64, String);

impl Record for Document {
    const TABLE: &'static str = "documents/1";
    fn key(&self) -> Vec<u8> {
        self.0.to_be_bytes().into()
    }
}

impl Payment {
    fn balances(&self) -> [(u64, u64); 2] {
        [(self.from, self.from_after), (self.to, self.to_after)]
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
        let [from_before, to_before] = [from, to].map(|number| purse(store, number).balance);
        let amount = dice.next() % (from_before + 1);
        let payment = Payment {
            block,
            from,
            to,
            from_after: from_before - amount,
            to_after: to_before + amount,
        };
        let mut batch = Batch::new();
        for (number, balance) in payment.balances() {
            batch.put(&Purse { number, balance });
        }
        batch.put(&payment);
        batch.put(&Head(block));
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
        if let Some(old) = number.checked_sub(KEPT_STEPS) {
            let key = (old as u64).to_be_bytes();
            batch.delete::<Payment>(&key);
            batch.delete::<Document>(&key);
        }
        if number / SPAN_STEPS % 2 == 1 && number.is_multiple_of(4) {
            let text = "text ".repeat(dice.below(DOCUMENT_BYTES / 5));
            batch.put(&Document(block, text));
        }
        batch
    }

    fn content(&self, store: &StateStore) -> Result<Vec<u8>, String> {
        let mut hasher = DefaultHasher::new();
        load::<Purse>(store)?.hash(&mut hasher);
        load::<Payment>(store)?.hash(&mut hasher);
        load::<Head>(store)?.hash(&mut hasher);
        load::<Document>(store)?.hash(&mut hasher);
        Ok(hasher.finish().to_be_bytes().into())
    }

    /// The journal has every block of the last steps up to the head, the purses are what it says,
    /// and nothing was made or lost.
    fn check(&self, store: &StateStore, steps: usize) -> Result<(), String> {
        let head = load::<Head>(store)?.first().map(|head| head.0);
        expect(head, (steps as u64).checked_sub(1), "the head")?;
        let payments = load::<Payment>(store)?;
        let blocks = payments.iter().map(|payment| payment.block as usize);
        let last = (steps.saturating_sub(KEPT_STEPS).max(1)..steps).collect::<Vec<_>>();
        expect(blocks.collect(), last, "the journal's blocks")?;
        let purses = load::<Purse>(store)?;
        let purses = purses.iter().map(|purse| (purse.number, purse.balance));
        let purses = purses.collect::<BTreeMap<_, _>>();
        let supply = if steps == 0 { 0 } else { SUPPLY };
        expect(purses.values().sum(), supply, "the supply")?;
        let said = payments.iter().flat_map(Payment::balances);
        for (number, balance) in said.collect::<BTreeMap<_, _>>() {
            expect(purses.get(&number), Some(&balance), "a balance")?;
        }
        Ok(())
    }
}

fn expect<T: PartialEq + std::fmt::Debug>(found: T, wanted: T, what: &str) -> Result<(), String> {
    let right = found == wanted;
    right
        .then_some(())
        .ok_or_else(|| format!("{what}: {found:?} instead of {wanted:?}"))
}

/// The first half of each payment in one batch, the second in the next: a planted mistake.
struct Halves;

impl Workload for Halves {
    fn step(&self, store: &StateStore, number: usize) -> Batch {
        if number == 0 {
            return Money::genesis();
        }
        let block = number as u64;
        let (from, to) = two_purses(&mut Dice::new(block / 2));
        let mut changed = purse(store, [to, from][number % 2]);
        let change = [1, -1][number % 2];
        changed.balance = changed.balance.strict_add_signed(change);
        let mut batch = Batch::new();
        batch.put(&changed);
        batch.put(&Head(block));
        batch
    }

    fn content(&self, store: &StateStore) -> Result<Vec<u8>, String> {
        Money.content(store)
    }

    fn check(&self, store: &StateStore, steps: usize) -> Result<(), String> {
        let purses = load::<Purse>(store)?;
        let supply = purses.iter().map(|purse| purse.balance).sum();
        expect(supply, if steps == 0 { 0 } else { SUPPLY }, "the supply")
    }
}

#[test]
fn a_power_cut_at_any_sync_loses_nothing_acknowledged() {
    let script = Script::new(&Money, STEPS);
    let trace = script.record(|disk| disk);
    assert!(trace.grows() && trace.shrinks());
    let torn = Loss::Torn { unit: 512, seed: 7 };
    let second = [Loss::Everything, Loss::Subset(7), torn, Loss::Short(7)];
    let report = script.matrix(&trace, &Loss::kinds(3), &second);
    println!("{report:?}");
    report.expect_none();
}

#[test]
fn a_record_of_a_run_is_the_same_every_time() {
    let script = Script::new(&Money, 80);
    assert_eq!(script.record(|disk| disk), script.record(|disk| disk));
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
        let lost = |finding: &Finding| matches!(finding.violation, Violation::Lost { .. });
        let lost = report.findings.iter().any(lost);
        assert!(lost, "one of {every} syncs is skipped: {report:?}");
    }
}

#[test]
fn the_matrix_sees_half_a_payment() {
    let script = Script::new(&Halves, 20);
    let report = script.matrix(&script.record(|disk| disk), &Loss::kinds(1), &[]);
    let broken = |finding: &Finding| matches!(finding.violation, Violation::Broken(_));
    assert!(report.findings.iter().any(broken), "{report:?}");
}
