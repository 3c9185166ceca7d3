//! The GPU worker: offers this miner for tasks, and has one carried out at a time.
//!
//! The link hands it the coordinator's commands; it answers through the outbox. It decides what to answer an announcement,
//! keeps the ring sockets of its offers, and starts one [`run`] for a match, which does the rest on its own. Whatever the end of a
//! run, the idle command may run again.
//!
//! A worker that dies takes its run along: thread, ring and transfers are dropped with its state. Its successor sees in
//! [`Standing`] which run that was, reports it lost, and is available again.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cryptomind_config::PortRange;
use cryptomind_gpu::engine::{Cpu, Engine};
use cryptomind_gpu::memory;
use cryptomind_net::Endpoint;
use cryptomind_net::ring::{Profile, RingSocket};
use cryptomind_protocol::frame::ALPN_SERVE;
use cryptomind_protocol::node::{Command, Match, Position, Report, Request};
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::{Activity, TaskSpec, Work};
use cryptomind_protocol::{ErrorBody, GenesisHash, SecretKey, TaskId};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::outbox::Outbox;
use super::run::{self, Berth, Ending, Order};
use super::serve;
use super::standing::Standing;
use crate::cache::Cache;
use crate::idle::IdleMsg;
use crate::supervisor::Handle;
use crate::transfer::Transfer;

/// Offers that may be open at a time; the oldest is given up for a new one.
const OFFERS_MAX: usize = 8;
/// Orders that may wait for a run.
const ORDERS: usize = 16;
/// Memory that a task must leave to the rest of the machine, bytes.
const MEMORY_SPARE: u64 = 64 << 20;

/// What the parts of one miner share.
pub struct Context {
    /// This node's key.
    pub key: SecretKey,
    /// What is to be said to the coordinator.
    pub outbox: Outbox,
    /// Whether it is connected.
    pub joined: watch::Sender<bool>,
    /// Where this miner stands.
    pub standing: Standing,
    /// The owner's program.
    pub idle: Handle<IdleMsg>,
    /// Whether a task holds it off; see [`crate::idle::Settings::held`].
    pub idle_held: Arc<AtomicBool>,
    /// What it gets to end by itself.
    pub idle_stop_limit: Duration,
    /// Blobs on disk.
    pub cache: Cache,
    /// Blobs over the network.
    pub transfer: Transfer,
    /// Threads to compute with; 0 is all.
    pub threads: usize,
    /// The most memory that a task may take, bytes, where the owner says so.
    pub memory_max: Option<u64>,
    /// Where other miners reach this one, where the owner says so.
    pub ring_host: Option<String>,
    /// Ports for the ring, where the owner says so.
    pub ring_ports: Option<PortRange>,
    /// How packets of the ring travel, where the owner says so.
    pub ring_profile: Option<Profile>,
}

/// Where this miner is, seen from its connection to the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// This end of the connection.
    pub host: IpAddr,
    /// The network.
    pub network: GenesisHash,
}

impl Context {
    /// Tells the coordinator what transfers showed of links to storage nodes.
    pub fn tell_samples(&self) {
        let reports = self.transfer.samples().take();
        if !reports.is_empty() {
            let echoes = Vec::new();
            self.outbox.say(Request::Links { reports, echoes });
        }
    }

    /// A ring socket on a free port, and the address at which others reach it.
    pub fn bind_ring(&self, place: &Place) -> Result<(RingSocket, String), ErrorBody> {
        let bind = |at| RingSocket::bind(at, self.key.clone(), place.network);
        let socket = self.first_free(place, bind)?;
        let address = self.ring_address(place, socket.local_addr().port());
        Ok((socket, address))
    }

    /// A door for a session's client, on one of the ring's ports, and the address at which it is reached.
    pub fn open_door(&self, place: &Place) -> Result<(Endpoint, String), ErrorBody> {
        let (key, network, alpns) = (&self.key, place.network, &[ALPN_SERVE]);
        let open = |at| Endpoint::serve(at, key.clone(), network, alpns, serve::limits());
        let endpoint = self.first_free(place, open)?;
        let address = self.ring_address(place, endpoint.local_addr().port());
        Ok((endpoint, address))
    }

