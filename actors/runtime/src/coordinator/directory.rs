//! Who signs for which account, and which nodes work for it: read by every door, written by the ledger alone.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cryptomind_core::ledger::{Delegation, Ledger};
use cryptomind_core::transaction::key_retired;
use cryptomind_protocol::transaction::Outcome;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId, PublicKey};

/// What the doors share of the ledger.
#[derive(Debug, Clone, Default)]
pub struct Directory(Arc<RwLock<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    signers: Signers,
    delegations: BTreeMap<(AccountId, NodeId), Delegation>,
}

/// Accounts that sign with another key than their first. Nearly always none: most keep it.
#[derive(Debug, Default)]
struct Signers {
    keys: BTreeMap<AccountId, PublicKey>,
    accounts: BTreeMap<PublicKey, AccountId>,
    /// Keys that an account was given after its first, and has replaced since.
    retired: BTreeMap<PublicKey, AccountId>,
}

impl Signers {
    fn put(&mut self, account: AccountId, key: PublicKey) {
        if let Some(replaced) = self.keys.insert(account, key) {
            self.accounts.remove(&replaced);
            self.retired.insert(replaced, account);
        }
        self.accounts.insert(key, account);
    }

    fn account_of(&self, key: &PublicKey) -> Result<AccountId, ErrorBody> {
        let own = AccountId::of_key(key);
        let replaced = self.retired.get(key);
        match (self.accounts.get(key), self.keys.contains_key(&own)) {
            (Some(account), _) => Ok(*account),
            (None, true) => Err(key_retired(&own)),
            (None, false) => replaced.map_or(Ok(own), |account| Err(key_retired(account))),
        }
    }
}

impl Directory {
    /// Takes what the ledger knows.
    pub fn replace(&self, ledger: &Ledger) {
        let mut pages = Pages::default();
        for account in ledger.accounts() {
            for key in &account.keys {
                pages.signers.put(account.id, *key);
            }
        }
        let delegations = ledger.delegations().map(|d| (d.key(), d.clone()));
        pages.delegations.extend(delegations);
        *self.write() = pages;
    }

    /// Whether an outcome changes what is in here.
    pub const fn concerns(outcome: &Outcome) -> bool {
        matches!(
            outcome,
            Outcome::Rotated { .. } | Outcome::Delegated { .. } | Outcome::Revoked { .. }
        )
    }

    /// Takes what a transaction of this account's did, once that is durable.
    pub fn follow(&self, account: AccountId, outcome: &Outcome) {
        match outcome {
            Outcome::Rotated { key } => self.write().signers.put(account, *key),
            Outcome::Delegated {
                node,
                role,
                expires,
            } => {
                let (node, role, expires) = (*node, *role, *expires);
                let delegation = Delegation {
                    account,
                    node,
                    role,
                    expires,
                };
                self.write().delegations.insert((account, node), delegation);
            }
            Outcome::Revoked { node } => {
                self.write().delegations.remove(&(account, *node));
            }
            _ => {}
        }
    }

    /// The account that `key` signs for.
    ///
    /// # Errors
    /// `key_retired` for a key that its account has replaced.
    pub fn account_of(&self, key: &PublicKey) -> Result<AccountId, ErrorBody> {
        self.read().signers.account_of(key)
    }

    /// What an account has said of a node.
    pub fn delegation(&self, account: AccountId, node: NodeId) -> Option<Delegation> {
        self.read().delegations.get(&(account, node)).cloned()
    }

    /// All that an account has said of nodes, by node.
    pub fn delegations_of(&self, account: AccountId) -> Vec<Delegation> {
        let pages = self.read();
        let from = pages
            .delegations
            .range((account, NodeId::new([0; NodeId::LEN]))..);
        let own = from.take_while(|((owner, _), _)| *owner == account);
        own.map(|(_, delegation)| delegation.clone()).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        // Every change is a single insert, remove or assignment: a panic elsewhere leaves it whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::Timestamp;
    use cryptomind_protocol::role::Role;

    #[test]
    fn only_the_last_key_signs() {
        let [first, second, third] = [1, 2, 3].map(|n| PublicKey::new([n; 32]));
        let (account, directory) = (AccountId::of_key(&first), Directory::default());
        assert_eq!(directory.account_of(&first), Ok(account));
        for key in [second, third] {
            directory.follow(account, &Outcome::Rotated { key });
        }
        assert_eq!(directory.account_of(&third), Ok(account));
        for retired in [first, second] {
            assert_eq!(
                directory.account_of(&retired).unwrap_err().code,
                "key_retired"
            );
        }
    }

    #[test]
    fn a_node_works_until_it_is_revoked() {
        let (account, node) = (AccountId::new([1; 20]), NodeId::new([2; 32]));
        let (directory, expires) = (Directory::default(), Timestamp::from_ms(9));
        let told = |outcome| directory.follow(account, &outcome);
        let role = Role::Miner;
        told(Outcome::Delegated {
            node,
            role,
            expires,
        });
        let known = directory.delegation(account, node).unwrap();
        assert_eq!((known.role, known.expires), (role, expires));
        assert_eq!(directory.delegations_of(account), [known]);
        let other = AccountId::new([0; 20]);
        assert_eq!(directory.delegation(other, node), None);
        assert_eq!(directory.delegations_of(other), []);
        told(Outcome::Revoked { node });
        assert_eq!(directory.delegations_of(account), []);
    }
}
