//! The section `[node]`: who a node is, where its data lies, whom it earns for.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use cryptomind_protocol::AccountId;

use crate::Reader;
use crate::convert::{name, parsed, words};

/// The UDP port of a coordinator.
const COORDINATOR_PORT: u16 = 7700;
/// The UDP port of a storage node.
const STORAGE_PORT: u16 = 7701;

const EXAMPLE_ACCOUNT: &str = "cm1…, as `cryptomind key show` prints it";

/// `[node]` of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorNode {
    /// Its name in tables.
    pub name: String,
    /// Folder of the ledger, the catalog and everything else that must survive.
    pub data_dir: PathBuf,
    /// Its node key; `node.key` in `data_dir` by default.
    pub key_file: PathBuf,
    /// The one UDP port of all protocols, and on which address. Port 0 takes a free one.
    pub listen: SocketAddr,
}

/// `[node]` of a miner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinerNode {
    /// Its name in tables.
    pub name: String,
    /// Folder of the key and the cache.
    pub data_dir: PathBuf,
    /// Its node key; `node.key` in `data_dir` by default.
    pub key_file: PathBuf,
    /// The account that earns: a node does not start without.
    pub account: Option<AccountId>,
}

/// `[node]` of a storage node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageNode {
    /// Its name in tables.
    pub name: String,
    /// Folder of the blobs and the key.
    pub data_dir: PathBuf,
    /// Its node key; `node.key` in `data_dir` by default.
    pub key_file: PathBuf,
    /// The account that earns: a node does not start without.
    pub account: Option<AccountId>,
    /// The UDP port for blobs, and on which address. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// `host:port` at which others reach it; by default the port of `listen` on the address from
    /// which the coordinator sees this node.
    pub advertise: Option<String>,
}

fn any_address(port: u16) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()
}

fn service_dir(role: &str) -> PathBuf {
    Path::new("/var/lib/cryptomind").join(role)
}

impl Default for CoordinatorNode {
    fn default() -> Self {
        let data_dir = service_dir("coordinator");
        Self {
            name: "coordinator".into(),
            key_file: data_dir.join("node.key"),
            data_dir,
            listen: any_address(COORDINATOR_PORT),
        }
    }
}

impl Default for MinerNode {
    fn default() -> Self {
        let data_dir = service_dir("miner");
        Self {
            name: "miner".into(),
            key_file: data_dir.join("node.key"),
            data_dir,
            account: None,
        }
    }
}

impl Default for StorageNode {
    fn default() -> Self {
        let data_dir = service_dir("storage");
        Self {
            name: "storage".into(),
            key_file: data_dir.join("node.key"),
            data_dir,
            account: None,
            listen: any_address(STORAGE_PORT),
            advertise: None,
        }
    }
}

fn listen(reader: &mut Reader<'_>, default: SocketAddr) -> SocketAddr {
    let example = default.to_string();
    reader.take("node.listen", default, |e| parsed(e, &example))
}

fn account(reader: &mut Reader<'_>) -> Option<AccountId> {
    reader.optional("node.account", |e| parsed(e, EXAMPLE_ACCOUNT))
}

/// `host:port` with a port that is not 0.
fn host_port(entry: &crate::reader::Entry<'_>) -> crate::convert::Converted<String> {
    let text = words(entry)?;
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(port) if port > 0 => Ok(text),
        _ => Err(
            crate::convert::problem(format!("`{text}` is not host:port"))
                .help("for example \"203.0.113.5:7701\""),
        ),
    }
}

impl CoordinatorNode {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let data_dir = reader.path("node.data_dir", default.data_dir);
        Self {
            name: reader.take("node.name", default.name, name),
            key_file: reader.path("node.key_file", data_dir.join("node.key")),
            listen: listen(reader, default.listen),
            data_dir,
        }
    }
}

impl MinerNode {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let data_dir = reader.path("node.data_dir", default.data_dir);
        Self {
            name: reader.take("node.name", default.name, name),
            key_file: reader.path("node.key_file", data_dir.join("node.key")),
            account: account(reader),
            data_dir,
        }
    }
}

impl StorageNode {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let data_dir = reader.path("node.data_dir", default.data_dir);
        Self {
            name: reader.take("node.name", default.name, name),
            key_file: reader.path("node.key_file", data_dir.join("node.key")),
            account: account(reader),
            listen: listen(reader, default.listen),
            advertise: reader.optional("node.advertise", host_port),
            data_dir,
        }
    }
}
