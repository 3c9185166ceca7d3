//! Where a step's time goes on this member: noted as it goes, and told with progress.

use std::time::Instant;

use cryptomind_protocol::timeline::{MAX_SPANS, Span, Stage};

/// Spans of one stage, at most: bundles go around the ring and are applied, computing and confirming are one each.
const MOST: usize = (MAX_SPANS - 2) / 2;

/// A step's spans so far, in the order in which they were noted.
pub(super) struct Timeline {
    begin: Instant,
    spans: Vec<Span>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            spans: Vec::new(),
        }
    }

    /// A step begins: what is noted of the one before is forgotten.
    pub(super) fn begin(&mut self, at: Instant) {
        self.begin = at;
        self.spans.clear();
    }

    /// Notes what was done from when to when. Beyond what may be told, the last of its stage stands for the rest.
    pub(super) fn add(&mut self, stage: Stage, from: Instant, to: Instant) {
        let since = |at: Instant| at.saturating_duration_since(self.begin).as_micros() as u64;
        let (begin_us, end_us) = (since(from), since(to));
        let mut alike = self.spans.iter_mut().filter(|span| span.stage == stage);
        match alike.nth(MOST - 1) {
            Some(rest) => rest.us = rest.us.max(end_us.saturating_sub(rest.begin_us)),
            None => self.spans.push(Span {
                stage,
                begin_us,
                us: end_us.saturating_sub(begin_us),
            }),
        }
    }

    /// At most [`MAX_SPANS`].
    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_of_many_bundles_has_an_end_too() {
        let begin = Instant::now();
        let at = |us| begin + Duration::from_micros(us);
        let mut timeline = Timeline::new();
        timeline.add(Stage::Confirm, at(0), at(1));
        timeline.begin(begin);
        timeline.add(Stage::Compute, begin, at(10));
        for bundle in 0..100 {
            timeline.add(Stage::Ring, at(bundle), at(bundle + 20));
            timeline.add(Stage::Apply, at(bundle + 20), at(bundle + 25));
        }
        timeline.add(Stage::Confirm, at(200), at(230));
        let of = |stage| -> Vec<(u64, u64)> {
            let spans = timeline.spans().iter().filter(|span| span.stage == stage);
            spans.map(|span| (span.begin_us, span.us)).collect()
        };
        assert_eq!(timeline.spans().len(), MAX_SPANS);
        assert_eq!(of(Stage::Compute), [(0, 10)]);
        assert_eq!(of(Stage::Confirm), [(200, 30)]);
        let ring = of(Stage::Ring);
        assert_eq!((ring.len(), ring[0], ring[13]), (15, (0, 20), (13, 20)));
        assert_eq!(ring[14], (14, 99 + 20 - 14), "to the end of the last");
        assert_eq!(of(Stage::Apply)[14], (34, 99 + 25 - 34));
    }
}
