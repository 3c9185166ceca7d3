//! The smallest market in which a hold can be opened: a dataset, a storage node, a miner.
//!
//! The benchmark itself is both nodes, over the real node protocol. The storage node signs the receipt that
//! publishing asks for, of a file that nobody will ever fetch; the miner is online, hears the announcements and
//! never offers. So every posted task waits until its client cancels it, and nothing is computed.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_net::{Connection, Endpoint, Subscription};
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo, FileEntry, ItemKind, Manifest};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::node::{Capacity, Command, Join, Request};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Activity, Conditions, Optimizer, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{
    AccountId, Amount, BlobId, ErrorBody, ItemId, NodeAddress, NodeId, SecretKey,
};
use cryptomind_sdk::Client;
use serde::de::IgnoredAny;
use tokio::task::JoinHandle;

use super::load::Acknowledged;
use super::shown;
use crate::local_network::DELEGATION_MS;

/// The dataset's only file.
const FILE: (&str, &[u8]) = ("table.csv", b"x,label\n0,a\n1,b\n");
/// The miner's speed, as it says: 1 GFLOP/s.
const MFLOPS: u64 = 1_000;
/// For the word that a node has joined.
const JOIN_LIMIT: Duration = Duration::from_secs(10);

/// A dataset that a storage node says it has, and a task on it. The node is there for as long as this lives.
pub struct Shelf {
    _storage: Node,
    /// A task that can be posted where a miner is.
    pub spec: Arc<TaskSpec>,
}

impl Shelf {
    /// Has the storage node join, and `owner` publish the dataset. Counts what it submits.
    pub async fn open(
        coordinator: &NodeAddress,
        owner: &Client,
        acknowledged: &Acknowledged,
    ) -> Result<Self, ErrorBody> {
        let (account, key) = (owner.account_id(), cryptomind_sdk::new_key()?);
        delegate(owner, &key, Role::Storage, acknowledged).await?;
        let storage = Node::join(coordinator, Role::Storage, account, &key).await?;
        owner.register("bench").await?;
        acknowledged.one();
        let dataset = publish(owner, &key).await?;
        acknowledged.one();
        let mut spec = task(dataset);
        spec.max_cost = owner.quote(&spec).await?.cost_high;
        Ok(Self {
            _storage: storage,
            spec: Arc::new(spec),
        })
    }
}

async fn delegate(
    owner: &Client,
    key: &SecretKey,
    role: Role,
    acknowledged: &Acknowledged,
) -> Result<(), ErrorBody> {
    let expires = owner.now().plus_ms(DELEGATION_MS);
    let node = NodeId::of_key(&key.public());
    owner.delegate(node, role, expires).await?;
    acknowledged.one();
    Ok(())
}

/// A market in which tasks can be posted for as long as this lives.
pub struct Market {
    _shelf: Shelf,
    miner: JoinHandle<()>,
    miner_key: SecretKey,
    owner: AccountId,
    /// A task that can be posted and that nobody takes.
    pub spec: Arc<TaskSpec>,
}

impl Market {
    /// Opens it: both nodes join, `owner` publishes the dataset. Counts what it submits.
    pub async fn open(
        coordinator: &NodeAddress,
        owner: &Client,
        acknowledged: &Acknowledged,
    ) -> Result<Self, ErrorBody> {
        let (account, miner_key) = (owner.account_id(), cryptomind_sdk::new_key()?);
        let shelf = Shelf::open(coordinator, owner, acknowledged).await?;
        delegate(owner, &miner_key, Role::Miner, acknowledged).await?;
        let miner = Node::join(coordinator, Role::Miner, account, &miner_key).await?;
        Ok(Self {
            spec: Arc::clone(&shelf.spec),
            _shelf: shelf,
            miner: tokio::spawn(miner.listen()),
            miner_key,
            owner: account,
        })
    }
}

