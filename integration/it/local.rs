//! Training without a network: what a run leaves, goes on from, and refuses.

use std::path::Path;
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::nodes::within;
use crate::processes::{TURN, cryptomind};

/// Long enough that none ends between its first line of progress and a signal; four an epoch.
const STEPS: u64 = 400_000;

/// A folder with a table that two lines divide into classes, as moved by `shift`.
fn folder(shift: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: u32| {
        let (x, y) = ((i * 37 + shift) % 101, (i * 53) % 97);
        format!("{x},{y},{}\n", if x > y { "over" } else { "under" })
    };
    let rows: String = (0..40).map(row).collect();
    std::fs::write(folder.path().join("table.csv"), format!("x,y,side\n{rows}")).unwrap();
    task(folder.path(), 7);
    folder
}

fn task(folder: &Path, seed: u64) {
    let text = format!(
        "kind = \"train\"\nname = \"sides\"\ndataset = \"ann/sides\"\n\
         [model]\ninput = [2]\nlayers = [\"linear 4\", \"tanh\", \"linear 2\"]\n\
         [train]\nepochs = {}\nglobal_batch = 8\noptimizer = \"adamw\"\nlr = 0.001\nseed = {seed}\n\
         checkpoint_steps = 100000\n[group]\nminers = 1\n[budget]\nmax_cost = \"0.1 CTM\"\n",
        STEPS / 4
    );
    std::fs::write(folder.join("task.toml"), text).unwrap();
}

fn command(folder: &Path, words: &[&str]) -> tokio::process::Command {
    let mut command = cryptomind(folder);
    command.current_dir(folder);
    let own = "task run-local task.toml --csv table.csv --label side --threads 1 --format json";
    command.args(own.split(' ')).args(words);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn run(folder: &Path, words: &[&str]) -> Output {
    within("a run", command(folder, words).output())
        .await
        .unwrap()
}

fn report(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Refused, and what standard error says.
fn refusal(output: &Output) -> String {
    assert!(!output.status.success());
    assert!(output.stdout.is_empty(), "no half of an answer");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs until a step is done, then has it stopped.
async fn interrupted(folder: &Path) -> Output {
    let mut child = command(folder, &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = within("a line of progress", lines.next_line())
        .await
        .unwrap()
        .unwrap();
    assert!(line.contains(&format!("step 1 of {STEPS}")), "{line}");
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut output = within("the end of a run", child.wait_with_output())
        .await
        .unwrap();
    while let Some(line) = lines.next_line().await.unwrap() {
        output.stderr.extend(line.bytes().chain([b'\n']));
    }
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_interrupted_comes_to_the_same_bits_and_to_nobody_else_s() {
    let _turn = TURN.lock().await;
    let (whole, parted) = (folder(0), folder(0));
    let report_of_whole = report(&run(whole.path(), &[]).await);
    assert_eq!(report_of_whole["steps"], STEPS);
    assert!(report_of_whole["test_accuracy"].as_f64().unwrap() > 0.7);

    let stopped = interrupted(parted.path()).await;
    let said = refusal(&stopped);
    assert!(said.contains("stopped after step"), "{said}");
    assert!(said.contains("the same command goes on"), "{said}");
    let left = parted.path().join("sides");
    assert!(left.join("checkpoint.safetensors").exists());
    assert!(!left.join("model.safetensors").exists());

    // Another seed, other data of the same shape, and other beginnings are other runs.
    task(parted.path(), 8);
    let said = refusal(&run(parted.path(), &[]).await);
    assert!(
        said.contains("of another run") && said.contains("--output"),
        "{said}"
    );
    task(parted.path(), 7);
    let own = std::fs::read(parted.path().join("table.csv")).unwrap();
    let other = std::fs::read(folder(5).path().join("table.csv")).unwrap();
    std::fs::write(parted.path().join("table.csv"), other).unwrap();
    assert!(refusal(&run(parted.path(), &[]).await).contains("of another run"));
    std::fs::write(parted.path().join("table.csv"), own).unwrap();
    let model = whole.path().join("sides/model.safetensors");
    let weights = ["--weights", model.to_str().unwrap()];
    assert!(refusal(&run(parted.path(), &weights).await).contains("of another run"));

    let rest = run(parted.path(), &[]).await;
    assert!(String::from_utf8_lossy(&rest.stderr).contains("going on from"));
    assert_eq!(report(&rest)["steps"], STEPS);
    let bytes = |folder: &Path| std::fs::read(folder.join("sides/model.safetensors")).unwrap();
    assert!(bytes(whole.path()) == bytes(parted.path()), "the same bits");
    assert!(!left.join("checkpoint.safetensors").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_its_place_and_its_cure() {
    let _turn = TURN.lock().await;
    let folder = folder(0);
    let table = folder.path().join("table.csv");
    let good = std::fs::read_to_string(&table).unwrap();
    for (changed, says) in [
        (good.replacen("37,53", "37,", 1), "missing"),
        (good.replacen("37,53", "x,53", 1), "`x` is not a number"),
        (good.replace("under", "over"), "two classes"),
        (",".repeat(5 << 20), "more than 4194304 bytes"),
    ] {
        std::fs::write(&table, changed).unwrap();
        let said = refusal(&run(folder.path(), &[]).await);
        assert!(said.contains(says), "{said}");
    }
    std::fs::write(&table, &good).unwrap();
    let said = refusal(&run(folder.path(), &["--weights", "table.csv"]).await);
    assert!(said.contains("weights:"), "{said}");
    let said = refusal(&run(folder.path(), &["--output", "table.csv"]).await);
    assert!(said.contains("table.csv"), "{said}");
}
