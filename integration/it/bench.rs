//! The benchmarks measure the real thing: what they count is what the chain holds and the coordinator says, and calls are calls.

use std::path::Path;

use serde_json::Value;

use crate::nodes::within;
use crate::processes::{TURN, cryptomind, text};

async fn json(home: &Path, words: &[&str]) -> Value {
    let mut objects = lines(home, words).await;
    assert_eq!(objects.len(), 1, "one object: {objects:?}");
    objects.remove(0)
}

/// What a command says, an object a line.
async fn lines(home: &Path, words: &[&str]) -> Vec<Value> {
    let mut command = cryptomind(home);
    command.args(words).args(["--format", "json"]);
    let output = within(words[1], command.output()).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = std::str::from_utf8(&output.stdout).unwrap();
    said.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
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

/// A small crowd: what the benchmark counts is what the coordinator and the chain say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_of_miners_and_posts_is_what_the_coordinator_saw() {
    let _turn = TURN.lock().await;
    let home = home();
    let words = [
        "bench",
        "market",
        "--miners",
        "50",
        "--rounds",
        "3",
        "--connections",
        "200",
        "--posts",
        "20",
        "--seconds",
        "2",
        "--restart",
    ];
    let measured = json(home.path(), &words).await;
    for name in [
        "match_cold_ms",
        "match_warm_ms",
        "posts_per_s",
        "p99_ms",
        "start_p99_ms",
        "peak_mib",
        "back_s",
    ] {
        assert!(measured[name].as_f64().unwrap() > 0.0, "{name}: {measured}");
    }
    assert_eq!(measured["posts"], 20 * 2, "the schedule, and nothing less");
    assert_eq!(measured["taken"], measured["posts"], "{measured}");
    assert_eq!(measured["seen_miners"], 200, "{measured}");
    assert_eq!(measured["seen_open_tasks"], 0, "every task was cancelled");
    for name in ["failed_calls", "lost_connections"] {
        assert_eq!(measured[name], 0, "{name}: {measured}");
    }
    let by_call = measured["by_call"].as_object().unwrap();
    let count = |call: &str| by_call[call]["count"].as_u64().unwrap();
    assert_eq!([count("post"), count("get"), count("cancel")], [40; 3]);
    assert_eq!(count("ready"), 40, "one miner a task: {measured}");
    assert!(count("offer") >= 40, "{measured}");
    // Each miner says every 10 s that it is there, give or take.
    assert!((20..=90).contains(&count("heartbeat")), "{measured}");
    let sum: u64 = by_call.values().map(|c| c["count"].as_u64().unwrap()).sum();
    assert_eq!(measured["calls"], sum);
    let dir = measured["dir"].as_str().unwrap();
    let kept = json(home.path(), &["ledger", "verify", "--dir", dir]).await;
    assert_eq!(kept["transactions"], measured["transactions"], "{kept}");
    assert_eq!(kept["open_holds"], 0, "every hold was settled");
}

/// A pair where there are two cores; members that end with different states are an error.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_and_one_alone_are_timed_and_agree() {
    let _turn = TURN.lock().await;
    let home = home();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let worlds = if cores > 1 { "1,2" } else { "1" };
    let words = "bench scale --wire int8 --steps 2 --runs 1 --worlds";
    let words: Vec<&str> = words.split(' ').chain([worlds]).collect();
    let measured = lines(home.path(), &words).await;
    let sizes: Vec<String> = measured.iter().map(|of| of["world"].to_string()).collect();
    assert_eq!(sizes.join(","), worlds);
    for of in &measured {
        for name in ["ms_per_step", "compute_ms", "speedup", "samples_per_s"] {
            assert!(of[name].as_f64().unwrap() > 0.0, "{name}: {of}");
        }
        let waits = of["ring_share"].as_f64().unwrap();
        assert!((0.0..1.0).contains(&waits), "{of}");
        assert_eq!((&of["wire"], &of["steps"]), (&"int8".into(), &2.into()));
    }
    assert_eq!(measured[0]["speedup"], 1.0);
}
