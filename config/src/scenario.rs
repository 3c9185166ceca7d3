//! Scenario files: what `cryptomind market simulate` plays.
//!
//! The files in `config/scenarios` say what each key means; keys with an everyday value may be left out. A scenario is
//! checked whole, so a simulation never meets one that cannot be played: there are enough miners for a group, and
//! everything has a cap.

use std::ops::RangeInclusive;
use std::path::Path;

use cryptomind_core::simulation::Scenario;
use cryptomind_core::simulation::scenario::{Demand, Job, Miners, Network, Price, Surge, Wire};
use cryptomind_protocol::task::MAX_GROUP;

use crate::ConfigError;
use crate::convert::{Converted, amount, decimal, name, problem, whole};
use crate::document::Document;
use crate::reader::{Entry, Layer, Reader};

/// The most miners of a scenario.
const MAX_MINERS: u64 = 10_000;
/// The most tasks of a scenario, as its demand goes.
const MAX_TASKS: f64 = 100_000.0;
/// The largest deviation of a logarithm: a factor of twenty either way.
const MAX_SIGMA: f32 = 3.0;
/// The longest time in which tasks are posted: a week.
const MAX_MINUTES: u64 = 7 * 24 * 60;
/// Bytes a second of 10⁶ bits a second.
const BYTES_PER_MBIT: u64 = 125_000;
const MINUTE_MS: u64 = 60_000;
const MIB: u64 = 1 << 20;

/// Reads and checks a scenario file.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn read_scenario(path: &Path) -> Result<Scenario, ConfigError> {
    of_document(&Document::read(path)?)
}

fn of_document(document: &Document) -> Result<Scenario, ConfigError> {
    let layers = [Layer::File(document.clone())];
    let mut reader = Reader::new(&layers);
    let scenario = scenario(&mut reader);
    reader.finish()?;
    let Some(scenario) = scenario else {
        let message = "a required key is missing";
        return Err(ConfigError::without_line(&document.name, message));
    };
    match misfit(&scenario) {
        Some((key, message)) => Err(at(document, key, &message)),
        None => Ok(scenario),
    }
}

fn scenario(reader: &mut Reader<'_>) -> Option<Scenario> {
    let name = reader.required("name", "for example name = \"three-lans\"", name);
    let minutes = count(reader, "minutes", 1..=MAX_MINUTES);
    let (miners, network) = (miners(reader), network(reader));
    let (job, demand) = (job(reader), demand(reader));
    let price = price(reader);
    Some(Scenario {
        name: name?,
        duration_ms: minutes? * MINUTE_MS,
        miners: miners?,
        network: network?,
        job: job?,
        demand: demand?,
        price,
    })
}

/// `[price]`, which begins with `start`; without it nothing of it may be there.
fn price(reader: &mut Reader<'_>) -> Option<Price> {
    let Some(start) = reader.optional("price.start", amount) else {
        for key in [
            "price.reserve_sigma",
            "price.clients",
            "price.limit",
            "price.limit_sigma",
            "price.account_share_ppm",
        ] {
            reader.forbid(
                key,
                "a price that does not float has no such key",
                "write price.start, such as \"10 CTM\"",
            );
        }
        return None;
    };
    Some(Price {
        start,
        reserve_sigma: sigma(reader, "price.reserve_sigma"),
        limit: reader.take("price.limit", start, amount),
        limit_sigma: sigma(reader, "price.limit_sigma"),
        clients: reader.take("price.clients", 100, |e| whole(e, 1..=10_000)),
        account_share_ppm: reader.take("price.account_share_ppm", 100_000, |e| {
            whole(e, 1..=1_000_000)
        }),
    })
}

fn count(reader: &mut Reader<'_>, key: &'static str, limits: RangeInclusive<u64>) -> Option<u64> {
    let help = format!(
        "give a whole number from {} to {}",
        limits.start(),
        limits.end()
    );
    reader.required(key, &help, |e| whole(e, limits))
}

fn small(reader: &mut Reader<'_>, key: &'static str, limits: RangeInclusive<u32>) -> Option<u32> {
    let help = format!(
        "give a whole number from {} to {}",
        limits.start(),
        limits.end()
    );
    reader.required(key, &help, |e| whole(e, limits))
}

/// A decimal number within limits, both included. What is not a number is within none.
fn within(entry: &Entry<'_>, limits: RangeInclusive<f32>) -> Converted<f64> {
    let value = decimal(entry)?;
    if limits.contains(&value) {
        return Ok(value.into());
    }
    let (from, to) = (limits.start(), limits.end());
    Err(problem(format!(
        "{value} is out of range: expected a number from {from} to {to}"
    )))
}

fn sigma(reader: &mut Reader<'_>, key: &'static str) -> f64 {
    reader.take(key, 0.0, |e| within(e, 0.0..=MAX_SIGMA))
}

fn miners(reader: &mut Reader<'_>) -> Option<Miners> {
    let minutes = |e: &Entry<'_>| whole(e, 1..=MAX_MINUTES);
    let lans = small(reader, "miners.lans", 1..=MAX_MINERS as u32);
    let per_lan = small(reader, "miners.per_lan", 1..=1_000);
    let gflops = count(reader, "miners.gflops", 1..=10_000_000);
    let speed_sigma = sigma(reader, "miners.speed_sigma");
    let start_test_sigma = sigma(reader, "miners.start_test_sigma");
    let load_sigma = sigma(reader, "miners.load_sigma");
    let stay = reader.optional("miners.stay_minutes", minutes);
    let away = reader.take("miners.away_minutes", 10, minutes);
    Some(Miners {
        lans: lans?,
        per_lan: per_lan?,
        mflops: gflops? * 1_000,
        speed_sigma,
        start_test_sigma,
        load_sigma,
        stay_ms: stay.map(|minutes| minutes * MINUTE_MS),
        away_ms: away * MINUTE_MS,
    })
}

