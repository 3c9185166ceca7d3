//! Transactions: everything that an account changes, signed, with the client's own id inside.
//!
//! The same bytes twice get the first answer; other bytes under the same id are a conflict.

use serde::{Deserialize, Serialize};

use crate::item::Manifest;
use crate::key::Nonce;
use crate::role::Role;
use crate::signed::Payload;
use crate::task::TaskSpec;
use crate::{
    AccountId, Amount, BlobId, GenesisHash, ItemId, NodeId, PublicKey, ReceiptId, SecretKey,
    Signature, TaskId, Timestamp,
};

/// What an account wants changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Take a nickname, once.
    Register {
        /// Lower-case letters, digits, dashes.
        nickname: String,
    },
    /// Receive test money, on a development network.
    Faucet {},
    /// Send tokens to another account.
    Send {
        /// To whom.
        to: AccountId,
        /// How much.
        amount: Amount,
    },
    /// Publish an item whose files a storage node has acknowledged.
    Publish {
        /// The item.
        manifest: Manifest,
        /// One acknowledgement a file.
        receipts: Vec<StoredReceipt>,
    },
    /// Post a task: its whole cap goes into a hold.
    Post {
        /// The task.
        spec: TaskSpec,
    },
    /// Cancel a task: what was earned is paid, the rest comes back.
    Cancel {
        /// Which.
        task: TaskId,
    },
    /// Give a finished task's miners stars.
    Rate {
        /// Which.
        task: TaskId,
        /// 1 to 5.
        stars: u8,
    },
    /// Sign with another key from now on. The account's id stays.
    RotateKey {
        /// The new key.
        key: PublicKey,
        /// By the new key: see [`sign_rotation`].
        proof: Signature,
    },
    /// A node works for this account from now on: what it earns is the account's. Said again, it replaces what
    /// was said before. It counts where the node itself names this account when it joins.
    Delegate {
        /// The node.
        node: NodeId,
        /// As what: see [`Role::is_delegated`].
        role: Role,
        /// Until this block time.
        expires: Timestamp,
    },
    /// A node no longer works for this account. What it earned stays earned.
    Revoke {
        /// The node.
        node: NodeId,
    },
}

/// A signed change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transaction {
    /// 1.
    pub version: u8,
    /// The client's own id of this change.
    pub id: Nonce,
    /// Whose change: the account of the signing key.
    pub account: AccountId,
    /// After this block time the network refuses it.
    pub valid_until: Timestamp,
    /// The most that the account pays for its being carried out.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub max_fee: Amount,
    /// What to change.
    pub action: Action,
}

/// The form that serde wants.
const fn is_nothing(amount: &Amount) -> bool {
    amount.is_zero()
}

impl Payload for Transaction {
    const TAG: &'static str = "cryptomind/transaction/1";
    const MAX_BYTES: usize = 512 * 1024;
}

/// The longest that a transaction may stay valid: its id is kept that long.
pub const MAX_VALIDITY_MS: u64 = 24 * 3600 * 1000;

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The nickname is taken.
    Registered {
        /// It.
        nickname: String,
    },
    /// Tokens moved.
    Moved {
        /// How many.
        amount: Amount,
    },
    /// The item is in the catalog.
    Published {
        /// Its id.
        item: ItemId,
    },
    /// The task is posted and its cap held.
    Posted {
        /// Its id.
        task: TaskId,
        /// What is held.
        held: Amount,
    },
    /// The task ends; its settlement follows.
    Cancelling {
        /// Which.
        task: TaskId,
    },
    /// The stars count.
    Rated {
        /// Which.
        task: TaskId,
    },
    /// The account signs with this key from now on.
    Rotated {
        /// The new key.
        key: PublicKey,
    },
    /// The node works for the account.
    Delegated {
        /// The node.
        node: NodeId,
        /// As what.
        role: Role,
        /// Until this block time.
        expires: Timestamp,
    },
    /// The node works for the account no longer.
    Revoked {
        /// The node.
        node: NodeId,
    },
}

/// The answer to a transaction: it is in the chain, and this is what it did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// Where in the chain.
    pub receipt: ReceiptId,
    /// What it did.
    pub outcome: Outcome,
}

const ROTATION_TAG: &str = "cryptomind/rotation/1";

fn rotation(network: &GenesisHash, account: &AccountId) -> Vec<u8> {
    let mut m = Vec::with_capacity(128);
    m.extend_from_slice(&(ROTATION_TAG.len() as u32).to_be_bytes());
    m.extend_from_slice(ROTATION_TAG.as_bytes());
    m.extend_from_slice(network.as_bytes());
    m.extend_from_slice(account.as_bytes());
    m
}

/// A new key's consent to sign for `account`: nobody can claim a key that is not theirs.
pub fn sign_rotation(network: &GenesisHash, account: &AccountId, new: &SecretKey) -> Signature {
    new.sign(&rotation(network, account))
}

/// Whether `key` consented to sign for `account`.
pub fn is_rotation_signed(
    network: &GenesisHash,
    account: &AccountId,
    key: &PublicKey,
    proof: &Signature,
) -> bool {
    key.verify(&rotation(network, account), proof)
}

/// A storage node's word that a blob is durably there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredReceipt {
    /// 1.
    pub version: u8,
    /// What is stored.
    pub blob: BlobId,
    /// Its length.
    pub bytes: u64,
    /// By whom.
    pub node: NodeId,
    /// When.
    pub at: Timestamp,
    /// By the storage node's key: see [`StoredReceipt::sign`].
    pub signature: Signature,
}

const RECEIPT_TAG: &str = "cryptomind/stored-receipt/1";

impl StoredReceipt {
    fn message(blob: &BlobId, bytes: u64, node: &NodeId, at: Timestamp) -> Vec<u8> {
        let mut m = Vec::with_capacity(128);
        m.extend_from_slice(&(RECEIPT_TAG.len() as u32).to_be_bytes());
        m.extend_from_slice(RECEIPT_TAG.as_bytes());
        m.extend_from_slice(blob.as_bytes());
        m.extend_from_slice(&bytes.to_be_bytes());
        m.extend_from_slice(node.as_bytes());
        m.extend_from_slice(&at.as_ms().to_be_bytes());
        m
    }

    /// A storage node's receipt.
    pub fn sign(blob: BlobId, bytes: u64, at: Timestamp, key: &SecretKey) -> Self {
        let node = NodeId::of_key(&key.public());
        let signature = key.sign(&Self::message(&blob, bytes, &node, at));
        Self {
            version: 1,
            blob,
            bytes,
            node,
            at,
            signature,
        }
    }

    /// Whether the named node signed it.
    pub fn is_signed(&self) -> bool {
        let key: PublicKey = self.node.key();
        key.verify(
            &Self::message(&self.blob, self.bytes, &self.node, self.at),
            &self.signature,
        )
    }
}

#[cfg(test)]
mod tests;
