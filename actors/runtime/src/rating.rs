//! The rating actor: what is known of each miner's work, folded from stored evidence.
//!
//! **Owns**: ratings, and what raters are believed. **Talked to by**: the matchmaker (evidence of runs), sessions (stars,
//! questions). Its state is the fold of all [`EvidenceRecord`]s in their order; a piece that comes twice counts once, and one
//! that comes out of order has its owner's folded anew. What a node showed for another owner is that owner's.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use cryptomind_core::journal::{FIRST_VOTE, NodeRecord};
use cryptomind_core::rating::{self, Credibility, Rating, Score};
use cryptomind_core::run::{Run, Seat};
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::api::MAX_ROWS;
use cryptomind_protocol::rating::{Bar, Evidence, EvidenceKey, EvidenceRecord, RatingView};
use cryptomind_protocol::task::{Payment, Reason, TaskState};
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, NodeId, TaskId, Timestamp};
use cryptomind_storage::run::numbered_key;
use cryptomind_storage::state::{Batch, StateStore};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::clock;
use crate::control::Doubts;
use crate::ledger::{LedgerRef, Posted, Posting, Unposted};
use crate::supervisor::Handle;

/// How long anybody waits for the rating actor.
pub const RATING_LIMIT: Duration = Duration::from_secs(5);

/// Reaches the rating actor.
pub type RatingRef = Handle<RatingMsg>;

/// What the rating actor is told and asked.
pub enum RatingMsg {
    /// From the matchmaker: this is durable evidence.
    Heard(EvidenceRecord),
    /// From sessions: a client gives its finished task's miners stars.
    Rate {
        /// The transaction.
        transaction: Box<Verified>,
        /// Which task.
        task: TaskId,
        /// 1 to 5.
        stars: u8,
        /// The outcome, once durable.
        reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    },
    /// From the matchmaker and sessions: how are these rated?
    RatingsOf(Vec<NodeId>, RpcReplyPort<Vec<RatingView>>),
    /// From sessions: what have this owner's nodes shown, after that?
    EvidenceOf {
        /// Whose.
        owner: AccountId,
        /// The last piece that is known.
        after: Option<EvidenceKey>,
        /// At most so many.
        limit: u32,
        /// The oldest first.
        reply: RpcReplyPort<Result<Vec<EvidenceRecord>, ErrorBody>>,
    },
    /// From itself: something that it remembers was lost with the ledger.
    Reread,
}

/// The actor. Its state is a [`Ratings`].
pub struct RatingActor;

/// What the rating actor needs.
#[derive(Clone)]
pub struct RatingArguments {
    /// Where evidence lies.
    pub store: StateStore,
    /// Through which stars are written.
    pub ledger: LedgerRef,
    /// Whose answers are being checked: that is no evidence yet.
    pub doubts: Doubts,
}

/// A rating, and its score in the hour when it was last asked for.
#[derive(Default)]
struct Known {
    rating: Rating,
    scored: Option<(u64, Score)>,
}

impl Known {
    fn hear(&mut self, record: &EvidenceRecord) {
        self.rating.hear(&record.evidence, record.at);
        self.scored = None;
    }

    fn score(&mut self, now: Timestamp) -> Score {
        let hour = rating::hour(now);
        match self.scored {
            Some((known, score)) if known == hour => score,
            _ => {
                let score = self.rating.score(now);
                self.scored = Some((hour, score));
                score
            }
        }
    }
}

/// What an owner's nodes have shown.
#[derive(Default)]
struct Owned {
    all: Known,
    nodes: BTreeMap<NodeId, Known>,
    /// Where the evidence lies, in order.
    heard: BTreeSet<EvidenceKey>,
}

impl Owned {
    fn hear(&mut self, record: &EvidenceRecord) {
        self.all.hear(record);
        self.nodes.entry(record.node).or_default().hear(record);
    }
}

/// What the rating actor holds in memory.
pub struct Ratings {
    arguments: RatingArguments,
    owners: BTreeMap<AccountId, Owned>,
    /// Of whom nothing is known.
    newcomer: Known,
    credibility: Credibility,
    counted: BTreeSet<(TaskId, u64)>,
    me: ActorRef<RatingMsg>,
}

impl Actor for RatingActor {
    type Msg = RatingMsg;
    type State = Ratings;
    type Arguments = RatingArguments;

    async fn pre_start(
        &self,
        me: ActorRef<RatingMsg>,
        arguments: RatingArguments,
    ) -> Result<Ratings, ActorProcessingErr> {
        Ratings::read(arguments, me).await
    }

