//! The ledger: who has how much, what is held for which task, what is earned in it, what is locked, and which nodes
//! work for whom.
//!
//! Owned by the chain, which orders operations, fixes their time and stores [`Changes`] before anyone hears of
//! them. Pure: a group of [`Op`]s either changes everything that it names or, as a [`Refusal`], nothing. `now` is
//! always a block's time.
//!
//! # Counters
//!
//! Money moves between accounts by double entry. An [`Account`] has four counters: debits and credits, pending and
//! posted. Posted is what transfers have moved; transfers are never changed or undone. Pending is what open holds
//! and [`Lock`]s reserve. An account may spend: credits posted − debits posted − debits pending. Three accounts
//! are the ledger's own: `genesis` owes the supply, `escrow` stands for what open holds have not earned yet,
//! `locked` for what locks keep back; the last two are only ever pending.
//!
//! | operation | debits pending | credits pending | posted |
//! |---|---|---|---|
//! | `Mint` | owner + what vests | locked + what vests | genesis → owners |
//! | `Faucet`, `Send` | – | – | payer → payee |
//! | `Charge` | – | – | payer → fees, and → reward fund its share |
//! | `OpenHold` | client + amount | escrow + amount | – |
//! | `Earn` | – | escrow − share, earner + share | – |
//! | `Settle`, or `Due` at the expiry | client − amount; earner + withheld | escrow − free, earners − earned; locked + withheld | client → earners, owners, storage, fees, reward fund, client |
//! | `Due` at a lock's end | owner − lock | locked − lock | – |
//! | `Forfeit` | owner − withheld | locked − withheld | owner → reward fund |
//! | `RotateKey`, `Delegate`, `Revoke` | – | – | – |
//!
//! # The life of a hold
//!
//! A [`Hold`] is open from its opening to its settlement; then it is gone, and receipts keep what it paid. A task's
//! whole cap goes in at once, with the terms that the settlement follows; the cap covers the most that these can pay
//! ([`most`]), so a settlement never lacks tokens. No other operation, whoever signs it, touches what is held.
//!
//! | from → to | trigger | what moves | when nobody does it |
//! |---|---|---|---|
//! | nothing → open | `OpenHold`, with the client's signed post of the task | free tokens of the client → free in the hold | no task, nothing held |
//! | open → open | `Earn`: a checkpoint is verified. One that is not above the last changes nothing | free in the hold → earned by this node, for ever | it earns nothing; the hold's expiry goes on |
//! | open → gone | `Settle`: the task has finished, was redirected or cancelled, or has failed | earned → miners, a share withheld by the rule of their ratings; item fees where the items were used; storage by what is stored; the network's share; the rest → the client | the next row |
//! | open → gone | `Due`, at the block time `terms.expires` | the same; the items count as used if anything was earned, nothing as stored, nothing is withheld | it is the timer: an empty block is made for it |
//! | locked → free | `Due`, at the block time `until` | withheld or vesting tokens → free tokens of their account | it is the timer |
//! | locked → gone | `Forfeit`: an answer of a node of the account was proved wrong | all that is withheld of the account's earnings → the reward fund; what vests stays | the row above |
//!
//! So every wait ends in block time: a silent client is not asked for anything once the hold is open and cannot keep
//! a miner from what it earned; a vanished miner keeps what it earned and the rest goes back; a lost coordinator
//! strands nothing, for whoever makes or carries out the next block carries out what is due. From its expiry on, a
//! hold is neither earned in nor settled by anything but `Due`. A miner needs no money to start: all that it can
//! lose is what is withheld from its own earnings, and that only for a while.
//!
//! What a hold pays to an account whose first key was given to another one meanwhile goes to that one: the key's
//! holder agreed to that, and nobody else could ever spend it. Whoever sends tokens there is refused.
//!
//! One `Due` does a block's worth ([`MAX_DUE_TRANSFERS`], [`MAX_DUE_LOCKS`]); the rest is due still and
//! [`Ledger::next_due`] says so.
//!
//! # Invariants
//!
//! - debits equal credits, pending and posted apart; all balances sum to the supply;
//! - no account but `genesis` spends more than it has;
//! - open holds and locks are exactly what is pending, account by account;
//! - free + earned + paid + returned is a hold's amount: free + earned while it is open, paid + returned in the
//!   group that ends it; it ends once, as it is gone then;
//! - a delegation lies under its own account and node;
//! - the indexes (expiries, locks by account, keys, running sums) are what a look at every record gives.
//!
//! [`Ledger::check_invariants`] checks them over everything; [`Ledger::plan`] checks on the rows that a group touches
//! that they stay true, and refuses a breach as [`Refusal::Broken`] before anything is changed.
//!
//! Nothing here is iterated in an order that could differ between two machines.
//!
//! Not here: who may ask (signatures, idempotency: `transaction` and the chain; a task's id comes from the
//! transaction that posts it, so no id comes twice), what things cost (`price`), when a task ends (the run).

