//! The control actor: asks miners what it knows the answer of, and judges what they say.
//!
//! **Owns**: the questions that are open ([`ControlRecord`]), the accounts that post them ([`Purse`]), and what may be spent.
//! **Talked to by**: the matchmaker, which tells it who came free, what clients ask and which tasks have ended. It posts tasks as any
//! client does, but for one miner alone; nothing that the miner is told shows that.
//!
//! ```text
//! came free ─(core::check draws)─▶ drawn ─(the budget allows)─▶ stored ─▶ posted ─▶ ended ─▶ judged ─▶ findings
//!                                    ▲                                                         │ doubted
//!                                    └───────────── another owner's miner is asked ────────────┘
//! ```
//!
//! The answer is what computing it again gives, here, once the miner's is there: see `control/answer.rs`. What is found is
//! evidence for the rating and, where an answer is wrong, a forfeiture; both are one posting.
//!
//! Its timer looks at every open question, so a restart, or news that was lost, delays a finding and costs none. Where it cannot
//! be known whether something was stored, the actor ends, and its successor reads the store.
//!
//! **Is not**: a place for rules: `cryptomind_core::{check, control}` have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_core::check::{self, Answer, Finding, Next, Standing, Witness};
use cryptomind_core::control::{
    Allowance, Asked, Bounds, Budget, CASE_LIMIT_MS, ControlRecord, Heard, POST_LIMIT_MS, Seen,
};
use cryptomind_core::dice::Dice;
use cryptomind_core::journal::FIRST_FINDING;
use cryptomind_core::run::Run;
use cryptomind_gpu::agreement::Agreement;
use cryptomind_protocol::block::Decision;
use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::item::{MODEL_FILE, PREDICTIONS_FILE};
use cryptomind_protocol::rating::{Evidence, EvidenceRecord, RatingView};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{ResultFile, TaskSpec, TaskState, Work};
use cryptomind_protocol::{AccountId, Amount, ErrorBody, NodeId, TaskId, Timestamp};
use cryptomind_storage::state::{Batch, Record as _, StateStore};
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::cache::Cache;
use crate::catalog::CatalogRef;
use crate::clock;
use crate::coordinator::links::{Link, Links};
use crate::coordinator::tickets::Tickets;
use crate::ledger::{Durable, LEDGER_LIMIT, LedgerMsg, LedgerRef, NetworkClock, Posting, Unposted};
use crate::matchmaker::{self, MatchmakerMsg, MatchmakerRef};
use crate::rating::{RATING_LIMIT, RatingMsg, RatingRef};
use crate::supervisor::Handle;
use crate::transfer::Transfer;

mod answer;
mod doubts;
mod purse;
mod question;

pub use doubts::Doubts;
pub use purse::Purse;
use question::{Question, Wanted};

/// Questions that are open at once, at most.
const MAX_OPEN: usize = 64;
/// How often open questions are looked at.
const TICK: Duration = Duration::from_secs(2);
/// How often an answer is looked at that cannot be judged, for reasons of this side.
const MAX_TRIES: u32 = 8;
/// From the first try to the next, milliseconds; each further pause is twice as long.
const FIRST_PAUSE_MS: u64 = 2_000;
/// Doubts for which a witness is looked for at a time.
const DOUBTS_AT_ONCE: usize = 8;
/// Miners that are looked at as witnesses.
const LOOKED_AT: usize = 64;
const PPM: u64 = 1_000_000;

/// Reaches the control actor.
pub type ControlRef = Handle<ControlMsg>;

/// What the control actor is told.
pub enum ControlMsg {
    /// From the matchmaker: a miner has just connected.
    Joined(NodeId),
    /// From the matchmaker: this run is over. It is durable.
    Ended(Box<Over>),
    /// From itself: a question is ready to be put.
    Drawn(Box<Drawn>),
    /// From itself: nothing could be drawn for a miner.
    Undrawn(NodeId),
    /// From itself: a question could not be put.
    Unasked(TaskId),
    /// From itself: what an answer is.
    Judged {
        /// To which question.
        id: TaskId,
        /// What it is, where that can be said at all; or why it cannot now.
        found: Result<Option<Agreement>, ErrorBody>,
    },
    /// From its own timer.
    Tick,
}

