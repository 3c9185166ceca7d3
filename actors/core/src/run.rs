//! The life of a task, from its posting to its settlement: a state machine fed with news and time.
//!
//! **Owns**: one task's state, group, checkpoints and earnings. **Talked to by**: the matchmaker actor, which
//! stores the [`Run`] and carries out its [`Effect`]s, both before anyone hears of them.
//!
//! Nothing waits without a limit. Each row is a wait; all of them are tested in `run/tests/timers.rs` and `run/tests/promise.rs`.
//!
//! | state | waits for | timer | when it comes | when nobody answers | the hold |
//! |---|---|---|---|---|---|
//! | waiting | answers of the miners that were asked | [`Limits::offer_window_ms`] | the best offers form a group: matched | whoever is silent is not waited for any more | all of it held |
//! | waiting | enough offers | [`Limits::wait_ms`] | matched | expired | settled |
//! | matched | `Ready` of each member | [`Limits::prepare_ms`] | running | the silent are lost, the rest form the next attempt | unchanged |
//! | running | progress, but of an inference that promised something | [`STALL_LIMIT_MS`] after the last news | the timer starts anew | nobody knows who it was: all are lost, the task begins again from the last verified checkpoint | earned stays earned |
//! | running | the next verified checkpoint, or an inference's result: see `run/promise.rs` | [`LATE_GRACE_MS`] and [`LATE_FACTOR`] times what was promised, after the group began to compute or the last one was verified | `Earn`; the timer starts anew, as it does in each attempt | who is alone is lost; of several, who says itself that it computed far longer than promised; where none does, all are, and nobody is blamed; the task begins again from the last verified checkpoint | earned stays earned |
//! | running | the stored file of a checkpoint, from the first rank | [`STORE_LIMIT_MS`] after the first member told its fingerprint | its confirmation | the first rank is lost, the rest go on | unchanged |
//! | running | fingerprints of a stored checkpoint, from each member | [`CONFIRM_LIMIT_MS`] after it was stored | it is verified: `Earn` | the silent are lost and blamed; what the others confirm is verified | the others earn |
//! | running, all work verified | the result, from the first rank | [`STALL_LIMIT_MS`] after the last news | finished | the first rank is lost, the next one delivers | all work is earned already |
//! | running, all work verified | a connection of a member that is not the first | [`AWAY_LIMIT_MS`] after it broke | – | it is let go, and nobody pauses | all work is earned already |
//! | running, serving | an acknowledgement of more samples | [`IDLE_LIMIT_MS`] after the last one | `Earn`; the timer starts anew; the last sample, or the client's last word, finishes it | closing, to be finished | the client's word counts |
//! | running, closing | the newest acknowledgement, from the one that serves | [`CLOSE_LIMIT_MS`] after the client cancelled, or fell idle | `Earn`, then cancelled or finished | cancelled or finished all the same | settled |
//! | running, called to pause where a step ends, see `run/call.rs` | a member that says that it did | 5 s and 3 steps | regrouping; matched, as the next attempt | regrouping at once, as where a ring broke | unchanged |
//! | running, smaller than asked for | newcomers, see `run/newcomer.rs` | [`Limits::prepare_ms`] until each is level | regrouping where a step ends, called of all | whoever is not level is turned away, another is asked | unchanged |
//! | regrouping | `Paused` of each member | [`WORD_LIMIT_MS`] for a first word; [`SUSPECT_LIMIT_MS`] for who is suspected or has no connection any more, and for newcomers, once all others have answered | matched, as the next attempt | the silent are lost | unchanged |
//! | regrouping | `Paused` of a member that said that it comes, or that is away | [`PAUSE_LIMIT_MS`]; who comes is asked again that often, [`COMING_LIMIT_MS`] in all | matched, as the next attempt | it is lost | unchanged |
//! | any with a group | a member that leaves: the pause as above, without it | as above | it is let go, the rest form the next attempt | it may go; the rest go on | what it earned is its own |
//! | any with a group | a member's connection | [`AWAY_LIMIT_MS`] after it broke, or after the coordinator came back | the member is told where the group stands | it is lost | what it earned is its own |
//! | any with a group | news of a member that came back without the run's state | [`RETURN_LIMIT_MS`] | its report was on its way, and counts | it is lost, and asked anew | what it earned is its own |
//! | any with a group | the coordinator, that is away: the members may form the next attempt, see [`crate::succession`] | – | [`Input::Succeeded`]: matched, as that attempt, where no other was granted; else who is in it is lost | a majority goes on, the rest waits | unchanged |
//! | any with a group | a group that gets anywhere | [`MAX_FRUITLESS_ATTEMPTS`] without progress, [`MAX_ATTEMPTS_A_CHECKPOINT`] without a verified checkpoint | – | all are lost, the task begins again | unchanged |
//! | waiting again | a further group; whoever failed and is back is chosen before others | [`Limits::offer_window_ms`], [`Limits::wait_ms`]; [`MAX_EXECUTIONS`] groups in all, [`MAX_STRIKES`] failures of one miner | matched | abandoned, or expired | settled |
//! | any | the client | none: nothing waits for the client | `Cancel`: cancelled, settled; where somebody serves, closing | the task goes on to its end | settled as for all others |
//! | any | the task's end | [`Limits::hold_ms`] after it was posted | – | expired | settled |
//! | any | a coordinator whose clock was set | – | [`Input::ClockSet`]: all timers but the last two start anew | – | unchanged |
//! | any | the coordinator | the hold's own expiry, [`Run::hold_expires`] | [`Run::resume`]: all timers but the last two start anew | the ledger settles the hold by itself; [`Input::HoldExpired`] ends the run | settled by the ledger |
//! | finished, cancelled, failed, abandoned, expired | – | – | – | – | gone |
//!
//! *Settled*: every earned share is paid, however the task ended; the items' owners are due their fees if anything was earned,
//! and where the group had the data and neither time nor the network was to blame; storage is paid for a result that was stored;
//! the network takes its share of these; the rest goes back to the client. All in one posting, together with
//! the run's last record.
//!
//! *Lost*: the member's seat is given up and it has one of its [`MAX_STRIKES`] strikes. Whether it is *blamed*, so that its
//! rating falls, is for `run/blame.rs` to say: where the others show at once that it could be done, now; otherwise once the task got
//! further than where it failed. A task that crashes every machine costs no miner anything but its time.
//!
//! What a client may know of other markets by other names: an *offer* is made while the task waits, *match* is matched, *start* the
//! first time that it is running; *degraded* is regrouping, from which it comes back to running by way of matched; *submitted* is running
//! with all work verified, until the result is there; *settled* is each of the last five.
//!
//! **Invariants**: a run settles once; what it earned never shrinks and never exceeds the price of the
//! work; a new attempt is granted here, or formed by a strict majority of the last one's members and adopted here, so two
//! halves of a group never both earn. Timers do not count while the
//! coordinator is away, nor over a step of its clock.
//!
//! **Is not**: the choice of a group (that is [`crate::market`]), nor money (that is [`crate::ledger`]).

