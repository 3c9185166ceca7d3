//! What a miner sees of the network, in one place: a coordinator that does as the test says and records what it is told,
//! and a storage node in memory, on one real endpoint.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cryptomind_config::{
    Asking, Cache, Compute, Idle, MinerNode as NodeSettings, Probe, Ring, Selftest,
};
use cryptomind_net::{Connection, Endpoint, Exchange, Limits, bulk};
use cryptomind_protocol::blob::{self, Right, Source, Ticket};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::{ALPN_BLOB, ALPN_NODE};
use cryptomind_protocol::item::{DatasetInfo, FileEntry};
use cryptomind_protocol::node::{self, Ack, Command, Enrolment, Match, Report, Request};
use cryptomind_protocol::probe;
use cryptomind_protocol::task::{Member, ResultFile, TaskSpec};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{
    AccountId, BlobId, ErrorBody, GenesisHash, NodeAddress, NodeId, SecretKey, Signed, TaskId,
    Timestamp,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::miner::worker::WorkerMsg;
use crate::miner::{MinerConfig, MinerNode};
use crate::transfer::{Packed, Reading};

/// A test hangs no longer than this.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const NETWORK: GenesisHash = GenesisHash::new([1; 32]);
const NOW: Timestamp = Timestamp::from_ms(1);
const LATER: Timestamp = Timestamp::from_ms(u64::MAX);

fn owner() -> SecretKey {
    SecretKey::from_seed([200; 32])
}

/// What a node said.
pub type Said = (NodeId, Request);

struct Shared {
    key: SecretKey,
    blobs: Mutex<HashMap<BlobId, Packed>>,
    /// Blobs of which the next copy is sent with a wrong byte.
    damaged: Mutex<Vec<BlobId>>,
    members: Mutex<HashMap<NodeId, mpsc::UnboundedSender<Command>>>,
    said: mpsc::UnboundedSender<Said>,
}

pub struct Hall {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    said: mpsc::UnboundedReceiver<Said>,
    /// What was said and not yet asked for.
    heard: Vec<Said>,
}

fn serve(shared: &Arc<Shared>, at: SocketAddr) -> Endpoint {
    let alpns = &[ALPN_NODE, ALPN_BLOB];
    let endpoint =
        Endpoint::serve(at, shared.key.clone(), NETWORK, alpns, Limits::default()).unwrap();
    let (door, shared) = (endpoint.clone(), Arc::clone(shared));
    tokio::spawn(async move {
        while let Some(pending) = door.accept().await {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                if let Ok(connection) = pending.establish().await {
                    attend(&shared, &connection).await;
                }
            });
        }
    });
    endpoint
}

async fn attend(shared: &Arc<Shared>, connection: &Connection) {
    while let Some(exchange) = connection.accept_request().await {
        let (shared, node) = (Arc::clone(shared), connection.peer_node());
        if connection.alpn() == ALPN_BLOB {
            tokio::spawn(async move { store(&shared, exchange).await });
        } else {
            // In turn, as a coordinator's order of events is that of the reports.
            answer(&shared, node, exchange).await;
        }
    }
}

async fn answer(shared: &Arc<Shared>, node: NodeId, exchange: Exchange) {
    let request: Request = exchange.decode(&node::METHODS).unwrap();
    let _ = shared.said.send((node, request.clone()));
    match request {
        Request::Enrol { .. } => {
            let granted = Enrolment::Granted { expires: LATER };
            exchange.answer(Ok(granted)).await;
        }
        Request::Join(_) => {
            let (commands, mut receiver) = mpsc::unbounded_channel();
            let _ = commands.send(Command::Joined { now: NOW });
            shared.members.lock().unwrap().insert(node, commands);
            let (mut sender, _receiver) = exchange.into_stream();
            tokio::spawn(async move {
                while let Some(command) = receiver.recv().await {
                    if sender.frame(&Answer::Ok(command)).await.is_err() {
                        return;
                    }
                }
            });
        }
        _ => exchange.answer(Ok(Ack {})).await,
    }
}

/// Serves a blob, once with a wrong byte where the test wants that.
struct Serving<'a> {
    reading: Reading<'a>,
    damaged: bool,
}

