//! A whole network on this machine: coordinator, storage node and up to three miners, each a process.
//!
//! Used by `demo` and `dev`. It lies in one folder: an account key a person, a folder a part with its
//! configuration and node key, the logs. Started again in the same folder it goes on where it was.
//! The owners delegate their nodes here, since their keys are here; on a real network each owner does that
//! on a machine of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cryptomind_config::{
    Client as ClientConfig, Coordinator, Miner, Settings, Storage, fill_sample, key,
};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::{AccountId, ErrorBody, NodeAddress, NodeId, SecretKey};
use cryptomind_sdk::Client;

use crate::exit;
use crate::process::{self, Process, READY_LIMIT};

/// The miners' owners.
pub const MINER_OWNERS: [&str; 3] = ["ann", "ben", "cat"];
/// The storage node's owner.
pub const STORAGE_OWNER: &str = "stan";

/// The coordinator's name among the parts.
pub const COORDINATOR: &str = "coordinator";

/// The owners' usual program, in the place of a real one: it runs and costs next to nothing.
const IDLE_COMMAND: &str = r#"["sh", "-c", "while :; do sleep 1; done"]"#;
/// What a self-test takes beside its endurance, at most.
const SELFTEST_LIMIT: Duration = Duration::from_secs(60);
/// Until every part is seen by the coordinator.
const JOIN_LIMIT: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long the delegations of this machine's nodes last: a year.
pub const DELEGATION_MS: u64 = 365 * 24 * 3600 * 1000;

/// A running network. Dropping it ends every process.
pub struct LocalNetwork {
    dir: PathBuf,
    coordinator: NodeAddress,
    parts: Vec<Process>,
}

/// What miners it has.
#[derive(Debug, Clone, Copy)]
pub struct Miners {
    /// How many, of [`MINER_OWNERS`].
    pub count: usize,
    /// Threads of each; 0: all.
    pub threads: u16,
    /// For how long each trains in its self-test, seconds; 0 is the shortest form.
    pub selftest_s: u64,
}

impl Miners {
    /// Until one has tested itself and joined. What is not of the shortest form fills memory and measures for a while.
    fn ready_limit(self) -> Duration {
        match self.selftest_s {
            0 => READY_LIMIT,
            seconds => READY_LIMIT + SELFTEST_LIMIT + 2 * Duration::from_secs(seconds),
        }
    }
}

impl Default for Miners {
    /// Three share this machine: one thread each, and the shortest self-test.
    fn default() -> Self {
        Self {
            count: MINER_OWNERS.len(),
            threads: 1,
            selftest_s: 0,
        }
    }
}

/// What a node's process needs.
struct Part {
    name: String,
    role: Role,
    owner: &'static str,
}

impl Part {
    fn with(miners: Miners) -> Vec<Self> {
        let miner = |owner: &'static str| Self {
            name: format!("miner-{owner}"),
            role: Role::Miner,
            owner,
        };
        let mut parts = vec![Self {
            name: format!("storage-{STORAGE_OWNER}"),
            role: Role::Storage,
            owner: STORAGE_OWNER,
        }];
        parts.extend(MINER_OWNERS.into_iter().take(miners.count).map(miner));
        parts
    }
}

impl LocalNetwork {
    /// Starts a network in `dir`, its coordinator listening at `listen`; complete when every part has
    /// joined.
    pub async fn start(dir: &Path, listen: SocketAddr) -> Result<Self> {
        Self::with_miners(dir, listen, Miners::default()).await
    }

    /// The same with other miners.
    pub async fn with_miners(dir: &Path, listen: SocketAddr, miners: Miners) -> Result<Self> {
        let dir = std::path::absolute(dir)?;
        for folder in ["accounts", "logs", "coordinator"] {
            make(&dir.join(folder))?;
        }
        let mut network = Self::with_coordinator(&dir, listen).await?;
        let owner = network.client(MINER_OWNERS[0]).await?;
        settle_in(&dir, &network.coordinator, miners).await?;
        for part in Part::with(miners) {
            network.start_part(&part, miners, listen)?;
        }
        for part in &mut network.parts[1..] {
            part.ready_within(miners.ready_limit()).await?;
        }
        wait_joined(&owner, miners).await?;
        owner.close().await;
        Ok(network)
    }