use cryptomind_protocol::batch::Weight;
use cryptomind_protocol::block::{Ending, Share};
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::node::{Position, Report};
use cryptomind_protocol::ring::EVICT_MS;
use cryptomind_protocol::speed::{Engine, RunStatistic};
use cryptomind_protocol::task::{
    Event, Latency, Member, Metrics, Payment, ResultFile, TaskSpec, TaskState, Work,
};
use cryptomind_protocol::timeline::Span;
use cryptomind_protocol::{AccountId, Amount, NodeId, PublicKey, Signed, TaskId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::audit::Opened;
use crate::market::waits::WaitRecord;
use crate::market::{Offer, Surroundings};
use crate::price::Terms;
use crate::serve::Shown;
use crate::succession::{Paused, Proof};

mod adopt;
mod blame;
mod call;
mod checkpoint;
mod choice;
mod demand;
mod effort;
mod leave;
mod newcomer;
mod pay;
mod promise;
mod regroup;
mod report;
mod serve;
mod settle;
mod timers;
mod trail;
mod weigh;

pub use blame::Charge;
pub use call::Call;
pub use effort::{Effort, Pace};
pub use newcomer::Newcomer;
pub use pay::Divided;
pub use promise::Promise;
pub use settle::payments;
pub use trail::{MAX_KEPT, MAX_PARTINGS, MAX_WAITING_STEPS, Trail};

/// How long members have to answer a pause. Those that come are asked again then, and the others hear that they are waited for.
pub const PAUSE_LIMIT_MS: u64 = 5_000;
/// How long a suspected member may still answer once all others have.
pub const SUSPECT_LIMIT_MS: u64 = 300;
/// How long a member may say nothing in a pause, neither where it stands nor that it comes: as long as in a ring.
pub const WORD_LIMIT_MS: u64 = EVICT_MS;
/// How long those that come are waited for: longer than a miner gives its own computing to end.
pub const COMING_LIMIT_MS: u64 = 35_000;
/// How long a member may be without a connection to the coordinator before it counts as lost.
pub const AWAY_LIMIT_MS: u64 = 10_000;
/// How long a member that came back without the run's state has for a report that was still on its way. Then it counts as
/// lost, and may be asked anew.
pub const RETURN_LIMIT_MS: u64 = 2_000;
/// How long a group may be without any news.
pub const STALL_LIMIT_MS: u64 = 300_000;
/// What a group that computes has for its next checkpoint beside [`LATE_FACTOR`] times what was promised: short work on busy
/// machines is never late.
pub const LATE_GRACE_MS: u64 = 60_000;
/// So many times as long as promised a group may take to its next checkpoint.
pub const LATE_FACTOR: u64 = 3;
/// How long the first rank has to store a checkpoint whose fingerprint others have told.
pub const STORE_LIMIT_MS: u64 = 240_000;
/// How long members have to confirm a checkpoint that is stored.
pub const CONFIRM_LIMIT_MS: u64 = 60_000;
/// How long a session may be without an acknowledgement of more samples.
pub const IDLE_LIMIT_MS: u64 = 600_000;
/// How long the one that serves has to show its newest acknowledgement when its session ends.
pub const CLOSE_LIMIT_MS: u64 = 2_000;
/// How often a task is begun with a new group before the network gives up.
pub const MAX_EXECUTIONS: u32 = 3;
/// How often a group may form again without getting anywhere.
pub const MAX_FRUITLESS_ATTEMPTS: u32 = 5;
/// How often a group may form again on its way from one verified checkpoint to the next.
pub const MAX_ATTEMPTS_A_CHECKPOINT: u32 = 50;
/// How often one node may fail the same task before it is not asked again.
pub const MAX_STRIKES: usize = 2;
/// How often one node may leave the same task before it is not asked again.
pub const MAX_LEAVES: usize = 2;
/// The most progress events of a task: what is thinner is enough for a curve.
pub const MAX_PROGRESS_EVENTS: u64 = 500;
/// Checkpoints that may wait for members' fingerprints at once.
const MAX_PENDING_CHECKPOINTS: usize = 8;

/// How long a run waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// For offers, once miners were asked.
    pub offer_window_ms: u64,
    /// For enough miners.
    pub wait_ms: u64,
    /// For a group to prepare: to stop idle commands, to fetch data, to close its ring.
    pub prepare_ms: u64,
    /// For all of it, from its posting: then it has ended.
    pub hold_ms: u64,
}