impl bulk::Origin for Serving<'_> {
    fn bytes(&self) -> u64 {
        self.reading.bytes()
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        self.reading.hashes()
    }

    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
        let mut chunk = self.reading.chunk(index)?;
        chunk[0] ^= u8::from(self.damaged);
        Ok(chunk)
    }
}

#[derive(Default)]
struct Taking(Vec<u8>);

impl bulk::Sink for Taking {
    fn begin(&mut self, _: u64, _: Vec<[u8; 32]>) -> Result<(), ErrorBody> {
        Ok(())
    }

    fn chunk(&mut self, _: u64, data: &[u8]) -> Result<(), ErrorBody> {
        self.0.extend_from_slice(data);
        Ok(())
    }
}

async fn store(shared: &Shared, exchange: Exchange) {
    match exchange.decode(&blob::METHODS).unwrap() {
        blob::Request::Get {
            blob, first_chunk, ..
        } => {
            let found = shared.blobs.lock().unwrap().get(&blob).cloned();
            let Some(packed) = found else {
                let none = ErrorBody::not_found("blob", "not here");
                return exchange.answer(Err::<blob::GetOk, _>(none)).await;
            };
            let damaged = {
                let mut list = shared.damaged.lock().unwrap();
                let at = list.iter().position(|b| *b == blob);
                at.map(|at| list.remove(at)).is_some()
            };
            let (mut sender, _receiver) = exchange.into_stream();
            let mut serving = Serving {
                reading: Reading(&packed),
                damaged,
            };
            let _ = bulk::serve_get(&mut sender, first_chunk, &mut serving).await;
            let _ = sender.finish().await;
        }
        blob::Request::Put { blob, bytes, .. } => {
            let (mut sender, mut receiver) = exchange.into_stream();
            let mut taking = Taking::default();
            bulk::serve_put(&mut sender, &mut receiver, bytes, 0, &mut taking)
                .await
                .unwrap();
            let packed = Packed::new(taking.0);
            assert_eq!(packed.id(), blob);
            shared.blobs.lock().unwrap().insert(blob, packed);
            let receipt = StoredReceipt::sign(blob, bytes, NOW, &shared.key);
            let _ = sender.frame(&Answer::Ok(receipt)).await;
            let _ = sender.finish().await;
        }
        blob::Request::Has { .. } => {}
    }
}

