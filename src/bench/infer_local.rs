//! `bench infer-local`: what a batch takes in a trained model, in this process, without a network.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use cryptomind_gpu::EngineError;
use cryptomind_gpu::inference::Model;
use cryptomind_gpu::session::Session;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::task::TrainSpec;
use serde::Serialize;

use super::shapes::{Shape, median};
use super::usage::Usage;
use crate::cli::bench::BenchInferLocalArgs;
use crate::exit;
use crate::output::{Output, table};
use crate::training;

/// Batches before those that count.
const WARM_UP: u32 = 5;

/// What was measured; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    model: &'static str,
    threads: usize,
    /// Batches that were timed.
    steps: u32,
    /// A batch, milliseconds: the median.
    ms_per_step: f64,
    /// At the median.
    samples_per_s: f64,
    params: u64,
    /// The most memory that this process had resident, MiB; nothing where the system does not say.
    peak_mib: Option<f64>,
}

/// Runs the benchmark.
pub async fn run(output: Output, args: BenchInferLocalArgs) -> Result<()> {
    let measuring = tokio::task::spawn_blocking(move || measure(args));
    let measured = tokio::select! {
        measured = measuring => measured?.map_err(ErrorBody::from)?,
        // The thread ends with the process.
        _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
    };
    output.value(&measured, || measured.table())?;
    Ok(())
}

fn measure(args: BenchInferLocalArgs) -> Result<Report, EngineError> {
    let threads = training::threads(args.threads);
    let shape = Shape::of(args.model);
    let data = shape.samples();
    let untrained = Session::with_threads(&shape.model, &TrainSpec::default(), 1)?;
    let weights = untrained.export(&BTreeMap::new());
    let model = Model::load(&shape.model, &weights)?.with_threads(threads);
    let mut times = Vec::new();
    for step in 0..WARM_UP + args.steps {
        let begin = Instant::now();
        model.probabilities(&data, 0..data.len())?;
        if step >= WARM_UP {
            times.push(begin.elapsed());
        }
    }
    let median = median(times);
    Ok(Report {
        model: shape.name,
        threads,
        steps: args.steps,
        ms_per_step: median.as_secs_f64() * 1e3,
        samples_per_s: f64::from(shape.batch) / median.as_secs_f64(),
        params: shape.model.parameter_count(),
        peak_mib: Usage::of(std::process::id()).map(Usage::peak_mib),
    })
}

impl Report {
    fn table(&self) -> String {
        let peak = self
            .peak_mib
            .map_or_else(String::new, |mib| format!("{mib:.0}"));
        let rows = [
            ("model", self.model.to_owned()),
            ("threads", self.threads.to_string()),
            ("a batch, ms (median)", format!("{:.3}", self.ms_per_step)),
            ("samples a second", format!("{:.0}", self.samples_per_s)),
            ("parameters", self.params.to_string()),
            ("peak of memory, MiB", peak),
        ];
        let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
        table(&["measured", "value"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::TrainedModel;

    #[test]
    fn batches_are_timed() {
        for (model, params) in [(TrainedModel::Mlp, 669_706), (TrainedModel::Gpt, 825_153)] {
            let args = BenchInferLocalArgs {
                model,
                threads: 1,
                steps: 3,
            };
            let report = measure(args).unwrap();
            assert_eq!((report.params, report.steps), (params, 3));
            assert!(report.ms_per_step > 0.0 && report.samples_per_s.is_finite());
        }
    }
}
