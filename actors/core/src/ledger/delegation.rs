//! Delegations: which node works for which account, as what, and until when.

use cryptomind_protocol::role::Role;
use cryptomind_protocol::{AccountId, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

/// What a delegation is found by: the account, then the node. So nobody can take a node from its owner, for the node
/// itself names the account when it joins.
pub type DelegationKey = (AccountId, NodeId);

/// An account's word that a node works for it. Expired ones stay until they are replaced or revoked, and say nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Parts", into = "Parts")]
pub struct Delegation {
    /// Whom it works for.
    pub account: AccountId,
    /// Which node.
    pub node: NodeId,
    /// As what.
    pub role: Role,
    /// Until this block time.
    pub expires: Timestamp,
}

impl Delegation {
    /// The most delegations of one account, expired ones among them: the record of an account's nodes stays small.
    pub const MAX_OF_ACCOUNT: usize = 1024;

    /// The most of an account that never had a token: whoever has a first machine needs no money, and a stranger fills
    /// no ledger for nothing.
    pub const MAX_WITHOUT_TOKENS: usize = 8;

    /// What it is found by.
    pub const fn key(&self) -> DelegationKey {
        (self.account, self.node)
    }

    /// A key as the state hash and the store take it: the account, the node.
    pub fn key_bytes((account, node): &DelegationKey) -> Vec<u8> {
        [account.as_bytes().as_slice(), node.as_bytes()].concat()
    }

    /// Whether the node works for the account in this role at that block time.
    pub fn covers(&self, role: Role, now: Timestamp) -> bool {
        self.role == role && self.expires > now
    }
}

/// As an array: see [`super::Account`].
type Parts = (AccountId, NodeId, Role, Timestamp);

impl From<Parts> for Delegation {
    fn from((account, node, role, expires): Parts) -> Self {
        Self {
            account,
            node,
            role,
            expires,
        }
    }
}

impl From<Delegation> for Parts {
    fn from(d: Delegation) -> Self {
        (d.account, d.node, d.role, d.expires)
    }
}
