//! What is always true of a ledger, checked from scratch.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_protocol::AccountId;
use cryptomind_protocol::money::SUPPLY;

use super::Ledger;
use super::account::Account;
use super::hold::Hold;
use super::settlement::most;
use super::system::{Kind, SYSTEM};

/// A broken invariant: the ledger must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is inconsistent: {0}")]
pub struct Broken(pub(super) String);

pub(super) fn check(ledger: &Ledger) -> Result<(), Broken> {
    check_double_entry(ledger)?;
    check_supply(ledger)?;
    ledger.accounts().try_for_each(check_account)?;
    ledger.holds().try_for_each(check_hold)?;
    check_locks(ledger)?;
    check_pending(ledger)?;
    check_indexes(ledger)
}

pub(super) fn equal<T: PartialEq + std::fmt::Display>(
    what: impl std::fmt::Display,
    left: T,
    right: T,
) -> Result<(), Broken> {
    if left == right {
        return Ok(());
    }
    Err(Broken(format!("{what}: {left} ≠ {right}")))
}

pub(super) fn holds_true(truth: bool, what: impl Fn() -> String) -> Result<(), Broken> {
    if truth {
        return Ok(());
    }
    Err(Broken(what()))
}

fn check_double_entry(ledger: &Ledger) -> Result<(), Broken> {
    let sum = |counter: fn(&Account) -> u128| ledger.accounts().map(counter).sum::<u128>();
    equal(
        "posted debits and credits",
        sum(|a| a.debits_posted.base_units()),
        sum(|a| a.credits_posted.base_units()),
    )?;
    equal(
        "pending debits and credits",
        sum(|a| a.debits_pending.base_units().into()),
        sum(|a| a.credits_pending.base_units().into()),
    )
}

fn check_supply(ledger: &Ledger) -> Result<(), Broken> {
    let Some(mint) = ledger.account(&SYSTEM.mint) else {
        return equal("accounts before the genesis", ledger.account_count(), 0);
    };
    let supply = u128::from(SUPPLY.base_units());
    equal("minted", mint.debits_posted.base_units(), supply)?;
    equal(
        "given back to the mint",
        mint.credits_posted.base_units(),
        0,
    )?;
    let others = ledger.accounts().filter(|a| a.kind != Kind::Issuance);
    let owned: u128 = others.map(|a| u128::from(a.owned().base_units())).sum();
    equal("all balances and the supply", owned, supply)
}

/// One account alone: its kind, and that it never spends more than it has.
pub(super) fn check_account(account: &Account) -> Result<(), Broken> {
    let id = &account.id;
    holds_true(account.kind == Kind::of(id), || {
        format!("account {id} is of kind {:?}", account.kind)
    })?;
    let pending = u128::from(account.debits_pending.base_units());
    let spent = account.debits_posted.base_units() + pending;
    let limit = match account.kind {
        Kind::Issuance => SUPPLY.base_units().into(),
        _ => account.credits_posted.base_units(),
    };
    holds_true(spent <= limit, || {
        format!("account {id} spent more than it has")
    })?;
    let internal = matches!(account.kind, Kind::Escrow | Kind::Locked);
    let posted = spent + account.credits_posted.base_units();
    holds_true(!internal || posted == 0, || {
        format!("account {id} stands for pending amounts only")
    })
}

/// One hold alone: its amount is what is free and what is earned, and covers whatever its terms may pay.
pub(super) fn check_hold(hold: &Hold) -> Result<(), Broken> {
    let task = &hold.task;
    let parts = [hold.free(), hold.earned()].map(|p| u128::from(p.base_units()));
    let amount = u128::from(hold.amount.base_units());
    equal(
        format_args!("free and earned in the hold of {task}"),
        parts.iter().sum(),
        amount,
    )?;
    holds_true(hold.earned() <= hold.terms.work_max, || {
        format!("the hold of {task} has earned more than its terms allow")
    })?;
    holds_true(
        most(&hold.terms).is_some_and(|most| most <= hold.amount),
        || format!("the hold of {task} does not cover its terms"),
    )
}

