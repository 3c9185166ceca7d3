//! The matchmaker actor: tasks from their posting to their settlement, and the miners that do them.
//!
//! **Owns**: all open runs. **Talked to by**: sessions (clients' tasks, nodes' news) and its own timer. Each piece of
//! news goes to a [`Run`], which decides; what follows is posted through the ledger in one write
//! transaction with the run itself, and only when that is durable does anybody hear of it (see [`outbox`]). A hold that
//! nobody settled in time the ledger settles by itself; the matchmaker hears of it, or asks when it starts.
//!
//! **Invariant**: if a posting fails, the run is as if the news had not come. Then nodes report again,
//! since they got no answer, and timers fire again.
//!
//! **Is not**: a place for rules. `cryptomind_core::run` and `market` have them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cryptomind_core::audit::Opened;
use cryptomind_core::dice::Dice;
use cryptomind_core::journal::OpenRun;
use cryptomind_core::market::link::Party;
use cryptomind_core::market::{Ability, Offer, Past, Surroundings, Workload};
use cryptomind_core::posting::{PostingRule, Postings};
use cryptomind_core::rating;
use cryptomind_core::run::{Input, Limits, Run};
use cryptomind_core::serve::Shown;
use cryptomind_core::succession::Proof;
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::api::{Explanation, MinerView, WorkVerdict};
use cryptomind_protocol::node::{Position, Report};
use cryptomind_protocol::price::{PriceClass, PricePoint};
use cryptomind_protocol::rating::RatingView;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Activity, Event, Member, Payment, Quote, TaskSpec};
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ItemId, NodeId, TaskId};
use cryptomind_storage::StoreError;
use cryptomind_storage::state::StateStore;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::catalog::CatalogRef;
use crate::clock;
use crate::control::{ControlMsg, ControlRef};
use crate::coordinator::links::{Link, Links};
use crate::coordinator::surveyor::Surveyor;
use crate::coordinator::tickets::Tickets;
use crate::coordinator::watchers::Watchers;
use crate::ledger::{LedgerRef, Life, NetworkClock};
use crate::rating::{RATING_LIMIT, RatingMsg, RatingRef};
use crate::supervisor::Handle;

mod carry;
mod expiry;
mod explain;
mod exposure;
mod free;
mod outbox;
mod past;
mod post;
mod price;
mod runs;
mod timekeeper;
mod views;

pub use post::Materials;
pub(crate) use price::points;
pub use price::{PRICE_INTERVAL, Tariff};

pub(crate) use free::dice;

use carry::Caller;
use free::Free;
use outbox::Outbox;
use price::Pricing;
use runs::Runs;
use timekeeper::Timekeeper;

/// How long anybody waits for the matchmaker.
pub const MATCHMAKER_LIMIT: Duration = Duration::from_secs(10);
/// Storage nodes that a choice looks at: it looks at the way to each of them from every miner.
const MAX_STORES: usize = 8;
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Reaches the matchmaker.
pub type MatchmakerRef = Handle<MatchmakerMsg>;

