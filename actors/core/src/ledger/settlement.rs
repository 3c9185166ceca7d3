//! Settlements: everything that a hold pays when its task has ended, by its terms.
//!
//! Work is paid as it was earned, in order of first earning; then item fees where the items were used; then
//! storage, once over all results, up to what was quoted, divided by bytes; then the network's share on top of all
//! that, less the reward fund's share of it, and that share; what is left goes back. Parts of nothing are left out.
//!
//! Invariant: a hold's amount is at least [`most`] of its terms, no part exceeds its own maximum, and the network's
//! share never falls when what it is taken of grows. So a settlement never lacks tokens.

use cryptomind_protocol::block::{Ending, HoldTerms, Transfer};
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{AccountId, Amount, NodeId};

use super::hold::Hold;
use super::refusal::Refusal;
use super::rules::Rules;
use super::system::SYSTEM;
use crate::price::{network_fee, split};

/// Bytes of one MiB.
const MIB: u64 = 1 << 20;

/// The most that a hold with these terms can pay. Nothing where that is no amount.
pub fn most(terms: &HoldTerms) -> Option<Amount> {
    let items = Amount::sum(terms.items.iter().map(|(_, fee)| *fee))?;
    let net = Amount::sum([terms.work_max, items, terms.storage_max])?;
    net.checked_add(network_fee(net, terms.network_fee_ppm).ok()?)
}

/// Every transfer of `hold`'s settlement, in order: together its amount.
pub(super) fn payments(
    hold: &Hold,
    ending: &Ending,
    rules: &Rules,
) -> Result<Vec<Transfer>, Refusal> {
    let mut payments = work(hold);
    payments.extend(items(hold, ending));
    payments.extend(storage(hold, ending));
    let net = total(&payments)?;
    let fee = network_fee(net, hold.terms.network_fee_ppm).map_err(|_| Refusal::Overflow)?;
    let (network, fund) = rules.divide_fee(fee);
    payments.push(pay(hold, SYSTEM.fees, network, Reason::NetworkFee, None));
    payments.push(pay(
        hold,
        SYSTEM.reward_fund,
        fund,
        Reason::RewardFund,
        None,
    ));
    let paid = total(&payments)?;
    let rest = hold.amount.checked_sub(paid).ok_or(Refusal::HoldExceeded {
        task: hold.task,
        wanted: paid,
        free: hold.amount,
    })?;
    payments.push(pay(hold, hold.payer, rest, Reason::Refund, None));
    payments.retain(|payment| !payment.amount.is_zero());
    Ok(payments)
}

fn work(hold: &Hold) -> Vec<Transfer> {
    let earnings = hold.earnings.iter();
    earnings
        .map(|e| pay(hold, e.account, e.amount, Reason::Work, Some(e.node)))
        .collect()
}

fn items<'a>(hold: &'a Hold, ending: &Ending) -> impl Iterator<Item = Transfer> + use<'a> {
    let used = hold.terms.items.iter().filter({
        let used = ending.items_used;
        move |_| used
    });
    used.map(|(owner, fee)| pay(hold, *owner, *fee, Reason::ItemFee, None))
}

fn storage<'a>(hold: &'a Hold, ending: &'a Ending) -> impl Iterator<Item = Transfer> + use<'a> {
    let bytes: Vec<u64> = ending.stored.iter().map(|(_, bytes)| *bytes).collect();
    let cost = storage_cost(&hold.terms, &bytes);
    let payees = ending.stored.iter().map(|(payee, _)| *payee);
    let parts = payees.zip(split(cost, &bytes));
    parts.map(|(payee, part)| pay(hold, payee, part, Reason::Storage, None))
}

/// Each begun MiB of all results together, and no more than was quoted.
fn storage_cost(terms: &HoldTerms, bytes: &[u64]) -> Amount {
    let bytes = bytes.iter().fold(0u64, |sum, b| sum.saturating_add(*b));
    let cost = terms.storage_per_mib.mul_div(bytes.div_ceil(MIB).into(), 1);
    cost.unwrap_or(terms.storage_max).min(terms.storage_max)
}

fn total(payments: &[Transfer]) -> Result<Amount, Refusal> {
    Amount::sum(payments.iter().map(|p| p.amount)).ok_or(Refusal::Overflow)
}

fn pay(
    hold: &Hold,
    payee: AccountId,
    amount: Amount,
    reason: Reason,
    node: Option<NodeId>,
) -> Transfer {
    Transfer {
        payer: hold.payer,
        payee,
        amount,
        reason,
        task: Some(hold.task),
        node,
    }
}
