//! The rating actor: what is known of each miner's work, folded from stored evidence.
//!
//! **Owns**: ratings. **Talked to by**: the matchmaker (evidence of runs), sessions (stars, questions).
//! Its state is the fold of all [`EvidenceRecord`]s; a piece that comes twice counts once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cryptomind_core::journal::{EvidenceRecord, FIRST_VOTE};
use cryptomind_core::rating::{self, Evidence, Rating};
use cryptomind_core::run::Run;
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::api::RatingView;
use cryptomind_protocol::task::TaskState;
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{ErrorBody, NodeId, TaskId};
use cryptomind_storage::state::{Batch, StateStore};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::clock;
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
}

/// What the rating actor holds in memory.
pub struct Ratings {
    arguments: RatingArguments,
    ratings: BTreeMap<NodeId, Rating>,
    heard: BTreeSet<(TaskId, u64)>,
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
            RatingMsg::Heard(record) => state.hear(record),
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
        evidence.sort_by_key(|record| (record.at, record.key()));
        let (ratings, heard) = (BTreeMap::new(), BTreeSet::new());
        let mut state = Self {
            arguments,
            ratings,
            heard,
            me,
        };
        evidence.into_iter().for_each(|record| state.hear(record));
        Ok(state)
    }

    fn hear(&mut self, record: EvidenceRecord) {
        if self.heard.insert(record.key()) {
            let new = || Rating::new(record.node, record.at);
            let rating = self.ratings.entry(record.node).or_insert_with(new);
            // Stars were checked before they were stored; others would count for nothing.
            drop(rating::apply(rating, record.evidence, record.at));
        }
    }

    fn view(&self, node: &NodeId) -> RatingView {
        let newcomer = || Rating::new(*node, clock::now());
        self.ratings
            .get(node)
            .cloned()
            .unwrap_or_else(newcomer)
            .view()
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
                votes.into_iter().for_each(|vote| self.hear(vote));
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
        if self.heard.contains(&(task, FIRST_VOTE)) {
            return refuse(
                "already_rated",
                "this task's miners have their stars already",
            );
        }
        let at = clock::now();
        let vote = |(rank, seat): (usize, &cryptomind_core::run::Seat)| EvidenceRecord {
            task,
            number: FIRST_VOTE + rank as u64,
            node: seat.member.node,
            at,
            evidence: Evidence::Stars(stars),
        };
        Ok(run.seats.iter().enumerate().map(vote).collect())
    }
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
