//! Carrying out what a run decided: one posting, then news to the world.

use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::journal::{CommitmentsRecord, EventRecord, NodeRecord, OpenRun};
use cryptomind_core::market::waits::WaitRecord;
use cryptomind_core::rating;
use cryptomind_core::run::{Effect, Input, Run, payments};
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::block::{Decision, Receipt};
use cryptomind_protocol::item::{ItemKind, Manifest, ModelInfo};
use cryptomind_protocol::node::Command;
use cryptomind_protocol::rating::{Evidence, EvidenceRecord};
use cryptomind_protocol::speed::RunStatistic;
use cryptomind_protocol::task::{Event, Metrics, ResultFile, Work};
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{ErrorBody, ItemId, NodeId, TaskId, Timestamp};
use cryptomind_storage::run::keep_commitments;
use cryptomind_storage::state::{Batch, Record as _};
use ractor::RpcReplyPort;

use super::Desk;
use super::outbox::{Delivery, Parcel};
use crate::catalog::{CATALOG_LIMIT, CatalogMsg};
use crate::clock;
use crate::control::Over;
use crate::ledger::{Durable, Posting, Then, Unposted};

/// Whoever waits for a posting, and what else is to be posted for them.
#[derive(Default)]
pub(super) struct Caller {
    /// What is decided before the run's own effects.
    pub(super) decisions: Vec<Decision>,
    /// A transaction that leads to it, and who waits for its answer.
    pub(super) transaction: Option<(Verified, Reply)>,
    /// A node that waits for its report to be durable.
    pub(super) ack: Option<Ack>,
}

/// Where a transaction's answer goes.
pub(super) type Reply = RpcReplyPort<Result<Accepted, ErrorBody>>;
/// Where a report's acknowledgement goes.
pub(super) type Ack = RpcReplyPort<Result<(), ErrorBody>>;

impl Caller {
    pub(super) fn ack(ack: Option<Ack>) -> Self {
        Self {
            ack,
            ..Self::default()
        }
    }

    /// Nothing changed: the caller hears the refusal, or the answer of the same transaction before.
    fn refuse(self, unposted: Unposted) {
        refuse(self.ack, self.transaction.map(|(_, reply)| reply), unposted);
    }
}

fn refuse(ack: Option<Ack>, reply: Option<Reply>, unposted: Unposted) {
    // Whoever no longer waits does not need it.
    if let Some(ack) = ack {
        drop(ack.send(match &unposted {
            Unposted::Answered(_) => Ok(()),
            Unposted::Refused(error) | Unposted::Unknown(error) => Err(error.clone()),
        }));
    }
    if let Some(reply) = reply {
        drop(reply.send(unposted.into()));
    }
}

fn starting_anew() -> ErrorBody {
    ErrorBody::internal("the matchmaker starts anew, after the ledger")
        .with_help("ask again: it comes back with its state")
        .with_retry_after_ms(200)
}

/// A posting that was carried out: the transaction's answer, where there was one, and the wait for the disk.
struct Sent {
    accepted: Option<Result<Accepted, ErrorBody>>,
    durable: Durable,
}

/// What one piece of news leads to.
#[derive(Default)]
struct Plan {
    decisions: Vec<Decision>,
    batch: Batch,
    deliveries: Vec<Delivery>,
    blamed: Vec<NodeId>,
    ran: Vec<RunStatistic>,
    waited: Option<WaitRecord>,
    /// Who has the task's items at hand now.
    ready: Vec<NodeId>,
    settles: bool,
    earns: bool,
    asks_free: bool,
}

impl Desk {
    /// Gives a run news. News of a task that is not open is acknowledged and changes nothing.
    pub(super) async fn feed(&mut self, task: TaskId, input: Input, ack: Option<Ack>) {
        self.around = self.world.around();
        if let Some(before) = self.runs.get(&task).cloned() {
            let mut run = before.clone();
            run.forget_offers(|node| self.runs.is_member(node));
            let effects = run.apply(input, &self.around, clock::now());
            if run.is_short() {
                // Whoever was silent until now is not waited for, and not asked again at once.
                before
                    .asked
                    .iter()
                    .for_each(|node| self.turned_down(task, *node));
            }
            if !effects.is_empty() || run != before {
                return self.carry_out(run, effects, Caller::ack(ack)).await;
            }
        }
        // Whoever no longer waits does not need it.
        drop(ack.map(|ack| ack.send(Ok(()))));
    }

