//! `market honesty`: whether misconduct pays. It needs no network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::available_parallelism;

use anyhow::Result;
use cryptomind_core::simulation::misconduct::{Colluded, OfSeed, Plot, Policy, Report, Row};
use cryptomind_protocol::ErrorBody;
use indicatif::ProgressBar;

use crate::cli::HonestyArgs;
use crate::output::{Output, table};

const TEMPLATE: &str = "{bar:40} {pos} of {len} seeds";

/// Plays every way to cheat. Ctrl-C ends it.
pub async fn run(output: Output, args: HonestyArgs) -> Result<()> {
    let bar = output.bar(args.seeds, TEMPLATE);
    let stop = Stop::default();
    let (seen, stopped) = (bar.clone(), stop.0.clone());
    let played = tokio::task::spawn_blocking(move || play(args.seeds, &seen, &stopped));
    let played = crate::command::interruptible(async { Ok(played.await?) }).await;
    bar.finish_and_clear();
    let report = Report::of(&played?);
    output.value(&report, || human(&report))?;
    match report.misses().as_slice() {
        [] => Ok(()),
        missed => Err(ErrorBody::internal(missed.join("; ")).into()),
    }
}

/// Says that nobody waits any more: at a prompt the process goes on.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The seeds from 0 on, on all cores; fewer where it was stopped.
fn play(seeds: u64, bar: &ProgressBar, stopped: &AtomicBool) -> Vec<OfSeed> {
    let next = AtomicU64::new(0);
    let work = || {
        let mut played = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                break;
            }
            played.push((seed, OfSeed::play(seed)));
            bar.inc(1);
        }
        played
    };
    let threads = available_parallelism().map_or(1, usize::from);
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        // A thread's panic is this one's.
        let played = joined.map(|joined| joined.unwrap_or_else(|e| std::panic::resume_unwind(e)));
        played.flatten().collect::<Vec<_>>()
    });
    all.sort_unstable_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, played)| played).collect()
}

fn human(report: &Report) -> String {
    let header = [
        "policy",
        "gain",
        "wrong results",
        "at most",
        "excluded",
        "checks",
    ];
    let rows = report.policies.iter().map(row);
    let honest = &report.honest;
    let fresh = &report.fresh_keys;
    let [approve, reject] = report.colluders.each_ref().map(colluded);
    format!(
        "{} seeds: 8 honest miners and 2 of a policy, 10,000 paid tasks. Gains over honesty in tasks' pay, wrong results until \
         exclusion beside what the rate of checks implies, checks as a part of paid work\n{}\n\
         The best of them gains {:.1} tasks' pay.\n\
         Honest hardware errs: {} tasks, {} wrong answers, {} of them found, {} miners excluded, {} had to rest.\n\
         {approve}\n{reject}\n\
         {} fresh keys of one owner: at most {:.2} of one owner's cap at risk, {} second checks.",
        report.seeds,
        table(&header, rows),
        report.cheat_gain_max,
        honest.tasks,
        honest.errors,
        honest.verdicts,
        honest.excluded,
        honest.rested,
        fresh.keys,
        fresh.exposed_max_ppm as f64 / 1e6,
        fresh.seats,
    )
}

fn row(row: &Row) -> Vec<String> {
    let or_dash = |number: Option<f64>| number.map_or("-".into(), |n| format!("{n:.1}"));
    let is_honest = row.policy == Policy::Honest;
    vec![
        row.policy.name().to_owned(),
        or_dash(row.gain),
        format!("{:.1}", row.wrong),
        or_dash(row.wrong_max),
        if is_honest {
            "-".into()
        } else {
            format!("{} of {}", row.excluded, row.of)
        },
        format!("{:.2} %", row.overhead_ppm as f64 / 1e4),
    ]
}

fn colluded(colluded: &Colluded) -> String {
    let what = match colluded.plot {
        Plot::ApproveAll => "approve all",
        Plot::RejectAll => "reject all",
    };
    let found = colluded.checks_to_be_found();
    format!(
        "30 % of second checkers {what}: {} cases, {} honest punished, {} of {} wrongdoers let off, a colluder is excluded after {} checks.",
        colluded.cases,
        colluded.honest_punished,
        colluded.let_off,
        colluded.wrongdoers,
        found.map_or("-".into(), |n| format!("{n:.1}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_says_what_programs_and_people_look_for() {
        let played = play(1, &ProgressBar::hidden(), &AtomicBool::new(false));
        let report = Report::of(&played);
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["cheat_gain_max"].is_number(), "{json}");
        assert!(json["overhead_max_ppm"].is_number());
        assert_eq!(json["honest_excluded"], 0);
        assert_eq!(json["policies"][1]["policy"], "wrong_always");
        assert_eq!(json["colluders"][1]["plot"], "reject_all");
        assert_eq!(json["fresh_keys"]["seats"], 0);
        let text = human(&report);
        assert!(text.contains("wrong_once_trusted"), "{text}");
        assert!(
            text.contains("reject all: 10000 cases, 0 honest punished"),
            "{text}"
        );
    }

    #[test]
    fn nobody_waits_for_what_was_stopped() {
        let played = play(20, &ProgressBar::hidden(), &AtomicBool::new(true));
        assert!(played.is_empty());
    }
}
