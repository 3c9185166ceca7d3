//! The pace of block time: what a wall clock says, as far as a steady clock bears it out.
//!
//! Holds, locks and validity go by block time, and block time never goes back. So one wrong reading of a wall clock, a day
//! ahead, would end holds and locks for good, and everything after it would wait for the world to catch up. A steady
//! clock (one that only counts up while the machine runs) cannot tell the time, but it tells how much of it has passed.
//!
//! The rule: block time follows the wall clock, and gains at most [`FASTEST`] milliseconds for each that has passed. A
//! jump ahead that lasts for ten minutes moves it by ten minutes at most; after a machine has slept it catches up in
//! as long as it slept, or at the next start. A wall clock that goes back stops block time, and nothing more.
//!
//! What it cannot see is a clock that is wrong when the coordinator starts.

use cryptomind_protocol::Timestamp;

/// Block time may pass so many times as fast as time itself, while it catches up with the wall clock.
pub const FASTEST: u64 = 2;

/// The clock of one coordinator, from its start on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockClock {
    /// What it said last.
    said: Timestamp,
    /// The steady clock at that moment, milliseconds.
    steady_ms: u64,
}

impl BlockClock {
    /// Starts with what the wall clock says; there is nothing to hold it against yet.
    pub const fn new(wall: Timestamp, steady_ms: u64) -> Self {
        Self {
            said: wall,
            steady_ms,
        }
    }

    /// What time it is. `steady_ms` never falls.
    pub fn now(&mut self, wall: Timestamp, steady_ms: u64) -> Timestamp {
        let passed = steady_ms.saturating_sub(self.steady_ms);
        let latest = self.said.plus_ms(passed.saturating_mul(FASTEST));
        self.said = wall.min(latest).max(self.said);
        self.steady_ms = self.steady_ms.max(steady_ms);
        self.said
    }

    /// How far the wall clock is ahead, milliseconds, as of the last reading.
    pub fn lag_ms(&self, wall: Timestamp) -> u64 {
        wall.ms_since(self.said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 1_000_000_000;
    const DAY_MS: u64 = 24 * 3600 * 1000;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_ms(START + ms)
    }

    /// T9: the wall clock is a day ahead for ten minutes.
    #[test]
    fn a_jump_ahead_is_worth_as_long_as_it_lasts() {
        let mut clock = BlockClock::new(at(0), 0);
        assert_eq!(clock.now(at(1_000), 1_000), at(1_000));
        let mut latest = at(0);
        for second in 2..=600 {
            latest = clock.now(at(second * 1_000 + DAY_MS), second * 1_000);
        }
        assert!(latest <= at(1_200_000), "{latest:?}");
        // Right again: block time waits until the world has caught up with it, and is exact from then on.
        assert_eq!(clock.now(at(601_000), 601_000), latest);
        assert_eq!(clock.now(at(1_300_000), 1_300_000), at(1_300_000));
    }

    #[test]
    fn a_clock_that_goes_back_stops_it_and_drift_is_followed() {
        let mut clock = BlockClock::new(at(5_000), 0);
        assert_eq!(clock.now(at(0), 10), at(5_000));
        for second in 1..=100 {
            let wall = at(5_000 + second * 1_100);
            assert_eq!(clock.now(wall, 10 + second * 1_000), wall, "10 % too fast");
        }
        assert_eq!(clock.lag_ms(at(5_000 + 110_000 + 7)), 7);
    }

    #[test]
    fn after_a_sleep_it_catches_up_in_as_long_as_the_machine_slept() {
        let mut clock = BlockClock::new(at(0), 0);
        for minute in 1..480 {
            clock.now(at(DAY_MS / 3 + minute * 60_000), minute * 60_000);
        }
        let wall = at(DAY_MS / 3 + 480 * 60_000);
        assert_eq!(clock.now(wall, 480 * 60_000), wall);
    }

    proptest! {
        /// Whatever the wall clock says, block time never goes back, never exceeds what the wall clock has said at
        /// the highest, and never runs faster than allowed.
        #[test]
        fn its_pace_is_bounded(readings in prop::collection::vec((0u64..10 * DAY_MS, 0u64..DAY_MS), 1..50)) {
            let mut clock = BlockClock::new(at(0), 0);
            let (mut steady, mut last, mut highest) = (0, at(0), at(0));
            for (wall, passed) in readings {
                steady += passed;
                highest = highest.max(at(wall));
                let now = clock.now(at(wall), steady);
                prop_assert!(now >= last && now <= highest);
                prop_assert!(now.ms_since(last) <= passed * FASTEST);
                last = now;
            }
        }
    }
}
