//! How long one match among many ready miners takes: the part of `bench market` that needs no network.
//!
//! The choice is the production one, over miners of log-normally spread speeds in local networks of eight; each pair of
//! neighbours and sixteen pairs by lot a miner have reports from both ends. *Cold* is the table of links made anew and the
//! choice; *warm* the choice alone. The baseline of the run is a sort by speed and rating, which knows no links.
//!
//! And how long the survey of links holds up everything else, once a second: the longest of a minute after as many miners as
//! the load has joined at once.

use std::net::Ipv4Addr;
use std::time::Instant;

use cryptomind_core::dice::Dice;
use cryptomind_core::market::link::{Links, Measure, Party};
use cryptomind_core::market::speed::WorkKind;
use cryptomind_core::market::survey::{Place, Survey};
use cryptomind_core::market::{
    Ability, Availability, Candidate, Preference, Surroundings, Wanted, Workload, select,
};
use cryptomind_protocol::{Amount, NodeId, Timestamp};
use serde::Serialize;

use crate::cli::bench::BenchMarketArgs;

const NOW: Timestamp = Timestamp::from_ms(1);
/// Miners in a local network.
const LAN: usize = 8;
/// Peers by lot that each miner has measured.
const BY_LOT: usize = 16;
/// Miners that measure each other: as many as the load has.
const SURVEYED: usize = 10_000;
/// Newcomers' rating, thousandths of a star.
const RATING_MILLI: u32 = 3_500;

/// What was measured. Times are medians, in milliseconds.
#[derive(Debug, Serialize)]
pub struct Matched {
    miners: usize,
    group: usize,
    rounds: usize,
    match_cold_ms: f64,
    match_warm_ms: f64,
    /// Sorting by speed and rating alone.
    sort_ms: f64,
    /// Warm, over the sort.
    warm_over_sort: f64,
    /// Miners that measure each other.
    surveyed: usize,
    /// The longest time that handing out their orders of one second took.
    survey_max_ms: f64,
}

/// Measures. Takes a second or some, on the thread that it is called from.
pub fn measure(args: &BenchMarketArgs) -> Matched {
    let (miners, group) = (args.miners as usize, args.group as usize);
    let (candidates, links) = market(miners);
    let around = || Surroundings {
        links: links.table(NOW).into(),
        stores: Vec::new(),
    };
    let (wanted, known) = (wanted(group), around());
    let rounds = args.rounds as usize;
    let match_cold_ms = median_ms(rounds, || drop(select(&wanted, &candidates, &around())));
    let match_warm_ms = median_ms(rounds, || drop(select(&wanted, &candidates, &known)));
    let sort_ms = median_ms(rounds, || {
        let mut sorted = candidates.clone();
        sorted.sort_by_key(|c| (std::cmp::Reverse(c.ability.mflops), c.node));
        // Or the sort might be left out.
        std::hint::black_box(sorted);
    });
    Matched {
        miners,
        group,
        rounds,
        match_cold_ms,
        match_warm_ms,
        sort_ms,
        warm_over_sort: match_warm_ms / sort_ms,
        surveyed: SURVEYED,
        survey_max_ms: survey_max_ms(SURVEYED),
    }
}

/// Of so many miners in local networks, of whom each reports what it was told to measure.
fn survey_max_ms(count: usize) -> f64 {
    let (mut survey, mut dice) = (Survey::new([7; 32]), Dice::new(5));
    let mut links = Links::default();
    for number in 0..count {
        let network = (number / LAN) as u32;
        let seen = Ipv4Addr::from_bits(Ipv4Addr::new(11, 0, 0, 0).to_bits() + network);
        let own = Ipv4Addr::new(192, 168, 0, (number % LAN) as u8 + 1);
        let place = Place::new(seen.into(), (own, 7_000).into());
        survey.enter(node(number), place, &mut dice, NOW);
    }
    let mut longest = 0f64;
    for second in 0..60 {
        let now = NOW.plus_ms(second * 1_000);
        let start = Instant::now();
        let orders = survey.orders(&links, &|_| true, &mut dice, now);
        longest = longest.max(start.elapsed().as_secs_f64() * 1e3);
        for (from, orders) in orders {
            for order in orders {
                let measure = Measure {
                    rtt_us: 30_000,
                    bytes_per_s: None,
                };
                links.report(Party::Node(from), Party::Node(order.node), measure, now);
            }
        }
    }
    longest
}

