//! Transfers: immutable movements of tokens.

use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{AccountId, Amount, NodeId, TaskId, Timestamp, TransferId};
use serde::{Deserialize, Serialize};

use super::account::Total;

/// One movement of tokens. The posted counters of an account are the sums of its transfers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Derived from the payer and what it had paid before: no two transfers share it, and carrying
    /// out the same operations again gives the same ids.
    pub id: TransferId,
    /// When.
    pub at: Timestamp,
    /// Place within the group of transfers that one operation made, from 0.
    pub index: u32,
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

/// The id of the transfer that `payer` makes after having paid `paid_before` in all. A transfer
/// moves at least one base unit, so a payer never starts two at the same count.
pub(super) fn transfer_id(payer: &AccountId, paid_before: Total) -> TransferId {
    let mut bytes = payer.as_bytes().to_vec();
    bytes.extend_from_slice(&paid_before.base_units().to_be_bytes());
    let hash = blake3::derive_key("cryptomind/transfer/1", &bytes);
    let mut id = [0; TransferId::LEN];
    id.copy_from_slice(&hash[..TransferId::LEN]);
    TransferId::new(id)
}
