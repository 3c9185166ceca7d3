//! `bench train`: what one training step takes in this process, without a network.
//!
//! The shapes are those that PyTorch is held against, with AdamW in f32: see [`super::shapes`].

use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_core::audit::RootSteps;
use cryptomind_gpu::profile::Profile;
use cryptomind_gpu::session::Session;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::task::{Optimizer, TrainSpec};
use serde::Serialize;

use super::shapes::{Shape, median};
use super::usage::Usage;
use crate::cli::bench::BenchTrainArgs;
use crate::exit;
use crate::output::{Output, table};
use crate::training;

/// Steps before those that count.
const WARM_UP: u32 = 5;

/// What was measured; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    model: &'static str,
    threads: usize,
    /// Steps that were timed.
    steps: u32,
    /// A step, milliseconds: the median.
    ms_per_step: f64,
    /// What the audit trail's roots of such a step take, milliseconds: the median. Not part of the step, and not due at each one.
    roots_ms: f64,
    /// Every so many steps a miner that is alone with such a step names them.
    roots_every: u64,
    /// At the median.
    samples_per_s: f64,
    /// Mean over the batch, before the first step and before the last one.
    first_loss: f64,
    last_loss: f64,
    params: usize,
    /// The most memory that this process had resident, MiB; nothing where the system does not say.
    peak_mib: Option<f64>,
    /// Where the time goes, milliseconds a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<Vec<Spent>>,
    /// What the steps added to what was resident before the first one, at their peak.
    step_mib: Option<f64>,
}

/// What an operation takes in a step, milliseconds, over all places in which the model has it.
#[derive(Debug, Serialize)]
struct Spent {
    operation: &'static str,
    forward_ms: f64,
    /// For the gradients of its parameters.
    parameters_ms: f64,
    /// For the gradient of its input.
    input_ms: f64,
}

fn spent(profile: &Profile, steps: u32) -> Vec<Spent> {
    let ms = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(steps);
    let one = |(operation, spent): (&'static str, cryptomind_gpu::profile::Spent)| Spent {
        operation,
        forward_ms: ms(spent.forward),
        parameters_ms: ms(spent.parameters),
        input_ms: ms(spent.input),
    };
    profile.operations().into_iter().map(one).collect()
}

/// Runs the benchmark.
pub async fn run(output: Output, args: BenchTrainArgs) -> Result<()> {
    let measuring = tokio::task::spawn_blocking(move || measure(args));
    let measured = tokio::select! {
        measured = measuring => measured?.map_err(ErrorBody::from)?,
        // The thread ends with the process.
        _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
    };
    output.value(&measured, || measured.table())?;
    Ok(())
}

fn measure(args: BenchTrainArgs) -> Result<Report, cryptomind_gpu::EngineError> {
    let threads = training::threads(args.threads);
    let shape = Shape::of(args.model);
    let batch = shape.batch;
    let data = shape.samples();
    let rows: Vec<u32> = (0..batch).collect();
    let mut session = Session::with_threads(&shape.model, &settings(batch), threads)?;
    let loaded = resident();
    let (mut times, mut hashing, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..WARM_UP + args.steps {
        if step == WARM_UP && args.profile {
            session.start_profile();
        }
        let begin = Instant::now();
        let loss = session.grad_step(&data, &rows, &mut |_| ())?;
        session.apply(batch)?;
        let computed = begin.elapsed();
        let begin = Instant::now();
        session.prepared_roots();
        let hashed = begin.elapsed();
        let begin = Instant::now();
        session.commit();
        if step >= WARM_UP {
            times.push(computed + begin.elapsed());
            hashing.push(hashed);
        }
        losses.push(loss / f64::from(batch));
    }
    let (median, hashing) = (median(times), median(hashing));
    Ok(Report {
        model: shape.name,
        threads,
        steps: args.steps,
        ms_per_step: median.as_secs_f64() * 1e3,
        roots_ms: hashing.as_secs_f64() * 1e3,
        roots_every: RootSteps::new(&shape.model, &settings(batch), 1, u64::MAX).every(),
        samples_per_s: f64::from(batch) / median.as_secs_f64(),
        first_loss: losses.first().copied().unwrap_or_default(),
        last_loss: losses.last().copied().unwrap_or_default(),
        profile: session.profile().map(|profile| spent(profile, args.steps)),
        params: session.parameter_count(),
        peak_mib: resident().map(Usage::peak_mib),
        step_mib: resident()
            .zip(loaded)
            .map(|(end, start)| end.peak_above_mib(start)),
    })
}

fn resident() -> Option<Usage> {
    Usage::of(std::process::id())
}

fn settings(batch: u32) -> TrainSpec {
    TrainSpec {
        epochs: 1,
        global_batch: batch,
        optimizer: Optimizer::adamw(1e-3),
        seed: 0,
        checkpoint_steps: 1,
        ..TrainSpec::default()
    }
}

impl Report {
    fn table(&self) -> String {
        let mib = |mib: Option<f64>| mib.map_or_else(String::new, |mib| format!("{mib:.0}"));
        let rows = [
            ("model", self.model.to_owned()),
            ("threads", self.threads.to_string()),
            ("a step, ms (median)", format!("{:.3}", self.ms_per_step)),
            ("roots for audits, ms", format!("{:.3}", self.roots_ms)),
            ("at every so many steps", self.roots_every.to_string()),
            ("samples a second", format!("{:.0}", self.samples_per_s)),
            ("first loss", format!("{:.4}", self.first_loss)),
            ("last loss", format!("{:.4}", self.last_loss)),
            ("parameters", self.params.to_string()),
            ("peak of memory, MiB", mib(self.peak_mib)),
            ("of that by the steps, MiB", mib(self.step_mib)),
        ];
        let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
        let mut text = table(&["measured", "value"], rows);
        if let Some(profile) = &self.profile {
            let row = |spent: &Spent| {
                let times = [spent.forward_ms, spent.parameters_ms, spent.input_ms];
                let times = times.map(|ms| format!("{ms:.3}"));
                [vec![spent.operation.to_owned()], times.to_vec()].concat()
            };
            let header = ["ms a step", "forward", "parameters", "input"];
            text.push('\n');
            text.push_str(&table(&header, profile.iter().map(row)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::TrainedModel;

    /// Each with its parameters, as PyTorch counts them, and the loss of guessing.
    #[test]
    fn steps_are_timed_and_learn() {
        let models = [
            (TrainedModel::Mlp, 669_706, 10f64),
            (TrainedModel::Cnn, 421_642, 10.0),
            (TrainedModel::Gpt, 825_153, 65.0),
        ];
        for (model, params, guesses) in models {
            let args = BenchTrainArgs {
                model,
                threads: 1,
                steps: 5,
                profile: true,
            };
            let report = measure(args).unwrap();
            assert_eq!((report.params, report.steps), (params, 5));
            assert!(report.ms_per_step > 0.0 && report.samples_per_s.is_finite());
            assert!((report.first_loss - guesses.ln()).abs() < 0.4, "{report:?}");
            assert!(report.last_loss < report.first_loss, "{report:?}");
        }
    }
}
