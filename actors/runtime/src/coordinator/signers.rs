//! Which accounts sign with another key than their first: read by every door, written by the ledger alone.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use cryptomind_core::ledger::Ledger;
use cryptomind_core::transaction::key_retired;
use cryptomind_protocol::block::Receipt;
use cryptomind_protocol::transaction::Outcome;
use cryptomind_protocol::{AccountId, ErrorBody, PublicKey};

/// A table shared by the doors. Nearly always empty: most accounts keep their first key.
#[derive(Debug, Clone, Default)]
pub struct Signers(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    keys: BTreeMap<AccountId, PublicKey>,
    accounts: BTreeMap<PublicKey, AccountId>,
}

impl Table {
    fn put(&mut self, account: AccountId, key: PublicKey) {
        if let Some(retired) = self.keys.insert(account, key) {
            self.accounts.remove(&retired);
        }
        self.accounts.insert(key, account);
    }
}

impl Signers {
    /// Takes what the ledger knows.
    pub fn replace(&self, ledger: &Ledger) {
        let mut table = Table::default();
        for account in ledger.accounts() {
            if let Some(key) = ledger.signer(&account.id) {
                table.put(account.id, key);
            }
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = table;
    }

    /// Takes what an entry of this account's did.
    pub fn follow(&self, receipt: &Receipt, account: Option<AccountId>) {
        if let (Some(Outcome::Rotated { key }), Some(account)) = (&receipt.outcome, account) {
            let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
            table.put(account, *key);
        }
    }

    /// The account that `key` signs for.
    ///
    /// # Errors
    /// `key_retired` for the first key of an account that has another by now.
    pub fn account_of(&self, key: &PublicKey) -> Result<AccountId, ErrorBody> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let own = AccountId::of_key(key);
        match (table.accounts.get(key), table.keys.contains_key(&own)) {
            (Some(account), _) => Ok(*account),
            (None, true) => Err(key_retired(&own)),
            (None, false) => Ok(own),
        }
    }
}
