//! `bench promise`: what a miner's self-test promises of training, and what its next tasks reach.
//!
//! A network of processes on the loopback, with one miner that takes its self-test as any does before it joins. Then tasks on
//! real data with steps of several sizes, one after the other. Each is held against what the market makes of the self-test alone,
//! as for a miner that has run nothing yet: the formula is the market's own. All of it is done several times, and the medians
//! count: a machine that is shared is faster or slower from one minute to the next, which no test can foresee.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cryptomind_actors::miner::selftest::kept;
use cryptomind_core::market::speed::{Sort, Speeds, StartTest};
use cryptomind_core::selftest::kept_paces;
use cryptomind_protocol::item::{Access, ItemKind, Manifest};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::selftest::Report as Selftest;
use cryptomind_protocol::speed::RunStatistic;
use cryptomind_protocol::task::{Conditions, Optimizer, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ItemId};
use cryptomind_sdk::Client;
use serde::Serialize;

use crate::cli::bench::BenchPromiseArgs;
use crate::demo::digits;
use crate::dev::fresh_dir;
use crate::exit;
use crate::local_network::{LocalNetwork, MINER_OWNERS, Miners, register_once};
use crate::output::{Output, table};

/// Who posts the tasks.
const PERSON: &str = "bob";
/// By so much a promise may be off, as a part of it.
const MOST_OFF: f64 = 0.2;
/// What a task may take.
const TASK_LIMIT: Duration = Duration::from_secs(300);
/// Hidden layers, samples a step, and epochs, for about a second or two each.
const TASKS: [(&[u32], u32, u32); 4] = [
    (&[64], 32, 1_500),
    (&[256, 256], 128, 120),
    (&[512, 512, 512], 128, 25),
    (&[1024, 1024], 256, 15),
];

/// What was measured; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    /// Threads that computed.
    threads: u32,
    /// How often each task was done, each time after a self-test of its own.
    rounds: u32,
    /// The tasks, by size of their steps: the middle one of their rounds.
    tasks: Vec<Reached>,
    /// The furthest that one of these is off, as a part of what was promised.
    most_off: f64,
    /// The furthest that any was in any round.
    most_off_once: f64,
}

/// A task beside its promise.
#[derive(Debug, Clone, Serialize)]
struct Reached {
    /// Floating-point operations of a step.
    flops_per_step: u64,
    /// Parameters of the model.
    parameters: u64,
    /// 10⁶ operations a second, as the self-test promises.
    promised_mflops: u64,
    /// 10⁶ operations a second, as the coordinator counts them.
    reached_mflops: u64,
    /// The second as a part of the first.
    reached_over_promised: f64,
}

/// Runs the benchmark in a fresh folder; no process is left, however it ends.
pub async fn run(output: Output, args: BenchPromiseArgs) -> Result<()> {
    let dir = match &args.dir {
        Some(dir) => std::path::absolute(dir)?,
        None => fresh_dir("bench")?,
    };
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        output.note(format!(
            "{round} of {}: a coordinator, a storage node and a miner, which tests itself …",
            args.rounds
        ))?;
        let dir = dir.join(round.to_string());
        rounds.push(tokio::select! {
            measured = in_network(&dir, &args) => measured?,
            _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
        });
    }
    let measured = Report::of(rounds);
    output.value(&measured, || measured.table())?;
    if measured.most_off > MOST_OFF {
        let off = measured.most_off * 100.0;
        let message = format!("a task was {off:.0} % off what the self-test promised");
        let error = ErrorBody::user("promise_off", message);
        return Err(error
            .with_help(
                "run it again while nothing else computes on this machine, or with more --rounds",
            )
            .into());
    }
    Ok(())
}

/// What one round measured.
struct Round {
    threads: u32,
    tasks: Vec<Reached>,
}

async fn in_network(dir: &Path, args: &BenchPromiseArgs) -> Result<Round> {
    let listen = (std::net::Ipv4Addr::LOCALHOST, 0).into();
    let miners = Miners {
        count: 1,
        threads: args.threads,
        selftest_s: args.seconds,
    };
    let network = LocalNetwork::with_miners(dir, listen, miners).await?;
    let client = network.client(PERSON).await?;
    register_once(&client, PERSON).await?;
    client.faucet().await?;
    let measured = measure(&client, dir).await;
    client.close().await;
    network.shutdown().await;
    measured
}

async fn measure(client: &Client, dir: &Path) -> Result<Round> {
    let file: PathBuf = dir.join(format!("miner-{}/selftest.json", MINER_OWNERS[0]));
    let lacks = || ErrorBody::internal(format!("no self-test in {}", file.display()));
    let selftest = kept(&file).ok_or_else(lacks)?;
    let dataset = publish(client, dir).await?;
    let mut tasks = Vec::new();
    for size in TASKS {
        let run = trained(client, dataset, size).await?;
        tasks.push(held_against(&selftest, &run)?);
    }
    Ok(Round {
        threads: selftest.machine.threads,
        tasks,
    })
}

async fn publish(client: &Client, dir: &Path) -> Result<ItemId, ErrorBody> {
    let (info, paths) = digits::write(dir)?;
    let named = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default();
        (name.to_string_lossy().into_owned(), path)
    };
    let files = paths.into_iter().map(named).collect();
    let stored = client.upload(files, &mut |_| {}).await?;
    let (files, receipts) = stored.into_iter().unzip();
    let manifest = Manifest {
        name: "digits".into(),
        kind: ItemKind::Dataset(info),
        files,
        access: Access::Free,
        licence: cryptomind_gpu::digits::LICENCE.into(),
        source: cryptomind_gpu::digits::SOURCE.into(),
    };
    client.publish(manifest, receipts).await
}

