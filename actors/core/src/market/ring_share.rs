//! Where a group would wait for its ring: what part of a step goes into the exchange, and what would make it less.
//!
//! A synchronous step ends when the last gradient is summed. On slow links that takes longer than the computing, and more miners make
//! it worse: each computes less and waits as long. So a quote says where it is much, and which wire format or smaller group would
//! bring it down, by what each of these tasks would be quoted: the same group would not always be chosen for them.

use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::{RingAdvice, TaskSpec, Work};

use super::candidate::Candidate;
use super::expectation::Expectation;
use super::select::{Surroundings, Wanted, select};
use crate::price::Terms;

/// A step that spends more of its time in the ring, in millionths, is said to spend too much.
pub const MUCH_PPM: u32 = 200_000;
/// Millionths in a whole.
const PPM: u128 = 1_000_000;

/// What part of a step the exchange takes that nothing hides, in millionths.
pub(super) fn ring_share_ppm(expected: &Expectation) -> u32 {
    let step_us = u128::from(expected.step_us) + u128::from(expected.sync_us);
    let share = u128::from(expected.sync_us) * PPM / step_us.max(1);
    // A part of a whole.
    share as u32
}

/// Which changes of a task would bring it down to [`MUCH_PPM`]: each coarser wire format that would, and the largest smaller group
/// of several miners.
pub(super) fn advice(
    spec: &TaskSpec,
    terms: &Terms,
    candidates: &[Candidate],
    around: &Surroundings,
) -> Vec<RingAdvice> {
    let Work::Train { train, .. } = &spec.work else {
        return Vec::new();
    };
    let would = |wire: Wire, miners: u32| {
        let other = asking(spec, wire, miners);
        let report = select(&Wanted::of(&other, terms), candidates, around);
        let expected = report.expectation?;
        Some(RingAdvice {
            wire,
            miners,
            share_ppm: ring_share_ppm(&expected),
            time_p50_ms: expected.p50_ms,
        })
    };
    let helps = |advice: &RingAdvice| advice.share_ppm <= MUCH_PPM;
    let coarser = |wire: &Wire| wire.bytes(COUNTED) < train.wire.bytes(COUNTED);
    let wires = Wire::ALL.into_iter().filter(coarser);
    let wires = wires.filter_map(|wire| would(wire, spec.miners).filter(helps));
    let smaller = largest(spec.miners, |miners| {
        would(train.wire, miners).filter(helps)
    });
    wires.chain(smaller).collect()
}

/// Formats are compared by what so many values take.
const COUNTED: usize = 1 << 20;

fn asking(spec: &TaskSpec, wire: Wire, miners: u32) -> TaskSpec {
    let mut other = spec.clone();
    other.miners = miners;
    if let Work::Train { train, .. } = &mut other.work {
        train.wire = wire;
    }
    other
}

/// What helps of the largest number from 2 to below `miners` that is found to, by bisection: fewer miners wait less, as a rule.
fn largest(miners: u32, helps: impl Fn(u32) -> Option<RingAdvice>) -> Option<RingAdvice> {
    let (mut few, mut many, mut found) = (2, miners, None);
    while few < many {
        let middle = few + (many - few) / 2;
        match helps(middle) {
            Some(advice) => (few, found) = (middle + 1, Some(advice)),
            None => many = middle,
        }
    }
    found
}

/// What is to be said of a step that spends so much of its time in the ring.
pub(super) fn note(spec: &TaskSpec, share_ppm: u32, advice: &[RingAdvice]) -> String {
    let percent = |ppm: u32| format!("{} %", ppm.div_ceil(10_000));
    let much = format!(
        "a step would spend {} of its time in the ring, more than a fifth",
        percent(share_ppm)
    );
    if advice.is_empty() {
        return format!(
            "{much}: neither another wire format nor a smaller group of several brings that down; one miner alone exchanges nothing"
        );
    }
    let cure = |advice: &RingAdvice| {
        let (share, seconds) = (percent(advice.share_ppm), advice.time_p50_ms.div_ceil(1000));
        match advice.miners == spec.miners {
            true => format!(
                "wire = \"{}\" makes it {share}, in {seconds} s",
                advice.wire
            ),
            false => format!("{} miners make it {share}, in {seconds} s", advice.miners),
        }
    };
    let cures: Vec<_> = advice.iter().map(cure).collect();
    format!("{much}: {}", cures.join("; "))
}

#[cfg(test)]
mod tests;
