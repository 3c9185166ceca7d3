//! The self-test that a miner joins with: kept in its data folder, taken anew where it no longer holds, signed for the
//! network that it joins.
//!
//! It is taken before anything else of the miner runs, so nothing of the miner's own disturbs it. A report that says that
//! this machine computes wrongly is not held back: the coordinator refuses it, and says what to do; the owner's program runs
//! meanwhile.
//!
//! Is not: how it computes (`cryptomind-gpu`), nor what lets a miner in (`cryptomind-core`).

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cryptomind_config::Miner;
use cryptomind_core::selftest::{Present, stale};
use cryptomind_gpu::selftest::{Extent, run};
use cryptomind_gpu::{devices, memory};
use cryptomind_protocol::selftest::{MAX_DEVICES, MAX_TEXT_BYTES, Machine, Report, VERSION, Work};
use cryptomind_protocol::{ErrorBody, NodeId};
use tracing::{info, warn};

use crate::clock;

/// Its name in the miner's data folder.
const FILE: &str = "selftest.json";
/// The release that a report is of.
const RELEASE: &str = env!("CARGO_PKG_VERSION");
/// More than any report, bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Where a miner with these settings keeps its report.
pub fn file(settings: &Miner) -> PathBuf {
    settings.node.data_dir.join(FILE)
}

/// Threads that such a miner computes with.
pub fn threads(settings: &Miner) -> usize {
    match settings.compute.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}

/// What a self-test is made on now.
pub fn machine(threads: usize) -> Machine {
    let mut devices = devices::list();
    devices.truncate(MAX_DEVICES);
    Machine {
        threads: threads as u32,
        memory_bytes: devices.first().map_or(0, |device| device.memory_bytes),
        devices: devices.iter().map(|d| cut(d.to_string())).collect(),
    }
}

/// Memory that a task could have now, bytes; `most` is what the owner allows. Nothing where neither is known.
pub fn free_memory(most: Option<u64>) -> Option<u64> {
    memory::available(most)
}

/// Memory that a self-test fills, bytes: most of what is free, no more than the owner wants to give. The rest is left to whatever
/// else runs.
pub fn fill_bytes(most: Option<u64>) -> u64 {
    let free = free_memory(None).map(|free| free / 5 * 4);
    free.into_iter().chain(most).min().unwrap_or_default()
}

/// No longer than a report's texts may be.
fn cut(mut text: String) -> String {
    while text.len() > MAX_TEXT_BYTES {
        text.pop();
    }
    text
}

/// A challenge that nobody knew before, small enough for JSON of any language.
pub fn challenge() -> Result<u64, ErrorBody> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(ErrorBody::internal)?;
    Ok(u64::from_be_bytes(bytes) >> 11)
}

/// What was done now, on this machine, as a report.
pub fn report(node: NodeId, machine: Machine, work: Work) -> Report {
    Report {
        version: VERSION,
        node,
        made: clock::now(),
        release: RELEASE.to_owned(),
        machine,
        work,
    }
}

/// Writes a report where [`kept`] finds it: whole or not at all.
///
/// # Errors
/// What the disk says.
pub fn keep(file: &Path, report: &Report) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut written = std::fs::File::create(&new)?;
    serde_json::to_writer_pretty(&mut written, report)?;
    written.write_all(b"\n")?;
    written.sync_all()?;
    std::fs::rename(&new, file)
}

/// The report that is kept there. One that cannot be read is as good as none.
pub fn kept(file: &Path) -> Option<Report> {
    let bytes = std::fs::metadata(file).ok()?.len();
    let text = (bytes <= MAX_FILE_BYTES).then(|| std::fs::read(file).ok())??;
    let read = serde_json::from_slice(&text);
    read.inspect_err(|error| warn!("{}: {error}", file.display()))
        .ok()
}

/// How long a report holds, milliseconds.
pub(super) const fn age_limit_ms(settings: &Miner) -> u64 {
    settings.selftest.hours.saturating_mul(3_600_000)
}

