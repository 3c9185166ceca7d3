//! The benchmarks measure the real thing: what that of the ledger counts is what the chain holds, and calls are calls.

use std::path::Path;

use serde_json::Value;

use crate::nodes::within;
use crate::processes::{TURN, cryptomind, text};

async fn json(home: &Path, words: &[&str]) -> Value {
    let mut command = cryptomind(home);
    command.args(words).args(["--format", "json"]);
    let output = within(words[1], command.output()).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = std::str::from_utf8(&output.stdout).unwrap();
    assert_eq!(said.lines().count(), 1, "one object: {said}");
    serde_json::from_str(said).unwrap()
}

/// On the disk of the build: the benchmark refuses folders in memory.
fn home() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_holds_what_the_benchmark_counts() {
    let _turn = TURN.lock().await;
    let home = home();
    let words = ["bench", "ledger", "--seconds", "1", "--clients", "3"];
    let measured = json(home.path(), &words).await;
    for name in [
        "tx_per_s",
        "p50_ms",
        "p99_ms",
        "fsyncs_per_s",
        "escrow_pairs_per_s",
        "raw_fdatasync_per_s",
        "bytes_per_transaction",
    ] {
        assert!(measured[name].as_f64().unwrap() > 0.0, "{name}: {measured}");
    }
    let dir = measured["dir"].as_str().unwrap();
    let kept = json(home.path(), &["ledger", "verify", "--dir", dir]).await;
    assert_eq!(kept["transactions"], measured["transactions"], "{kept}");
    assert_eq!(
        kept["open_holds"], 0,
        "every hold that was opened is settled"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_that_was_killed_holds_every_payment() {
    let _turn = TURN.lock().await;
    let home = home();
    let words = ["bench", "ledger", "--recover", "200", "--clients", "2"];
    let measured = json(home.path(), &words).await;
    assert!(measured["recover_s"].as_f64().unwrap() > 0.0, "{measured}");
    assert_eq!(measured["escrow_pairs_per_s"], Value::Null);
    assert_eq!(measured["transactions"], 200 + 2, "and one faucet a client");
    let dir = measured["dir"].as_str().unwrap();
    let kept = json(home.path(), &["ledger", "verify", "--dir", dir]).await;
    assert_eq!(kept["transactions"], measured["transactions"], "{kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_benchmark_of_inference_measures_real_calls() {
    let _turn = TURN.lock().await;
    let home = home();
    let measured = json(home.path(), &["bench", "infer", "--calls", "50"]).await;
    for name in [
        "forward_ms",
        "warm_ms_p50",
        "warm_ms_p99",
        "cold_ms",
        "calls_per_s",
    ] {
        assert!(measured[name].as_f64().unwrap() > 0.0, "{name}: {measured}");
    }
    assert!(measured["cold"]["queue_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(measured["calls"], 50);
}