/// A member's place in the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Who.
    pub member: Member,
    /// Where its ring socket listens.
    pub ring_address: String,
    /// Whether it has what it needs and its ring is closed.
    pub ready: bool,
    /// Since when it has no connection to the coordinator.
    pub away_since: Option<Timestamp>,
    /// Since when it is back without the run's state.
    #[serde(default)]
    pub returned: Option<Timestamp>,
    /// Why it leaves, once it said so.
    #[serde(default)]
    pub leaving: Option<String>,
    /// Whether a neighbour found it silent.
    pub suspected: bool,
    /// Until when it has to say something in the present pause; nothing once it said that it comes.
    #[serde(default)]
    pub word_by: Option<Timestamp>,
    /// Its answer to the present pause.
    pub paused: Option<Paused>,
    /// What it computes with.
    #[serde(default)]
    pub engine: Engine,
    /// What it computed that is verified.
    #[serde(default)]
    pub effort: Effort,
    /// Since when it is a member.
    #[serde(default)]
    pub since: Timestamp,
    /// Steps that were done without it.
    #[serde(default)]
    pub from_step: u64,
    /// Speed at this work as the market predicts it, in 10⁶ floating-point operations a second; 0 where nothing is known.
    #[serde(default)]
    pub mflops: u64,
    /// How much of each batch it computes in this attempt.
    #[serde(default)]
    pub weight: Weight,
}