    /// What `bind` makes of the first port of the ring's that it can have.
    fn first_free<T>(
        &self,
        place: &Place,
        bind: impl Fn(SocketAddr) -> Result<T, ErrorBody>,
    ) -> Result<T, ErrorBody> {
        let any: IpAddr = match place.host {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let ports = self.ring_ports.map_or(0..=0, |p| p.first..=p.last);
        let mut last = ErrorBody::internal("no ring port is configured");
        for port in ports {
            match bind(SocketAddr::new(any, port)) {
                Ok(bound) => return Ok(bound),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn ring_address(&self, place: &Place, port: u16) -> String {
        match &self.ring_host {
            Some(host) if host.contains(':') => format!("[{host}]:{port}"),
            Some(host) => format!("{host}:{port}"),
            None => SocketAddr::new(place.host, port).to_string(),
        }
    }

    /// No task any more: the machine is its owner's again.
    fn rest(&self) {
        self.standing.rest(&self.outbox);
        self.idle_held.store(false, Ordering::SeqCst);
        // A front that is being restarted reads the flag when it is back.
        let _ = self.idle.cast(IdleMsg::Resume);
    }
}

/// What the worker is asked and told.
pub enum WorkerMsg {
    /// The coordinator's command, and where this miner is.
    Told(Box<Command>, Place),
    /// The owner wants the machine back: take no more tasks, and leave the run.
    Leave {
        /// Why, for those who are left.
        reason: String,
        /// Answered when there is no run any more.
        reply: RpcReplyPort<()>,
    },
    /// A run has ended.
    Ended {
        /// Its number.
        run: u64,
        /// How.
        ending: Ending,
    },
    /// How is it?
    Status(RpcReplyPort<WorkerStatus>),
}

/// How the worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// What the machine is busy with.
    pub activity: Activity,
    /// The run, where there is one.
    pub position: Option<Position>,
    /// Open offers.
    pub offers: usize,
}

/// The actor.
pub struct Worker;

/// What a worker knows; harmless to lose, see the module's words.
pub struct Working {
    context: Arc<Context>,
    offers: VecDeque<Offered>,
    run: Option<Running>,
    runs: u64,
    /// Whoever waits for this miner to have left; once there is somebody, it takes no more tasks.
    leaves: Vec<RpcReplyPort<()>>,
    is_leaving: bool,
}

struct Offered {
    task: TaskId,
    berth: Berth,
}

struct Running {
    number: u64,
    task: TaskId,
    orders: mpsc::Sender<Order>,
    driver: JoinHandle<Ending>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Actor for Worker {
    type Msg = WorkerMsg;
    type State = Working;
    type Arguments = Arc<Context>;

    async fn pre_start(
        &self,
        _: ActorRef<WorkerMsg>,
        context: Arc<Context>,
    ) -> Result<Working, ActorProcessingErr> {
        report_lost(&context, "the worker died and was restarted");
        context.rest();
        Ok(Working {
            context,
            offers: VecDeque::new(),
            run: None,
            runs: 0,
            leaves: Vec::new(),
            is_leaving: false,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<WorkerMsg>,
        message: WorkerMsg,
        working: &mut Working,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            WorkerMsg::Told(command, place) => working.told(&myself, *command, place),
            WorkerMsg::Leave { reason, reply } => working.leave(reason, reply),
            WorkerMsg::Ended { run, ending } => working.ended(run, &ending),
            WorkerMsg::Status(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(working.status());
            }
        }
        Ok(())
    }

    /// A miner that is shut down says so, or the others would have to find out.
    async fn post_stop(
        &self,
        _: ActorRef<WorkerMsg>,
        working: &mut Working,
    ) -> Result<(), ActorProcessingErr> {
        if working.run.take().is_some()
            && let Some(lost) = working.context.standing.position()
        {
            report_leaving(
                &working.context,
                lost.task,
                lost.attempt,
                "this miner is shut down",
            );
            working.context.standing.rest(&working.context.outbox);
        }
        Ok(())
    }
}

fn report_failed(context: &Context, task: TaskId, attempt: u32, reason: &str) {
    warn!("task {task}: {reason}");
    let report = Report::Failed {
        task_fault: false,
        reason: reason.into(),
    };
    context.outbox.report(task, attempt, report);
}

/// Says of the run, which cannot say it itself any more, that it is lost.
fn report_lost(context: &Context, reason: &str) {
    if let Some(lost) = context.standing.position() {
        report_failed(context, lost.task, lost.attempt, reason);
    }
}

/// It goes, and those who are left need not find out by themselves.
pub(super) fn report_leaving(context: &Context, task: TaskId, attempt: u32, reason: &str) {
    info!("task {task}: this miner leaves: {reason}");
    let reason = reason.into();
    context
        .outbox
        .report(task, attempt, Report::Leaving { reason });
}

impl Working {
    fn status(&self) -> WorkerStatus {
        WorkerStatus {
            activity: self.context.standing.activity(),
            position: self.context.standing.position(),
            offers: self.offers.len(),
        }
    }

    fn told(&mut self, myself: &ActorRef<WorkerMsg>, command: Command, place: Place) {
        match command {
            // The link keeps these.
            Command::Joined { .. } | Command::Probe { .. } => {}
            Command::Announce { task, spec } => self.announced(task, &spec, &place),
            Command::Withdraw { task, reason } => {
                info!("not needed for task {task}: {reason}");
                self.offers.retain(|o| o.task != task);
            }
            Command::Match(matched) => self.matched(myself, *matched, place),
            Command::Pause {
                task,
                attempt,
                at_step_end,
            } => {
                let pause = Order::Pause {
                    attempt,
                    at_step_end,
                };
                if !self.order(task, pause) {
                    report_failed(
                        &self.context,
                        task,
                        attempt,
                        "this miner is not in that run",
                    );
                }
            }
            Command::Stop { task, reason } => self.stop(task, reason),
        }
    }

    fn announced(&mut self, task: TaskId, spec: &TaskSpec, place: &Place) {
        match self.offer(task, spec, place) {
            Ok(ring_address) => self
                .context
                .outbox
                .say(Request::Offer { task, ring_address }),
            Err(reason) => self.context.outbox.say(Request::Decline { task, reason }),
        }
    }

    /// The ring address for an offer, or why there is none.
    fn offer(&mut self, task: TaskId, spec: &TaskSpec, place: &Place) -> Result<String, String> {
        if self.is_leaving {
            return Err("its owner stops this miner".into());
        }
        if let Some(run) = &self.run {
            return Err(format!("busy with task {}", run.task));
        }
        if let Some(offered) = self.offers.iter().find(|o| o.task == task) {
            return Ok(offered.berth.address.clone());
        }
        enough_memory(spec, memory::available(self.context.memory_max))?;
        let (socket, address) = self
            .context
            .bind_ring(place)
            .map_err(|e| format!("no ring socket: {e}"))?;
        if self.offers.len() >= OFFERS_MAX
            && let Some(old) = self.offers.pop_front()
        {
            self.decline(old.task, "more recent tasks came");
        }
        let ring_address = address.clone();
        let berth = Berth { socket, address };
        self.offers.push_back(Offered { task, berth });
        Ok(ring_address)
    }

    fn decline(&self, task: TaskId, reason: &str) {
        self.context.outbox.say(Request::Decline {
            task,
            reason: reason.into(),
        });
    }

    fn matched(&mut self, myself: &ActorRef<WorkerMsg>, matched: Match, place: Place) {
        let (task, attempt) = (matched.task, matched.attempt);
        if let Some(run) = &self.run {
            if run.task != task {
                let reason = format!("busy with task {}", run.task);
                report_failed(&self.context, task, attempt, &reason);
            } else {
                self.order(task, Order::Match(Box::new(matched)));
            }
            return;
        }
        if self.is_leaving {
            let reason = "its owner stops this miner";
            return report_leaving(&self.context, task, attempt, reason);
        }
        let Some(at) = self.offers.iter().position(|o| o.task == task) else {
            report_failed(&self.context, task, attempt, "the offer is no longer open");
            return;
        };
        let offers = std::mem::take(&mut self.offers);
        for (i, offered) in offers.into_iter().enumerate() {
            if i == at {
                self.start(myself, matched.clone(), place, offered.berth);
            } else {
                self.decline(offered.task, "chosen for another task");
            }
        }
    }

    fn start(&mut self, myself: &ActorRef<WorkerMsg>, matched: Match, place: Place, berth: Berth) {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let (task, number) = (matched.task, self.runs);
        self.runs += 1;
        self.context.standing.enter(task, matched.attempt);
        let context = Arc::clone(&self.context);
        let driver = run::drive(Arc::clone(&context), place, matched, berth, receiver);
        let ending = guard(context, tokio::spawn(driver));
        let worker = myself.clone();
        self.run = Some(Running {
            number,
            task,
            orders,
            driver: tokio::spawn(async move {
                let ending = ending.await;
                // A worker that is gone has a successor, which knows.
                let _ = worker.cast(WorkerMsg::Ended {
                    run: number,
                    ending: ending.clone(),
                });
                ending
            }),
        });
    }

    /// No more tasks; the run says that it wants to go, and ends when it is let go.
    fn leave(&mut self, reason: String, reply: RpcReplyPort<()>) {
        self.is_leaving = true;
        for offered in std::mem::take(&mut self.offers) {
            self.decline(offered.task, &reason);
        }
        self.leaves.push(reply);
        match self.run.as_ref().map(|run| run.task) {
            Some(task) => {
                self.order(task, Order::Leave { reason });
            }
            None => self.has_left(),
        }
    }

    fn has_left(&mut self) {
        for reply in self.leaves.drain(..) {
            // Whoever no longer waits has gone already.
            drop(reply.send(()));
        }
    }

    /// Passes an order on to the run of this task; false where there is none.
    fn order(&self, task: TaskId, order: Order) -> bool {
        let Some(run) = self.run.as_ref().filter(|run| run.task == task) else {
            return false;
        };
        if let Err(e) = run.orders.try_send(order) {
            warn!("task {task}: an order was lost: {e}");
        }
        true
    }

    fn stop(&mut self, task: TaskId, reason: String) {
        self.offers.retain(|o| o.task != task);
        self.context.outbox.forget(task);
        self.order(task, Order::Stop { reason });
    }

    fn ended(&mut self, number: u64, ending: &Ending) {
        let Some(run) = self.run.take_if(|run| run.number == number) else {
            return;
        };
        let task = run.task;
        match ending {
            Ending::Finished => info!("task {task}: done"),
            Ending::Stopped(reason) => info!("task {task}: {reason}"),
            Ending::Failed { reason, .. } => warn!("task {task}: {reason}"),
        }
        self.context.rest();
        self.has_left();
    }
}

/// How a run ended; one that died has failed, and that is reported. Aborted, it takes the run along.
async fn guard(context: Arc<Context>, driver: JoinHandle<Ending>) -> Ending {
    struct Guard(tokio::task::AbortHandle);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let _guard = Guard(driver.abort_handle());
    driver.await.unwrap_or_else(|e| {
        let reason = format!("the run died: {e}");
        report_lost(&context, &reason);
        Ending::Failed {
            task_fault: false,
            reason,
        }
    })
}

/// Refuses a task that does not fit; `available` is nothing where the system does not say.
fn enough_memory(spec: &TaskSpec, available: Option<u64>) -> Result<(), String> {
    let Work::Train { model, train, .. } = &spec.work else {
        return Ok(());
    };
    let share = train.global_batch.div_ceil(spec.miners.max(1));
    let estimate = Cpu::default().supports(model, train, share);
    let estimate = estimate.map_err(|e| e.to_string())?;
    // The ring's scratch and a checkpoint on its way come on top.
    let arenas = estimate.arena_bytes.saturating_mul(2);
    // What int8 rounds off, before and after a step, and on its way.
    let owed = match train.wire {
        Wire::Int8 => estimate
            .parameters
            .saturating_mul(4 * size_of::<f32>() as u64),
        Wire::F32 | Wire::Bf16 => 0,
    };
    let needed = arenas
        .saturating_add(owed)
        .saturating_add(estimate.batch_bytes)
        .saturating_add(estimate.scratch_bytes)
        .saturating_add(MEMORY_SPARE);
    match available {
        Some(available) if available < needed => Err(format!(
            "too little memory: {} MiB are needed, {} MiB are free",
            needed >> 20,
            available >> 20
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
