//! The ledger: who has how much, what is held for which task, and what has been earned in it.
//!
//! Owned by the ledger actor, which stores [`Changes`] before anyone hears of them. Pure: an
//! [`Op`] either changes everything that it names or, as a [`Refusal`], nothing.
//!
//! Money moves between accounts by double entry. An [`Account`] has four counters: debits and
//! credits, pending and posted. Pending is what open holds have reserved, posted is what
//! [`Transfer`]s have moved; transfers are never changed or undone.
//!
//! The life of a [`Hold`]:
//!
//! ```text
//!   OpenHold            Earn, any number of times            Settle, once
//! ─────────────▶ open ──────────────────────────────▶ open ──────────────▶ settled
//!   payer:    debits pending + cap                          posted: − cap, in parts:
//!   escrow:   credits pending + cap    − share              earned shares, fees, refund
//!   payee:                             credits pending +    credits posted +
//! ```
//!
//! Invariants, checked by [`Ledger::check_invariants`]: debits equal credits, pending and posted
//! apart; the accounts' balances sum to the supply; an account never spends more than it has; what
//! is pending is exactly what open holds say; free + earned + paid + returned is a hold's amount.
//!
//! Not here: who may ask (signatures, idempotency: `transaction` and the actor), what things cost
//! (`price`), when a task ends (the run).

mod account;
mod draft;
mod hold;
mod invariants;
mod op;
mod refusal;
mod transfer;

pub use account::{Account, Balance, Total};
pub use hold::{Earning, Hold, Settlement};
pub use invariants::Broken;
pub use op::{Fee, Op, Share};
pub use refusal::Refusal;
pub use transfer::Transfer;

use std::collections::BTreeMap;

use cryptomind_protocol::genesis::{ALLOCATION_PERCENT, FEES};
use cryptomind_protocol::{AccountId, Amount, TaskId, Timestamp};

use draft::Draft;

/// System account that owes the supply to everybody else: the genesis mints from it.
pub const MINT: &str = "genesis";
/// System account that stands for what open holds have not earned yet. Only ever pending.
pub const ESCROW: &str = "escrow";
/// System account that pays test money on development networks.
pub const BOUNTY: &str = "bounty";

/// Names of the accounts that nobody has a key for.
pub fn system_names() -> impl Iterator<Item = &'static str> {
    let allocated = ALLOCATION_PERCENT.iter().map(|(name, _)| *name);
    allocated.chain([FEES, MINT, ESCROW])
}

/// The records that an operation changed, in their new form. Empty where there was nothing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Accounts, by id.
    pub accounts: Vec<Account>,
    /// Holds, by task.
    pub holds: Vec<Hold>,
    /// New transfers, in order.
    pub transfers: Vec<Transfer>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.holds.is_empty() && self.transfers.is_empty()
    }
}

/// All accounts and holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    accounts: BTreeMap<AccountId, Account>,
    holds: BTreeMap<TaskId, Hold>,
}

impl Ledger {
    /// The ledger that these stored records are. The caller runs [`Ledger::check_invariants`] on
    /// what came from a disk.
    pub fn rebuild(
        accounts: impl IntoIterator<Item = Account>,
        holds: impl IntoIterator<Item = Hold>,
    ) -> Self {
        Self {
            accounts: accounts.into_iter().map(|a| (a.id, a)).collect(),
            holds: holds.into_iter().map(|h| (h.task, h)).collect(),
        }
    }

    /// Carries out `op` whole, or refuses it and changes nothing.
    pub fn apply(&mut self, op: Op, now: Timestamp) -> Result<Changes, Refusal> {
        let changes = self.plan(op, now)?;
        self.absorb(&changes);
        Ok(changes)
    }

    /// Carries out all of `ops` in order, or refuses one of them and changes nothing.
    pub fn apply_all(
        &mut self,
        ops: impl IntoIterator<Item = Op>,
        now: Timestamp,
    ) -> Result<Changes, Refusal> {
        let mut draft = Draft::new(self, now);
        ops.into_iter().try_for_each(|op| draft.carry_out(op))?;
        let changes = draft.into_changes();
        self.absorb(&changes);
        Ok(changes)
    }

    /// What `op` would change, without changing it.
    pub fn plan(&self, op: Op, now: Timestamp) -> Result<Changes, Refusal> {
        let mut draft = Draft::new(self, now);
        draft.carry_out(op)?;
        Ok(draft.into_changes())
    }

    fn absorb(&mut self, changes: &Changes) {
        let accounts = changes.accounts.iter().cloned();
        self.accounts.extend(accounts.map(|a| (a.id, a)));
        let holds = changes.holds.iter().cloned();
        self.holds.extend(holds.map(|h| (h.task, h)));
    }

    /// Whether the genesis has not been carried out yet.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// An account's record, where it ever had a token.
    pub fn account(&self, account: &AccountId) -> Option<&Account> {
        self.accounts.get(account)
    }

    /// What an account has; zeros where it never had a token.
    pub fn balance(&self, account: &AccountId) -> Balance {
        self.accounts
            .get(account)
            .map(Account::balance)
            .unwrap_or_default()
    }

    /// A task's hold, open or settled.
    pub fn hold(&self, task: &TaskId) -> Option<&Hold> {
        self.holds.get(task)
    }

    /// The holds that are not settled yet, by task.
    pub fn open_holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values().filter(|hold| hold.is_open())
    }

    /// Sum of all balances, held or free: what the genesis minted, for ever.
    pub fn supply(&self) -> Amount {
        let mint = AccountId::of_system(MINT);
        let owned = self.accounts.values().filter(|a| a.id != mint);
        Amount::from_base_units(owned.map(|a| a.owned().base_units()).sum())
    }

    /// Tokens in open holds.
    pub fn held(&self) -> Amount {
        let held = self.accounts.values().map(|a| a.debits_pending);
        Amount::from_base_units(held.map(Amount::base_units).sum())
    }

    /// Looks for a broken invariant, over all accounts and holds.
    pub fn check_invariants(&self) -> Result<(), Broken> {
        invariants::check(&self.accounts, &self.holds)
    }
}

#[cfg(test)]
mod tests;