/// The kept report where it holds, else one that is taken now and kept.
pub(super) async fn taken(settings: &Miner, node: NodeId) -> Result<Report, ErrorBody> {
    let (file, threads) = (file(settings), threads(settings));
    let endure = Duration::from_secs(settings.selftest.seconds);
    let extent = Extent {
        endure,
        threads,
        memory: fill_bytes(settings.compute.max_memory),
    };
    let present = Present {
        node,
        release: RELEASE.to_owned(),
        machine: machine(threads),
        endure_ms: endure.as_millis() as u64,
        fill_bytes: extent.filled(),
        age_limit_ms: age_limit_ms(settings),
    };
    match kept(&file) {
        None => info!("self-test: this machine has none yet"),
        Some(report) => match stale(&report, &present, clock::now()) {
            None => return Ok(report),
            Some(why) => info!("self-test: taken anew, {why}"),
        },
    }
    let work = compute(extent).await?;
    let report = report(node, present.machine, work);
    if let Err(error) = keep(&file, &report) {
        // It is taken again at the next start: a miner works without.
        warn!("self-test: not kept in {}: {error}", file.display());
    }
    Ok(report)
}

/// Takes it on a thread that may block. Dropped, it ends soon.
async fn compute(extent: Extent) -> Result<Work, ErrorBody> {
    let wanted = Wanted::default();
    let still = Arc::clone(&wanted.0);
    let challenge = challenge()?;
    let computing = tokio::task::spawn_blocking(move || {
        let mut last = "";
        run(challenge, extent, &mut |part, _| {
            if part != last {
                info!("self-test: {part}");
                last = part;
            }
            match still.load(Ordering::Relaxed) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })
    });
    let work = computing.await.map_err(ErrorBody::internal)??;
    if work.is_right() {
        let speed = work.mflops() as f64 / 1e3;
        info!("self-test: this machine computes rightly, and trains at {speed:.1} GFLOP/s");
    } else {
        warn!("self-test: this machine computes WRONGLY; `cryptomind miner selftest` says what");
    }
    Ok(work)
}

/// Whether anybody still waits for it.
struct Wanted(Arc<AtomicBool>);

impl Default for Wanted {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::NodeAddress;

    const NODE: NodeId = NodeId::new([1; 32]);

    fn settings(dir: &Path) -> Miner {
        let coordinator = NodeAddress {
            node: NODE,
            host: "h".into(),
            port: 1,
        };
        let mut settings = Miner::new(coordinator);
        settings.node.data_dir = dir.to_owned();
        settings.compute.threads = 1;
        settings.selftest.seconds = 0;
        settings
    }

    #[tokio::test]
    async fn it_is_taken_once_and_anew_when_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path());
        let first = taken(&settings, NODE).await.unwrap();
        assert!(first.work.is_right() && first.fits());
        assert_eq!(taken(&settings, NODE).await.unwrap(), first);
        settings.compute.threads = 2;
        let second = taken(&settings, NODE).await.unwrap();
        assert_eq!(second.machine.threads, 2);
        assert_ne!(second.work.challenge, first.work.challenge);
        let week = age_limit_ms(&settings);
        let old = Report {
            made: cryptomind_protocol::Timestamp::from_ms(clock::now().as_ms() - week),
            ..second
        };
        keep(&file(&settings), &old).unwrap();
        let third = taken(&settings, NODE).await.unwrap();
        assert!(third.made > old.made);
        assert_eq!(kept(&file(&settings)), Some(third));
    }

    #[tokio::test]
    async fn a_file_that_is_none_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        std::fs::write(file(&settings), "{\"version\": 1, \"node\": 7}").unwrap();
        let report = taken(&settings, NODE).await.unwrap();
        assert_eq!(kept(&file(&settings)), Some(report));
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing half-written stays");
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = "ü".repeat(100);
        let text = cut(long);
        assert_eq!(text.len(), MAX_TEXT_BYTES);
    }
}
