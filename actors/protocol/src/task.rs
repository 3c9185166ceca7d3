//! Tasks: what a client asks for, what it is told beforehand, and what happens on the way.

use serde::{Deserialize, Serialize};

use crate::audit::{Part, TrailView};
use crate::item::Access;
use crate::model::{ModelError, ModelSpec};
use crate::ring::Wire;
use crate::speed::SpeedBasis;
use crate::timeline::Span;
pub use crate::train::{DecayGroup, Exchange, Optimizer, Schedule, TrainSpec};
use crate::{AccountId, Amount, ItemId, NodeAddress, NodeId, TaskId, Timestamp};

/// The most miners in a group today.
pub const MAX_GROUP: u32 = 16;
/// The most characters in a name.
pub const MAX_NAME_CHARS: usize = 64;

/// Which part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// For fitting.
    Train,
    /// Held out.
    Test,
}

/// What a task computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Work {
    /// Fit a model to a dataset.
    Train {
        /// The dataset item.
        dataset: ItemId,
        /// The model.
        model: ModelSpec,
        /// Hyper-parameters.
        train: TrainSpec,
    },
    /// Run a model over samples.
    Infer {
        /// The model item.
        model: ItemId,
        /// The dataset item that holds the samples.
        dataset: ItemId,
        /// Which of its splits.
        split: Split,
    },
    /// Keep a model ready for its client's calls: see [`crate::serve`].
    Serve {
        /// The model item.
        model: ItemId,
        /// The most samples over all calls; those that are not used are not paid.
        samples_max: u32,
    },
}

/// What a client would rather have of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preference {
    /// A result soon.
    Fast,
    /// As much for the money as can be had.
    #[default]
    Balanced,
    /// A low price.
    Cheap,
}

/// The best rating, in thousandths of a star.
pub const BEST_RATING_MILLI: u32 = 5000;

/// What a client asks beside the work: of its group, and of the price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// What it would rather have.
    pub preference: Preference,
    /// Miners below this rating are not asked, in thousandths of a star; 0 is nobody.
    pub min_rating_milli: u32,
    /// The most that it pays for one CU. A task is refused where its price is above this when it is posted: a price that
    /// rose after a quote costs nobody anything.
    pub max_unit_price: Option<Amount>,
}

impl Conditions {
    fn are_none(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self) -> Result<(), TaskError> {
        if self.min_rating_milli > BEST_RATING_MILLI {
            let given = f64::from(self.min_rating_milli) / 1000.0;
            return Err(value(
                "group.min_rating",
                format!("{given}: give 0 to 5 stars"),
            ));
        }
        if self.max_unit_price.is_some_and(Amount::is_zero) {
            return Err(value(
                "budget.max_unit_price",
                "0: nobody works for nothing, `market price` says what a CU costs",
            ));
        }
        Ok(())
    }
}

/// A task, as its client signs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// A name for people; a trained model is published as `<nickname>/<name>`.
    pub name: String,
    /// What to compute.
    pub work: Work,
    /// Miners in the group. An inference task has one.
    pub miners: u32,
    /// The most that it may cost: what goes into the hold.
    pub max_cost: Amount,
    /// Who may use the trained model.
    pub access: Access,
    /// What is asked beside the work. Left out where nothing is.
    #[serde(default, skip_serializing_if = "Conditions::are_none")]
    pub conditions: Conditions,
}