/// What the matchmaker is told and asked.
pub enum MatchmakerMsg {
    /// From sessions and the control actor: post this task.
    Post {
        /// The transaction.
        transaction: Box<Verified>,
        /// The task.
        spec: Box<TaskSpec>,
        /// The items that it names.
        materials: Box<Materials>,
        /// The one miner that it is for, where it is a control task.
        only: Option<NodeId>,
        /// The answer, once durable.
        reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    },
    /// From sessions: cancel this task.
    Cancel {
        /// The transaction.
        transaction: Box<Verified>,
        /// Which.
        task: TaskId,
        /// The answer, once durable.
        reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    },
    /// From sessions: what would this cost and take?
    QuoteOf {
        /// Who asks.
        account: AccountId,
        /// The task.
        spec: Box<TaskSpec>,
        /// The items that it names.
        materials: Box<Materials>,
        /// The quote.
        reply: RpcReplyPort<Result<Quote, ErrorBody>>,
    },
    /// From sessions: a node connected; [`Links`] has it.
    Joined {
        /// Who.
        node: NodeId,
        /// The run that it is in.
        position: Option<Position>,
    },
    /// From sessions: a node's connection ended.
    Left(NodeId),
    /// From the outbox and the control actor: this node is rated otherwise than before.
    Rated(NodeId),
    /// From the control actor: whatever this miner is to be asked first is posted.
    Released(NodeId),
    /// From sessions: a miner is ready for a task.
    Offered {
        /// Who.
        node: NodeId,
        /// For which task.
        task: TaskId,
        /// Where its ring socket listens.
        ring_address: String,
        /// Answered once durable.
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    },
    /// From sessions: a miner is not.
    Declined {
        /// Who.
        node: NodeId,
        /// For which task.
        task: TaskId,
        /// Why.
        reason: String,
        /// Answered once durable.
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    },
    /// From sessions: news of a run.
    Reported {
        /// From whom.
        node: NodeId,
        /// Of which task.
        task: TaskId,
        /// In which attempt.
        attempt: u32,
        /// What.
        report: Box<Report>,
        /// The owner of the storage node whose receipts came along, if all were good.
        stored_by: Option<AccountId>,
        /// Answered once durable.
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    },
    /// From sessions: the members of a run formed the next attempt among themselves.
    Succeeded {
        /// Who says so.
        node: NodeId,
        /// Of which task.
        task: TaskId,
        /// What they decided.
        proof: Box<Proof>,
        /// Answered once durable.
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    },
    /// From sessions: the one that serves shows what its client acknowledged.
    Served {
        /// From whom.
        node: NodeId,
        /// Of which task.
        task: TaskId,
        /// In which attempt.
        attempt: u32,
        /// The newest acknowledgement, where there is one.
        shown: Option<Shown>,
        /// Whether its door is closed.
        left: bool,
        /// Answered once durable, or with why the acknowledgement does not count.
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    },
    /// From sessions: a member shows what it signed of its steps.
    Committed {
        /// From whom.
        node: NodeId,
        /// Of which task.
        task: TaskId,
        /// What, verified.
        opened: Box<Opened>,
        /// Answered once durable.
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    },
    /// From sessions: a miner's machine changed what it does.
    Activity {
        /// Whose.
        node: NodeId,
        /// Before.
        from: Activity,
        /// Now.
        to: Activity,
        /// Because of this task.
        task: Option<TaskId>,
        /// Answered once durable.
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    },
    /// From sessions: the miners, without their owners' nicknames.
    MinersOf(RpcReplyPort<Result<Vec<MinerView>, ErrorBody>>),
    /// From sessions: who could do this task, and why not the others?
    Explain(Box<Run>, RpcReplyPort<Result<Explanation, ErrorBody>>),
    /// From sessions: why have this account's miners no work?
    WhyNoWork(AccountId, RpcReplyPort<Result<Vec<WorkVerdict>, ErrorBody>>),
    /// From sessions: how many tasks are open, and how many miners free?
    CountsOf(RpcReplyPort<Counts>),
    /// From sessions: what does a CU of each class cost?
    PricesOf(RpcReplyPort<Vec<PricePoint>>),
    /// From the ledger: it settled these tasks' holds by itself, with these payments. It is durable.
    HoldsExpired(Vec<(TaskId, Vec<Payment>)>),
    /// From its outbox: a posting was lost with the ledger.
    Lost,
    /// From its own timer.
    Tick,
}

/// For `network.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that have not ended.
    pub open_tasks: usize,
    /// Miners that are connected.
    pub miners: usize,
    /// Of these, free.
    pub miners_free: usize,
    /// What a CU of the first class costs.
    pub unit_price: Amount,
}

/// The actor. Its state is a [`Desk`].
pub struct MatchmakerActor;

/// What the matchmaker needs.
#[derive(Clone)]
pub struct MatchmakerArguments {
    /// Where runs lie.
    pub store: StateStore,
    /// Through which everything is written.
    pub ledger: LedgerRef,
    /// What time it is for blocks: holds end by it.
    pub clock: NetworkClock,
    /// Names trained models.
    pub catalog: CatalogRef,
    /// Knows the miners' past.
    pub rating: RatingRef,
    /// Hears who can take work, and what was done.
    pub control: ControlRef,
    /// Knows who is connected.
    pub links: Links,
    /// Knows how far they are from each other.
    pub surveyor: Surveyor,
    /// Lets members read and store.
    pub tickets: Tickets,
    /// Wakes whoever follows a task.
    pub watchers: Watchers,
    /// What things cost.
    pub tariff: Tariff,
    /// How often prices move; [`PRICE_INTERVAL`], but for tests.
    pub price_interval: Duration,
    /// The most that is withheld of earnings, in millionths, by the genesis.
    pub withheld_max_ppm: u32,
    /// What the network is ready to lose to somebody of whom it knows nothing; nothing is said where nobody is checked.
    pub allowance: Option<Amount>,
    /// How long runs wait for what.
    pub limits: Limits,
    /// How much an account may post.
    pub posting: PostingRule,
}

