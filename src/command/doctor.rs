//! `doctor`: what this machine has, what it needs, and what to do where they differ.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_config::key;
use cryptomind_protocol::{ErrorBody, NodeAddress};
use cryptomind_sdk::Client;

use crate::cli::Global;
use crate::command::check::{Check, Verdict, show, verdict};
use crate::command::interruptible;
use crate::context::{self, Context};
use crate::follow::size;
use crate::platform;

/// More than this and tickets and signatures begin to come too early or too late.
const DRIFT_LIMIT_MS: u64 = 5_000;
/// Less than this and a dataset may not fit.
const FREE_LIMIT: u64 = 1 << 30;

const FOLDER: &str = "data folder";
const ROOM: &str = "writable, 1 GiB free";

/// Runs every check and prints it; an error where one is bad.
pub async fn run(context: &Context, global: &Global) -> Result<()> {
    let mut checks = vec![
        devices(),
        folder(),
        settings(global),
        key_file(&context.key_file()),
    ];
    interruptible(async {
        checks.extend(network(context).await);
        Ok(())
    })
    .await?;
    checks
        .iter()
        .try_for_each(|check| show(context.output, check))?;
    verdict(&checks)
}

/// What this machine computes with.
pub fn devices() -> Check {
    let devices = cryptomind_gpu::devices::list();
    let names: Vec<String> = devices.iter().map(ToString::to_string).collect();
    let verdict = if names.is_empty() {
        Verdict::Bad
    } else {
        Verdict::Good
    };
    Check::new(
        "devices",
        "a processor; cards by OpenCL are listed",
        verdict,
        names.join("; "),
    )
}

/// Where data lies, and the room there.
pub fn folder() -> Check {
    match platform::data_dir() {
        Ok(dir) => room(&dir),
        Err(error) => Check::failed(FOLDER, ROOM, &error),
    }
}

/// Whether a folder can be written to, and the room there.
pub fn room(dir: &Path) -> Check {
    const NAME: &str = FOLDER;
    const NEEDED: &str = ROOM;
    match writable(dir) {
        Err(error) => Check::failed(NAME, NEEDED, &crate::exit::file(dir, &error)),
        Ok(free) => {
            let found = match free {
                Some(free) => format!("{}, {} free", dir.display(), size(free)),
                None => dir.display().to_string(),
            };
            if free.is_some_and(|free| free < FREE_LIMIT) {
                Check::new(NAME, NEEDED, Verdict::Notice, found).remedy("make room on that disk")
            } else {
                Check::new(NAME, NEEDED, Verdict::Good, found)
            }
        }
    }
}

/// Free bytes of a folder that can be written to, as far as the system says.
fn writable(dir: &Path) -> std::io::Result<Option<u64>> {
    std::fs::create_dir_all(dir)?;
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"probe")?;
    std::fs::remove_file(&probe)?;
    Ok(disk::free_bytes(dir))
}

#[cfg(unix)]
mod disk {
    pub(super) fn free_bytes(dir: &std::path::Path) -> Option<u64> {
        let stat = rustix::fs::statvfs(dir).ok()?;
        stat.f_bavail.checked_mul(stat.f_frsize)
    }
}

/// The twin for systems without statvfs says nothing.
#[cfg(not(unix))]
mod disk {
    pub(super) fn free_bytes(_: &std::path::Path) -> Option<u64> {
        None
    }
}

fn settings(global: &Global) -> Check {
    const NEEDED: &str = "in order, where there is one";
    match context::settings(global) {
        Ok(_) => Check::new("configuration", NEEDED, Verdict::Good, file_in_use(global)),
        Err(error) => Check::failed("configuration", NEEDED, &error),
    }
}

fn file_in_use(global: &Global) -> String {
    let custom: Option<PathBuf> = platform::config_dir()
        .ok()
        .map(|dir| dir.join("client.toml"));
    match global.config.clone().or(custom) {
        Some(file) if file.exists() => file.display().to_string(),
        _ => "defaults (no client.toml)".into(),
    }
}

fn key_file(file: &Path) -> Check {
    const NEEDED: &str = "a whole key that its owner alone can read";
    match key::read_file(file) {
        Ok(found) => Check::new(
            "key file",
            NEEDED,
            Verdict::Good,
            format!("{} ({})", file.display(), found.account),
        ),
        Err(error) => Check::failed("key file", NEEDED, &error.into()),
    }
}

/// The way to the coordinator, and its clock.
async fn network(context: &Context) -> Vec<Check> {
    let (checks, client) = reach(context, context.coordinator()).await;
    if let Some(client) = client {
        client.close().await;
    }
    checks
}

/// The same for any coordinator, with the connection where there is one.
pub async fn reach(
    context: &Context,
    coordinator: Result<NodeAddress, ErrorBody>,
) -> (Vec<Check>, Option<Client>) {
    const NEEDED: &str = "answers over UDP and proves its node id";
    // Whether it can be reached does not hang on the account's key.
    let key = context.key().or_else(|_| cryptomind_sdk::new_key());
    let connected = async { Client::connect(coordinator.clone()?, key?).await };
    match connected.await {
        Err(error) => (vec![Check::failed("coordinator", NEEDED, &error)], None),
        Ok(client) => {
            let address = coordinator.map_or_else(|_| String::new(), |c| c.to_string());
            let checks = vec![
                Check::new("coordinator", NEEDED, Verdict::Good, address),
                clock(client.drift_ms()),
            ];
            (checks, Some(client))
        }
    }
}

fn clock(drift_ms: i64) -> Check {
    const NEEDED: &str = "within 5 s of the coordinator's";
    let found = format!("{drift_ms:+} ms");
    if drift_ms.unsigned_abs() <= DRIFT_LIMIT_MS {
        return Check::new("clock", NEEDED, Verdict::Good, found);
    }
    Check::new("clock", NEEDED, Verdict::Bad, found)
        .remedy("set the clock by the network: timedatectl set-ntp true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_check_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let bad = [
            key_file(&dir.path().join("none.key")),
            clock(90_000),
            clock(-90_000),
        ];
        for check in bad {
            assert_eq!(check.verdict, Verdict::Bad);
            assert!(check.remedy.is_some(), "{check:?}");
        }
        assert_eq!(clock(-12).verdict, Verdict::Good);
    }

    #[test]
    fn a_folder_that_can_be_written_to_has_room_or_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_ne!(writable(dir.path()).unwrap(), Some(0));
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(writable(&file).is_err());
    }
}
