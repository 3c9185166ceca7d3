//! 7. Who paid whom: every payment out of the holds, and every account, to the last unit.

use std::collections::BTreeMap;

use anyhow::Result;
use cryptomind_protocol::genesis::{ALLOCATION_PERCENT, FEES, REWARD_FUND};
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::Payment;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, TaskId};
use serde::Serialize;

use super::inference::Inferred;
use super::{Demo, Trained};
use crate::local_network::{MINER_OWNERS, STORAGE_OWNER};
use crate::output::table;

/// A payment with names.
#[derive(Serialize)]
pub(super) struct Paid {
    task: TaskId,
    payer: AccountId,
    payer_name: String,
    payee: AccountId,
    payee_name: String,
    base_units: u64,
    reason: cryptomind_protocol::task::Reason,
}

/// An account at the end.
#[derive(Serialize)]
pub(super) struct Balance {
    account: AccountId,
    name: String,
    /// With what is locked.
    base_units: u64,
    /// Of it, what may not be spent yet: withheld earnings, and what is still vesting.
    locked_base_units: u64,
}

/// What was paid, and what everybody has.
pub(super) struct Books {
    pub(super) payments: Vec<Paid>,
    pub(super) balances: Vec<Balance>,
    pub(super) supply: Amount,
    /// What both holds held.
    pub(super) held: Amount,
}

impl Demo<'_> {
    pub(super) async fn settle(&mut self, trained: &Trained, inferred: &Inferred) -> Result<Books> {
        self.heading(7, "Everybody is paid, to the last unit")?;
        let balances = self.balances().await?;
        let names = names(&balances);
        let training = (
            trained.task.task,
            trained.task.spec.max_cost,
            &trained.payments,
        );
        let inference = (inferred.task, inferred.held, &inferred.payments);
        let mut payments = Vec::new();
        let both = Amount::sum([training.1, inference.1]);
        let both = both.ok_or_else(|| ErrorBody::internal("the holds exceed what can exist"))?;
        for (task, held, paid) in [training, inference] {
            check_sum(task, held, paid)?;
            let paid = paid.iter().filter(|payment| !payment.amount.is_zero());
            payments.extend(paid.map(|payment| named(task, payment, &names)));
        }
        self.block(&payments_table(&payments))?;
        self.line("")?;
        let supply = self.check_supply(&balances).await?;
        self.block(&balances_table(&balances))?;
        Ok(Books {
            payments,
            balances,
            supply,
            held: both,
        })
    }

    /// Every account of the network, people's first.
    async fn balances(&self) -> Result<Vec<Balance>> {
        let mut accounts = vec![
            ("ada".to_owned(), self.ada.account_id()),
            ("bob".to_owned(), self.bob.account_id()),
        ];
        for owner in MINER_OWNERS.into_iter().chain([STORAGE_OWNER]) {
            let id = AccountId::of_key(&self.network.key(owner)?.public());
            accounts.push((owner.to_owned(), id));
        }
        let system = ALLOCATION_PERCENT
            .iter()
            .map(|(name, _)| *name)
            .chain([FEES, REWARD_FUND]);
        accounts.extend(system.map(|name| (name.to_owned(), AccountId::of_system(name))));
        let mut balances = Vec::new();
        for (name, account) in accounts {
            let (all, locked) = self.units_of(account).await?;
            balances.push(Balance {
                account,
                name,
                base_units: all.base_units(),
                locked_base_units: locked.base_units(),
            });
        }
        Ok(balances)
    }

    /// What an account has, and how much of it is locked.
    async fn units_of(&self, account: AccountId) -> Result<(Amount, Amount), ErrorBody> {
        match self.bob.account(account).await {
            Ok(view) => Amount::sum([view.available, view.held, view.locked])
                .map(|all| (all, view.locked))
                .ok_or_else(|| ErrorBody::internal("a balance exceeds what can exist")),
            Err(error) if error.is_not_found() => Ok((Amount::ZERO, Amount::ZERO)),
            Err(error) => Err(error),
        }
    }

    /// All accounts together, as counted here, are all tokens that exist.
    async fn check_supply(&self, balances: &[Balance]) -> Result<Amount, ErrorBody> {
        let units = balances
            .iter()
            .map(|b| Amount::from_base_units(b.base_units));
        let counted = Amount::sum(units);
        let said = self.bob.status().await?.supply;
        if counted != Some(SUPPLY) || said != SUPPLY {
            let message =
                format!("the accounts hold {counted:?}, the coordinator says {said}, not {SUPPLY}");
            return Err(ErrorBody::internal(message));
        }
        Ok(SUPPLY)
    }
}

