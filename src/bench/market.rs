//! `bench market`: how long one match takes ([`matching`](super::matching)), and how soon a coordinator with thousands of
//! connected miners answers while tasks are posted.
//!
//! The coordinator is a process of its own, configured so that this machine's address may have as many connections as it
//! likes; this process holds the miners ([`crowd`](super::crowd)) and the clients ([`arrivals`](super::arrivals)). What is timed are
//! the control calls ([`calls`](super::calls)). Both processes share the machine: the figures are what it can do with half of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use cryptomind_sdk::Client;
use serde::Serialize;
use tokio::sync::watch;

use super::arrivals::{Arrived, Clients};
use super::calls::{Call, Calls, Summary, Took};
use super::coordinator::Coordinator;
use super::crowd::Crowd;
use super::escrow::Shelf;
use super::latency::Latencies;
use super::ledger::folder;
use super::load::{Acknowledged, LIMITS};
use super::matching::{self, Matched};
use super::usage::Usage;
use crate::cli::bench::BenchMarketArgs;
use crate::exit;
use crate::output::{Output, table};

/// Clients that post in turn.
const CLIENTS: usize = 16;
/// For all miners to join; and to join again after a restart.
const JOIN_LIMIT: Duration = Duration::from_secs(120);
/// The load runs for so long before it is measured.
const WARM_UP: Duration = Duration::from_secs(3);
/// Connections beyond the miners': clients, owners, the storage node.
const MORE_CONNECTIONS: u32 = 128;
/// How often it is said how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What was measured; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    matched: Matched,
    /// Not measured with `--connections 0`.
    #[serde(flatten)]
    load: Option<Loaded>,
}

/// How the coordinator was under load. Times are from when a call was due.
#[derive(Debug, Serialize)]
struct Loaded {
    connections: u32,
    /// From the first connection until the last miner had joined, delegations included.
    join_s: f64,
    /// Tasks that were posted while it was measured.
    posts: u64,
    /// Of these, those that a miner worked on when their client looked, 250 ms later.
    taken: u64,
    /// Posts a second, until the last of them had ended.
    posts_per_s: f64,
    /// From when a post was due until its miner was told.
    start_p50_ms: Option<f64>,
    start_p99_ms: Option<f64>,
    calls: usize,
    /// Calls that were refused, or not answered.
    failed_calls: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    max_ms: Option<f64>,
    by_call: BTreeMap<Call, Took>,
    /// Connections that were lost before any restart.
    lost_connections: usize,
    /// The coordinator's memory at its peak.
    peak_mib: Option<f64>,
    /// The same of this process, which holds the other ends.
    load_peak_mib: Option<f64>,
    /// Processor time that the coordinator took a second of load.
    coordinator_cores: Option<f64>,
    /// The same of this process.
    load_cores: Option<f64>,
    /// From the kill until all miners were joined again; with `--restart` alone.
    back_s: Option<f64>,
    /// What the coordinator says at the end.
    seen_miners: u32,
    seen_open_tasks: u32,
    /// Transactions in the ledger: all that were acknowledged.
    transactions: u64,
    /// The folder of the coordinator's data.
    dir: PathBuf,
}

/// Runs the benchmark; no process is left, however it ends.
pub async fn run(output: Output, args: BenchMarketArgs) -> Result<()> {
    if args.group > args.miners {
        let message = format!("no group of {} among {} miners", args.group, args.miners);
        let refusal = ErrorBody::user("group_too_large", message);
        return Err(refusal
            .with_help("give --miners at least as many as --group")
            .into());
    }
    let report = tokio::select! {
        report = measure(output, args) => report?,
        _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
    };
    output.value(&report, || report.table())?;
    Ok(())
}

async fn measure(output: Output, args: BenchMarketArgs) -> Result<Report> {
    let for_match = args.clone();
    let matched = tokio::task::spawn_blocking(move || matching::measure(&for_match)).await?;
    let load = match args.connections {
        0 => None,
        _ => Some(Stage::set(output, &args).await?.play(&args).await?),
    };
    Ok(Report { matched, load })
}

