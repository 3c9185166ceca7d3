//! Training with others: what [`Member`] decides is carried out here, by the training thread, the ring, the transfers and the
//! outbox; and what they come to is told to it, with time.
//!
//! The parts that take long are one future at a time ([`Work`]): a member gives its parts one thing to do at a time, and dropping the
//! future breaks it off. Checkpoints are stored beside it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use cryptomind_core::batch::Shares;
use cryptomind_core::member::{self, Effect, Footing, Input, Member, Phase};
use cryptomind_core::succession::{Paused, Voter};
use cryptomind_net::ring::{Follower, Heard, Ring, RingError, RingPlan, RingSocket};
use cryptomind_protocol::node::{Match, Report, Request};
use cryptomind_protocol::ring::Wire;
use cryptomind_protocol::succession::{Decision, Message, Word};
use cryptomind_protocol::task::{Activity, ResultFile, Work as Task};
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeAddress, NodeId, TaskId, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::info;

use super::fetch::Fetch;
use super::follow::Following;
use super::{Berth, Context, Ending, Fault, Order, Place, stop_idle, store};
use crate::miner::audit;
use crate::miner::rehearsal::{self, Point};
use crate::miner::train::{self, Done, Event, FORMAT, Followers, Leg, Plan, Trainer};
use crate::miner::uploads::{Checkpoint, Uploads};

/// What the training thread gets to leave a ring: to the end of what it computes.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);
/// What checkpoints under way get when their attempt is over.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);
/// What they get while the coordinator waits for an answer: others wait with it.
const FINISH_LIMIT: Duration = Duration::from_millis(300);

/// Why a match is refused that would have this node take another's place.
const NOT_FOR_THIS_NODE: &str = "the match has no place for this node";

/// What takes long.
type Work = Pin<Box<dyn Future<Output = Worked> + Send>>;

/// What it comes to.
enum Worked {
    Prepared(Result<(Trainer, u64), Fault>),
    Fetched(Result<(PathBuf, u64), Fault>),
    Read(Result<Vec<u8>, Fault>),
    Joined(Result<Ring, RingError>),
    Followed(Result<(), Fault>),
    Saved,
    Stored(Result<Report, Fault>),
    /// The thread has not left its ring in time.
    Late,
}

/// What happens to a group.
enum Happened {
    Connection,
    Ordered(Option<Order>),
    Worked(Worked),
    Heard(NodeId, Word),
    Followed(Follower),
    Told(Option<Event>),
    /// A checkpoint cannot be stored; or else there is room for the one that waits.
    Uploads(Option<ErrorBody>),
    Time,
}

/// What lasts as long as one ring.
struct Attempt {
    /// True: the thread leaves the ring.
    leave: watch::Sender<bool>,
    /// True: it leaves where a step ends, once all members are told to.
    calls: Arc<AtomicBool>,
    /// Newcomers, on their way to the thread.
    followers: std_mpsc::Sender<Follower>,
    /// Until they are left to themselves.
    uploads: Option<Uploads>,
}

/// One member, with all that it needs.
struct Group {
    context: Arc<Context>,
    network: GenesisHash,
    member: Member,
    /// The member's clock.
    start: Instant,
    /// What the coordinator said of the present attempt, and the members of their own.
    matched: watch::Sender<Arc<Match>>,
    /// What it said of an attempt that the member has not entered yet.
    told: Option<Box<Match>>,
    socket: RingSocket,
    address: String,
    connected: watch::Receiver<bool>,
    trainer: Option<Trainer>,
    /// Whether the thread is in a ring.
    trains: bool,
    /// The checkpoint that was fetched.
    checkpoint: PathBuf,
    /// Of a newcomer: whom it follows, and how often it was ordered to.
    following: Option<Following>,
    follows: u64,
    /// A closed ring, until the thread has it.
    ring: Option<Ring>,
    attempt: Option<Attempt>,
    /// A checkpoint for which there is no room yet: the thread waits with it.
    waits: Option<Checkpoint>,
    /// Checkpoints of attempts that are over.
    settling: JoinSet<()>,
    done: Option<Box<Done>>,
    work: Option<Work>,
    inputs: VecDeque<Input>,
}