/// Has a task of a size done, and gives what its miner achieved.
async fn trained(
    client: &Client,
    dataset: ItemId,
    size: (&[u32], u32, u32),
) -> Result<RunStatistic> {
    let mut spec = training(dataset, size);
    let quote = client.quote(&spec).await?;
    // Prices may rise until it is posted; the rest comes back.
    spec.max_cost = quote
        .cost_high
        .mul_div_ceil(2, 1)
        .unwrap_or(quote.cost_high);
    let (task, _) = client.post(spec).await?;
    let ended = client.wait(task, TASK_LIMIT).await?;
    exit::of_task(ended.state, &ended.reason)?;
    let runs = client.runs(None, None).await?;
    let run = runs.into_iter().find(|run| run.task == task);
    Ok(run.ok_or_else(|| ErrorBody::internal("a finished task without a run"))?)
}

fn training(dataset: ItemId, (hidden, batch, epochs): (&[u32], u32, u32)) -> TaskSpec {
    let between = |out: &u32| [Layer::linear(*out), Layer::Relu {}];
    let mut layers: Vec<Layer> = hidden.iter().flat_map(between).collect();
    layers.push(Layer::linear(10));
    let model = ModelSpec {
        input: vec![8, 8],
        layers,
        loss: Loss::default(),
    };
    let train = TrainSpec {
        epochs,
        global_batch: batch,
        optimizer: Optimizer::adamw(1e-3),
        seed: 1,
        checkpoint_steps: 1_000_000,
        ..TrainSpec::default()
    };
    TaskSpec {
        name: "promise".into(),
        work: Work::Train {
            dataset,
            model,
            train,
        },
        miners: 1,
        max_cost: Amount::from_base_units(1),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

/// A run beside what the market takes the self-test to promise for its steps.
fn held_against(selftest: &Selftest, run: &RunStatistic) -> Result<Reached, ErrorBody> {
    let lacks = || ErrorBody::internal("a run that took no time");
    let mut speeds = Speeds::default();
    let test = StartTest::from(selftest.work.mflops().saturating_mul(1_000_000));
    let test = test.with_paces(&kept_paces(&selftest.work));
    speeds.started(run.node, AccountId::new([0; AccountId::LEN]), test);
    let sort = Sort {
        kind: run.kind,
        engine: run.engine,
        step: run.step,
    };
    let promised = speeds
        .predict(run.node, sort)
        .ok_or_else(lacks)?
        .flops_per_s
        / 1e6;
    let reached = run.mflops().ok_or_else(lacks)?;
    Ok(Reached {
        flops_per_step: run.step.flops,
        parameters: run.step.parameters,
        promised_mflops: promised as u64,
        reached_mflops: reached,
        reached_over_promised: reached as f64 / promised,
    })
}

impl Reached {
    fn off(&self) -> f64 {
        (self.reached_over_promised - 1.0).abs()
    }
}

fn most_off<'a>(tasks: impl Iterator<Item = &'a Reached>) -> f64 {
    tasks.map(Reached::off).fold(0.0, f64::max)
}

impl Report {
    fn of(rounds: Vec<Round>) -> Self {
        let of_size = |size: usize| {
            let of_rounds = rounds.iter().filter_map(|round| round.tasks.get(size));
            let mut tasks: Vec<&Reached> = of_rounds.collect();
            tasks.sort_by(|a, b| a.reached_over_promised.total_cmp(&b.reached_over_promised));
            tasks.get(tasks.len() / 2).copied().cloned()
        };
        let tasks: Vec<Reached> = (0..TASKS.len()).filter_map(of_size).collect();
        Self {
            threads: rounds.first().map_or(0, |round| round.threads),
            rounds: rounds.len() as u32,
            most_off: most_off(tasks.iter()),
            most_off_once: most_off(rounds.iter().flat_map(|round| &round.tasks)),
            tasks,
        }
    }

    fn table(&self) -> String {
        let rows = self.tasks.iter().map(|task| {
            vec![
                format!("{:.1}M", task.flops_per_step as f64 / 1e6),
                task.parameters.to_string(),
                format!("{:.1}", task.promised_mflops as f64 / 1e3),
                format!("{:.1}", task.reached_mflops as f64 / 1e3),
                format!("{:.2}", task.reached_over_promised),
            ]
        });
        let header = [
            "operations a step",
            "parameters",
            "promised, GFLOP/s",
            "reached, GFLOP/s",
            "reached ÷ promised",
        ];
        table(&header, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_rounds_counts_for_each_size() {
        let round = |ratios: [f64; 4]| Round {
            threads: 2,
            tasks: ratios
                .map(|ratio| Reached {
                    flops_per_step: 1,
                    parameters: 1,
                    promised_mflops: 1_000,
                    reached_mflops: (ratio * 1_000.0) as u64,
                    reached_over_promised: ratio,
                })
                .to_vec(),
        };
        let report = Report::of(vec![
            round([0.5, 1.0, 0.9, 1.5]),
            round([0.9, 1.1, 0.9, 1.0]),
            round([1.0, 3.0, 0.8, 0.9]),
        ]);
        let middle: Vec<f64> = report
            .tasks
            .iter()
            .map(|t| t.reached_over_promised)
            .collect();
        assert_eq!(middle, [0.9, 1.1, 0.9, 1.0]);
        assert!((report.most_off - 0.1).abs() < 1e-9 && report.most_off_once == 2.0);
        assert_eq!((report.threads, report.rounds), (2, 3));
    }
}