impl MatchmakerArguments {
    /// What is measured around the miners now, and the storage nodes that are there.
    fn around(&self) -> Surroundings {
        let mut stores = self.links.stores();
        stores.truncate(MAX_STORES);
        Surroundings {
            links: self.surveyor.table(),
            stores: stores.into_iter().map(Party::Node).collect(),
        }
    }
}

/// What the matchmaker holds in memory.
pub struct Desk {
    world: MatchmakerArguments,
    runs: Runs,
    /// What accounts took back lately.
    postings: Postings,
    /// What is measured around the miners, which groups are chosen by.
    around: Surroundings,
    /// What they did before.
    past: Past,
    outbox: Outbox,
    timekeeper: Timekeeper,
    pricing: Pricing,
    /// Runs whose holds the ledger settled by itself, with the payments, until that is noted.
    expired: BTreeMap<TaskId, Vec<Payment>>,
    /// Who could begin now, and who said no to what.
    free: Free,
    /// Draws whom to ask by lot.
    dice: Dice,
    /// Runs may find somebody to ask who was not there before: done at the next tick.
    ask_free: bool,
    /// How often items were used, where that was counted here: one number for each item in use since the start.
    uses: BTreeMap<ItemId, u64>,
    /// The ledger that what is in memory was read and decided under.
    life: Life,
}

impl Actor for MatchmakerActor {
    type Msg = MatchmakerMsg;
    type State = Desk;
    type Arguments = MatchmakerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<MatchmakerMsg>,
        world: MatchmakerArguments,
    ) -> Result<Desk, ActorProcessingErr> {
        let life = world.ledger.settled(&world.store).await?;
        let runs = open_runs(&world.store)?.into_iter().collect();
        let past = past::remembered(&world.store)?;
        let pricing = Pricing::start(&world, Instant::now())?;
        let outbox = Outbox::start(&world, myself.clone());
        // Ends with the actor.
        drop(myself.send_interval(TICK, || MatchmakerMsg::Tick));
        Ok(Desk {
            world,
            runs,
            postings: Postings::default(),
            around: Surroundings::default(),
            past,
            outbox,
            timekeeper: Timekeeper::new(clock::now(), Instant::now()),
            pricing,
            expired: BTreeMap::new(),
            free: Free::default(),
            dice: dice()?,
            ask_free: false,
            uses: BTreeMap::new(),
            life,
        })
    }

    async fn post_start(
        &self,
        _: ActorRef<MatchmakerMsg>,
        desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        desk.look_for_expired().await?;
        desk.resume().await;
        Ok(())
    }

    async fn handle(
        &self,
        _: ActorRef<MatchmakerMsg>,
        message: MatchmakerMsg,
        desk: &mut Desk,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MatchmakerMsg::Post {
                transaction,
                spec,
                materials,
                only,
                reply,
            } => {
                let task = (*spec, *materials);
                desk.post(*transaction, task, only, reply).await;
            }
            MatchmakerMsg::Cancel {
                transaction,
                task,
                reply,
            } => desk.cancel(*transaction, task, reply).await,
            MatchmakerMsg::QuoteOf {
                account,
                spec,
                materials,
                reply,
            } => {
                // Whoever no longer waits does not need it.
                drop(reply.send(desk.quote(account, &spec, &materials).await));
            }
            MatchmakerMsg::Joined { node, position } => desk.joined(node, position).await,
            MatchmakerMsg::Left(node) => desk.left(node).await,
            MatchmakerMsg::Rated(node) => {
                desk.rated_anew(node).await;
                // It may get work again.
                desk.ask_free = true;
            }
            MatchmakerMsg::Released(node) => desk.released(node).await,
            MatchmakerMsg::Offered {
                node,
                task,
                ring_address,
                reply,
            } => {
                desk.offered(node, task, ring_address, reply).await;
            }
            MatchmakerMsg::Declined {
                node,
                task,
                reason,
                reply,
            } => {
                desk.declined(node, task, reason, reply).await;
            }
            MatchmakerMsg::Reported {
                node,
                task,
                attempt,
                report,
                stored_by,
                reply,
            } => {
                let input = Input::Reported {
                    node,
                    attempt,
                    report: *report,
                    stored_by,
                };
                desk.feed(task, input, Some(reply)).await;
            }
            MatchmakerMsg::Succeeded {
                node,
                task,
                proof,
                reply,
            } => {
                let input = Input::Succeeded { node, proof };
                desk.feed(task, input, Some(reply)).await;
            }
            MatchmakerMsg::Served {
                node,
                task,
                attempt,
                shown,
                left,
                reply,
            } => {
                let from = (node, attempt);
                desk.served(task, from, shown, left, reply).await;
            }
            MatchmakerMsg::Committed {
                node,
                task,
                opened,
                reply,
            } => {
                let input = Input::Committed { node, opened };
                desk.feed(task, input, Some(reply)).await;
            }
            MatchmakerMsg::Activity {
                node,
                from,
                to,
                task,
                reply,
            } => {
                desk.activity(node, from, to, task, reply).await;
            }
            MatchmakerMsg::MinersOf(reply) => drop(reply.send(desk.miners().await)),
            MatchmakerMsg::Explain(run, reply) => drop(reply.send(desk.explain(&run).await)),
            MatchmakerMsg::WhyNoWork(owner, reply) => {
                drop(reply.send(desk.why_no_work(owner).await));
            }
            MatchmakerMsg::CountsOf(reply) => drop(reply.send(desk.counts())),
            MatchmakerMsg::PricesOf(reply) => drop(reply.send(desk.pricing.points())),
            MatchmakerMsg::HoldsExpired(expired) => {
                desk.expired.extend(expired);
                desk.end_expired().await;
            }
            // What is in memory did not happen: its successor reads the store.
            MatchmakerMsg::Lost => return Err("a posting was lost with the ledger".into()),
            MatchmakerMsg::Tick => desk.tick().await,
        }
        Ok(())
    }
}