/// A run that is over.
#[derive(Debug, Clone)]
pub struct Over {
    /// The task.
    pub task: TaskId,
    /// What was asked.
    pub spec: TaskSpec,
    /// Who asked.
    pub client: AccountId,
    /// What its miners earned.
    pub earned: Amount,
    /// Its last group, or the one miner that it was for.
    pub nodes: Vec<NodeId>,
    /// Whether it was for one miner alone.
    pub is_control: bool,
}

/// A question for a miner.
pub struct Drawn {
    question: Question,
    node: NodeId,
    owner: AccountId,
    /// The case that it is put for once more.
    case: Option<TaskId>,
}

/// How much is asked, and for how much.
#[derive(Debug, Clone)]
pub struct ControlRule {
    /// What a question is bounded by.
    pub bounds: Bounds,
    /// What may be spent.
    pub allowance: Allowance,
    /// Owners whose miners may be asked for a second answer whatever they have shown: of a young network, in which nobody
    /// has shown enough.
    pub trusted: Vec<AccountId>,
}

/// What questions are posted and answers read with.
#[derive(Clone)]
pub struct Desk {
    /// Posts the questions.
    pub purse: Purse,
    /// Reads answers and datasets.
    pub transfer: Transfer,
    /// Keeps datasets.
    pub cache: Cache,
    /// Where answers lie while they are read.
    pub folder: PathBuf,
}

/// What the control actor needs.
#[derive(Clone)]
pub struct ControlArguments {
    /// Where runs and its own records lie.
    pub store: StateStore,
    /// Through which everything is written.
    pub ledger: LedgerRef,
    /// What time it is for blocks.
    pub clock: NetworkClock,
    /// Knows the datasets.
    pub catalog: CatalogRef,
    /// Knows how miners are rated.
    pub rating: RatingRef,
    /// Takes tasks.
    pub matchmaker: MatchmakerRef,
    /// Knows who is connected.
    pub links: Links,
    /// Lets it read answers.
    pub tickets: Tickets,
    /// What the network started from.
    pub genesis: Genesis,
    /// What it does it with; nothing: nothing is asked.
    pub desk: Option<Desk>,
    /// How much is asked.
    pub rule: ControlRule,
    /// Whose answers are doubted, for the ratings.
    pub doubts: Doubts,
}

/// The actor. Its state is an [`Examiner`].
pub struct ControlActor;

/// What the control actor holds in memory.
pub struct Examiner {
    world: Arc<ControlArguments>,
    desk: Arc<Desk>,
    records: BTreeMap<TaskId, ControlRecord>,
    /// For whom a question is being drawn, and for which case once more.
    drawing: BTreeMap<NodeId, Option<TaskId>>,
    /// Whose answers are being looked at, and how often that failed.
    judging: BTreeSet<TaskId>,
    tries: BTreeMap<TaskId, (u32, Timestamp)>,
    /// What clients asked lately.
    seen: Seen,
    budget: Budget,
    dice: Dice,
    me: ActorRef<ControlMsg>,
}

impl Actor for ControlActor {
    type Msg = ControlMsg;
    type State = Option<Examiner>;
    type Arguments = ControlArguments;

    async fn pre_start(
        &self,
        me: ActorRef<ControlMsg>,
        world: ControlArguments,
    ) -> Result<Option<Examiner>, ActorProcessingErr> {
        let Some(desk) = world.desk.clone() else {
            return Ok(None);
        };
        world.ledger.settled(&world.store).await?;
        let records = world.store.load::<ControlRecord>()?;
        // Ends with the actor.
        drop(me.send_interval(TICK, || ControlMsg::Tick));
        let examiner = Examiner {
            world: Arc::new(world),
            desk: Arc::new(desk),
            records: records.into_iter().map(|r| (r.id, r)).collect(),
            drawing: BTreeMap::new(),
            judging: BTreeSet::new(),
            tries: BTreeMap::new(),
            seen: Seen::default(),
            budget: Budget::default(),
            dice: matchmaker::dice()?,
            me,
        };
        examiner.doubt();
        Ok(Some(examiner))
    }

