//! A draft: the ledger with the changes of one operation laid over it, dropped on a refusal.

use std::collections::BTreeMap;

use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::{Payment, Reason};
use cryptomind_protocol::{AccountId, Amount, NodeId, TaskId, Timestamp};

use super::account::Account;
use super::hold::{Earning, Hold, Settlement};
use super::op::{Fee, Op, Share};
use super::refusal::Refusal;
use super::transfer::{Transfer, transfer_id};
use super::{BOUNTY, Changes, ESCROW, Ledger, MINT};

pub(super) struct Draft<'a> {
    ledger: &'a Ledger,
    now: Timestamp,
    accounts: BTreeMap<AccountId, Account>,
    holds: BTreeMap<TaskId, Hold>,
    transfers: Vec<Transfer>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(ledger: &'a Ledger, now: Timestamp) -> Self {
        Self {
            ledger,
            now,
            accounts: BTreeMap::new(),
            holds: BTreeMap::new(),
            transfers: Vec::new(),
        }
    }

    pub(super) fn into_changes(self) -> Changes {
        Changes {
            accounts: self.accounts.into_values().collect(),
            holds: self.holds.into_values().collect(),
            transfers: self.transfers,
        }
    }

    pub(super) fn carry_out(&mut self, op: Op) -> Result<(), Refusal> {
        match op {
            Op::Genesis { allocations } => self.genesis(&allocations),
            Op::Faucet { to, amount } => self.faucet(to, amount),
            Op::Send { from, to, amount } => self.send(from, to, amount, Reason::Send),
            Op::OpenHold {
                task,
                payer,
                amount,
            } => self.open_hold(task, payer, amount),
            Op::Earn {
                task,
                checkpoint,
                shares,
            } => self.earn(task, checkpoint, &shares),
            Op::Settle { task, fees } => self.settle(task, &fees),
        }
    }

    fn genesis(&mut self, allocations: &[(AccountId, Amount)]) -> Result<(), Refusal> {
        if !self.ledger.is_empty() {
            return Err(Refusal::GenesisTwice);
        }
        let sum = Amount::sum(allocations.iter().map(|(_, amount)| *amount));
        if sum != Some(SUPPLY) {
            return Err(Refusal::GenesisSum(sum));
        }
        let mint = AccountId::of_system(MINT);
        for (to, amount) in allocations {
            refuse_internal(*to)?;
            refuse_zero(*amount)?;
            self.post(mint, *to, *amount, Reason::Genesis, None, None);
        }
        Ok(())
    }

    fn faucet(&mut self, to: AccountId, amount: Amount) -> Result<(), Refusal> {
        let sent = self.send(AccountId::of_system(BOUNTY), to, amount, Reason::Faucet);
        sent.map_err(|refusal| match refusal {
            Refusal::InsufficientFunds {
                needed, available, ..
            } => Refusal::FaucetEmpty { needed, available },
            other => other,
        })
    }

    fn send(
        &mut self,
        from: AccountId,
        to: AccountId,
        amount: Amount,
        reason: Reason,
    ) -> Result<(), Refusal> {
        refuse_zero(amount)?;
        refuse_internal(from)?;
        refuse_internal(to)?;
        if from == to {
            return Err(Refusal::SameAccount);
        }
        self.refuse_overdraft(from, amount)?;
        self.post(from, to, amount, reason, None, None);
        Ok(())
    }

    fn open_hold(&mut self, task: TaskId, payer: AccountId, amount: Amount) -> Result<(), Refusal> {
        refuse_zero(amount)?;
        refuse_internal(payer)?;
        if self.hold(&task).is_some() {
            return Err(Refusal::HoldExists(task));
        }
        self.refuse_overdraft(payer, amount)?;
        add(&mut self.account(payer).debits_pending, amount)?;
        add(&mut self.escrow().credits_pending, amount)?;
        let hold = Hold {
            task,
            payer,
            amount,
            opened: self.now,
            checkpoint: None,
            earnings: Vec::new(),
            settled: None,
        };
        self.holds.insert(task, hold);
        Ok(())
    }

    fn earn(&mut self, task: TaskId, checkpoint: u64, shares: &[Share]) -> Result<(), Refusal> {
        let mut hold = self.open(task)?;
        if hold.checkpoint.is_some_and(|last| checkpoint <= last) {
            return Ok(());
        }
        let wanted = sum(shares.iter().map(|share| share.amount))?;
        refuse_beyond(&hold, wanted)?;
        for share in shares.iter().filter(|share| !share.amount.is_zero()) {
            refuse_internal(share.account)?;
            add(
                &mut self.account(share.account).credits_pending,
                share.amount,
            )?;
            add_earning(&mut hold.earnings, share)?;
        }
        take(&mut self.escrow().credits_pending, wanted)?;
        hold.checkpoint = Some(checkpoint);
        self.holds.insert(task, hold);
        Ok(())
    }

    fn settle(&mut self, task: TaskId, fees: &[Fee]) -> Result<(), Refusal> {
        let mut hold = self.open(task)?;
        let payments = payments(&hold, fees)?;
        take(&mut self.escrow().credits_pending, hold.free())?;
        for earning in &hold.earnings {
            take(
                &mut self.account(earning.account).credits_pending,
                earning.amount,
            )?;
        }
        take(&mut self.account(hold.payer).debits_pending, hold.amount)?;
        for p in &payments {
            self.post(p.payer, p.payee, p.amount, p.reason, Some(task), p.node);
        }
        hold.settled = Some(Settlement {
            at: self.now,
            payments,
        });
        self.holds.insert(task, hold);
        Ok(())
    }

    /// Moves tokens. What the payer may spend is the caller's to check.
    fn post(
        &mut self,
        payer: AccountId,
        payee: AccountId,
        amount: Amount,
        reason: Reason,
        task: Option<TaskId>,
        node: Option<NodeId>,
    ) {
        let debits = &mut self.account(payer).debits_posted;
        let id = transfer_id(&payer, *debits);
        *debits = debits.plus(amount);
        let credits = &mut self.account(payee).credits_posted;
        *credits = credits.plus(amount);
        self.transfers.push(Transfer {
            id,
            at: self.now,
            index: self.transfers.len() as u32,
            payer,
            payee,
            amount,
            reason,
            task,
            node,
        });
    }

    fn account(&mut self, id: AccountId) -> &mut Account {
        let ledger = self.ledger;
        self.accounts
            .entry(id)
            .or_insert_with(|| ledger.account(&id).cloned().unwrap_or(Account::new(id)))
    }

    fn escrow(&mut self) -> &mut Account {
        self.account(AccountId::of_system(ESCROW))
    }

    /// As earlier operations of the same group left it.
    fn hold(&self, task: &TaskId) -> Option<&Hold> {
        self.holds.get(task).or_else(|| self.ledger.holds.get(task))
    }

    fn open(&self, task: TaskId) -> Result<Hold, Refusal> {
        match self.hold(&task) {
            Some(hold) if hold.is_open() => Ok(hold.clone()),
            Some(_) => Err(Refusal::AlreadySettled(task)),
            None => Err(Refusal::HoldNotFound(task)),
        }
    }

    fn refuse_overdraft(&self, account: AccountId, needed: Amount) -> Result<(), Refusal> {
        let changed = self.accounts.get(&account).map(Account::balance);
        let available = changed
            .unwrap_or_else(|| self.ledger.balance(&account))
            .available;
        if needed <= available {
            return Ok(());
        }
        Err(Refusal::InsufficientFunds {
            account,
            needed,
            available,
        })
    }
}

