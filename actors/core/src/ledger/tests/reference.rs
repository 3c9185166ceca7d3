//! The ledger against a naive one, and the same harness against ledgers with planted faults.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};

use super::naive::{Naive, Paid, most};
use super::small::{Group, RICH, Small, begun, groups, id, key, real};
use super::*;

/// Something that keeps a ledger: the honest one, or one with a fault.
trait Books: Sized {
    fn of(ledger: Ledger) -> Self;
    fn ledger(&self) -> &Ledger;
    fn apply(&mut self, ops: Vec<Op>, now: Timestamp) -> Result<Changes, Refusal>;
}

impl Books for Ledger {
    fn of(ledger: Ledger) -> Self {
        ledger
    }

    fn ledger(&self) -> &Ledger {
        self
    }

    fn apply(&mut self, ops: Vec<Op>, now: Timestamp) -> Result<Changes, Refusal> {
        Self::apply(self, ops, now)
    }
}

/// A ledger whose changes are spoilt between being planned and being absorbed.
macro_rules! faulty {
    ($(#[$doc:meta])* $name:ident, $spoil:expr) => {
        $(#[$doc])*
        struct $name(Ledger);

        impl Books for $name {
            fn of(ledger: Ledger) -> Self {
                Self(ledger)
            }

            fn ledger(&self) -> &Ledger {
                &self.0
            }

            fn apply(&mut self, ops: Vec<Op>, now: Timestamp) -> Result<Changes, Refusal> {
                let mut changes = self.0.plan(ops, now)?;
                let spoil: fn(&Ledger, &mut Changes) = $spoil;
                spoil(&self.0, &mut changes);
                self.0.absorb(&changes);
                Ok(changes)
            }
        }
    };
}

faulty!(
    /// A settled hold's amount stays among the client's pending debits.
    ForgottenDecrement,
    |before, changes| {
        let ended = |(task, hold): &(TaskId, Option<Hold>)| {
            before.hold(task).filter(|_| hold.is_none()).cloned()
        };
        for hold in changes.holds.iter().filter_map(ended) {
            let own = |a: &&mut Account| a.id == hold.payer;
            let payer = changes.accounts.iter_mut().find(own).unwrap();
            payer.debits_pending = sum(payer.debits_pending, hold.amount);
        }
    }
);

faulty!(
    /// Work is paid twice, from whatever the client has: debits and credits stay equal.
    DoublePayout,
    |_, changes| {
        let work = |t: &&Transfer| t.reason == Reason::Work && t.payer != t.payee;
        let Some(again) = changes.transfers.iter().find(work).cloned() else {
            return;
        };
        for account in &mut changes.accounts {
            if account.id == again.payer {
                account.debits_posted = account.debits_posted.plus(again.amount);
            }
            if account.id == again.payee {
                account.credits_posted = account.credits_posted.plus(again.amount);
            }
        }
        changes.transfers.push(again);
    }
);

faulty!(
    /// A settled hold stays: whoever repeats the settlement repeats the payment.
    SettledAgain,
    |_, changes| changes.holds.retain(|(_, hold)| hold.is_some())
);

faulty!(
    /// A lock's end is forgotten: its tokens are stranded.
    StrandedLock,
    |before, changes| changes.locks.retain(|(key, lock)| lock.is_some() || before.lock(key).is_none())
);

faulty!(
    /// The fold goes through a map without an order: two machines write different receipts.
    UnsortedFold,
    |_, changes| {
        let parts: HashMap<usize, Transfer> = changes.transfers.drain(..).enumerate().collect();
        changes.transfers = parts.into_values().collect();
    }
);

/// Everything that must be true after every group. The first breach ends it.
struct Harness<B> {
    books: B,
    /// Carries out the same: two executors may not differ.
    twin: B,
    naive: Naive,
    /// Takes over nothing but changes, as a disk does.
    stored: Ledger,
    now: Timestamp,
}

impl<B: Books> Harness<B> {
    fn run(groups: &[Group]) -> Result<(), TestCaseError> {
        let mut harness = Self {
            books: B::of(begun()),
            twin: B::of(begun()),
            naive: Naive::begun(),
            stored: begun(),
            now: NOW,
        };
        groups.iter().try_for_each(|group| harness.step(group))?;
        harness.check_stored()
    }

    fn step(&mut self, (wait, smalls): &Group) -> Result<(), TestCaseError> {
        self.now = self.now.plus_ms(*wait);
        let ops = || -> Vec<Op> { smalls.iter().map(|op| self.real(op)).collect() };
        let (ops, same) = (ops(), ops());
        let before = self.books.ledger().clone();
        let result = self.books.apply(ops, self.now);
        let twin = self.twin.apply(same, self.now);
        prop_assert_eq!(&result, &twin, "two runs differ");
        let expected = self.naive.apply(smalls, self.now);
        let codes = result.as_ref().map(|_| ()).map_err(Refusal::code);
        prop_assert_eq!(codes, expected.clone().map(|_| ()), "{:?}", result);
        match result {
            Ok(changes) => self.check_changes(&before, &changes, &expected.unwrap_or_default())?,
            Err(_) => prop_assert_eq!(self.books.ledger(), &before),
        }
        self.check_balances()?;
        prop_assert_eq!(self.books.ledger().check_invariants(), Ok(()));
        Ok(())
    }

    fn real(&self, op: &Small) -> Op {
        let most = match op {
            Small::Open(_, _, _, terms) => most(terms),
            _ => 0,
        };
        real(op, self.now, most)
    }

    fn check_changes(
        &mut self,
        before: &Ledger,
        changes: &Changes,
        expected: &[Paid],
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(touched::check(before, changes), Ok(()));
        let expected: Vec<Transfer> = expected.iter().map(transfer).collect();
        prop_assert_eq!(&changes.transfers, &expected);
        self.stored.absorb(changes);
        Ok(())
    }

    fn check_balances(&self) -> Result<(), TestCaseError> {
        let ledger = self.books.ledger();
        for number in (1..=RICH).chain(small::FIRST_SYSTEM..small::BOUNTY_NUMBER + 1) {
            let b = ledger.balance(&id(number));
            let seen = [b.available, b.held, b.earning, b.locked];
            let seen = seen.map(|amount| i128::from(amount.base_units()));
            prop_assert_eq!(seen, self.naive.balance(number), "account {}", number);
            let signer = self.naive.signer(number).map(key);
            prop_assert_eq!(ledger.signer(&id(number)), signer);
            let nodes = ledger.delegations_of(&id(number));
            let nodes: Vec<_> = nodes.map(|d| (d.node, d.role, d.expires.as_ms())).collect();
            let expected = self.naive.nodes(number).into_iter();
            prop_assert_eq!(
                nodes,
                expected
                    .map(|(n, role, ms)| (node(n), role, ms))
                    .collect::<Vec<_>>()
            );
        }
        let due = ledger.next_due().map(Timestamp::as_ms);
        prop_assert_eq!(due, self.naive.next_due());
        let counts = (ledger.hold_count(), ledger.lock_count());
        prop_assert_eq!(counts, self.naive.counts());
        prop_assert_eq!(ledger.supply(), SUPPLY);
        Ok(())
    }

    /// The changed records are all that there is to store.
    fn check_stored(&self) -> Result<(), TestCaseError> {
        let s = &self.stored;
        let rebuilt = Ledger::rebuild(
            rules(),
            s.accounts().cloned(),
            s.holds().cloned(),
            s.locks().cloned(),
            s.delegations().cloned(),
        );
        prop_assert_eq!(&rebuilt, self.books.ledger());
        prop_assert_eq!(&rebuilt, self.twin.ledger());
        Ok(())
    }
}

fn transfer(paid: &Paid) -> Transfer {
    let (payer, payee, amount, reason, of, by) = paid;
    Transfer {
        payer: id(*payer),
        payee: id(*payee),
        amount: units(u64::try_from(*amount).unwrap()),
        reason: *reason,
        task: of.map(task),
        node: by.map(node),
    }
}

proptest! {
    // 800 cases of 128 groups, most of one operation: above 110,000.
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn it_does_what_a_naive_ledger_does(groups in groups(128)) {
        Harness::<Ledger>::run(&groups)?;
    }
}

/// How the harness catches a fault: the message of the smallest breach that it finds.
fn caught<B: Books>() -> String {
    let config = Config {
        cases: 100,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&groups(128), |groups| Harness::<B>::run(&groups));
    match result {
        Err(TestError::Fail(reason, _)) => reason.to_string(),
        other => panic!("not caught: {other:?}"),
    }
}

#[test]
fn the_harness_catches_a_forgotten_pending_decrement() {
    caught::<ForgottenDecrement>();
}

#[test]
fn the_harness_catches_a_double_payout() {
    caught::<DoublePayout>();
}

#[test]
fn the_harness_catches_a_settlement_that_can_be_repeated() {
    caught::<SettledAgain>();
}

#[test]
fn the_harness_catches_a_stranded_lock() {
    caught::<StrandedLock>();
}

#[test]
fn the_harness_catches_an_unsorted_map_in_the_fold() {
    caught::<UnsortedFold>();
}

/// The operations that the property test draws are worth it: kinds are carried out, refusals are met.
#[test]
fn the_drawn_operations_reach_everything() {
    let config = Config::default();
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut reasons = BTreeMap::new();
    for _ in 0..200 {
        let drawn = groups(128).new_tree(&mut runner).unwrap().current();
        let (mut naive, mut now) = (Naive::begun(), NOW);
        for (wait, smalls) in drawn {
            now = now.plus_ms(wait);
            let result = naive.apply(&smalls, now);
            let code = result.as_ref().err().copied();
            *outcomes.entry(code.unwrap_or("done")).or_default() += 1;
            for (_, _, _, reason, ..) in result.unwrap_or_default() {
                *reasons.entry(reason.to_string()).or_insert(0) += 1;
            }
        }
    }
    let codes = [
        "amount_overflow",
        "cap_too_low",
        "delegation_expired",
        "dust_amount",
        "faucet_empty",
        "hold_exceeded",
        "hold_exists",
        "hold_not_open",
        "insufficient_funds",
        "key_in_use",
        "key_retired",
        "minted_twice",
        "not_delegated",
        "role_not_delegated",
        "same_account",
        "system_account",
        "terms_expired",
        "unreachable_account",
        "withheld_too_much",
        "zero_amount",
    ];
    assert!(outcomes.remove("done").unwrap() > 200 * 128 / 4);
    assert_eq!(outcomes.into_keys().collect::<Vec<_>>(), codes);
    // All but the genesis'.
    assert_eq!(reasons.len(), 10, "{reasons:?}");
    assert!(reasons.values().all(|count| *count > 5), "{reasons:?}");
}
