//! The thread that writes: takes all waiting batches, commits them as one transaction, tells
//! everyone, and begins again.
//!
//! States: running → closed (the last handle went: what waits is still written) or stopped (a
//! failure: nothing is written any more). A panic inside a transaction is never caught: redb's
//! memory is not to be trusted after one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use redb::Database;

use super::batch::{self, Batch};
use super::commit::{self, Commit, Promise};
use crate::StoreError;

pub(super) const MAX_WAITING_BATCHES: usize = 4096;
pub(super) const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// What happens when the commit thread fails. Stores end the process; tests may look instead.
pub struct OnFailure(Box<dyn Fn(&StoreError) + Send + Sync>);

impl OnFailure {
    /// Logs and ends the process at once, without unwinding: nobody hears of a decision that may
    /// not be on the disk.
    pub fn abort() -> Self {
        Self(Box::new(|error| {
            tracing::error!(%error, "the state cannot be stored: this process ends");
            std::process::abort();
        }))
    }

    /// Calls `hook` on the commit thread. The store then refuses everything with
    /// [`StoreError::Stopped`].
    pub fn call(hook: impl Fn(&StoreError) + Send + Sync + 'static) -> Self {
        Self(Box::new(hook))
    }
}

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnFailure")
    }
}

/// The handle on the thread; dropping it ends the thread when its queue is written.
#[derive(Debug)]
pub(super) struct Committer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(
        database: Arc<Database>,
        on_failure: OnFailure,
    ) -> Result<Self, StoreError> {
        let queue = Arc::new(Queue::default());
        let worker = Worker {
            database,
            queue: Arc::clone(&queue),
            on_failure,
        };
        let thread = thread::Builder::new()
            .name("state-commit".into())
            .spawn(move || worker.run())
            .map_err(|error| StoreError::Stopped {
                reason: format!("no thread could be started: {error}"),
            })?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    pub(super) fn push(&self, batch: Batch) -> Commit {
        self.queue.push(batch)
    }

    pub(super) fn transactions(&self) -> u64 {
        self.queue.transactions.load(Ordering::Relaxed)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue.close();
        let Some(thread) = self.thread.take() else {
            return;
        };
        // A waker that the thread itself calls may drop the last handle.
        if thread.thread().id() != thread::current().id() {
            // Its panic was reported by the failure hook already.
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    transactions: AtomicU64,
}

#[derive(Debug, Default)]
struct QueueState {
    waiting: Vec<(Batch, Promise)>,
    bytes: usize,
    closed: bool,
    stopped: Option<String>,
}

impl QueueState {
    const fn is_full(&self) -> bool {
        self.waiting.len() >= MAX_WAITING_BATCHES || self.bytes >= MAX_WAITING_BYTES
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, busy: impl Fn(&QueueState) -> bool) -> MutexGuard<'_, QueueState> {
        self.changed
            .wait_while(self.lock(), |state| busy(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, batch: Batch) -> Commit {
        let (promise, commit) = commit::pair();
        let mut state = self.wait_while(|state| state.is_full() && state.stopped.is_none());
        if let Some(reason) = state.stopped.clone() {
            drop(state);
            promise.resolve(Err(StoreError::Stopped { reason }));
            return commit;
        }
        state.bytes += batch.bytes();
        state.waiting.push((batch, promise));
        drop(state);
        self.changed.notify_all();
        commit
    }

    /// All that waits; `None` when nothing more will come.
    fn take(&self) -> Option<Vec<(Batch, Promise)>> {
        let mut state = self.wait_while(|state| state.waiting.is_empty() && !state.closed);
        state.bytes = 0;
        let group = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        (!group.is_empty()).then_some(group)
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Refuses all that waits and all that will come.
    fn stop(&self, reason: &str) {
        let waiting = {
            let mut state = self.lock();
            state.stopped = Some(reason.into());
            std::mem::take(&mut state.waiting)
        };
        self.changed.notify_all();
        refuse(waiting, reason);
    }
}

fn refuse(group: Vec<(Batch, Promise)>, reason: &str) {
    for (_, promise) in group {
        let reason = reason.into();
        promise.resolve(Err(StoreError::Stopped { reason }));
    }
}

struct Worker {
    database: Arc<Database>,
    queue: Arc<Queue>,
    on_failure: OnFailure,
}

impl Worker {
    fn run(self) {
        while let Some(group) = self.queue.take() {
            let _watch = Watch(&self);
            if let Err(error) = self.write(&group) {
                // First the hook: it may end the process before anyone hears anything.
                self.fail(&error);
                refuse(group, &error.to_string());
                return;
            }
            for (_, promise) in group {
                promise.resolve(Ok(()));
            }
        }
    }

    fn write(&self, group: &[(Batch, Promise)]) -> Result<(), StoreError> {
        if group.iter().all(|(batch, _)| batch.is_empty()) {
            return Ok(());
        }
        let mut transaction = self
            .database
            .begin_write()
            .map_err(StoreError::database("begin a transaction"))?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        batch::apply(&transaction, group.iter().map(|(batch, _)| batch))?;
        transaction
            .commit()
            .map_err(StoreError::database("commit"))?;
        self.queue.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn fail(&self, error: &StoreError) {
        (self.on_failure.0)(error);
        self.queue.stop(&error.to_string());
    }
}

/// Sees a panic while a group is under way, before its promises are dropped and anyone hears of it.
struct Watch<'a>(&'a Worker);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(&StoreError::Stopped {
                reason: "the commit thread panicked".into(),
            });
        }
    }
}