    /// Posts a run and its effects in one write transaction. What cannot be posted has not happened.
    pub(super) async fn carry_out(&mut self, run: Run, effects: Vec<Effect>, mut caller: Caller) {
        if self.outbox.has_lost() {
            return caller.refuse(Unposted::Refused(starting_anew()));
        }
        let (now, task) = (clock::now(), run.task);
        let decisions = std::mem::take(&mut caller.decisions);
        let mut plan = match self.plan(&run, effects, decisions, now).await {
            Ok(plan) => plan,
            Err(refusal) => return caller.refuse(Unposted::Refused(refusal)),
        };
        let (is_open, client) = (!run.state.is_final(), run.client);
        self.mark(task, is_open, &mut plan.batch);
        let items: Vec<ItemId> = run.terms.items.iter().map(|used| used.item).collect();
        let over = (!is_open).then(|| over(&run));
        let only = run.only;
        let (run, then) = written(run, &mut plan, now);
        let (transaction, reply) = caller.transaction.unzip();
        let posting = Posting {
            transaction,
            decisions: plan.decisions,
            batch: plan.batch,
            then,
            life: Some(self.life),
        };
        let sent = match self.send(posting).await {
            Ok(sent) => sent,
            Err(unposted) => {
                match &unposted {
                    Unposted::Answered(_) => {}
                    Unposted::Refused(refusal) => tracing::warn!(%task, %refusal, "not posted"),
                    Unposted::Unknown(error) => {
                        tracing::warn!(%task, %error, "posted or not: nobody knows");
                        self.outbox.lose();
                    }
                }
                return refuse(caller.ack, reply, unposted);
            }
        };
        let before = self.runs.seated(&task);
        for node in over.iter().flat_map(|over| &over.nodes) {
            self.hold(*node);
        }
        match run.filter(|_| is_open) {
            Some(run) => self.runs.keep(run),
            None => {
                self.runs.forget(&task);
                self.free.forget(&task);
            }
        }
        self.regrouped(&before, &self.runs.seated(&task));
        if let Some(node) = only {
            self.sort_in(node);
        }
        for delivery in &plan.deliveries {
            if let Delivery::Stored(record) = delivery {
                self.uses.insert(record.item, record.uses);
            }
        }
        if plan.asks_free {
            // Its group is lost: everybody is asked again.
            self.free.forget(&task);
            self.ask_free = true;
        }
        plan.ran.iter().for_each(|run| self.past.ran(run));
        plan.waited
            .into_iter()
            .for_each(|wait| self.past.matched(wait));
        for node in plan.ready {
            self.past.has(node, items.iter().copied());
        }
        if plan.earns {
            self.postings.worked(&client);
        }
        self.pricing.blame(&plan.blamed, now);
        plan.deliveries.push(Delivery::Wake(task));
        plan.deliveries.extend(over.map(Delivery::Over));
        self.outbox.send(Parcel {
            durable: sent.durable,
            ack: caller.ack,
            answer: sent.accepted.zip(reply),
            deliveries: plan.deliveries,
        });
    }

    /// Notes which runs are open, where that changes.
    fn mark(&self, task: TaskId, is_open: bool, batch: &mut Batch) {
        let record = OpenRun { task };
        match (self.runs.get(&task).is_some(), is_open) {
            (false, true) => batch.put(&record),
            (true, false) => batch.delete::<OpenRun>(&record.key()),
            _ => {}
        }
    }

    /// Only what moves tokens, or is signed, is an entry of the chain.
    async fn send(&self, posting: Posting) -> Result<Sent, Unposted> {
        let ledger = &self.world.ledger;
        if posting.transaction.is_none() && posting.decisions.is_empty() {
            let durable = ledger.record(Some(self.life), posting.batch).await;
            let durable = durable.map_err(Unposted::Unknown)?;
            let accepted = None;
            return Ok(Sent { accepted, durable });
        }
        let is_signed = posting.transaction.is_some();
        let posted = ledger.post(posting).await?;
        Ok(Sent {
            accepted: is_signed.then(|| posted.accepted()),
            durable: posted.durable,
        })
    }

