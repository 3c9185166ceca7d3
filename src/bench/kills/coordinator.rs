//! The coordinator that is killed: a process of its own, started again on the same folder and port.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use cryptomind_config::Coordinator as Config;
use cryptomind_protocol::{ErrorBody, NodeAddress};

use crate::exit;
use crate::local_network::write_config;
use crate::process::Process;

/// A task that nobody takes waits longer than any run of this lasts.
const WAIT_LIMIT_S: &str = "604800";

/// A running coordinator. Dropping it ends the process.
pub struct Coordinator {
    dir: PathBuf,
    config: PathBuf,
    process: Process,
    starts: u32,
    /// Where it listens, now and after every kill.
    pub address: NodeAddress,
}

impl Coordinator {
    /// Starts one with a fresh state in `dir`; complete when it listens.
    pub async fn start(dir: &Path) -> Result<Self, ErrorBody> {
        std::fs::create_dir_all(dir.join("logs")).map_err(|e| exit::file(dir, &e))?;
        let config = configure(dir, 0)?;
        let mut process = launch(dir, &config, 0)?;
        let said = process.ready().await?;
        let address: NodeAddress = said.parse().map_err(ErrorBody::internal)?;
        Ok(Self {
            config: configure(dir, address.port)?,
            dir: dir.to_owned(),
            process,
            starts: 1,
            address,
        })
    }

    /// SIGKILL: no last word, nothing put in order. Gone when this returns.
    pub async fn kill(&mut self) -> Result<(), ErrorBody> {
        self.process.kill().await
    }

    /// Starts it again after [`Coordinator::kill`]; complete when it listens.
    pub async fn start_again(&mut self) -> Result<(), ErrorBody> {
        self.process = launch(&self.dir, &self.config, self.starts)?;
        self.starts += 1;
        let said = self.process.ready().await?;
        if said == self.address.to_string() {
            return Ok(());
        }
        let message = format!("started again it is {said}, not {}", self.address);
        Err(ErrorBody::internal(message))
    }

    /// Resolves when it has ended by itself, which it never should.
    pub async fn ended(&mut self) -> ErrorBody {
        self.process.ended().await;
        ErrorBody::internal("the coordinator ended by itself")
    }

    /// Ends it in good order.
    pub async fn stop(self) {
        self.process.stop().await;
    }
}

fn configure(dir: &Path, port: u16) -> Result<PathBuf, ErrorBody> {
    let shown = |path: &Path| path.display().to_string();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let settings = [
        ("node.data_dir", shown(dir)),
        ("node.key_file", shown(&dir.join("node.key"))),
        ("node.listen", listen.to_string()),
        ("market.wait_limit_s", WAIT_LIMIT_S.to_owned()),
    ];
    write_config::<Config>(dir, &settings)
}

/// Each start has a log of its own: the one before a kill tells how it was, the one after it what it found.
fn launch(dir: &Path, config: &Path, start: u32) -> Result<Process, ErrorBody> {
    let log = dir.join(format!("logs/coordinator-{start}.log"));
    Process::start("coordinator", "coordinator", config, &log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_is_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let layers = cryptomind_config::Layers {
            file: Some(configure(dir.path(), 7701).unwrap()),
            ..Default::default()
        };
        let config = cryptomind_config::load::<Config>(&layers).unwrap().value;
        assert_eq!(config.node.data_dir, dir.path());
        assert_eq!(config.node.listen, ([127, 0, 0, 1], 7701).into());
    }
}
