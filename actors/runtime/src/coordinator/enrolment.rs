//! Enrolments: nodes that wait for an owner's word. Losing them is harmless: nodes ask again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptomind_protocol::api::EnrolmentRequest;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId, Timestamp};

/// Nodes that may wait at once.
const MAX_WAITING: usize = 1024;
/// A node that has not asked again for so long has given up.
const FORGET_AFTER_MS: u64 = 60_000;

struct Waiting {
    owner: AccountId,
    request: EnrolmentRequest,
    asked: Timestamp,
}

/// Who waits for whose word.
#[derive(Clone, Default)]
pub(crate) struct Enrolments(Arc<Mutex<BTreeMap<NodeId, Waiting>>>);

impl Enrolments {
    fn waiting(&self, now: Timestamp) -> MutexGuard<'_, BTreeMap<NodeId, Waiting>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, w| now.ms_since(w.asked) < FORGET_AFTER_MS);
        waiting
    }

    /// A node asks, or asks again.
    pub(crate) fn ask(
        &self,
        owner: AccountId,
        request: EnrolmentRequest,
        now: Timestamp,
    ) -> Result<(), ErrorBody> {
        let mut waiting = self.waiting(now);
        if waiting.len() >= MAX_WAITING && !waiting.contains_key(&request.node) {
            return Err(ErrorBody::network(
                "too_many_enrolments",
                "too many nodes wait to be approved",
            )
            .with_retry_after_ms(FORGET_AFTER_MS));
        }
        waiting.insert(
            request.node,
            Waiting {
                owner,
                request,
                asked: now,
            },
        );
        Ok(())
    }

    /// Who waits for this owner.
    pub(crate) fn of(&self, owner: AccountId, now: Timestamp) -> Vec<EnrolmentRequest> {
        let waiting = self.waiting(now);
        waiting
            .values()
            .filter(|w| w.owner == owner)
            .map(|w| w.request.clone())
            .collect()
    }

    /// A node has this owner's word, and waits for no other of that owner's.
    pub(crate) fn done(&self, owner: AccountId, node: NodeId, now: Timestamp) {
        let mut waiting = self.waiting(now);
        if waiting.get(&node).is_some_and(|w| w.owner == owner) {
            waiting.remove(&node);
        }
    }
}
