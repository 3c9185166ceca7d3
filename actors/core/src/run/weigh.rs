//! Who computes how much of each batch: as much as it is fast beside the others, by the newest that is known when an attempt
//! begins.
//!
//! Of a member that trained long enough in this run it is what it was measured at, the newest first ([`Effort`](super::Effort)); of one
//! that has not, what the market believes of it, as far off as that was of those that have. Within an attempt nobody's weight changes,
//! and a group that forms again by itself keeps the weights that it has: all members know these, and nobody has to agree on new ones.
//! Where a verified checkpoint shows that steps would be a quarter faster were the batch divided by what was measured, and the rest of
//! the task is worth it, the group pauses where a step ends and goes on so: [`MAX_WEIGHED`] times at most.
//!
//! Who is about as fast as another weighs as much, so that the shares of equals do not differ by what measurements scatter. Nobody
//! weighs less than an eighth of the fastest: a number that is wrong starves no member, nor buries one in work.

use cryptomind_protocol::Timestamp;
use cryptomind_protocol::batch::Weight;
use cryptomind_protocol::task::Work;

use super::{Call, Effect, Run, Seat};
use crate::batch::Shares;

/// The weight of the fastest.
const FASTEST: f64 = 1000.0;
/// The least weight.
const LEAST: f64 = FASTEST / 8.0;
/// Who is this part as fast as another, or faster, counts as being as fast.
const ALIKE: f64 = 0.9;
/// A group pauses to be weighed anew where its steps become this many times as fast ...
const FASTER: f64 = 1.25;
/// ... and so much time is gained over the rest of the task: many times what a pause takes.
const WORTH_MS: f64 = 2_000.0;
/// How often a group pauses for it: speeds that change all the time are followed no longer.
const MAX_WEIGHED: u32 = 8;

impl Run {
    /// Weighs the members anew.
    pub(super) fn weigh(&mut self) {
        let weights = weights(&speeds(&self.seats));
        for (seat, weight) in self.seats.iter_mut().zip(weights) {
            seat.weight = weight;
        }
    }

    /// The group formed the present attempt by itself, before it could hear what was granted: its members weigh what they did in the
    /// attempt before.
    pub(super) fn weigh_as_before(&mut self) {
        if self.before.is_empty() {
            return;
        }
        let (before, weights): (Vec<_>, Vec<_>) = self.before.iter().copied().unzip();
        let shares = Shares::new(weights).kept(&before, &self.group);
        self.weights = shares.weights().to_vec();
        for (node, weight) in self.group.iter().zip(&self.weights) {
            let mut seats = self.seats.iter_mut();
            if let Some(seat) = seats.find(|seat| seat.member.node == *node) {
                seat.weight = *weight;
            }
        }
        self.note_division();
    }

    /// Samples of a step.
    pub(super) const fn global_batch(&self) -> Option<u32> {
        match &self.spec.work {
            Work::Train { train, .. } => Some(train.global_batch),
            Work::Infer { .. } | Work::Serve { .. } => None,
        }
    }

    /// How the members divide their batches.
    pub fn shares(&self) -> Shares {
        Shares::new(self.seats.iter().map(|seat| seat.weight).collect())
    }

    /// Has the group pause where a step ends, where it would be so much faster if it were weighed anew.
    pub(super) fn call_to_weigh(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.may_call() || self.weighed >= MAX_WEIGHED {
            return;
        }
        let Some((present, anew)) = self.step_ms_weighed_anew() else {
            return;
        };
        // Nobody leaves a ring whose last step this is.
        let rest = self.terms.extent.steps.saturating_sub(self.step + 1) as f64;
        if present >= anew * FASTER && (present - anew) * rest >= WORTH_MS {
            self.call_all(Call::to_weigh(now, self.step), effects);
        }
    }