/// A member vouches for a checkpoint.
struct Vouched {
    node: NodeId,
    step: u64,
    fingerprint: Hash,
    computed_ms: u64,
}

/// A checkpoint that is not verified yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCheckpoint {
    /// Steps that it covers.
    pub step: u64,
    /// What each member says its state hashes to.
    pub fingerprints: Vec<(NodeId, Hash)>,
    /// How long each member says that it computed in this attempt until here, milliseconds.
    #[serde(default)]
    pub computed: Vec<(NodeId, u64)>,
    /// When the first member told of it in this attempt: the group had computed it.
    #[serde(default)]
    pub heard: Option<Timestamp>,
    /// The stored file.
    pub stored: Option<ResultFile>,
}

/// A task's execution. Stored whole after every change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The task.
    pub task: TaskId,
    /// Who posted it.
    pub client: AccountId,
    /// The key that signed its posting: of a session, who may call and acknowledge.
    pub caller: Option<PublicKey>,
    /// The one miner that it is for, where it is for one alone: of control tasks. Nobody is told.
    #[serde(default)]
    pub only: Option<NodeId>,
    /// What was asked for.
    pub spec: TaskSpec,
    /// What it costs and takes.
    pub terms: Terms,
    /// How long it waits for what.
    pub limits: Limits,
    /// When it was posted.
    pub posted: Timestamp,
    /// When it was first matched.
    pub matched: Option<Timestamp>,
    /// How far it is.
    pub state: TaskState,
    /// How a session ends, once its miner has shown the newest acknowledgement.
    pub closing: Option<TaskState>,
    /// What it took until the door of a session was open.
    pub opening: Option<Latency>,
    /// What it waits for, or why it ended.
    pub reason: String,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Which membership generation, from 1; 0 before the first match.
    pub attempt: u32,
    /// How many groups have begun it.
    pub executions: u32,
    /// Miners that were asked and have not answered.
    pub asked: Vec<NodeId>,
    /// Miners that were asked, did not answer in time, and may still.
    #[serde(default)]
    pub late: Vec<NodeId>,
    /// Miners that are ready for it.
    pub offers: Vec<Offer>,
    /// Miners that offered and may not take part: not asked again before they join anew.
    pub barred: Vec<NodeId>,
    /// When the offers are looked at, all answers or not.
    pub window_ends: Timestamp,
    /// The group by rank.
    pub seats: Vec<Seat>,
    /// Who follows the group, to have a seat in an attempt to come.
    #[serde(default)]
    pub newcomers: Vec<Newcomer>,
    /// Who would slow the present group down.
    #[serde(default)]
    pub unwanted: Vec<NodeId>,
    /// That the group was called to pause where a step ends: until the next attempt.
    #[serde(default)]
    pub called: Option<Call>,
    /// How often that was to weigh it anew.
    #[serde(default)]
    pub weighed: u32,
    /// Who was in it by rank when the attempt began: only a strict majority of these can form the next one by themselves.
    #[serde(default)]
    pub group: Vec<NodeId>,
    /// What these weighed, by rank. Nothing: all alike.
    #[serde(default)]
    pub weights: Vec<Weight>,
    /// The group of the attempt before, and what it weighed.
    #[serde(default)]
    pub before: Vec<(NodeId, Weight)>,
    /// How the steps since the last verified checkpoint were divided, attempt by attempt.
    #[serde(default)]
    pub divided: Vec<Divided>,
    /// Nodes that failed this task, once a failure.
    pub strikes: Vec<NodeId>,
    /// Failures that may be the task's own fault.
    #[serde(default)]
    pub charges: Vec<Charge>,
    /// Nodes that left this task because they wanted to, once a leave.
    #[serde(default)]
    pub leaves: Vec<NodeId>,
    /// Whether a group ever had the data.
    pub delivered: bool,
    /// Steps done when the attempt began.
    pub start_step: u64,
    /// Steps done, as last reported.
    pub step: u64,
    /// Steps covered by the last verified checkpoint.
    pub verified_step: u64,
    /// Its file.
    pub verified_file: Option<ResultFile>,
    /// Checkpoints that are not verified yet, oldest first.
    pub checkpoints: Vec<PendingCheckpoint>,
    /// Since when a checkpoint that is not verified is known from its members' fingerprints.
    pub heard_since: Option<Timestamp>,
    /// Since when a checkpoint is stored that not all members confirm.
    pub stored_since: Option<Timestamp>,
    /// Steps whose effort is counted in this attempt.
    #[serde(default)]
    pub counted_step: u64,
    /// When these were done, or when the attempt began to compute.
    #[serde(default)]
    pub counted_at: Timestamp,
    /// What computing, exchange and storing were expected to take.
    #[serde(default)]
    pub pace: Pace,
    /// The next checkpoint, and until when: while a group computes of which something was expected.
    #[serde(default)]
    pub promise: Option<Promise>,
    /// What its members signed of their steps.
    #[serde(default)]
    pub trail: Trail,
    /// Earned inside the hold.
    pub earned: Amount,
    /// The nodes that earned it, by order of first earning.
    pub earners: Vec<NodeId>,
    /// Who stores the result.
    pub stored_by: Option<AccountId>,
    /// Attempts since the last progress.
    pub fruitless: u32,
    /// Attempts since the last verified checkpoint.
    pub unverified_attempts: u32,
    /// Members of this attempt that say that the task itself is at fault.
    pub faults: Vec<NodeId>,
    /// The result, while the last checkpoint waits for its verification.
    pub result: Option<(Vec<ResultFile>, Metrics)>,
    /// Payments, once settled.
    pub payments: Vec<Payment>,
    /// Number of events so far.
    pub events: u64,
    /// Step of the last progress event.
    pub progress_step: u64,
    /// Where that step's time went on the first rank; it is kept with no event.
    #[serde(default)]
    pub timeline: Vec<Span>,
    /// When the present state's timer ends.
    pub deadline: Timestamp,
    /// When the present pause began.
    pub paused_at: Timestamp,
}

