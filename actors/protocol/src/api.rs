//! The clients' API: the protocol `cryptomind/1`. One bidirectional stream a request.
//!
//! A request frame is `{"method": …, "params": {…}}`; every answer is `{"ok": …}` or `{"error": …}`.
//! `task.watch` answers with a frame an event, until the task has ended. Reads are free; everything that changes
//! something is a signed [`crate::transaction::Transaction`].

use serde::{Deserialize, Serialize};

use crate::blob::Source;
use crate::genesis::Genesis;
use crate::key::Hash;
use crate::price::{PriceClass, PriceRing};
use crate::probe::LinkReport;
use crate::rating::{EvidenceKey, RatingView};
use crate::role::Role;
use crate::task::{Activity, Reason, TaskSpec, TaskState, UsualWait};
use crate::{AccountId, Amount, GenesisHash, ItemId, NodeId, ReceiptId, Signed, TaskId, Timestamp};

/// A request from a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum Request {
    /// What network is this? Answered by [`NetworkStatus`].
    #[serde(rename = "network.status")]
    Status {},
    /// Change something. The payload is a [`crate::transaction::Transaction`]; answered by [`crate::transaction::Accepted`].
    #[serde(rename = "transaction.submit")]
    Submit {
        /// Signed by the account.
        transaction: Signed,
    },
    /// An account by id or nickname; without either, the caller's own. Answered by [`AccountView`].
    #[serde(rename = "account.get")]
    Account {
        /// Its id.
        account: Option<AccountId>,
        /// Its nickname.
        nickname: Option<String>,
    },
    /// The caller's transfers, newest first. Answered by a list of [`TransferView`]: a page, which may be shorter than
    /// what was asked for; only an empty one is the last.
    #[serde(rename = "account.history")]
    History {
        /// Only those of entries before this one: the next page.
        before: Option<ReceiptId>,
        /// At most this many, at most 1000.
        limit: u32,
    },
    /// Items of the catalog. Answered by a list of [`crate::item::ItemView`].
    #[serde(rename = "item.list")]
    Items {
        /// `dataset` or `model`; both where it is missing.
        kind: Option<String>,
        /// At most this many, at most 1000.
        limit: u32,
    },
    /// One item, by id or by path `nickname/name`. Answered by [`crate::item::ItemView`].
    #[serde(rename = "item.get")]
    Item {
        /// Its id.
        item: Option<ItemId>,
        /// Its path.
        path: Option<String>,
    },
    /// Where may I put files of this size? Answered by [`Placement`].
    #[serde(rename = "blob.place")]
    Place {
        /// Bytes in all.
        bytes: u64,
    },
    /// Where can I have an item's files, or a task's results? Answered by [`Placement`].
    #[serde(rename = "blob.locate")]
    Locate {
        /// An item.
        item: Option<ItemId>,
        /// Or a task of the caller.
        task: Option<TaskId>,
    },
    /// What would it cost and take? Answered by [`crate::task::Quote`].
    #[serde(rename = "task.quote")]
    Quote {
        /// The task.
        spec: Box<TaskSpec>,
    },
    /// A task as it stands. Answered by [`crate::task::TaskView`].
    #[serde(rename = "task.get")]
    Task {
        /// Which.
        task: TaskId,
    },
    /// Which miners could do one of the caller's tasks, which would be chosen now, and why not the others. Answered by
    /// [`Explanation`].
    #[serde(rename = "task.explain")]
    Explain {
        /// Which.
        task: TaskId,
    },
    /// The caller's tasks, newest first. Answered by a list of [`crate::task::TaskView`].
    #[serde(rename = "task.list")]
    Tasks {
        /// Only those in this state.
        state: Option<TaskState>,
        /// At most this many, at most 1000.
        limit: u32,
    },
    /// A task's events from a number on, as they happen. Answered by [`crate::task::TaskEvent`]s until the last.
    #[serde(rename = "task.watch")]
    Watch {
        /// Which.
        task: TaskId,
        /// The first event wanted.
        from: u64,
    },
    /// The miners. Answered by a list of [`MinerView`].
    #[serde(rename = "miner.list")]
    Miners {},
    /// What a CU of each class costs now. Answered by a list of [`crate::price::PricePoint`], one a class.
    #[serde(rename = "market.price")]
    Prices {},
    /// What a CU of one class cost, oldest first. Answered by a list of [`crate::price::PricePoint`].
    #[serde(rename = "market.history")]
    PriceHistory {
        /// Of which.
        class: PriceClass,
        /// How far apart.
        every: PriceRing,
        /// Only points from this moment on: the next page begins after the last point of one.
        from: Timestamp,
        /// At most this many, at most 1000.
        limit: u32,
    },
    /// What nodes achieved in past runs, newest first. Answered by a list of [`crate::speed::RunStatistic`].
    #[serde(rename = "market.runs")]
    Runs {
        /// Only this node's.
        node: Option<NodeId>,
        /// Only those that ended before this moment, or then and before this one in order: the next page.
        before: Option<RunKey>,
        /// At most this many, at most 1000.
        limit: u32,
    },
    /// What nodes of an owner have shown, oldest first. Answered by a list of [`crate::rating::EvidenceRecord`].
    #[serde(rename = "miner.evidence")]
    Evidence {
        /// Whose.
        owner: AccountId,
        /// Only what comes after this: the next page.
        after: Option<EvidenceKey>,
        /// At most this many, at most 1000.
        limit: u32,
    },
    /// Why the caller's own miners have no work. Answered by a list of [`WorkVerdict`].
    #[serde(rename = "miner.why")]
    WhyNoWork {},
    /// What is known of the links between miners, and of theirs to the coordinator. Answered by a list of [`LinkView`],
    /// by pair, at most 1000.
    #[serde(rename = "miner.links")]
    Links {
        /// Only this node's.
        node: Option<NodeId>,
    },
    /// How far the caller is from storage nodes and from the coordinator, as its transfers and connections showed. At most
    /// [`MAX_REPORTS`](crate::probe::MAX_REPORTS). Answered by [`crate::node::Ack`].
    #[serde(rename = "link.report")]
    ReportLinks {
        /// By the node at the other end.
        reports: Vec<LinkReport>,
    },
    /// Can you reach this UDP port at the address that I call from, and how far is it? A node with this key has to answer there
    /// by `cryptomind-probe/1`. One address is knocked at every ten seconds at most. Answered by [`Knocked`].
    #[serde(rename = "network.knock")]
    Knock {
        /// Who answers there.
        node: NodeId,
        /// Where.
        port: u16,
    },
    /// Nodes that ask the caller to let them work for it. Answered by a list of [`EnrolmentRequest`].
    #[serde(rename = "delegation.requests")]
    EnrolmentRequests {},
    /// Nodes that work for the caller's account. Answered by a list of [`DelegationView`].
    #[serde(rename = "delegation.list")]
    Delegations {},
    /// How the chain stands. Answered by [`LedgerStatus`].
    #[serde(rename = "ledger.status")]
    Ledger {},
    /// One block. Answered by [`crate::block::Block`].
    #[serde(rename = "ledger.block")]
    Block {
        /// Its height.
        height: u64,
    },
    /// Blocks from a height on, as they become final. Answered by [`crate::block::Block`]s without end.
    #[serde(rename = "ledger.follow")]
    Follow {
        /// The first block wanted.
        from: u64,
    },
    /// An entry with everything that proves it. Answered by [`crate::block::ReceiptFile`].
    #[serde(rename = "ledger.receipt")]
    Receipt {
        /// Which.
        receipt: ReceiptId,
    },
}

