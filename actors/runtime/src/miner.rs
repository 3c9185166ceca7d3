//! A miner: one node that computes for others, and runs its owner's program otherwise.
//!
//! ```text
//! MinerNode ── Tree ─┬─ Idle     the owner's program            (idle.rs)
//!                    ├─ Link     the coordinator's connection   (miner/link.rs)
//!                    │    └─ Prober   links to other miners      (miner/probe.rs)
//!                    └─ Worker   offers and runs                (miner/worker.rs)
//!                         └─ Run   one task, all attempts       (miner/run.rs)
//!                              ├─ training thread               (miner/train.rs)
//!                              ├─ its word on each step         (miner/audit.rs)
//!                              ├─ uploads                       (miner/uploads.rs)
//!                              └─ a session's door              (miner/serve.rs)
//! ```
//!
//! Commands come in through the link and go to the worker; news goes out through the outbox, which the link
//! empties. Before any of it starts, the machine tests itself (miner/selftest.rs). What outlives the actors is in [`worker::Context`]: outbox, standing, cache. A miner keeps no money and no state that
//! matters beyond its process: a coordinator that does not hear of it replaces it.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_config::{Miner, RingProfile};
use cryptomind_gpu::memory;
use cryptomind_net::Endpoint;
use cryptomind_net::ring::Profile;
use cryptomind_protocol::node::Capacity;
use cryptomind_protocol::selftest::Report;
use cryptomind_protocol::speed::Engine;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId, SecretKey, Timestamp};
use tokio::sync::watch;

use crate::cache::Cache;
use crate::clock;
use crate::enrol;
use crate::idle::{Idle, IdleMsg, Settings};
use crate::supervisor::{Child, Handle, Limits, Tree, seat};
use crate::transfer::Transfer;

mod audit;
mod card;
pub(crate) mod infer;
mod link;
mod outbox;
mod probe;
mod rehearsal;
mod run;
pub mod selftest;
mod serve;
mod standing;
pub mod train;
mod uploads;
mod worker;

pub use run::Ending;
pub use train::Fault;
pub use worker::{Place, WorkerMsg, WorkerStatus};

use link::{Link, Wiring};
use worker::{Context, Worker};

/// The longest wait before the clock is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// What a part gets to end beyond the idle command's own limit.
const DRAIN_SLACK: Duration = Duration::from_secs(10);
/// What a miner that is shut down waits to be let go by its group; then it goes anyway.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);

/// What a miner is started with.
#[derive(Debug, Clone)]
pub struct MinerConfig {
    /// `miner.toml`.
    pub settings: Miner,
    /// The node's key.
    pub key: SecretKey,
}

/// A running miner.
#[derive(Debug)]
pub struct MinerNode {
    /// The GPU worker.
    pub worker: Handle<WorkerMsg>,
    /// The owner's program.
    pub idle: Handle<IdleMsg>,
    /// Who this is.
    pub node_id: NodeId,
    tree: Tree,
    endpoint: EndpointOf,
    joined: watch::Receiver<bool>,
    tested: Tested,
}

/// How long the self-test's report holds that a miner joined with.
#[derive(Debug)]
struct Tested {
    until: Timestamp,
    busy: watch::Receiver<bool>,
}

/// An endpoint says nothing about itself.
struct EndpointOf(Endpoint);

impl std::fmt::Debug for EndpointOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.0.local_addr())
    }
}

/// Has the machine test itself where no report of it holds, then starts the miner. It connects by itself, for as long as it takes; see
/// [`MinerNode::joined`].
///
/// # Errors
/// `no_owner`, `bad_data_dir`, `bad_cache`, and whatever keeps a part from starting.
pub async fn start(config: MinerConfig) -> Result<MinerNode, ErrorBody> {
    let MinerConfig { settings, key } = config;
    let node = &settings.node;
    std::fs::create_dir_all(&node.data_dir).map_err(|e| {
        ErrorBody::user("bad_data_dir", format!("{}: {e}", node.data_dir.display()))
    })?;
    let owner = node.account.ok_or_else(enrol::no_owner)?;
    let report = selftest::taken(&settings, NodeId::of_key(&key.public())).await?;
    Parts::new(settings, key, owner, report)?.start().await
}

/// What the machine has and how fast it is.
const fn profile(named: RingProfile) -> Profile {
    match named {
        RingProfile::Loopback => Profile::Loopback,
        RingProfile::Lan => Profile::Lan,
    }
}

fn capacity(report: &Report, max_memory: Option<u64>) -> Capacity {
    Capacity {
        threads: report.machine.threads,
        devices: report.machine.devices.clone(),
        engine: Engine::Cpu,
        memory_bytes: memory::available(max_memory),
        mflops: report.work.mflops(),
        free_bytes: 0,
    }
}

struct Parts {
    /// Until when the report holds that it joins with.
    tested: Timestamp,
    idle: (crate::supervisor::Seat<IdleMsg>, Handle<IdleMsg>, Settings),
    worker: (crate::supervisor::Seat<WorkerMsg>, Handle<WorkerMsg>),
    wiring: Arc<Wiring>,
}

