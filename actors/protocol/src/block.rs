//! Blocks: the chain in which the network's money is kept, as it is stored, streamed and proven.
//!
//! An [`Entry`] is one linked group: what an account signed, what the coordinator decided with it, all carried
//! out or nothing. Its [`Receipt`] says what it did. A [`Block`] gathers entries; its [`Header`] commits to them, to
//! their receipts and to the state after them, and names the block before. Whoever has the genesis can carry out
//! the whole chain again.
//!
//! Entries, receipts and what they hold are CBOR arrays, not maps: a ledger keeps millions of them.

use serde::{Deserialize, Serialize};

use crate::genesis::Genesis;
use crate::key::Hash;
use crate::task::Reason;
use crate::transaction::Outcome;
use crate::{
    AccountId, Amount, GenesisHash, NodeId, PublicKey, ReceiptId, SecretKey, Signature, Signed,
    TaskId, Timestamp, codec,
};

/// The most bytes of a block's entries and receipts in CBOR. A block fits a frame with room to spare.
pub const MAX_BLOCK_BYTES: usize = 900 * 1024;

/// A node's part of a verified checkpoint, for its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "(AccountId, NodeId, Amount)",
    into = "(AccountId, NodeId, Amount)"
)]
pub struct Share {
    /// Its owner's account, which will be paid.
    pub account: AccountId,
    /// The node.
    pub node: NodeId,
    /// How much.
    pub amount: Amount,
}

impl From<(AccountId, NodeId, Amount)> for Share {
    fn from((account, node, amount): (AccountId, NodeId, Amount)) -> Self {
        Self {
            account,
            node,
            amount,
        }
    }
}

impl From<Share> for (AccountId, NodeId, Amount) {
    fn from(share: Share) -> Self {
        (share.account, share.node, share.amount)
    }
}

/// What a hold will pay besides work, fixed when it is opened: its settlement follows these and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldTerms {
    /// When the ledger settles the hold by itself, if nobody has.
    pub expires: Timestamp,
    /// The most that miners can earn.
    pub work_max: Amount,
    /// Owners of the items in use and what each is due.
    pub items: Vec<(AccountId, Amount)>,
    /// Price of storing a MiB of results.
    pub storage_per_mib: Amount,
    /// The most that storage can cost.
    pub storage_max: Amount,
    /// The network's share of what is paid, in millionths.
    pub network_fee_ppm: u32,
}

/// How a task has ended, as far as its hold is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// Whether the items were used: then their owners are due their fees.
    pub items_used: bool,
    /// Bytes of results that are stored, by the account of the storage node's owner.
    pub stored: Vec<(AccountId, u64)>,
    /// Share of a node's earnings that is withheld for a while, in millionths, by rule of its rating. Nothing is
    /// withheld from nodes that are not named.
    pub withheld: Vec<(NodeId, u32)>,
}

/// What the coordinator decides. It can move held money by the hold's own rules alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decision {
    /// The supply is minted as the genesis says: the one entry of block 0.
    Mint {},
    /// Everything that is due at the block's time happens: holds expire, locks end. The first entry of a block, where
    /// something is due.
    Due {},
    /// The task that the entry's transaction posts gets its hold.
    OpenHold {
        /// The terms that its settlement follows.
        terms: HoldTerms,
    },
    /// A checkpoint is verified: its shares are earned inside the hold.
    Earn {
        /// The task.
        task: TaskId,
        /// Which checkpoint, in rising order over the whole task; one that is not above the last earns nothing.
        checkpoint: u64,
        /// Who earned what.
        shares: Vec<Share>,
    },
    /// The task has ended: what was earned is paid, fees are paid, the rest goes back.
    Settle {
        /// The task.
        task: TaskId,
        /// How it ended.
        ending: Ending,
    },
    /// A node's answer was proved wrong: what is withheld of its owner's earnings goes to the reward fund. What vests, and
    /// what is free, nobody can take.
    Forfeit {
        /// The node's owner.
        account: AccountId,
        /// The node.
        node: NodeId,
        /// The task that it answered.
        task: TaskId,
    },
}

/// One linked group of a block: carried out whole, or not in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "(Option<SignedParts>, Vec<Decision>)",
    into = "(Option<SignedParts>, Vec<Decision>)"
)]
pub struct Entry {
    /// A [`crate::transaction::Transaction`], as its account signed it.
    pub transaction: Option<Signed>,
    /// What the coordinator decided with it, in order, carried out after it.
    pub decisions: Vec<Decision>,
}

/// Payload, signer, signature.
type SignedParts = (serde_bytes::ByteBuf, PublicKey, Signature);

impl From<(Option<SignedParts>, Vec<Decision>)> for Entry {
    fn from((transaction, decisions): (Option<SignedParts>, Vec<Decision>)) -> Self {
        let signed = |(payload, signer, signature): SignedParts| Signed {
            payload: payload.into_vec(),
            signer,
            signature,
        };
        Self {
            transaction: transaction.map(signed),
            decisions,
        }
    }
}

impl From<Entry> for (Option<SignedParts>, Vec<Decision>) {
    fn from(entry: Entry) -> Self {
        let parts = |signed: Signed| {
            let payload = serde_bytes::ByteBuf::from(signed.payload);
            (payload, signed.signer, signed.signature)
        };
        (entry.transaction.map(parts), entry.decisions)
    }
}