fn check_locks(ledger: &Ledger) -> Result<(), Broken> {
    for (key, lock) in &ledger.locks {
        holds_true(*key == lock.key() && !lock.amount.is_zero(), || {
            format!(
                "a lock of {} under another's key, or of nothing",
                key.account
            )
        })?;
    }
    for (key, delegation) in &ledger.delegations {
        holds_true(*key == delegation.key(), || {
            format!("a delegation of {} under another's key", key.0)
        })?;
    }
    let locked = ledger.locks().map(|l| u128::from(l.amount.base_units()));
    equal(
        "locked",
        u128::from(ledger.locked().base_units()),
        locked.sum(),
    )?;
    let held = ledger.holds().map(|h| u128::from(h.amount.base_units()));
    equal("held", u128::from(ledger.held().base_units()), held.sum())
}

#[derive(Default)]
struct Expected {
    debits: BTreeMap<AccountId, u128>,
    credits: BTreeMap<AccountId, u128>,
}

impl Expected {
    fn of(ledger: &Ledger) -> Self {
        let mut expected = Self::default();
        ledger.holds().for_each(|hold| expected.add_hold(hold));
        for lock in ledger.locks() {
            let amount = u128::from(lock.amount.base_units());
            *expected.debits.entry(lock.account).or_default() += amount;
            *expected.credits.entry(SYSTEM.locked).or_default() += amount;
        }
        expected
    }

    fn add_hold(&mut self, hold: &Hold) {
        *self.debits.entry(hold.payer).or_default() += u128::from(hold.amount.base_units());
        let free = u128::from(hold.free().base_units());
        *self.credits.entry(SYSTEM.escrow).or_default() += free;
        for earning in &hold.earnings {
            let earned = self.credits.entry(earning.account).or_default();
            *earned += u128::from(earning.amount.base_units());
        }
    }
}

/// What accounts have pending is what the open holds and the locks say, account by account.
fn check_pending(ledger: &Ledger) -> Result<(), Broken> {
    let mut expected = Expected::of(ledger);
    for account in ledger.accounts() {
        let id = &account.id;
        equal(
            format_args!("pending debits of {id}"),
            account.debits_pending.base_units().into(),
            expected.debits.remove(id).unwrap_or(0),
        )?;
        equal(
            format_args!("pending credits of {id}"),
            account.credits_pending.base_units().into(),
            expected.credits.remove(id).unwrap_or(0),
        )?;
    }
    let rest = expected.debits.values().chain(expected.credits.values());
    equal("pending amounts of unknown accounts", rest.sum(), 0u128)
}

/// The indexes are what a look at every record gives.
fn check_indexes(ledger: &Ledger) -> Result<(), Broken> {
    let expiries: BTreeSet<_> = ledger.holds().map(|h| (h.terms.expires, h.task)).collect();
    holds_true(expiries == ledger.expiries, || {
        "the index of expiries is not that of the open holds".into()
    })?;
    let unlocks: BTreeSet<_> = ledger.locks().map(super::unlock_entry).collect();
    holds_true(unlocks == ledger.unlocks, || {
        "the index of locks by account is not that of the locks".into()
    })?;
    let of = |a: &Account| a.keys.iter().map(|key| (*key, a.id)).collect::<Vec<_>>();
    let given: Vec<_> = ledger.accounts().flat_map(of).collect();
    let count = given.len();
    let keys: BTreeMap<_, _> = given.into_iter().collect();
    equal("keys, and keys given once", count, keys.len())?;
    holds_true(keys == ledger.keys, || {
        "the index of keys is not that of the accounts".into()
    })?;
    let first_of = |(key, owner): (&_, &AccountId)| (AccountId::of_key(key), *owner);
    let unreachable: BTreeMap<_, _> = keys.iter().map(first_of).collect();
    holds_true(unreachable == ledger.unreachable, || {
        "the index of unreachable accounts is not that of the keys".into()
    })
}
