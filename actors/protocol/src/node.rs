//! Between nodes: the protocol `cryptomind-node/1`. Miners and storage nodes dial the coordinator.
//!
//! A node first enrols (once), then joins. `node.join` is answered by a stream of [`Command`]s that
//! lasts as long as the connection; everything that the node says is a request of its own, answered
//! when it is durable. A lost connection changes nothing: the node joins again and says where it is.

use serde::{Deserialize, Serialize};

use crate::batch::Weight;
use crate::blob::Source;
use crate::item::{DatasetInfo, FileEntry, ModelInfo};
use crate::key::Hash;
use crate::probe::{Echo, LinkReport, Peer};
use crate::role::Role;
use crate::speed::Engine;
use crate::succession::Decision;
use crate::task::{Activity, Latency, Member, Metrics, ResultFile, TaskSpec};
use crate::timeline::Span;
use crate::transaction::StoredReceipt;
use crate::{AccountId, Amount, NodeId, PublicKey, Signed, TaskId, Timestamp};

/// A request from a node.
#[allow(
    clippy::large_enum_variant,
    reason = "a request is on its way, never kept"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Request {
    /// Ask `owner` to let this node work for it. Answered by [`Enrolment`]; ask again until it is granted.
    #[serde(rename = "node.enrol")]
    Enrol {
        /// The account that shall earn.
        owner: AccountId,
        /// What the node does.
        role: Role,
        /// The node's name in tables.
        name: String,
    },
    /// Be available. Answered by a stream of [`Command`].
    #[serde(rename = "node.join")]
    Join(Box<Join>),
    /// Ready for an announced task. Answered by [`Ack`].
    #[serde(rename = "run.offer")]
    Offer {
        /// Which.
        task: TaskId,
        /// `host:port` where this node's ring socket listens.
        ring_address: String,
    },
    /// Not available for an announced task, and why. Answered by [`Ack`].
    #[serde(rename = "run.decline")]
    Decline {
        /// Which.
        task: TaskId,
        /// For the client's eyes.
        reason: String,
    },
    /// News of a run. Answered by [`Ack`] once it is durable.
    #[serde(rename = "run.report")]
    Report {
        /// Which task.
        task: TaskId,
        /// In which attempt.
        attempt: u32,
        /// What happened.
        report: Report,
    },
    /// The members of a run formed the next attempt among themselves, because the coordinator was away. Each that is in it says
    /// so before any other news of that attempt. Answered by [`Ack`] once it is durable; who keeps its place is told so by
    /// [`Command::Match`], others by [`Command::Stop`].
    #[serde(rename = "run.succeeded")]
    Succeeded {
        /// Which task.
        task: TaskId,
        /// What was decided, with its proof.
        decision: Decision,
    },
    /// What the machine is busy with now. Answered by [`Ack`].
    #[serde(rename = "node.activity")]
    Activity {
        /// Before.
        from: Activity,
        /// Now.
        to: Activity,
        /// Because of this task.
        task: Option<TaskId>,
    },
    /// How far others are, as far as this node measured it and heard of it. At most
    /// [`MAX_REPORTS`](crate::probe::MAX_REPORTS) of each. Nothing of both is a heartbeat: the node is there, and so is
    /// its connection, whose round trip the coordinator knows. Answered by [`Ack`], and not stored.
    #[serde(rename = "node.links")]
    Links {
        /// What it measured.
        reports: Vec<LinkReport>,
        /// Who measured it.
        echoes: Vec<Echo>,
    },
}

/// Every method of this protocol.
pub const METHODS: [&str; 8] = [
    "node.enrol",
    "node.join",
    "run.offer",
    "run.decline",
    "run.report",
    "run.succeeded",
    "node.activity",
    "node.links",
];

