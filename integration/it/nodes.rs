//! A whole network in one process: every node with its own folder, key and real QUIC socket.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use cryptomind_actors::coordinator::{self, CoordinatorNode};
use cryptomind_actors::miner::{self, MinerConfig, MinerNode};
use cryptomind_actors::storage::{self, StorageNode};
use cryptomind_config::{Coordinator, Miner, Storage};
use cryptomind_gpu::dataset;
use cryptomind_protocol::item::{Access, ItemKind, Manifest};
use cryptomind_protocol::model::{Layer, Loss, ModelSpec};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{
    Activity, Conditions, Event, Optimizer, Split, TaskEvent, TaskSpec, TrainSpec, Work,
};
use cryptomind_protocol::transaction::{Action, Outcome};
use cryptomind_protocol::{AccountId, Amount, ItemId, NodeAddress, NodeId, SecretKey};
use cryptomind_sdk::Client;
use tempfile::TempDir;

/// No wait of a test is longer than this.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

/// A coordinator, a storage node and miners.
pub struct Network {
    pub dir: TempDir,
    pub coordinator: CoordinatorNode,
    pub storage: StorageNode,
    pub miners: Vec<MinerNode>,
}

/// Different for every number.
pub fn key(number: u8) -> SecretKey {
    SecretKey::from_seed([number; 32])
}

/// An owner lets a node work for it.
pub async fn delegate(address: &NodeAddress, owner: &SecretKey, node: &SecretKey, role: Role) {
    let client = Client::connect(address.clone(), owner.clone())
        .await
        .unwrap();
    let node = NodeId::of_key(&node.public());
    let expires = client.now().plus_ms(3_600_000);
    client.delegate(node, role, expires).await.unwrap();
    client.close().await;
}

fn loopback() -> std::net::SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn coordinator_config(dir: &Path) -> Coordinator {
    let mut config = Coordinator::default();
    config.node.data_dir = dir.join("coordinator");
    config.node.listen = loopback();
    config
}

impl Network {
    /// Starts all of them and waits until everybody has joined.
    pub async fn start(miners: u8) -> Self {
        Self::tested(miners, 0).await
    }

    /// The same with miners that test themselves for so many seconds.
    pub async fn tested(miners: u8, seconds: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let coordinator = coordinator::start(coordinator_config(dir.path()), key(1))
            .await
            .unwrap();
        let address = coordinator.address();
        let storage = start_storage(dir.path(), address.clone()).await;
        let mut nodes = Vec::new();
        for number in 0..miners {
            nodes.push(start_miner(dir.path(), number, address.clone(), seconds).await);
        }
        for miner in &nodes {
            within("a miner joins", miner.joined()).await;
        }
        Self {
            dir,
            coordinator,
            storage,
            miners: nodes,
        }
    }

    pub async fn client(&self, number: u8) -> Client {
        Client::connect(self.coordinator.address(), key(number))
            .await
            .unwrap()
    }

    /// A client with a name, money and the digits as a dataset.
    pub async fn client_with_digits(&self, number: u8, name: &str) -> (Client, ItemId) {
        let client = self.client(number).await;
        client.register(name).await.unwrap();
        client.faucet().await.unwrap();
        let item = publish_digits(&client, self.dir.path()).await;
        (client, item)
    }

    /// Looks until no miner is busy any more: the network tells no other way.
    pub async fn all_idle(&self, client: &Client) {
        while client
            .miners()
            .await
            .unwrap()
            .iter()
            .any(|m| m.activity != Activity::Idle)
        {
            tokio::task::yield_now().await;
        }
    }

    pub async fn stop(self) {
        for miner in self.miners {
            miner.shutdown().await;
        }
        self.storage.shutdown().await;
        self.coordinator.shutdown().await;
    }
}

async fn start_storage(dir: &Path, address: NodeAddress) -> StorageNode {
    delegate(&address, &key(90), &key(2), Role::Storage).await;
    let mut config = Storage::new(address);
    config.node.account = Some(AccountId::of_key(&key(90).public()));
    config.node.data_dir = dir.join("storage");
    config.node.listen = loopback();
    let node = storage::start(config, key(2)).await.unwrap();
    within("the storage node joins", node.joined()).await;
    node
}