    async fn plan(
        &self,
        run: &Run,
        effects: Vec<Effect>,
        decisions: Vec<Decision>,
        now: Timestamp,
    ) -> Result<Plan, ErrorBody> {
        let mut plan = Plan {
            decisions,
            ..Plan::default()
        };
        let task = run.task;
        for (index, effect) in effects.into_iter().enumerate() {
            // Unique within the task: events are counted, and each effect has its place.
            let number = run.events * 256 + index as u64;
            match effect {
                Effect::Announce(nodes) => {
                    let spec = Box::new(run.spec.clone());
                    let command = Command::Announce { task, spec };
                    plan.tell(nodes, command);
                }
                Effect::AskFree => plan.asks_free = true,
                Effect::Withdraw { node, reason } => {
                    plan.tell(vec![node], Command::Withdraw { task, reason });
                }
                Effect::Match { only } => self.match_members(run, only, &mut plan)?,
                Effect::Pause {
                    nodes,
                    attempt,
                    at_step_end,
                } => {
                    let pause = Command::Pause {
                        task,
                        attempt,
                        at_step_end,
                    };
                    plan.tell(nodes, pause);
                }
                Effect::Stop { node, reason } => {
                    plan.tell(vec![node], Command::Stop { task, reason });
                }
                Effect::Tell { number, event } => {
                    if let Event::Fetched { node, .. } | Event::Serving { node, .. } = event {
                        plan.ready.push(node);
                    }
                    if matches!(event, Event::Settled { .. }) && !run.earned.is_zero() {
                        // The ledger settled it, and paid for the items.
                        self.count_uses(run, &mut plan)?;
                    }
                    plan.batch.put(&EventRecord {
                        task,
                        number,
                        at: now,
                        event,
                    });
                }
                Effect::Earn { checkpoint, shares } => {
                    plan.earns = true;
                    plan.decisions.push(Decision::Earn {
                        task,
                        checkpoint,
                        shares,
                    });
                }
                Effect::Settle(mut ending) => {
                    ending.withheld = self.withheld(&run.earners).await?;
                    if ending.items_used {
                        self.count_uses(run, &mut plan)?;
                    }
                    plan.decisions.push(Decision::Settle { task, ending });
                    plan.settles = true;
                }
                Effect::Ran(ran) => {
                    if let Some(evidence) = self.past.speed_truth(&ran, run.client) {
                        self.hear(&mut plan, (task, number), ran.node, evidence, now)?;
                    }
                    plan.batch.put(&ran);
                    plan.ran.push(ran);
                }
                Effect::Waited(wait) => {
                    plan.batch.put(&wait);
                    plan.waited = Some(wait);
                }
                Effect::Praise { node, agreed } => {
                    let evidence = Evidence::Done { agreed };
                    self.hear(&mut plan, (task, number), node, evidence, now)?;
                }
                Effect::LetGo(node) => {
                    self.hear(&mut plan, (task, number), node, Evidence::Left {}, now)?;
                }
                Effect::Blame { node, reason } => {
                    plan.blamed.push(node);
                    let evidence = rating::failed(&reason);
                    self.hear(&mut plan, (task, number), node, evidence, now)?;
                }
                Effect::Keep {
                    node,
                    number,
                    commitments,
                } => {
                    let record = CommitmentsRecord {
                        task,
                        node,
                        number,
                        commitments,
                    };
                    keep_commitments(&mut plan.batch, &record);
                }
                Effect::Publish { files, metrics } => {
                    let record = self.trained(run, files, metrics, now).await?;
                    plan.store(record);
                }
            }
        }
        Ok(plan)
    }

    /// Evidence about a node is that about its owner too.
    fn hear(
        &self,
        plan: &mut Plan,
        (task, number): (TaskId, u64),
        node: NodeId,
        evidence: Evidence,
        at: Timestamp,
    ) -> Result<(), ErrorBody> {
        let record = self.world.store.get::<NodeRecord>(node.as_bytes());
        // Whoever was a member had joined.
        let Some(record) = record.map_err(ErrorBody::internal)? else {
            return Ok(());
        };
        let heard = EvidenceRecord {
            task,
            number,
            node,
            owner: record.owner,
            at,
            evidence,
        };
        plan.batch.put(&heard);
        plan.deliveries.push(Delivery::Heard(heard));
        Ok(())
    }