impl Market {
    /// Brings a miner in again, after the coordinator was killed.
    pub async fn join_again(&mut self, coordinator: &NodeAddress) -> Result<(), ErrorBody> {
        self.miner.abort();
        let miner = Node::join(coordinator, Role::Miner, self.owner, &self.miner_key).await?;
        self.miner = tokio::spawn(miner.listen());
        Ok(())
    }
}

impl Drop for Market {
    fn drop(&mut self) {
        self.miner.abort();
    }
}

/// A node that has joined; it leaves when it is dropped.
struct Node {
    commands: Subscription,
    _connection: Connection,
}

impl Node {
    async fn join(
        coordinator: &NodeAddress,
        role: Role,
        owner: AccountId,
        key: &SecretKey,
    ) -> Result<Self, ErrorBody> {
        let connection = Endpoint::dialler()?
            .dial(coordinator, ALPN_NODE, key)
            .await?;
        let join = Join {
            owner,
            name: format!("bench-{role}"),
            // Nobody will dial it: no file of this market is ever fetched.
            listen: (role == Role::Storage).then(|| "127.0.0.1:9".to_owned()),
            capacity: Capacity {
                mflops: MFLOPS,
                ..Capacity::default()
            },
            // Nobody measures its links.
            probe: None,
            reserve: Amount::ZERO,
            activity: Activity::Idle,
            running: None,
            selftest: match role {
                Role::Miner => Some(shown::selftest(key, &connection.network(), MFLOPS)?),
                _ => None,
            },
        };
        let mut commands = connection.subscribe(&Request::Join(Box::new(join))).await?;
        let first = tokio::time::timeout(JOIN_LIMIT, commands.next::<Command>()).await;
        match first {
            Ok(Some(Ok(Command::Joined { .. }))) => Ok(Self {
                commands,
                _connection: connection,
            }),
            Ok(Some(Err(refusal))) => Err(refusal),
            other => Err(ErrorBody::internal(format!(
                "the {role} did not join: {other:?}"
            ))),
        }
    }

    /// Hears everything, and says nothing.
    async fn listen(mut self) {
        while let Some(Ok(IgnoredAny)) = self.commands.next().await {}
    }
}

/// Publishes the dataset, with the receipt of a storage node's key.
async fn publish(owner: &Client, storage: &SecretKey) -> Result<ItemId, ErrorBody> {
    let (name, content) = FILE;
    let (blob, bytes) = (BlobId::of_bytes(content), content.len() as u64);
    let receipt = StoredReceipt::sign(blob, bytes, owner.now(), storage);
    let manifest = Manifest {
        name: "table".to_owned(),
        kind: ItemKind::Dataset(DatasetInfo {
            format: DataFormat::Csv {
                file: name.to_owned(),
                label: "label".to_owned(),
                split_seed: 1,
                targets: Vec::new(),
            },
            train_samples: 1,
            test_samples: 1,
            input: vec![1],
            classes: vec!["a".to_owned(), "b".to_owned()],
            values: Vec::new(),
        }),
        files: vec![FileEntry {
            name: name.to_owned(),
            blob,
            bytes,
        }],
        access: Access::Free,
        licence: "CC0-1.0".to_owned(),
        source: "made for a benchmark".to_owned(),
    };
    owner.publish(manifest, vec![receipt]).await
}

/// The smallest training task; its cap is still to be quoted.
fn task(dataset: ItemId) -> TaskSpec {
    TaskSpec {
        name: "bench".to_owned(),
        work: Work::Train {
            dataset,
            model: ModelSpec {
                input: vec![1],
                layers: vec![Layer::linear(2)],
                loss: Loss::default(),
            },
            train: TrainSpec {
                epochs: 1,
                global_batch: 1,
                optimizer: Optimizer::sgd(0.1, 0.0),
                seed: 1,
                checkpoint_steps: 1,
                ..TrainSpec::default()
            },
        },
        miners: 1,
        max_cost: Amount::from_base_units(1),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_is_in_order() {
        task(ItemId::new([1; 16])).check().unwrap();
    }
}