mod account;
mod changes;
mod delegation;
mod draft;
mod hold;
mod invariants;
mod lock;
mod op;
mod refusal;
mod rules;
mod settlement;
mod system;
mod touched;

pub use account::{Account, Balance, Total};
pub use changes::Changes;
pub use delegation::{Delegation, DelegationKey};
pub use hold::{Earning, Hold};
pub use invariants::Broken;
pub use lock::{Lock, LockKey};
pub use op::Op;
pub use refusal::Refusal;
pub use rules::Rules;
pub use settlement::most;
pub use system::{ESCROW, Kind, LOCKED, MINT, system_names};

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_protocol::{AccountId, Amount, NodeId, PublicKey, TaskId, Timestamp};

use draft::Draft;
use system::SYSTEM;

/// From this many transfers on, [`Op::Due`] begins no further hold: the rest is due still, in the next block.
/// A block so stays within its limit.
pub const MAX_DUE_TRANSFERS: usize = 1024;

/// The most locks that one [`Op::Due`] ends; the rest is due still, in the next block.
pub const MAX_DUE_LOCKS: usize = 4096;

/// The most locks that one [`Op::Forfeit`] takes: those that end first.
pub const MAX_FORFEITED_LOCKS: usize = MAX_DUE_LOCKS;

/// A lock by its account: whose, when it ends, which node's.
type Unlock = (AccountId, Timestamp, Option<NodeId>);

const fn unlock_entry(lock: &Lock) -> Unlock {
    (lock.account, lock.until, lock.node)
}

/// All accounts, open holds and locks, and what is found by them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    rules: Rules,
    accounts: BTreeMap<AccountId, Account>,
    holds: BTreeMap<TaskId, Hold>,
    locks: BTreeMap<LockKey, Lock>,
    delegations: BTreeMap<DelegationKey, Delegation>,
    /// Open holds by expiry.
    expiries: BTreeSet<(Timestamp, TaskId)>,
    /// Locks by account.
    unlocks: BTreeSet<Unlock>,
    /// Every key that an account was ever given after its first.
    keys: BTreeMap<PublicKey, AccountId>,
    /// Accounts that nobody signs for, as their first key signs for another account, or did; and that one.
    unreachable: BTreeMap<AccountId, AccountId>,
    held: Amount,
}

impl Ledger {
    /// A ledger of nothing, before the genesis.
    pub const fn new(rules: Rules) -> Self {
        Self {
            rules,
            accounts: BTreeMap::new(),
            holds: BTreeMap::new(),
            locks: BTreeMap::new(),
            delegations: BTreeMap::new(),
            expiries: BTreeSet::new(),
            unlocks: BTreeSet::new(),
            keys: BTreeMap::new(),
            unreachable: BTreeMap::new(),
            held: Amount::ZERO,
        }
    }

    /// The ledger that these stored records are. The caller runs [`Ledger::check_invariants`] on
    /// what came from a disk.
    pub fn rebuild(
        rules: Rules,
        accounts: impl IntoIterator<Item = Account>,
        holds: impl IntoIterator<Item = Hold>,
        locks: impl IntoIterator<Item = Lock>,
        delegations: impl IntoIterator<Item = Delegation>,
    ) -> Self {
        let mut ledger = Self::new(rules);
        accounts.into_iter().for_each(|a| ledger.put_account(a));
        for hold in holds {
            ledger.put_hold(hold.task, Some(hold));
        }
        for lock in locks {
            ledger.put_lock(lock.key(), Some(lock));
        }
        let delegations = delegations.into_iter().map(|d| (d.key(), d));
        ledger.delegations.extend(delegations);
        ledger
    }

