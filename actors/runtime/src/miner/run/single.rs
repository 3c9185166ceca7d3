//! A task of one miner alone: inference over a dataset, and a session of single calls. It keeps no state from one attempt to the
//! next.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cryptomind_core::member::COORDINATOR_LIMIT_MS;
use cryptomind_net::Endpoint;
use cryptomind_protocol::TaskId;
use cryptomind_protocol::item::{MODEL_FILE, ModelInfo, PREDICTIONS_FILE};
use cryptomind_protocol::node::{Match, Report};
use cryptomind_protocol::task::{Activity, Latency, Metrics, Work};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::fetch::Fetch;
use super::{Context, Ending, Fault, Order, Place, micros, stop_idle, store};
use crate::miner::infer;
use crate::miner::serve::{self, Session};
use crate::miner::worker::report_leaving;

/// Without a word from the coordinator for this long, a run that it has paused gives up.
const COORDINATOR_LIMIT: Duration = Duration::from_millis(COORDINATOR_LIMIT_MS);

/// Why a part of a run does not go on.
enum Halt {
    Over(Ending),
    /// The run begins anew, as this attempt.
    Paused(u32),
    /// This miner wants to go, for this reason, and has something to do before it says so.
    Leaving(String),
}

impl From<Fault> for Halt {
    fn from(Fault { task_fault, reason }: Fault) -> Self {
        Self::Over(Ending::Failed { task_fault, reason })
    }
}

fn failed(reason: impl ToString) -> Halt {
    Fault::here(reason).into()
}

/// The orders, and the attempt that they are weighed against.
struct Orders {
    receiver: mpsc::Receiver<Order>,
    context: Arc<Context>,
    task: TaskId,
    attempt: u32,
    /// Whether a wish to go ends what is under way, to be said afterwards: else it is said at once, and changes nothing.
    halts_to_leave: bool,
}

impl Orders {
    /// What an order means to a run that is busy with `attempt`; nothing where it is old news.
    fn weigh(&self, order: Option<Order>) -> Option<Halt> {
        match order {
            None => Some(Halt::Over(Ending::Stopped("the worker is gone".into()))),
            Some(Order::Stop { reason }) => Some(Halt::Over(Ending::Stopped(reason))),
            Some(Order::Pause { attempt, .. }) => {
                (attempt > self.attempt).then_some(Halt::Paused(attempt))
            }
            Some(Order::Leave { reason }) if self.halts_to_leave => Some(Halt::Leaving(reason)),
            Some(Order::Leave { reason }) => {
                report_leaving(&self.context, self.task, self.attempt, &reason);
                None
            }
            Some(Order::Match(m)) => (m.attempt > self.attempt).then(|| {
                failed(format!(
                    "attempt {} was called while this miner was in attempt {}",
                    m.attempt, self.attempt
                ))
            }),
        }
    }

    async fn next(&mut self) -> Halt {
        loop {
            let order = self.receiver.recv().await;
            if let Some(halt) = self.weigh(order) {
                return halt;
            }
        }
    }

    /// Works until it is done, or until an order says otherwise; then the work is dropped.
    async fn during<T>(&mut self, work: impl Future<Output = Result<T, Halt>>) -> Result<T, Halt> {
        tokio::select! {
            biased;
            halt = self.next() => Err(halt),
            done = work => done,
        }
    }
}

struct Run {
    context: Arc<Context>,
    place: Place,
    matched: watch::Sender<Arc<Match>>,
    /// What the coordinator knows it by: it says it again when it is paused.
    address: String,
    fetched_bytes: u64,
}

