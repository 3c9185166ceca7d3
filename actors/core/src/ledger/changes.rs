//! Changes: what operations changed, as it is stored.

use cryptomind_protocol::TaskId;
use cryptomind_protocol::block::Transfer;

use super::account::Account;
use super::delegation::{Delegation, DelegationKey};
use super::hold::Hold;
use super::lock::{Lock, LockKey};

/// The records that operations changed, in their new form. Empty where there was nothing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Accounts, by id.
    pub accounts: Vec<Account>,
    /// Holds, by task; none where it is settled and gone.
    pub holds: Vec<(TaskId, Option<Hold>)>,
    /// Locks, by key; none where it has ended and is gone.
    pub locks: Vec<(LockKey, Option<Lock>)>,
    /// Delegations, by key; none where it is revoked and gone.
    pub delegations: Vec<(DelegationKey, Option<Delegation>)>,
    /// New transfers, in order.
    pub transfers: Vec<Transfer>,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
            && self.holds.is_empty()
            && self.locks.is_empty()
            && self.delegations.is_empty()
            && self.transfers.is_empty()
    }
}