/// The runs that have not ended, as they are stored.
fn open_runs(store: &StateStore) -> Result<Vec<Run>, StoreError> {
    let open = store.load::<OpenRun>()?.into_iter();
    let runs = open.map(|open| store.get::<Run>(open.task.as_bytes()));
    runs.filter_map(Result::transpose).collect()
}

impl Desk {
    /// After a restart: timers start anew, and whoever is connected is taken as having joined.
    async fn resume(&mut self) {
        self.look_who_is_there().await;
        for task in self.runs.tasks() {
            let Some(mut run) = self.runs.get(&task).cloned() else {
                continue;
            };
            let free = self.shortlist(&run.wanted(), run.terms.prices.unit_price);
            let effects = run.resume(free, clock::now());
            // What cannot be posted now is tried again by the run's timer.
            self.carry_out(run, effects, Caller::default()).await;
        }
        for link in self.world.links.of_role(Role::Miner) {
            let node = link.record.node;
            for task in self.runs.of_member(&node) {
                self.feed(task, Input::Present(node), None).await;
            }
        }
        self.ask_free = true;
    }

    async fn tick(&mut self) {
        let now = clock::now();
        self.move_prices(Instant::now());
        self.end_expired().await;
        if self.timekeeper.has_stepped(now, Instant::now()) {
            tracing::warn!("this machine's clock was set: the tasks' timers start anew");
            self.postings.forgive_all();
            for task in self.runs.tasks() {
                self.feed(task, Input::ClockSet, None).await;
            }
        }
        for task in self.runs.due(now) {
            self.feed(task, Input::Tick, None).await;
            self.ask_more(task).await;
        }
        for node in self.held_too_long(now) {
            self.released(node).await;
        }
        for node in self.rested(now) {
            self.rated_anew(node).await;
            self.offer_work(node).await;
        }
        if std::mem::take(&mut self.ask_free) {
            self.ask_more_for_all().await;
        }
    }

    async fn joined(&mut self, node: NodeId, position: Option<Position>) {
        let mut concerned = self.runs.of_member(&node);
        match position.map(|p| p.task) {
            Some(task) if self.runs.get(&task).is_some() => concerned.push(task),
            // It is in a run that has ended.
            Some(task) => self.outbox.stop(node, task),
            None => {}
        }
        concerned.sort_unstable();
        concerned.dedup();
        for task in concerned {
            self.feed(task, Input::Joined { node, position }, None)
                .await;
        }
        if let Some(link) = self.world.links.get(&node) {
            self.past.joined(&link.record);
        }
        self.hold(node);
        // One that is being restarted lets it wait for a moment.
        drop(self.world.control.cast(ControlMsg::Joined(node)));
        self.rated_anew(node).await;
        self.offer_work(node).await;
    }

    async fn left(&mut self, node: NodeId) {
        self.knows_no_more(&node);
        for task in self.runs.that(|run| run.concerns(&node)) {
            self.feed(task, Input::Disconnected(node), None).await;
            self.ask_more(task).await;
        }
    }

    async fn declined(
        &mut self,
        node: NodeId,
        task: TaskId,
        reason: String,
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    ) {
        self.turned_down(task, node);
        self.feed(task, Input::Declined { node, reason }, Some(reply))
            .await;
        self.ask_more(task).await;
    }