    async fn handle(
        &self,
        _: ActorRef<RatingMsg>,
        message: RatingMsg,
        state: &mut Ratings,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RatingMsg::Reread => {
                *state = Ratings::read(state.arguments.clone(), state.me.clone()).await?;
            }
            RatingMsg::Heard(record) => state.hear(&record),
            RatingMsg::Rate {
                transaction,
                task,
                stars,
                reply,
            } => {
                state.rate(*transaction, task, stars, reply).await;
            }
            RatingMsg::RatingsOf(nodes, reply) => {
                let views = nodes.iter().map(|node| state.view(node)).collect();
                // Whoever no longer waits does not need it.
                drop(reply.send(views));
            }
            RatingMsg::EvidenceOf {
                owner,
                after,
                limit,
                reply,
            } => drop(reply.send(state.evidence(owner, after, limit))),
        }
        Ok(())
    }
}

impl Ratings {
    async fn read(
        arguments: RatingArguments,
        me: ActorRef<RatingMsg>,
    ) -> Result<Self, ActorProcessingErr> {
        arguments.ledger.settled(&arguments.store).await?;
        let mut evidence = arguments.store.load::<EvidenceRecord>()?;
        evidence.sort_by_key(EvidenceRecord::key);
        let mut state = Self {
            arguments,
            owners: BTreeMap::new(),
            newcomer: Known::default(),
            credibility: Credibility::default(),
            counted: BTreeSet::new(),
            me,
        };
        evidence.iter().for_each(|record| state.hear(record));
        Ok(state)
    }

    fn hear(&mut self, record: &EvidenceRecord) {
        if !self.counted.insert((record.task, record.number)) {
            return;
        }
        let owned = self.owners.entry(record.owner).or_default();
        let node = owned.nodes.get(&record.node);
        let rating = node.map_or(&self.newcomer.rating, |known| &known.rating);
        let mean_milli = rating.stars_milli(record.at);
        self.credibility.voted(&record.evidence, mean_milli);
        let is_last = owned.heard.last().is_none_or(|last| *last < record.key());
        owned.heard.insert(record.key());
        match is_last {
            true => owned.hear(record),
            false => self.fold_anew(record.owner),
        }
    }

    /// All evidence of an owner's, in its order.
    fn fold_anew(&mut self, owner: AccountId) {
        let heard = self.owners.remove(&owner).unwrap_or_default().heard;
        let mut owned = Owned::default();
        for key in &heard {
            let stored = self.arguments.store.get::<EvidenceRecord>(&stored_key(key));
            match stored {
                Ok(Some(record)) => owned.hear(&record),
                // It is not on the disk yet, or cannot be read: reading waits for the one and says the other. An actor that
                // is being restarted reads anyway.
                _ => drop(self.me.cast(RatingMsg::Reread)),
            }
        }
        owned.heard = heard;
        self.owners.insert(owner, owned);
    }

    fn view(&mut self, node: &NodeId) -> RatingView {
        // A node that never joined has no owner that is known.
        let record = self.arguments.store.get::<NodeRecord>(node.as_bytes());
        let owner = record.ok().flatten().map(|record| record.owner);
        let is_doubted = owner.is_some_and(|owner| self.arguments.doubts.contain(&owner));
        let doubted = is_doubted.then_some(Bar::Doubted {});
        let view = self.shown(node, owner);
        let bar = view.bar.or(doubted);
        RatingView { bar, ..view }
    }

    /// What evidence says of it.
    fn shown(&mut self, node: &NodeId, owner: Option<AccountId>) -> RatingView {
        let now = clock::now();
        let newcomers = self.newcomer.score(now);
        let nobody = &self.newcomer.rating;
        let Some(owned) = owner.and_then(|owner| self.owners.get_mut(&owner)) else {
            return rating::view_with((newcomers, newcomers), nobody, nobody, now);
        };
        let Owned { all, nodes, .. } = owned;
        let mut own = nodes.get_mut(node);
        let score = own.as_deref_mut().map_or(newcomers, |own| own.score(now));
        let own = own.map_or(nobody, |own| &own.rating);
        let scores = (score, all.score(now));
        rating::view_with(scores, own, &all.rating, now)
    }