fn wire(reader: &mut Reader<'_>, mbit_s: &'static str, rtt_us: &'static str) -> Option<Wire> {
    let mbit_s = count(reader, mbit_s, 1..=1_000_000);
    let rtt_us = count(reader, rtt_us, 1..=10_000_000);
    Some(Wire {
        bytes_per_s: mbit_s? * BYTES_PER_MBIT,
        rtt_us: rtt_us?,
    })
}

fn network(reader: &mut Reader<'_>) -> Option<Network> {
    let inside = wire(reader, "network.inside_mbit_s", "network.inside_rtt_us");
    let between = wire(reader, "network.between_mbit_s", "network.between_rtt_us");
    let peers = |e: &Entry<'_>| whole(e, 0..=32u32);
    Some(Network {
        scatter: sigma(reader, "network.scatter_sigma"),
        noise: sigma(reader, "network.noise_sigma"),
        random_peers: reader.take("network.random_peers", 8, peers),
        near_peers: reader.take("network.near_peers", 8, peers),
        flatterers: reader.take("network.flatterers", 0.0, |e| within(e, 0.0..=1.0)),
        stores: reader.take("network.stores", 1, |e| whole(e, 1..=16u32)),
        inside: inside?,
        between: between?,
    })
}

fn job(reader: &mut Reader<'_>) -> Option<Job> {
    let parameters = count(reader, "task.parameters", 10_000..=100_000_000);
    let steps = small(reader, "task.steps", 1..=1_000_000);
    let batch = small(reader, "task.batch", 1..=1 << 20);
    let checkpoint_steps = small(reader, "task.checkpoint_steps", 1..=1_000_000);
    let miners = small(reader, "task.miners", 1..=MAX_GROUP);
    let dataset_mib = reader.take("task.dataset_mib", 0, |e| whole(e, 0..=1_000_000u64));
    Some(Job {
        parameters: parameters?,
        steps: steps?,
        batch: batch?,
        checkpoint_steps: checkpoint_steps?,
        miners: miners?,
        dataset_bytes: dataset_mib * MIB,
    })
}

fn demand(reader: &mut Reader<'_>) -> Option<Demand> {
    let first_s = count(reader, "demand.first_s", 0..=86_400);
    let gap_s = reader.optional("demand.gap_s", |e| whole(e, 1..=604_800u64));
    Some(Demand {
        first_ms: first_s? * 1_000,
        gap_ms: gap_s.map(|gap| gap * 1_000),
        surge: surge(reader),
    })
}

fn surge(reader: &mut Reader<'_>) -> Option<Surge> {
    let minutes = |e: &Entry<'_>| whole(e, 0..=MAX_MINUTES);
    let from = reader.optional("demand.surge_from_minutes", minutes);
    let until = reader.optional("demand.surge_until_minutes", minutes);
    let factor = reader.optional("demand.surge_factor", |e| within(e, 0.1..=100.0));
    if from.is_none() && until.is_none() && factor.is_none() {
        return None;
    }
    Some(Surge {
        from_ms: from.unwrap_or(0) * MINUTE_MS,
        until_ms: until.unwrap_or(0) * MINUTE_MS,
        factor: factor.unwrap_or(1.0),
    })
}

/// What does not fit what, with the key that it stands at.
fn misfit(scenario: &Scenario) -> Option<(&'static str, String)> {
    let (miners, job) = (scenario.count() as u64, &scenario.job);
    if miners > MAX_MINERS {
        let message = format!("{miners} miners in all: at most {MAX_MINERS} are simulated");
        return Some(("miners.per_lan", message));
    }
    if miners < job.miners.into() {
        let message = format!("{} miners a task, and there are {miners}", job.miners);
        return Some(("task.miners", message));
    }
    if u64::from(job.steps) * u64::from(job.batch) > u32::MAX.into() {
        let message = format!("steps times batch exceed {} samples", u32::MAX);
        return Some(("task.batch", message));
    }
    let surge = scenario.demand.surge;
    if surge.is_some_and(|surge| surge.from_ms >= surge.until_ms) {
        let message = "a surge ends after it begins: give both ends".to_owned();
        return Some(("demand.surge_until_minutes", message));
    }
    let gap_ms = scenario.demand.gap_ms? as f64 / surge.map_or(1.0, |surge| surge.factor.max(1.0));
    let tasks = scenario.duration_ms as f64 / gap_ms;
    (tasks > MAX_TASKS).then(|| {
        let message = format!("about {tasks:.0} tasks: at most {MAX_TASKS} are simulated");
        ("demand.gap_s", message)
    })
}

/// An error at the value of `key`, or where that would stand.
fn at(document: &Document, key: &str, message: &str) -> ConfigError {
    let section = key.split('.').next().unwrap_or(key);
    let value = document.values.get(key).map(|placed| placed.span.clone());
    let span = value.or_else(|| document.sections.get(section).cloned());
    document.error(span.unwrap_or(0..0), message)
}

#[cfg(test)]
mod tests;
