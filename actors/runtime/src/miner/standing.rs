//! Where this miner stands: what it is busy with, and how far its run is.
//!
//! It lies outside the actors, because two things outlive them: a link that joins again says it to the coordinator, and a
//! worker that was restarted learns from it which run its predecessor lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cryptomind_protocol::TaskId;
use cryptomind_protocol::node::{Position, Request};
use cryptomind_protocol::task::Activity;
use tokio::sync::watch;
use tracing::info;

use super::outbox::Outbox;

/// Shared by all parts of one miner.
pub struct Standing {
    now: Mutex<Now>,
    /// Committed steps of the run; written by the training thread.
    committed: Arc<AtomicU64>,
    /// What the machine does without a task.
    at_rest: Activity,
    /// Whether there is a run.
    busy: watch::Sender<bool>,
}

struct Now {
    activity: Activity,
    run: Option<(TaskId, u32)>,
}

impl Standing {
    /// At rest.
    pub fn new(at_rest: Activity) -> Self {
        Self {
            now: Mutex::new(Now {
                activity: at_rest,
                run: None,
            }),
            committed: Arc::default(),
            at_rest,
            busy: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the machine is busy with.
    pub fn activity(&self) -> Activity {
        self.lock().activity
    }

    /// The run, where there is one.
    pub fn position(&self) -> Option<Position> {
        let (task, attempt) = self.lock().run?;
        Some(Position {
            task,
            attempt,
            committed: self.committed.load(Ordering::SeqCst),
        })
    }

    /// Follows whether there is a run.
    pub fn busy(&self) -> watch::Receiver<bool> {
        self.busy.subscribe()
    }

    /// Where the training thread counts its steps.
    pub fn committed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.committed)
    }

    /// A run begins, or goes on in another attempt.
    pub fn enter(&self, task: TaskId, attempt: u32) {
        let mut now = self.lock();
        if now.run.is_none_or(|(before, _)| before != task) {
            self.committed.store(0, Ordering::SeqCst);
        }
        now.run = Some((task, attempt));
        self.busy.send_replace(true);
    }

    /// The machine turns to something else; watchers of the task shall see it.
    pub fn turn_to(&self, to: Activity, task: Option<TaskId>, outbox: &Outbox) {
        let mut now = self.lock();
        let from = std::mem::replace(&mut now.activity, to);
        if from != to {
            let because = task.map(|t| format!("  task {t}")).unwrap_or_default();
            info!("{from} → {to}{because}");
            outbox.say(Request::Activity { from, to, task });
        }
    }

    /// The run is over in whatever way: back to what the owner wants.
    pub fn rest(&self, outbox: &Outbox) {
        let run = self.lock().run.take();
        self.busy.send_replace(false);
        self.turn_to(self.at_rest, run.map(|(task, _)| task), outbox);
    }
}