    async fn handle(
        &self,
        _: ActorRef<ControlMsg>,
        message: ControlMsg,
        examiner: &mut Option<Examiner>,
    ) -> Result<(), ActorProcessingErr> {
        let Some(examiner) = examiner else {
            return Ok(());
        };
        match message {
            ControlMsg::Joined(node) => examiner.came_free(node, None).await,
            ControlMsg::Ended(over) => examiner.ended(*over).await?,
            ControlMsg::Drawn(drawn) => examiner.drawn(*drawn).await?,
            ControlMsg::Undrawn(node) => {
                examiner.drawing.remove(&node);
                release(&examiner.world, node);
            }
            ControlMsg::Unasked(id) => examiner.unasked(id).await?,
            ControlMsg::Judged { id, found } => examiner.judged(id, found).await?,
            ControlMsg::Tick => examiner.tick().await?,
        }
        Ok(())
    }
}

/// What could not be stored may have been, or not: a successor reads what is there.
type Done = Result<(), ErrorBody>;

impl Examiner {
    /// A miner can take work: draws whether that is a question. `pay` is what its last work was paid; nothing where it has
    /// just connected. The matchmaker holds it until it hears that this is decided.
    async fn came_free(&mut self, node: NodeId, pay: Option<Amount>) {
        if !self.is_asked(node, pay).await {
            release(&self.world, node);
        }
    }

