//! How long a node waits before it tries its coordinator again.
//!
//! Used by miners and storage nodes, and by whatever plays one. When a coordinator comes back, all nodes want in at once.
//! So a wait is any part of a window that doubles (full jitter: Brooker, 2015): they come spread over it, and where there are more
//! than the coordinator can greet, the next tries are spread wider. What the coordinator asks for in a refusal is the least.

use std::time::Duration;

use cryptomind_protocol::{ErrorBody, ErrorClass};

/// The first and the longest window.
const WINDOW: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(4));
/// After a refusal that time alone does not cure.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// The longest wait that the coordinator may ask for.
const ASKED_MAX: Duration = Duration::from_secs(5);

/// A series of tries.
#[derive(Debug, Clone)]
pub struct BackOff {
    window: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { window: WINDOW.0 }
    }
}

impl BackOff {
    /// A try has succeeded: what comes is the first of a new series.
    pub fn succeeded(&mut self) {
        self.window = WINDOW.0;
    }

    /// How long to wait after a try that ended so.
    pub fn pause(&mut self, error: &ErrorBody) -> Duration {
        self.pause_by(error, chance())
    }

    /// The same, with a number from 0 up to, not including, 1 for chance.
    fn pause_by(&mut self, error: &ErrorBody, chance: f64) -> Duration {
        let passes = matches!(
            error.class,
            ErrorClass::Network | ErrorClass::Internal | ErrorClass::Capacity
        );
        if !passes && error.retry_after_ms.is_none() {
            return REFUSED_PAUSE;
        }
        let window = self.window;
        self.window = (window * 2).min(WINDOW.1);
        // "Nobody is there" is this side's own finding; a refusal is the coordinator's word.
        let asked = error
            .retry_after_ms
            .filter(|_| error.class == ErrorClass::Capacity);
        let asked = Duration::from_millis(asked.unwrap_or(0)).min(ASKED_MAX);
        asked + window.mul_f64(chance)
    }
}

/// This time, give or take a fifth by chance: so that what many do in turn does not come at once.
pub fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.8 + 0.4 * chance())
}

fn chance() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, and that is all.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> ErrorBody {
        ErrorBody::network("unreachable", "nobody answers").with_retry_after_ms(1_000)
    }

    #[test]
    fn the_window_doubles_to_its_limit_and_starts_anew() {
        let mut back_off = BackOff::default();
        let longest: Vec<u128> = (0..8)
            .map(|_| back_off.pause_by(&unreachable(), 1.0).as_millis())
            .collect();
        assert_eq!(longest, [200, 400, 800, 1600, 3200, 4000, 4000, 4000]);
        assert_eq!(back_off.pause_by(&unreachable(), 0.0), Duration::ZERO);
        back_off.succeeded();
        assert_eq!(back_off.pause_by(&unreachable(), 1.0), WINDOW.0);
    }

    #[test]
    fn many_come_back_spread_over_the_window() {
        let pauses: Vec<Duration> = (0..400)
            .map(|_| BackOff::default().pause(&unreachable()))
            .collect();
        let within = |from: u64, to: u64| {
            let part = Duration::from_millis(from)..Duration::from_millis(to);
            pauses.iter().filter(|pause| part.contains(*pause)).count()
        };
        for from in [0, 50, 100, 150] {
            assert!((50..150).contains(&within(from, from + 50)), "{from}");
        }
        assert_eq!(within(0, 200), 400);
    }

    #[test]
    fn what_is_jittered_stays_near() {
        let second = Duration::from_secs(1);
        let near = Duration::from_millis(800)..=Duration::from_millis(1200);
        assert!((0..100).all(|_| near.contains(&jittered(second))));
        assert_ne!(jittered(second), jittered(second));
    }

    #[test]
    fn a_full_coordinator_says_when_and_no_word_is_for_ever() {
        let busy =
            |ms| ErrorBody::new(ErrorClass::Capacity, "busy", "full").with_retry_after_ms(ms);
        let mut back_off = BackOff::default();
        assert_eq!(back_off.pause_by(&busy(1_000), 0.0), Duration::from_secs(1));
        assert_eq!(back_off.pause_by(&busy(u64::MAX), 0.0), ASKED_MAX);
        let refused = ErrorBody::auth("not_delegated", "no");
        assert_eq!(back_off.pause_by(&refused, 0.0), REFUSED_PAUSE);
    }
}
