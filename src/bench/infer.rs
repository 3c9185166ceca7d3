//! `bench infer`: what a call to a model on a miner takes, and what of it the forward pass itself.
//!
//! A whole network of processes, on the loopback; the network of the demo's size, published with its first weights; a session
//! with one miner that has never had it. The baseline is the same forward pass in this process, on the same samples,
//! while the network stands by. The answers of both are held against each other, and the bill against the calls.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use cryptomind_gpu::dataset::Samples;
use cryptomind_gpu::inference::Model;
use cryptomind_gpu::session::Session as Weights;
use cryptomind_protocol::item::{
    Access, DatasetInfo, ItemKind, ItemView, MODEL_FILE, Manifest, ModelInfo,
};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::task::{Latency, Metrics, Optimizer, TrainSpec};
use cryptomind_protocol::{Amount, ErrorBody};
use cryptomind_sdk::{Client, Session};
use serde::Serialize;

use super::latency::{Latencies, micros};
use crate::cli::bench::BenchInferArgs;
use crate::demo::digits;
use crate::dev::fresh_dir;
use crate::exit;
use crate::local_network::{LocalNetwork, register_once};
use crate::output::{Output, table};

/// Whose model it is.
const PERSON: &str = "bob";
/// Calls before those that count.
const WARM_UP: u32 = 20;
/// How far answers may be apart: the same weights, the same kernels, perhaps other threads.
const TOLERANCE: f32 = 1e-5;

/// What was measured; one JSON object. Times in milliseconds.
#[derive(Debug, Serialize)]
struct Report {
    /// Calls of one sample that were measured, one after the other.
    calls: u32,
    /// Of the model.
    parameters: u64,
    /// The forward pass of one sample in this process: the median.
    forward_ms: Option<f64>,
    /// A call of one sample in an open session.
    warm_ms_p50: Option<f64>,
    warm_ms_p99: Option<f64>,
    /// What a call costs beyond the forward pass, by the medians.
    warm_over_forward_ms: Option<f64>,
    /// Calls a second in one session, one after the other.
    calls_per_s: f64,
    /// From posting the task to the first answer.
    cold_ms: f64,
    /// Where that time went; what is left of it went into telling and dialling.
    cold: Split,
    /// Earned by the miner, for all samples, those before the measured ones included.
    earned: Amount,
}

/// A latency in milliseconds.
#[derive(Debug, Serialize)]
struct Split {
    queue_ms: f64,
    fetch_ms: f64,
    load_ms: f64,
    compute_ms: f64,
    return_ms: f64,
}

impl From<Latency> for Split {
    fn from(latency: Latency) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        Self {
            queue_ms: ms(latency.queue_us),
            fetch_ms: ms(latency.fetch_us),
            load_ms: ms(latency.load_us),
            compute_ms: ms(latency.compute_us),
            return_ms: ms(latency.return_us),
        }
    }
}

/// Runs the benchmark in a fresh folder; no process is left, however it ends.
pub async fn run(output: Output, args: BenchInferArgs) -> Result<()> {
    let dir = match &args.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => fresh_dir("bench")?,
    };
    output.note("starting a coordinator, a storage node and three miners …")?;
    let measured = tokio::select! {
        measured = in_network(&dir, args.calls) => measured?,
        _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
    };
    output.value(&measured, || measured.table())?;
    Ok(())
}

async fn in_network(dir: &Path, calls: u32) -> Result<Report> {
    let listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let network = LocalNetwork::start(dir, listen).await?;
    let client = network.client(PERSON).await?;
    register_once(&client, PERSON).await?;
    client.faucet().await?;
    let measured = measure(&client, dir, calls).await;
    client.close().await;
    network.shutdown().await;
    measured
}

async fn measure(client: &Client, dir: &Path, calls: u32) -> Result<Report> {
    let (info, _) = digits::write(dir)?;
    let data = digits::test_set(dir, &info)?;
    let (spec, weights) = network_of_the_demo()?;
    let item = publish(client, dir, (&spec, &weights), &info).await?;
    let local = Model::load(&spec, &weights).map_err(ErrorBody::internal)?;
    let (forward_ms, expected) = baseline(&local, &data, calls)?;

    let posted = Instant::now();
    let samples_max = calls + WARM_UP + 1;
    let mut session = client.serve(&item, samples_max, None).await?;
    let first = session.call(&sample(&data, 0)?).await?;
    let cold_ms = posted.elapsed().as_secs_f64() * 1e3;
    agree(&first.probabilities, &expected[0])?;
    for n in 0..WARM_UP as usize {
        session.call(&sample(&data, n)?).await?;
    }
    let (warm, per_s) = warm(&mut session, &data, &expected, calls).await?;
    let ended = session.end().await?;
    exit::of_task(ended.state, &ended.reason)?;
    if ended.step != u64::from(samples_max) {
        let message = format!(
            "{samples_max} samples were answered, {} are paid",
            ended.step
        );
        return Err(ErrorBody::internal(message).into());
    }
    let warm_ms_p50 = warm.percentile_ms(50);
    Ok(Report {
        calls,
        parameters: spec.parameter_count(),
        forward_ms,
        warm_ms_p50,
        warm_ms_p99: warm.percentile_ms(99),
        warm_over_forward_ms: warm_ms_p50.zip(forward_ms).map(|(call, pass)| call - pass),
        calls_per_s: per_s,
        cold_ms,
        cold: first.latency.into(),
        earned: ended.earned,
    })
}