    async fn offered(
        &mut self,
        node: NodeId,
        task: TaskId,
        ring_address: String,
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    ) {
        let link = self
            .world
            .links
            .get(&node)
            .filter(|l| l.record.role == Role::Miner);
        let Some(link) = link else {
            let refusal =
                ErrorBody::user("not_joined", "an offer comes from a miner that has joined");
            return drop(reply.send(Err(refusal)));
        };
        if self.runs.is_member(&node) {
            let reason = "it is in another group".to_owned();
            return self.declined(node, task, reason, reply).await;
        }
        let miner = match self.rated(vec![link.record.clone()]).await {
            Ok(mut miners) => miners.pop(),
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let Some(miner) = miner else {
            return drop(reply.send(Ok(())));
        };
        self.is_rated(&link, &miner.rating);
        let Some(run) = self.runs.get(&task) else {
            return drop(reply.send(Ok(())));
        };
        let workload = Workload::of(&run.spec, &run.terms);
        let (ability, _) = self.ability(&miner, &workload, &run.terms.items);
        let exposed = self.exposed(&link, &miner.rating, run);
        let ability = Ability { exposed, ..ability };
        let offer = Offer {
            member: member(&link),
            ring_address,
            engine: miner.record.capacity.engine,
            ability,
        };
        if exposed.is_some() {
            self.turned_down_for_now(task, node);
        }
        self.feed(task, Input::Offered(offer), Some(reply)).await;
        self.ask_more(task).await;
    }

    /// What counts goes to the run; what does not is refused by name.
    async fn served(
        &mut self,
        task: TaskId,
        (node, attempt): (NodeId, u32),
        shown: Option<Shown>,
        left: bool,
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    ) {
        let both = self.runs.get(&task).zip(shown.as_ref());
        let judged = both.map_or(Ok(()), |(run, shown)| run.judge(&node, attempt, shown));
        if let Err(refusal) = judged {
            tracing::warn!(%task, %node, %refusal, "an acknowledgement does not count");
            return drop(reply.send(Err(refusal.into())));
        }
        let input = Input::Served {
            node,
            attempt,
            shown,
            left,
        };
        self.feed(task, input, Some(reply)).await;
    }

    async fn activity(
        &mut self,
        node: NodeId,
        from: Activity,
        to: Activity,
        task: Option<TaskId>,
        reply: RpcReplyPort<Result<(), ErrorBody>>,
    ) {
        self.world.links.set_activity(node, to);
        let run = task.and_then(|task| self.runs.get(&task)).cloned();
        let seat = run
            .iter()
            .flat_map(|r| &r.seats)
            .find(|s| s.member.node == node);
        let name = seat.map(|seat| seat.member.name.clone());
        match (run, name) {
            (Some(mut run), Some(name)) => {
                let event = Event::Activity {
                    node,
                    name,
                    from,
                    to,
                    reason: None,
                };
                let effect = run.note(event);
                self.carry_out(run, vec![effect], Caller::ack(Some(reply)))
                    .await;
            }
            _ => drop(reply.send(Ok(()))),
        }
        if matches!(to, Activity::Idle | Activity::Mining) {
            self.offer_work(node).await;
        }
    }

    async fn ratings(&self, nodes: Vec<NodeId>) -> Result<Vec<RatingView>, ErrorBody> {
        self.world
            .rating
            .call(|reply| RatingMsg::RatingsOf(nodes, reply), RATING_LIMIT)
            .await
    }

    /// What is withheld of these nodes' earnings.
    async fn withheld(&self, earners: &[NodeId]) -> Result<Vec<(NodeId, u32)>, ErrorBody> {
        let max_ppm = self.world.withheld_max_ppm;
        if earners.is_empty() || max_ppm == 0 {
            return Ok(Vec::new());
        }
        let ratings = self.ratings(earners.to_vec()).await?.into_iter();
        let ppm = ratings.map(|r| rating::withheld_ppm(r.low_milli, max_ppm));
        Ok(earners.iter().copied().zip(ppm).collect())
    }

    fn is_free(&self, node: &NodeId) -> bool {
        self.world.links.has(node, Role::Miner) && !self.runs.is_member(node)
    }

    fn counts(&self) -> Counts {
        let (miners, miners_free) = self.free.counts();
        Counts {
            open_tasks: self.runs.len(),
            miners,
            miners_free,
            unit_price: self.pricing.unit_price(PriceClass::ALL[0]),
        }
    }
}

/// A connected miner as a member of groups.
pub(crate) fn member(link: &Link) -> Member {
    let record = &link.record;
    Member {
        node: record.node,
        name: record.name.clone(),
        owner: record.owner,
    }
}

#[cfg(test)]
mod tests;
