//! The training thread: one model, one rank, step by step.
//!
//! It is an operating-system thread of its own, because computing blocks. It owns the session and the data for the whole
//! run, over all attempts; the run ([`super::run`]) hands it a [`Leg`] an attempt, a closed ring and the way out of it, and
//! hears [`Event`]s. Between legs the thread holds its state and waits.
//!
//! A step: the share of the global batch → gradient sums, which the ring adds up while others are still computed
//! ([`exchange`]) → `apply` into the shadow, of sums that are back while others are on their way → the ring adds up loss and
//! count, and is through when every member has come so far → commit. Whatever breaks before that leaves the committed state as
//! it was. While that last sum is under way the thread hashes what it computed, where roots are due; of each committed step it
//! says what its node signs ([`words`]). Where a step's time goes is noted as it goes ([`timeline`]).
//! Where a newcomer follows this member, it is passed the state and the sums ([`followers`]); of a newcomer, the thread takes them and
//! computes nothing else ([`Trainer::follow`]).
//! Nothing here knows of tasks' money, of storage or of the coordinator. When the run is gone, so is this thread: its
//! channels are closed, and a collective in progress is left at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use cryptomind_core::audit::RootSteps;
use cryptomind_core::batch::{self, Epoch, Shares};
use cryptomind_gpu::dataset::{self, DataError, Samples};
use cryptomind_gpu::engine::Brake;
use cryptomind_gpu::inference::Model;
use cryptomind_gpu::session::Session;
use cryptomind_gpu::{EngineError, Evaluation, Scaling};
use cryptomind_net::ring::{Buffer, Passed, Ring, RingError};
use cryptomind_protocol::NodeId;
use cryptomind_protocol::audit::Commitment;
use cryptomind_protocol::item::DatasetInfo;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::task::{Split, TrainSpec};
use cryptomind_protocol::timeline::{Span, Stage};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::rehearsal::{self, Point};

mod alone;
mod exchange;
mod follow;
mod followers;
mod timeline;
mod words;

pub(crate) use alone::alone;
use exchange::Exchange;
pub use followers::Followers;
use timeline::Timeline;
use words::Words;

/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Events that may wait for the run. A checkpoint holds its bytes, so it is few.
const EVENTS: usize = 8;
/// Entry of a weights file's header, which PyTorch's readers look for.
pub(super) const FORMAT: (&str, &str) = ("format", "pt");

/// What is trained, on what.
pub struct Plan {
    /// The model.
    pub model: ModelSpec,
    /// Hyper-parameters.
    pub train: TrainSpec,
    /// What is known of the dataset.
    pub info: DatasetInfo,
    /// Where its files lie, by name.
    pub files: BTreeMap<String, PathBuf>,
    /// Threads to compute with; 0 is all.
    pub threads: usize,
    /// Entries of the weights file's header.
    pub metadata: BTreeMap<String, String>,
    /// Where committed steps are counted.
    pub committed: Arc<AtomicU64>,
}

/// How a member comes to the state after `start_step` steps.
#[derive(Debug, PartialEq, Eq)]
pub enum Footing {
    /// It has it.
    Stay,
    /// It is prepared and was confirmed by others.
    Commit,
    /// It is the beginning.
    Begin,
    /// From a checkpoint's bytes.
    Restore(Vec<u8>),
}

/// One attempt's part.
pub struct Leg {
    /// The closed ring.
    pub ring: Ring,
    /// This member's rank in it.
    pub rank: u32,
    /// Its number of members.
    pub world: u32,
    /// How they divide their batches.
    pub shares: Shares,
    /// Which attempt this is.
    pub attempt: u32,
    /// True, or closed: leave at once.
    pub leave: watch::Receiver<bool>,
    /// Leave where a step ends, once it is set on all members.
    pub calls: Arc<AtomicBool>,
    /// Newcomers that want the state.
    pub followers: Followers,
}