    async fn is_asked(&mut self, node: NodeId, pay: Option<Amount>) -> bool {
        let Some(link) = self.miner(&node).filter(|_| !self.is_engaged(&node)) else {
            return false;
        };
        let (rating, standing) = match self.standing(&link, pay).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%node, %error, "not looked at");
                return false;
            }
        };
        // Connecting alone is no reason to be paid, but for whoever has shown nothing yet.
        if rating.bar.is_some() || pay.is_none() && standing.streak > 0 {
            return false;
        }
        let chance = u64::from(check::next_ppm(&standing));
        let drawn = self.asked() < MAX_OPEN && self.dice.below(PPM) < chance;
        if drawn {
            let seen = self.seen.like(standing.pay, &mut self.dice);
            self.draw(&link, None, Wanted::New(seen));
        }
        drawn
    }

    fn miner(&self, node: &NodeId) -> Option<Link> {
        let link = self.world.links.get(node);
        link.filter(|link| link.record.role == Role::Miner)
    }

    /// How many questions wait for an answer.
    fn asked(&self) -> usize {
        let asked = self.records.values().filter(|r| r.asked.is_some());
        asked.count() + self.drawing.len()
    }

    fn is_engaged(&self, node: &NodeId) -> bool {
        let open = self
            .records
            .values()
            .filter(|r| !self.judging.contains(&r.id));
        let mut asked = open.filter_map(|r| r.asked.as_ref());
        self.drawing.contains_key(node) || asked.any(|asked| asked.node == *node)
    }

    async fn standing(
        &self,
        link: &Link,
        pay: Option<Amount>,
    ) -> Result<(RatingView, Standing), ErrorBody> {
        let (node, owner) = (link.record.node, link.record.owner);
        let rating = self.ratings(vec![node]).await?.pop();
        let rating = rating.ok_or_else(|| ErrorBody::internal("a rating is missing"))?;
        let balances = |reply| LedgerMsg::BalancesOf(owner, reply);
        let balances = self.world.ledger.call(balances, LEDGER_LIMIT).await?;
        let standing = Standing {
            streak: rating.streak,
            withheld: balances.withheld,
            pay: pay.unwrap_or_default(),
            is_first: pay.is_none(),
            twin: self.world.links.have_twin(link),
        };
        Ok((rating, standing))
    }

    async fn ratings(&self, nodes: Vec<NodeId>) -> Result<Vec<RatingView>, ErrorBody> {
        let ratings = |reply| RatingMsg::RatingsOf(nodes, reply);
        self.world.rating.call(ratings, RATING_LIMIT).await
    }

    /// Has a question drawn for a miner: a new one, or that of a case once more.
    fn draw(&mut self, link: &Link, case: Option<TaskId>, wanted: Wanted) {
        let (node, owner) = (link.record.node, link.record.owner);
        self.drawing.insert(node, case);
        let (world, desk, me) = (self.world.clone(), self.desk.clone(), self.me.clone());
        let mut dice = Dice::new(self.dice.bits());
        tokio::spawn(async move {
            let message = match question::draw(&world, &desk.purse, wanted, &mut dice).await {
                Ok(question) => ControlMsg::Drawn(Box::new(Drawn {
                    question,
                    node,
                    owner,
                    case,
                })),
                Err(error) => {
                    tracing::info!(%node, %error, "no control task");
                    ControlMsg::Undrawn(node)
                }
            };
            // An actor that is being restarted draws anew.
            drop(me.cast(message));
        });
    }

    /// Puts a question that the budget allows. It is stored before the miner can answer.
    async fn drawn(&mut self, drawn: Drawn) -> Done {
        let Drawn {
            question,
            node,
            owner,
            case,
        } = drawn;
        self.drawing.remove(&node);
        let (now, cost) = (clock::now(), question.cost);
        // A doubt is followed up whatever it costs: somebody waits for what comes of it.
        if case.is_none() && !self.budget.allows(cost, self.world.rule.allowance, now) {
            tracing::info!(%node, %cost, "no control task: the day's budget is spent");
            release(&self.world, node);
            return Ok(());
        }
        let asked = Some(Asked {
            task: question.task,
            node,
            owner,
            at: now,
        });
        let record = match case {
            Some(id) => self.records.get(&id).filter(|r| r.asked.is_none()).cloned(),
            None => Some(question.record(now)?),
        };
        let Some(record) = record.map(|record| ControlRecord { asked, ..record }) else {
            release(&self.world, node);
            return Ok(());
        };
        let id = record.id;
        let stored = self.keep(record).await?;
        self.budget.spend(cost, now);
        let (world, desk, me) = (self.world.clone(), self.desk.clone(), self.me.clone());
        tokio::spawn(async move {
            let posted = match stored.wait().await {
                Ok(()) => question.post(&world, &desk.purse, node).await,
                Err(error) => Err(error),
            };
            if let Err(error) = posted {
                tracing::warn!(%node, %error, "a control task could not be posted");
                // An actor that is being restarted finds that the task does not exist.
                drop(me.cast(ControlMsg::Unasked(id)));
            }
            release(&world, node);
        });
        Ok(())
    }

    /// Stores a record as it is now, or that it is gone.
    async fn keep(&mut self, record: ControlRecord) -> Result<Durable, ErrorBody> {
        let mut batch = Batch::new();
        let is_over = record.is_over();
        match is_over {
            true => batch.delete::<ControlRecord>(&record.key()),
            false => batch.put(&record),
        }
        let stored = self.world.ledger.record(None, batch).await?;
        self.remember(record);
        Ok(stored)
    }

    fn remember(&mut self, record: ControlRecord) {
        self.tries.remove(&record.id);
        match record.is_over() {
            true => drop(self.records.remove(&record.id)),
            false => drop(self.records.insert(record.id, record)),
        }
    }

    /// Nobody is asked: a doubt waits for another witness, anything else is over.
    async fn unasked(&mut self, id: TaskId) -> Done {
        let Some(record) = self.records.get(&id).cloned() else {
            return Ok(());
        };
        self.budget.give_back(record.cost, clock::now());
        let open = ControlRecord {
            asked: None,
            ..record
        };
        self.keep(open).await.map(drop)
    }

    async fn ended(&mut self, over: Over) -> Done {
        let of = |r: &&ControlRecord| r.asked.as_ref().is_some_and(|a| a.task == over.task);
        if let Some(id) = self.records.values().find(of).map(|record| record.id) {
            self.look_at(id).await?;
        } else if !over.is_control && !over.earned.is_zero() {
            self.budget.worked(over.earned, clock::now());
            self.seen.add(over.client, over.spec, over.earned);
        }
        let each = over.earned.mul_div(1, over.nodes.len().max(1) as u128);
        for node in over.nodes {
            self.came_free(node, Some(each.unwrap_or_default())).await;
        }
        Ok(())
    }

    async fn tick(&mut self) -> Done {
        let now = clock::now();
        let (asked, doubts): (Vec<_>, Vec<_>) =
            self.records.values().partition(|r| r.asked.is_some());
        let asked: Vec<TaskId> = asked.into_iter().map(|r| r.id).collect();
        let is_old = |r: &&ControlRecord| now.ms_since(r.opened) > CASE_LIMIT_MS;
        let (old, doubts): (Vec<_>, Vec<_>) = doubts.into_iter().partition(is_old);
        let old: Vec<TaskId> = old.into_iter().map(|r| r.id).collect();
        // A few at a time, by lot: each looks at many miners.
        let some = self.dice.some(DOUBTS_AT_ONCE, doubts.len());
        let some: Vec<TaskId> = some.into_iter().map(|at| doubts[at].id).collect();
        for id in asked {
            self.look_at(id).await?;
        }
        for id in old {
            self.give_up(id).await?;
        }
        for id in some {
            self.ask_another(id).await;
        }
        Ok(())
    }

    /// Where a question's task has ended, its answer is looked at.
    async fn look_at(&mut self, id: TaskId) -> Done {
        let Some(record) = self
            .records
            .get(&id)
            .filter(|_| !self.judging.contains(&id))
        else {
            return Ok(());
        };
        let paused = self.tries.get(&id).map(|(_, until)| *until);
        let Some(asked) = record
            .asked
            .filter(|_| paused.is_none_or(|until| until <= clock::now()))
        else {
            return Ok(());
        };
        let run = self.world.store.get::<Run>(asked.task.as_bytes());
        match run.map_err(ErrorBody::internal)? {
            Some(run) if !run.state.is_final() => Ok(()),
            Some(run) if run.state == TaskState::Finished => {
                self.judge(id, record.spec.clone(), &run);
                Ok(())
            }
            Some(_) => self.unasked(id).await,
            // It is on its way.
            None if clock::now().ms_since(asked.at) < POST_LIMIT_MS => Ok(()),
            None => self.unasked(id).await,
        }
    }

    fn judge(&mut self, id: TaskId, spec: TaskSpec, run: &Run) {
        self.judging.insert(id);
        let name = match spec.work {
            Work::Train { .. } => MODEL_FILE,
            Work::Infer { .. } | Work::Serve { .. } => PREDICTIONS_FILE,
        };
        let file = result_of(run, name);
        let (world, desk, me) = (self.world.clone(), self.desk.clone(), self.me.clone());
        tokio::spawn(async move {
            let found = match file {
                Some(file) => answer::look_at(&world, &desk, &spec, &file).await,
                None => Ok(Some(answer::nothing(name))),
            };
            // An actor that is being restarted looks at it again.
            drop(me.cast(ControlMsg::Judged { id, found }));
        });
    }

    async fn judged(&mut self, id: TaskId, found: Result<Option<Agreement>, ErrorBody>) -> Done {
        self.judging.remove(&id);
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                tracing::warn!(
                    "a control task is dropped: how a machine rounds decides what it comes to"
                );
                return self.withdrawn(id).await;
            }
            Err(error) => return self.not_judged(id, &error).await,
        };
        let Some(mut record) = self.records.get(&id).cloned() else {
            return Ok(());
        };
        let Some(asked) = record.asked.take() else {
            return Ok(());
        };
        let (answer, reason) = match found {
            Agreement::Same | Agreement::Near(_) => (Answer::Expected, String::new()),
            Agreement::Other { digest, reason } => (Answer::Other(*digest.as_bytes()), reason),
        };
        if answer != Answer::Expected {
            tracing::warn!(node = %asked.node, task = %asked.task, %reason, "an answer is doubted");
        }
        let witness = Witness {
            node: asked.node,
            owner: asked.owner,
            answer,
        };
        record.heard.push(Heard { asked, reason });
        let findings = record.case.hear(witness);
        self.conclude(record, &findings).await
    }

    /// It is looked at again, less and less often, for some minutes.
    async fn not_judged(&mut self, id: TaskId, error: &ErrorBody) -> Done {
        let (tries, _) = self.tries.get(&id).copied().unwrap_or_default();
        let pause_ms = FIRST_PAUSE_MS << tries.min(MAX_TRIES);
        let next = clock::now().plus_ms(pause_ms);
        self.tries.insert(id, (tries + 1, next));
        tracing::warn!(%error, tries, "an answer could not be judged");
        match tries {
            MAX_TRIES.. => self.withdrawn(id).await,
            _ => Ok(()),
        }
    }

    /// Stores what was found, with what follows from it, and tells the others once it is durable.
    async fn conclude(&mut self, record: ControlRecord, findings: &[Finding]) -> Done {
        let (mut batch, mut decisions, mut heard) = (Batch::new(), Vec::new(), Vec::new());
        for finding in findings {
            let (evidence, decision) = evidence(&record, finding)?;
            batch.put(&evidence);
            heard.push(evidence);
            decisions.extend(decision);
        }
        match record.is_over() {
            true => batch.delete::<ControlRecord>(&record.key()),
            false => batch.put(&record),
        }
        let stored = store(&self.world.ledger, decisions, batch).await?;
        let owners = record.heard.iter().map(|heard| heard.asked.owner);
        let owners: BTreeSet<AccountId> = owners.collect();
        self.remember(record);
        self.doubt();
        let world = self.world.clone();
        tokio::spawn(async move {
            if stored.wait().await.is_ok() {
                tell(&world, heard, &owners);
            }
        });
        Ok(())
    }

    /// Says whose answers are doubted: they get no work until it is known.
    fn doubt(&self) {
        let cases = self.records.values().map(|record| &record.case);
        let doubted = cases.flat_map(|case| case.doubted());
        self.world.doubts.set(doubted.collect());
    }

    /// Asks the next witness, by lot, of an owner that was not heard.
    async fn ask_another(&mut self, id: TaskId) {
        let Some(record) = self.records.get(&id) else {
            return;
        };
        let Next::Ask { apart_from } = record.case.next() else {
            return;
        };
        if self.drawing.values().any(|case| *case == Some(id)) {
            return;
        }
        let wanted = Wanted::Again(record.spec.clone());
        let links = self.world.links.of_role(Role::Miner).into_iter();
        let links: Vec<Link> = links
            .filter(|link| !apart_from.contains(&link.record.owner))
            .filter(|link| !self.is_engaged(&link.record.node))
            .collect();
        let some = self.dice.some(LOOKED_AT, links.len());
        let links: Vec<&Link> = some.into_iter().map(|at| &links[at]).collect();
        let nodes = links.iter().map(|link| link.record.node).collect();
        let Ok(ratings) = self.ratings(nodes).await else {
            return;
        };
        let trusted = &self.world.rule.trusted;
        let known = links.into_iter().zip(ratings);
        let fit = known.filter(|(link, rating)| {
            let is_trusted = trusted.contains(&link.record.owner) && rating.bar.is_none();
            is_trusted || check::may_witness(rating.streak, rating.bar)
        });
        // By lot: whoever could tell who will be asked could be it.
        if let Some((link, _)) = fit.into_iter().next() {
            self.draw(link, Some(id), wanted);
        }
    }

    async fn give_up(&mut self, id: TaskId) -> Done {
        tracing::warn!("a doubt is given up: nobody else could be asked in a day");
        self.withdrawn(id).await
    }

    /// A question is not asked any more, and nobody blamed.
    async fn withdrawn(&mut self, id: TaskId) -> Done {
        let Some(record) = self.records.get(&id).cloned() else {
            return Ok(());
        };
        let owners = record.heard.iter().map(|heard| heard.asked.owner);
        let owners: BTreeSet<AccountId> = owners.collect();
        let nobody_heard = ControlRecord {
            asked: None,
            heard: Vec::new(),
            ..record
        };
        self.keep(nobody_heard).await?;
        self.doubt();
        tell(&self.world, Vec::new(), &owners);
        Ok(())
    }
}