/// Why a task is refused before money moves.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TaskError {
    /// A value that makes no sense; `field` as in the task file, such as `train.epochs`.
    #[error("{field}: {reason}")]
    Value {
        /// The key in the task file.
        field: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The model cannot be built.
    #[error("model: {0}")]
    Model(#[from] ModelError),
}

/// Whether `name` may name an item, a task or an account: lower-case letters, digits and dashes.
pub fn is_name(name: &str) -> bool {
    let inner =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_' || b == b'.';
    !name.is_empty()
        && name.len() <= MAX_NAME_CHARS
        && name.bytes().all(inner)
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

pub(crate) fn value(field: &'static str, reason: impl Into<String>) -> TaskError {
    TaskError::Value {
        field,
        reason: reason.into(),
    }
}

impl TaskSpec {
    /// Refuses what makes no sense whatever the catalog holds.
    pub fn check(&self) -> Result<(), TaskError> {
        if !is_name(&self.name) {
            return Err(value(
                "name",
                format!(
                    "`{}`: use up to {MAX_NAME_CHARS} lower-case letters, digits, dots and dashes",
                    self.name.chars().take(80).collect::<String>()
                ),
            ));
        }
        if !(1..=MAX_GROUP).contains(&self.miners) {
            return Err(value(
                "group.miners",
                format!("{}: give 1 to {MAX_GROUP}", self.miners),
            ));
        }
        if self.max_cost.is_zero() {
            return Err(value(
                "budget.max_cost",
                "0: a task costs something, ask `task quote`",
            ));
        }
        self.conditions.check()?;
        match &self.work {
            Work::Train { model, train, .. } => {
                model.check()?;
                train.check()
            }
            Work::Infer { .. } | Work::Serve { .. } if self.miners != 1 => Err(value(
                "group.miners",
                format!("{}: an inference task has one miner", self.miners),
            )),
            Work::Serve { samples_max: 0, .. } => Err(value("samples_max", "0: give 1 or more")),
            Work::Infer { .. } | Work::Serve { .. } => Ok(()),
        }
    }
}

/// A task's state. Every state but the last five has a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Announced; waiting for enough ready miners.
    Waiting,
    /// A group is chosen and prepares: stops idle commands, fetches data.
    Matched,
    /// Computing.
    Running,
    /// Members were lost; the rest form a new attempt.
    Regrouping,
    /// Ended: the result is there and everybody is paid.
    Finished,
    /// Ended: the client cancelled; what was earned is paid, the rest is back.
    Cancelled,
    /// Ended: the task itself cannot be done (its data, its model, its loss).
    Failed,
    /// Ended: the network could not do it; what was not earned is back.
    Abandoned,
    /// Ended: nobody took it in time; all is back.
    Expired,
}

impl TaskState {
    /// Whether the task has ended and its hold is settled.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Finished | Self::Cancelled | Self::Failed | Self::Abandoned | Self::Expired
        )
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Waiting => "waiting",
            Self::Matched => "matched",
            Self::Running => "running",
            Self::Regrouping => "regrouping",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
            Self::Expired => "expired",
        })
    }
}

/// Why tokens moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The genesis minted them.
    Genesis,
    /// Test money on a development network.
    Faucet,
    /// One account sent them to another.
    Send,
    /// A miner's verified work.
    Work,
    /// An item's owner, for one use.
    ItemFee,
    /// Storage of a task's results.
    Storage,
    /// The network's share.
    NetworkFee,
    /// What a hold did not spend, back to its payer.
    Refund,
    /// For carrying out a transaction.
    TransactionFee,
    /// The reward fund's share of fees.
    RewardFund,
    /// Withheld earnings of a miner that was proved wrong, to the reward fund.
    Forfeit,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Genesis => "genesis",
            Self::Faucet => "test money",
            Self::Send => "sent",
            Self::Work => "verified work",
            Self::ItemFee => "use of an item",
            Self::Storage => "storage",
            Self::NetworkFee => "network fee",
            Self::Refund => "refund",
            Self::TransactionFee => "transaction fee",
            Self::RewardFund => "reward fund",
            Self::Forfeit => "forfeited",
        })
    }
}

/// One payment out of a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Whose hold.
    pub payer: AccountId,
    /// Who receives.
    pub payee: AccountId,
    /// How much.
    pub amount: Amount,
    /// What for.
    pub reason: Reason,
    /// The node that did the work, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
}

