//! Supervision: actors that die come back, one for one, and whoever talks to them need not notice.
//!
//! ractor restarts nothing by itself and by default stops a parent whose child exits; this is the
//! part that does it. Nothing is registered by name, so many trees live in one process.
//!
//! Who talks to whom: everybody holds [`Handle`]s, which outlive the actor behind them; [`Tree`] is
//! held by the node that started it. A child has no say in its restart: its factory makes a fresh actor,
//! and `pre_start` finds the state again.
//!
//! A child is *seated* (its handle reaches it) or *vacant* (it died and is being restarted: calls are
//! answered with a typed error and when to try again). More restarts than [`Limits::restarts`] within
//! [`Limits::window`] mean that restarting does not help: the tree drains all children, in the reverse
//! order of their start, and tells so through [`Tree::failed`]; the process then exits.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::ErrorBody;
use ractor::rpc::CallResult;
use ractor::{
    Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, Message, RpcReplyPort, SpawnErr,
    SupervisionEvent,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

/// How often children may die, and how long they get to finish.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Restarts, over all children, that one window may hold.
    pub restarts: usize,
    /// The window.
    pub window: Duration,
    /// Wait before the first restart in a window; each further one waits twice as long.
    pub pause: Duration,
    /// What a child gets to work off its queue when the tree stops; then it is killed.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            restarts: 5,
            window: Duration::from_secs(60),
            pause: Duration::from_millis(50),
            drain: Duration::from_secs(5),
        }
    }
}

/// Reaches an actor across its restarts.
pub struct Handle<M> {
    name: &'static str,
    seat: watch::Receiver<Option<ActorRef<M>>>,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            seat: self.seat.clone(),
        }
    }
}

impl<M> std::fmt::Debug for Handle<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle({})", self.name)
    }
}

/// Where a child sits; the other end of a [`Handle`].
pub struct Seat<M> {
    name: &'static str,
    seat: Arc<watch::Sender<Option<ActorRef<M>>>>,
}

/// A vacant seat and its handle, for actors that need each other's handles before they exist.
/// `name` is for log lines and errors.
pub fn seat<M: Message>(name: &'static str) -> (Seat<M>, Handle<M>) {
    let (sender, receiver) = watch::channel(None);
    let seat = Seat {
        name,
        seat: Arc::new(sender),
    };
    let handle = Handle {
        name,
        seat: receiver,
    };
    (seat, handle)
}

const RETRY_AFTER_MS: u64 = 200;

impl<M: Message> Handle<M> {
    fn vacant(&self) -> ErrorBody {
        ErrorBody::new(
            cryptomind_protocol::ErrorClass::Internal,
            "restarting",
            format!("the {} is being restarted", self.name),
        )
        .with_help("ask again: it comes back with its state")
        .with_retry_after_ms(RETRY_AFTER_MS)
    }

    fn seated(&self) -> Result<ActorRef<M>, ErrorBody> {
        self.seat.borrow().clone().ok_or_else(|| self.vacant())
    }

    /// Sends a message; it may still be lost if the actor dies before it gets to it.
    pub fn cast(&self, message: M) -> Result<(), ErrorBody> {
        self.seated()?.cast(message).map_err(|_| self.vacant())
    }

