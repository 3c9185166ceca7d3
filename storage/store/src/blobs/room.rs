//! Who may write how much: stored blobs, writers at work, and parts that nobody works on.
//!
//! `used + reserved` never exceeds the limit through new writers. Parts that broke off use what is
//! free: the oldest make way when a writer needs the bytes, and more than [`MAX_IDLE_PARTS`] are
//! not kept.

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryptomind_protocol::BlobId;

use super::{Shared, layout};
use crate::StoreError;

/// Broken-off uploads that are kept for their senders to come back.
const MAX_IDLE_PARTS: usize = 256;

/// A part that nobody works on.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdlePart {
    pub(super) id: BlobId,
    pub(super) bytes: u64,
}

/// The account of bytes.
#[derive(Debug)]
pub(super) struct Room {
    max: u64,
    used: u64,
    reserved: u64,
    /// Oldest first.
    idle: VecDeque<IdlePart>,
    /// Blobs whose resumable part has a writer.
    active: HashSet<BlobId>,
    /// Number of the next extra part.
    next_extra: u64,
}

impl Room {
    pub(super) fn new(max: u64, used: u64, idle: Vec<IdlePart>) -> Self {
        Self {
            max,
            used,
            reserved: 0,
            idle: idle.into(),
            active: HashSet::new(),
            next_extra: 0,
        }
    }

    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    pub(super) const fn free(&self) -> u64 {
        self.max.saturating_sub(self.used + self.reserved)
    }

    pub(super) const fn grow(&mut self, bytes: u64) {
        self.used += bytes;
    }

    pub(super) const fn shrink(&mut self, bytes: u64) {
        self.used -= bytes;
    }

    /// Reserves `bytes` and names the idle parts that must make way for them.
    fn reserve(&mut self, bytes: u64) -> Result<Vec<BlobId>, StoreError> {
        let free = self.free();
        if bytes > free {
            let max = self.max;
            return Err(StoreError::Full { bytes, free, max });
        }
        self.reserved += bytes;
        Ok(self.evict())
    }

    fn evict(&mut self) -> Vec<BlobId> {
        let mut evicted = Vec::new();
        let mut idle_bytes = self.idle.iter().map(|part| part.bytes).sum::<u64>();
        while idle_bytes > self.free() || self.idle.len() > MAX_IDLE_PARTS {
            let Some(part) = self.idle.pop_front() else {
                break;
            };
            idle_bytes -= part.bytes;
            evicted.push(part.id);
        }
        evicted
    }

    /// The resumable part goes to the first writer, a number for an extra part to the others.
    fn choose_part(&mut self, id: BlobId) -> Option<u64> {
        if self.active.insert(id) {
            self.idle.retain(|part| part.id != id);
            return None;
        }
        self.next_extra += 1;
        Some(self.next_extra)
    }
}

/// Bytes that one writer may write, and the part that it writes them to. Dropping it gives the
/// bytes back; the part stays for a later writer where it is resumable.
#[derive(Debug)]
pub(super) struct Reservation {
    shared: Arc<Shared>,
    id: BlobId,
    bytes: u64,
    part: PathBuf,
    is_resumable: bool,
}

impl Reservation {
    pub(super) fn take(shared: &Arc<Shared>, id: BlobId, bytes: u64) -> Result<Self, StoreError> {
        let mut state = shared.lock();
        // Chosen first, so that a part does not make way for its own writer.
        let extra = state.room.choose_part(id);
        let part = match extra {
            None => shared.layout.part(&id),
            Some(number) => shared.layout.extra_part(&id, number),
        };
        let mut reservation = Self {
            shared: Arc::clone(shared),
            id,
            bytes: 0,
            part,
            is_resumable: extra.is_none(),
        };
        let evicted = match state.room.reserve(bytes) {
            Ok(evicted) => evicted,
            Err(error) => {
                // Its drop takes the lock.
                drop(state);
                return Err(error);
            }
        };
        reservation.bytes = bytes;
        // Still under the lock: a writer of an evicted part would find it half removed.
        let removed = evicted
            .iter()
            .try_for_each(|id| layout::remove_part(&shared.layout.part(id)));
        drop(state);
        removed.map(|()| reservation)
    }

    pub(super) const fn id(&self) -> BlobId {
        self.id
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn part(&self) -> &Path {
        &self.part
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Bytes of the part on the disk; `None` where there is none.
    fn left_bytes(&self) -> Option<u64> {
        let metadata = std::fs::metadata(&self.part).ok()?;
        Some(metadata.len())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let room = &mut state.room;
        room.reserved -= self.bytes;
        if !self.is_resumable {
            remove_quietly(&self.part);
            return;
        }
        room.active.remove(&self.id);
        if let Some(bytes) = self.left_bytes() {
            room.idle.push_back(IdlePart { id: self.id, bytes });
        }
        for id in room.evict() {
            remove_quietly(&self.shared.layout.part(&id));
        }
    }
}

/// What stays behind is swept when the store is opened next.
fn remove_quietly(part: &Path) {
    if let Err(error) = layout::remove_part(part) {
        tracing::warn!(%error, "a part could not be removed");
    }
}