/// What a node says when it joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// The account that it works for: the ledger knows that account's delegation of it.
    pub owner: AccountId,
    /// Its name in tables.
    pub name: String,
    /// `host:port` of its listening port, for storage nodes. An unspecified host means: as you see me.
    pub listen: Option<String>,
    /// `address:port` where other miners can measure their links to it, the address being its own in its own
    /// network. Nothing where its owner lets nobody.
    pub probe: Option<String>,
    /// What it can do.
    pub capacity: Capacity,
    /// The least that its owner lets it work for, for one CU. It is not asked for less; it is paid the market's price.
    pub reserve: Amount,
    /// What its machine is busy with.
    pub activity: Activity,
    /// The run that it is in, if it is in one.
    pub running: Option<Position>,
    /// A miner's [`Report`](crate::selftest::Report), signed by its node's key: without one it is not taken in. Nothing of
    /// storage nodes.
    #[serde(default)]
    pub selftest: Option<Signed>,
}

/// What a node can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Threads that it computes with.
    pub threads: u32,
    /// Its devices, for people.
    pub devices: Vec<String>,
    /// What it computes with.
    #[serde(default)]
    pub engine: Engine,
    /// Speed that its self-test measured, in 10⁶ floating-point operations a second. Of a miner, the coordinator takes what
    /// the signed report says.
    pub mflops: u64,
    /// Memory that it can give to a task, bytes. Unknown: it is not judged by it, and counts for the least tier.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Free disk for blobs, bytes.
    pub free_bytes: u64,
}

/// Where a node is in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: u32,
    /// Steps that are committed here.
    pub committed: u64,
}

/// Answer to [`Request::Enrol`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enrolment {
    /// The owner has not answered yet: ask again in a second.
    Pending {},
    /// The ledger knows the owner's delegation.
    Granted {
        /// Until when.
        expires: Timestamp,
    },
}

/// An answer without content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {}

/// What the coordinator tells a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// You are in. First on the stream.
    Joined {
        /// The coordinator's clock.
        now: Timestamp,
    },
    /// Who is ready for this?
    Announce {
        /// Which.
        task: TaskId,
        /// What.
        spec: Box<TaskSpec>,
    },
    /// You are not needed for it.
    Withdraw {
        /// Which.
        task: TaskId,
        /// Why not.
        reason: String,
    },
    /// You are chosen: prepare and start.
    Match(Box<Match>),
    /// The group changes: leave attempt `attempt - 1`, and report [`Report::Paused`].
    Pause {
        /// Which.
        task: TaskId,
        /// The attempt to come.
        attempt: u32,
        /// Whether the group is whole and leaves where a step ends, all members where the same one does. Else at once.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        at_step_end: bool,
    },
    /// The run is over for you.
    Stop {
        /// Which.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// Measure your links to these peers, at most [`MAX_PEERS`](crate::probe::MAX_PEERS), unless you run a task.
    Probe {
        /// Whom.
        peers: Vec<Peer>,
    },
}

/// A place in a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// The task.
    pub task: TaskId,
    /// The attempt, from 1.
    pub attempt: u32,
    /// What to compute.
    pub spec: TaskSpec,
    /// The dataset, where the task has one.
    pub dataset: Option<DatasetInfo>,
    /// Its files.
    pub dataset_files: Vec<FileEntry>,
    /// The model, for inference.
    pub model: Option<ModelInfo>,
    /// Its files.
    pub model_files: Vec<FileEntry>,
    /// Who may call, where the model is served: the key that signed the task's posting.
    pub caller: Option<PublicKey>,
    /// The members by rank.
    pub members: Vec<Member>,
    /// Their ring sockets by rank.
    pub ring_addresses: Vec<String>,
    /// How much of each batch each of them computes, by rank. Left out where all compute as much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<Weight>,
    /// Who takes the state from the members to be one of them in an attempt to come, by [`crate::follow`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub newcomers: Vec<Newcomer>,
    /// Your rank; of a newcomer, the number of members.
    pub rank: u32,
    /// Steps that are done. A member that has this state goes on with it.
    pub start_step: u64,
    /// The checkpoint of `start_step`, for members that have not that state.
    pub resume: Option<ResultFile>,
    /// Where blobs can be had and put.
    pub sources: Vec<Source>,
    /// Lets you read dataset, model and checkpoint.
    pub get_ticket: Signed,
    /// Lets you store checkpoints and results.
    pub put_ticket: Signed,
}

