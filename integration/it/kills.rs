//! A coordinator is killed again and again under load: the short run. The long one is `cryptomind bench kills`.

use serde_json::Value;

use crate::nodes::within;
use crate::processes::{TURN, cryptomind, text};

/// Before each of five kills there are as many answers as clients, eight; few of them are refusals.
const LEAST_ACKNOWLEDGED: u64 = 5 * 8 / 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_under_load_survives_kills_to_the_last_token() {
    let _turn = TURN.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let mut bench = cryptomind(dir.path());
    bench
        .args(["bench", "kills", "--kills", "5", "--clients", "8"])
        .args(["--seed", "1", "--format", "json", "--dir"])
        .arg(dir.path().join("coordinator"));
    let output = within("five kills", bench.output()).await.unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |name: &str| {
        result[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {result}"))
    };
    assert_eq!((number("kills"), number("seed")), (5, 1), "{result}");
    assert_eq!((number("lost"), number("doubled")), (0, 0), "{result}");
    assert_eq!(result["tokens_difference"], 0, "{result}");
    assert!(number("acknowledged") >= LEAST_ACKNOWLEDGED, "{result}");
    assert!(number("resent") >= 5, "{result}");
    let parts = number("acknowledged") + number("refused");
    assert_eq!(number("transactions"), parts, "all are answered: {result}");
    let ms = ["recover_p50_ms", "recover_p95_ms", "recover_max_ms"];
    let ms = ms.map(|name| result[name].as_f64().unwrap());
    assert!(ms.is_sorted() && ms[0] > 0.0 && ms[2] <= 5000.0, "{result}");
}