    /// Asks and waits for the answer, at most `limit`. An actor that is being restarted, or that dies with
    /// the question, answers `restarting`, one that is too slow `overdue`; both say when to ask again. In the
    /// last two cases the question may have been acted upon.
    pub async fn call<R: Send + 'static>(
        &self,
        question: impl FnOnce(RpcReplyPort<R>) -> M + Send,
        limit: Duration,
    ) -> Result<R, ErrorBody> {
        let answer = self.seated()?.call(question, Some(limit)).await;
        match answer {
            Ok(CallResult::Success(answer)) => Ok(answer),
            Ok(CallResult::SenderError) | Err(_) => Err(self.vacant()),
            Ok(CallResult::Timeout) => Err(ErrorBody::new(
                cryptomind_protocol::ErrorClass::Internal,
                "overdue",
                format!("the {} did not answer within {limit:?}", self.name),
            )
            .with_retry_after_ms(RETRY_AFTER_MS)),
        }
    }

    /// The actor as it is now; nothing while it is being restarted.
    pub fn actor(&self) -> Option<ActorRef<M>> {
        self.seat.borrow().clone()
    }

    /// Waits until an actor other than `before` is seated. Nothing once the tree has ended.
    pub async fn successor(&self, before: Option<&ActorRef<M>>) -> Option<ActorRef<M>> {
        let mut seat = self.seat.clone();
        let seated = seat
            .wait_for(|now| now.is_some() && now.as_ref() != before)
            .await;
        seated.ok().and_then(|now| now.clone())
    }
}

type Starting = Pin<Box<dyn Future<Output = Result<ActorCell, SpawnErr>> + Send>>;

/// A child: what it is called, and how it is made.
pub struct Child {
    name: &'static str,
    start: Arc<dyn Fn(ActorCell) -> Starting + Send + Sync>,
    vacate: Arc<dyn Fn() + Send + Sync>,
}

impl Child {
    /// A child on this seat. `make` is called at every start and hands out the actor and the arguments of its
    /// `pre_start`.
    pub fn new<A: Actor>(
        seat: Seat<A::Msg>,
        make: impl Fn() -> (A, A::Arguments) + Send + Sync + 'static,
    ) -> Self {
        let (name, sender) = (seat.name, seat.seat);
        let vacated = Arc::clone(&sender);
        let start = move |supervisor: ActorCell| -> Starting {
            let (actor, arguments) = make();
            let sender = Arc::clone(&sender);
            Box::pin(async move {
                let (child, _) = A::spawn_linked(None, actor, arguments, supervisor).await?;
                sender.send_replace(Some(child.clone()));
                Ok(child.get_cell())
            })
        };
        Self {
            name,
            start: Arc::new(start),
            vacate: Arc::new(move || drop(vacated.send_replace(None))),
        }
    }
}

/// A running tree. Dropping it stops nothing: call [`Tree::stop`].
#[derive(Debug)]
pub struct Tree {
    supervisor: ActorRef<SupervisorMsg>,
    failed: watch::Receiver<Option<String>>,
}

impl Tree {
    /// Starts the children in order, each after the one before it is ready. If one cannot start, those before it
    /// are drained and the error says which and why.
    pub async fn start(limits: Limits, children: Vec<Child>) -> Result<Self, ErrorBody> {
        let (failed_sender, failed) = watch::channel(None);
        let arguments = Arguments {
            limits,
            children,
            failed: failed_sender,
        };
        let (supervisor, _) = Supervisor::spawn(None, Supervisor, arguments)
            .await
            .map_err(ErrorBody::internal)?;
        Ok(Self { supervisor, failed })
    }

    /// Waits until restarting no longer helps, and says why; also returns when the tree is stopped.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the tree was stopped".into(),
        }
    }

    /// Drains the children in the reverse order of their start, and returns when all are gone.
    pub async fn stop(&self) {
        // The drain limits bound this wait; an error means that it is gone already.
        let _ = self.supervisor.stop_and_wait(None, None).await;
    }
}

/// News for the supervisor from its own restart tasks.
pub enum SupervisorMsg {
    /// A restart ended.
    Started {
        /// Which child.
        index: usize,
        /// The new actor, or why there is none.
        outcome: Result<ActorCell, SpawnErr>,
    },
}

struct Supervisor;

struct Arguments {
    limits: Limits,
    children: Vec<Child>,
    failed: watch::Sender<Option<String>>,
}

struct Running {
    limits: Limits,
    children: Vec<(Child, Option<ActorCell>)>,
    /// When children were restarted within the window, oldest first.
    restarts: VecDeque<Instant>,
    failed: watch::Sender<Option<String>>,
}

