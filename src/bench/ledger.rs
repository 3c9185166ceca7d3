//! `bench ledger`: signed, verified, durable transactions a second, and how soon each is answered.
//!
//! Payments first, for the time asked for; then holds, opened and settled, for as long. With `--recover N` there
//! are N payments in place of both, and then the coordinator is killed and started again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use cryptomind_sdk::Client;
use serde::Serialize;

use super::coordinator::Coordinator;
use super::disk;
use super::escrow::Market;
use super::load::{Acknowledged, Crew, Done, Gate, Work};
use super::recovery;
use crate::cli::bench::BenchLedgerArgs;
use crate::dev::fresh_dir;
use crate::exit;
use crate::output::{Output, table};

/// How often a running load says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What was measured; one JSON object.
#[derive(Debug, Serialize)]
struct Report {
    clients: u32,
    /// Payments a second, over all clients.
    tx_per_s: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// The coordinator's syncs a second while payments were made.
    fsyncs_per_s: f64,
    /// Its syncs a payment.
    fsyncs_per_transaction: f64,
    /// Holds opened and settled a second, over all clients; not measured with `--recover`.
    escrow_pairs_per_s: Option<f64>,
    /// What this disk can do without group commit: one written block and one sync after the other.
    raw_fdatasync_per_s: f64,
    /// What is left of `p50_ms` without two such syncs.
    p50_over_fdatasync_ms: Option<f64>,
    /// Transactions in the ledger: all that were acknowledged, preparations included.
    transactions: u64,
    /// Of the state's file.
    bytes_per_transaction: f64,
    /// From the kill until the first answer; with `--recover` alone.
    recover_s: Option<f64>,
    /// The folder of the coordinator's data.
    dir: PathBuf,
}

/// Runs the benchmark in a fresh folder; no process is left, however it ends.
pub async fn run(output: Output, args: BenchLedgerArgs) -> Result<()> {
    let dir = folder(args.dir.as_deref())?;
    let measured = tokio::select! {
        measured = measure(output, &args, dir) => measured?,
        _ = tokio::signal::ctrl_c() => return Err(exit::interrupted("interrupted").into()),
    };
    output.value(&measured, || measured.table())?;
    Ok(())
}

/// The folder to work in: on a disk, and empty, since what is counted must be all that is there.
pub(super) fn folder(wished: Option<&Path>) -> Result<PathBuf, ErrorBody> {
    let dir = match wished {
        Some(dir) => std::path::absolute(dir).map_err(|e| exit::file(dir, &e))?,
        None => fresh_dir("bench")?,
    };
    std::fs::create_dir_all(&dir).map_err(|e| exit::file(&dir, &e))?;
    disk::refuse_memory(&dir)?;
    let mut entries = std::fs::read_dir(&dir).map_err(|e| exit::file(&dir, &e))?;
    if entries.next().is_some() {
        let message = format!("{} is not empty", dir.display());
        return Err(ErrorBody::user("folder_not_empty", message)
            .with_help("name a folder that is empty or not there, or leave --dir out"));
    }
    Ok(dir)
}

async fn measure(output: Output, args: &BenchLedgerArgs, dir: PathBuf) -> Result<Report> {
    let on_disk = dir.clone();
    let raw = tokio::task::spawn_blocking(move || disk::raw_fdatasync_per_s(&on_disk)).await??;
    output.note(format!("the disk syncs {raw:.0} times a second"))?;
    let mut coordinator = Coordinator::start(&dir).await?;
    let acknowledged = Acknowledged::default();
    let crew = Crew::hire(&coordinator.address, args.clients, &acknowledged).await?;
    let (paid, fsyncs) = pay(output, args, &crew, &acknowledged).await?;
    let (escrow, recover) = match args.recover {
        Some(_) => (None, Some(recovery::measure(&mut coordinator).await?)),
        None => (
            Some(hold(output, args, &crew, &coordinator, &acknowledged).await?),
            None,
        ),
    };
    crew.close().await;
    let state_file = coordinator.state_file();
    coordinator.stop().await;
    let (transactions, p50_ms) = (acknowledged.count(), paid.latencies.percentile_ms(50));
    Ok(Report {
        clients: args.clients,
        tx_per_s: paid.per_s,
        p50_ms,
        p99_ms: paid.latencies.percentile_ms(99),
        fsyncs_per_s: fsyncs * paid.per_s,
        fsyncs_per_transaction: fsyncs,
        escrow_pairs_per_s: escrow.map(|done| done.per_s),
        raw_fdatasync_per_s: raw,
        p50_over_fdatasync_ms: p50_ms.map(|p50| p50 - 2.0 * 1000.0 / raw),
        transactions,
        bytes_per_transaction: disk::bytes_on_disk(&state_file)? as f64 / transactions as f64,
        recover_s: recover.map(|took| took.as_secs_f64()),
        dir,
    })
}

