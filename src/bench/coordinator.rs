//! The coordinator of a benchmark: a process of its own, its state in the benchmark's folder. Started again after a
//! kill, it has the same folder and port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cryptomind_config::Coordinator as Config;
use cryptomind_protocol::{ErrorBody, NodeAddress};

use crate::exit;
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
    starts: u32,
    /// Where it listens, now and after each kill.
    pub address: NodeAddress,
}

impl Coordinator {
    /// Starts one with a fresh state in `dir`; complete when it listens.
    pub async fn start(dir: &Path) -> Result<Self, ErrorBody> {
        Self::start_with(dir, &[]).await
    }

    /// The same, with settings beyond those of every benchmark.
    pub async fn start_with(
        dir: &Path,
        more: &[(&'static str, String)],
    ) -> Result<Self, ErrorBody> {
        let logs = logs(dir);
        std::fs::create_dir_all(&logs).map_err(|e| exit::file(&logs, &e))?;
        let configure = |port| {
            let settings: Vec<_> = settings(dir, port)
                .into_iter()
                .chain(more.to_vec())
                .collect();
            write_config::<Config>(dir, &settings)
        };
        let config = configure(0)?;
        let (process, address) = launch(dir, &config, 1).await?;
        Ok(Self {
            config: configure(address.port)?,
            dir: dir.to_owned(),
            process,
            starts: 1,
            address,
        })
    }

    /// Kills it as a power cut would, and starts it again on the same state; complete when it listens.
    pub async fn kill_and_start(&mut self) -> Result<(), ErrorBody> {
        self.kill().await?;
        self.start_again().await
    }

    /// SIGKILL: no last word, nothing put in order. Gone when this returns.
    pub async fn kill(&mut self) -> Result<(), ErrorBody> {
        self.process.kill().await
    }

    /// Starts it again after [`Coordinator::kill`]; complete when it listens.
    pub async fn start_again(&mut self) -> Result<(), ErrorBody> {
        self.starts += 1;
        let (process, address) = launch(&self.dir, &self.config, self.starts).await?;
        self.process = process;
        if address == self.address {
            return Ok(());
        }
        let message = format!("started again it is {address}, not {}", self.address);
        Err(ErrorBody::internal(message))
    }

    /// Resolves when it has ended by itself, which it never should.
    pub async fn ended(&mut self) -> ErrorBody {
        self.process.ended().await;
        ErrorBody::internal("the coordinator ended by itself")
    }

    /// The id of its process, while that runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.id()
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

fn settings(dir: &Path, port: u16) -> [(&'static str, String); 7] {
    let shown = |path: &Path| path.display().to_string();
    [
        ("node.data_dir", shown(dir)),
        ("node.key_file", shown(&dir.join("node.key"))),
        (
            "node.listen",
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string(),
        ),
        ("market.wait_limit_s", WAIT_LIMIT_S.to_owned()),
        // Its clients are the load.
        ("market.open_tasks_per_account", "1000000".to_owned()),
        ("market.free_cancels", u32::MAX.to_string()),
        ("faucet.amount", FAUCET_CTM.to_owned()),
    ]
}

/// The folder of its logs. Each start has one of its own: that before a kill tells how it was, that after it what
/// was found.
pub fn logs(dir: &Path) -> PathBuf {
    dir.join("logs")
}

async fn launch(
    dir: &Path,
    config: &Path,
    start: u32,
) -> Result<(Process, NodeAddress), ErrorBody> {
    let log = logs(dir).join(format!("coordinator-{start}.log"));
    let mut process = Process::start("coordinator", "coordinator", config, &log)?;
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
        let file = write_config::<Config>(dir.path(), &settings(dir.path(), 7701)).unwrap();
        let layers = cryptomind_config::Layers {
            file: Some(file),
            ..Default::default()
        };
        let config = cryptomind_config::load::<Config>(&layers).unwrap().value;
        assert_eq!(config.node.data_dir, dir.path());
        assert_eq!(config.node.listen, ([127, 0, 0, 1], 7701).into());
    }
}