/// One immutable movement of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TransferParts", into = "TransferParts")]
pub struct Transfer {
    /// From whom.
    pub payer: AccountId,
    /// To whom. A refund goes from the payer to itself: the hold gives back what it did not spend.
    pub payee: AccountId,
    /// How much; never nothing.
    pub amount: Amount,
    /// What for.
    pub reason: Reason,
    /// The task whose hold paid, where one did.
    pub task: Option<TaskId>,
    /// The node that did the work, where one did.
    pub node: Option<NodeId>,
}

type TransferParts = (
    AccountId,
    AccountId,
    Amount,
    Reason,
    Option<TaskId>,
    Option<NodeId>,
);

impl From<TransferParts> for Transfer {
    fn from((payer, payee, amount, reason, task, node): TransferParts) -> Self {
        Self {
            payer,
            payee,
            amount,
            reason,
            task,
            node,
        }
    }
}

impl From<Transfer> for TransferParts {
    fn from(t: Transfer) -> Self {
        (t.payer, t.payee, t.amount, t.reason, t.task, t.node)
    }
}

/// What an entry did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    from = "(Option<Outcome>, Vec<Transfer>)",
    into = "(Option<Outcome>, Vec<Transfer>)"
)]
pub struct Receipt {
    /// The answer to its transaction, where it has one: the same bytes get it again.
    pub outcome: Option<Outcome>,
    /// The tokens that it moved, in order.
    pub transfers: Vec<Transfer>,
}

impl From<(Option<Outcome>, Vec<Transfer>)> for Receipt {
    fn from((outcome, transfers): (Option<Outcome>, Vec<Transfer>)) -> Self {
        Self { outcome, transfers }
    }
}

impl From<Receipt> for (Option<Outcome>, Vec<Transfer>) {
    fn from(receipt: Receipt) -> Self {
        (receipt.outcome, receipt.transfers)
    }
}

/// What a block commits to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// 1.
    pub version: u8,
    /// Whose chain.
    pub network: GenesisHash,
    /// From 0, without gaps.
    pub height: u64,
    /// The block's time: above the parent's, and what validity, expiry and locks go by.
    pub time: Timestamp,
    /// Hash of the header before; the network's id in block 0.
    pub parent: Hash,
    /// Root of the RFC 6962 tree over the entries' CBOR.
    pub entries: Hash,
    /// Root of the RFC 6962 tree over the receipts' CBOR.
    pub receipts: Hash,
    /// Hash of the state after the block.
    pub state: Hash,
    /// Entries in this block.
    pub count: u32,
    /// Entries in the chain up to here, with this block's.
    pub total: u64,
}

impl Header {
    /// The block's name, and what certificates sign and the next header points at.
    pub fn hash(&self) -> Hash {
        Hash::new(blake3::derive_key(
            "cryptomind/header/1",
            &codec::encode(self),
        ))
    }

    /// The parent of block 0.
    pub const fn parent_of_first(network: &GenesisHash) -> Hash {
        Hash::new(*network.as_bytes())
    }
}

/// Why a block is final: signatures over its header's hash. One, by the genesis' coordinator, under the `solo` engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Who signed, and the signature.
    pub signatures: Vec<(PublicKey, Signature)>,
}

const CERTIFICATE_TAG: &[u8] = b"cryptomind/certificate/1";

fn certified(header: &Hash) -> Vec<u8> {
    [
        &(CERTIFICATE_TAG.len() as u32).to_be_bytes(),
        CERTIFICATE_TAG,
        header.as_bytes(),
    ]
    .concat()
}

impl Certificate {
    /// One signer's certificate. The header's hash covers the network.
    pub fn sign(header: &Hash, key: &SecretKey) -> Self {
        let signature = key.sign(&certified(header));
        Self {
            signatures: vec![(key.public(), signature)],
        }
    }

    /// Whether `signer` signed this header.
    pub fn is_signed_by(&self, signer: &PublicKey, header: &Hash) -> bool {
        let message = certified(header);
        let own = |(key, signature): &(PublicKey, Signature)| {
            key == signer && key.verify(&message, signature)
        };
        self.signatures.iter().any(own)
    }
}

/// A block whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// What it commits to.
    pub header: Header,
    /// Why it is final.
    pub certificate: Certificate,
    /// What happened, in order.
    pub entries: Vec<Entry>,
    /// What each did.
    pub receipts: Vec<Receipt>,
}

/// An entry with everything that proves it, for a file: see `cryptomind wallet receipt`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptFile {
    /// 1.
    pub version: u8,
    /// Its height and place.
    pub id: ReceiptId,
    /// What the network started from: its hash is the network's id.
    pub genesis: Genesis,
    /// The header of its block.
    pub header: Header,
    /// Why that block is final.
    pub certificate: Certificate,
    /// The entry.
    pub entry: Entry,
    /// What it did.
    pub receipt: Receipt,
    /// From the entry to the header's root of entries.
    pub entry_path: Vec<Hash>,
    /// From the receipt to the header's root of receipts.
    pub receipt_path: Vec<Hash>,
}

#[cfg(test)]
mod tests;