/// Every method of this protocol.
pub const METHODS: [&str; 28] = [
    "network.status",
    "network.knock",
    "transaction.submit",
    "account.get",
    "account.history",
    "item.list",
    "item.get",
    "blob.place",
    "blob.locate",
    "task.quote",
    "task.get",
    "task.explain",
    "task.list",
    "task.watch",
    "miner.list",
    "miner.why",
    "market.price",
    "market.history",
    "market.runs",
    "miner.evidence",
    "miner.links",
    "link.report",
    "delegation.requests",
    "delegation.list",
    "ledger.status",
    "ledger.block",
    "ledger.follow",
    "ledger.receipt",
];

/// How far a port of the caller's machine is from the coordinator, and how it looks from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knocked {
    /// `address:port` that was knocked at.
    pub address: String,
    /// Round trip, microseconds: the least of several.
    pub rtt_us: u64,
    /// Throughput, bytes a second: the lower of both directions. Nothing where it could not be measured.
    pub bytes_per_s: Option<u64>,
}

/// Which statistic of a run: they are ordered by time, then task, then node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    /// When it ended.
    pub at: Timestamp,
    /// The task.
    pub task: TaskId,
    /// The node.
    pub node: NodeId,
}

/// The most rows in one answer.
pub const MAX_ROWS: u32 = 1000;

/// What network this is and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// Its genesis.
    pub genesis: Genesis,
    /// Its id.
    pub network: GenesisHash,
    /// The caller's own account: that which its key signs for.
    pub account: AccountId,
    /// The coordinator's clock.
    pub now: Timestamp,
    /// Miners online.
    pub miners: u32,
    /// Of these, free.
    pub miners_free: u32,
    /// Storage nodes online.
    pub storage_nodes: u32,
    /// Sum of all balances and holds: the supply.
    pub supply: Amount,
    /// Tokens in open holds.
    pub held: Amount,
    /// Tasks that have not ended.
    pub open_tasks: u32,
    /// Price of one CU of the least class of training; `market.price` tells all.
    pub unit_price: Amount,
}

/// An account as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Its id.
    pub account: AccountId,
    /// Its nickname, once registered; system accounts have theirs.
    pub nickname: Option<String>,
    /// Free to spend.
    pub available: Amount,
    /// In its open holds.
    pub held: Amount,
    /// Earned in open holds of others, not yet paid out.
    pub earning: Amount,
    /// Its own, but not to be spent yet: withheld earnings, and what is still vesting.
    pub locked: Amount,
    /// When the next part of that is released.
    pub unlocks: Option<Timestamp>,
}

