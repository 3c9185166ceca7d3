//! Waiting for a batch to be durable, from a thread or from a task of any runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::StoreError;

/// Resolves when the batch is on the disk, or never will be. Dropping it takes nothing back.
///
/// As a future it needs no particular runtime. The wait ends with the transaction that carries the
/// batch or with the process, whichever comes first.
#[must_use = "what is not durable yet must not be answered"]
#[derive(Debug)]
pub struct Commit(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    result: Option<Result<(), StoreError>>,
    waker: Option<Waker>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Commit {
    /// Blocks until the batch is durable.
    ///
    /// # Errors
    /// When it never will be; only a store with another [`super::OnFailure`] than its own lives to
    /// say so.
    pub fn wait(self) -> Result<(), StoreError> {
        let mut state = self.0.lock();
        loop {
            match state.result.take() {
                Some(result) => return result,
                None => {
                    state = self
                        .0
                        .done
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            }
        }
    }
}

impl Future for Commit {
    type Output = Result<(), StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The commit thread's end: whoever holds it owes an answer, and dropping it is a bad one.
#[derive(Debug)]
pub(super) struct Promise(Option<Arc<Slot>>);

/// A commit and the promise that resolves it.
pub(super) fn pair() -> (Promise, Commit) {
    let slot = Arc::new(Slot::default());
    (Promise(Some(Arc::clone(&slot))), Commit(slot))
}

impl Promise {
    /// Says how it ended.
    pub(super) fn resolve(mut self, result: Result<(), StoreError>) {
        self.settle(result);
    }

    fn settle(&mut self, result: Result<(), StoreError>) {
        let Some(slot) = self.0.take() else { return };
        let waker = {
            let mut state = slot.lock();
            state.result = Some(result);
            state.waker.take()
        };
        slot.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.settle(Err(StoreError::Stopped {
            reason: "the commit thread ended".into(),
        }));
    }
}