    /// The rules that it goes by.
    pub const fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What `ops`, carried out in order, would change, without changing it; or why one of them is refused.
    /// The changes have passed the check of the touched rows.
    pub fn plan(
        &self,
        ops: impl IntoIterator<Item = Op>,
        now: Timestamp,
    ) -> Result<Changes, Refusal> {
        let mut draft = Draft::new(self, now);
        ops.into_iter().try_for_each(|op| draft.carry_out(op))?;
        let changes = draft.into_changes();
        touched::check(self, &changes)?;
        Ok(changes)
    }

    /// Takes over what [`Ledger::plan`] found.
    pub fn absorb(&mut self, changes: &Changes) {
        for account in &changes.accounts {
            self.put_account(account.clone());
        }
        for (task, hold) in &changes.holds {
            self.put_hold(*task, hold.clone());
        }
        for (key, lock) in &changes.locks {
            self.put_lock(*key, lock.clone());
        }
        for (key, delegation) in &changes.delegations {
            match delegation {
                Some(delegation) => self.delegations.insert(*key, delegation.clone()),
                None => self.delegations.remove(key),
            };
        }
    }

    /// Carries out all of `ops` in order, or refuses one of them and changes nothing.
    pub fn apply(
        &mut self,
        ops: impl IntoIterator<Item = Op>,
        now: Timestamp,
    ) -> Result<Changes, Refusal> {
        let changes = self.plan(ops, now)?;
        self.absorb(&changes);
        Ok(changes)
    }

    fn put_account(&mut self, account: Account) {
        let known = self.accounts.get(&account.id);
        let known = known.map_or(0, |a| a.keys.len());
        for key in account.keys.iter().skip(known) {
            self.keys.insert(*key, account.id);
            self.unreachable.insert(AccountId::of_key(key), account.id);
        }
        self.accounts.insert(account.id, account);
    }

    fn put_hold(&mut self, task: TaskId, hold: Option<Hold>) {
        if let Some(hold) = &hold {
            self.expiries.insert((hold.terms.expires, task));
            self.held = sum(self.held, hold.amount);
        }
        let before = match hold {
            Some(hold) => self.holds.insert(task, hold),
            None => self.holds.remove(&task),
        };
        let Some(before) = before else { return };
        self.held = difference(self.held, before.amount);
        let kept = self.holds.get(&task).map(|h| h.terms.expires);
        if kept != Some(before.terms.expires) {
            self.expiries.remove(&(before.terms.expires, task));
        }
    }

    fn put_lock(&mut self, key: LockKey, lock: Option<Lock>) {
        match lock {
            Some(lock) => {
                self.unlocks.insert(unlock_entry(&lock));
                self.locks.insert(key, lock);
            }
            None => {
                self.unlocks.remove(&(key.account, key.until, key.node));
                self.locks.remove(&key);
            }
        }
    }

    /// Whether the genesis has not been carried out yet.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// An account's record, where it ever had a token or another key.
    pub fn account(&self, account: &AccountId) -> Option<&Account> {
        self.accounts.get(account)
    }

    /// What an account has; zeros where it never had a token.
    pub fn balance(&self, account: &AccountId) -> Balance {
        let Some(found) = self.accounts.get(account) else {
            return Balance::default();
        };
        let locked = self.locks_of(account).map(|lock| lock.amount);
        let locked = Amount::sum(locked).unwrap_or(found.debits_pending);
        Balance {
            available: found.available(),
            held: difference(found.debits_pending, locked),
            earning: found.credits_pending,
            locked,
        }
    }

    /// A task's hold, as long as it is open.
    pub fn hold(&self, task: &TaskId) -> Option<&Hold> {
        self.holds.get(task)
    }

    /// A lock, until it ends.
    pub fn lock(&self, key: &LockKey) -> Option<&Lock> {
        self.locks.get(key)
    }

    /// An account's locks, by their ends.
    pub fn locks_of(&self, account: &AccountId) -> impl Iterator<Item = &Lock> {
        let (from, account) = ((*account, Timestamp::default(), None), *account);
        let own = self.unlocks.range(from..);
        let own = own.take_while(move |(owner, ..)| *owner == account);
        own.filter_map(|(account, until, node)| {
            self.locks.get(&LockKey {
                until: *until,
                account: *account,
                node: *node,
            })
        })
    }