impl Leg {
    /// Set once it is to leave, or its ring has fallen: nobody waits for the rest of a long step.
    fn brake(&self) -> Brake {
        let (leave, has_fallen) = (self.leave.clone(), self.ring.fall());
        Box::new(move || *leave.borrow() || leave.has_changed().is_err() || has_fallen())
    }

    fn reach(&self, point: Point, step: u64) {
        rehearsal::reach(point, (self.attempt, self.rank), step);
    }
}

enum Job {
    Stand(Footing),
    Leg(Box<Leg>),
    Follow(u64, mpsc::Receiver<Passed>),
    Save,
}

/// What the thread says.
pub enum Event {
    /// Data and session are here.
    Loaded,
    /// The wanted state is reached.
    Standing,
    /// A newcomer has the state of whom it follows, and keeps up.
    Level {
        /// Committed steps.
        step: u64,
    },
    /// What it was passed leads nowhere: it is to follow somebody else.
    Astray(String),
    /// It follows nobody any more, by the order of this number; the state is held.
    Unfollowed(u64),
    /// Steps are done; rank 0 only.
    Progress {
        /// Committed steps.
        step: u64,
        /// Mean loss of the last one.
        loss: f32,
        /// Samples a second, over the group.
        samples_per_s: u64,
        /// Where the last one's time went.
        timeline: Vec<Span>,
    },
    /// A checkpoint is due.
    Checkpoint {
        /// Committed steps.
        step: u64,
        /// Equal on all ranks.
        fingerprint: Hash,
        /// How long this thread computed in this leg until here, milliseconds, without waiting for others.
        computed_ms: u64,
        /// The state; rank 0 only.
        state: Option<Vec<u8>>,
    },
    /// What this rank says of steps that it committed, for its node to sign.
    Committed {
        /// The first of them, counted from 1.
        first: u64,
        /// It and those after it.
        steps: Vec<Commitment>,
    },
    /// The ring broke; the state is held.
    Broken {
        /// Whom this member suspects.
        suspect: Option<NodeId>,
        /// What that one did, to be read after its name; what happened, where nobody is suspected.
        reason: String,
    },
    /// The ring was left as told; the state is held.
    Left,
    /// All steps are committed.
    Done(Box<Done>),
    /// It cannot go on; the thread ends.
    Failed(Fault),
}

/// The end of all steps.
pub struct Done {
    /// Mean loss of the last step, where this thread computed it.
    pub final_loss: Option<f32>,
    /// Steps of the run.
    pub steps: u64,
    /// Samples of the run.
    pub samples: u64,
    /// Time in legs, milliseconds.
    pub compute_ms: u64,
    /// Weights, and how good they are on the test split; rank 0 only.
    pub result: Option<(Vec<u8>, Evaluation)>,
}

/// What one step took on this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTime {
    /// From its beginning to its commit.
    pub wall: Duration,
    /// Of that, without waiting for others.
    pub busy: Duration,
}

/// Why a thread ends before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whether nobody else could do it either.
    pub task_fault: bool,
    /// What happened.
    pub reason: String,
}

impl Fault {
    /// Something that went wrong here: others may do better.
    pub(super) fn here(reason: impl ToString) -> Self {
        Self {
            task_fault: false,
            reason: reason.to_string(),
        }
    }
}

impl From<DataError> for Fault {
    fn from(error: DataError) -> Self {
        Self {
            // The files are what the catalog names, byte for byte: nobody would read them otherwise.
            task_fault: !matches!(error, DataError::Io { .. }),
            reason: error.to_string(),
        }
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        Self {
            task_fault: error.is_task_fault(),
            reason: error.to_string(),
        }
    }
}

/// The run's hold on the thread; dropping it ends the thread.
pub struct Trainer {
    jobs: std_mpsc::SyncSender<Job>,
    /// What the thread says, in order. Closed when it has ended.
    pub events: mpsc::Receiver<Event>,
    committed: Arc<AtomicU64>,
    prepared: Arc<AtomicBool>,
}