impl Parts {
    fn new(
        settings: Miner,
        key: SecretKey,
        owner: AccountId,
        report: Report,
    ) -> Result<Self, ErrorBody> {
        let tested = report.made.plus_ms(selftest::age_limit_ms(&settings));
        let Miner {
            coordinator,
            node,
            compute,
            ring,
            probe,
            selftest: _,
            market,
            idle,
            cache,
        } = settings;
        let mut idle_settings = Settings::new(idle.command, &node.data_dir);
        idle_settings.stop_limit = Duration::from_secs(idle.stop_limit_s);
        let endpoint = Endpoint::dialler()?;
        let (idle_seat, idle_handle) = seat("idle command");
        let (worker_seat, worker_handle) = seat("worker");
        let context = Arc::new(Context {
            outbox: outbox::Outbox::default(),
            joined: watch::Sender::new(false),
            standing: standing::Standing::new(idle_settings.activity()),
            idle: idle_handle.clone(),
            idle_held: Arc::clone(&idle_settings.held),
            idle_stop_limit: idle_settings.stop_limit,
            cache: Cache::open(&node.data_dir.join("cache"), cache.max_bytes)?,
            transfer: Transfer::new(endpoint.clone(), key.clone()),
            threads: compute.threads,
            memory_max: compute.max_memory,
            ring_host: ring.host,
            ring_ports: ring.ports,
            ring_profile: ring.profile.map(profile),
            key,
        });
        let (dialler, listen) = (endpoint.clone(), probe.listen);
        let prober = probe::Prober::new(Arc::clone(&context), dialler, listen, coordinator.node);
        let wiring = Arc::new(Wiring {
            prober: Arc::new(prober),
            node: NodeId::of_key(&context.key.public()),
            context,
            worker: worker_handle.clone(),
            endpoint,
            coordinator,
            name: node.name,
            owner,
            capacity: capacity(&report, compute.max_memory),
            report,
            reserve: market.reserve,
        });
        Ok(Self {
            tested,
            idle: (idle_seat, idle_handle, idle_settings),
            worker: (worker_seat, worker_handle),
            wiring,
        })
    }

    async fn start(self) -> Result<MinerNode, ErrorBody> {
        let (idle_seat, idle, settings) = self.idle;
        let (worker_seat, worker) = self.worker;
        let wiring = self.wiring;
        let limits = Limits {
            drain: settings.stop_limit + DRAIN_SLACK,
            ..Limits::default()
        };
        let (link_seat, _) = seat("link");
        let (linked, context) = (Arc::clone(&wiring), Arc::clone(&wiring.context));
        let children = vec![
            Child::new(idle_seat, move || (Idle, settings.clone())),
            Child::new(link_seat, move || (Link, Arc::clone(&linked))),
            Child::new(worker_seat, move || (Worker, Arc::clone(&context))),
        ];
        Ok(MinerNode {
            worker,
            idle,
            node_id: wiring.node,
            tree: Tree::start(limits, children).await?,
            endpoint: EndpointOf(wiring.endpoint.clone()),
            joined: wiring.context.joined.subscribe(),
            tested: Tested {
                until: self.tested,
                busy: wiring.context.standing.busy(),
            },
        })
    }
}

impl MinerNode {
    /// Waits until the coordinator has taken this miner in.
    pub async fn joined(&self) {
        // The sender lives as long as the tree.
        let _ = self.joined.clone().wait_for(|joined| *joined).await;
    }

    /// Waits until restarting its parts no longer helps, and says why: the process should end then.
    pub async fn failed(&self) -> String {
        self.tree.failed().await
    }

    /// Waits until the self-test is due again and no task runs: then shut this one down and [`start`] another, which takes it.
    pub async fn test_due(&self) {
        loop {
            let left = self.tested.until.ms_since(clock::now());
            if left == 0 {
                break;
            }
            // The clock may be set, and a machine may sleep, while this waits.
            tokio::time::sleep(Duration::from_millis(left).min(LOOK_AGAIN)).await;
        }
        // The sender lives as long as the tree.
        let _ = self.tested.busy.clone().wait_for(|busy| !*busy).await;
    }

    /// Leaves the run it is in, ends the owner's program, says goodbye. Returns when nothing is left running.
    pub async fn shutdown(self) {
        self.leave().await;
        self.tree.stop().await;
        self.endpoint.0.close("the miner stops").await;
    }

    /// Takes no more tasks, and waits to be let go, as long as there is somebody who could and no longer than
    /// [`LEAVE_LIMIT`].
    async fn leave(&self) {
        let reason = "its owner stops this miner".to_owned();
        let left = |reply| WorkerMsg::Leave { reason, reply };
        let mut joined = self.joined.clone();
        tokio::select! {
            // A worker that is too slow, or is being restarted, is left behind.
            _ = self.worker.call(left, LEAVE_LIMIT) => {}
            // The sender lives as long as the tree.
            _ = joined.wait_for(|joined| !*joined) => {}
        }
    }
}

#[cfg(test)]
mod tests;