/// Payments, and the coordinator's syncs for each.
async fn pay(
    output: Output,
    args: &BenchLedgerArgs,
    crew: &Crew,
    acknowledged: &Acknowledged,
) -> Result<(Done, f64), ErrorBody> {
    let gate = match args.recover {
        Some(count) => Gate::for_requests(count),
        None => Gate::for_time(Duration::from_secs(args.seconds)),
    };
    let (asked, count) = (crew.first()?, acknowledged.count());
    let before = syncs(asked).await?;
    let paid = tell(
        output,
        "payments",
        acknowledged,
        crew.work(Work::Send, gate),
    )
    .await?;
    let after = syncs(asked).await?;
    let payments = (acknowledged.count() - count) as f64;
    Ok((paid, (after - before) as f64 / payments))
}

/// Holds, opened and settled.
async fn hold(
    output: Output,
    args: &BenchLedgerArgs,
    crew: &Crew,
    coordinator: &Coordinator,
    acknowledged: &Acknowledged,
) -> Result<Done, ErrorBody> {
    let market = Market::open(&coordinator.address, crew.first()?, acknowledged).await?;
    let gate = Gate::for_time(Duration::from_secs(args.seconds));
    let work = Work::Escrow(market.spec.clone());
    tell(
        output,
        "holds, two transactions each",
        acknowledged,
        crew.work(work, gate),
    )
    .await
}

/// How often the coordinator has synced its state so far.
async fn syncs(asked: &Client) -> Result<u64, ErrorBody> {
    asked.ledger().await.map(|status| status.syncs)
}

/// Runs a load and tells each second how far it is.
async fn tell(
    output: Output,
    what: &str,
    acknowledged: &Acknowledged,
    load: impl Future<Output = Result<Done, ErrorBody>>,
) -> Result<Done, ErrorBody> {
    output
        .note(format!("{what} …"))
        .map_err(ErrorBody::internal)?;
    tokio::select! {
        done = load => done,
        never = progress(output, acknowledged) => Err(ErrorBody::internal(never)),
    }
}

/// Ends only where nothing can be said any more.
async fn progress(output: Output, acknowledged: &Acknowledged) -> std::io::Error {
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    ticks.tick().await;
    let mut before = acknowledged.count();
    loop {
        ticks.tick().await;
        let now = acknowledged.count();
        if let Err(error) = output.note(format!("  {:>7} transactions a second", now - before)) {
            return error;
        }
        before = now;
    }
}

impl Report {
    fn table(&self) -> String {
        let whole = |value: f64| format!("{value:.0}");
        let exact = |value: f64| format!("{value:.3}");
        let or_not = |value: Option<f64>, shown: fn(f64) -> String| value.map_or("–".into(), shown);
        let rows = [
            ("payments a second", whole(self.tx_per_s)),
            ("half are answered within, ms", or_not(self.p50_ms, exact)),
            ("99 of 100 within, ms", or_not(self.p99_ms, exact)),
            (
                "half, less two syncs of the disk, ms",
                or_not(self.p50_over_fdatasync_ms, exact),
            ),
            (
                "holds opened and settled a second",
                or_not(self.escrow_pairs_per_s, whole),
            ),
            ("syncs a second", whole(self.fsyncs_per_s)),
            ("syncs a payment", exact(self.fsyncs_per_transaction)),
            (
                "syncs a second, the disk alone",
                whole(self.raw_fdatasync_per_s),
            ),
            ("transactions in the ledger", self.transactions.to_string()),
            ("bytes on disk each", whole(self.bytes_per_transaction)),
            (
                "serves again after a kill, s",
                or_not(self.recover_s, exact),
            ),
        ];
        let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
        let rows = table(&["measured", "value"], rows);
        format!("{rows}\n\nThe ledger lies in {}", self.dir.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_past_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let new = dir.path().join("new");
        assert_eq!(folder(Some(&new)).unwrap(), new);
        assert_eq!(
            folder(Some(dir.path())).unwrap_err().code,
            "folder_not_empty"
        );
    }
}
