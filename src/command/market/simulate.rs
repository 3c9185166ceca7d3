//! `market simulate`: what the market would do. It needs no network.

use anyhow::Result;
use cryptomind_config::read_scenario;
use cryptomind_core::simulation::outcome::{Outcome, percentile};
use cryptomind_core::simulation::{Comparison, Played, Policy, compare};
use cryptomind_protocol::money::BASE_UNITS_PER_CTM;
use serde::Serialize;

use crate::chart;
use crate::cli::SimulateArgs;
use crate::output::{Output, table};

/// The price's curve, in characters: width and height.
const CURVE: (usize, usize) = (64, 8);

/// Plays a scenario under every policy. Ctrl-C ends it.
pub async fn run(output: Output, args: SimulateArgs) -> Result<()> {
    let scenario = read_scenario(&args.scenario)?;
    let seeds = args.seeds;
    let name = scenario.name.clone();
    // It computes and never waits; Ctrl-C ends the process, and it with it.
    let played = tokio::task::spawn_blocking(move || compare(&scenario, seeds));
    let comparison = crate::command::interruptible(async { Ok(played.await?) }).await?;
    let report = Report::new(name, &comparison);
    output.value(&report, || report.human())?;
    Ok(())
}

/// A scenario under every policy.
#[derive(Serialize)]
struct Report {
    scenario: String,
    seeds: u64,
    /// How many times as long tasks take when miners are chosen by lot, by the medians.
    vs_random: Option<f64>,
    /// The same, when they are chosen by speed alone.
    vs_speed_only: Option<f64>,
    market: Figures,
    speed_only: Figures,
    random: Figures,
    /// How the price floated under the market's choice, where the scenario has one.
    price: Option<PriceFigures>,
    /// What one CU cost each minute of the first seed, in base units: for the curve.
    #[serde(skip)]
    curve: Vec<u64>,
}

/// How the price floated, over all seeds, in base units of a token for one CU.
#[derive(Serialize)]
struct PriceFigures {
    first: u64,
    least: u64,
    most: u64,
    /// The median of what it was at the end.
    last_p50: f64,
    /// The largest move of a minute, in millionths of the price.
    largest_move_ppm: u64,
}

impl PriceFigures {
    fn of(curves: &[Vec<u64>]) -> Option<Self> {
        let all = || curves.iter().flatten().copied();
        let moves = curves.iter().flat_map(|curve| curve.windows(2));
        let moved_ppm = |pair: &[u64]| {
            let moved = u128::from(pair[0].abs_diff(pair[1])) * 1_000_000;
            moved.div_ceil(u128::from(pair[0].max(1))) as u64
        };
        let lasts: Vec<f64> = curves
            .iter()
            .filter_map(|c| c.last())
            .map(|p| *p as f64)
            .collect();
        Some(Self {
            first: curves.first()?.first().copied()?,
            least: all().min()?,
            most: all().max()?,
            last_p50: percentile(&lasts, 50)?,
            largest_move_ppm: moves.map(moved_ppm).max()?,
        })
    }
}

/// What a policy came to. Times are in milliseconds.
#[derive(Serialize)]
struct Figures {
    posted: u32,
    finished: u32,
    unfinished: u32,
    /// From posting to end.
    completion_ms_p50: Option<f64>,
    completion_ms_p95: Option<f64>,
    /// From posting to the first match.
    wait_ms_p50: Option<f64>,
    wait_ms_p95: Option<f64>,
    members_lost: u32,
    groups: u32,
    groups_in_one_lan: u32,
    /// What tasks took as a multiple of what was expected: the median.
    over_expected_p50: Option<f64>,
    /// Finished tasks that took no longer than was expected of 19 in 20, in millionths of those with an expectation.
    within_p95_ppm: Option<u64>,
    /// What was expected of 19 in 20, as a multiple of the median: the median over tasks.
    p95_over_p50: Option<f64>,
}

impl Report {
    fn new(scenario: String, comparison: &Comparison) -> Self {
        let figures = |policy| Figures::new(comparison.of(policy));
        Self {
            scenario,
            seeds: comparison.seeds,
            vs_random: comparison.against(Policy::Random),
            vs_speed_only: comparison.against(Policy::SpeedOnly),
            market: figures(Policy::Market),
            speed_only: figures(Policy::SpeedOnly),
            random: figures(Policy::Random),
            price: PriceFigures::of(&comparison.of(Policy::Market).outcome.prices),
            curve: comparison
                .of(Policy::Market)
                .outcome
                .prices
                .first()
                .cloned()
                .unwrap_or_default(),
        }
    }