impl Trainer {
    /// Starts the thread, which loads the data and says [`Event::Loaded`]. Needs a tokio runtime for the rings.
    pub fn start(plan: Plan) -> std::io::Result<Self> {
        Self::spawn(plan, None)
    }

    /// The same, and each step's time is told: the channel holds all that nobody has read.
    pub fn start_timed(plan: Plan, times: std_mpsc::Sender<StepTime>) -> std::io::Result<Self> {
        Self::spawn(plan, Some(times))
    }

    fn spawn(plan: Plan, times: Option<std_mpsc::Sender<StepTime>>) -> std::io::Result<Self> {
        let (jobs, jobs_receiver) = std_mpsc::sync_channel(1);
        let (events_sender, events) = mpsc::channel(EVENTS);
        let (committed, prepared) = (Arc::clone(&plan.committed), Arc::default());
        let told = Told {
            prepared: Arc::clone(&prepared),
            events: events_sender,
            times,
        };
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("train".into())
            .spawn(move || {
                let events = told.events.clone();
                let ended = work(plan, told, &jobs_receiver, &runtime);
                if let Err(Halt::Fault(fault)) = ended {
                    // Where nobody listens, nobody needs to know.
                    let _ = events.blocking_send(Event::Failed(fault));
                }
            })?;
        Ok(Self {
            jobs,
            events,
            committed,
            prepared,
        })
    }

    /// Committed steps. Settled while no leg is under way.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    /// Whether the step after those is prepared. Settled while no leg is under way.
    pub fn prepared(&self) -> bool {
        self.prepared.load(Ordering::SeqCst)
    }

    /// Has the thread take up a state; it answers [`Event::Standing`].
    pub fn stand(&self, footing: Footing) {
        self.order(Job::Stand(footing));
    }

    /// Has the thread train on a ring, until [`Event::Done`], [`Event::Broken`] or [`Event::Left`].
    pub fn train(&self, leg: Leg) {
        self.order(Job::Leg(Box::new(leg)));
    }

    /// Has the thread take up what a member passes on, until [`Piece::End`](cryptomind_protocol::follow::Piece::End) or the channel's end; then
    /// it says [`Event::Unfollowed`], with this number.
    pub fn follow(&self, number: u64, pieces: mpsc::Receiver<Passed>) {
        self.order(Job::Follow(number, pieces));
    }

    /// Has the thread make a checkpoint of where it stands; it answers [`Event::Checkpoint`] with the state.
    pub fn save(&self) {
        self.order(Job::Save);
    }

    fn order(&self, job: Job) {
        // One job at a time is the caller's rule; a thread that has ended has said so by closing its events.
        let _ = self.jobs.try_send(job);
    }
}

/// Why a leg, or the thread, does not go on.
enum Halt {
    /// All members leave where this step ends.
    Called,
    Left,
    /// The ring, or what was summed in it, is not in order.
    Broken {
        suspect: Option<NodeId>,
        reason: String,
    },
    Fault(Fault),
    /// Nobody listens any more.
    Orphaned,
}

impl From<EngineError> for Halt {
    fn from(error: EngineError) -> Self {
        Self::Fault(error.into())
    }
}

impl Halt {
    /// What the end of its ring is to this rank. A sum that overflows is the task's fault for who found it; the others have its
    /// word for it, which alone fails no task.
    fn of_ring(error: RingError, own: u32) -> Self {
        match error {
            RingError::Overflow { rank, .. } if rank == own => Self::Fault(Fault {
                task_fault: true,
                reason: error.to_string(),
            }),
            error => Self::Broken {
                suspect: error.suspect(),
                reason: error.deed(),
            },
        }
    }
}