/// The payments of a hold are the hold.
fn check_sum(task: TaskId, held: Amount, payments: &[Payment]) -> Result<(), ErrorBody> {
    let sum = Amount::sum(payments.iter().map(|payment| payment.amount));
    if sum == Some(held) {
        return Ok(());
    }
    let message = format!("the payments of {task} are {sum:?}, its hold was {held}");
    Err(ErrorBody::internal(message))
}

fn names(balances: &[Balance]) -> BTreeMap<AccountId, String> {
    let pairs = balances.iter().map(|b| (b.account, b.name.clone()));
    pairs.collect()
}

fn named(task: TaskId, payment: &Payment, names: &BTreeMap<AccountId, String>) -> Paid {
    let name = |account: AccountId| {
        names
            .get(&account)
            .cloned()
            .unwrap_or_else(|| account.short())
    };
    Paid {
        task,
        payer: payment.payer,
        payer_name: name(payment.payer),
        payee: payment.payee,
        payee_name: name(payment.payee),
        base_units: payment.amount.base_units(),
        reason: payment.reason,
    }
}

/// All nine decimals, so that columns can be added by eye.
fn ctm(base_units: u64) -> String {
    let unit = cryptomind_protocol::money::BASE_UNITS_PER_CTM;
    format!("{}.{:09} CTM", base_units / unit, base_units % unit)
}

fn payments_table(payments: &[Paid]) -> String {
    let rows = payments.iter().map(|paid| {
        vec![
            paid.task.short(),
            paid.payer_name.clone(),
            paid.payee_name.clone(),
            ctm(paid.base_units),
            paid.reason.to_string(),
        ]
    });
    table(&["task", "from", "to", "amount", "for"], rows)
}

fn balances_table(balances: &[Balance]) -> String {
    let sum = balances.iter().map(|b| b.base_units).sum();
    let locked = |units| {
        if units == 0 {
            String::new()
        } else {
            ctm(units)
        }
    };
    let rows = balances.iter().map(|b| {
        vec![
            b.name.clone(),
            ctm(b.base_units),
            locked(b.locked_base_units),
        ]
    });
    let total = vec!["all that exists".to_owned(), ctm(sum), String::new()];
    table(
        &["account", "has", "of it withheld or vesting"],
        rows.chain([total]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::task::Reason;

    fn payment(units: u64) -> Payment {
        Payment {
            payer: AccountId::new([1; 20]),
            payee: AccountId::new([2; 20]),
            amount: Amount::from_base_units(units),
            reason: Reason::Work,
            node: None,
        }
    }

    #[test]
    fn payments_that_are_not_the_hold_are_refused() {
        let (task, held) = (TaskId::new([1; 16]), Amount::from_base_units(5));
        check_sum(task, held, &[payment(2), payment(3)]).unwrap();
        assert!(check_sum(task, held, &[payment(2), payment(2)]).is_err());
        assert!(check_sum(task, held, &[payment(u64::MAX), payment(6)]).is_err());
    }

    #[test]
    fn amounts_line_up() {
        assert_eq!(ctm(1), "0.000000001 CTM");
        assert_eq!(ctm(SUPPLY.base_units()), "100000000.000000000 CTM");
    }
}
