//! Checkpoints on their way to storage, while training goes on.
//!
//! One task of the runtime per attempt, in order, from a short queue: when storage is slower than training, the
//! training thread waits for the queue, and memory stays bounded. A checkpoint is reported once its receipt is here.
//! Dropping it drops what is under way.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::node::{Match, Report};
use cryptomind_protocol::task::ResultFile;
use cryptomind_protocol::transaction::StoredReceipt;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::run::may_pass;
use super::worker::Context;
use crate::transfer::Packed;

/// Checkpoints that may wait.
const QUEUE: usize = 2;
/// What storing one blob may take, all tries together. Below the ring's own patience: a group whose training waits for storage
/// hears why.
const STORE_LIMIT: Duration = Duration::from_secs(100);
/// Between two tries at all sources.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A checkpoint to be stored.
pub struct Checkpoint {
    /// Committed steps.
    pub step: u64,
    /// Equal on all ranks.
    pub fingerprint: Hash,
    /// How long this member computed until here, milliseconds, without waiting for others.
    pub computed_ms: u64,
    /// The state.
    pub state: Vec<u8>,
}

/// The queue and its task.
pub struct Uploads {
    queue: Option<mpsc::Sender<Checkpoint>>,
    trouble: Option<oneshot::Receiver<ErrorBody>>,
    task: JoinHandle<Result<(), ErrorBody>>,
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Uploads {
    /// Starts the task for one attempt.
    pub fn start(context: &Arc<Context>, place: watch::Receiver<Arc<Match>>) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let (trouble_sender, trouble) = oneshot::channel();
        let work = store_all(Arc::clone(context), place, receiver);
        let task = tokio::spawn(async move {
            let outcome = work.await;
            if let Err(error) = &outcome {
                // The run may be waiting for the end instead.
                let _ = trouble_sender.send(error.clone());
            }
            outcome
        });
        Self {
            queue: Some(queue),
            trouble: Some(trouble),
            task,
        }
    }

    /// Queues a checkpoint, or gives it back where there is no room.
    pub fn offer(&self, checkpoint: Checkpoint) -> Option<Checkpoint> {
        match self.queue.as_ref()?.try_send(checkpoint) {
            Err(TrySendError::Full(checkpoint)) => Some(checkpoint),
            // Where the task has ended, its trouble says why.
            Ok(()) | Err(TrySendError::Closed(_)) => None,
        }
    }

    /// Waits for a checkpoint that cannot be stored, and says why; or until there is room for one, where that is wanted.
    pub async fn stir(&mut self, wants_room: bool) -> Option<ErrorBody> {
        let (queue, trouble) = (&self.queue, &mut self.trouble);
        tokio::select! {
            error = trouble_of(trouble) => {
                self.trouble = None;
                Some(error)
            }
            () = room_in(queue), if wants_room => None,
        }
    }

    /// Waits until everything queued is stored and reported.
    pub async fn finish(mut self) -> Result<(), ErrorBody> {
        self.queue = None;
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(e) => Err(ErrorBody::internal(e)),
        }
    }

    /// Gives what is under way a little time, and drops the rest.
    pub async fn settle(self, limit: Duration) {
        // What did not get through is covered by the next checkpoint.
        let _ = timeout(limit, self.finish()).await;
    }
}

async fn trouble_of(trouble: &mut Option<oneshot::Receiver<ErrorBody>>) -> ErrorBody {
    let Some(receiver) = trouble else {
        return std::future::pending().await;
    };
    receiver.await.unwrap_or_else(ErrorBody::internal)
}

async fn room_in(queue: &Option<mpsc::Sender<Checkpoint>>) {
    if let Some(queue) = queue
        && queue.reserve().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

async fn store_all(
    context: Arc<Context>,
    place: watch::Receiver<Arc<Match>>,
    mut queue: mpsc::Receiver<Checkpoint>,
) -> Result<(), ErrorBody> {
    let attempt = place.borrow().attempt;
    while let Some(Checkpoint {
        step,
        fingerprint,
        computed_ms,
        state,
    }) = queue.recv().await
    {
        let blob = Packed::new(state);
        let receipt = store(&context, &place, &blob).await?;
        let file = ResultFile {
            name: format!("checkpoint-{step}.safetensors"),
            blob: blob.id(),
            bytes: blob.len(),
        };
        let report = Report::Checkpoint {
            step,
            fingerprint,
            computed_ms,
            stored: Some((file, receipt)),
        };
        let task = place.borrow().task;
        context.outbox.report(task, attempt, report);
    }
    Ok(())
}

/// Stores a blob, trying again while that may help, each time with the newest ticket.
pub async fn store(
    context: &Context,
    place: &watch::Receiver<Arc<Match>>,
    blob: &Packed,
) -> Result<StoredReceipt, ErrorBody> {
    let deadline = Instant::now() + STORE_LIMIT;
    loop {
        let matched = Arc::clone(&place.borrow());
        let stored = context
            .transfer
            .put(&matched.sources, &matched.put_ticket, blob);
        match stored.await {
            Ok(receipt) => {
                context.tell_samples();
                return Ok(receipt);
            }
            Err(e) if may_pass(&e) && Instant::now() < deadline => sleep(RETRY_PAUSE).await,
            Err(e) => return Err(e),
        }
    }
}
