//! The invariants on the rows that a group touches, before anyone takes its changes over.
//!
//! A group that passes here keeps the invariants of the whole ledger if they held before: every sum over all rows
//! changes by what the touched rows change, and each row's own rules are checked. The cost is that of the group.

use std::collections::BTreeMap;

use cryptomind_protocol::block::Transfer;
use cryptomind_protocol::{AccountId, Amount, TaskId};

use super::Ledger;
use super::account::Account;
use super::changes::Changes;
use super::hold::Hold;
use super::invariants::{Broken, check_account, check_hold, equal, holds_true};
use super::lock::Lock;
use super::system::SYSTEM;

/// By how much each account's counters have changed, counters and transfers apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Delta {
    debits_posted: i128,
    credits_posted: i128,
    debits_pending: i128,
    credits_pending: i128,
}

type Deltas = BTreeMap<AccountId, Delta>;

pub(super) fn check(ledger: &Ledger, changes: &Changes) -> Result<(), Broken> {
    changes.accounts.iter().try_for_each(check_account)?;
    let mut expected = Deltas::new();
    expect_transfers(&mut expected, &changes.transfers);
    check_payers(changes)?;
    for (task, hold) in &changes.holds {
        check_change(ledger.hold(task), hold.as_ref(), *task, changes)?;
        expect_hold(&mut expected, ledger.hold(task), -1);
        expect_hold(&mut expected, hold.as_ref(), 1);
    }
    for (key, lock) in &changes.locks {
        expect_lock(&mut expected, ledger.lock(key), -1);
        expect_lock(&mut expected, lock.as_ref(), 1);
    }
    check_deltas(ledger, changes, expected)
}

fn units(amount: Amount) -> i128 {
    amount.base_units().into()
}

fn expect_transfers(expected: &mut Deltas, transfers: &[Transfer]) {
    for transfer in transfers {
        let amount = units(transfer.amount);
        expected.entry(transfer.payer).or_default().debits_posted += amount;
        expected.entry(transfer.payee).or_default().credits_posted += amount;
    }
}

fn expect_hold(expected: &mut Deltas, hold: Option<&Hold>, sign: i128) {
    let Some(hold) = hold else { return };
    expected.entry(hold.payer).or_default().debits_pending += sign * units(hold.amount);
    let escrow = expected.entry(SYSTEM.escrow).or_default();
    escrow.credits_pending += sign * units(hold.free());
    for earning in &hold.earnings {
        let earner = expected.entry(earning.account).or_default();
        earner.credits_pending += sign * units(earning.amount);
    }
}

fn expect_lock(expected: &mut Deltas, lock: Option<&Lock>, sign: i128) {
    let Some(lock) = lock else { return };
    let amount = sign * units(lock.amount);
    expected.entry(lock.account).or_default().debits_pending += amount;
    expected.entry(SYSTEM.locked).or_default().credits_pending += amount;
}

fn add_counters(delta: &mut Delta, account: &Account, sign: i128) {
    let total = |units: u128| sign * i128::try_from(units).unwrap_or(i128::MAX);
    delta.debits_posted += total(account.debits_posted.base_units());
    delta.credits_posted += total(account.credits_posted.base_units());
    delta.debits_pending += sign * units(account.debits_pending);
    delta.credits_pending += sign * units(account.credits_pending);
}

/// Each counter has changed by what transfers, holds and locks say; so have their sums.
fn check_deltas(ledger: &Ledger, changes: &Changes, mut expected: Deltas) -> Result<(), Broken> {
    for account in &changes.accounts {
        let mut delta = Delta::default();
        add_counters(&mut delta, account, 1);
        if let Some(before) = ledger.account(&account.id) {
            add_counters(&mut delta, before, -1);
        }
        let expected = expected.remove(&account.id).unwrap_or_default();
        holds_true(delta == expected, || {
            format!(
                "account {} changed by {delta:?}, not {expected:?}",
                account.id
            )
        })?;
    }
    let rest = expected.into_iter().find(|(_, d)| *d != Delta::default());
    rest.map_or(Ok(()), |(id, delta)| {
        Err(Broken(format!("account {id} lacks the change {delta:?}")))
    })
}

/// Nothing leaves a hold before its end.
fn check_payers(changes: &Changes) -> Result<(), Broken> {
    let ended = |task: &TaskId| {
        let found = changes.holds.binary_search_by_key(task, |(task, _)| *task);
        found.is_ok_and(|place| changes.holds[place].1.is_none())
    };
    let mut tasks = changes.transfers.iter().filter_map(|t| t.task);
    let early = tasks.find(|task| !ended(task));
    early.map_or(Ok(()), |task| {
        Err(Broken(format!("the hold of {task} paid before its end")))
    })
}

/// One hold by its own rules: it pays nothing before its end, and all of its amount then.
fn check_change(
    before: Option<&Hold>,
    after: Option<&Hold>,
    task: TaskId,
    changes: &Changes,
) -> Result<(), Broken> {
    if let Some(hold) = after {
        check_hold(hold)?;
    }
    let same = |b: &Hold, a: &Hold| {
        (b.payer, b.amount, &b.terms) == (a.payer, a.amount, &a.terms) && b.earned() <= a.earned()
    };
    let kept = before.zip(after).is_none_or(|(b, a)| same(b, a));
    holds_true(kept, || format!("the hold of {task} changed its terms"))?;
    let Some(ended) = before.filter(|_| after.is_none()) else {
        return Ok(());
    };
    let paid = changes.transfers.iter().filter(|t| t.task == Some(task));
    let paid: i128 = paid.map(|t| units(t.amount)).sum();
    equal(
        format_args!("paid and returned by the hold of {task}"),
        paid,
        units(ended.amount),
    )
}
