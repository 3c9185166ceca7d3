//! The circuit breaker: who fails often of late gets no work for minutes, then one task to show that it is well again.
//!
//! ```text
//! active    ── more than a quarter of the last runs failed, of four at least ──▶ resting
//! resting   ── 10 min, twice as long each further time, a day at most        ──▶ probing
//! probing   ── a run seen through ──▶ active, with nothing held against it
//!           ── a failure          ──▶ resting
//! ```

use std::collections::VecDeque;

use cryptomind_protocol::Timestamp;
use cryptomind_protocol::rating::Bar;

/// So many runs are looked at, the last ones.
const LOOKED_AT: usize = 16;
/// And no older ones than this, milliseconds.
const OF_LATE_MS: u64 = 24 * 3_600_000;
/// Of fewer runs nothing is concluded.
const LEAST_RUNS: usize = 4;
/// One failure in so many is borne.
const BORNE: usize = 4;
/// The first rest, milliseconds.
const REST_MS: u64 = 600_000;
/// The longest, milliseconds.
const REST_MAX_MS: u64 = 24 * 3_600_000;

/// What the breaker remembers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Breaker {
    /// When runs ended, and whether well.
    runs: VecDeque<(Timestamp, bool)>,
    /// Rests one after the other, without a run seen through between them.
    rests: u32,
    last: Option<Bar>,
}

impl Breaker {
    pub(super) fn done(&mut self, at: Timestamp) {
        if self.rests > 0 {
            *self = Self::default();
        }
        self.remember(at, true);
    }

    pub(super) fn failed(&mut self, at: Timestamp) {
        self.remember(at, false);
        let (failed, of) = (
            self.runs.iter().filter(|run| !run.1).count(),
            self.runs.len(),
        );
        let too_often = of >= LEAST_RUNS && failed * BORNE > of;
        // What comes to light while it rests is no probe.
        if self.bar(at).is_some() || self.rests == 0 && !too_often {
            return;
        }
        let rest_ms = REST_MS.saturating_mul(1 << self.rests.min(16));
        self.rests += 1;
        self.last = Some(Bar::Rests {
            failed: failed as u32,
            of: of as u32,
            until: at.plus_ms(rest_ms.min(REST_MAX_MS)),
        });
    }

    /// Whether it rests now.
    pub(super) fn bar(&self, now: Timestamp) -> Option<Bar> {
        self.last
            .filter(|bar| matches!(bar, Bar::Rests { until, .. } if *until > now))
    }

    fn remember(&mut self, at: Timestamp, well: bool) {
        self.runs
            .retain(|(ended, _)| at.ms_since(*ended) <= OF_LATE_MS);
        if self.runs.len() == LOOKED_AT {
            self.runs.pop_front();
        }
        self.runs.push_back((at, well));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_ms(minutes * MINUTE)
    }

    fn until(breaker: &Breaker, now: u64) -> Option<u64> {
        breaker.bar(at(now)).map(|bar| match bar {
            Bar::Rests { until, .. } => until.as_ms() / MINUTE,
            Bar::Excluded { .. } | Bar::Doubted {} => panic!("{bar}"),
        })
    }

    #[test]
    fn one_failure_in_four_is_borne_and_a_second_is_not() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|minute| breaker.done(at(minute)));
        breaker.failed(at(3));
        assert_eq!(until(&breaker, 3), None);
        breaker.failed(at(4));
        assert_eq!(until(&breaker, 4), Some(14));
        assert_eq!(
            until(&breaker, 14),
            None,
            "it may show that it is well again"
        );
    }

    #[test]
    fn of_few_runs_nothing_is_concluded_and_old_ones_do_not_count() {
        let mut breaker = Breaker::default();
        (0..3).for_each(|minute| breaker.failed(at(minute)));
        assert_eq!(until(&breaker, 2), None);
        breaker.failed(at(2 * 24 * 60));
        assert_eq!(until(&breaker, 2 * 24 * 60), None);
    }

    #[test]
    fn each_failed_probe_doubles_the_rest_and_a_run_seen_through_ends_it() {
        let mut breaker = Breaker::default();
        (0..4).for_each(|_| breaker.failed(at(0)));
        assert_eq!(until(&breaker, 0), Some(10));
        breaker.failed(at(10));
        assert_eq!(until(&breaker, 10), Some(30));
        breaker.failed(at(30));
        assert_eq!(until(&breaker, 30), Some(70));
        breaker.failed(at(50));
        assert_eq!(until(&breaker, 50), Some(70), "that was no probe");
        let (mut worn, mut now) = (breaker.clone(), 70);
        for _ in 0..12 {
            worn.failed(at(now));
            now = until(&worn, now).unwrap();
        }
        worn.failed(at(now));
        assert_eq!(until(&worn, now), Some(now + 24 * 60));
        breaker.done(at(70));
        breaker.failed(at(71));
        assert_eq!(until(&breaker, 71), None, "nothing is held against it");
    }
}