async fn start_miner(dir: &Path, number: u8, address: NodeAddress, seconds: u64) -> MinerNode {
    let (owner, key) = (key(50 + number), key(10 + number));
    delegate(&address, &owner, &key, Role::Miner).await;
    let mut settings = Miner::new(address);
    settings.node.name = format!("m{number}");
    settings.node.data_dir = dir.join(format!("miner-{number}"));
    settings.compute.threads = 1;
    settings.selftest.seconds = seconds;
    settings.compute.max_memory = Some(256 << 20);
    settings.node.account = Some(AccountId::of_key(&owner.public()));
    miner::start(MinerConfig { settings, key }).await.unwrap()
}

/// Writes the bundled digits into a folder and publishes them for a fee.
pub async fn publish_digits(client: &Client, dir: &Path) -> ItemId {
    let fee = Amount::from_base_units(2_000_000);
    publish(client, dir, Access::Paid { fee }).await
}

/// The same for nothing.
pub async fn publish_free_digits(client: &Client, dir: &Path) -> ItemId {
    publish(client, dir, Access::Free).await
}

async fn publish(client: &Client, dir: &Path, access: Access) -> ItemId {
    let folder = dir.join("digits");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes) in cryptomind_gpu::digits::files() {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let (info, paths) = dataset::inspect_idx(&folder).unwrap();
    let named = |path: &std::path::PathBuf| {
        (
            path.file_name().unwrap().to_str().unwrap().to_owned(),
            path.clone(),
        )
    };
    let files = paths.iter().map(named).collect();
    let stored = client.upload(files, &mut |_| {}).await.unwrap();
    let (files, receipts) = stored.into_iter().unzip();
    let manifest = Manifest {
        name: "digits".into(),
        kind: ItemKind::Dataset(info),
        files,
        access,
        licence: "CC-BY-4.0".into(),
        source: "UCI".into(),
    };
    match client
        .submit(Action::Publish { manifest, receipts })
        .await
        .unwrap()
        .outcome
    {
        Outcome::Published { item } => item,
        other => panic!("{other:?}"),
    }
}

/// Training of the MLP 64-64-10 on the digits.
pub fn training(dataset: ItemId, miners: u32, epochs: u32) -> TaskSpec {
    let layers = vec![Layer::linear(64), Layer::Relu {}, Layer::linear(10)];
    TaskSpec {
        name: "digits-mlp".into(),
        work: Work::Train {
            dataset,
            model: ModelSpec {
                input: vec![8, 8],
                layers,
                loss: Loss::default(),
            },
            train: TrainSpec {
                epochs,
                global_batch: 32,
                optimizer: Optimizer::adamw(1e-3),
                seed: 7,
                checkpoint_steps: 45,
                ..TrainSpec::default()
            },
        },
        miners,
        max_cost: "50".parse().unwrap(),
        access: Access::Free,
        conditions: Conditions::default(),
    }
}

/// Classification of the digits' test images.
pub fn inference(model: ItemId, dataset: ItemId) -> TaskSpec {
    TaskSpec {
        name: "classify".into(),
        work: Work::Infer {
            model,
            dataset,
            split: Split::Test,
        },
        miners: 1,
        max_cost: "50".parse().unwrap(),
        access: Access::Owner,
        conditions: Conditions::default(),
    }
}

/// All events of a task up to its settlement, with their numbers checked.
pub async fn follow(
    client: &Client,
    task: cryptomind_protocol::TaskId,
    mut seen: impl FnMut(&Event),
) -> Vec<TaskEvent> {
    let mut watch = client.watch(task, 0);
    let mut events: Vec<TaskEvent> = Vec::new();
    while let Some(event) = within(&format!("what follows {:?}", events.last()), watch.next()).await
    {
        let event = event.unwrap();
        assert_eq!(event.number, events.len() as u64, "events have no gaps");
        seen(&event.event);
        events.push(event);
    }
    assert!(matches!(
        events.last().unwrap().event,
        Event::Settled { .. }
    ));
    events
}

/// Sums of a settlement by what they were for.
pub fn sums(events: &[TaskEvent]) -> BTreeMap<cryptomind_protocol::task::Reason, u64> {
    let Some(Event::Settled { payments, .. }) = events.last().map(|e| &e.event) else {
        panic!("not settled");
    };
    let mut sums = BTreeMap::new();
    for payment in payments {
        *sums.entry(payment.reason).or_insert(0) += payment.amount.base_units();
    }
    sums
}

/// A file that only its owner reads, as a key has to be.
pub fn write_closed(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
