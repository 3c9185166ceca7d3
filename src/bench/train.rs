//! `bench train`: what one training step takes in this process, without a network.
//!
//! The shapes are those that PyTorch is commonly timed with: an MLP 784-512-512-10 on batches of 128, AdamW, f32. The values
//! mean nothing, as the time of a step does not depend on them; the loss falls all the same, as the labels can be learnt by heart.

use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_gpu::dataset::Samples;
use cryptomind_gpu::session::Session;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::model::{Layer, ModelSpec};
use cryptomind_protocol::task::{Optimizer, TrainSpec};
use serde::Serialize;

use super::usage::Usage;
use crate::cli::{BenchTrainArgs, TrainedModel};
use crate::exit;
use crate::output::{Output, table};

const CLASSES: u32 = 10;
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
    /// At the median.
    samples_per_s: f64,
    /// Mean over the batch, before the first step and before the last one.
    first_loss: f64,
    last_loss: f64,
    params: usize,
    /// The most memory that this process had resident, MiB; nothing where the system does not say.
    peak_mib: Option<f64>,
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
    let threads = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads.into(),
    };
    let (name, model, batch) = match args.model {
        TrainedModel::Mlp => ("mlp", mlp(), 128),
    };
    let data = samples(&model, batch);
    let rows: Vec<u32> = (0..batch).collect();
    let mut session = Session::with_threads(&model, &settings(batch), threads)?;
    let (mut times, mut losses) = (Vec::new(), Vec::new());
    for step in 0..WARM_UP + args.steps {
        let begin = Instant::now();
        let loss = session.grad_step(&data, &rows, &mut |_| ())?;
        session.apply(batch)?;
        session.commit();
        if step >= WARM_UP {
            times.push(begin.elapsed());
        }
        losses.push(loss / f64::from(batch));
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or(Duration::MAX);
    Ok(Report {
        model: name,
        threads,
        steps: args.steps,
        ms_per_step: median.as_secs_f64() * 1e3,
        samples_per_s: f64::from(batch) / median.as_secs_f64(),
        first_loss: losses.first().copied().unwrap_or_default(),
        last_loss: losses.last().copied().unwrap_or_default(),
        params: session.parameter_count(),
        peak_mib: Usage::of(std::process::id()).map(Usage::peak_mib),
    })
}

fn mlp() -> ModelSpec {
    ModelSpec {
        input: vec![784],
        layers: vec![
            Layer::Linear { out: 512 },
            Layer::Relu {},
            Layer::Linear { out: 512 },
            Layer::Relu {},
            Layer::Linear { out: CLASSES },
        ],
    }
}

fn settings(batch: u32) -> TrainSpec {
    TrainSpec {
        epochs: 1,
        global_batch: batch,
        optimizer: Optimizer::adamw(1e-3),
        seed: 0,
        checkpoint_steps: 1,
    }
}

/// Values from 0 to 1 without a pattern that a batch shares (Knuth's multiplicative hash of their place).
fn samples(model: &ModelSpec, batch: u32) -> Samples {
    let input_len = model.input_len();
    let value = |place: u32| (place.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32;
    let inputs = (0..batch * input_len as u32).map(value).collect();
    let labels = (0..batch).map(|row| row % CLASSES).collect();
    Samples::labelled(inputs, labels, input_len, CLASSES as usize)
}

impl Report {
    fn table(&self) -> String {
        let peak = self
            .peak_mib
            .map_or_else(String::new, |mib| format!("{mib:.0}"));
        let rows = [
            ("model", self.model.to_owned()),
            ("threads", self.threads.to_string()),
            ("a step, ms (median)", format!("{:.3}", self.ms_per_step)),
            ("samples a second", format!("{:.0}", self.samples_per_s)),
            ("first loss", format!("{:.4}", self.first_loss)),
            ("last loss", format!("{:.4}", self.last_loss)),
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

    #[test]
    fn a_step_is_timed_and_learns() {
        let args = BenchTrainArgs {
            model: TrainedModel::Mlp,
            threads: 1,
            steps: 10,
        };
        let report = measure(args).unwrap();
        assert_eq!((report.params, report.steps), (669_706, 10));
        assert!(report.ms_per_step > 0.0 && report.samples_per_s.is_finite());
        // The loss of guessing among ten.
        assert!((report.first_loss - 10f64.ln()).abs() < 0.2, "{report:?}");
        assert!(report.last_loss < report.first_loss, "{report:?}");
    }
}