/// News for a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A miner has joined or become free: it may be asked.
    Free(NodeId),
    /// A miner is ready.
    Offered(Offer),
    /// A miner is not.
    Declined {
        /// Who.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A member connected, and says where it is.
    Joined {
        /// Who.
        node: NodeId,
        /// Where.
        position: Option<Position>,
    },
    /// A member has been connected all along; where it is was not asked. After a restart of the
    /// matchmaker alone.
    Present(NodeId),
    /// A member's connection is gone.
    Disconnected(NodeId),
    /// A member reports.
    Reported {
        /// Who.
        node: NodeId,
        /// In which attempt.
        attempt: u32,
        /// What.
        report: Report,
        /// The account of the storage node whose valid receipt came with the report, where one did.
        stored_by: Option<AccountId>,
    },
    /// The one that serves shows what its client acknowledged: see [`Run::judge`].
    Served {
        /// Who.
        node: NodeId,
        /// In which attempt.
        attempt: u32,
        /// The newest acknowledgement, where there is one.
        shown: Option<Shown>,
        /// Whether its door is closed.
        left: bool,
    },
    /// A member shows what it signed of its steps.
    Committed {
        /// Who.
        node: NodeId,
        /// What, the signature being its own.
        opened: Box<Opened>,
    },
    /// A member says that its group formed the next attempt without the coordinator.
    Succeeded {
        /// Who.
        node: NodeId,
        /// What was decided.
        proof: Box<Proof>,
    },
    /// The client cancels.
    Cancel,
    /// Nobody settled the hold in time: the ledger has done so by itself, with these payments.
    HoldExpired(Vec<Payment>),
    /// The coordinator's clock was set: what was waited for has not had its time, or would have far too much of it.
    ClockSet,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask these miners.
    Announce(Vec<NodeId>),
    /// Give the run an [`Input::Free`] for every miner that is free now.
    AskFree,
    /// Tell a miner that it is not needed.
    Withdraw {
        /// Who.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Tell members and newcomers their places; all of them, or the one named.
    Match {
        /// One, or all.
        only: Option<NodeId>,
    },
    /// Tell members to leave the attempt before `attempt`.
    Pause {
        /// Whom.
        nodes: Vec<NodeId>,
        /// The attempt to come.
        attempt: u32,
        /// Whether where a step ends, or else at once.
        at_step_end: bool,
    },
    /// Tell a node that the run is over for it.
    Stop {
        /// Whom.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// Show this to watchers, under the run's next event number.
    Tell {
        /// Its number.
        number: u64,
        /// What.
        event: Event,
    },
    /// Move tokens inside the hold.
    Earn {
        /// Steps that the verified checkpoint covers; earned once.
        checkpoint: u64,
        /// Who earned what.
        shares: Vec<Share>,
    },
    /// Pay the hold out by its own rules. The caller adds what is withheld of each of [`Run::earners`], and records the
    /// payments with [`Run::settled`].
    Settle(Ending),
    /// A node did its part.
    Praise {
        /// Who.
        node: NodeId,
        /// Whether members of other owners came to the same as it did.
        agreed: bool,
    },
    /// A node left with notice before its part was done.
    LetGo(NodeId),
    /// A node failed.
    Blame {
        /// Who.
        node: NodeId,
        /// How.
        reason: String,
    },
    /// A member left or has ended: what it achieved.
    Ran(RunStatistic),
    /// The task has its first group: how long it waited for it.
    Waited(WaitRecord),
    /// Keep what a member signed of its steps, as it came. Of one member's, the newest [`MAX_KEPT`] are kept.
    Keep {
        /// Whose.
        node: NodeId,
        /// Its number among its member's, from 0.
        number: u64,
        /// The signed bytes.
        commitments: Signed,
    },
    /// Put the trained model into the catalog.
    Publish {
        /// Its files.
        files: Vec<ResultFile>,
        /// What its makers say of it.
        metrics: Metrics,
    },
}

impl Run {
    /// A task that was just posted and whose hold is open. `free` are the miners to ask.
    pub fn open(
        task: TaskId,
        client: AccountId,
        spec: TaskSpec,
        terms: Terms,
        limits: Limits,
        free: Vec<NodeId>,
        now: Timestamp,
    ) -> (Self, Vec<Effect>) {
        let deadline = now.plus_ms(limits.wait_ms);
        let mut run = Self {
            task,
            client,
            caller: None,
            only: None,
            spec,
            terms,
            limits,
            posted: now,
            matched: None,
            state: TaskState::Waiting,
            closing: None,
            opening: None,
            reason: String::new(),
            ended: None,
            attempt: 0,
            executions: 0,
            asked: Vec::new(),
            late: Vec::new(),
            offers: Vec::new(),
            barred: Vec::new(),
            window_ends: now,
            seats: Vec::new(),
            newcomers: Vec::new(),
            unwanted: Vec::new(),
            called: None,
            weighed: 0,
            before: Vec::new(),
            divided: Vec::new(),
            group: Vec::new(),
            weights: Vec::new(),
            strikes: Vec::new(),
            charges: Vec::new(),
            leaves: Vec::new(),
            delivered: false,
            start_step: 0,
            step: 0,
            verified_step: 0,
            verified_file: None,
            checkpoints: Vec::new(),
            heard_since: None,
            stored_since: None,
            counted_step: 0,
            counted_at: now,
            pace: Pace::default(),
            promise: None,
            trail: Trail::default(),
            earned: Amount::ZERO,
            earners: Vec::new(),
            stored_by: None,
            fruitless: 0,
            unverified_attempts: 0,
            faults: Vec::new(),
            result: None,
            payments: Vec::new(),
            events: 0,
            progress_step: 0,
            timeline: Vec::new(),
            deadline,
            paused_at: now,
        };
        let mut effects = Vec::new();
        run.announce(free, now, &mut effects);
        (run, effects)
    }

    /// Notes whose key signed the posting.
    #[must_use]
    pub const fn called_by(mut self, caller: PublicKey) -> Self {
        self.caller = Some(caller);
        self
    }

    /// Has it done by this miner and nobody else. To be said before anybody is asked.
    #[must_use]
    pub const fn only_by(mut self, node: Option<NodeId>) -> Self {
        self.only = node;
        self
    }

    /// Whether the run computes with a model graph over steps and checkpoints.
    pub const fn is_training(&self) -> bool {
        matches!(self.spec.work, Work::Train { .. })
    }

    /// Takes news. Stale or foreign news changes nothing. `around` is what is measured around the miners.
    pub fn apply(&mut self, input: Input, around: &Surroundings, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.state.is_final() {
            return effects;
        }
        match input {
            Input::Free(node) => self.ask(node, now, &mut effects),
            Input::Offered(offer) => self.offered(offer, around, now, &mut effects),
            Input::Declined { node, .. } => self.declined(node, around, now, &mut effects),
            Input::Joined { node, position } => self.joined(node, position, now, &mut effects),
            Input::Present(node) => self.present(node, now, &mut effects),
            Input::Disconnected(node) => self.disconnected(node, around, now, &mut effects),
            Input::Reported {
                node,
                attempt,
                report,
                stored_by,
            } => {
                self.reported(node, attempt, report, stored_by, now, &mut effects);
            }
            Input::Served {
                node,
                attempt,
                shown,
                left,
            } => self.served((node, attempt), shown.as_ref(), left, now, &mut effects),
            Input::Committed { node, opened } => self.committed(node, *opened, now, &mut effects),
            Input::Succeeded { node, proof } => {
                self.succeeded(node, &proof, now, &mut effects);
            }
            Input::Cancel => self.cancel(now, &mut effects),
            Input::HoldExpired(payments) => self.hold_expired(payments, now, &mut effects),
            Input::ClockSet => self.restart_timers(now),
            Input::Tick => self.tick(around, now, &mut effects),
        }
        effects
    }

    /// After a restart of the coordinator: nobody is connected yet, and every timer starts anew.
    /// `free` are the miners that can be asked at once.
    pub fn resume(&mut self, free: Vec<NodeId>, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        for seat in &mut self.seats {
            seat.away_since = Some(now);
        }
        self.turn_all_away("the coordinator was restarted", &mut effects);
        self.called = None;
        if self.divided.is_empty() {
            // It was stored by a version that did not note it.
            self.note_division();
        }
        self.restart_timers(now);
        if self.state == TaskState::Waiting {
            self.offers.clear();
            self.late.clear();
            self.asked.clear();
            self.announce(free, now, &mut effects);
        }
        effects
    }

    /// Numbers an event that is news to watchers alone.
    pub fn note(&mut self, event: Event) -> Effect {
        let number = self.events;
        self.events += 1;
        Effect::Tell { number, event }
    }

    fn tell(&mut self, event: Event, effects: &mut Vec<Effect>) {
        let effect = self.note(event);
        effects.push(effect);
    }

    fn seat(&mut self, node: NodeId) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.member.node == node)
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.seats.iter().map(|seat| seat.member.node).collect()
    }

    /// Whether a node plays a part in it: it was asked, has offered, or is a member.
    pub fn concerns(&self, node: &NodeId) -> bool {
        self.seats.iter().any(|seat| seat.member.node == *node)
            || self.newcomers.iter().any(|n| n.offer.member.node == *node)
            || self.asked.contains(node)
            || self.late.contains(node)
            || self.offers.iter().any(|offer| offer.member.node == *node)
    }

    /// Whether a node that is free would be asked.
    pub fn wants(&self, node: NodeId) -> bool {
        let joins = self.vacant() > self.asked.len() && !self.unwanted.contains(&node);
        (self.state == TaskState::Waiting || joins) && self.may_ask(node)
    }

    /// Whether a node is the first rank and has sent the result.
    fn has_delivered(&self, node: NodeId) -> bool {
        let first = self.seats.first().map(|seat| seat.member.node);
        self.result.is_some() && first == Some(node)
    }

    fn strikes_of(&self, node: NodeId) -> usize {
        self.strikes.iter().filter(|n| **n == node).count()
    }

    fn may_ask(&self, node: NodeId) -> bool {
        self.only.is_none_or(|only| only == node)
            && self.strikes_of(node) < MAX_STRIKES
            && !self.left_too_often(node)
            && !self.barred.contains(&node)
            && !self.asked.contains(&node)
            && !self.offers.iter().any(|offer| offer.member.node == node)
            && !self.seats.iter().any(|seat| seat.member.node == node)
            && !self.newcomers.iter().any(|n| n.offer.member.node == node)
    }

    // Waiting: gathering offers.

    fn announce(&mut self, mut free: Vec<NodeId>, now: Timestamp, effects: &mut Vec<Effect>) {
        free.retain(|node| self.may_ask(*node));
        self.state = TaskState::Waiting;
        self.window_ends = now.plus_ms(self.limits.offer_window_ms);
        self.deadline = now.plus_ms(self.limits.wait_ms);
        self.asked = free.clone();
        self.reason = format!("{} miners were asked", free.len());
        let (miners, needed) = (free.len() as u32, self.spec.miners);
        self.tell(Event::Announced { miners, needed }, effects);
        if !free.is_empty() {
            effects.push(Effect::Announce(free));
        }
    }

    fn ask(&mut self, node: NodeId, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.wants(node) {
            self.late.retain(|late| *late != node);
            self.asked.push(node);
            self.window_ends = self
                .window_ends
                .max(now.plus_ms(self.limits.offer_window_ms));
            effects.push(Effect::Announce(vec![node]));
        }
    }

    /// Whether a node was asked and has neither declined nor gone since.
    fn was_asked(&self, node: NodeId) -> bool {
        self.asked.contains(&node)
            || self.late.contains(&node)
            || self.barred.contains(&node)
            || self.offers.iter().any(|offer| offer.member.node == node)
    }

    /// Forgets offers of nodes that have meanwhile joined other groups.
    pub fn forget_offers(&mut self, engaged: impl Fn(&NodeId) -> bool) {
        self.offers.retain(|offer| !engaged(&offer.member.node));
    }

    fn begin_attempt(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.weigh();
        self.begin_as_weighed(now, effects);
    }

    /// With the weights that the members have.
    fn begin_as_weighed(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.attempt += 1;
        // What a group is called for says nothing against it.
        match self.called.take() {
            Some(call) => self.weighed += u32::from(call.weighs),
            None => {
                self.fruitless += 1;
                self.unverified_attempts += 1;
            }
        }
        // Whoever went back has to get there again before it can confirm it again.
        self.heard_since = None;
        self.before = self
            .group
            .iter()
            .copied()
            .zip(self.weights.iter().copied())
            .collect();
        self.group = self.nodes();
        self.unwanted.clear();
        self.weights = self.seats.iter().map(|seat| seat.weight).collect();
        self.note_division();
        // What lies beyond is computed anew, by another group: its sums may round otherwise, so nothing said of it holds.
        let start = self.start_step;
        self.checkpoints.retain(|c| c.step <= start);
        if !self.checkpoints.iter().any(|c| c.stored.is_some()) {
            self.stored_since = None;
        }
        self.faults.clear();
        self.restart_effort(now);
        self.matched.get_or_insert(now);
        self.state = TaskState::Matched;
        self.deadline = now.plus_ms(self.limits.prepare_ms);
        self.reason = "the group prepares".to_owned();
        for seat in &mut self.seats {
            (seat.ready, seat.suspected) = (false, false);
            seat.paused = None;
            // Who is in an attempt that goes back does those steps, too.
            seat.from_step = seat.from_step.min(start);
        }
        let members = self.seats.iter().map(|seat| seat.member.clone()).collect();
        let (attempt, start_step) = (self.attempt, self.start_step);
        effects.push(Effect::Match { only: None });
        self.tell(
            Event::Matched {
                attempt,
                members,
                start_step,
            },
            effects,
        );
    }
}

impl Seat {
    /// Of a member from this step on.
    fn new(offer: Offer, from_step: u64, now: Timestamp) -> Self {
        Self {
            engine: offer.engine,
            effort: Effort::default(),
            since: now,
            from_step,
            mflops: offer.ability.mflops,
            weight: Weight::default(),
            member: offer.member,
            ring_address: offer.ring_address,
            ready: false,
            away_since: None,
            returned: None,
            leaving: None,
            suspected: false,
            word_by: None,
            paused: None,
        }
    }
}

/// Samples that `step` steps processed.
fn samples_after(run: &Run, step: u64) -> u64 {
    let extent = &run.terms.extent;
    match &run.spec.work {
        Work::Train { train, .. } => train.samples_after(step, extent.samples.into()),
        Work::Infer { .. } if step == 0 => 0,
        Work::Infer { .. } => extent.total_samples,
        Work::Serve { .. } => step.min(extent.total_samples),
    }
}

/// Price of the work that `step` steps did.
fn work_after(run: &Run, step: u64) -> Amount {
    run.terms.earned_after(samples_after(run, step))
}

#[cfg(test)]
mod tests;