fn median_ms(rounds: usize, work: impl Fn()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times[rounds / 2]
}

fn node(number: usize) -> NodeId {
    let mut bytes = [0; NodeId::LEN];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    NodeId::new(bytes)
}

fn market(count: usize) -> (Vec<Candidate>, Links) {
    let mut dice = Dice::new(9);
    let mut links = Links::default();
    for a in 0..count {
        let first = a / LAN * LAN;
        for b in (first..(first + LAN).min(count)).filter(|b| *b != a) {
            let bytes_per_s = (125e6 * dice.factor(0.2)) as u64;
            both_report(&mut links, (a, b), 300, bytes_per_s);
        }
        for b in dice.some(BY_LOT, count) {
            let bytes_per_s = (2.5e6 * dice.factor(0.5)) as u64;
            both_report(&mut links, (a, b), 30_000, bytes_per_s);
        }
    }
    let candidate = |number| {
        let mflops = (5e4 * dice.factor(0.5)) as u64;
        Candidate {
            node: node(number),
            availability: Availability::Free,
            strikes: 0,
            ability: Ability::new(mflops, RATING_MILLI),
            unit_price: Amount::from_base_units(1_000),
        }
    };
    ((0..count).map(candidate).collect(), links)
}

fn both_report(links: &mut Links, (a, b): (usize, usize), rtt_us: u64, bytes_per_s: u64) {
    let (a, b) = (Party::Node(node(a)), Party::Node(node(b)));
    let measure = Measure {
        rtt_us,
        bytes_per_s: Some(bytes_per_s),
    };
    links.report(a, b, measure, NOW);
    links.report(b, a, measure, NOW);
}

/// 200 steps of 16 GFLOP and 40 MB of gradients.
const fn wanted(miners: usize) -> Wanted {
    Wanted {
        workload: Workload {
            kind: WorkKind::Train,
            flops: 3_200_000_000_000,
            steps: 200,
            parameters: 10_000_000,
            gradient_bytes: 40_000_000,
            checkpoints: 2,
            checkpoint_bytes: 120_000_000,
            result_bytes: 40_000_000,
            memory_bytes: 240_000_000,
        },
        miners,
        preference: Preference::Balanced,
        rating_floor_milli: 0,
        strikes: 2,
        work_cap: Amount::from_base_units(u64::MAX),
    }
}

impl Matched {
    /// For people.
    pub fn rows(&self) -> Vec<[String; 2]> {
        let exact = |value: f64| format!("{value:.3}");
        let rows = [
            ("ready miners", self.miners.to_string()),
            ("members of the group", self.group.to_string()),
            (
                "a match with a new table of links, ms",
                exact(self.match_cold_ms),
            ),
            ("a match, ms", exact(self.match_warm_ms)),
            ("a sort by speed and rating, ms", exact(self.sort_ms)),
            ("miners that measure each other", self.surveyed.to_string()),
            (
                "handing out their orders of a second, the longest, ms",
                exact(self.survey_max_ms),
            ),
        ];
        rows.map(|(what, value)| [what.to_owned(), value]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_measured() {
        let args = BenchMarketArgs {
            miners: 40,
            group: 4,
            rounds: 3,
            ..BenchMarketArgs::default()
        };
        let report = measure(&args);
        let times = [report.match_cold_ms, report.match_warm_ms, report.sort_ms];
        assert!(times.iter().all(|ms| *ms > 0.0), "{report:?}");
        assert!(report.match_cold_ms > report.sort_ms, "{report:?}");
        assert!(report.rows().iter().any(|row| row[1] == "40"));
    }
}
