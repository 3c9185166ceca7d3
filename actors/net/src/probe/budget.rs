//! How often a node lets others move bytes to and from it: a measurement costs its owner's line.
//!
//! Only whom the coordinator sends is asked for at all (see [`gate`](super::gate)). Two limits hold for them: one a caller in
//! [`PEER_PAUSE`], as a ticket lasts for longer, and [`MAX_IN_WINDOW`] in any [`WINDOW`]. Memory is bounded by the same
//! figures: an entry is kept no longer than it can refuse.

use std::collections::VecDeque;
use std::time::Duration;

use cryptomind_protocol::{ErrorBody, ErrorClass, NodeId};
use tokio::time::Instant;

/// A caller waits for so long between two.
pub(super) const PEER_PAUSE: Duration = Duration::from_secs(45);
/// In so long a time,
const WINDOW: Duration = Duration::from_secs(60);
/// bytes are moved at most so often.
pub(super) const MAX_IN_WINDOW: usize = 12;

/// What was granted lately, oldest first.
#[derive(Debug, Default)]
pub(super) struct Budget {
    granted: VecDeque<(Instant, NodeId)>,
}

impl Budget {
    /// Grants a caller one exchange of bytes.
    ///
    /// # Errors
    /// `probe_budget`, with the time after which it would be granted.
    pub(super) fn take(&mut self, caller: NodeId, now: Instant) -> Result<(), ErrorBody> {
        self.forget(now);
        let before = self.granted.iter().rev().find(|(_, to)| *to == caller);
        if let Some((at, _)) = before.filter(|(at, _)| now < *at + PEER_PAUSE) {
            return Err(refusal("you measured this node", *at + PEER_PAUSE - now));
        }
        let first_of_most = self.granted.len().checked_sub(MAX_IN_WINDOW);
        if let Some((at, _)) = first_of_most.and_then(|nth| self.granted.get(nth))
            && now < *at + WINDOW
        {
            return Err(refusal("others measured this node", *at + WINDOW - now));
        }
        self.granted.push_back((now, caller));
        Ok(())
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |(at, _): &mut (Instant, NodeId)| now >= *at + PEER_PAUSE.max(WINDOW);
        while self.granted.pop_front_if(is_old).is_some() {}
    }
}

fn refusal(who: &str, wait: Duration) -> ErrorBody {
    let message = format!("{who} a short while ago; its line is needed for other things");
    ErrorBody::new(ErrorClass::Capacity, "probe_budget", message)
        .with_retry_after_ms(wait.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    #[test]
    fn a_caller_waits_its_pause() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        budget.take(caller(1), start).unwrap();
        let refused = budget.take(caller(1), start + PEER_PAUSE / 2).unwrap_err();
        assert_eq!(refused.code, "probe_budget");
        assert_eq!(refused.retry_after_ms, Some(22_500));
        assert_eq!(budget.take(caller(1), start + PEER_PAUSE), Ok(()));
        let later = start + PEER_PAUSE + WINDOW;
        assert_eq!(budget.take(caller(1), later), Ok(()));
        assert_eq!(budget.granted.len(), 1, "what no longer refuses is gone");
    }

    #[test]
    fn many_callers_share_a_window() {
        let (mut budget, start) = (Budget::default(), Instant::now());
        for n in 0..MAX_IN_WINDOW as u8 {
            budget.take(caller(n), start).unwrap();
        }
        let refused = budget.take(caller(99), start + WINDOW / 2).unwrap_err();
        assert_eq!(refused.retry_after_ms, Some(30_000));
        assert_eq!(budget.take(caller(99), start + WINDOW), Ok(()));
    }
}