/// The MLP 64-64-10 and its first weights.
fn network_of_the_demo() -> Result<(ModelSpec, Vec<u8>), ErrorBody> {
    let spec = ModelSpec {
        input: vec![8, 8],
        layers: vec![Layer::linear(64), Layer::Relu {}, Layer::linear(10)],
        loss: Loss::default(),
    };
    let train = TrainSpec {
        epochs: 1,
        global_batch: 1,
        optimizer: Optimizer::adamw(1e-3),
        seed: 7,
        checkpoint_steps: 1,
        ..TrainSpec::default()
    };
    let weights = Weights::new(&spec, &train).map_err(ErrorBody::internal)?;
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok((spec, weights.export(&metadata)))
}

async fn publish(
    client: &Client,
    dir: &Path,
    (spec, weights): (&ModelSpec, &[u8]),
    info: &DatasetInfo,
) -> Result<ItemView, ErrorBody> {
    let file: PathBuf = dir.join(MODEL_FILE);
    std::fs::write(&file, weights).map_err(|e| exit::file(&file, &e))?;
    let stored = client
        .upload(vec![(MODEL_FILE.to_owned(), file)], &mut |_| {})
        .await?;
    let (files, receipts) = stored.into_iter().unzip();
    let model = ModelInfo {
        spec: spec.clone(),
        classes: info.classes.clone(),
        dataset: None,
        task: None,
        metrics: Metrics::default(),
    };
    let manifest = Manifest {
        name: "digits-mlp".into(),
        kind: ItemKind::Model(model),
        files,
        access: Access::Free,
        licence: "CC0-1.0".into(),
        source: "first weights, for a benchmark".into(),
    };
    let item = client.publish(manifest, receipts).await?;
    client.item_by_id(item).await
}

fn sample(data: &Samples, n: usize) -> Result<Vec<f32>, ErrorBody> {
    let mut inputs = Vec::new();
    data.inputs_of(&[(n % data.len()) as u32], &mut inputs)?;
    Ok(inputs)
}

/// The median of the forward passes of one sample after the other, milliseconds, and the answer to each of the samples.
fn baseline(
    model: &Model,
    data: &Samples,
    calls: u32,
) -> Result<(Option<f64>, Vec<Vec<f32>>), ErrorBody> {
    let (mut took, mut answers) = (Vec::new(), Vec::new());
    for n in 0..(calls as usize).max(data.len()) {
        let at = n % data.len();
        let begin = Instant::now();
        let answer = model
            .probabilities(data, at..at + 1)
            .map_err(ErrorBody::internal)?;
        took.push(begin.elapsed());
        if n < data.len() {
            answers.push(answer);
        }
    }
    // A small model takes less than the microsecond to which calls are kept.
    took.sort_unstable();
    let median = took
        .get(took.len() / 2)
        .map(|took| took.as_secs_f64() * 1e3);
    Ok((median, answers))
}

/// Calls of one sample, one after the other.
async fn warm(
    session: &mut Session,
    data: &Samples,
    expected: &[Vec<f32>],
    calls: u32,
) -> Result<(Latencies, f64)> {
    let (mut took, begin) = (Vec::with_capacity(calls as usize), Instant::now());
    for n in 0..calls as usize {
        let inputs = sample(data, n)?;
        let called = Instant::now();
        let answer = session.call(&inputs).await?;
        took.push(micros(called.elapsed()));
        agree(&answer.probabilities, &expected[n % data.len()])?;
    }
    let per_s = f64::from(calls) / begin.elapsed().as_secs_f64();
    Ok((Latencies::new(took), per_s))
}

fn agree(answer: &[f32], expected: &[f32]) -> Result<(), ErrorBody> {
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= TOLERANCE;
    if answer.len() == expected.len() && answer.iter().zip(expected).all(near) {
        return Ok(());
    }
    let message = format!("the miner answers {answer:?}, this machine {expected:?}");
    Err(ErrorBody::internal(message))
}

impl Report {
    fn table(&self) -> String {
        let shown = |ms: Option<f64>| ms.map_or_else(String::new, |ms| format!("{ms:.3}"));
        let rows = [
            ("calls of one sample", self.calls.to_string()),
            ("forward pass here, ms (median)", shown(self.forward_ms)),
            ("call in a session, ms (median)", shown(self.warm_ms_p50)),
            ("call in a session, ms (p99)", shown(self.warm_ms_p99)),
            (
                "beyond the forward pass, ms",
                shown(self.warm_over_forward_ms),
            ),
            ("calls a second", format!("{:.0}", self.calls_per_s)),
            (
                "posting to first answer, ms",
                format!("{:.1}", self.cold_ms),
            ),
            ("earned", self.earned.to_string()),
        ];
        let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
        table(&["measured", "value"], rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_baseline_answers_every_sample() {
        let dir = tempfile::tempdir().unwrap();
        let (info, _) = digits::write(dir.path()).unwrap();
        let data = digits::test_set(dir.path(), &info).unwrap();
        let (spec, weights) = network_of_the_demo().unwrap();
        let model = Model::load(&spec, &weights).unwrap();
        let (took, answers) = baseline(&model, &data, 10).unwrap();
        assert_eq!(answers.len(), data.len());
        assert!(took.is_some_and(|ms| ms > 0.0));
        agree(&answers[1], &answers[1].clone()).unwrap();
        assert!(agree(&answers[0], &answers[1]).is_err());
        assert_eq!(sample(&data, data.len() + 1), sample(&data, 1));
    }
}
