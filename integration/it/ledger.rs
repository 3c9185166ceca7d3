//! The chain from outside, by the commands that people use: payments, their proofs, copies, audits and exports of a
//! coordinator that is a process of its own; and one that was set back to an older state.

use std::path::{Path, PathBuf};

use cryptomind_protocol::money::SUPPLY;
use serde_json::Value;
use tempfile::TempDir;

use crate::nodes::within;
use crate::processes::{Part, TURN, Where, cryptomind, start_coordinator, text};

/// What a command came to.
struct Said {
    code: i32,
    lines: Vec<Value>,
    all: String,
}

impl Said {
    /// The last line of a command that did what it should.
    fn ok(self) -> Value {
        assert_eq!(self.code, 0, "{}", self.all);
        self.lines.into_iter().next_back().unwrap_or_default()
    }

    fn failed(&self, code: i32, word: &str) {
        assert_eq!(self.code, code, "{}", self.all);
        assert!(self.all.contains(word), "no {word}: {}", self.all);
    }
}

/// A coordinator and people with keys.
struct World {
    dir: TempDir,
    coordinator: Part,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let coordinator = start_coordinator(dir.path(), &Where::here()).await;
        let world = Self { dir, coordinator };
        for person in ["ada", "bob"] {
            world.run(&["key", "new", &world.at(person)]).await.ok();
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A command that knows nothing but its words.
    async fn run(&self, words: &[&str]) -> Said {
        let mut command = cryptomind(self.dir.path());
        command.args(words).args(["--format", "json"]);
        let output = within("a command", command.output()).await.unwrap();
        let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
        Said {
            code: output.status.code().unwrap(),
            lines: lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
            all: text(&output),
        }
    }

    /// A command of ada's.
    async fn ada(&self, words: &[&str]) -> Said {
        let (address, key) = (&self.coordinator.said, self.at("ada"));
        let more = ["--coordinator", address.as_str(), "--key", &key];
        self.run(&[words, &more].concat()).await
    }

    async fn account(&self, person: &str) -> String {
        let shown = self.run(&["key", "show", &self.at(person)]).await.ok();
        word(&shown["account"])
    }

    /// Ada sends bob so much. Gives the payment's place in the chain.
    async fn send(&self, amount: &str) -> String {
        let bob = self.account("bob").await;
        let sent = self.ada(&["wallet", "send", &bob, amount]).await.ok();
        word(&sent["receipt"])
    }

    async fn follow(&self, dir: &str) -> Said {
        let (address, dir) = (&self.coordinator.said, self.at(dir));
        let words = ["ledger", "follow", address, "--dir", &dir, "--once"];
        self.run(&words).await
    }

    async fn height(&self) -> u64 {
        let status = self.ada(&["ledger", "status"]).await.ok();
        status["height"].as_u64().unwrap()
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// A payment, from its sending to its proof on another machine; its entry in histories and exports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_is_found_proven_copied_audited_and_exported() {
    let _turn = TURN.lock().await;
    let mut world = World::start().await;
    world.ada(&["wallet", "faucet"]).await.ok();
    let receipt = world.send("1.5").await;

    let page = world.ada(&["wallet", "history", "--limit", "1"]).await.ok();
    assert_eq!(
        (&page["receipt"], &page["reason"]),
        (&receipt.clone().into(), &"send".into())
    );
    let before = ["wallet", "history", "--before", &receipt];
    let earlier = world.ada(&before).await;
    assert_eq!(earlier.lines.len(), 1, "{}", earlier.all);
    assert_eq!(earlier.lines[0]["reason"], "faucet");
    let balance = world.ada(&["wallet", "balance"]).await.ok();
    assert_eq!(balance["available"], 100_000_000_000u64 - 1_500_000_000);
    assert_eq!(
        (&balance["locked"], &balance["unlocks"]),
        (&0.into(), &Value::Null)
    );

    proven_offline(&world, &receipt).await;
    looked_at(&world, &receipt).await;
    copied(&mut world).await;
}

async fn proven_offline(world: &World, receipt: &str) {
    let file = world.at("paid.receipt");
    let save = ["wallet", "receipt", receipt, "-o", &file];
    let saved = world.ada(&save).await.ok();
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(saved["bytes"], bytes.len());
    assert!(bytes.len() < 4096, "{} bytes", bytes.len());
    world.ada(&save).await.failed(2, "exists");

    let network = word(&saved["network"]);
    let check = async |file: &str, network: &str| {
        let words = ["ledger", "verify-receipt", file, "--genesis", network];
        world.run(&words).await
    };
    let proven = check(&file, &network).await.ok();
    assert_eq!(proven["receipt"], receipt);
    assert_eq!(proven["transfers"][0]["amount"], 1_500_000_000);
    assert_eq!(proven["by"], world.account("ada").await);
    let other = cryptomind_protocol::GenesisHash::new([7; 32]).to_string();
    check(&file, &other).await.failed(1, "receipt_unproven");
    let edited = world.at("edited.receipt");
    for place in [3, bytes.len() / 3, bytes.len() / 2, bytes.len() - 40] {
        let mut bytes = bytes.clone();
        bytes[place] ^= 4;
        std::fs::write(&edited, &bytes).unwrap();
        check(&edited, &network).await.failed(1, "receipt_");
    }
    std::fs::write(&edited, &bytes[..bytes.len() - 1]).unwrap();
    check(&edited, &network).await.failed(1, "receipt_damaged");
    std::fs::write(&edited, vec![0; 2 << 20]).unwrap();
    check(&edited, &network)
        .await
        .failed(1, "receipt_too_large");
    check(&world.at("none"), &network).await.failed(2, "file");
}

async fn looked_at(world: &World, receipt: &str) {
    let status = world.ada(&["ledger", "status"]).await.ok();
    assert_eq!(status["engine"], "solo");
    assert_eq!(status["supply"], SUPPLY.base_units());
    let entry = world.ada(&["ledger", "tx", receipt]).await.ok();
    assert!(
        word(&entry["what"]).starts_with("sends 1.5 CTM to "),
        "{entry}"
    );
    let height = entry["height"].to_string();
    let block = world.ada(&["ledger", "block", &height]).await.ok();
    assert_eq!(block["hash"], entry["block"]);
    assert_eq!(block["signed_by"].as_array().unwrap().len(), 1);
    world
        .ada(&["ledger", "block", "99999"])
        .await
        .failed(3, "block_not_found");
}

async fn copied(world: &mut World) {
    let first = world.follow("copy").await.ok();
    assert_eq!(first["height"], world.height().await);
    assert_eq!(first["supply"], SUPPLY.base_units());
    world.send("0.25").await;
    let second = world.follow("copy").await;
    assert_eq!(second.lines.len(), 1, "it goes on: {}", second.all);
    let second = second.ok();
    assert_eq!(
        second["height"].as_u64(),
        first["height"].as_u64().map(|h| h + 1)
    );

    let copy = world.at("copy");
    let report = world.run(&["ledger", "verify", "--dir", &copy]).await.ok();
    assert_eq!(report["head"], second["head"]);
    assert_eq!(report["entries"], second["entries"]);
    assert_eq!(
        (&report["transactions"], &report["ok"]),
        (&3.into(), &true.into())
    );

    exported(world, &copy).await;

    let home = world.at("coordinator");
    let running = world.run(&["ledger", "verify", "--dir", &home]).await;
    running.failed(2, "ledger_in_use");
    running.failed(2, "ledger follow");
    let nothing = world.at("nothing");
    let missing = world.run(&["ledger", "verify", "--dir", &nothing]).await;
    missing.failed(3, "ledger_not_found");
    assert!(!Path::new(&nothing).exists());
    world.coordinator.kill().await;
    let config = world.at("coordinator/coordinator.toml");
    let own = world
        .run(&["ledger", "verify", "--config", &config])
        .await
        .ok();
    assert_eq!(
        (&own["head"], &own["state"]),
        (&report["head"], &report["state"])
    );
}

async fn exported(world: &World, copy: &str) {
    let rows = world.run(&["ledger", "export", "--dir", copy]).await;
    assert_eq!(rows.code, 0, "{}", rows.all);
    let sent: Vec<_> = rows
        .lines
        .iter()
        .filter(|r| r["reason"] == "send")
        .collect();
    let units = sent.iter().map(|row| row["base_units"].as_u64().unwrap());
    assert_eq!(units.collect::<Vec<_>>(), [1_500_000_000, 250_000_000]);
    let ada = world.account("ada").await;
    assert!(sent.iter().all(|row| row["payer"] == ada));
    let file = world.at("transfers.csv");
    let words = ["ledger", "export", "--as", "csv", "-o", &file];
    let said = world.ada(&words).await.ok();
    assert_eq!(said["transfers"], rows.lines.len());
    let table = std::fs::read_to_string(&file).unwrap();
    assert_eq!(table.lines().count(), rows.lines.len() + 1);
    assert!(
        table.starts_with("height,time_ms,time,receipt,number,payer,payee,"),
        "{table}"
    );
    assert!(
        table.lines().last().unwrap().contains(",0.25 CTM,send,"),
        "{table}"
    );
}

/// An account's id, money and history stay when its key goes; the old key signs nothing any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_rotated_and_the_account_stays() {
    let _turn = TURN.lock().await;
    let world = World::start().await;
    world.ada(&["wallet", "faucet"]).await.ok();
    let account = world.account("ada").await;
    let old = std::fs::read(world.path("ada")).unwrap();
    for round in 1..=2 {
        let rotated = world.ada(&["key", "rotate"]).await.ok();
        assert_eq!(rotated["account"], account, "round {round}");
        assert_eq!(world.account("ada").await, account);
        assert!(!world.path("ada.new").exists());
        world.send("1").await;
    }
    assert_eq!(std::fs::read(world.path("ada.retired")).unwrap(), old);
    assert_eq!(world.account("ada.retired-2").await, account);
    let status = world.ada(&["wallet", "balance"]).await.ok();
    assert_eq!(
        (&status["account"], &status["available"]),
        (&account.into(), &98_000_000_000u64.into())
    );
    let (address, retired) = (world.coordinator.said.as_str(), world.at("ada.retired"));
    let words = [
        "wallet",
        "balance",
        "--coordinator",
        address,
        "--key",
        &retired,
    ];
    world.run(&words).await.failed(4, "key_retired");
    // Interrupted after the coordinator heard of the new key, and before it was in its place.
    std::fs::rename(world.path("ada"), world.path("ada.new")).unwrap();
    std::fs::copy(world.path("ada.retired-2"), world.path("ada")).unwrap();
    world.ada(&["key", "rotate"]).await.ok();
    world.send("1").await;
    assert!(!world.path("ada.retired-3").exists(), "kept once");
    // And before it heard.
    let next = cryptomind_config::key::KeyFile {
        key: crate::nodes::key(77),
        account: account_of(&world).await,
    };
    cryptomind_config::key::create_file(&world.path("ada.new"), &next).unwrap();
    world.ada(&["key", "rotate"]).await.ok();
    world.send("1").await;
    let copy = world.follow("copy").await.ok();
    assert_eq!(copy["supply"], SUPPLY.base_units());
}

async fn account_of(world: &World) -> cryptomind_protocol::AccountId {
    world.account("ada").await.parse().unwrap()
}

/// A coordinator that lost its newest blocks, or tells another story since, is caught by whoever followed it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_that_was_set_back_is_caught_at_the_first_height() {
    let _turn = TURN.lock().await;
    let mut world = World::start().await;
    world.ada(&["wallet", "faucet"]).await.ok();
    let last_common = world.height().await;
    world.coordinator.kill().await;
    let state = world.path("coordinator/state.redb");
    std::fs::copy(&state, world.path("backup")).unwrap();
    world.coordinator.start_again().await;
    for _ in 0..3 {
        world.send("1").await;
    }
    world.follow("copy").await.ok();
    world.coordinator.kill().await;
    std::fs::copy(world.path("backup"), &state).unwrap();
    world.coordinator.start_again().await;

    let shorter = world.follow("copy").await;
    shorter.failed(1, "ledger_diverges");
    assert_eq!(shorter.lines[0]["diverges_at"], last_common + 1);
    for _ in 0..5 {
        world.send("2").await;
    }
    let other = world.follow("copy").await;
    other.failed(1, "ledger_diverges");
    assert_eq!(other.lines[0]["diverges_at"], last_common + 1);
    // The copy is as it was, and another folder takes the new story.
    let copy = world.at("copy");
    let kept = world.run(&["ledger", "verify", "--dir", &copy]).await.ok();
    assert_eq!(kept["blocks"], last_common + 4);
    world.follow("other").await.ok();
    // Another network on the same folder parts at once.
    let second = tempfile::tempdir().unwrap();
    let elsewhere = start_coordinator(second.path(), &Where::here()).await;
    let words = [
        "ledger",
        "follow",
        &elsewhere.said,
        "--dir",
        &copy,
        "--once",
    ];
    let foreign = world.run(&words).await;
    foreign.failed(1, "genesis");
    assert_eq!(foreign.lines[0]["diverges_at"], 0);
}