/// A candidate in a quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its name in tables.
    pub name: String,
    /// Whom it earns for.
    pub owner: AccountId,
    /// Speed at this task as predicted, in 10⁶ floating-point operations a second.
    pub mflops: u64,
    /// What that rests on.
    pub basis: SpeedBasis,
    /// Rating, in thousandths of 5 stars: 0 to 5000.
    pub rating_milli: u32,
    /// Whether it is free now.
    pub free: bool,
    /// Its place in the group that would be chosen now.
    pub rank: Option<u32>,
    /// Why it would not be chosen: the first condition that it fails, or its score in parts. Why it would, where it would.
    pub reason: String,
}

/// How long tasks waited from their posting to their first group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsualWait {
    /// One of two waited no longer, milliseconds.
    pub p50_ms: u64,
    /// Nine of ten waited no longer, milliseconds.
    pub p90_ms: u64,
    /// How many tasks that rests on.
    pub tasks: u32,
}

/// What a task would cost and take, without obligation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// The work, in 10⁻⁶ CU (10⁶ floating-point operations).
    pub micro_cu: u64,
    /// Price of one CU.
    pub unit_price: Amount,
    /// Paid for the work, all of it.
    pub work_cost: Amount,
    /// Paid to the owners of used items.
    pub item_fees: Amount,
    /// The most that is paid for storing results.
    pub storage_cost_max: Amount,
    /// The network's share of the above.
    pub network_fee_max: Amount,
    /// The least that it costs when all goes well.
    pub cost_low: Amount,
    /// The most that it can cost: a cap of this is enough.
    pub cost_high: Amount,
    /// Duration that one of two runs does not exceed, milliseconds. Nothing where nobody could do it.
    pub time_p50_ms: Option<u64>,
    /// Duration that 19 of 20 runs do not exceed, milliseconds.
    pub time_p95_ms: Option<u64>,
    /// How long tasks like it waited for their miners; nothing where none did yet.
    pub usual_wait: Option<UsualWait>,
    /// Who could do it: the group that would be chosen now by rank, then the rest, best first; 200 at most.
    pub candidates: Vec<Candidate>,
    /// What part of a step its exchange would take, in millionths; nothing where nothing is exchanged, or no link is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_share_ppm: Option<u32>,
    /// What would bring that down to a fifth, where it is more. Nothing then: neither a wire format nor a smaller group would.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ring_advice: Vec<RingAdvice>,
    /// What the figures rest on, and what stands in the way, for people.
    pub notes: Vec<String>,
}

/// The same task asked for otherwise, so that its steps wait less for the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingAdvice {
    /// How gradients would travel.
    pub wire: Wire,
    /// How many miners.
    pub miners: u32,
    /// What part of a step its exchange would take then, in millionths.
    pub share_ppm: u32,
    /// Duration that one of two runs would not exceed, milliseconds.
    pub time_p50_ms: u64,
}

/// A point of the loss curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// Steps done.
    pub step: u64,
    /// Mean loss over that step's global batch.
    pub loss: f32,
}

/// What is known of a finished model or an inference, as its makers report it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Loss of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_loss: Option<f32>,
    /// Share of test samples classified rightly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_accuracy: Option<f32>,
    /// Mean loss of the test samples: of cross-entropy, nats a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_loss: Option<f32>,
    /// Samples processed in all.
    pub samples: u64,
    /// From start to end of computing, milliseconds.
    pub compute_ms: u64,
    /// Where an inference's time went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
}

/// Where the time went between asking and having the answer, microseconds each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Until somebody began with it: from posting to the match; of a call, behind others.
    pub queue_us: u64,
    /// Stopping the owner's program, and fetching what was not there.
    pub fetch_us: u64,
    /// From disk to memory.
    pub load_us: u64,
    /// The forward pass.
    pub compute_us: u64,
    /// Storing the result; of a call, the way there and back.
    pub return_us: u64,
}

impl Latency {
    /// All of it.
    pub const fn total_us(&self) -> u64 {
        self.queue_us
            .saturating_add(self.fetch_us)
            .saturating_add(self.load_us)
            .saturating_add(self.compute_us)
            .saturating_add(self.return_us)
    }
}

/// A file of a task's result: the same as a file of an item.
pub use crate::item::FileEntry as ResultFile;

