//! A storage node: keeps blobs under their hash, for whoever brings the coordinator's ticket.
//!
//! One UDP port serves blobs; a task keeps the node joined to its coordinator. What the node acknowledges
//! is on the disk. It decides nothing: tickets say who may read and store what.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_config::Storage;
use cryptomind_net::samples::Samples;
use cryptomind_net::{Endpoint, Limits};
use cryptomind_protocol::frame::{ALPN_BLOB, ALPN_NODE};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeAddress, NodeId, PublicKey, SecretKey};
use cryptomind_storage::blobs::BlobStore;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::enrol;

mod door;
mod membership;

/// The first and the longest wait between two tries to reach the coordinator at start.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What the door needs.
pub(crate) struct Keep {
    pub(crate) store: BlobStore,
    pub(crate) key: SecretKey,
    pub(crate) coordinator: PublicKey,
    pub(crate) network: GenesisHash,
    pub(crate) quotas: door::Quotas,
    /// What the door learns of links.
    pub(crate) samples: Samples,
}

/// A running storage node.
pub struct StorageNode {
    address: NodeAddress,
    endpoint: Endpoint,
    joined: watch::Receiver<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// Opens the store, learns the network from the coordinator, and serves. The coordinator must be reachable
/// once for that; it is waited for as long as it takes.
///
/// # Errors
/// `no_owner`; where the folder or the port cannot be used, or the coordinator is another.
pub async fn start(config: Storage, key: SecretKey) -> Result<StorageNode, ErrorBody> {
    let Storage {
        coordinator,
        node,
        store,
    } = config;
    let owner = node.account.ok_or_else(enrol::no_owner)?;
    let blobs = BlobStore::open(&node.data_dir, store.max_bytes)?;
    let dialler = Endpoint::dialler()?;
    let network = network_of(&dialler, &coordinator, &key).await?;
    let endpoint = Endpoint::serve(
        node.listen,
        key.clone(),
        network,
        &[ALPN_BLOB],
        Limits::default(),
    )?;
    let local = endpoint.local_addr();
    let keep = Arc::new(Keep {
        store: blobs,
        key: key.clone(),
        coordinator: coordinator.node.key(),
        network,
        quotas: door::Quotas::default(),
        samples: Samples::default(),
    });
    let (joined_sender, joined) = watch::channel(false);
    let membership = membership::Membership {
        dialler,
        coordinator,
        key: key.clone(),
        name: node.name,
        owner,
        listen: node.advertise.unwrap_or_else(|| local.to_string()),
        keep: Arc::clone(&keep),
        joined: joined_sender,
    };
    let tasks = vec![
        tokio::spawn(door::open(endpoint.clone(), keep)),
        tokio::spawn(membership.keep()),
    ];
    let node = NodeId::of_key(&key.public());
    let host = local.ip().to_string();
    let address = NodeAddress {
        node,
        host,
        port: local.port(),
    };
    Ok(StorageNode {
        address,
        endpoint,
        joined,
        tasks,
    })
}

/// The coordinator's network, from its proven hello.
async fn network_of(
    dialler: &Endpoint,
    coordinator: &NodeAddress,
    key: &SecretKey,
) -> Result<GenesisHash, ErrorBody> {
    let mut wait = BACK_OFF.0;
    loop {
        match dialler.dial(coordinator, ALPN_NODE, key).await {
            Ok(connection) => {
                let network = connection.network();
                connection.close("learnt the network");
                return Ok(network);
            }
            Err(error) if error.class == cryptomind_protocol::ErrorClass::Network => {
                tracing::info!(%error, "waiting for the coordinator {coordinator}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(BACK_OFF.1);
            }
            Err(error) => return Err(error),
        }
    }
}

impl StorageNode {
    /// Who it is and where it listens.
    pub fn address(&self) -> NodeAddress {
        self.address.clone()
    }

    /// What it does.
    pub const fn role(&self) -> Role {
        Role::Storage
    }

    /// Waits until the coordinator has taken this node in.
    pub async fn joined(&self) {
        // The sender lives as long as the membership's task.
        drop(self.joined.clone().wait_for(|joined| *joined).await);
    }

    /// Closes the port. What was acknowledged is on the disk already.
    pub async fn shutdown(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.endpoint.close("the storage node stops").await;
    }
}