    /// What an account has said of a node, expired or not.
    pub fn delegation(&self, key: &DelegationKey) -> Option<&Delegation> {
        self.delegations.get(key)
    }

    /// All that an account has said of nodes, by node.
    pub fn delegations_of(
        &self,
        account: &AccountId,
    ) -> impl Iterator<Item = &Delegation> + use<'_> {
        let (first, last) = ([0; NodeId::LEN], [u8::MAX; NodeId::LEN]);
        let range = (*account, NodeId::new(first))..=(*account, NodeId::new(last));
        self.delegations
            .range(range)
            .map(|(_, delegation)| delegation)
    }

    /// All delegations, by account and node.
    pub fn delegations(&self) -> impl Iterator<Item = &Delegation> {
        self.delegations.values()
    }

    /// When the first of an account's locks ends.
    pub fn unlocks(&self, account: &AccountId) -> Option<Timestamp> {
        self.locks_of(account).next().map(|lock| lock.until)
    }

    /// What is withheld of the earnings of an account's nodes.
    pub fn withheld(&self, account: &AccountId) -> Amount {
        let withheld = self.locks_of(account).filter(|lock| lock.node.is_some());
        Amount::sum(withheld.map(|lock| lock.amount)).unwrap_or_default()
    }

    /// When something is due next: a hold's expiry, a lock's end.
    pub fn next_due(&self) -> Option<Timestamp> {
        let expiry = self.expiries.first().map(|(expires, _)| *expires);
        let unlock = self.locks.keys().next().map(|key| key.until);
        expiry.into_iter().chain(unlock).min()
    }

    /// The tasks whose holds have expired by `now`, earliest first.
    fn expired(&self, now: Timestamp) -> impl Iterator<Item = TaskId> {
        let due = self.expiries.iter();
        let due = due.take_while(move |(expires, _)| *expires <= now);
        due.map(|(_, task)| *task)
    }

    /// All accounts that ever had a token, by id.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// All open holds, by task.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// All locks, by key.
    pub fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.locks.values()
    }

    /// How many accounts have a record.
    pub fn account_count(&self) -> usize {
        self.accounts.len()
    }

    /// How many holds are open.
    pub fn hold_count(&self) -> usize {
        self.holds.len()
    }

    /// How many locks there are.
    pub fn lock_count(&self) -> usize {
        self.locks.len()
    }

    /// The key that signs for an account, where its first is no longer valid.
    pub fn signer(&self, account: &AccountId) -> Option<PublicKey> {
        self.accounts.get(account).and_then(Account::key)
    }

    /// The account that a key signs for: its own, whose first key it is, or the one that was given it. Nothing
    /// where the key is retired.
    pub fn account_of(&self, key: &PublicKey) -> Option<AccountId> {
        if let Some(owner) = self.keys.get(key) {
            return (self.signer(owner) == Some(*key)).then_some(*owner);
        }
        let own = AccountId::of_key(key);
        self.signer(&own).is_none().then_some(own)
    }

    /// All tokens, wherever they are: what the genesis minted, for ever.
    pub fn supply(&self) -> Amount {
        let minted = self.accounts.get(&SYSTEM.mint).map(|mint| {
            let (minted, back) = (mint.debits_posted, mint.credits_posted);
            minted.base_units().saturating_sub(back.base_units())
        });
        let minted = minted.unwrap_or(0);
        Amount::from_base_units(u64::try_from(minted).unwrap_or(u64::MAX))
    }

    /// Tokens in open holds.
    pub const fn held(&self) -> Amount {
        self.held
    }

    /// Tokens in locks.
    pub fn locked(&self) -> Amount {
        let locked = self.accounts.get(&SYSTEM.locked);
        locked.map_or(Amount::ZERO, |account| account.credits_pending)
    }

    /// Looks for a broken invariant, over all accounts, holds, locks and indexes.
    pub fn check_invariants(&self) -> Result<(), Broken> {
        invariants::check(self)
    }
}

/// The largest amount where records are damaged: the check of the invariants reports it.
fn sum(a: Amount, b: Amount) -> Amount {
    a.checked_add(b)
        .unwrap_or(Amount::from_base_units(u64::MAX))
}

/// Nothing where records are damaged: the check of the invariants reports it.
fn difference(a: Amount, b: Amount) -> Amount {
    a.checked_sub(b).unwrap_or(Amount::ZERO)
}

#[cfg(test)]
mod tests;
