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
    /// Keys that an account was given after its first, and has replaced since.
    retired: BTreeMap<PublicKey, AccountId>,
}

impl Table {
    fn put(&mut self, account: AccountId, key: PublicKey) {
        if let Some(replaced) = self.keys.insert(account, key) {
            self.accounts.remove(&replaced);
            self.retired.insert(replaced, account);
        }
        self.accounts.insert(key, account);
    }
}

impl Signers {
    /// Takes what the ledger knows.
    pub fn replace(&self, ledger: &Ledger) {
        let mut table = Table::default();
        for account in ledger.accounts() {
            account
                .keys
                .iter()
                .for_each(|key| table.put(account.id, *key));
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
    /// `key_retired` for a key that its account has replaced.
    pub fn account_of(&self, key: &PublicKey) -> Result<AccountId, ErrorBody> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let own = AccountId::of_key(key);
        let replaced = table.retired.get(key);
        match (table.accounts.get(key), table.keys.contains_key(&own)) {
            (Some(account), _) => Ok(*account),
            (None, true) => Err(key_retired(&own)),
            (None, false) => replaced.map_or(Ok(own), |account| Err(key_retired(account))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_key_signs() {
        let [first, second, third] = [1, 2, 3].map(|n| PublicKey::new([n; 32]));
        let (account, signers) = (AccountId::of_key(&first), Signers::default());
        assert_eq!(signers.account_of(&first), Ok(account));
        for key in [second, third] {
            let receipt = Receipt {
                outcome: Some(Outcome::Rotated { key }),
                transfers: Vec::new(),
            };
            signers.follow(&receipt, Some(account));
        }
        assert_eq!(signers.account_of(&third), Ok(account));
        for retired in [first, second] {
            assert_eq!(
                signers.account_of(&retired).unwrap_err().code,
                "key_retired"
            );
        }
    }
}