/// A file of a run that finished, where there is one of that name.
fn result_of(run: &Run, name: &str) -> Option<ResultFile> {
    let (files, _) = run.result.as_ref()?;
    files.iter().find(|file| file.name == name).cloned()
}

/// A finding as evidence, and what the ledger does for it. What is right names no task: nobody need know which it was.
fn evidence(
    record: &ControlRecord,
    finding: &Finding,
) -> Result<(EvidenceRecord, Option<Decision>), ErrorBody> {
    let (Finding::Right(node) | Finding::Wrong(node)) = *finding;
    // Who was heard last is right; whoever was heard before that is wrong.
    let heard = match finding {
        Finding::Right(_) => record.heard.last(),
        Finding::Wrong(_) => record.heard.iter().find(|heard| heard.asked.node == node),
    };
    let heard = heard.ok_or_else(|| ErrorBody::internal("a finding about nobody"))?;
    let Asked { task, owner, .. } = heard.asked;
    let (task, evidence, forfeit) = match finding {
        Finding::Right(_) => (question::some_id()?, Evidence::Right {}, None),
        Finding::Wrong(_) => {
            let reason = format!(
                "computed again, here and by another owner's miner, it comes to something else: {}",
                heard.reason
            );
            let forfeit = Decision::Forfeit {
                account: owner,
                node,
                task,
            };
            (task, Evidence::Wrong { reason }, Some(forfeit))
        }
    };
    let evidence = EvidenceRecord {
        task,
        number: FIRST_FINDING,
        node,
        owner,
        at: clock::now(),
        evidence,
    };
    Ok((evidence, forfeit))
}