/// Carries out a match, and what follows from it, to the end.
pub(super) async fn drive(
    context: Arc<Context>,
    place: Place,
    matched: Match,
    address: String,
    orders: mpsc::Receiver<Order>,
) -> Ending {
    let mut orders = Orders {
        receiver: orders,
        context: Arc::clone(&context),
        task: matched.task,
        attempt: matched.attempt,
        halts_to_leave: false,
    };
    let mut run = Run {
        context,
        place,
        matched: watch::Sender::new(Arc::new(matched)),
        address,
        fetched_bytes: 0,
    };
    let ending = run.attempts(&mut orders).await;
    if let Ending::Failed { task_fault, reason } = ending.clone() {
        run.report(Report::Failed { task_fault, reason });
    }
    ending
}

impl Run {
    fn matched(&self) -> Arc<Match> {
        Arc::clone(&self.matched.borrow())
    }

    fn task(&self) -> TaskId {
        self.matched.borrow().task
    }

    fn report(&self, report: Report) {
        let attempt = self.matched.borrow().attempt;
        self.context.outbox.report(self.task(), attempt, report);
    }

    fn turn_to(&self, activity: Activity) {
        let task = Some(self.task());
        self.context
            .standing
            .turn_to(activity, task, &self.context.outbox);
    }

    async fn attempts(&mut self, orders: &mut Orders) -> Ending {
        loop {
            let pause = match self.attempt(orders).await {
                Ok(()) => return Ending::Finished,
                Err(Halt::Over(ending)) => return ending,
                Err(Halt::Paused(attempt)) => Some(attempt),
                // It has said so itself.
                Err(Halt::Leaving(_)) => None,
            };
            match timeout(COORDINATOR_LIMIT, self.regroup(orders, pause)).await {
                Ok(Ok(())) => {}
                Ok(Err(ending)) => return ending,
                Err(_) => {
                    return Ending::Failed {
                        task_fault: false,
                        reason: format!("no new attempt began for {COORDINATOR_LIMIT:?}"),
                    };
                }
            }
        }
    }

    /// Waits for a place in the next attempt.
    async fn regroup(&mut self, orders: &mut Orders, mut pause: Option<u32>) -> Result<(), Ending> {
        loop {
            if let Some(attempt) = pause.take() {
                self.paused(attempt);
            }
            match orders.receiver.recv().await {
                Some(Order::Pause { attempt, .. }) if attempt > orders.attempt => {
                    pause = Some(attempt)
                }
                Some(Order::Match(m)) if m.attempt > orders.attempt => {
                    orders.attempt = m.attempt;
                    self.matched.send_replace(Arc::from(m));
                    return Ok(());
                }
                other => match orders.weigh(other) {
                    Some(Halt::Over(ending)) => return Err(ending),
                    _ => continue,
                },
            }
        }
    }

    /// The report carries the number of the attempt to come: it is the answer to that pause.
    fn paused(&self, attempt: u32) {
        let report = Report::Paused {
            committed: 0,
            prepared: false,
            ring_address: self.address.clone(),
        };
        self.context.outbox.report(self.task(), attempt, report);
    }

    async fn attempt(&mut self, orders: &mut Orders) -> Result<(), Halt> {
        let matched = self.matched();
        self.context.standing.enter(matched.task, matched.attempt);
        match &matched.spec.work {
            Work::Serve { .. } => self.serve(orders).await,
            _ => orders.during(self.infer()).await,
        }
    }

    async fn infer(&mut self) -> Result<(), Halt> {
        let begin = Instant::now();
        let (info, weights) = self.fetch_model().await?;
        let matched = self.matched();
        let (Work::Infer { split, .. }, Some(dataset)) = (&matched.spec.work, &matched.dataset)
        else {
            return Err(failed("the match names no dataset"));
        };
        let files = self.fetch_files(&matched.dataset_files).await?;
        let fetch_us = micros(begin.elapsed());
        let fetched_bytes = std::mem::take(&mut self.fetched_bytes);
        self.report(Report::Ready { fetched_bytes });
        self.turn_to(Activity::Inferring);
        let plan = infer::Plan {
            model: info,
            weights,
            info: dataset.clone(),
            split: *split,
        };
        let (csv, mut metrics) = compute(plan, files).await?;
        if let Some(latency) = &mut metrics.latency {
            latency.fetch_us = fetch_us;
        }
        let files = vec![(PREDICTIONS_FILE, csv.into_bytes())];
        let finished =
            store::result(&self.context, &self.matched.subscribe(), files, metrics).await?;
        self.report(finished);
        Ok(())
    }

