//! The owner's idle command: their usual mining program, which runs while there is no task.
//!
//! The actor [`Idle`] is a thin front: a thread of its own, the keeper ([`keeper`]), owns the process tree,
//! because starting, stopping and reaping processes blocks. The worker asks [`IdleMsg::Stop`] before a task and
//! hears [`Stopped`] only when no process of the tree is left; it casts [`IdleMsg::Resume`] after the task, in
//! whatever way that ended.
//!
//! The command is *running*, *held* (a task computes) or *waiting* (it ended by itself and starts again after a
//! back-off). Whether it is held lies outside the actor, in [`Settings::held`]: an actor that is restarted in the
//! middle of a task must not start the command beside it.
//!
//! CPU time of the tree is the owner's; it is reported in [`IdleStatus::owner_cpu_ms`] and never as work.
//! What kind of process tree there is on this system is the business of `idle/unix.rs` and its twin `idle/windows.rs`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::task::Activity;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::sync::oneshot;

mod keeper;
mod log;
#[cfg(target_os = "linux")]
mod unix;
#[cfg(target_os = "linux")]
use unix as platform;
#[cfg(not(target_os = "linux"))]
mod windows;
#[cfg(not(target_os = "linux"))]
use windows as platform;

/// What the command is and how it is treated.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Program and arguments; empty where the owner has none.
    pub command: Vec<String>,
    /// What the tree gets to end by itself after being asked to; then it is killed.
    pub stop_limit: Duration,
    /// First wait before a command that ended by itself is started again; it doubles from there.
    pub back_off: Duration,
    /// The longest such wait.
    pub back_off_max: Duration,
    /// Where `idle.log` and `idle.pids` lie.
    pub data_dir: PathBuf,
    /// Bytes of `idle.log`; one older part is kept beside it.
    pub log_bytes: u64,
    /// Whether a task holds the command off. Shared, so that it survives the actor.
    pub held: Arc<AtomicBool>,
    /// Taken by the keeper for its life: a new one waits until the old one's tree is gone.
    pub seat: Arc<Mutex<()>>,
}

impl Settings {
    /// The usual limits for this command.
    pub fn new(command: Vec<String>, data_dir: &Path) -> Self {
        Self {
            command,
            stop_limit: Duration::from_secs(5),
            back_off: Duration::from_millis(500),
            back_off_max: Duration::from_secs(60),
            data_dir: data_dir.to_owned(),
            log_bytes: 1 << 20,
            held: Arc::default(),
            seat: Arc::default(),
        }
    }

    /// What the machine is busy with when there is no task.
    pub fn activity(&self) -> Activity {
        if self.command.is_empty() {
            Activity::Idle
        } else {
            Activity::Mining
        }
    }
}

/// Answer to [`IdleMsg::Stop`]: nothing of the command is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Processes that were seen to end.
    pub ended: usize,
    /// Those of them that had to be killed.
    pub killed: usize,
}

/// How the command is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdleStatus {
    /// Whether it runs now.
    pub running: bool,
    /// Its process ids, as last seen.
    pub pids: Vec<i32>,
    /// How often it was started.
    pub starts: u64,
    /// CPU time of all its processes since this miner started, milliseconds. The owner's own, never work.
    pub owner_cpu_ms: u64,
    /// What went wrong last, for people.
    pub trouble: Option<String>,
}

/// What can be asked of the idle command.
pub enum IdleMsg {
    /// Stop, and stay stopped until [`IdleMsg::Resume`].
    Stop(RpcReplyPort<Result<Stopped, ErrorBody>>),
    /// The task is over.
    Resume,
    /// How is it?
    Status(RpcReplyPort<IdleStatus>),
}

/// The actor.
pub struct Idle;

/// The actor's hold on its keeper. When it is dropped, the keeper ends the tree and itself.
pub struct Keeping {
    orders: Option<SyncSender<keeper::Order>>,
    /// Told by the keeper when it has ended the tree and itself.
    gone: oneshot::Receiver<()>,
    /// How long that may take.
    gone_limit: Duration,
    status: Arc<Mutex<IdleStatus>>,
    held: Arc<AtomicBool>,
}

/// Orders that may wait for the keeper.
const ORDERS: usize = 16;

impl Actor for Idle {
    type Msg = IdleMsg;
    type State = Keeping;
    type Arguments = Settings;

    async fn pre_start(
        &self,
        _: ActorRef<IdleMsg>,
        settings: Settings,
    ) -> Result<Keeping, ActorProcessingErr> {
        let (orders, receiver) = sync_channel(ORDERS);
        let (goes, gone) = oneshot::channel();
        let (status, held) = (Arc::default(), Arc::clone(&settings.held));
        let gone_limit = settings.stop_limit + platform::KILL_LIMIT;
        keeper::spawn(settings, receiver, Arc::clone(&status), goes)?;
        Ok(Keeping {
            orders: Some(orders),
            gone,
            gone_limit,
            status,
            held,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<IdleMsg>,
        message: IdleMsg,
        keeping: &mut Keeping,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            IdleMsg::Stop(reply) => {
                keeping.held.store(true, Ordering::SeqCst);
                keeping.order(keeper::Order::Stop(reply))
            }
            IdleMsg::Resume => {
                keeping.held.store(false, Ordering::SeqCst);
                keeping.order(keeper::Order::Look)
            }
            IdleMsg::Status(reply) => {
                let status = keeper::lock(&keeping.status).clone();
                // Whoever asked may have gone.
                let _ = reply.send(status);
                Ok(())
            }
        }
    }

    /// A miner that ends leaves nothing running.
    async fn post_stop(
        &self,
        _: ActorRef<IdleMsg>,
        keeping: &mut Keeping,
    ) -> Result<(), ActorProcessingErr> {
        keeping.orders = None;
        let _ = tokio::time::timeout(keeping.gone_limit, &mut keeping.gone).await;
        Ok(())
    }
}

impl Keeping {
    /// Hands an order to the keeper. One that finds the queue full is dropped with its reply port, which
    /// answers the caller; one that finds the keeper dead ends the actor, which brings a new one.
    fn order(&self, order: keeper::Order) -> Result<(), ActorProcessingErr> {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Ok(()) | Err(TrySendError::Full(_))) => Ok(()),
            Some(Err(TrySendError::Disconnected(_))) | None => {
                Err("the keeper of the idle command is gone".into())
            }
        }
    }
}

/// Ends what an earlier process of this data folder left running, and returns how many processes that were.
/// Blocks until they are gone, for about `stop_limit` at most.
pub fn sweep(data_dir: &Path, stop_limit: Duration) -> std::io::Result<usize> {
    platform::sweep(&pids_file(data_dir), stop_limit)
}

fn pids_file(data_dir: &Path) -> PathBuf {
    data_dir.join("idle.pids")
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