fn work(
    plan: Plan,
    told: Told,
    jobs: &std_mpsc::Receiver<Job>,
    runtime: &Handle,
) -> Result<(), Halt> {
    let mut bench = Bench::new(plan, told, runtime.clone())?;
    bench.say(Event::Loaded)?;
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Stand(footing) => {
                bench.stand(footing)?;
                bench.say(Event::Standing)?;
            }
            Job::Leg(leg) => bench.leg(*leg)?,
            Job::Follow(number, pieces) => bench.follow(number, pieces)?,
            Job::Save => bench.checkpoint(0)?,
        }
    }
    Ok(())
}

/// What the thread lets others know.
struct Told {
    prepared: Arc<AtomicBool>,
    events: mpsc::Sender<Event>,
    /// Where somebody asked for them.
    times: Option<std_mpsc::Sender<StepTime>>,
}

/// What lies on the thread's bench.
struct Bench {
    plan: Plan,
    session: Session,
    samples: Samples,
    /// How the samples are scaled.
    scaling: Scaling,
    order: Order,
    exchange: Exchange,
    timeline: Timeline,
    words: Words,
    last_loss: Option<f32>,
    computed: Duration,
    /// Of this leg, without waiting for others.
    busy: Duration,
    /// The last one that it trained in.
    attempt: u32,
    /// Whether all members were called to leave here.
    is_called: bool,
    told: Told,
    runtime: Handle,
}

/// The order of samples: that of the present epoch, made when it begins.
#[derive(Default)]
struct Order(Option<(u64, Epoch)>);

impl Order {
    /// The global batch of the step after `step` steps.
    fn batch(&mut self, train: &TrainSpec, samples: usize, step: u64) -> &[u32] {
        let (number, place) = batch::place(step, train.steps_per_epoch(samples as u64));
        if self
            .0
            .as_ref()
            .is_none_or(|(present, _)| *present != number)
        {
            self.0 = Some((number, Epoch::new(train.seed, number, samples as u32)));
        }
        let epoch = self.0.as_ref().map(|(_, epoch)| epoch);
        epoch.map_or(&[], |epoch| epoch.step(place, train.global_batch))
    }
}

fn load(plan: &Plan, split: Split) -> Result<(Samples, Scaling), Fault> {
    let file = |name: &str| plan.files.get(name).cloned().unwrap_or_default();
    Ok(dataset::load(&plan.info, split, None, &file)?)
}

fn new_session(plan: &Plan) -> Result<Session, EngineError> {
    match plan.threads {
        0 => Session::new(&plan.model, &plan.train),
        threads => Session::with_threads(&plan.model, &plan.train, threads),
    }
}

impl Bench {
    fn new(plan: Plan, told: Told, runtime: Handle) -> Result<Self, Halt> {
        let (samples, scaling) = load(&plan, Split::Train).map_err(Halt::Fault)?;
        let session = new_session(&plan)?;
        plan.committed.store(0, Ordering::SeqCst);
        Ok(Self {
            exchange: Exchange::new(plan.train.wire, session.parameter_count()),
            plan,
            session,
            samples,
            scaling,
            order: Order::default(),
            timeline: Timeline::new(),
            words: Words::new(),
            last_loss: None,
            computed: Duration::ZERO,
            busy: Duration::ZERO,
            attempt: 0,
            is_called: false,
            told,
            runtime,
        })
    }

    fn say(&self, event: Event) -> Result<(), Halt> {
        let said = self.told.events.blocking_send(event);
        said.map_err(|_| Halt::Orphaned)
    }

    /// Lets the run see how far the session is.
    fn show(&self) {
        let (committed, prepared) = (self.session.step(), self.session.is_prepared());
        self.plan.committed.store(committed, Ordering::SeqCst);
        self.told.prepared.store(prepared, Ordering::SeqCst);
    }