    /// What a step takes with the present weights, and with those that follow from what was measured, milliseconds. Nothing where
    /// that was nobody, or somebody of whom no work is verified yet.
    fn step_ms_weighed_anew(&self) -> Option<(f64, f64)> {
        let efforts = || self.seats.iter().map(|seat| seat.effort);
        let is_known = efforts().all(|effort| effort.newest_flops > 0);
        if !is_known || efforts().all(|effort| effort.newest().is_none()) {
            return None;
        }
        let batch = self.global_batch()?;
        let speeds = speeds(&self.seats);
        let each_flops = self.terms.extent.flops_per_sample as f64;
        let exchange = self.pace.sync_us as f64 / 1e3;
        let step = |shares: &Shares| {
            let samples = (0..).map(|rank| f64::from(shares.part_len(batch, rank)));
            let each = samples.zip(&speeds);
            let each = each.map(|(samples, speed)| samples * each_flops / speed);
            each.fold(0.0, f64::max) + exchange
        };
        let anew = Shares::new(weights(&speeds));
        Some((step(&self.shares()), step(&anew)))
    }

    /// How the group divides its batches that the attempt began with, whoever is lost since.
    pub(super) fn shares_of_group(&self) -> Shares {
        let weight = |rank: usize| self.weights.get(rank).copied().unwrap_or_default();
        Shares::new((0..self.group.len()).map(weight).collect())
    }
}

/// Floating-point operations a millisecond, by rank; 0 where nothing is known.
fn speeds(seats: &[Seat]) -> Vec<f64> {
    let believed = |seat: &Seat| seat.mflops as f64 * 1e3;
    let measured: Vec<_> = seats.iter().map(|seat| seat.effort.newest()).collect();
    let both = seats.iter().zip(&measured);
    let both = both.filter_map(|(seat, speed)| Some((believed(seat), (*speed)?)));
    let sums = both.fold((0.0, 0.0), |sums, both| (sums.0 + both.0, sums.1 + both.1));
    let off = if sums.0 > 0.0 { sums.1 / sums.0 } else { 1.0 };
    let guess = |seat: &Seat| (believed(seat) * off).max(seat.effort.at_least());
    let speed = |(seat, measured): (&Seat, &Option<f64>)| measured.unwrap_or_else(|| guess(seat));
    seats.iter().zip(&measured).map(speed).collect()
}

/// What members of these speeds weigh: alike where one is not known.
fn weights(speeds: &[f64]) -> Vec<Weight> {
    let mut weights = vec![Weight::default(); speeds.len()];
    let mut order: Vec<usize> = (0..speeds.len()).collect();
    order.sort_by(|a, b| speeds[*b].total_cmp(&speeds[*a]));
    let Some(fastest) = order.first().map(|first| speeds[*first]) else {
        return weights;
    };
    if speeds
        .iter()
        .any(|speed| *speed <= 0.0 || !speed.is_finite())
    {
        return weights;
    }
    let mut leader = fastest;
    for at in order {
        if speeds[at] < leader * ALIKE {
            leader = speeds[at];
        }
        let weight = (FASTEST * leader / fastest).round().max(LEAST);
        weights[at] = Weight::try_from(weight as u32).unwrap_or_default();
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(speeds: &[f64]) -> Vec<u32> {
        weights(speeds).into_iter().map(Weight::get).collect()
    }

    #[test]
    fn who_is_about_as_fast_weighs_as_much() {
        assert_eq!(of(&[100.0, 91.0, 100.0]), [1000, 1000, 1000]);
        assert_eq!(of(&[50.0, 100.0, 46.0, 89.0]), [500, 1000, 500, 890]);
    }

    #[test]
    fn nobody_starves_and_nobody_is_buried() {
        assert_eq!(of(&[1e9, 1.0, 1.0]), [1000, 125, 125]);
        assert_eq!(of(&[7.0]), [1000]);
        assert_eq!(of(&[]), [0; 0]);
    }

    #[test]
    fn where_one_speed_is_not_known_all_weigh_alike() {
        for unknown in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(of(&[100.0, unknown, 10.0]), [1, 1, 1]);
        }
    }

    proptest! {
        #[test]
        fn faster_never_weighs_less_and_the_order_says_nothing(
            speeds in proptest::collection::vec(1.0f64..1e6, 1..10), turn in 0usize..10
        ) {
            let found = of(&speeds);
            for (a, weight) in speeds.iter().zip(&found) {
                prop_assert!((125..=1000).contains(weight));
                for (b, other) in speeds.iter().zip(&found) {
                    prop_assert!(a < b || weight >= other);
                }
            }
            let turn = turn % speeds.len();
            let (mut turned, mut expected) = (speeds, found);
            turned.rotate_left(turn);
            expected.rotate_left(turn);
            prop_assert_eq!(of(&turned), expected);
        }
    }
}