/// What happens to a task, in order. Watchers get each event once, with its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The hold is open and miners are asked.
    Announced {
        /// Miners that were asked.
        miners: u32,
        /// Miners that are needed.
        needed: u32,
    },
    /// A miner signalled that it is ready.
    Offered {
        /// The miner.
        node: NodeId,
        /// Its name.
        name: String,
    },
    /// Still waiting, and for what.
    Waiting {
        /// For people.
        reason: String,
    },
    /// A group was chosen.
    Matched {
        /// Which attempt, from 1.
        attempt: u32,
        /// The members by rank.
        members: Vec<Member>,
        /// Steps already done: 0 but after a failure.
        start_step: u64,
    },
    /// The group pauses, to form again as the next attempt.
    Regroups {
        /// Why, for people.
        reason: String,
    },
    /// A miner takes the state from the members while they train, to be one of them.
    Follows {
        /// The miner.
        node: NodeId,
        /// Its name.
        name: String,
        /// Whether it has the state and keeps up with them: it joins where a step ends.
        level: bool,
    },
    /// A member changed what it does.
    Activity {
        /// The miner.
        node: NodeId,
        /// Its name.
        name: String,
        /// Before.
        from: Activity,
        /// After.
        to: Activity,
        /// Why, where that is not plain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A member has what it needs.
    Fetched {
        /// The miner.
        node: NodeId,
        /// Its name.
        name: String,
        /// Bytes that it had to fetch.
        bytes: u64,
    },
    /// The group made progress.
    Progress {
        /// Steps done.
        step: u64,
        /// Steps in all.
        total_steps: u64,
        /// Mean loss over the last step.
        loss: f32,
        /// Samples a second, over the group.
        samples_per_s: u64,
        /// Where the last step's time went on rank 0. Only the newest is kept: nothing where there was progress since, and
        /// where it did not say.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        timeline: Vec<Span>,
    },
    /// A checkpoint is stored and verified, and earned.
    Checkpoint {
        /// Steps that it covers.
        step: u64,
        /// What was earned with it, over all members.
        earned: Amount,
    },
    /// A member says of a step something else than others of its group do. Told once for each member in an attempt; of two that
    /// differ, nobody can say who is wrong, and both are told. By itself it costs nobody anything.
    Parted {
        /// The miner.
        node: NodeId,
        /// Its name.
        name: String,
        /// The first such step.
        step: u64,
        /// In what.
        part: Part,
    },
    /// The model is loaded and its miner's door open: the client may call.
    Serving {
        /// The miner.
        node: NodeId,
        /// Its name.
        name: String,
        /// Where its door is.
        address: NodeAddress,
        /// Which attempt its acknowledgements name.
        attempt: u32,
        /// Samples that are earned: acknowledgements count on from there.
        samples: u64,
        /// Queue, fetch and load.
        latency: Latency,
    },
    /// The client has acknowledged answers, and they are earned.
    Acknowledged {
        /// Samples, over all calls.
        samples: u64,
        /// Earned so far, over all of them.
        earned: Amount,
    },
    /// A member is gone.
    Lost {
        /// The miner.
        node: NodeId,
        /// Its name.
        name: String,
        /// How that was noticed.
        reason: String,
        /// Its part of the work since the last verified checkpoint, which is not paid.
        unpaid: Amount,
        /// Who goes on.
        remaining: u32,
    },
    /// A member left because it wanted to.
    Left {
        /// The miner.
        node: NodeId,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
        /// Its part of the work since the last verified checkpoint, which is not paid.
        unpaid: Amount,
        /// Who goes on.
        remaining: u32,
    },
    /// The result is stored.
    Stored {
        /// Its files.
        files: Vec<ResultFile>,
        /// What its makers say of it.
        metrics: Metrics,
    },
    /// The task has ended and the hold is settled. The last event.
    Settled {
        /// How it ended.
        state: TaskState,
        /// Why, for people.
        reason: String,
        /// Every payment out of the hold; they sum to it.
        payments: Vec<Payment>,
    },
}