    fn stand(&mut self, footing: Footing) -> Result<(), Halt> {
        match footing {
            Footing::Stay => self.session.discard(),
            Footing::Commit => self.commit(),
            Footing::Begin => {
                self.session = new_session(&self.plan)?;
                self.exchange.forget();
            }
            Footing::Restore(state) => {
                self.session.restore(&state)?;
                self.exchange.forget();
            }
        }
        self.show();
        Ok(())
    }

    fn total_steps(&self) -> u64 {
        self.plan.train.total_steps(self.samples.len() as u64)
    }

    /// Trains to the end or to the first trouble, and says which.
    fn leg(&mut self, mut leg: Leg) -> Result<(), Halt> {
        let begin = Instant::now();
        self.busy = Duration::ZERO;
        (self.attempt, self.is_called) = (leg.attempt, false);
        self.session.set_brake(Some(leg.brake()));
        let outcome = self.steps(&mut leg);
        self.session.set_brake(None);
        if let Err(Halt::Called | Halt::Left | Halt::Broken { .. }) = outcome {
            leg.followers.end(&self.session);
        }
        self.computed += begin.elapsed();
        self.show();
        self.say_words()?;
        if matches!(outcome, Ok(()) | Err(Halt::Called | Halt::Broken { .. })) {
            // Others may not have read yet what lets them commit the step, or what is wrong with it. Nobody here waits for it.
            self.runtime.spawn(leg.ring.leave());
        }
        match outcome {
            Ok(()) => {
                let done = self.done(leg.rank)?;
                self.say(Event::Done(Box::new(done)))
            }
            Err(Halt::Called | Halt::Left) => self.say(Event::Left),
            Err(Halt::Broken { suspect, reason }) => self.say(Event::Broken { suspect, reason }),
            Err(halt) => Err(halt),
        }
    }

    fn steps(&mut self, leg: &mut Leg) -> Result<(), Halt> {
        let total = self.total_steps();
        let root_steps = RootSteps::new(&self.plan.model, &self.plan.train, leg.world, total);
        let mut pace = Pace::new();
        if self.session.step() == total {
            // A group that formed again after the last step: its coordinator may lack this checkpoint.
            self.checkpoint(leg.rank)?;
        }
        while self.session.step() < total {
            let samples = self.timed_step(leg, &root_steps)?;
            let step = self.session.step();
            if leg.rank == 0
                && let Some(samples_per_s) = pace.tell(samples, step == total)
            {
                self.say(Event::Progress {
                    step,
                    loss: self.last_loss.unwrap_or_default(),
                    samples_per_s,
                    timeline: self.timeline.spans().to_vec(),
                })?;
            }
            let is_checkpoint =
                step == total || step.is_multiple_of(u64::from(self.plan.train.checkpoint_steps));
            if is_checkpoint || self.words.is_due() {
                self.say_words()?;
            }
            if is_checkpoint {
                self.checkpoint(leg.rank)?;
            }
            if self.is_called && step < total {
                return Err(Halt::Called);
            }
        }
        Ok(())
    }

    fn say_words(&mut self) -> Result<(), Halt> {
        match self.words.take() {
            Some((first, steps)) => self.say(Event::Committed { first, steps }),
            None => Ok(()),
        }
    }

    fn timed_step(&mut self, leg: &mut Leg, root_steps: &RootSteps) -> Result<u64, Halt> {
        let (begin, busy) = (Instant::now(), self.busy);
        self.timeline.begin(begin);
        let samples = self.step(leg, root_steps)?;
        if let Some(times) = &self.told.times {
            // Where nobody reads them any more, nobody needs them.
            let _ = times.send(StepTime {
                wall: begin.elapsed(),
                busy: self.busy - busy,
            });
        }
        Ok(samples)
    }

