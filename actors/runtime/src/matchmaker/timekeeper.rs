//! The timekeeper: notices that the machine's clock was set, or that the machine slept.
//!
//! Runs wait by the time of day, which survives a restart. When that moves otherwise than time does, what they waited
//! for has not had its time, or would get far too much of it: their timers start anew.

use std::time::Instant;

use cryptomind_protocol::Timestamp;

/// What the time of day may differ from the time that passed, between two looks.
const TOLERANCE_MS: u64 = 2_000;

/// The last look at both clocks.
pub(super) struct Timekeeper {
    time_of_day: Timestamp,
    steady: Instant,
}

impl Timekeeper {
    pub(super) const fn new(time_of_day: Timestamp, steady: Instant) -> Self {
        Self {
            time_of_day,
            steady,
        }
    }

    /// Looks again. Whether the clock was set since the last look.
    pub(super) fn has_stepped(&mut self, time_of_day: Timestamp, steady: Instant) -> bool {
        let passed = steady.saturating_duration_since(self.steady).as_millis();
        let expected = self
            .time_of_day
            .plus_ms(u64::try_from(passed).unwrap_or(u64::MAX));
        *self = Self::new(time_of_day, steady);
        let ahead = time_of_day.ms_since(expected);
        let behind = expected.ms_since(time_of_day);
        ahead.max(behind) > TOLERANCE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const DAY_MS: u64 = 24 * 3_600_000;

    /// What is noticed when `passed` ms pass and the clock shows `shown` ms after its start at ten days.
    fn stepped(passed: u64, shown: u64) -> bool {
        let (start, steady) = (Timestamp::from_ms(10 * DAY_MS), Instant::now());
        let mut timekeeper = Timekeeper::new(start, steady);
        let now = Timestamp::from_ms(shown);
        let later = steady + Duration::from_millis(passed);
        let stepped = timekeeper.has_stepped(now, later);
        assert!(!timekeeper.has_stepped(now, later), "told once");
        stepped
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        assert!(stepped(100, 11 * DAY_MS));
        assert!(stepped(100, 9 * DAY_MS));
        assert!(stepped(100, 10 * DAY_MS + 100 + TOLERANCE_MS + 1));
    }

    #[test]
    fn a_clock_that_drifts_or_a_tick_that_is_late_is_not() {
        assert!(!stepped(100, 10 * DAY_MS + 110));
        assert!(!stepped(60_000, 10 * DAY_MS + 60_000));
        assert!(!stepped(100, 10 * DAY_MS + 100 - TOLERANCE_MS / 2));
    }
}