/// Carries out a match, and what follows from it, to the end.
pub(super) async fn drive(
    context: Arc<Context>,
    place: Place,
    matched: Match,
    Berth { socket, address }: Berth,
    mut orders: mpsc::Receiver<Order>,
) -> Ending {
    rehearsal::begin();
    let voter = Voter {
        key: context.key.clone(),
        network: place.network,
    };
    if !is_for(&matched, voter.node()) {
        return refused(&context, &matched);
    }
    let here = member::Place::from(&matched);
    let (member, effects) = Member::start(matched.task, voter, here, seed());
    let connected = context.joined.subscribe();
    let mut group = Group {
        context,
        network: place.network,
        member,
        start: Instant::now(),
        matched: watch::Sender::new(Arc::new(matched)),
        told: None,
        socket,
        address,
        connected,
        trainer: None,
        trains: false,
        checkpoint: PathBuf::new(),
        following: None,
        follows: 0,
        ring: None,
        attempt: None,
        waits: None,
        settling: JoinSet::new(),
        done: None,
        work: None,
        inputs: VecDeque::new(),
    };
    group.enter();
    if !*group.connected.borrow_and_update() {
        group.inputs.push_back(Input::Connected(false));
    }
    let mut ending = group.carry_all(effects);
    while ending.is_none() {
        let input = match group.inputs.pop_front() {
            Some(input) => Some(input),
            None => group.next(&mut orders).await,
        };
        ending = input.and_then(|input| group.apply(input));
    }
    group.wind_up().await;
    ending.unwrap_or(Ending::Finished)
}

impl Group {
    fn node(&self) -> NodeId {
        NodeId::of_key(&self.context.key.public())
    }

    fn matched(&self) -> Arc<Match> {
        Arc::clone(&self.matched.borrow())
    }