impl Actor for Supervisor {
    type Msg = SupervisorMsg;
    type State = Running;
    type Arguments = Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMsg>,
        arguments: Arguments,
    ) -> Result<Running, ActorProcessingErr> {
        let mut state = Running {
            limits: arguments.limits,
            children: Vec::new(),
            restarts: VecDeque::new(),
            failed: arguments.failed,
        };
        for child in arguments.children {
            match (child.start)(myself.get_cell()).await {
                Ok(cell) => state.children.push((child, Some(cell))),
                Err(e) => {
                    state.drain().await;
                    return Err(format!("the {} cannot start: {e}", child.name).into());
                }
            }
        }
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<SupervisorMsg>,
        message: SupervisorMsg,
        state: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        let SupervisorMsg::Started { index, outcome } = message;
        match outcome {
            // It may have died again before this news came; then its own event found no seat to clear.
            Ok(cell) if cell.get_status() < ActorStatus::Stopping => {
                info!("the {} is back", state.children[index].0.name);
                state.children[index].1 = Some(cell);
            }
            Ok(_) => state.restart(&myself, index, "it died at once"),
            Err(e) => state.restart(&myself, index, &e.to_string()),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMsg>,
        event: SupervisionEvent,
        state: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        let (cell, reason) = match event {
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                (cell, reason.unwrap_or_else(|| "it stopped".into()))
            }
            SupervisionEvent::ActorFailed(cell, error) => (cell, error.to_string()),
            _ => return Ok(()),
        };
        let is_it = |(_, seated): &(Child, Option<ActorCell>)| seated.as_ref() == Some(&cell);
        if let Some(index) = state.children.iter().position(is_it) {
            state.restart(&myself, index, &reason);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<SupervisorMsg>,
        state: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        state.drain().await;
        Ok(())
    }
}

impl Running {
    /// Restarts a child after a pause, on a task of its own, or gives up.
    fn restart(&mut self, myself: &ActorRef<SupervisorMsg>, index: usize, reason: &str) {
        let (child, seated) = &mut self.children[index];
        *seated = None;
        (child.vacate)();
        let (name, start) = (child.name, Arc::clone(&child.start));
        let Some(pause) = self.next_pause() else {
            return self.give_up(myself, name, reason);
        };
        warn!("the {name} died ({reason}): restarting it in {pause:?}");
        let supervisor = myself.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let outcome = start(supervisor.get_cell()).await;
            // A supervisor that is gone takes its children with it.
            let _ = supervisor.cast(SupervisorMsg::Started { index, outcome });
        });
    }

    /// How long the next restart waits; nothing where the window is full.
    fn next_pause(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let old = |at: &Instant| now.duration_since(*at) > self.limits.window;
        while self.restarts.front().is_some_and(old) {
            self.restarts.pop_front();
        }
        let before = self.restarts.len();
        if before >= self.limits.restarts {
            return None;
        }
        self.restarts.push_back(now);
        Some(self.limits.pause * 2u32.saturating_pow(before.min(16) as u32))
    }

    fn give_up(&self, myself: &ActorRef<SupervisorMsg>, name: &str, reason: &str) {
        let Limits {
            restarts, window, ..
        } = self.limits;
        let reason =
            format!("the {name} died again ({reason}) after {restarts} restarts within {window:?}");
        error!("{reason}: giving up");
        self.failed.send_replace(Some(reason.clone()));
        myself.stop(Some(reason));
    }

    /// Lets the children finish, last started first.
    async fn drain(&mut self) {
        while let Some((child, seated)) = self.children.pop() {
            (child.vacate)();
            let Some(cell) = seated else { continue };
            if cell.drain_and_wait(Some(self.limits.drain)).await.is_err() {
                cell.kill();
            }
        }
    }
}

#[cfg(test)]
mod tests;