    fn evidence(
        &self,
        owner: AccountId,
        after: Option<EvidenceKey>,
        limit: u32,
    ) -> Result<Vec<EvidenceRecord>, ErrorBody> {
        let Some(owned) = self.owners.get(&owner) else {
            return Ok(Vec::new());
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = owned.heard.range((from, Bound::Unbounded));
        let mut records = Vec::new();
        for key in keys.take(limit.min(MAX_ROWS) as usize) {
            let stored = self.arguments.store.get::<EvidenceRecord>(&stored_key(key));
            // What is not on the disk yet is told when it is, and what comes after it.
            let Some(record) = stored.map_err(ErrorBody::internal)? else {
                break;
            };
            records.push(record);
        }
        Ok(records)
    }

    async fn rate(
        &mut self,
        transaction: Verified,
        task: TaskId,
        stars: u8,
        reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    ) {
        let votes = match self.votes(&transaction, task, stars) {
            Ok(votes) => votes,
            // A repeated transaction is refused by its own effect; then the first answer counts.
            Err(refusal) => {
                let before = self.arguments.ledger.answer_of(&transaction).await;
                let answer = before.and_then(|before| before.ok_or(refusal));
                return drop(reply.send(answer));
            }
        };
        let mut batch = Batch::new();
        votes.iter().for_each(|vote| batch.put(vote));
        let posting = Posting {
            transaction: Some(transaction),
            batch,
            ..Posting::default()
        };
        match self.arguments.ledger.post(posting).await {
            Ok(posted) => {
                votes.iter().for_each(|vote| self.hear(vote));
                let me = self.me.clone();
                // An actor that is being restarted reads anyway.
                answer_when_durable(posted, reply, move || drop(me.cast(RatingMsg::Reread)));
            }
            Err(unposted) => {
                if matches!(unposted, Unposted::Unknown(_)) {
                    // An actor that is being restarted reads anyway.
                    drop(self.me.cast(RatingMsg::Reread));
                }
                drop(reply.send(unposted.into()));
            }
        }
    }

    /// One vote a settled task, for each member of its last group.
    fn votes(
        &self,
        transaction: &Verified,
        task: TaskId,
        stars: u8,
    ) -> Result<Vec<EvidenceRecord>, ErrorBody> {
        let refuse = |code, message: &str| Err(ErrorBody::user(code, message));
        rating::check_stars(stars)?;
        let run = self
            .arguments
            .store
            .get::<Run>(task.as_bytes())
            .map_err(ErrorBody::internal)?;
        let Some(run) = run.filter(|run| run.client == transaction.account()) else {
            return Err(ErrorBody::not_found(
                "task",
                format!("you have no task {task}"),
            ));
        };
        if run.state != TaskState::Finished {
            return refuse("task_not_finished", "stars are for tasks that finished");
        }
        let ranks = FIRST_VOTE..FIRST_VOTE + run.seats.len() as u64;
        if ranks
            .clone()
            .any(|number| self.counted.contains(&(task, number)))
        {
            return refuse(
                "already_rated",
                "this task's miners have their stars already",
            );
        }
        let (at, rater) = (clock::now(), run.client);
        let credibility_ppm = self.credibility.of(&rater);
        let vote = |(number, seat): (u64, &Seat)| EvidenceRecord {
            task,
            number,
            node: seat.member.node,
            owner: seat.member.owner,
            at,
            evidence: Evidence::Stars {
                stars,
                paid: paid(&run, seat.member.node),
                rater,
                credibility_ppm,
            },
        };
        let seats = ranks.zip(&run.seats);
        let others = seats.filter(|(_, seat)| seat.member.owner != rater);
        let votes: Vec<_> = others.map(vote).collect();
        if votes.is_empty() {
            let message = "this task was done by miners of yours: nobody rates himself";
            return Err(ErrorBody::user("own_miners", message).with_help(
                "their rating follows from the tasks of others: see `cryptomind miner explain`",
            ));
        }
        Ok(votes)
    }
}

/// Under which key a piece lies.
fn stored_key(key: &EvidenceKey) -> Vec<u8> {
    numbered_key(&key.task, key.number)
}

/// What a node's work in a task was paid.
fn paid(run: &Run, node: NodeId) -> Amount {
    let for_work = |p: &&Payment| p.node == Some(node) && p.reason == Reason::Work;
    let paid = run.payments.iter().filter(for_work);
    // A sum of what one hold paid fits an amount.
    let sum = paid.fold(0u64, |sum, p| sum.saturating_add(p.amount.base_units()));
    Amount::from_base_units(sum)
}

/// Answers once the posting is durable, without holding up the actor. Where it was lost with the ledger, `lost` is
/// called: what the actor remembers of it did not happen.
pub(crate) fn answer_when_durable(
    posted: Posted,
    reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    lost: impl FnOnce() + Send + 'static,
) {
    tokio::spawn(async move {
        let answer = match posted.accepted() {
            Ok(accepted) => posted.durable.wait().await.map(|()| accepted),
            Err(error) => Err(error),
        };
        if answer.is_err() {
            lost();
        }
        // Whoever no longer waits does not need it.
        drop(reply.send(answer));
    });
}
