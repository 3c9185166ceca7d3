//! Whether a ring still stands: its first error, and the connections that fall with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use quinn::VarInt;
use tokio::sync::watch;

use super::error::{Place, RingError};
use crate::close::sendable;

/// Shared by a ring's calls and its links' watchers.
pub(super) struct Health {
    place: Place,
    failure: watch::Sender<Option<RingError>>,
    /// Whether links are still being made: nobody reads them.
    joining: AtomicBool,
    connections: Mutex<Vec<quinn::Connection>>,
}

impl Health {
    pub(super) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self {
            place,
            failure: watch::Sender::new(None),
            joining: AtomicBool::new(true),
            connections: Mutex::default(),
        })
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// All links are there: they are read from now on.
    pub(super) fn is_linked(&self) {
        self.joining.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_joining(&self) -> bool {
        self.joining.load(Ordering::Relaxed)
    }

    /// This connection falls with the ring, at once where the ring has fallen already.
    pub(super) fn adopt(&self, connection: &quinn::Connection) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Who dials again and again is not kept each time.
        connections.retain(|earlier| earlier.close_reason().is_none());
        connections.push(connection.clone());
        drop(connections);
        if let Some(error) = self.failure() {
            self.close(self.place.close_code(&error), &error.word());
        }
    }

    /// Ends the ring for this reason, unless it has ended before, and tells both neighbours. Returns the first
    /// reason.
    pub(super) fn fail(&self, error: RingError) -> RingError {
        let first = self.failure.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert_with(|| error.clone());
            first
        });
        if first {
            tracing::debug!(%error, rank = self.place.rank(), "the ring has ended");
            self.close(self.place.close_code(&error), &error.word());
        }
        self.failure().unwrap_or(error)
    }

    /// Closes both links. Only the first close of a connection counts.
    pub(super) fn close(&self, code: VarInt, reason: &str) {
        let connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for connection in connections.iter() {
            connection.close(code, sendable(reason));
        }
    }

    /// UDP payload bytes that left on all links.
    pub(super) fn udp_sent(&self) -> u64 {
        let connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connections.iter().map(|c| c.stats().udp_tx.bytes).sum()
    }

    pub(super) fn failure(&self) -> Option<RingError> {
        self.failure.borrow().clone()
    }

    /// Waits until the ring has ended.
    pub(super) async fn failed(&self) -> RingError {
        let mut failure = self.failure.subscribe();
        let ended = failure.wait_for(Option::is_some).await;
        // The sender lives in `self`, so waiting cannot fail.
        ended
            .ok()
            .and_then(|slot| slot.clone())
            .unwrap_or(RingError::Ended)
    }
}
