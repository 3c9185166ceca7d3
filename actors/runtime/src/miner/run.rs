//! The life of one task on this miner, as one task of the runtime: prepare, join, compute, store, over as many attempts as
//! the coordinator grants.
//!
//! The worker starts it and passes the coordinator's orders on; it answers through the outbox and ends with an
//! [`Ending`]. It computes nothing: that is the training thread's business ([`super::train`]). Every wait listens for
//! orders, so a stop or a new attempt is obeyed wherever it finds the run. Dropping the future stops everything: thread,
//! ring and transfers go with it.
//!
//! States: *preparing* (idle command stopped, blobs fetched, data loaded), *joining* the ring, *training*, *waiting* (ring
//! broken or left; the state is held for the next attempt), *storing*; of a session *serving* ([`super::serve`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cryptomind_net::Endpoint;
use cryptomind_net::ring::{RingPlan, RingSocket};
use cryptomind_protocol::item::{CARD_FILE, FileEntry, MODEL_FILE, ModelInfo, PREDICTIONS_FILE};
use cryptomind_protocol::node::{Match, Report};
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::{Activity, Latency, Metrics, ResultFile, Work};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{BlobId, ErrorBody, ErrorClass, NodeId, TaskId};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::card::Card;
use super::serve::Session;
use super::train::{Done, Event, FORMAT, Fault, Footing, Leg, Plan, Trainer};
use super::uploads::Uploads;
use super::worker::{Context, Place, report_leaving};
use super::{infer, serve, uploads};
use crate::idle::IdleMsg;
use crate::transfer::Packed;

/// Without a word from the coordinator for this long, a run that cannot go on by itself gives up.
pub const COORDINATOR_LIMIT: Duration = Duration::from_secs(600);
/// A member that is done keeps its state for this long, in case the group must form again.
const FAREWELL_LIMIT: Duration = Duration::from_secs(120);
/// What the whole group gets to fetch its data and join.
const JOIN_LIMIT: Duration = Duration::from_secs(600);
/// What fetching one blob may take, all tries together.
const FETCH_LIMIT: Duration = Duration::from_secs(600);
/// Between two tries at all sources.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// What the training thread gets to leave a ring.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);
/// What checkpoints under way get when a new attempt is called.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// What the idle command gets beyond its own limits.
const IDLE_SLACK: Duration = Duration::from_secs(15);

/// What the coordinator wants of a run.
#[derive(Debug)]
pub enum Order {
    /// A place in an attempt.
    Match(Box<Match>),
    /// Leave the attempt before this one.
    Pause {
        /// The attempt to come.
        attempt: u32,
    },
    /// It is over.
    Stop {
        /// Why.
        reason: String,
    },
    /// From the worker: say that this member wants to go, and go on until the coordinator says stop.
    Leave {
        /// Why.
        reason: String,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// This member's part is done.
    Finished,
    /// The coordinator said so.
    Stopped(String),
    /// It could not go on; the report is in the outbox.
    Failed(Fault),
}

/// Why a part of a run does not go on.
enum Halt {
    Over(Ending),
    /// The group forms again, as this attempt.
    Paused(u32),
    /// This member wants to go, for this reason, and has something to do before it says so.
    Leaving(String),
    Broken {
        suspect: Option<NodeId>,
        reason: String,
    },
}

fn failed(reason: impl ToString) -> Halt {
    Halt::Over(Ending::Failed(Fault {
        task_fault: false,
        reason: reason.to_string(),
    }))
}

/// What a member does that is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnLeave {
    /// It says so at once, and goes on: others depend on it.
    Tell,
    /// It comes to rest, to save what it did.
    Halt,
    /// It ends what it is about: that is soon over.
    Hold,
}

/// The orders, and the attempt that they are weighed against.
struct Orders {
    receiver: mpsc::Receiver<Order>,
    context: Arc<Context>,
    task: TaskId,
    attempt: u32,
    on_leave: OnLeave,
}