    async fn with_coordinator(dir: &Path, listen: SocketAddr) -> Result<Self> {
        let home = dir.join("coordinator");
        let settings = [
            ("node.data_dir", shown(&home)),
            ("node.key_file", shown(&home.join("node.key"))),
            ("node.listen", listen.to_string()),
        ];
        let config = write_config::<Coordinator>(&home, &settings)?;
        let log = dir.join("logs/coordinator.log");
        let mut process = Process::start(COORDINATOR, "coordinator", &config, &log)?;
        let said: NodeAddress = process
            .ready()
            .await?
            .parse()
            .map_err(ErrorBody::internal)?;
        let coordinator = NodeAddress {
            host: reachable_host(listen.ip()),
            ..said
        };
        Ok(Self {
            dir: dir.to_owned(),
            coordinator,
            parts: vec![process],
        })
    }

    fn start_part(
        &mut self,
        part: &Part,
        miners: Miners,
        listen: SocketAddr,
    ) -> Result<(), ErrorBody> {
        let home = self.dir.join(&part.name);
        // The id comes from an owner's first key, and the file may hold a later one.
        let account = key::read_file(&self.key_file(part.owner))?.account;
        let config = self.configure(part, miners, &home, (account, listen))?;
        let log = self.dir.join(format!("logs/{}.log", part.name));
        let role = part.role.to_string();
        self.parts
            .push(Process::start(&part.name, &role, &config, &log)?);
        Ok(())
    }

    fn configure(
        &self,
        part: &Part,
        miners: Miners,
        home: &Path,
        (account, listen): (AccountId, SocketAddr),
    ) -> Result<PathBuf, ErrorBody> {
        let mut settings = vec![
            ("coordinator", self.coordinator.to_string()),
            ("node.name", part.name.clone()),
            ("node.data_dir", shown(home)),
            ("node.key_file", shown(&home.join("node.key"))),
            ("node.account", account.to_string()),
        ];
        match part.role {
            Role::Storage => {
                settings.push(("node.listen", SocketAddr::new(listen.ip(), 0).to_string()));
                write_config::<Storage>(home, &settings)
            }
            _ => {
                settings.push(("compute.threads", miners.threads.to_string()));
                settings.push(("selftest.seconds", miners.selftest_s.to_string()));
                settings.push(("idle.command", IDLE_COMMAND.into()));
                settings.push(("idle.stop_limit_s", "2".into()));
                write_config::<Miner>(home, &settings)
            }
        }
    }

    /// Where everything lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The coordinator's address, as others on this machine and, where it listens there, elsewhere reach it.
    pub fn coordinator(&self) -> &NodeAddress {
        &self.coordinator
    }

    /// The account key of a person, made where it is missing.
    pub fn key(&self, person: &str) -> Result<SecretKey, ErrorBody> {
        key_at(&self.key_file(person))
    }

    /// Where a person's key is.
    pub fn key_file(&self, person: &str) -> PathBuf {
        self.dir.join(format!("accounts/{person}.key"))
    }

    /// A client of a person.
    pub async fn client(&self, person: &str) -> Result<Client, ErrorBody> {
        Client::connect(self.coordinator.clone(), self.key(person)?).await
    }

    /// Writes a client's configuration for a person and gives its path.
    pub fn client_config(&self, person: &str) -> Result<PathBuf, ErrorBody> {
        let settings = [
            ("coordinator", self.coordinator.to_string()),
            ("key_file", shown(&self.key_file(person))),
            ("history_file", shown(&self.dir.join("history"))),
        ];
        write_config::<ClientConfig>(&self.dir, &settings)
    }

