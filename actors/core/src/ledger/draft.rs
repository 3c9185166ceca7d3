//! A draft: the ledger with the changes of some operations laid over it, dropped on a refusal.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_protocol::block::{Ending, HoldTerms, Share, Transfer};
use cryptomind_protocol::genesis::Allocation;
use cryptomind_protocol::money::SUPPLY;
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{AccountId, Amount, NodeId, PublicKey, TaskId, Timestamp};

use super::account::{Account, Total};
use super::changes::Changes;
use super::delegation::{Delegation, DelegationKey};
use super::hold::Hold;
use super::lock::{Lock, LockKey, schedule};
use super::op::Op;
use super::refusal::Refusal;
use super::settlement::{most, payments};
use super::system::{Kind, SYSTEM};
use super::{Ledger, MAX_DUE_LOCKS, MAX_DUE_TRANSFERS, MAX_FORFEITED_LOCKS};

pub(super) struct Draft<'a> {
    ledger: &'a Ledger,
    now: Timestamp,
    accounts: BTreeMap<AccountId, Account>,
    holds: BTreeMap<TaskId, Option<Hold>>,
    locks: BTreeMap<LockKey, Option<Lock>>,
    delegations: BTreeMap<DelegationKey, Option<Delegation>>,
    transfers: Vec<Transfer>,
    /// Keys that accounts were given in this group, with the accounts whose first keys they would be.
    given: Vec<(PublicKey, AccountId, AccountId)>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(ledger: &'a Ledger, now: Timestamp) -> Self {
        Self {
            ledger,
            now,
            accounts: BTreeMap::new(),
            holds: BTreeMap::new(),
            locks: BTreeMap::new(),
            delegations: BTreeMap::new(),
            transfers: Vec::new(),
            given: Vec::new(),
        }
    }

    pub(super) fn into_changes(self) -> Changes {
        Changes {
            accounts: self.accounts.into_values().collect(),
            holds: self.holds.into_iter().collect(),
            locks: self.locks.into_iter().collect(),
            delegations: self.delegations.into_iter().collect(),
            transfers: self.transfers,
        }
    }

    pub(super) fn carry_out(&mut self, op: Op) -> Result<(), Refusal> {
        match op {
            Op::Mint {
                allocations,
                created,
            } => self.mint(&allocations, created),
            Op::Faucet { to } => self.faucet(to),
            Op::Send { from, to, amount } => self.send(from, to, amount),
            Op::Charge { account, fee } => self.charge(account, fee),
            Op::OpenHold {
                task,
                payer,
                amount,
                terms,
            } => self.open_hold(task, payer, amount, terms),
            Op::Earn {
                task,
                checkpoint,
                shares,
            } => self.earn(task, checkpoint, &shares),
            Op::Settle { task, ending } => self.settle(task, &ending),
            Op::Forfeit { account, node } => self.forfeit(account, node),
            Op::Due => self.due(),
            Op::RotateKey { account, key } => self.rotate_key(account, key),
            Op::Delegate(delegation) => self.delegate(delegation),
            Op::Revoke { account, node } => self.revoke((account, node)),
        }
    }

    fn mint(&mut self, allocations: &[Allocation], created: Timestamp) -> Result<(), Refusal> {
        if !self.ledger.is_empty() || !self.accounts.is_empty() {
            return Err(Refusal::MintedTwice);
        }
        let sum = Amount::sum(allocations.iter().map(|a| a.amount));
        if sum != Some(SUPPLY) {
            return Err(Refusal::MintSum(sum));
        }
        let mut allocations = allocations.iter();
        allocations.try_for_each(|allocation| self.allocate(allocation, created))
    }

    fn allocate(&mut self, allocation: &Allocation, created: Timestamp) -> Result<(), Refusal> {
        let (account, amount) = (allocation.account, allocation.amount);
        if Kind::of(&account).is_internal() {
            return Err(Refusal::SystemAccount(account));
        }
        refuse_zero(amount)?;
        self.move_tokens(SYSTEM.mint, account, amount, Reason::Genesis);
        let Some(vesting) = allocation.vesting else {
            return Ok(());
        };
        let parts = schedule(amount, vesting, created);
        let mut parts = parts
            .ok_or_else(|| Refusal::Vesting(allocation.name.clone()))?
            .into_iter();
        parts.try_for_each(|(until, amount)| {
            self.lock(Lock {
                account,
                until,
                node: None,
                amount,
            })
        })
    }

    fn faucet(&mut self, to: AccountId) -> Result<(), Refusal> {
        let amount = self.ledger.rules.faucet;
        if amount.is_zero() {
            return Err(Refusal::NoFaucet);
        }
        self.refuse_payee(to)?;
        let available = self.available(SYSTEM.bounty);
        if amount > available {
            let needed = amount;
            return Err(Refusal::FaucetEmpty { needed, available });
        }
        self.move_tokens(SYSTEM.bounty, to, amount, Reason::Faucet);
        Ok(())
    }

    fn send(&mut self, from: AccountId, to: AccountId, amount: Amount) -> Result<(), Refusal> {
        self.refuse_dust(amount)?;
        refuse_system(from)?;
        self.refuse_payee(to)?;
        if from == to {
            return Err(Refusal::SameAccount);
        }
        self.refuse_overdraft(from, amount)?;
        self.move_tokens(from, to, amount, Reason::Send);
        Ok(())
    }

    fn charge(&mut self, account: AccountId, fee: Amount) -> Result<(), Refusal> {
        if fee.is_zero() {
            return Ok(());
        }
        refuse_system(account)?;
        self.refuse_overdraft(account, fee)?;
        let (network, fund) = self.ledger.rules.divide_fee(fee);
        self.move_tokens(account, SYSTEM.fees, network, Reason::TransactionFee);
        self.move_tokens(account, SYSTEM.reward_fund, fund, Reason::RewardFund);
        Ok(())
    }

    fn open_hold(
        &mut self,
        task: TaskId,
        payer: AccountId,
        amount: Amount,
        terms: HoldTerms,
    ) -> Result<(), Refusal> {
        self.refuse_dust(amount)?;
        refuse_system(payer)?;
        // One that ended in this very group counts too: no group sees two holds of one task.
        if self.holds.contains_key(&task) || self.ledger.hold(&task).is_some() {
            return Err(Refusal::HoldExists(task));
        }
        self.refuse_terms(task, amount, &terms)?;
        self.refuse_overdraft(payer, amount)?;
        add(&mut self.account(payer).debits_pending, amount)?;
        add(&mut self.account(SYSTEM.escrow).credits_pending, amount)?;
        let hold = Hold {
            task,
            payer,
            amount,
            opened: self.now,
            terms,
            checkpoint: None,
            earnings: Vec::new(),
        };
        self.holds.insert(task, Some(hold));
        Ok(())
    }

    fn refuse_terms(&self, task: TaskId, amount: Amount, terms: &HoldTerms) -> Result<(), Refusal> {
        if terms.expires <= self.now {
            return Err(Refusal::TermsExpired(task));
        }
        refuse_many("items", terms.items.len(), Hold::MAX_PAYEES)?;
        let mut owners = terms.items.iter();
        owners.try_for_each(|(owner, _)| refuse_system(*owner))?;
        let needed = most(terms).ok_or(Refusal::Overflow)?;
        if amount < needed {
            return Err(Refusal::CapTooLow {
                task,
                amount,
                needed,
            });
        }
        Ok(())
    }

    fn earn(&mut self, task: TaskId, checkpoint: u64, shares: &[Share]) -> Result<(), Refusal> {
        let mut hold = self.open(task)?;
        if hold.checkpoint.is_some_and(|last| checkpoint <= last) {
            return Ok(());
        }
        let wanted = Amount::sum(shares.iter().map(|share| share.amount));
        let wanted = wanted.ok_or(Refusal::Overflow)?;
        let free = hold.work_left();
        if wanted > free {
            return Err(Refusal::HoldExceeded { task, wanted, free });
        }
        for share in shares.iter().filter(|share| !share.amount.is_zero()) {
            refuse_system(share.account)?;
            let account = self.reachable(share.account);
            add(&mut self.account(account).credits_pending, share.amount)?;
            let share = Share { account, ..*share };
            hold.earn(&share).ok_or(Refusal::Overflow)?;
        }
        refuse_many("nodes that earn", hold.earnings.len(), Hold::MAX_EARNINGS)?;
        take(&mut self.account(SYSTEM.escrow).credits_pending, wanted)?;
        hold.checkpoint = Some(checkpoint);
        self.holds.insert(task, Some(hold));
        Ok(())
    }

    fn settle(&mut self, task: TaskId, ending: &Ending) -> Result<(), Refusal> {
        let hold = self.open(task)?;
        self.refuse_ending(ending)?;
        self.close(&hold, ending)
    }

    fn refuse_ending(&self, ending: &Ending) -> Result<(), Refusal> {
        refuse_many("storage nodes", ending.stored.len(), Hold::MAX_PAYEES)?;
        let mut owners = ending.stored.iter();
        owners.try_for_each(|(owner, _)| refuse_system(*owner))?;
        let max_ppm = self.ledger.rules.withheld_max_ppm();
        let too_much = ending.withheld.iter().find(|(_, ppm)| *ppm > max_ppm);
        too_much.map_or(Ok(()), |(_, ppm)| {
            Err(Refusal::WithheldTooMuch { ppm: *ppm, max_ppm })
        })
    }

    /// Pays a hold out, whole and once: afterwards it is gone.
    fn close(&mut self, hold: &Hold, ending: &Ending) -> Result<(), Refusal> {
        let payments = payments(hold, ending, &self.ledger.rules)?;
        take(
            &mut self.account(SYSTEM.escrow).credits_pending,
            hold.free(),
        )?;
        for earning in &hold.earnings {
            let pending = &mut self.account(earning.account).credits_pending;
            take(pending, earning.amount)?;
        }
        take(&mut self.account(hold.payer).debits_pending, hold.amount)?;
        for payment in payments {
            let payee = self.reachable(payment.payee);
            self.post(Transfer { payee, ..payment });
        }
        self.withhold(hold, ending)?;
        self.holds.insert(hold.task, None);
        Ok(())
    }

    /// Locks the withheld share of what was just paid for work, rounded down.
    fn withhold(&mut self, hold: &Hold, ending: &Ending) -> Result<(), Refusal> {
        let rules = self.ledger.rules;
        let until = rules.withheld_until(self.now);
        if until <= self.now {
            return Ok(());
        }
        // The first that is said of a node counts.
        let shares: BTreeMap<_, _> = ending.withheld.iter().rev().copied().collect();
        for earning in &hold.earnings {
            let ppm = shares.get(&earning.node).copied().unwrap_or(0);
            let amount = rules.share(earning.amount, ppm);
            if !amount.is_zero() {
                self.lock(Lock {
                    account: self.reachable(earning.account),
                    until,
                    node: Some(earning.node),
                    amount,
                })?;
            }
        }
        Ok(())
    }

    /// Takes what is withheld of an account's earnings, whichever of its nodes earned it, as far as it is not due already.
    fn forfeit(&mut self, account: AccountId, node: NodeId) -> Result<(), Refusal> {
        refuse_system(account)?;
        let payer = self.reachable(account);
        let mut forfeited = Amount::ZERO;
        for key in self.withheld(payer) {
            let amount = self.locked(&key).map(|lock| lock.amount);
            add(&mut forfeited, amount.unwrap_or_default())?;
            self.release(key)?;
        }
        if !forfeited.is_zero() {
            self.post(Transfer {
                payer,
                payee: SYSTEM.reward_fund,
                amount: forfeited,
                reason: Reason::Forfeit,
                task: None,
                node: Some(node),
            });
        }
        Ok(())
    }

    fn withheld(&self, account: AccountId) -> Vec<LockKey> {
        let stored = self.ledger.locks_of(&account).map(Lock::key);
        let drafted = self.locks.keys().copied();
        let all: BTreeSet<LockKey> = stored.chain(drafted).collect();
        let withheld =
            |key: &LockKey| key.account == account && key.node.is_some() && key.until > self.now;
        let open = all.into_iter().filter(withheld);
        let open = open.filter(|key| self.locked(key).is_some());
        open.take(MAX_FORFEITED_LOCKS).collect()
    }

    fn due(&mut self) -> Result<(), Refusal> {
        let ended = self.locks_due();
        ended.into_iter().try_for_each(|key| self.release(key))?;
        for task in self.ledger.expired(self.now) {
            if self.transfers.len() >= MAX_DUE_TRANSFERS {
                break;
            }
            if let Some(hold) = self.hold(&task).cloned() {
                let ending = ending_of_expired(&hold);
                self.close(&hold, &ending)?;
            }
        }
        Ok(())
    }

    fn locks_due(&self) -> BTreeSet<LockKey> {
        let end = |key: &LockKey| key.until <= self.now;
        let stored = self.ledger.locks.keys().take_while(|key| end(key));
        let drafted = self.locks.keys().take_while(|key| end(key));
        let all: BTreeSet<LockKey> = stored
            .take(MAX_DUE_LOCKS)
            .chain(drafted.take(MAX_DUE_LOCKS))
            .copied()
            .collect();
        all.into_iter().take(MAX_DUE_LOCKS).collect()
    }

    /// Reserves what `lock` says out of what its account was just given.
    fn lock(&mut self, mut lock: Lock) -> Result<(), Refusal> {
        let key = lock.key();
        add(&mut self.account(lock.account).debits_pending, lock.amount)?;
        add(
            &mut self.account(SYSTEM.locked).credits_pending,
            lock.amount,
        )?;
        if let Some(before) = self.locked(&key) {
            add(&mut lock.amount, before.amount)?;
        }
        self.locks.insert(key, Some(lock));
        Ok(())
    }

    fn release(&mut self, key: LockKey) -> Result<(), Refusal> {
        let Some(amount) = self.locked(&key).map(|lock| lock.amount) else {
            return Ok(());
        };
        take(&mut self.account(key.account).debits_pending, amount)?;
        take(&mut self.account(SYSTEM.locked).credits_pending, amount)?;
        self.locks.insert(key, None);
        Ok(())
    }

    fn rotate_key(&mut self, account: AccountId, key: PublicKey) -> Result<(), Refusal> {
        self.refuse_payee(account)?;
        self.refuse_key(account, &key)?;
        let keys = &mut self.account(account).keys;
        if keys.len() >= Account::MAX_KEYS {
            return Err(Refusal::TooManyKeys);
        }
        keys.push(key);
        self.given.push((key, account, AccountId::of_key(&key)));
        Ok(())
    }

    /// Refuses a key that any account has or had, as its first or later. An account for which nodes work is one, even
    /// where it never had a token.
    fn refuse_key(&self, account: AccountId, key: &PublicKey) -> Result<(), Refusal> {
        let own = AccountId::of_key(key);
        let given = self.given.iter().find(|(given, ..)| given == key);
        let given = given.map(|(_, owner, _)| owner);
        if let Some(owner) = given.or_else(|| self.ledger.keys.get(key)) {
            let signs = self.known(owner).and_then(Account::key) == Some(*key);
            return Err(if signs {
                Refusal::KeyInUse
            } else {
                Refusal::KeyRetired
            });
        }
        match self.known(&own) {
            Some(owner) if owner.keys.is_empty() => Err(Refusal::KeyInUse),
            Some(_) => Err(Refusal::KeyRetired),
            None if own == account || self.nodes_of(&own) > 0 => Err(Refusal::KeyInUse),
            None => Ok(()),
        }
    }

    fn delegate(&mut self, delegation: Delegation) -> Result<(), Refusal> {
        refuse_system(delegation.account)?;
        if !delegation.role.is_delegated() {
            return Err(Refusal::RoleNotDelegated(delegation.role));
        }
        if delegation.expires <= self.now {
            return Err(Refusal::DelegationExpired(delegation.node));
        }
        let known = self.known(&delegation.account);
        let had_tokens = known.is_some_and(|a| a.credits_posted != Total::default());
        let most = match had_tokens {
            true => Delegation::MAX_OF_ACCOUNT,
            false => Delegation::MAX_WITHOUT_TOKENS,
        };
        let is_new = self.delegation(&delegation.key()).is_none();
        if is_new && self.nodes_of(&delegation.account) >= most {
            return Err(Refusal::TooManyNodes { most });
        }
        self.delegations.insert(delegation.key(), Some(delegation));
        Ok(())
    }

    fn revoke(&mut self, key: DelegationKey) -> Result<(), Refusal> {
        if self.delegation(&key).is_none() {
            return Err(Refusal::NotDelegated(key.1));
        }
        self.delegations.insert(key, None);
        Ok(())
    }

    /// How many nodes an account has delegated, earlier operations of the same group counted.
    fn nodes_of(&self, account: &AccountId) -> usize {
        let stored = self.ledger.delegations_of(account);
        let kept = stored.filter(|d| !self.delegations.contains_key(&d.key()));
        let drafted = self.delegations.values().flatten();
        kept.count() + drafted.filter(|d| d.account == *account).count()
    }

    fn move_tokens(&mut self, payer: AccountId, payee: AccountId, amount: Amount, reason: Reason) {
        if amount.is_zero() {
            return;
        }
        self.post(Transfer {
            payer,
            payee,
            amount,
            reason,
            task: None,
            node: None,
        });
    }

    /// Moves tokens. What the payer may spend is the caller's to check.
    fn post(&mut self, transfer: Transfer) {
        let debits = &mut self.account(transfer.payer).debits_posted;
        *debits = debits.plus(transfer.amount);
        let credits = &mut self.account(transfer.payee).credits_posted;
        *credits = credits.plus(transfer.amount);
        self.transfers.push(transfer);
    }

    fn account(&mut self, id: AccountId) -> &mut Account {
        let ledger = self.ledger;
        let stored = || ledger.account(&id).cloned();
        self.accounts
            .entry(id)
            .or_insert_with(|| stored().unwrap_or_else(|| Account::new(id)))
    }

    /// As earlier operations of the same group left it; so are the next ones.
    fn known(&self, id: &AccountId) -> Option<&Account> {
        self.accounts.get(id).or_else(|| self.ledger.account(id))
    }

    fn hold(&self, task: &TaskId) -> Option<&Hold> {
        match self.holds.get(task) {
            Some(changed) => changed.as_ref(),
            None => self.ledger.hold(task),
        }
    }

    fn locked(&self, key: &LockKey) -> Option<&Lock> {
        match self.locks.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.ledger.lock(key),
        }
    }

    fn delegation(&self, key: &DelegationKey) -> Option<&Delegation> {
        match self.delegations.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.ledger.delegation(key),
        }
    }

    /// A hold that may be earned in and settled: from its expiry on, only [`Op::Due`] settles it.
    fn open(&self, task: TaskId) -> Result<Hold, Refusal> {
        let open = self.hold(&task).filter(|h| h.terms.expires > self.now);
        open.cloned().ok_or(Refusal::HoldNotOpen(task))
    }

    fn available(&self, account: AccountId) -> Amount {
        let known = self.known(&account).map(Account::available);
        known.unwrap_or_default()
    }

    fn refuse_overdraft(&self, account: AccountId, needed: Amount) -> Result<(), Refusal> {
        let available = self.available(account);
        if needed <= available {
            return Ok(());
        }
        Err(Refusal::InsufficientFunds {
            account,
            needed,
            available,
        })
    }

    fn refuse_dust(&self, amount: Amount) -> Result<(), Refusal> {
        refuse_zero(amount)?;
        let least = self.ledger.rules.fees.least;
        if amount < least {
            return Err(Refusal::DustAmount { amount, least });
        }
        Ok(())
    }

    /// Refuses an account that nobody can sign for: what it got would be stranded.
    fn refuse_payee(&self, account: AccountId) -> Result<(), Refusal> {
        refuse_system(account)?;
        if self.reachable(account) != account {
            return Err(Refusal::Unreachable(account));
        }
        Ok(())
    }

    /// The account itself, or the one that its first key signs for, or did.
    fn reachable(&self, account: AccountId) -> AccountId {
        let drafted = self.given.iter().find(|(.., own)| *own == account);
        let drafted = drafted.map(|(_, owner, _)| owner);
        let owner = drafted.or_else(|| self.ledger.unreachable.get(&account));
        owner.copied().unwrap_or(account)
    }
}

/// Nobody said how the task ended: what was earned is paid, and whoever earned had used the items.
fn ending_of_expired(hold: &Hold) -> Ending {
    Ending {
        items_used: !hold.earned().is_zero(),
        ..Ending::default()
    }
}

const fn refuse_zero(amount: Amount) -> Result<(), Refusal> {
    if amount.is_zero() {
        return Err(Refusal::ZeroAmount);
    }
    Ok(())
}

fn refuse_system(account: AccountId) -> Result<(), Refusal> {
    if Kind::of(&account) == Kind::User {
        return Ok(());
    }
    Err(Refusal::SystemAccount(account))
}

const fn refuse_many(what: &'static str, count: usize, most: usize) -> Result<(), Refusal> {
    if count > most {
        return Err(Refusal::TooMany { what, most });
    }
    Ok(())
}

fn add(counter: &mut Amount, amount: Amount) -> Result<(), Refusal> {
    *counter = counter.checked_add(amount).ok_or(Refusal::Overflow)?;
    Ok(())
}

fn take(counter: &mut Amount, amount: Amount) -> Result<(), Refusal> {
    *counter = counter.checked_sub(amount).ok_or(Refusal::Overflow)?;
    Ok(())
}
