//! The thread that owns the idle command's process tree.
//!
//! It wakes for orders and every [`TICK`]. Whatever happens, it follows one rule: while nothing holds it, the command
//! runs, at the earliest when its back-off is over; while something does, no process of it is left. When the actor in front is
//! gone, it ends the tree and itself.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cryptomind_protocol::ErrorBody;
use ractor::RpcReplyPort;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::platform::Tree;
use super::{IdleStatus, Settings, Stopped, log, pids_file, platform};

/// How often the tree is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Ticks between two walks over the whole tree.
const TICKS_A_WALK: u32 = 8;
/// A command that ran this long before it ended is started again after the shortest back-off.
const STEADY: Duration = Duration::from_secs(30);

/// What the actor wants.
pub(super) enum Order {
    /// End the tree and answer when it is gone.
    Stop(RpcReplyPort<Result<Stopped, ErrorBody>>),
    /// Something changed: look at once.
    Look,
}

struct Keeper {
    settings: Settings,
    status: Arc<Mutex<IdleStatus>>,
    tree: Option<(Tree, Instant)>,
    back_off: Duration,
    not_before: Instant,
    ticks: u32,
    /// CPU time of trees that are gone, milliseconds.
    past_cpu_ms: u64,
}

/// Starts the keeper.
pub(super) fn spawn(
    settings: Settings,
    orders: Receiver<Order>,
    status: Arc<Mutex<IdleStatus>>,
    goes: oneshot::Sender<()>,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("idle-keeper".into())
        .spawn(move || {
            run(settings, &orders, status);
            // Nobody waits where the actor was killed.
            let _ = goes.send(());
        })?;
    Ok(())
}

/// The value, also where a thread died with it in hand: it is replaced as a whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(settings: Settings, orders: &Receiver<Order>, status: Arc<Mutex<IdleStatus>>) {
    let seat = Arc::clone(&settings.seat);
    let _seat = lock(&seat);
    let mut keeper = Keeper {
        back_off: settings.back_off,
        not_before: Instant::now(),
        settings,
        status,
        tree: None,
        ticks: 0,
        past_cpu_ms: 0,
    };
    keeper.sweep();
    loop {
        keeper.follow_the_rule();
        match orders.recv_timeout(TICK) {
            Ok(Order::Stop(reply)) => {
                // Whoever asked may have gone; the command stays stopped all the same.
                let _ = reply.send(keeper.halt());
            }
            Ok(Order::Look) => {}
            Err(RecvTimeoutError::Timeout) => keeper.watch(),
            Err(RecvTimeoutError::Disconnected) => {
                let _ = keeper.halt();
                return;
            }
        }
    }
}

impl Keeper {
    fn held(&self) -> bool {
        self.settings.held.load(Ordering::SeqCst)
    }

    fn sweep(&self) {
        match super::sweep(&self.settings.data_dir, self.settings.stop_limit) {
            Ok(0) => {}
            Ok(n) => info!("ended {n} processes of the idle command that an earlier run left"),
            Err(e) => warn!("leftovers of the idle command: {e}"),
        }
    }

    fn follow_the_rule(&mut self) {
        let due = self.tree.is_none() && !self.settings.command.is_empty();
        if due && !self.held() && Instant::now() >= self.not_before {
            self.start();
        }
    }

    fn start(&mut self) {
        let Settings {
            command, data_dir, ..
        } = &self.settings;
        let tree = log::open(data_dir, self.settings.log_bytes)
            .and_then(|output| Tree::spawn(command, output, &pids_file(data_dir)));
        match tree {
            Ok(tree) => {
                info!("idle command started: {}", command.join(" "));
                self.tree = Some((tree, Instant::now()));
                let mut status = lock(&self.status);
                status.starts += 1;
                status.running = true;
                drop(status);
                self.walk();
            }
            Err(e) => {
                let trouble = format!(
                    "the idle command `{}` cannot start: {e}; check [idle] command",
                    command.join(" ")
                );
                self.failed(trouble);
            }
        }
    }

    fn failed(&mut self, trouble: String) {
        warn!("{trouble}; next try in {:?}", self.back_off);
        self.not_before = Instant::now() + self.back_off;
        self.back_off = (self.back_off * 2).min(self.settings.back_off_max);
        let mut status = lock(&self.status);
        status.running = false;
        status.pids.clear();
        status.trouble = Some(trouble);
    }

    /// Notices an end that nobody asked for.
    fn watch(&mut self) {
        self.ticks = self.ticks.wrapping_add(1);
        let Some((tree, since)) = &mut self.tree else {
            return;
        };
        if tree.root_ended() && tree.is_gone() {
            if since.elapsed() >= STEADY {
                self.back_off = self.settings.back_off;
            }
            let how = tree.how_it_ended();
            let _ = self.halt();
            self.failed(format!("the idle command ended by itself ({how})"));
        } else if self.ticks.is_multiple_of(TICKS_A_WALK) {
            self.walk();
        }
    }

    fn walk(&mut self) {
        let Some((tree, _)) = &mut self.tree else {
            return;
        };
        let pids = tree.walk();
        let cpu_ms = tree.cpu_ms();
        let mut status = lock(&self.status);
        status.pids = pids;
        status.owner_cpu_ms = self.past_cpu_ms + cpu_ms;
    }

    /// Ends the tree. Where something of it will not go, the tree is kept, so that the next try finds it.
    fn halt(&mut self) -> Result<Stopped, ErrorBody> {
        let Some((tree, _)) = &mut self.tree else {
            return Ok(Stopped::default());
        };
        let stopped = tree.stop(self.settings.stop_limit);
        let cpu_ms = tree.cpu_ms();
        let stopped = stopped.map_err(|e| {
            ErrorBody::internal(format!("the idle command does not end: {e}"))
                .with_help("end it by hand; the miner takes no task before that")
        })?;
        self.tree = None;
        self.past_cpu_ms += cpu_ms;
        platform::forget(&pids_file(&self.settings.data_dir));
        let mut status = lock(&self.status);
        status.running = false;
        status.pids.clear();
        status.owner_cpu_ms = self.past_cpu_ms;
        drop(status);
        info!(
            "idle command stopped: {} processes gone, {} killed, {} ms CPU of the owner's own so far",
            stopped.ended, stopped.killed, self.past_cpu_ms
        );
        Ok(stopped)
    }
}