impl Orders {
    /// What an order means to a run that is busy with `attempt`; nothing where it is old news.
    fn weigh(&self, order: Option<Order>) -> Option<Halt> {
        match order {
            None => Some(Halt::Over(Ending::Stopped("the worker is gone".into()))),
            Some(Order::Stop { reason }) => Some(Halt::Over(Ending::Stopped(reason))),
            Some(Order::Pause { attempt }) => {
                (attempt > self.attempt).then_some(Halt::Paused(attempt))
            }
            Some(Order::Leave { reason }) => match self.on_leave {
                OnLeave::Tell => {
                    report_leaving(&self.context, self.task, self.attempt, &reason);
                    None
                }
                OnLeave::Halt => Some(Halt::Leaving(reason)),
                OnLeave::Hold => None,
            },
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
    matched: Arc<Match>,
    trainer: Option<Trainer>,
    fetched_bytes: u64,
}

/// Carries out a match, and what follows from it, to the end.
pub async fn drive(
    context: Arc<Context>,
    place: Place,
    matched: Match,
    socket: RingSocket,
    orders: mpsc::Receiver<Order>,
) -> Ending {
    let mut orders = Orders {
        receiver: orders,
        context: Arc::clone(&context),
        task: matched.task,
        attempt: matched.attempt,
        on_leave: OnLeave::Tell,
    };
    let mut run = Run {
        context,
        place,
        matched: Arc::new(matched),
        trainer: None,
        fetched_bytes: 0,
    };
    let ending = run.attempts(&mut orders, socket).await;
    if let Ending::Failed(fault) = &ending {
        run.report(Report::Failed {
            task_fault: fault.task_fault,
            reason: fault.reason.clone(),
        });
    }
    ending
}

impl Run {
    fn task(&self) -> TaskId {
        self.matched.task
    }

    fn report(&self, report: Report) {
        let attempt = self.matched.attempt;
        self.context.outbox.report(self.task(), attempt, report);
    }

    fn ready(&mut self) {
        let fetched_bytes = std::mem::take(&mut self.fetched_bytes);
        self.report(Report::Ready { fetched_bytes });
    }

    fn turn_to(&self, activity: Activity) {
        let task = Some(self.task());
        self.context
            .standing
            .turn_to(activity, task, &self.context.outbox);
    }

    async fn attempts(&mut self, orders: &mut Orders, mut socket: RingSocket) -> Ending {
        loop {
            let pause = match self.attempt(orders, socket).await {
                Ok(()) => return Ending::Finished,
                Err(Halt::Over(ending)) => return ending,
                Err(Halt::Paused(attempt)) => Some(attempt),
                // A part that halts to leave has said so itself.
                Err(Halt::Leaving(_)) => None,
                Err(Halt::Broken { suspect, reason }) => {
                    self.broken(suspect, reason);
                    None
                }
            };
            match timeout(COORDINATOR_LIMIT, self.regroup(orders, pause)).await {
                Ok(Ok(next)) => socket = next,
                Ok(Err(ending)) => return ending,
                Err(_) => {
                    return Ending::Failed(Fault {
                        task_fault: false,
                        reason: format!(
                            "the ring is broken, and the coordinator formed no new group for {COORDINATOR_LIMIT:?}"
                        ),
                    });
                }
            }
        }
    }

    fn committed(&self) -> u64 {
        self.trainer.as_ref().map_or(0, Trainer::committed)
    }

    fn broken(&self, suspect: Option<NodeId>, reason: String) {
        let committed = self.committed();
        info!("ring broken after step {committed}: {reason}; the state is held");
        self.report(Report::RingBroken {
            committed,
            suspect,
            reason,
        });
    }

    /// Waits for a place in the next attempt, saying where this member stands as often as it is asked.
    async fn regroup(
        &mut self,
        orders: &mut Orders,
        mut pause: Option<u32>,
    ) -> Result<RingSocket, Ending> {
        let mut bound: Option<(u32, RingSocket, String)> = None;
        loop {
            if let Some(attempt) = pause.take() {
                let (socket, address) = match bound.take() {
                    Some((before, socket, address)) if before == attempt => (socket, address),
                    _ => self.bind()?,
                };
                self.paused(attempt, &address);
                bound = Some((attempt, socket, address));
            }
            match orders.receiver.recv().await {
                Some(Order::Pause { attempt }) if attempt > orders.attempt => pause = Some(attempt),
                Some(Order::Match(m)) if m.attempt > orders.attempt => {
                    let Some((_, socket, _)) = bound.take() else {
                        return Err(Ending::Failed(Fault {
                            task_fault: false,
                            reason: "a new attempt was called without a pause before it".into(),
                        }));
                    };
                    orders.attempt = m.attempt;
                    self.matched = Arc::from(m);
                    return Ok(socket);
                }
                other => match orders.weigh(other) {
                    Some(Halt::Over(ending)) => return Err(ending),
                    _ => continue,
                },
            }
        }
    }

    fn bind(&self) -> Result<(RingSocket, String), Ending> {
        self.context.bind_ring(&self.place).map_err(|e| {
            Ending::Failed(Fault {
                task_fault: false,
                reason: e.to_string(),
            })
        })
    }

    /// The report carries the number of the attempt to come: it is the answer to that pause.
    fn paused(&self, attempt: u32, ring_address: &str) {
        let report = Report::Paused {
            committed: self.committed(),
            prepared: self.trainer.as_ref().is_some_and(Trainer::prepared),
            ring_address: ring_address.to_owned(),
        };
        self.context.outbox.report(self.task(), attempt, report);
    }

    /// One attempt, from whatever is here already to the stored result.
    async fn attempt(&mut self, orders: &mut Orders, socket: RingSocket) -> Result<(), Halt> {
        let matched = Arc::clone(&self.matched);
        self.context.standing.enter(matched.task, matched.attempt);
        match &matched.spec.work {
            Work::Train { .. } => self.train(orders, socket).await,
            Work::Infer { .. } => {
                drop(socket);
                orders.during(self.infer()).await
            }
            Work::Serve { .. } => {
                drop(socket);
                self.serve(orders).await
            }
        }
    }

    async fn train(&mut self, orders: &mut Orders, socket: RingSocket) -> Result<(), Halt> {
        if self.trainer.is_none() {
            self.turn_to(Activity::Preparing);
            orders.during(self.prepare()).await?;
        }
        let footing = orders.during(self.footing()).await?;
        self.stand(footing).await?;
        let (leg, leave) = orders.during(self.join(socket)).await?;
        self.ready();
        self.turn_to(Activity::Training);
        let mut uploads = Uploads::start(&self.context, &self.matched);
        let (rank, world) = (leg.rank, leg.world);
        self.trainer_mut()?.train(leg);
        if world == 1 {
            orders.on_leave = OnLeave::Halt;
        }
        let listened = self.listen(orders, &mut uploads).await;
        orders.on_leave = OnLeave::Tell;
        let done = match listened {
            Ok(done) => done,
            Err(halt) => {
                // A thread whose ring broke has come to rest by itself.
                if !matches!(halt, Halt::Broken { .. }) {
                    self.leave(&leave, &uploads).await;
                }
                if let Halt::Leaving(reason) = halt {
                    return Err(self.save_and_leave(&reason, orders, uploads).await);
                }
                if !matches!(halt, Halt::Over(_)) {
                    uploads.settle(SETTLE_LIMIT).await;
                }
                return Err(halt);
            }
        };
        if rank == 0 {
            orders.on_leave = OnLeave::Hold;
            let finished = orders.during(self.finish(&done, uploads)).await;
            orders.on_leave = OnLeave::Tell;
            finished
        } else {
            self.farewell(orders).await
        }
    }

    fn trainer_mut(&mut self) -> Result<&mut Trainer, Halt> {
        self.trainer
            .as_mut()
            .ok_or_else(|| failed("there is no training thread"))
    }

    /// Idle command stopped, blobs here, data loaded.
    async fn prepare(&mut self) -> Result<(), Halt> {
        stop_idle(&self.context).await.map_err(failed)?;
        let matched = Arc::clone(&self.matched);
        let (Work::Train { model, train, .. }, Some(info)) = (&matched.spec.work, &matched.dataset)
        else {
            return Err(failed("this is no training task"));
        };
        let files = self.fetch_files(&matched.dataset_files).await?;
        let plan = Plan {
            model: model.clone(),
            train: train.clone(),
            info: info.clone(),
            files,
            threads: self.context.threads,
            metadata: BTreeMap::from([
                (FORMAT.0.into(), FORMAT.1.into()),
                ("task".into(), matched.task.to_string()),
            ]),
            committed: self.context.standing.committed(),
        };
        let mut trainer = Trainer::start(plan).map_err(failed)?;
        match trainer.events.recv().await {
            Some(Event::Loaded) => {
                self.trainer = Some(trainer);
                Ok(())
            }
            other => Err(ended(other)),
        }
    }

    /// How this member comes to the step from which the attempt starts, with the checkpoint where it takes one.
    async fn footing(&mut self) -> Result<Footing, Halt> {
        let matched = Arc::clone(&self.matched);
        let here = self.trainer_mut()?;
        let (committed, prepared) = (here.committed(), here.prepared());
        let (start, resume) = (matched.start_step, matched.resume.as_ref());
        match wanted(committed, prepared, start, resume) {
            Some(Wanted::Footing(footing)) => Ok(footing),
            Some(Wanted::Checkpoint(file)) => {
                Ok(Footing::Restore(self.read_checkpoint(file).await?))
            }
            None => Err(failed(format!(
                "the attempt starts after step {start}, this miner is after step {committed} and was given no checkpoint"
            ))),
        }
    }

    /// Takes it up. Not to be broken off: the thread's answer belongs to this question.
    async fn stand(&mut self, footing: Footing) -> Result<(), Halt> {
        let start = self.matched.start_step;
        let trainer = self.trainer_mut()?;
        trainer.stand(footing);
        let event = trainer.events.recv().await;
        let committed = trainer.committed();
        match event {
            Some(Event::Standing) if committed == start => Ok(()),
            Some(Event::Standing) => Err(failed(format!(
                "the checkpoint is of step {committed}, not of step {start}"
            ))),
            other => Err(ended(other)),
        }
    }

    async fn read_checkpoint(&mut self, file: &ResultFile) -> Result<Vec<u8>, Halt> {
        let path = self.fetch(&file.name, (file.blob, file.bytes), &[]).await?;
        tokio::fs::read(&path)
            .await
            .map_err(|e| failed(format!("{}: {e}", path.display())))
    }

    /// How gradients travel.
    fn wire(&self) -> Wire {
        match &self.matched.spec.work {
            Work::Train { train, .. } => train.wire,
            Work::Infer { .. } | Work::Serve { .. } => Wire::F32,
        }
    }

    /// Closes the ring. Dropping the second part has the thread leave it.
    async fn join(&self, socket: RingSocket) -> Result<(Leg, watch::Sender<bool>), Halt> {
        let matched = &self.matched;
        let plan = RingPlan {
            task: matched.task,
            attempt: matched.attempt,
            rank: matched.rank,
            members: matched.members.iter().map(|m| m.node).collect(),
            addresses: matched.ring_addresses.clone(),
            wire: self.wire(),
            profile: self.context.ring_profile,
            limit: JOIN_LIMIT,
        };
        let ring = socket.join(plan).await.map_err(|e| Halt::Broken {
            suspect: e.suspect(),
            reason: e.to_string(),
        })?;
        let (leave_sender, leave) = watch::channel(false);
        let leg = Leg {
            ring,
            rank: matched.rank,
            world: matched.members.len() as u32,
            leave,
        };
        Ok((leg, leave_sender))
    }

    /// Passes on what the thread says, until it is done with its leg.
    async fn listen(
        &mut self,
        orders: &mut Orders,
        uploads: &mut Uploads,
    ) -> Result<Box<Done>, Halt> {
        loop {
            let trainer = self.trainer_mut()?;
            let event = tokio::select! {
                biased;
                halt = orders.next() => return Err(halt),
                error = uploads.trouble() => return Err(failed(error)),
                event = trainer.events.recv() => event,
            };
            match event {
                Some(Event::Done(done)) => return Ok(done),
                Some(Event::Broken { suspect, reason }) => {
                    return Err(Halt::Broken { suspect, reason });
                }
                Some(news @ (Event::Progress { .. } | Event::Checkpoint { .. })) => {
                    let passed = async {
                        self.pass_on(news, uploads).await;
                        Ok(())
                    };
                    orders.during(passed).await?;
                }
                other => return Err(ended(other)),
            }
        }
    }

    /// News from the middle of a leg.
    async fn pass_on(&self, event: Event, uploads: &Uploads) {
        match event {
            Event::Progress {
                step,
                loss,
                samples_per_s,
            } => self.report(Report::Progress {
                step,
                loss,
                samples_per_s,
            }),
            Event::Checkpoint {
                step,
                fingerprint,
                computed_ms,
                state: None,
            } => self.report(Report::Checkpoint {
                step,
                fingerprint,
                computed_ms,
                stored: None,
            }),
            Event::Checkpoint {
                step,
                fingerprint,
                computed_ms,
                state: Some(state),
            } => {
                let checkpoint = uploads::Checkpoint {
                    step,
                    fingerprint,
                    computed_ms,
                    state,
                };
                uploads.checkpoint(checkpoint).await;
            }
            _ => {}
        }
    }

    /// Has the thread leave its ring, and waits until its state is settled. What it said until then is passed on.
    async fn leave(&mut self, leave: &watch::Sender<bool>, uploads: &Uploads) {
        leave.send_replace(true);
        let Some(mut trainer) = self.trainer.take() else {
            return;
        };
        let settled = async {
            while let Some(event) = trainer.events.recv().await {
                match event {
                    Event::Left | Event::Done(_) | Event::Broken { .. } => return true,
                    news => self.pass_on(news, uploads).await,
                }
            }
            false
        };
        // Without its thread the run restores from a checkpoint, if there is one.
        if timeout(LEAVE_LIMIT, settled).await == Ok(true) {
            self.trainer = Some(trainer);
        }
    }

    /// A member that is alone stores what it did before it goes: its work is paid, and the next one goes on from there.
    async fn save_and_leave(
        &mut self,
        reason: &str,
        orders: &mut Orders,
        uploads: Uploads,
    ) -> Halt {
        if let Some(trainer) = self.trainer.as_mut().filter(|t| t.committed() > 0) {
            trainer.save();
            if let Some(checkpoint) = trainer.events.recv().await {
                self.pass_on(checkpoint, &uploads).await;
            }
        }
        uploads.settle(SETTLE_LIMIT).await;
        report_leaving(&self.context, self.task(), orders.attempt, reason);
        orders.next().await
    }

    /// Stores the result and says so.
    async fn finish(&mut self, done: &Done, uploads: Uploads) -> Result<(), Halt> {
        uploads.finish().await.map_err(failed)?;
        let Some((weights, test)) = &done.result else {
            return Err(failed("the training thread made no result"));
        };
        let metrics = Metrics {
            final_loss: done.final_loss,
            test_accuracy: test.accuracy.map(|accuracy| accuracy as f32),
            test_loss: Some(test.loss as f32),
            samples: done.samples,
            compute_ms: done.compute_ms,
            latency: None,
        };
        let card = self.card(done, &metrics).into_bytes();
        let files = vec![(MODEL_FILE, weights.clone()), (CARD_FILE, card)];
        self.store_result(files, metrics).await
    }

    fn card(&self, done: &Done, metrics: &Metrics) -> String {
        let matched = &self.matched;
        match (&matched.spec.work, &matched.dataset) {
            (
                Work::Train {
                    dataset,
                    model,
                    train,
                },
                Some(info),
            ) => Card {
                task: matched.task,
                spec: &matched.spec,
                model,
                train,
                dataset: *dataset,
                info,
                files: &matched.dataset_files,
                miners: matched.members.len(),
                steps: done.steps,
                metrics,
            }
            .text(),
            _ => String::new(),
        }
    }

    async fn store_result(
        &self,
        files: Vec<(&str, Vec<u8>)>,
        mut metrics: Metrics,
    ) -> Result<(), Halt> {
        let begin = Instant::now();
        let mut stored: (Vec<ResultFile>, Vec<StoredReceipt>) = Default::default();
        for (name, content) in files {
            let blob = Packed::new(content);
            let receipt = uploads::store(&self.context, &self.matched, &blob).await;
            stored.1.push(receipt.map_err(failed)?);
            stored.0.push(ResultFile {
                name: name.into(),
                blob: blob.id(),
                bytes: blob.len(),
            });
        }
        let (files, receipts) = stored;
        if let Some(latency) = &mut metrics.latency {
            latency.return_us = micros(begin.elapsed());
        }
        self.report(Report::Finished {
            files,
            receipts,
            metrics,
        });
        Ok(())
    }

    /// Holds the state until the coordinator says that the whole run is over.
    async fn farewell(&self, orders: &mut Orders) -> Result<(), Halt> {
        match timeout(FAREWELL_LIMIT, orders.next()).await {
            Ok(Halt::Over(Ending::Stopped(_))) | Err(_) => Ok(()),
            Ok(halt) => Err(halt),
        }
    }

    async fn infer(&mut self) -> Result<(), Halt> {
        let begin = Instant::now();
        let (info, weights) = self.fetch_model().await?;
        let matched = Arc::clone(&self.matched);
        let (Work::Infer { split, .. }, Some(dataset)) = (&matched.spec.work, &matched.dataset)
        else {
            return Err(failed("the match names no dataset"));
        };
        let files = self.fetch_files(&matched.dataset_files).await?;
        let fetch_us = micros(begin.elapsed());
        self.ready();
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
        self.store_result(files, metrics).await
    }

    /// Idle command stopped, and the model here.
    async fn fetch_model(&mut self) -> Result<(ModelInfo, PathBuf), Halt> {
        self.turn_to(Activity::Preparing);
        stop_idle(&self.context).await.map_err(failed)?;
        let matched = Arc::clone(&self.matched);
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
        orders.on_leave = OnLeave::Halt;
        let held = orders.during(async { Ok(session.hold(&door).await) }).await;
        orders.on_leave = OnLeave::Tell;
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
        let loaded = loading.await.map_err(failed)?;
        let model = loaded.map_err(|fault| Halt::Over(Ending::Failed(fault)))?;
        let latency = Latency {
            fetch_us: micros(fetched - begin),
            load_us: micros(fetched.elapsed()),
            ..Latency::default()
        };
        let (context, matched) = (Arc::clone(&self.context), Arc::clone(&self.matched));
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

    async fn fetch_files(
        &mut self,
        files: &[FileEntry],
    ) -> Result<BTreeMap<String, PathBuf>, Halt> {
        let needed: Vec<BlobId> = files.iter().map(|f| f.blob).collect();
        let mut paths = BTreeMap::new();
        for file in files {
            let path = self
                .fetch(&file.name, (file.blob, file.bytes), &needed)
                .await?;
            paths.insert(file.name.clone(), path);
        }
        Ok(paths)
    }

    /// Where the blob lies in the cache, fetched from the sources if it did not.
    async fn fetch(
        &mut self,
        name: &str,
        (blob, bytes): (BlobId, u64),
        needed: &[BlobId],
    ) -> Result<PathBuf, Halt> {
        let (cache, keep) = (self.context.cache.clone(), needed.to_vec());
        let path = cache.path(&blob);
        let here = tokio::task::spawn_blocking(move || {
            let here = cache.has(&blob);
            if here {
                Ok(true)
            } else {
                cache.make_room(bytes, &keep).map(|()| false)
            }
        });
        if here.await.map_err(failed)?.map_err(failed)? {
            return Ok(path);
        }
        let deadline = Instant::now() + FETCH_LIMIT;
        loop {
            let matched = &self.matched;
            let got = self
                .context
                .transfer
                .get(&matched.sources, &matched.get_ticket, (blob, bytes), &path)
                .await;
            match got {
                Ok(received) => {
                    self.fetched_bytes += received;
                    self.context.tell_samples();
                    return Ok(path);
                }
                Err(e) if may_pass(&e) && Instant::now() < deadline => sleep(RETRY_PAUSE).await,
                Err(e) => return Err(failed(format!("{name} cannot be fetched: {e}"))),
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whether trying again may help.
pub(super) fn may_pass(error: &ErrorBody) -> bool {
    error.class == ErrorClass::Network || error.retry_after_ms.is_some()
}

fn ended(event: Option<Event>) -> Halt {
    match event {
        Some(Event::Failed(fault)) => Halt::Over(Ending::Failed(fault)),
        _ => failed("the training thread ended"),
    }
}

enum Wanted<'a> {
    Footing(Footing),
    Checkpoint(&'a ResultFile),
}

/// How a member that stands after `committed` steps comes to `start_step`; nothing where it cannot.
fn wanted(
    committed: u64,
    prepared: bool,
    start_step: u64,
    resume: Option<&ResultFile>,
) -> Option<Wanted<'_>> {
    if committed == start_step {
        Some(Wanted::Footing(Footing::Stay))
    } else if committed + 1 == start_step && prepared {
        Some(Wanted::Footing(Footing::Commit))
    } else if let Some(file) = resume {
        Some(Wanted::Checkpoint(file))
    } else {
        (start_step == 0).then_some(Wanted::Footing(Footing::Begin))
    }
}

/// Stops the owner's program and waits until it is gone. A front that is being restarted is asked again.
async fn stop_idle(context: &Context) -> Result<(), ErrorBody> {
    let limit = context.idle_stop_limit + IDLE_SLACK;
    let deadline = Instant::now() + limit;
    loop {
        match context.idle.call(IdleMsg::Stop, limit).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(e) if Instant::now() >= deadline => return Err(e),
            Err(e) => {
                let pause = e.retry_after_ms.unwrap_or(200);
                sleep(Duration::from_millis(pause)).await;
            }
        }
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
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(fault)) => Err(Halt::Over(Ending::Failed(fault))),
        Err(e) => {
            warn!("inference: {e}");
            Err(failed("the inference thread died"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> ResultFile {
        ResultFile {
            name: "checkpoint".into(),
            blob: BlobId::new([1; 32]),
            bytes: 1,
        }
    }

    #[test]
    fn a_member_goes_on_with_what_it_has_where_it_can() {
        let file = checkpoint();
        let footing =
            |committed, prepared, start, resume| match wanted(committed, prepared, start, resume) {
                Some(Wanted::Footing(footing)) => Some(footing),
                Some(Wanted::Checkpoint(_)) => Some(Footing::Restore(vec![])),
                None => None,
            };
        assert_eq!(footing(7, true, 7, Some(&file)), Some(Footing::Stay));
        assert_eq!(footing(6, true, 7, Some(&file)), Some(Footing::Commit));
        assert_eq!(
            footing(6, false, 7, Some(&file)),
            Some(Footing::Restore(vec![]))
        );
        assert_eq!(
            footing(8, true, 7, Some(&file)),
            Some(Footing::Restore(vec![]))
        );
        assert_eq!(footing(8, false, 0, None), Some(Footing::Begin));
        assert_eq!(footing(0, false, 7, None), None);
        assert_eq!(footing(5, true, 7, None), None);
    }
}