/// Only what moves tokens is an entry of the chain.
async fn store(
    ledger: &LedgerRef,
    decisions: Vec<Decision>,
    batch: Batch,
) -> Result<Durable, ErrorBody> {
    if decisions.is_empty() {
        return ledger.record(None, batch).await;
    }
    let posting = Posting {
        decisions,
        batch,
        ..Posting::default()
    };
    match ledger.post(posting).await {
        Ok(posted) => Ok(posted.durable),
        Err(Unposted::Refused(error) | Unposted::Unknown(error)) => Err(error),
        Err(Unposted::Answered(_)) => Err(ErrorBody::internal("it was no transaction")),
    }
}

/// The rating hears of it, then the matchmaker asks how all nodes of these owners are rated.
fn tell(world: &ControlArguments, heard: Vec<EvidenceRecord>, owners: &BTreeSet<AccountId>) {
    // Actors that are being restarted read it from the store.
    for evidence in heard {
        drop(world.rating.cast(RatingMsg::Heard(evidence)));
    }
    let links = world.links.of_role(Role::Miner).into_iter();
    for link in links.filter(|link| owners.contains(&link.record.owner)) {
        let rated = MatchmakerMsg::Rated(link.record.node);
        drop(world.matchmaker.cast(rated));
    }
}

/// It is decided what a miner is asked first.
fn release(world: &ControlArguments, node: NodeId) {
    // One that is being restarted holds nobody.
    drop(world.matchmaker.cast(MatchmakerMsg::Released(node)));
}
