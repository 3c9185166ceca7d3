//! Watchers: wakes whoever follows a task when new events of it are durable.
//!
//! Events themselves are read from the store, so a slow watcher costs no memory and misses nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cryptomind_protocol::TaskId;
use tokio::sync::watch;

/// Who follows what.
#[derive(Debug, Clone, Default)]
pub struct Watchers(Arc<Mutex<BTreeMap<TaskId, watch::Sender<u64>>>>);

impl Watchers {
    /// Follows a task: the receiver changes whenever new events can be read.
    pub fn follow(&self, task: TaskId) -> watch::Receiver<u64> {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|_, sender| sender.receiver_count() > 0);
        tasks
            .entry(task)
            .or_insert_with(|| watch::channel(0).0)
            .subscribe()
    }

    /// New events of this task are durable.
    pub fn wake(&self, task: TaskId) {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = tasks.get(&task) {
            sender.send_modify(|count| *count += 1);
        }
    }
}
