//! The coordinator that is measured: a process of its own, its state in the benchmark's folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cryptomind_config::Coordinator as Config;
use cryptomind_protocol::{ErrorBody, NodeAddress};

use crate::local_network::write_config;
use crate::process::Process;

/// The file that holds its state: see `cryptomind_actors::coordinator::STATE_FILE`.
const STATE_FILE: &str = cryptomind_actors::coordinator::STATE_FILE;
/// What the faucet gives: enough for any number of the smallest payments.
const FAUCET_CTM: &str = "100 CTM";
/// Tasks that nobody takes stay open for the whole run.
const WAIT_LIMIT_S: &str = "86400";

/// A running coordinator. Dropping it ends the process.
pub struct Coordinator {
    dir: PathBuf,
    config: PathBuf,
    process: Process,
    /// Where it listens now: another port after each start.
    pub address: NodeAddress,
}

impl Coordinator {
    /// Starts one with a fresh state in `dir`; complete when it listens.
    pub async fn start(dir: &Path) -> Result<Self, ErrorBody> {
        let config = write_config::<Config>(dir, &settings(dir))?;
        let (process, address) = launch(dir, &config).await?;
        Ok(Self {
            dir: dir.to_owned(),
            config,
            process,
            address,
        })
    }

    /// Kills it as a power cut would and starts it again on the same state; complete when it listens.
    pub async fn kill_and_start(&mut self) -> Result<(), ErrorBody> {
        self.process.kill().await?;
        (self.process, self.address) = launch(&self.dir, &self.config).await?;
        Ok(())
    }

    /// The file that holds its state.
    pub fn state_file(&self) -> PathBuf {
        self.dir.join(STATE_FILE)
    }

    /// Ends it in good order.
    pub async fn stop(self) {
        self.process.stop().await;
    }
}

fn settings(dir: &Path) -> [(&'static str, String); 5] {
    let shown = |path: &Path| path.display().to_string();
    [
        ("node.data_dir", shown(dir)),
        ("node.key_file", shown(&dir.join("node.key"))),
        (
            "node.listen",
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).to_string(),
        ),
        ("market.wait_limit_s", WAIT_LIMIT_S.to_owned()),
        ("faucet.amount", FAUCET_CTM.to_owned()),
    ]
}

fn log(dir: &Path) -> PathBuf {
    dir.join("coordinator.log")
}

async fn launch(dir: &Path, config: &Path) -> Result<(Process, NodeAddress), ErrorBody> {
    let mut process = Process::start("coordinator", "coordinator", config, &log(dir))?;
    let address = process
        .ready()
        .await?
        .parse()
        .map_err(ErrorBody::internal)?;
    Ok((process, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_is_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = write_config::<Config>(dir.path(), &settings(dir.path())).unwrap();
        let layers = cryptomind_config::Layers {
            file: Some(file),
            ..Default::default()
        };
        let config = cryptomind_config::load::<Config>(&layers).unwrap().value;
        assert_eq!(config.node.data_dir, dir.path());
        assert!(config.node.listen.ip().is_loopback());
    }
}