    /// Kills the part with this name as a power cut would. Gives its process id.
    pub async fn kill(&mut self, name: &str) -> Result<u32, ErrorBody> {
        let part = self.parts.iter_mut().find(|part| part.name() == name);
        let part = part.ok_or_else(|| ErrorBody::internal(format!("no part is named {name}")))?;
        let id = part.id().unwrap_or_default();
        part.kill().await?;
        Ok(id)
    }

    /// Waits until a part has ended by itself, and gives its name. Each is told once.
    pub async fn broken(&mut self) -> String {
        let ended = self.parts.iter_mut().map(|part| {
            let name = part.name().to_owned();
            Box::pin(async move {
                part.ended().await;
                name
            })
        });
        let name = first(ended.collect()).await;
        self.parts.retain(|part| part.name() != name);
        name
    }

    /// Ends every part in good order: those that depend on others first.
    pub async fn shutdown(mut self) {
        let (coordinator, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.parts)
            .into_iter()
            .partition(|part| part.name() == COORDINATOR);
        for parts in [others, coordinator] {
            let stopping: Vec<_> = parts
                .into_iter()
                .map(Process::stop)
                .map(tokio::spawn)
                .collect();
            for stopped in stopping {
                let _ = stopped.await;
            }
        }
    }
}

impl Drop for LocalNetwork {
    fn drop(&mut self) {
        process::end_all(&mut self.parts);
    }
}

/// The output of the first of these that is ready.
async fn first<T, F: Future<Output = T> + Unpin>(mut futures: Vec<F>) -> T {
    std::future::poll_fn(move |context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(output);
            }
        }
        std::task::Poll::Pending
    })
    .await
}