/// Everything that `hold` pays when it is settled with `fees`: together its amount.
fn payments(hold: &Hold, fees: &[Fee]) -> Result<Vec<Payment>, Refusal> {
    let charged = sum(fees.iter().map(|fee| fee.amount))?;
    refuse_beyond(hold, charged)?;
    let pay = |payee, amount, reason, node| Payment {
        payer: hold.payer,
        payee,
        amount,
        reason,
        node,
    };
    let work = hold.earnings.iter();
    let mut payments: Vec<Payment> = work
        .map(|e| pay(e.account, e.amount, Reason::Work, Some(e.node)))
        .collect();
    for fee in fees {
        refuse_internal(fee.payee)?;
        refuse_other_than_fee(fee.reason)?;
        payments.push(pay(fee.payee, fee.amount, fee.reason, None));
    }
    let rest = hold.free().checked_sub(charged).ok_or(Refusal::Overflow)?;
    payments.push(pay(hold.payer, rest, Reason::Refund, None));
    payments.retain(|payment| !payment.amount.is_zero());
    Ok(payments)
}

fn add_earning(earnings: &mut Vec<Earning>, share: &Share) -> Result<(), Refusal> {
    let same = |e: &&mut Earning| e.account == share.account && e.node == share.node;
    if let Some(earning) = earnings.iter_mut().find(same) {
        return add(&mut earning.amount, share.amount);
    }
    earnings.push(Earning {
        account: share.account,
        node: share.node,
        amount: share.amount,
    });
    Ok(())
}

fn refuse_beyond(hold: &Hold, wanted: Amount) -> Result<(), Refusal> {
    let free = hold.free();
    if wanted <= free {
        return Ok(());
    }
    Err(Refusal::HoldExceeded {
        task: hold.task,
        wanted,
        free,
    })
}

const fn refuse_zero(amount: Amount) -> Result<(), Refusal> {
    if amount.is_zero() {
        Err(Refusal::ZeroAmount)
    } else {
        Ok(())
    }
}

fn refuse_internal(account: AccountId) -> Result<(), Refusal> {
    if [MINT, ESCROW].map(AccountId::of_system).contains(&account) {
        Err(Refusal::SystemAccount(account))
    } else {
        Ok(())
    }
}

const fn refuse_other_than_fee(reason: Reason) -> Result<(), Refusal> {
    match reason {
        Reason::ItemFee | Reason::Storage | Reason::NetworkFee => Ok(()),
        other => Err(Refusal::NotAFee(other)),
    }
}

fn sum(amounts: impl Iterator<Item = Amount>) -> Result<Amount, Refusal> {
    Amount::sum(amounts).ok_or(Refusal::Overflow)
}

fn add(counter: &mut Amount, amount: Amount) -> Result<(), Refusal> {
    *counter = counter.checked_add(amount).ok_or(Refusal::Overflow)?;
    Ok(())
}

fn take(counter: &mut Amount, amount: Amount) -> Result<(), Refusal> {
    *counter = counter.checked_sub(amount).ok_or(Refusal::Overflow)?;
    Ok(())
}