    async fn fetch_files(
        &mut self,
        files: &[cryptomind_protocol::item::FileEntry],
    ) -> Result<BTreeMap<String, PathBuf>, Halt> {
        let mut fetch = Fetch::new(Arc::clone(&self.context), self.matched.subscribe());
        let paths = fetch.files(files).await?;
        self.fetched_bytes += fetch.bytes;
        Ok(paths)
    }

    /// Idle command stopped, and the model here.
    async fn fetch_model(&mut self) -> Result<(ModelInfo, PathBuf), Halt> {
        self.turn_to(Activity::Preparing);
        stop_idle(&self.context).await.map_err(failed)?;
        let matched = self.matched();
        let Some(info) = matched.model.clone() else {
            return Err(failed("the match names no model"));
        };
        let files = self.fetch_files(&matched.model_files).await?;
        match files.get(MODEL_FILE) {
            Some(weights) => Ok((info, weights.clone())),
            None => Err(failed(format!("the model has no file {MODEL_FILE}"))),
        }
    }

    /// Keeps the model ready for its client's calls. However that ends, the coordinator is shown the newest
    /// acknowledgement.
    async fn serve(&mut self, orders: &mut Orders) -> Result<(), Halt> {
        let (session, door) = orders.during(self.open_session()).await?;
        orders.halts_to_leave = true;
        let held = orders.during(async { Ok(session.hold(&door).await) }).await;
        orders.halts_to_leave = false;
        // Who leaves says so after it has shown what it is paid for.
        session.report(session.newest(), !matches!(held, Err(Halt::Leaving(_))));
        door.close("the session has ended").await;
        match held {
            Err(Halt::Leaving(reason)) => {
                report_leaving(&self.context, self.task(), orders.attempt, &reason);
                Err(orders.next().await)
            }
            Ok(true) => Ok(()),
            Ok(false) => Err(failed("nobody called for a long time")),
            Err(halt) => Err(halt),
        }
    }

    async fn open_session(&mut self) -> Result<(Arc<Session>, Endpoint), Halt> {
        let begin = Instant::now();
        let (info, weights) = self.fetch_model().await?;
        let fetched = Instant::now();
        let loading = tokio::task::spawn_blocking(move || serve::load(&info, &weights));
        let model = loading.await.map_err(failed)??;
        let latency = Latency {
            fetch_us: micros(fetched - begin),
            load_us: micros(fetched.elapsed()),
            ..Latency::default()
        };
        let (context, matched) = (Arc::clone(&self.context), self.matched());
        let session = Session::new(context, matched, self.place.network, model)
            .ok_or_else(|| failed("the match is of no session"))?;
        let (door, address) = self.context.open_door(&self.place).map_err(failed)?;
        self.turn_to(Activity::Inferring);
        let fetched_bytes = std::mem::take(&mut self.fetched_bytes);
        self.report(Report::Serving {
            address,
            fetched_bytes,
            latency,
        });
        Ok((session, door))
    }
}

/// Raised when whoever waits for the computation is gone.
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn compute(
    plan: infer::Plan,
    files: BTreeMap<String, PathBuf>,
) -> Result<(String, Metrics), Halt> {
    let unwanted = Unwanted(Arc::default());
    let raised = Arc::clone(&unwanted.0);
    let thread = tokio::task::spawn_blocking(move || {
        let file = |name: &str| files.get(name).cloned().unwrap_or_default();
        infer::run(&plan, &file, &raised)
    });
    match thread.await {
        Ok(answer) => Ok(answer?),
        Err(e) => {
            warn!("inference: {e}");
            Err(failed("the inference thread died"))
        }
    }
}