impl Hall {
    pub fn open() -> Self {
        let (said_sender, said) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            key: SecretKey::from_seed([100; 32]),
            blobs: Mutex::default(),
            damaged: Mutex::default(),
            members: Mutex::default(),
            said: said_sender,
        });
        let endpoint = serve(&shared, (Ipv4Addr::LOCALHOST, 0).into());
        Self {
            shared,
            endpoint,
            said,
            heard: Vec::new(),
        }
    }

    /// All connections are lost; the same coordinator comes back at the same address.
    pub async fn restart(&mut self) {
        let place = self.go_away().await;
        self.come_back(place).await;
    }

    /// All connections are lost. Its place is kept, and nobody answers there.
    pub async fn go_away(&mut self) -> UdpSocket {
        let at = self.endpoint.local_addr();
        self.endpoint.close("going away").await;
        self.shared.members.lock().unwrap().clear();
        // The system gives the port back once the old socket's last handle is gone.
        self.endpoint = Endpoint::dialler().unwrap();
        let begin = std::time::Instant::now();
        loop {
            if let Ok(kept) = UdpSocket::bind(at) {
                return kept;
            }
            assert!(begin.elapsed() < PATIENCE, "the port stays taken");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The same coordinator comes back to the place that was kept for it.
    pub async fn come_back(&mut self, kept: UdpSocket) {
        let at = kept.local_addr().unwrap();
        drop(kept);
        self.endpoint = serve(&self.shared, at);
    }

    fn node(&self) -> NodeId {
        NodeId::of_key(&self.shared.key.public())
    }

    fn source(&self) -> Source {
        Source {
            node: self.node(),
            address: self.endpoint.local_addr().to_string(),
        }
    }

    pub fn put(&self, content: &[u8]) -> (BlobId, u64) {
        let packed = Packed::new(content.to_vec());
        let (id, bytes) = (packed.id(), packed.len());
        self.shared.blobs.lock().unwrap().insert(id, packed);
        (id, bytes)
    }

    pub fn damage_once(&self, blob: BlobId) {
        self.shared.damaged.lock().unwrap().push(blob);
    }

    pub fn blob(&self, file: &ResultFile) -> Vec<u8> {
        let blobs = self.shared.blobs.lock().unwrap();
        let packed = blobs
            .get(&file.blob)
            .expect("the receipt says that it is stored");
        assert_eq!(packed.len(), file.bytes);
        let count = packed.len().div_ceil(blob::CHUNK_BYTES as u64);
        let mut reading = Reading(packed);
        let chunk = |i| bulk::Origin::chunk(&mut reading, i).unwrap();
        (0..count).flat_map(chunk).collect()
    }

    /// The digits, stored, as a dataset.
    pub fn digits(&self) -> (DatasetInfo, Vec<FileEntry>) {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (name, content) in cryptomind_gpu::digits::files() {
            std::fs::write(dir.path().join(name), content).unwrap();
            let (blob, bytes) = self.put(content);
            files.push(FileEntry {
                name: name.into(),
                blob,
                bytes,
            });
        }
        let (info, _) = cryptomind_gpu::dataset::inspect_idx(dir.path()).unwrap();
        (info, files)
    }

    /// A miner whose idle command writes its process id into `pid`.
    pub async fn miner(&self, number: u8) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {} || exit 9; echo $$ > pid.new; mv pid.new pid; exec sleep 1000",
            dir.path().display()
        );
        let command = ["sh", "-c", &script].map(String::from).to_vec();
        let settings = cryptomind_config::Miner {
            coordinator: NodeAddress {
                node: self.node(),
                host: "127.0.0.1".into(),
                port: self.endpoint.local_addr().port(),
            },
            node: NodeSettings {
                name: format!("miner-{number}"),
                data_dir: dir.path().to_owned(),
                key_file: dir.path().join("node.key"),
                account: Some(AccountId::of_key(&owner().public())),
            },
            compute: Compute {
                threads: 1,
                max_memory: Some(256 << 20),
            },
            ring: Ring::default(),
            probe: Probe::default(),
            selftest: Selftest {
                seconds: 0,
                ..Selftest::default()
            },
            market: Asking::default(),
            idle: Idle {
                command,
                ..Idle::default()
            },
            cache: Cache::default(),
        };
        let config = MinerConfig {
            settings,
            key: SecretKey::from_seed([number + 1; 32]),
        };
        let node = crate::miner::start(config).await.unwrap();
        tokio::time::timeout(PATIENCE, node.joined()).await.unwrap();
        Guest { dir, node }
    }

    pub async fn miners(&self, count: u8) -> Vec<Guest> {
        let mut guests = Vec::new();
        for number in 0..count {
            guests.push(self.miner(number).await);
        }
        guests
    }

    pub fn tell(&self, node: NodeId, command: Command) {
        let members = self.shared.members.lock().unwrap();
        members[&node].send(command).expect("the node is connected");
    }

    /// Waits for something that fits, and takes it out of what was said. What does not fit stays.
    pub async fn hear<T>(&mut self, what: &str, fits: impl Fn(&Said) -> Option<T>) -> T {
        let taken = self.heard.iter().position(|said| fits(said).is_some());
        if let Some(at) = taken {
            let said = self.heard.remove(at);
            return fits(&said).expect("it did a moment ago");
        }
        let heard = async {
            loop {
                let said = self.said.recv().await.expect("the hall stands");
                match fits(&said) {
                    Some(found) => return found,
                    None => self.heard.push(said),
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, heard).await;
        found.unwrap_or_else(|_| panic!("never heard {what}; but: {:#?}", self.heard))
    }

    /// Waits for a report of this node in this attempt.
    pub async fn report<T>(
        &mut self,
        what: &str,
        (from, in_attempt): (NodeId, u32),
        fits: impl Fn(&Report) -> Option<T>,
    ) -> T {
        let fits = |(node, request): &Said| match request {
            Request::Report {
                attempt, report, ..
            } if *node == from && *attempt == in_attempt => fits(report),
            _ => None,
        };
        self.hear(what, fits).await
    }

    /// Announces a task, and returns the ring addresses that are offered.
    pub async fn announce(&mut self, task: TaskId, spec: &TaskSpec, to: &[NodeId]) -> Vec<String> {
        let mut addresses = Vec::new();
        for node in to {
            let spec = Box::new(spec.clone());
            self.tell(*node, Command::Announce { task, spec });
            let offer = |(from, request): &Said| match request {
                Request::Offer {
                    task: of,
                    ring_address,
                } if from == node && *of == task => Some(ring_address.clone()),
                _ => None,
            };
            addresses.push(self.hear("an offer", offer).await);
        }
        addresses
    }

    /// Lets the one measure its link to the other.
    pub fn probe_ticket(&self, (caller, callee): (NodeId, NodeId), bulk_bytes: u64) -> Signed {
        let ticket = probe::Ticket {
            version: 1,
            caller,
            callee,
            bulk_bytes,
            expires: LATER,
        };
        Signed::sign(&ticket, &NETWORK, &self.shared.key)
    }

    /// A match of these members, but for rank and the like.
    pub fn place(
        &self,
        task: TaskId,
        spec: &TaskSpec,
        (dataset, files): &(DatasetInfo, Vec<FileEntry>),
        members: &[NodeId],
        ring_addresses: Vec<String>,
    ) -> Match {
        let ticket = |right| Ticket {
            version: 1,
            bearer: owner().public(),
            right,
            task: Some(task),
            expires: LATER,
        };
        let sign = |right| Signed::sign(&ticket(right), &NETWORK, &self.shared.key);
        let member = |node: &NodeId| Member {
            node: *node,
            name: node.short(),
            owner: AccountId::of_key(&owner().public()),
        };
        Match {
            task,
            attempt: 1,
            spec: spec.clone(),
            dataset: Some(dataset.clone()),
            dataset_files: files.clone(),
            model: None,
            model_files: Vec::new(),
            caller: None,
            members: members.iter().map(member).collect(),
            ring_addresses,
            newcomers: Vec::new(),
            weights: Vec::new(),
            rank: 0,
            start_step: 0,
            resume: None,
            sources: vec![self.source()],
            get_ticket: sign(Right::Get { blobs: Vec::new() }),
            put_ticket: sign(Right::Put { max_bytes: 1 << 30 }),
        }
    }

    /// Sends every member its rank.
    pub fn seat(&self, place: &Match) {
        for (member, rank) in place.members.iter().zip(0..) {
            let mut place = place.clone();
            place.rank = rank;
            self.tell(member.node, Command::Match(Box::new(place)));
        }
    }

    /// Fingerprints by step, from each of these nodes, up to the step `last`.
    pub async fn fingerprints(
        &mut self,
        at: (NodeId, u32),
        last: u64,
    ) -> BTreeMap<u64, (String, Option<ResultFile>)> {
        let mut all = BTreeMap::new();
        while !all.contains_key(&last) {
            let (step, seen) = self
                .report("a checkpoint", at, |report| match report {
                    Report::Checkpoint {
                        step,
                        fingerprint,
                        stored,
                        ..
                    } => {
                        let file = stored.as_ref().map(|(file, receipt)| {
                            assert!(receipt.is_signed() && receipt.blob == file.blob);
                            file.clone()
                        });
                        Some((*step, (fingerprint.to_string(), file)))
                    }
                    _ => None,
                })
                .await;
            all.insert(step, seen);
        }
        all
    }
}

/// A miner in the hall.
pub struct Guest {
    pub dir: TempDir,
    pub node: MinerNode,
}

impl Guest {
    pub fn id(&self) -> NodeId {
        self.node.node_id
    }

    fn pid(&self) -> Option<String> {
        std::fs::read_to_string(self.pid_file()).ok()
    }

    fn pid_file(&self) -> std::path::PathBuf {
        self.dir.path().join("pid")
    }

    /// Waits until the idle command runs, and forgets that it was seen.
    pub async fn mines(&self) -> String {
        let begin = std::time::Instant::now();
        loop {
            if let Some(pid) = self.pid() {
                std::fs::remove_file(self.pid_file()).unwrap();
                return pid.trim().to_owned();
            }
            assert!(begin.elapsed() < PATIENCE, "the idle command does not run");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until this miner is in that attempt.
    pub async fn attempt(&self, attempt: u32) {
        let begin = std::time::Instant::now();
        loop {
            let status = self.node.worker.call(WorkerMsg::Status, PATIENCE);
            let position = status.await.unwrap().position;
            if position.is_some_and(|position| position.attempt == attempt) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "still at {position:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Whether the process computes.
pub fn lives(pid: &str) -> bool {
    Path::new("/proc").join(pid).exists()
}
