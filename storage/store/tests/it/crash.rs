//! A process is killed with SIGKILL while it writes; what it acknowledged is there afterwards.
//!
//! The test binary runs itself again: a child is the test named below with [`FOLDER`] set, and does
//! nothing without it. It writes a line to stderr for each number that was acknowledged to it. The
//! parent kills it after some of these lines: the child is somewhere in a later write by then.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cryptomind_blob::CHUNK_BYTES;
use cryptomind_protocol::BlobId;
use cryptomind_storage::blobs::BlobStore;
use cryptomind_storage::state::{Batch, OnFailure, Record, StateStore};
use serde::{Deserialize, Serialize};

use crate::backend::{Fault, PlannedBackend};
use crate::blobs::{pattern, read, store};

const FOLDER: &str = "CRYPTOMIND_TEST_CRASH_FOLDER";
const FIRST: &str = "CRYPTOMIND_TEST_CRASH_FIRST";
const ACKNOWLEDGED: &str = "acknowledged ";
const ROUNDS: u64 = 8;

/// Runs the test `name` of this binary as a child from number `first` on.
fn start_child(name: &str, folder: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Kills such a child after `lines` acknowledgements and returns the last number that it
/// acknowledged.
fn kill_child(name: &str, folder: &Path, first: u64, lines: usize) -> u64 {
    let mut child = start_child(name, folder, first);
    let mut output = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut acknowledged = (&mut output)
        .map(Result::unwrap)
        .filter_map(|line| line.strip_prefix(ACKNOWLEDGED)?.parse::<u64>().ok());
    let seen = acknowledged.by_ref().take(lines).collect::<Vec<_>>();
    child.kill().unwrap();
    assert_eq!(seen.len(), lines, "the child ended by itself");
    // What it wrote before it died counts as well; a line cut short was not acknowledged.
    let last = acknowledged.last().or(seen.last().copied()).unwrap();
    child.wait().unwrap();
    last
}

/// Where the child works and from which number on; `None` when this is no child.
fn child() -> Option<(PathBuf, u64)> {
    let folder = std::env::var_os(FOLDER)?;
    let first = std::env::var(FIRST).unwrap().parse().unwrap();
    Some((folder.into(), first))
}

#[derive(Debug, Serialize, Deserialize)]
struct Debit(u64, String);

impl Record for Debit {
    const TABLE: &'static str = "debits/1";
    fn key(&self) -> Vec<u8> {
        self.0.to_be_bytes().into()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Credit(u64, String);

impl Record for Credit {
    const TABLE: &'static str = "credits/1";
    fn key(&self) -> Vec<u8> {
        self.0.to_be_bytes().into()
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Sum(u64);

impl Record for Sum {
    const TABLE: &'static str = "sum/1";
    fn key(&self) -> Vec<u8> {
        b"sum".into()
    }
}

/// One decision: it touches three tables, and enough pages that a torn one would show.
fn decision(number: u64) -> Batch {
    let text = format!("{number} ").repeat(number as usize % 300);
    let mut batch = Batch::new();
    batch.put(&Debit(number, text.clone()));
    batch.put(&Credit(number, text));
    batch.put(&Sum(number));
    batch
}

#[test]
fn child_that_commits() {
    let Some((folder, first)) = child() else {
        return;
    };
    let store = StateStore::open(&folder.join("state.redb")).unwrap();
    for start in (first..).step_by(4) {
        // Four at a time, so that groups are committed as well.
        let commits = (start..start + 4).map(|number| (number, store.commit(decision(number))));
        for (number, commit) in commits.collect::<Vec<_>>() {
            commit.wait().unwrap();
            eprintln!("{ACKNOWLEDGED}{number}");
        }
    }
}

#[test]
fn records_survive_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = 0;
    for round in 0..ROUNDS {
        let lines = 1 + (round * 13 % 30) as usize;
        let last = kill_child("crash::child_that_commits", folder.path(), first, lines);
        let store = StateStore::open(&folder.path().join("state.redb")).unwrap();
        let debits = store.load::<Debit>().unwrap();
        let credits = store.load::<Credit>().unwrap();
        let count = debits.len() as u64;
        assert!(count > last, "{last} was acknowledged, {count} are there");
        // All from the first on without a gap, and each decision whole.
        for ((debit, credit), number) in debits.iter().zip(&credits).zip(0..) {
            assert_eq!((debit.0, credit.0), (number, number));
            assert_eq!(debit.1, credit.1);
        }
        assert_eq!(credits.len(), debits.len());
        let sum = store.get::<Sum>(b"sum").unwrap().unwrap();
        assert_eq!(sum.0 + 1, count);
        first = count;
    }
}

/// Sizes on both sides of a chunk, and some of several chunks.
fn blob(number: u64) -> Vec<u8> {
    pattern(number, (number as usize * 50_021) % (5 * CHUNK_BYTES))
}

#[test]
fn child_that_stores_blobs() {
    let Some((folder, first)) = child() else {
        return;
    };
    let blobs = BlobStore::open(&folder, u64::MAX).unwrap();
    for number in first.. {
        store(&blobs, &blob(number));
        eprintln!("{ACKNOWLEDGED}{number}");
    }
}

#[test]
fn blobs_survive_a_killed_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = 0;
    for round in 0..ROUNDS {
        let lines = 1 + (round * 7 % 15) as usize;
        let name = "crash::child_that_stores_blobs";
        let last = kill_child(name, folder.path(), first, lines);
        let store = BlobStore::open(folder.path(), u64::MAX).unwrap();
        for number in 0..=last {
            let data = blob(number);
            let found = read(&store, &BlobId::of_bytes(&data));
            assert_eq!(found, Some(data), "blob {number} of {last}");
        }
        // The next one was under way: it is there whole, or can be written.
        let next = read(&store, &BlobId::of_bytes(&blob(last + 1)));
        assert!(store.count() as u64 == last + 1 + u64::from(next.is_some()));
        let used = (0..=last).map(|number| blob(number).len() as u64);
        let used = used.sum::<u64>() + next.map_or(0, |data| data.len() as u64);
        assert_eq!(store.used_bytes(), used);
        first = last + 1;
    }
}

#[test]
fn child_whose_disk_fails() {
    let Some((_, first)) = child() else {
        return;
    };
    let (backend, plan) = PlannedBackend::new();
    let store = StateStore::with_backend(backend, OnFailure::abort()).unwrap();
    let fault = [Fault::Error, Fault::Panic][first as usize];
    plan.break_down(fault);
    let result = store.commit(decision(0)).wait();
    eprintln!("{ACKNOWLEDGED}0: {result:?}");
}

#[test]
fn a_disk_that_fails_ends_the_process_before_anyone_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    for fault in 0..2 {
        let child = start_child("crash::child_whose_disk_fails", folder.path(), fault);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), None, "ended by a signal");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains(ACKNOWLEDGED), "{text}");
    }
}