fn make(dir: &Path) -> Result<(), ErrorBody> {
    std::fs::create_dir_all(dir).map_err(|e| exit::file(dir, &e))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn key_at(file: &Path) -> Result<SecretKey, ErrorBody> {
    let seed = *cryptomind_sdk::new_key()?.seed();
    Ok(key::read_or_create(file, seed)?)
}

/// Writes a part's configuration, the sample with these settings, and gives its path.
pub fn write_config<T: Settings>(
    dir: &Path,
    settings: &[(&'static str, String)],
) -> Result<PathBuf, ErrorBody> {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let text = fill_sample(T::SAMPLE, &settings).map_err(|e| ErrorBody::internal(&e))?;
    let file = dir.join(T::FILE_NAME);
    std::fs::write(&file, text).map_err(|e| exit::file(&file, &e))?;
    Ok(file)
}

/// Each owner takes its name as a nickname and lets its node work for it, where that is not done already.
async fn settle_in(dir: &Path, coordinator: &NodeAddress, miners: Miners) -> Result<(), ErrorBody> {
    let settling: Vec<_> = Part::with(miners)
        .into_iter()
        .map(|part| tokio::spawn(settle_owner(dir.to_owned(), coordinator.clone(), part)))
        .collect();
    for settled in settling {
        settled.await.map_err(ErrorBody::internal)??;
    }
    Ok(())
}

async fn settle_owner(dir: PathBuf, coordinator: NodeAddress, part: Part) -> Result<(), ErrorBody> {
    let home = dir.join(&part.name);
    make(&home)?;
    let node = NodeId::of_key(&key_at(&home.join("node.key"))?.public());
    let owner = key_at(&dir.join(format!("accounts/{}.key", part.owner)))?;
    let client = Client::connect(coordinator, owner).await?;
    let expires = client.now().plus_ms(DELEGATION_MS);
    client.delegate(node, part.role, expires).await?;
    register_once(&client, part.owner).await?;
    client.close().await;
    Ok(())
}

/// Takes a nickname, unless this account has it from the last time.
pub async fn register_once(client: &Client, nickname: &str) -> Result<(), ErrorBody> {
    match client.my_account().await {
        Ok(account) if account.nickname.as_deref() == Some(nickname) => Ok(()),
        Ok(_) => client.register(nickname).await,
        Err(error) if error.is_not_found() => client.register(nickname).await,
        Err(error) => Err(error),
    }
}

async fn wait_joined(client: &Client, miners: Miners) -> Result<(), ErrorBody> {
    let joined = async {
        loop {
            let status = client.status().await?;
            if status.miners as usize >= miners.count && status.storage_nodes >= 1 {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(JOIN_LIMIT, joined)
        .await
        .unwrap_or_else(|_| {
            Err(ErrorBody::internal("not every part joined the coordinator")
                .with_help("see the logs in the folder `logs`"))
        })
}

/// The address to tell others for a listening address: itself, or this machine's where it is any.
fn reachable_host(listen: IpAddr) -> String {
    if !listen.is_unspecified() {
        return listen.to_string();
    }
    outward_address()
        .unwrap_or(Ipv4Addr::LOCALHOST.into())
        .to_string()
}

/// This machine's address towards others: that of the default route, or the first that is no loopback.
fn outward_address() -> Option<IpAddr> {
    // Connecting a UDP socket sends nothing; it only asks the routing table. 192.0.2.1 is nobody (RFC 5737).
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    match routed {
        Ok(address) => Some(address.ip()),
        Err(_) => local_addresses(&std::fs::read_to_string("/proc/net/fib_trie").ok()?).next(),
    }
}

/// Addresses of this machine in Linux's routing table: the lines before `/32 host LOCAL`.
fn local_addresses(table: &str) -> impl Iterator<Item = IpAddr> + '_ {
    let lines = table.lines().zip(table.lines().skip(1));
    lines
        .filter(|(_, next)| next.trim() == "/32 host LOCAL")
        .filter_map(|(line, _)| line.trim().strip_prefix("|-- ")?.parse().ok())
        .filter(|address: &IpAddr| !address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("cm://{}@127.0.0.1:7700", NodeId::new([7; 32]));
        let network = LocalNetwork {
            dir: dir.path().to_owned(),
            coordinator: address.parse().unwrap(),
            parts: Vec::new(),
        };
        let account = AccountId::new([1; 20]);
        for part in Part::with(Miners::default()) {
            let listen = "0.0.0.0:7700".parse().unwrap();
            let file = network
                .configure(&part, Miners::default(), dir.path(), (account, listen))
                .unwrap();
            let layers = cryptomind_config::Layers {
                file: Some(file),
                ..Default::default()
            };
            match part.role {
                Role::Storage => {
                    let storage = cryptomind_config::load::<Storage>(&layers).unwrap().value;
                    assert_eq!(storage.node.listen.port(), 0);
                }
                _ => {
                    let miner = cryptomind_config::load::<Miner>(&layers).unwrap().value;
                    assert_eq!(miner.idle.command.len(), 3);
                    assert_eq!(miner.node.account, Some(account));
                }
            }
        }
        network.client_config("bob").unwrap();
    }

    #[test]
    fn this_machines_addresses_are_read_from_the_routing_table() {
        let table = "Local:\n  |-- 10.0.0.0\n     /24 link UNICAST\n  |-- 10.0.0.7\n     /32 host LOCAL\n  |-- 127.0.0.1\n     /32 host LOCAL\n  |-- 10.0.0.255\n     /32 link BROADCAST\n";
        let found: Vec<_> = local_addresses(table).collect();
        assert_eq!(found, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(reachable_host("10.1.2.3".parse().unwrap()), "10.1.2.3");
        assert_ne!(reachable_host("0.0.0.0".parse().unwrap()), "0.0.0.0");
    }

    #[tokio::test]
    async fn the_first_that_is_ready_wins() {
        let never =
            Box::pin(std::future::pending::<u8>()) as std::pin::Pin<Box<dyn Future<Output = u8>>>;
        assert_eq!(first(vec![never, Box::pin(async { 2 })]).await, 2);
    }
}