    /// One step, to its commit. Returns the samples of the global batch.
    fn step(&mut self, leg: &mut Leg, root_steps: &RootSteps) -> Result<u64, Halt> {
        leg.followers.welcome(&self.session);
        let (mine, global) = self.batch(leg.rank, &leg.shares);
        let loss = self.gradients(leg, &mine, global)?;
        let begin = Instant::now();
        self.told.prepared.store(true, Ordering::SeqCst);
        leg.reach(Point::Applying, self.session.step());
        let is_called = leg.calls.load(Ordering::SeqCst);
        let mut own = vec![loss as f32, mine.len() as f32, f32::from(is_called)];
        // How each rank divides the batch: all see the same of all.
        own.resize(own.len() + leg.world as usize, 0.0);
        own[3 + leg.rank as usize] = leg.shares.print();
        let confirmed = leg.ring.sum(Wire::F32, Buffer::of(own));
        leg.reach(Point::Confirming, self.session.step());
        // While the others' confirmations are on their way.
        leg.followers.pass_sums(&mut self.session, global);
        let is_due = root_steps.contains(self.session.step() + 1);
        let roots = is_due.then(|| self.session.prepared_roots()).flatten();
        self.busy += begin.elapsed();
        let sums = within(&self.runtime, (&mut leg.leave, leg.rank), confirmed)?;
        self.timeline.add(Stage::Confirm, begin, Instant::now());
        let (loss, count) = (sums.values[0], sums.values[1]);
        self.is_called = sums.values[2] == leg.world as f32;
        // Exact: a batch has at most 2^20 samples, and f32 holds whole numbers to 2^24. Nobody has committed the step, and nobody can
        // say who is wrong.
        let is_whole = count == global as f32;
        let is_one_division = sums.values[3..].windows(2).all(|pair| pair[0] == pair[1]);
        if !is_whole || !is_one_division {
            return Err(Halt::Broken {
                suspect: None,
                reason: match is_whole {
                    true => "the members divide the batch differently".into(),
                    false => format!("the group computed {count} of {global} samples"),
                },
            });
        }
        self.commit();
        self.last_loss = Some(loss / count);
        let commitment = Commitment {
            loss: loss / count,
            samples: mine.len() as u32,
            roots,
        };
        self.words.add(self.session.step(), commitment);
        self.show();
        let step = self.session.step();
        leg.followers.committed(step);
        leg.reach(Point::Committed, step);
        Ok(u64::from(global))
    }

    /// Prepares the step by the sums of the group's gradients, and returns this member's loss.
    fn gradients(&mut self, leg: &mut Leg, mine: &[u32], global: u32) -> Result<f64, Halt> {
        let begin = Instant::now();
        let (ring, exchange) = (&leg.ring, &mut self.exchange);
        let is_alone = leg.world == 1;
        let (step, place) = (self.session.step(), (leg.attempt, leg.rank));
        exchange.begin();
        let loss = self.session.grad_step(&self.samples, mine, &mut |bucket| {
            rehearsal::reach(Point::Computing, place, step);
            if !is_alone {
                exchange.add(ring, bucket);
            }
        });
        let loss = match loss {
            Err(EngineError::Stopped) => return Err(self.broken_off(leg)),
            loss => loss?,
        };
        exchange.finish(ring);
        self.spent(Stage::Compute, begin);
        // What cannot be applied is told once all sums are there: the others need this member's part in each.
        let mut applied = Ok(());
        for bundle in self.exchange.take_under_way() {
            let (sums, at) = within(
                &self.runtime,
                (&mut leg.leave, leg.rank),
                bundle.summing.timed(),
            )?;
            let begin = Instant::now();
            self.timeline.add(Stage::Ring, bundle.since, at);
            let arena = self.session.gradients();
            let places = self.exchange.put(bundle.parts, sums, arena);
            leg.reach(Point::Summing, step);
            let apply = |place| self.session.apply_part(place, global);
            applied = applied.and_then(|()| places.into_iter().try_for_each(apply));
            self.spent(Stage::Apply, begin);
        }
        applied?;
        if !self.session.is_prepared() {
            // Nothing went around.
            let begin = Instant::now();
            self.session.apply(global)?;
            self.spent(Stage::Apply, begin);
        }
        Ok(loss)
    }

