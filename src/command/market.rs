//! `market`: what the market would do.

use std::path::Path;

use anyhow::Result;
use cryptomind_config::read_scenario;
use cryptomind_core::simulation::outcome::{Outcome, percentile};
use cryptomind_core::simulation::{Comparison, Played, Policy, compare};
use serde::Serialize;

use crate::cli::MarketCommand;
use crate::output::{Output, table};

/// Runs a `market` command that needs no network.
pub async fn run(output: Output, command: MarketCommand) -> Result<()> {
    match command {
        MarketCommand::Simulate { scenario, seeds } => simulate(output, &scenario, seeds).await,
    }
}

async fn simulate(output: Output, file: &Path, seeds: u64) -> Result<()> {
    let scenario = read_scenario(file)?;
    let name = scenario.name.clone();
    // It computes and never waits; Ctrl-C ends the process, and it with it.
    let played = tokio::task::spawn_blocking(move || compare(&scenario, seeds));
    let comparison = super::interruptible(async { Ok(played.await?) }).await?;
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
        format!(
            "{}, {} seeds\n{}\nThe market is {} as by lot, {} as by speed alone.",
            self.scenario,
            self.seeds,
            table(&header, rows),
            times(self.vs_random),
            times(self.vs_speed_only),
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