/// How the chain stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Whose chain.
    pub network: GenesisHash,
    /// What makes blocks final.
    pub engine: String,
    /// How many of the makers of blocks may fail or lie without harm.
    pub tolerates: u32,
    /// Height of the last block.
    pub height: u64,
    /// Its time.
    pub time: Timestamp,
    /// Its hash.
    pub head: Hash,
    /// Hash of the state after it.
    pub state: Hash,
    /// Entries in the whole chain.
    pub entries: u64,
    /// Accounts that ever had a token or changed their key.
    pub accounts: u64,
    /// Holds that are not settled.
    pub open_holds: u64,
    /// Amounts that are locked until a time.
    pub locks: u64,
    /// Sum of all balances and holds.
    pub supply: Amount,
    /// Tokens in open holds.
    pub held: Amount,
    /// What the state takes on the disk, in bytes.
    pub disk_bytes: u64,
    /// Times that the disk was told to make writes durable, since the coordinator started.
    pub syncs: u64,
}

/// A transfer as an account sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferView {
    /// The entry that it belongs to.
    pub receipt: ReceiptId,
    /// Its place among that entry's transfers, from 0.
    pub number: u32,
    /// When.
    pub at: Timestamp,
    /// From.
    pub payer: AccountId,
    /// The payer's nickname or system name.
    pub payer_name: String,
    /// To.
    pub payee: AccountId,
    /// The payee's nickname or system name.
    pub payee_name: String,
    /// How much.
    pub amount: Amount,
    /// What for.
    pub reason: Reason,
    /// The task, where there is one.
    pub task: Option<TaskId>,
}

/// Where files can be put or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Storage nodes.
    pub sources: Vec<Source>,
    /// A signed [`crate::blob::Ticket`] for the caller.
    pub ticket: Signed,
}

/// A miner as the network knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerView {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whom it earns for.
    pub owner: AccountId,
    /// The owner's nickname.
    pub owner_name: String,
    /// Whether it is connected.
    pub online: bool,
    /// What its machine is busy with.
    pub activity: Activity,
    /// The task that it is in.
    pub task: Option<TaskId>,
    /// Measured speed, in 10⁶ floating-point operations a second.
    pub mflops: u64,
    /// Memory that it can give to a task, bytes, where it said so.
    pub memory_bytes: Option<u64>,
    /// The least that it works for, for one CU.
    pub reserve: Amount,
    /// Its devices.
    pub devices: Vec<String>,
    /// Its rating.
    pub rating: RatingView,
}

/// What is known of the link between two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// The one end.
    pub from: NodeId,
    /// Its name.
    pub from_name: String,
    /// The other end.
    pub to: NodeId,
    /// Its name.
    pub to_name: String,
    /// Round trip as it counts, microseconds. Nothing as long as it can be neither known nor estimated.
    pub rtt_us: Option<u64>,
    /// Throughput as it counts, bytes a second.
    pub bytes_per_s: Option<u64>,
    /// What these rest on.
    pub known: LinkBasis,
    /// Since the older end last reported, milliseconds. Nothing where none did.
    pub age_ms: Option<u64>,
    /// Whether they proved to be in one local network.
    pub lan: bool,
}

/// What is known of a link rests on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkBasis {
    /// Both ends reported round trip and throughput: the worse of each counts.
    BothEnds,
    /// Of one of them, one end alone reported it, or none: the report counts as far as it is no better than the worse
    /// quartile of all pairs.
    OneEnd,
    /// Neither end did: that quartile.
    Estimated,
}

/// A node that asks to work for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentRequest {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// The address that it asks from.
    pub address: String,
}

/// What becomes of a miner when a group is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is in the group.
    Chosen,
    /// It could, but too few can.
    Ready,
    /// Groups without it are better.
    PassedOver,
    /// It fails a condition.
    Barred,
}

/// What became of one miner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerVerdict {
    /// Which.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub fate: Fate,
    /// Why: the first condition that it fails with its numbers, or its score in parts.
    pub reason: String,
}

/// Who could do a task, if its group were chosen now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The task.
    pub task: TaskId,
    /// How far it is.
    pub state: TaskState,
    /// What it waits for, or why it ended.
    pub reason: String,
    /// Members of its group.
    pub needed: u32,
    /// Miners that could be members.
    pub able: u32,
    /// The cheapest change that would place it, while it waits.
    pub advice: Option<String>,
    /// How long tasks like it waited for their miners; nothing where none did yet.
    pub usual_wait: Option<UsualWait>,
    /// What became of each miner, the chosen first; 500 at most.
    pub verdicts: Vec<MinerVerdict>,
}

/// Why a miner does not work on a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkVerdict {
    /// The miner.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The task that waits, or that it works on.
    pub task: Option<TaskId>,
    /// Why not, or that it does.
    pub reason: String,
}

/// A node that works for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationView {
    /// The node.
    pub node: NodeId,
    /// Its name, where it ever joined.
    pub name: Option<String>,
    /// As what.
    pub role: Role,
    /// Until this block time.
    pub expires: Timestamp,
}
