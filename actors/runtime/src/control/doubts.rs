//! Owners whose answers are being checked, shared with the ratings: they get no work until it is known.
//!
//! Set by the control actor from its open cases; outlives both actors. Nothing else reads or writes it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use cryptomind_protocol::AccountId;

/// Those owners.
#[derive(Debug, Clone, Default)]
pub struct Doubts(Arc<Mutex<BTreeSet<AccountId>>>);

impl Doubts {
    /// These and no others.
    pub(super) fn set(&self, owners: BTreeSet<AccountId>) {
        // One assignment: a panic elsewhere leaves it whole.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = owners;
    }

    /// Whether an owner's answer is doubted now.
    pub fn contain(&self, owner: &AccountId) -> bool {
        let owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.contains(owner)
    }
}
