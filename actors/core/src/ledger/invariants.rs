//! What is always true of a ledger, checked from scratch.

use std::collections::BTreeMap;

use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{AccountId, TaskId};

use super::account::Account;
use super::hold::Hold;
use super::{ESCROW, MINT};

/// A broken invariant: the ledger must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is inconsistent: {0}")]
pub struct Broken(String);

type Accounts = BTreeMap<AccountId, Account>;
type Holds = BTreeMap<TaskId, Hold>;

pub(super) fn check(accounts: &Accounts, holds: &Holds) -> Result<(), Broken> {
    check_double_entry(accounts)?;
    check_supply(accounts)?;
    accounts.values().try_for_each(check_solvency)?;
    holds.values().try_for_each(check_hold)?;
    check_pending(accounts, holds)
}

fn equal<T: PartialEq + std::fmt::Display>(what: &str, left: T, right: T) -> Result<(), Broken> {
    if left == right {
        return Ok(());
    }
    Err(Broken(format!("{what}: {left} ≠ {right}")))
}

fn check_double_entry(accounts: &Accounts) -> Result<(), Broken> {
    let sum = |counter: fn(&Account) -> u128| accounts.values().map(counter).sum::<u128>();
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

fn check_supply(accounts: &Accounts) -> Result<(), Broken> {
    let Some(mint) = accounts.get(&AccountId::of_system(MINT)) else {
        return equal("accounts before the genesis", accounts.len(), 0);
    };
    equal(
        "minted",
        mint.debits_posted.base_units(),
        SUPPLY.base_units().into(),
    )?;
    equal(
        "given back to the mint",
        mint.credits_posted.base_units(),
        0,
    )
}

fn check_solvency(account: &Account) -> Result<(), Broken> {
    let spent =
        account.debits_posted.base_units() + u128::from(account.debits_pending.base_units());
    if account.id == AccountId::of_system(MINT) || spent <= account.credits_posted.base_units() {
        return Ok(());
    }
    Err(Broken(format!(
        "account {} spent more than it has",
        account.id
    )))
}

fn check_hold(hold: &Hold) -> Result<(), Broken> {
    let parts = [hold.free(), hold.earned(), hold.paid(), hold.returned()];
    let sum: u128 = parts.iter().map(|p| u128::from(p.base_units())).sum();
    let what = format!("parts of the hold of {}", hold.task);
    equal(&what, sum, hold.amount.base_units().into())?;
    if hold.is_open() {
        return Ok(());
    }
    let work = hold.payments().iter().filter(|p| p.reason == Reason::Work);
    let work: u128 = work.map(|p| u128::from(p.amount.base_units())).sum();
    let what = format!("work paid by the hold of {}", hold.task);
    equal(&what, work, hold.earned_ever().base_units().into())
}

/// What accounts have pending is what the open holds say, account by account.
fn check_pending(accounts: &Accounts, holds: &Holds) -> Result<(), Broken> {
    let mut debits: BTreeMap<AccountId, u128> = BTreeMap::new();
    let mut credits: BTreeMap<AccountId, u128> = BTreeMap::new();
    for hold in holds.values().filter(|hold| hold.is_open()) {
        *debits.entry(hold.payer).or_default() += u128::from(hold.amount.base_units());
        *credits.entry(AccountId::of_system(ESCROW)).or_default() +=
            u128::from(hold.free().base_units());
        for earning in &hold.earnings {
            *credits.entry(earning.account).or_default() += u128::from(earning.amount.base_units());
        }
    }
    for (id, account) in accounts {
        let expected = debits.remove(id).unwrap_or(0);
        let what = format!("pending debits of {id}");
        equal(&what, account.debits_pending.base_units().into(), expected)?;
        let expected = credits.remove(id).unwrap_or(0);
        let what = format!("pending credits of {id}");
        equal(&what, account.credits_pending.base_units().into(), expected)?;
    }
    equal("holds of unknown accounts", debits.len() + credits.len(), 0)
}