    fn task(&self) -> TaskId {
        self.matched.borrow().task
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.start.elapsed().as_millis() as u64)
    }

    /// Waits for what happens next; nothing where it is none of the member's business.
    async fn next(&mut self, orders: &mut mpsc::Receiver<Order>) -> Option<Input> {
        let timer = self.member.next_timer();
        let timer = timer.map(|at| self.start + Duration::from_millis(at.as_ms()));
        let Self {
            connected,
            socket,
            trainer,
            attempt,
            waits,
            work,
            ..
        } = self;
        let is_full = waits.is_some();
        let happened = tokio::select! {
            // The sender lives in the context.
            _ = connected.changed() => Happened::Connection,
            order = orders.recv() => Happened::Ordered(order),
            worked = end_of(work) => Happened::Worked(worked),
            heard = socket.hear() => match heard {
                Heard::Word(from, word) => Happened::Heard(from, word),
                Heard::Follower(follower) => Happened::Followed(follower),
            },
            event = next_of(trainer), if !is_full => Happened::Told(event),
            error = stir_of(attempt, is_full) => Happened::Uploads(error),
            () = sleep_until(timer.unwrap_or(self.start)), if timer.is_some() => Happened::Time,
        };
        self.take(happened)
    }

    fn take(&mut self, happened: Happened) -> Option<Input> {
        match happened {
            Happened::Connection => {
                let is_connected = *self.connected.borrow_and_update();
                Some(Input::Connected(is_connected))
            }
            Happened::Ordered(order) => Some(self.ordered(order)),
            Happened::Worked(worked) => {
                self.work = None;
                self.worked(worked)
            }
            Happened::Heard(from, word) if word.task == self.task() => Some(Input::Heard {
                from,
                attempt: word.attempt,
                message: word.message,
            }),
            Happened::Heard(..) => None,
            Happened::Followed(follower) => {
                self.let_follow(follower);
                None
            }
            Happened::Told(event) => self.told(event),
            // Who goes is not held up by it.
            Happened::Uploads(Some(_)) if self.member.phase() == Phase::Saving => {
                self.attempt = None;
                Some(Input::Saved)
            }
            Happened::Uploads(Some(_)) if self.member.phase() == Phase::Leaving => None,
            Happened::Uploads(Some(error)) => Some(failed(Fault::here(error))),
            Happened::Uploads(None) => {
                if let Some(checkpoint) = self.waits.take() {
                    self.upload(checkpoint);
                }
                None
            }
            Happened::Time => Some(Input::Tick),
        }
    }

    fn ordered(&mut self, order: Option<Order>) -> Input {
        let order = match order {
            None => member::Order::Stop {
                reason: "the worker is gone".into(),
            },
            Some(Order::Stop { reason }) => member::Order::Stop { reason },
            Some(Order::Pause {
                attempt,
                at_step_end,
            }) => member::Order::Pause {
                attempt,
                at_step_end,
            },
            Some(Order::Leave { reason }) => member::Order::Leave { reason },
            Some(Order::Match(matched)) if !is_for(&matched, self.node()) => {
                return failed(Fault::here(NOT_FOR_THIS_NODE));
            }
            Some(Order::Match(matched)) => {
                let place = member::Place::from(&*matched);
                self.noted(matched);
                member::Order::Match(place)
            }
        };
        // Who orders is connected: the order came after the news of that.
        if self.connected.has_changed().unwrap_or_default() {
            self.inputs.push_back(Input::Order(order));
            return Input::Connected(*self.connected.borrow_and_update());
        }
        Input::Order(order)
    }

    /// Of the attempt that it is in, a match brings fresh tickets, and newcomers; else it is kept until the member enters it.
    fn noted(&mut self, matched: Box<Match>) {
        if matched.attempt != self.matched.borrow().attempt {
            self.told = Some(matched);
            return;
        }
        let mut present = Match::clone(&self.matched());
        present.sources = matched.sources;
        present.get_ticket = matched.get_ticket;
        present.put_ticket = matched.put_ticket;
        present.newcomers = matched.newcomers;
        self.matched.send_replace(Arc::new(present));
        self.know();
    }

    /// Listens to the other members, and lets the newcomers follow.
    fn know(&self) {
        let (place, matched) = (self.member.place(), self.matched());
        let members = place.members.iter().zip(&place.ring_addresses);
        let newcomers = matched.newcomers.iter();
        let all = members.chain(newcomers.map(|n| (&n.node, &n.ring_address)));
        let all = all.filter_map(|(node, at)| format!("cm://{node}@{at}").parse().ok());
        self.socket.know(all.collect::<Vec<NodeAddress>>());
    }

    fn worked(&mut self, worked: Worked) -> Option<Input> {
        Some(match worked {
            Worked::Prepared(Ok((trainer, fetched_bytes))) => {
                self.trainer = Some(trainer);
                Input::Loaded { fetched_bytes }
            }
            Worked::Fetched(Ok((path, fetched_bytes))) => {
                self.checkpoint = path;
                Input::Loaded { fetched_bytes }
            }
            Worked::Read(Ok(state)) => {
                self.stand(train::Footing::Restore(state));
                return None;
            }
            Worked::Prepared(Err(fault))
            | Worked::Followed(Err(fault))
            | Worked::Fetched(Err(fault))
            | Worked::Read(Err(fault))
            | Worked::Stored(Err(fault)) => failed(fault),
            Worked::Joined(Ok(ring)) => {
                self.ring = Some(ring);
                Input::Joined
            }
            Worked::Joined(Err(error)) => self.broken(error.suspect(), error.deed()),
            Worked::Followed(Ok(())) => {
                // The thread comes to rest with what it has.
                self.following = None;
                return None;
            }
            Worked::Saved => Input::Saved,
            Worked::Stored(Ok(report)) => Input::Stored(report),
            Worked::Late => failed(Fault::here(format!(
                "the training thread did not leave its ring within {LEAVE_LIMIT:?}"
            ))),
        })
    }

    /// Where the thread stands.
    fn at(&self) -> Paused {
        self.trainer
            .as_ref()
            .map_or_else(Paused::default, |trainer| Paused {
                committed: trainer.committed(),
                prepared: trainer.prepared(),
            })
    }

    fn broken(&self, suspect: Option<NodeId>, reason: String) -> Input {
        let at = self.at();
        let who = suspect.map_or_else(String::new, |node| format!("{} ", node.short()));
        info!(
            "ring broken after step {}: {who}{reason}; the state is held",
            at.committed
        );
        Input::Broken {
            suspect,
            reason,
            at,
        }
    }

    /// What the thread says.
    fn told(&mut self, event: Option<Event>) -> Option<Input> {
        if let Some(Event::Broken { .. } | Event::Left | Event::Done(_)) = event {
            // It was waited for, where it was told to leave.
            (self.work, self.trains) = (None, false);
        }
        Some(match event {
            Some(Event::Loaded) => return None,
            Some(Event::Standing) => Input::Standing(self.at()),
            Some(Event::Level { step }) => Input::News(Report::Level { step }),
            // Of an order before the present one.
            Some(Event::Unfollowed(number)) if number != self.follows => return None,
            Some(Event::Unfollowed(_)) => {
                (self.work, self.trains, self.following) = (None, false, None);
                Input::Rested(self.at())
            }
            Some(Event::Astray(reason)) => {
                info!("what it follows leads nowhere: {reason}");
                self.follow();
                return None;
            }
            Some(Event::Progress {
                step,
                loss,
                samples_per_s,
                timeline,
            }) => Input::News(Report::Progress {
                step,
                loss,
                samples_per_s,
                timeline,
            }),
            Some(Event::Checkpoint {
                step,
                fingerprint,
                computed_ms,
                state: None,
            }) => Input::News(Report::Checkpoint {
                step,
                fingerprint,
                computed_ms,
                stored: None,
            }),
            Some(Event::Checkpoint {
                step,
                fingerprint,
                computed_ms,
                state: Some(state),
            }) => {
                self.upload(Checkpoint {
                    step,
                    fingerprint,
                    computed_ms,
                    state,
                });
                return None;
            }
            Some(Event::Committed { first, steps }) => {
                let matched = self.matched();
                audit::tell(&self.context, &self.network, &matched, (first, steps));
                return None;
            }
            Some(Event::Broken { suspect, reason }) => self.broken(suspect, reason),
            Some(Event::Left) => Input::Rested(self.at()),
            Some(Event::Done(done)) => {
                self.done = Some(done);
                Input::Done(self.at())
            }
            Some(Event::Failed(fault)) => failed(fault),
            None => failed(Fault::here("the training thread ended")),
        })
    }

    /// Queues a checkpoint. Where there is no room the thread waits, unless its ring is to be left: then the next one covers it.
    fn upload(&mut self, checkpoint: Checkpoint) {
        let uploads = self.attempt.as_ref().and_then(|a| a.uploads.as_ref());
        let Some(uploads) = uploads else { return };
        let left_over = uploads.offer(checkpoint);
        match self.member.phase() {
            Phase::Leaving => {}
            Phase::Saving if left_over.is_none() => self.finish(SETTLE_LIMIT),
            _ => self.waits = left_over,
        }
    }

    /// Gives the member its news, and carries out what it decides.
    fn apply(&mut self, input: Input) -> Option<Ending> {
        let before = self.member.place().attempt;
        let effects = self.member.apply(input, self.now());
        if self.member.place().attempt != before {
            self.enter();
        }
        self.carry_all(effects)
    }

    /// The member has a place in another attempt.
    fn enter(&mut self) {
        let place = self.member.place();
        let told = self.told.take().filter(|m| m.attempt == place.attempt);
        if let Some(told) = told {
            self.matched.send_replace(Arc::from(told));
        } else if place.attempt != self.matched.borrow().attempt {
            let successor = successor_of(&self.matched(), place);
            self.matched.send_replace(Arc::new(successor));
        }
        self.know();
        let (task, attempt) = (self.task(), self.matched.borrow().attempt);
        self.context.standing.enter(task, attempt);
    }

    fn carry_all(&mut self, effects: Vec<Effect>) -> Option<Ending> {
        effects.into_iter().find_map(|effect| self.carry(effect))
    }

    fn carry(&mut self, effect: Effect) -> Option<Ending> {
        match effect {
            Effect::Report { attempt, report } => self.report(attempt, report),
            Effect::Succeeded(decision) => self.succeeded(decision),
            Effect::Send {
                to,
                attempt,
                message,
            } => {
                let task = self.task();
                let point = match &message {
                    Message::Promise { .. } => Some(Point::Told),
                    Message::Accepted(_) => Some(Point::Voted),
                    _ => None,
                };
                let word = Word {
                    task,
                    attempt,
                    message,
                };
                self.socket.tell(to, word);
                if let Some(point) = point {
                    self.reach(point);
                }
            }
            Effect::Prepare => {
                self.reach(Point::Preparing);
                self.turn_to(Activity::Preparing);
                self.trainer = None;
                let prepared = prepare(Arc::clone(&self.context), self.matched.subscribe());
                self.begin(async { Worked::Prepared(prepared.await) });
            }
            Effect::Fetch(file) => self.fetch(file),
            Effect::Stand(footing) => self.take_up(footing),
            // One socket serves all attempts.
            Effect::Bind => {
                self.reach(Point::Resting);
                self.inputs.push_back(Input::Bound {
                    ring_address: self.address.clone(),
                });
            }
            Effect::Join { limit_ms } => {
                self.reach(Point::Joining);
                let plan = self.plan(Duration::from_millis(limit_ms));
                let joined = self.socket.join(plan);
                self.begin(async { Worked::Joined(joined.await) });
            }
            Effect::Train => self.train(),
            Effect::Follow => self.follow(),
            Effect::LeaveAtStepEnd => {
                if let Some(attempt) = &self.attempt {
                    attempt.calls.store(true, Ordering::SeqCst);
                }
            }
            Effect::Leave => self.leave(),
            Effect::Abandon => self.work = None,
            Effect::Settle => self.settle(),
            Effect::Finish => self.finish(FINISH_LIMIT),
            Effect::Save => self.save(),
            Effect::Store => self.store(),
            Effect::End(ending) => return Some(ending),
        }
        None
    }

    fn reach(&self, point: Point) {
        let place = self.member.place();
        let place = (place.attempt, place.rank);
        rehearsal::reach(point, place, self.at().committed);
    }

    /// Has only this under way from now on.
    fn begin(&mut self, work: impl Future<Output = Worked> + Send + 'static) {
        self.work = Some(Box::pin(work));
    }

    fn report(&self, attempt: u32, report: Report) {
        let task = self.task();
        if let Report::Leaving { reason } = &report {
            info!("task {task}: this miner leaves: {reason}");
        }
        let told = matches!(report, Report::Paused { .. });
        self.context.outbox.report(task, attempt, report);
        if told {
            self.reach(Point::Told);
        }
    }

    fn succeeded(&self, decision: Decision) {
        let (task, attempt) = (self.task(), decision.attempt);
        let (members, step) = (
            decision.successor.members.len(),
            decision.successor.start_step,
        );
        info!(
            "task {task}: the coordinator is away; {members} members go on from step {step}, as attempt {attempt}"
        );
        let request = Request::Succeeded { task, decision };
        self.context.outbox.say(request);
        self.reach(Point::Decided);
    }

    fn turn_to(&self, activity: Activity) {
        let task = Some(self.task());
        self.context
            .standing
            .turn_to(activity, task, &self.context.outbox);
    }

    fn fetch(&mut self, file: ResultFile) {
        let mut fetch = Fetch::new(Arc::clone(&self.context), self.matched.subscribe());
        self.begin(async move {
            let path = fetch.file(&file).await;
            Worked::Fetched(path.map(|path| (path, fetch.bytes)))
        });
    }

    fn take_up(&mut self, footing: Footing) {
        match footing {
            Footing::Stay => self.stand(train::Footing::Stay),
            Footing::Commit => self.stand(train::Footing::Commit),
            Footing::Begin => self.stand(train::Footing::Begin),
            Footing::Restore(_) => {
                let path = self.checkpoint.clone();
                self.begin(async move {
                    let read = tokio::fs::read(&path).await;
                    let error = |e| Fault::here(format!("{}: {e}", path.display()));
                    Worked::Read(read.map_err(error))
                });
            }
        }
    }

    fn stand(&self, footing: train::Footing) {
        if let Some(trainer) = &self.trainer {
            trainer.stand(footing);
        }
    }

    fn plan(&self, limit: Duration) -> RingPlan {
        let (matched, place) = (self.matched(), self.member.place());
        RingPlan {
            task: matched.task,
            attempt: place.attempt,
            rank: place.rank,
            members: place.members.clone(),
            addresses: place.ring_addresses.clone(),
            wire: match &matched.spec.work {
                Task::Train { train, .. } => train.wire,
                Task::Infer { .. } | Task::Serve { .. } => Wire::F32,
            },
            profile: self.context.ring_profile,
            limit,
        }
    }

    fn train(&mut self) {
        self.turn_to(Activity::Training);
        let (Some(ring), Some(trainer)) = (self.ring.take(), &self.trainer) else {
            return;
        };
        let (sender, leave) = watch::channel(false);
        let (followers, arriving) = std_mpsc::channel();
        let calls = Arc::<AtomicBool>::default();
        let place = self.member.place();
        trainer.train(Leg {
            ring,
            rank: place.rank,
            world: place.members.len() as u32,
            shares: place.shares.clone(),
            attempt: place.attempt,
            leave,
            calls: Arc::clone(&calls),
            followers: Followers::new(arriving),
        });
        (self.waits, self.trains) = (None, true);
        self.attempt = Some(Attempt {
            leave: sender,
            calls,
            followers,
            uploads: Some(Uploads::start(&self.context, self.matched.subscribe())),
        });
    }

    /// Lets a newcomer have the state, where the coordinator named it and the thread trains.
    fn let_follow(&self, follower: Follower) {
        let matched = self.matched.borrow();
        let wanted = follower.follow();
        let is_here = (wanted.task, wanted.attempt) == (matched.task, matched.attempt);
        let is_named = matched.newcomers.iter().any(|n| n.node == follower.node());
        let attempt = self
            .attempt
            .as_ref()
            .filter(|_| is_here && is_named && self.trains);
        // Dropped, it hears that it has to ask again.
        if let Some(attempt) = attempt {
            drop(attempt.followers.send(follower));
        }
    }

    /// Takes the state from a member and follows it; from the next one, where it followed before.
    fn follow(&mut self) {
        let Some(trainer) = &self.trainer else { return };
        let (guide, matched) = (self.socket.guide(), Arc::clone(&self.matched.borrow()));
        let following = self.following.get_or_insert_with(|| {
            let (following, pieces) = Following::new();
            self.follows += 1;
            trainer.follow(self.follows, pieces);
            following
        });
        self.trains = true;
        let followed = following.begin(guide, &matched);
        self.begin(async { Worked::Followed(followed.await) });
    }

    fn leave(&mut self) {
        if let Some(following) = &self.following {
            return following.end();
        }
        if let Some(attempt) = &self.attempt {
            attempt.leave.send_replace(true);
        }
        // The thread may be waiting with it.
        self.waits = None;
        self.begin(async {
            sleep(LEAVE_LIMIT).await;
            Worked::Late
        });
    }

    fn settle(&mut self) {
        self.waits = None;
        // Of those that have settled nothing is wanted.
        while self.settling.try_join_next().is_some() {}
        if let Some(uploads) = self.attempt.take().and_then(|attempt| attempt.uploads) {
            self.settling.spawn(uploads.settle(SETTLE_LIMIT));
        }
    }

    /// Whoever follows gets a machine that computes nothing for this run any more.
    async fn wind_up(mut self) {
        // The thread hears the end of these.
        (self.attempt, self.following) = (None, None);
        let Some(mut trainer) = self.trainer.take_if(|_| self.trains) else {
            return;
        };
        let rests = async {
            while let Some(event) = trainer.events.recv().await {
                if let Event::Left | Event::Unfollowed(_) | Event::Done(_) | Event::Broken { .. } =
                    event
                {
                    return;
                }
            }
        };
        // A thread that takes longer ends by itself: nobody listens to it any more.
        let _ = timeout(LEAVE_LIMIT, rests).await;
    }

    fn finish(&mut self, limit: Duration) {
        self.waits = None;
        let uploads = self.attempt.take().and_then(|attempt| attempt.uploads);
        self.begin(async move {
            if let Some(uploads) = uploads {
                uploads.settle(limit).await;
            }
            Worked::Saved
        });
    }

    /// Where nothing was done, there is nothing to be saved.
    fn save(&mut self) {
        match &self.trainer {
            Some(trainer) if trainer.committed() > 0 => trainer.save(),
            _ => self.inputs.push_back(Input::Saved),
        }
    }

    fn store(&mut self) {
        let uploads = self.attempt.take().and_then(|attempt| attempt.uploads);
        let (context, place) = (Arc::clone(&self.context), self.matched.subscribe());
        let Some(done) = self.done.take() else { return };
        self.reach(Point::Storing);
        self.begin(async {
            let stored = async {
                if let Some(uploads) = uploads {
                    uploads.finish().await.map_err(Fault::here)?;
                }
                store::model(context, place, done).await
            };
            Worked::Stored(stored.await)
        });
    }
}

