//! When to try again, after which pause, and when to give up.
//!
//! Only what may pass by itself is tried again: an unreachable peer, a broken connection, a busy
//! coordinator. Pauses double and carry jitter, so that clients do not return in step.

use std::time::Duration;

use cryptomind_protocol::{ErrorBody, ErrorClass};
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The code of an answer that asks the caller to come back later.
const BUSY: &str = "busy";

/// A series of tries at one thing.
pub(crate) struct Retry {
    deadline: Instant,
    pause: Duration,
}

impl Retry {
    /// A series that ends after `patience`.
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            deadline: Instant::now() + patience,
            pause: FIRST_PAUSE,
        }
    }

    /// Waits before the next try; gives `error` back where a try makes no sense or time is up.
    pub(crate) async fn pause(&mut self, error: ErrorBody) -> Result<(), ErrorBody> {
        let wait = self.next_pause(&error);
        if !may_pass(&error) || Instant::now() + wait > self.deadline {
            return Err(error);
        }
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn next_pause(&mut self, error: &ErrorBody) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        let asked = error.retry_after_ms.unwrap_or_default();
        let asked = Duration::from_millis(asked).min(LONGEST_PAUSE * 5);
        let jitter = crate::random::below(pause.as_millis() as u64 / 2 + 1);
        pause.max(asked) + Duration::from_millis(jitter)
    }
}

/// Whether the same request may succeed a moment later.
pub(crate) fn may_pass(error: &ErrorBody) -> bool {
    error.class == ErrorClass::Network || error.code == BUSY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tries_end_with_the_error_when_patience_does() {
        let start = Instant::now();
        let mut retry = Retry::new(Duration::from_secs(10));
        let mut tries = 0;
        while retry
            .pause(ErrorBody::network("unreachable", "gone"))
            .await
            .is_ok()
        {
            tries += 1;
        }
        assert!((5..20).contains(&tries), "{tries} tries");
        assert!(start.elapsed() <= Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_pass_is_not_tried_again() {
        let mut retry = Retry::new(Duration::from_secs(10));
        let error = ErrorBody::auth("wrong_node", "another node answers");
        assert_eq!(retry.pause(error.clone()).await, Err(error));
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_peer_says_when_to_return() {
        let start = Instant::now();
        let mut retry = Retry::new(Duration::from_secs(10));
        let busy = ErrorBody::new(ErrorClass::Capacity, BUSY, "full").with_retry_after_ms(700);
        retry.pause(busy).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(700));
    }
}