    /// Why a step was broken off: to leave, or because of what the ring says to everything from now on.
    fn broken_off(&self, leg: &mut Leg) -> Halt {
        let asked = leg.ring.barrier();
        let said = within(&self.runtime, (&mut leg.leave, leg.rank), asked);
        said.err().unwrap_or(Halt::Left)
    }

    /// Notes what this thread did since `begin`.
    fn spent(&mut self, stage: Stage, begin: Instant) {
        let end = Instant::now();
        self.busy += end - begin;
        self.timeline.add(stage, begin, end);
    }

    fn commit(&mut self) {
        self.session.commit();
        self.exchange.commit();
        let (attempt, step) = (self.attempt, self.session.step());
        rehearsal::committed(attempt, step, || self.session.fingerprint());
    }

    /// This rank's share of the next step's batch, and the length of the whole batch.
    fn batch(&mut self, rank: u32, shares: &Shares) -> (Vec<u32>, u32) {
        let (train, samples) = (&self.plan.train, self.samples.len());
        let batch = self.order.batch(train, samples, self.session.step());
        (shares.part(batch, rank).to_vec(), batch.len() as u32)
    }

    fn checkpoint(&mut self, rank: u32) -> Result<(), Halt> {
        let begin = Instant::now();
        let fingerprint = self.session.fingerprint();
        let state = (rank == 0).then(|| self.session.checkpoint());
        self.busy += begin.elapsed();
        self.say(Event::Checkpoint {
            step: self.session.step(),
            fingerprint,
            computed_ms: self.busy.as_millis() as u64,
            state,
        })
    }

    fn done(&self, rank: u32) -> Result<Done, Halt> {
        let result = if rank == 0 {
            let mut metadata = self.plan.metadata.clone();
            metadata.extend(self.scaling.metadata());
            let weights = self.session.export(&metadata);
            let (test, _) = load(&self.plan, Split::Test).map_err(Halt::Fault)?;
            let mut model = Model::load(&self.plan.model, &weights)?;
            if self.plan.threads > 0 {
                model = model.with_threads(self.plan.threads);
            }
            Some((weights, model.evaluate(&test)?))
        } else {
            None
        };
        let (steps, samples) = (self.total_steps(), self.samples.len() as u64);
        Ok(Done {
            final_loss: self.last_loss,
            steps,
            samples: self.plan.train.samples_after(steps, samples),
            compute_ms: self.computed.as_millis() as u64,
            result,
        })
    }
}

/// Waits as this rank for the ring, unless told to leave it.
fn within<T>(
    runtime: &Handle,
    (leave, rank): (&mut watch::Receiver<bool>, u32),
    collective: impl Future<Output = Result<T, RingError>>,
) -> Result<T, Halt> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            _ = leave.wait_for(|leave| *leave) => Err(Halt::Left),
            outcome = collective => outcome.map_err(|error| Halt::of_ring(error, rank)),
        }
    })
}

/// How fast the group is, told a few times a second.
struct Pace {
    since: Option<Instant>,
    samples: u64,
    begin: Instant,
}

impl Pace {
    fn new() -> Self {
        Self {
            since: None,
            samples: 0,
            begin: Instant::now(),
        }
    }

    /// Counts samples; answers samples a second since it last did, where it is time to tell.
    fn tell(&mut self, samples: u64, last: bool) -> Option<u64> {
        self.samples += samples;
        let elapsed = self.since.unwrap_or(self.begin).elapsed();
        let due = last || self.since.is_none() || elapsed >= PROGRESS_EVERY;
        due.then(|| {
            let per_s = u128::from(self.samples) * 1_000_000 / elapsed.as_micros().max(1);
            (self.since, self.samples) = (Some(Instant::now()), 0);
            u64::try_from(per_s).unwrap_or(u64::MAX)
        })
    }
}

#[cfg(test)]
mod tests;