    /// The trained model as an item of the client's.
    async fn trained(
        &self,
        run: &Run,
        files: Vec<ResultFile>,
        metrics: Metrics,
        now: Timestamp,
    ) -> Result<ItemRecord, ErrorBody> {
        let Work::Train { dataset, model, .. } = &run.spec.work else {
            return Err(ErrorBody::internal("only training makes a model"));
        };
        let data = self.item(dataset)?;
        let ItemKind::Dataset(info) = &data.manifest.kind else {
            return Err(ErrorBody::internal("the task's dataset is none"));
        };
        let info = ModelInfo {
            spec: model.clone(),
            classes: info.classes.clone(),
            dataset: Some(*dataset),
            task: Some(run.task),
            metrics,
        };
        let (owner, wanted) = (run.client, run.spec.name.clone());
        let name = |reply| CatalogMsg::NameFor(owner, wanted, reply);
        let manifest = Manifest {
            name: self.world.catalog.call(name, CATALOG_LIMIT).await?,
            kind: ItemKind::Model(info),
            files,
            access: run.spec.access,
            licence: "as its owner says".to_owned(),
            source: format!("trained by {} on {}", run.task, data.manifest.name),
        };
        let item = ItemId::of_task(&run.task);
        Ok(ItemRecord {
            item,
            owner,
            manifest,
            published: now,
            uses: 0,
        })
    }

    fn count_uses(&self, run: &Run, plan: &mut Plan) -> Result<(), ErrorBody> {
        for used in &run.terms.items {
            let mut record = self.item(&used.item)?;
            // The store may not have the last use yet.
            let known = self.uses.get(&used.item).copied().unwrap_or_default();
            record.uses = record.uses.max(known).saturating_add(1);
            plan.store(record);
        }
        Ok(())
    }

    /// An item as it is stored.
    pub(super) fn item(&self, item: &ItemId) -> Result<ItemRecord, ErrorBody> {
        let stored = self.world.store.get::<ItemRecord>(item.as_bytes());
        let record = stored.map_err(ErrorBody::internal)?;
        record.ok_or_else(|| ErrorBody::not_found("item", format!("there is no item {item}")))
    }

    fn match_members(
        &self,
        run: &Run,
        only: Option<NodeId>,
        plan: &mut Plan,
    ) -> Result<(), ErrorBody> {
        let wanted = |node: &NodeId| only.is_none_or(|only| only == *node);
        let seated = run.seats.iter().map(|seat| seat.member.node);
        let following = run.newcomers.iter().map(|n| n.offer.member.node);
        let ranks = seated.enumerate().map(|(rank, node)| (node, rank));
        for (node, rank) in ranks.chain(following.map(|node| (node, run.seats.len()))) {
            if wanted(&node) {
                let place = self.place(run, (node, rank))?;
                plan.tell(vec![node], Command::Match(Box::new(place)));
            }
        }
        Ok(())
    }
}

impl Plan {
    fn tell(&mut self, nodes: Vec<NodeId>, command: Command) {
        let each = nodes
            .into_iter()
            .map(|node| Delivery::Command(node, command.clone()));
        self.deliveries.extend(each);
    }

    fn store(&mut self, record: ItemRecord) {
        self.batch.put(&record);
        self.deliveries.push(Delivery::Stored(record));
    }
}

/// What the control actor hears of a run that has ended.
fn over(run: &Run) -> Over {
    let seated = run.seats.iter().map(|seat| seat.member.node);
    let unseated = run.only.filter(|_| run.seats.is_empty());
    Over {
        task: run.task,
        spec: run.spec.clone(),
        earned: run.earned,
        client: run.client,
        nodes: seated.chain(unseated).collect(),
        is_control: run.only.is_some(),
    }
}

/// Has a run written with its posting: as it is, or, where it is settled, as money leaves it. Then only the record is left.
fn written(run: Run, plan: &mut Plan, now: Timestamp) -> (Option<Run>, Option<Then>) {
    if !plan.settles {
        plan.batch.put(&run);
        return (Some(run), None);
    }
    let then = move |receipt: &Receipt, batch: &mut Batch| settled(run, receipt, now, batch);
    (None, Some(Box::new(then)))
}

fn settled(mut run: Run, receipt: &Receipt, at: Timestamp, batch: &mut Batch) {
    let (task, payments) = (run.task, payments(&receipt.transfers, &run.task));
    if let Effect::Tell { number, event } = run.settled(payments) {
        batch.put(&EventRecord {
            task,
            number,
            at,
            event,
        });
    }
    batch.put(&run);
}