    fn human(&self) -> String {
        let header = [
            "choice",
            "finished",
            "median",
            "19 of 20",
            "wait",
            "lost",
            "in one LAN",
        ];
        let rows = [
            ("by the market", &self.market),
            ("by speed alone", &self.speed_only),
            ("by lot", &self.random),
        ];
        let rows = rows.map(|(choice, figures)| figures.row(choice));
        let times = |ratio: Option<f64>| {
            ratio.map_or("without a comparison".into(), |r| {
                format!("{r:.1} times as fast")
            })
        };
        let mut text = format!(
            "{}, {} seeds\n{}\nThe market is {} as by lot, {} as by speed alone.",
            self.scenario,
            self.seeds,
            table(&header, rows),
            times(self.vs_random),
            times(self.vs_speed_only),
        );
        if let Some(price) = &self.price {
            text.push_str(&self.price_text(price));
        }
        text
    }

    /// The first seed's curve, in CTM over minutes, and its figures.
    fn price_text(&self, price: &PriceFigures) -> String {
        let ctm = |units: u64| units as f64 / BASE_UNITS_PER_CTM as f64;
        let dots: Vec<_> = self
            .curve
            .iter()
            .enumerate()
            .map(|(minute, units)| chart::Point {
                step: minute as u64,
                value: ctm(*units) as f32,
            })
            .collect();
        let curve = chart::draw(&dots, self.curve.len() as u64, CURVE.0, CURVE.1);
        format!(
            "\n{}\nOne CU cost {} CTM at first, {} to {} since, {:.3} at the end (median); the largest move of a minute was {:.2} %.",
            curve.join("\n"),
            ctm(price.first),
            ctm(price.least),
            ctm(price.most),
            price.last_p50 / BASE_UNITS_PER_CTM as f64,
            price.largest_move_ppm as f64 / 10_000.0,
        )
    }
}

impl Figures {
    fn new(played: &Played) -> Self {
        let outcome: &Outcome = &played.outcome;
        let of = |values: &[u64], percent| {
            let values: Vec<f64> = values.iter().map(|ms| *ms as f64).collect();
            percentile(&values, percent)
        };
        let expected = outcome.over_expected.len() as u64;
        Self {
            posted: outcome.posted,
            finished: outcome.finished,
            unfinished: outcome.unfinished,
            completion_ms_p50: of(&outcome.completion_ms, 50),
            completion_ms_p95: of(&outcome.completion_ms, 95),
            wait_ms_p50: of(&outcome.wait_ms, 50),
            wait_ms_p95: of(&outcome.wait_ms, 95),
            members_lost: outcome.lost,
            groups: outcome.groups,
            groups_in_one_lan: outcome.in_one_lan,
            over_expected_p50: percentile(&outcome.over_expected, 50),
            within_p95_ppm: (u64::from(outcome.within_p95) * 1_000_000).checked_div(expected),
            p95_over_p50: percentile(&outcome.range, 50),
        }
    }

    fn row(&self, choice: &str) -> Vec<String> {
        let seconds = |ms: Option<f64>| ms.map_or("-".into(), |ms| format!("{:.1} s", ms / 1e3));
        vec![
            choice.to_owned(),
            format!("{} of {}", self.finished, self.posted),
            seconds(self.completion_ms_p50),
            seconds(self.completion_ms_p95),
            seconds(self.wait_ms_p50),
            self.members_lost.to_string(),
            format!("{} of {}", self.groups_in_one_lan, self.groups),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_report_of_a_scenario_has_its_ratios_and_figures() {
        let file =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/scenarios/three-lans.toml");
        let scenario = read_scenario(&file).unwrap();
        let report = Report::new(scenario.name.clone(), &compare(&scenario, 3));
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["vs_random"].as_f64().unwrap() > 3.0, "{json}");
        assert!(json["vs_speed_only"].as_f64().unwrap() > 1.5, "{json}");
        assert_eq!(json["market"]["finished"], 3);
        assert_eq!(json["market"]["within_p95_ppm"], 1_000_000);
        assert!(json["random"]["within_p95_ppm"].is_null());
        assert!(report.human().contains("3 of 3"));
    }
}
