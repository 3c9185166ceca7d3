//! What a task needs to be posted: a dataset in the catalog, and a miner that is online.
//!
//! Both nodes are played here, over the nodes' own protocol: the storage node acknowledges one file and leaves, the
//! miner says nothing to any announcement, so that a task waits, its money held, until its client cancels it.

use std::time::Duration;

use cryptomind_net::{Endpoint, Subscription};
use cryptomind_protocol::delegation::Role;
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::item::{Access, DataFormat, DatasetInfo, FileEntry, ItemKind, Manifest};
use cryptomind_protocol::model::{Layer, ModelSpec};
use cryptomind_protocol::node::{Capacity, Command, Join, Request};
use cryptomind_protocol::task::{Activity, Optimizer, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{Amount, BlobId, ErrorBody, ItemId, NodeId, SecretKey};
use cryptomind_sdk::Client;
use tokio::task::JoinHandle;

use super::dice::Dice;
use crate::local_network::delegation;

/// For a join to be answered.
const JOIN_LIMIT: Duration = Duration::from_secs(5);
/// The storage node is never asked for its file.
const NO_PORT: &str = "127.0.0.1:9";
const FILE: &str = "table.csv";
const CONTENT: &[u8] = b"a,b,kind\n1,2,x\n3,4,y\n";

/// The miner, and the task that it does not take.
pub struct Market {
    miner: Node,
    listening: Option<JoinHandle<()>>,
    /// A task whose `max_cost` is the least that the coordinator takes.
    pub task: TaskSpec,
}

struct Node {
    endpoint: Endpoint,
    key: SecretKey,
    owner: SecretKey,
    name: &'static str,
    role: Role,
}

impl Market {
    /// Publishes the dataset as `publisher`, brings the miner in and asks what the task costs.
    pub async fn open(publisher: &Client, dice: &mut Dice) -> Result<Self, ErrorBody> {
        let storage = Node::new("shelf", Role::Storage, dice)?;
        // Once it was seen, its receipts count.
        drop(storage.join(publisher).await?);
        publisher.register("publisher").await?;
        let (manifest, receipt) = (manifest(), storage.receipt(publisher));
        let dataset = publisher.publish(manifest, vec![receipt]).await?;
        let mut market = Self {
            miner: Node::new("idler", Role::Miner, dice)?,
            listening: None,
            task: task(dataset),
        };
        market.join(publisher).await?;
        market.task.max_cost = publisher.quote(&market.task).await?.cost_high;
        Ok(market)
    }

    /// Brings the miner in again, after a kill.
    pub async fn join(&mut self, client: &Client) -> Result<(), ErrorBody> {
        self.leave();
        let commands = self.miner.join(client).await?;
        self.listening = Some(tokio::spawn(hear_all(commands)));
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }
}

impl Drop for Market {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn hear_all(mut commands: Subscription) {
    while let Some(Ok(_)) = commands.next::<Command>().await {}
}

impl Node {
    fn new(name: &'static str, role: Role, dice: &mut Dice) -> Result<Self, ErrorBody> {
        Ok(Self {
            endpoint: Endpoint::dialler()?,
            key: SecretKey::from_seed(dice.bytes()),
            owner: SecretKey::from_seed(dice.bytes()),
            name,
            role,
        })
    }

    /// Joins the coordinator of `client`. The node stays for as long as its commands are listened to.
    async fn join(&self, client: &Client) -> Result<Subscription, ErrorBody> {
        let connection = self
            .endpoint
            .dial(client.coordinator(), ALPN_NODE, &self.key)
            .await?;
        let node = NodeId::of_key(&self.key.public());
        let join = Join {
            delegation: delegation(node, self.role, &client.network(), &self.owner),
            name: self.name.to_owned(),
            listen: (self.role == Role::Storage).then(|| NO_PORT.to_owned()),
            capacity: Capacity::default(),
            activity: Activity::Idle,
            running: None,
        };
        let mut commands = connection.subscribe(&Request::Join(Box::new(join))).await?;
        match tokio::time::timeout(JOIN_LIMIT, commands.next::<Command>()).await {
            Ok(Some(Ok(Command::Joined { .. }))) => Ok(commands),
            Ok(Some(Err(refusal))) => Err(refusal),
            _ => Err(ErrorBody::network("no_answer", "joining was not answered")),
        }
    }

    fn receipt(&self, client: &Client) -> StoredReceipt {
        let (blob, bytes) = (BlobId::of_bytes(CONTENT), CONTENT.len() as u64);
        StoredReceipt::sign(blob, bytes, client.now(), &self.key)
    }
}

fn manifest() -> Manifest {
    let format = DataFormat::Csv {
        file: FILE.to_owned(),
        label: "kind".to_owned(),
        split_seed: 1,
    };
    Manifest {
        name: "table".to_owned(),
        kind: ItemKind::Dataset(DatasetInfo {
            format,
            train_samples: 80,
            test_samples: 20,
            input: vec![2],
            classes: ["x", "y"].map(str::to_owned).into(),
        }),
        files: vec![FileEntry {
            name: FILE.to_owned(),
            blob: BlobId::of_bytes(CONTENT),
            bytes: CONTENT.len() as u64,
        }],
        access: Access::Free,
        licence: "CC0-1.0".to_owned(),
        source: "made up for a benchmark".to_owned(),
    }
}

fn task(dataset: ItemId) -> TaskSpec {
    let model = ModelSpec {
        input: vec![2],
        layers: vec![Layer::Linear { out: 2 }],
    };
    let train = TrainSpec {
        epochs: 1,
        global_batch: 8,
        optimizer: Optimizer::adamw(1e-3),
        seed: 1,
        checkpoint_steps: 5,
    };
    TaskSpec {
        name: "held".to_owned(),
        work: Work::Train {
            dataset,
            model,
            train,
        },
        miners: 1,
        max_cost: Amount::from_base_units(1),
        access: Access::Owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dataset_and_task_are_in_order() {
        manifest().check().unwrap();
        task(ItemId::new([1; 16])).check().unwrap();
    }
}