/// An event with its number and time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskEvent {
    /// From 0, without gaps.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// What a miner's machine is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// Its owner's idle command.
    Mining,
    /// Nothing.
    Idle,
    /// Fetching what a task needs.
    Preparing,
    /// Training.
    Training,
    /// Inference.
    Inferring,
}

impl std::fmt::Display for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Mining => "mining",
            Self::Idle => "idle",
            Self::Preparing => "preparing",
            Self::Training => "training",
            Self::Inferring => "inferring",
        })
    }
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its name in tables.
    pub name: String,
    /// Whom it earns for.
    pub owner: AccountId,
}

/// A task as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub task: TaskId,
    /// Who posted it.
    pub client: AccountId,
    /// What was asked for.
    pub spec: TaskSpec,
    /// How far it is.
    pub state: TaskState,
    /// What it waits for, or why it ended.
    pub reason: String,
    /// When it was posted.
    pub posted: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Its present group.
    pub members: Vec<Member>,
    /// Which attempt, from 1; 0 before the first match.
    pub attempt: u32,
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// Earned so far inside the hold.
    pub earned: Amount,
    /// Payments, once settled.
    pub payments: Vec<Payment>,
    /// Result files, once stored.
    pub files: Vec<ResultFile>,
    /// What the makers say of the result.
    pub metrics: Option<Metrics>,
    /// The trained model's item, once published.
    pub item: Option<ItemId>,
    /// Number of events so far.
    pub events: u64,
    /// What its members signed of their steps. Nothing where nobody signed any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trail: Option<TrailView>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Layer, Loss};

    fn spec() -> TaskSpec {
        TaskSpec {
            name: "digits-mlp".into(),
            work: Work::Train {
                dataset: ItemId::new([1; 16]),
                model: ModelSpec {
                    input: vec![64],
                    layers: vec![Layer::linear(10)],
                    loss: Loss::default(),
                },
                train: TrainSpec {
                    epochs: 1,
                    global_batch: 32,
                    optimizer: Optimizer::adamw(1e-3),
                    seed: 0,
                    checkpoint_steps: 10,
                    ..TrainSpec::default()
                },
            },
            miners: 3,
            max_cost: Amount::from_base_units(1),
            access: Access::Owner,
            conditions: Conditions::default(),
        }
    }

    #[test]
    fn a_session_has_one_miner_and_something_to_do() {
        let serve = |samples_max, miners| TaskSpec {
            work: Work::Serve {
                model: ItemId::new([1; 16]),
                samples_max,
            },
            miners,
            ..spec()
        };
        serve(1, 1).check().unwrap();
        assert!(serve(0, 1).check().is_err() && serve(1, 2).check().is_err());
    }

    #[test]
    fn nonsense_is_refused_by_field() {
        spec().check().unwrap();
        let field = |change: fn(&mut TaskSpec)| {
            let mut s = spec();
            change(&mut s);
            match s.check() {
                Err(TaskError::Value { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(field(|s| s.name = "Two words".into()), "name");
        assert_eq!(field(|s| s.miners = 0), "group.miners");
        assert_eq!(field(|s| s.max_cost = Amount::ZERO), "budget.max_cost");
        assert_eq!(
            field(|s| s.conditions.min_rating_milli = 5001),
            "group.min_rating"
        );
        assert_eq!(
            field(|s| s.conditions.max_unit_price = Some(Amount::ZERO)),
            "budget.max_unit_price"
        );
        fn train(s: &mut TaskSpec) -> &mut TrainSpec {
            match &mut s.work {
                Work::Train { train, .. } => train,
                Work::Infer { .. } | Work::Serve { .. } => unreachable!(),
            }
        }
        assert_eq!(field(|s| train(s).epochs = 0), "train.epochs");
        assert_eq!(field(|s| train(s).global_batch = 0), "train.global_batch");
        assert_eq!(
            field(|s| train(s).optimizer = Optimizer::adamw(f32::NAN)),
            "train.lr"
        );
    }
}