/// Whether a match has the place of this node, or lets it follow.
fn is_for(matched: &Match, node: NodeId) -> bool {
    let is_placed = match matched.members.get(matched.rank as usize) {
        Some(member) => member.node == node,
        None => matched
            .newcomers
            .iter()
            .any(|newcomer| newcomer.node == node),
    };
    is_placed
        && !matched.members.is_empty()
        && matched.ring_addresses.len() == matched.members.len()
        && Shares::told(&matched.weights, matched.members.len()).is_some()
}

fn refused(context: &Context, matched: &Match) -> Ending {
    let (task_fault, reason) = (false, NOT_FOR_THIS_NODE.to_owned());
    let report = Report::Failed {
        task_fault,
        reason: reason.clone(),
    };
    context.outbox.report(matched.task, matched.attempt, report);
    Ending::Failed { task_fault, reason }
}

fn failed(Fault { task_fault, reason }: Fault) -> Input {
    Input::Failed { task_fault, reason }
}

/// What the coordinator would have said of a place that the members agreed on.
fn successor_of(matched: &Match, place: &member::Place) -> Match {
    let member = |node: &NodeId| matched.members.iter().find(|m| m.node == *node).cloned();
    Match {
        attempt: place.attempt,
        members: place.members.iter().filter_map(member).collect(),
        ring_addresses: place.ring_addresses.clone(),
        weights: place.shares.tell(),
        rank: place.rank,
        start_step: place.start_step,
        resume: place.resume.clone(),
        newcomers: Vec::new(),
        ..matched.clone()
    }
}