/// Everything that a load needs.
struct Stage {
    output: Output,
    coordinator: Coordinator,
    /// Asks, and owns the dataset.
    asker: Client,
    _shelf: Shelf,
    crowd: Crowd,
    clients: Clients,
    calls: Calls,
    acknowledged: Acknowledged,
    join_s: f64,
    dir: PathBuf,
}

/// What both processes had taken at a moment.
struct Taken {
    at: Instant,
    coordinator: Option<Usage>,
    load: Option<Usage>,
}

impl Stage {
    async fn set(output: Output, args: &BenchMarketArgs) -> Result<Self> {
        let dir = folder(args.dir.as_deref())?;
        let most = args.connections + MORE_CONNECTIONS;
        let settings = [
            ("limits.max_connections", most.to_string()),
            ("limits.exempt_addresses", r#"["127.0.0.1"]"#.to_owned()),
        ];
        let coordinator = Coordinator::start_with(&dir, &settings).await?;
        let (address, acknowledged) = (coordinator.address.clone(), Acknowledged::default());
        let calls = Calls::default();
        let key = cryptomind_sdk::new_key()?;
        let asker = Client::connect_within(address.clone(), key, LIMITS).await?;
        asker.faucet().await?;
        acknowledged.one();
        let shelf = Shelf::open(&address, &asker, &acknowledged).await?;
        output.note(format!("{} miners join …", args.connections))?;
        let started = Instant::now();
        let gathering = Crowd::gather(&address, args.connections as usize, &calls, &acknowledged);
        let crowd = gathering.await?;
        tell(output, crowd.joined(), crowd.all_joined(JOIN_LIMIT)).await?;
        let join_s = started.elapsed().as_secs_f64();
        let spec = shelf.spec.clone();
        let clients = Clients::hire(&address, CLIENTS, spec, &calls, &acknowledged).await?;
        Ok(Self {
            output,
            coordinator,
            asker,
            _shelf: shelf,
            clients: clients.noting(crowd.posted()),
            crowd,
            calls,
            acknowledged,
            join_s,
            dir,
        })
    }

    async fn play(mut self, args: &BenchMarketArgs) -> Result<Loaded> {
        let note = format!("{} posts a second for {} s …", args.posts, args.seconds);
        self.output.note(note)?;
        self.clients.post(args.posts, WARM_UP).await?;
        let before = self.taken();
        self.calls.begin();
        self.crowd.posted().begin();
        let duration = Duration::from_secs(args.seconds);
        let arrived = tokio::select! {
            arrived = self.clients.post(args.posts, duration) => arrived?,
            error = self.coordinator.ended() => return Err(error.into()),
        };
        let after = self.taken();
        let mut loaded = self.loaded(args, arrived, &before, &after).await?;
        if args.restart {
            loaded.back_s = Some(self.restart().await?.as_secs_f64());
        }
        self.clients.close().await;
        self.asker.close().await;
        drop(self.crowd);
        self.coordinator.stop().await;
        Ok(loaded)
    }

    fn taken(&self) -> Taken {
        Taken {
            at: Instant::now(),
            coordinator: self.coordinator.process_id().and_then(Usage::of),
            load: Usage::of(std::process::id()),
        }
    }

    async fn loaded(
        &self,
        args: &BenchMarketArgs,
        arrived: Arrived,
        before: &Taken,
        after: &Taken,
    ) -> Result<Loaded> {
        let Summary {
            all,
            by_kind,
            failed,
            first_failure,
        } = self.calls.summary();
        if let Some(failure) = first_failure {
            self.output
                .note(format!("{failed} calls failed: {failure}"))?;
        }
        let starts = Latencies::new(self.crowd.posted().micros());
        let wall = after.at - before.at;
        let cores = |of: fn(&Taken) -> Option<Usage>| {
            let took = of(after)?.cpu.saturating_sub(of(before)?.cpu);
            Some(took.as_secs_f64() / wall.as_secs_f64())
        };
        let status = self.asker.status().await?;
        Ok(Loaded {
            connections: args.connections,
            join_s: self.join_s,
            posts: arrived.posts,
            taken: arrived.taken,
            posts_per_s: arrived.posts as f64 / arrived.took.as_secs_f64(),
            start_p50_ms: starts.percentile_ms(50),
            start_p99_ms: starts.percentile_ms(99),
            calls: all.count,
            failed_calls: failed,
            p50_ms: all.p50_ms,
            p99_ms: all.p99_ms,
            max_ms: all.max_ms,
            by_call: by_kind,
            lost_connections: self.crowd.lost(),
            peak_mib: after.coordinator.map(Usage::peak_mib),
            load_peak_mib: after.load.map(Usage::peak_mib),
            coordinator_cores: cores(|taken| taken.coordinator),
            load_cores: cores(|taken| taken.load),
            back_s: None,
            seen_miners: status.miners,
            seen_open_tasks: status.open_tasks,
            transactions: self.acknowledged.count(),
            dir: self.dir.clone(),
        })
    }

    /// Kills the coordinator and starts it again: from the kill until all miners are back.
    async fn restart(&mut self) -> Result<Duration> {
        self.output
            .note("the coordinator is killed and started again …")?;
        let (killed, before) = (Instant::now(), self.crowd.lost());
        self.coordinator.kill_and_start().await?;
        let back = self
            .crowd
            .all_joined_after(before + self.crowd.count(), JOIN_LIMIT);
        tell(self.output, self.crowd.joined(), back).await?;
        Ok(killed.elapsed())
    }
}

/// Says now and then how many miners are joined, until all are.
async fn tell(
    output: Output,
    joined: watch::Receiver<usize>,
    all: impl Future<Output = Result<(), ErrorBody>>,
) -> Result<()> {
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    tokio::pin!(all);
    loop {
        tokio::select! {
            done = &mut all => return Ok(done?),
            _ = ticks.tick() => {
                let joined = *joined.borrow();
                if joined > 0 {
                    output.note(format!("  {joined} are joined"))?;
                }
            }
        }
    }
}

impl Loaded {
    fn rows(&self) -> Vec<[String; 2]> {
        let exact = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.1}"));
        let rows = [
            ("connected miners", self.connections.to_string()),
            ("until all had joined, s", exact(Some(self.join_s))),
            ("posts a second", exact(Some(self.posts_per_s))),
            ("control calls", self.calls.to_string()),
            ("half are answered within, ms", exact(self.p50_ms)),
            ("99 of 100 within, ms", exact(self.p99_ms)),
            ("the slowest, ms", exact(self.max_ms)),
            (
                "99 of 100 tasks have a miner within, ms",
                exact(self.start_p99_ms),
            ),
            ("calls that failed", self.failed_calls.to_string()),
            ("connections lost", self.lost_connections.to_string()),
            ("the coordinator's peak memory, MiB", exact(self.peak_mib)),
            ("its processor time, cores", exact(self.coordinator_cores)),
            ("the miners' and clients', cores", exact(self.load_cores)),
            ("all back after a kill, s", exact(self.back_s)),
        ];
        rows.map(|(what, value)| [what.to_owned(), value]).into()
    }
}

impl Report {
    fn table(&self) -> String {
        let load = self.load.iter().flat_map(Loaded::rows);
        let rows = self.matched.rows().into_iter().chain(load);
        let rows = table(&["measured", "value"], rows.map(|row| row.to_vec()));
        match &self.load {
            Some(load) => format!("{rows}\n\nThe ledger lies in {}", load.dir.display()),
            None => rows,
        }
    }
}