/// A miner that follows a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newcomer {
    /// Who.
    pub node: NodeId,
    /// Where its ring socket listens.
    pub ring_address: String,
}

/// News of a run from a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Everything is here and the ring is closed.
    Ready {
        /// Bytes that had to be fetched.
        fetched_bytes: u64,
    },
    /// Steps are done. Sent by rank 0, a few times a second at most.
    Progress {
        /// Steps done.
        step: u64,
        /// Mean loss of the last step.
        loss: f32,
        /// Samples a second, over the group.
        samples_per_s: u64,
        /// Where the last step's time went on this member, at most [`MAX_SPANS`](crate::timeline::MAX_SPANS). Nothing where it
        /// does not say.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        timeline: Vec<Span>,
    },
    /// This member's state after `step` steps. Every rank sends it; rank 0 with the stored checkpoint.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// BLAKE3 over parameters and optimiser state: equal on all ranks.
        fingerprint: Hash,
        /// How long it computed in this attempt until here, milliseconds, without waiting for others.
        computed_ms: u64,
        /// The stored file and the storage node's receipt; rank 0 only.
        stored: Option<(ResultFile, StoredReceipt)>,
    },
    /// What this member's rank says of steps that it committed. Every rank sends it: no later than a checkpoint of these steps, and
    /// about once a second.
    Committed {
        /// [`Commitments`](crate::audit::Commitments), by this node's key.
        commitments: Signed,
    },
    /// A neighbour is silent or out of step; this member holds its state and waits.
    RingBroken {
        /// Steps that are committed here.
        committed: u64,
        /// Whom it suspects.
        suspect: Option<NodeId>,
        /// What that one did, to be read after its name; what happened, where nobody is suspected.
        reason: String,
    },
    /// First answer to [`Command::Pause`]: it is heard, and this member ends what it computes.
    Coming {},
    /// Answer to [`Command::Pause`]: the old attempt is left.
    Paused {
        /// Steps that are committed here.
        committed: u64,
        /// Whether the step after that is computed and waits for the others' word.
        prepared: bool,
        /// Where this member's ring socket listens.
        ring_address: String,
    },
    /// This newcomer has the members' state, and keeps up with them.
    Level {
        /// Steps that are committed here.
        step: u64,
    },
    /// The run is done and its results are stored. Rank 0 only, after the last checkpoint.
    Finished {
        /// The files.
        files: Vec<ResultFile>,
        /// One receipt a file.
        receipts: Vec<StoredReceipt>,
        /// What came out.
        metrics: Metrics,
    },
    /// The model is loaded and the door for its client open.
    Serving {
        /// `host:port` of the door.
        address: String,
        /// Bytes that had to be fetched.
        fetched_bytes: u64,
        /// Fetch and load.
        latency: Latency,
    },
    /// What the client of a session has acknowledged.
    Served {
        /// The newest [`Acknowledgement`](crate::serve::Acknowledgement), where there is one.
        acknowledgement: Option<Signed>,
        /// Whether the door is closed: nothing more comes from this member.
        left: bool,
    },
    /// This member cannot go on.
    Failed {
        /// Whether the task itself is at fault: then nobody could.
        task_fault: bool,
        /// What happened.
        reason: String,
    },
    /// This member wants to go: the coordinator lets it go where a step ends, and says [`Command::Stop`]. It counts as no
    /// failure, even where it goes before it hears that.
    Leaving {
        /// Why.
        reason: String,
    },
}