async fn end_of(work: &mut Option<Work>) -> Worked {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn next_of(trainer: &mut Option<Trainer>) -> Option<Event> {
    match trainer {
        Some(trainer) => trainer.events.recv().await,
        None => std::future::pending().await,
    }
}

async fn stir_of(attempt: &mut Option<Attempt>, wants_room: bool) -> Option<ErrorBody> {
    match attempt.as_mut().and_then(|a| a.uploads.as_mut()) {
        Some(uploads) => uploads.stir(wants_room).await,
        None => std::future::pending().await,
    }
}

/// Idle command stopped, blobs here, data loaded; and how many bytes were fetched for it.
async fn prepare(
    context: Arc<Context>,
    place: watch::Receiver<Arc<Match>>,
) -> Result<(Trainer, u64), Fault> {
    let matched = Arc::clone(&place.borrow());
    stop_idle(&context).await.map_err(Fault::here)?;
    let (Task::Train { model, train, .. }, Some(info)) = (&matched.spec.work, &matched.dataset)
    else {
        return Err(Fault::here("this is no training task"));
    };
    let mut fetch = Fetch::new(Arc::clone(&context), place);
    let files = fetch.files(&matched.dataset_files).await?;
    let plan = Plan {
        model: model.clone(),
        train: train.clone(),
        info: info.clone(),
        files,
        threads: context.threads,
        metadata: BTreeMap::from([
            (FORMAT.0.into(), FORMAT.1.into()),
            ("task".into(), matched.task.to_string()),
        ]),
        committed: context.standing.committed(),
    };
    let mut trainer = Trainer::start(plan).map_err(Fault::here)?;
    match trainer.events.recv().await {
        Some(Event::Loaded) => Ok((trainer, fetch.bytes)),
        Some(Event::Failed(fault)) => Err(fault),
        _ => Err(Fault::here("the training thread ended")),
    }
}

/// Without randomness the members' pauses are alike, and that is all.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
