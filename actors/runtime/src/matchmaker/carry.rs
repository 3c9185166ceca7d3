//! Carrying out what a run decided: one posting, then news to the world.

use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::journal::{EventRecord, EvidenceRecord};
use cryptomind_core::ledger::{Changes, Op, Share};
use cryptomind_core::rating::Evidence;
use cryptomind_core::run::{Effect, Input, Run};
use cryptomind_protocol::item::{ItemKind, Manifest, ModelInfo};
use cryptomind_protocol::node::Command;
use cryptomind_protocol::task::{Metrics, Payment, ResultFile, Work};
use cryptomind_protocol::transaction::Outcome;
use cryptomind_protocol::{ErrorBody, ItemId, NodeId, TaskId, Timestamp};
use cryptomind_storage::state::Batch;
use ractor::RpcReplyPort;

use super::Desk;
use super::outbox::{Delivery, Parcel};
use crate::catalog::{CATALOG_LIMIT, CatalogMsg};
use crate::clock;
use crate::ledger::{Posting, Stamp, Unposted};

/// Whoever waits for a posting, and what else is to be posted for them.
#[derive(Default)]
pub(super) struct Caller {
    /// Money that moves before the run's own effects.
    pub(super) ops: Vec<Op>,
    /// A transaction, its outcome, and who waits for it.
    pub(super) answer: Option<(Stamp, Outcome, Reply)>,
    /// A node that waits for its report to be durable.
    pub(super) ack: Option<Ack>,
}

/// Where a transaction's outcome goes.
pub(super) type Reply = RpcReplyPort<Result<Outcome, ErrorBody>>;
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
        // Whoever no longer waits does not need it.
        if let Some(ack) = self.ack {
            drop(ack.send(match &unposted {
                Unposted::Answered(_) => Ok(()),
                Unposted::Refused(refusal) => Err(refusal.clone()),
            }));
        }
        if let Some((_, _, reply)) = self.answer {
            drop(reply.send(match unposted {
                Unposted::Answered(outcome) => Ok(outcome),
                Unposted::Refused(refusal) => Err(refusal),
            }));
        }
    }
}

/// What one piece of news leads to.
#[derive(Default)]
struct Plan {
    ops: Vec<Op>,
    batch: Batch,
    deliveries: Vec<Delivery>,
    settles: bool,
    asks_free: bool,
}

impl Desk {
    /// Gives a run news. News of a task that is not open is acknowledged and changes nothing.
    pub(super) async fn feed(&mut self, task: TaskId, input: Input, ack: Option<Ack>) {
        let before = self.runs.get(&task);
        let mut run = before.cloned();
        if let Some(run) = &mut run {
            run.forget_offers(|node| self.is_busy(node));
        }
        let effects = run
            .iter_mut()
            .flat_map(|run| run.apply(input.clone(), clock::now()));
        let effects: Vec<_> = effects.collect();
        match run.filter(|run| !effects.is_empty() || Some(run) != before) {
            Some(run) => self.carry_out(run, effects, Caller::ack(ack)).await,
            // Whoever no longer waits does not need it.
            None => drop(ack.map(|ack| ack.send(Ok(())))),
        }
    }

    /// Posts a run and its effects in one write transaction. What cannot be posted has not happened.
    pub(super) async fn carry_out(&mut self, run: Run, effects: Vec<Effect>, mut caller: Caller) {
        let (now, task) = (clock::now(), run.task);
        let planned = self
            .plan(&run, effects, std::mem::take(&mut caller.ops), now)
            .await;
        let mut plan = match planned {
            Ok(plan) => plan,
            Err(refusal) => return caller.refuse(Unposted::Refused(refusal)),
        };
        let posting = Posting {
            answers: caller
                .answer
                .as_ref()
                .map(|(stamp, outcome, _)| (stamp.clone(), outcome.clone())),
            ops: std::mem::take(&mut plan.ops),
            batch: std::mem::take(&mut plan.batch),
            then: Some(Box::new({
                let (run, settles) = (run.clone(), plan.settles);
                move |changes, batch| batch.extend(records(run, settles, changes, now).1)
            })),
        };
        match self.world.ledger.post(posting).await {
            Ok(posted) => {
                let (run, _) = records(run, plan.settles, &posted.changes, now);
                self.ask_free |= plan.asks_free;
                plan.deliveries.push(Delivery::Wake(run.task));
                let parcel = Parcel {
                    commit: posted.commit,
                    ack: caller.ack,
                    answer: caller.answer.map(|(_, outcome, reply)| (outcome, reply)),
                    deliveries: plan.deliveries,
                };
                self.keep(run);
                self.outbox.send(parcel);
            }
            Err(unposted) => {
                if let Unposted::Refused(refusal) = &unposted {
                    tracing::warn!(%task, %refusal, "not posted");
                }
                caller.refuse(unposted);
            }
        }
    }

    fn keep(&mut self, run: Run) {
        if run.state.is_final() {
            self.runs.remove(&run.task);
        } else {
            self.runs.insert(run.task, run);
        }
    }

    async fn plan(
        &self,
        run: &Run,
        effects: Vec<Effect>,
        ops: Vec<Op>,
        now: Timestamp,
    ) -> Result<Plan, ErrorBody> {
        let mut plan = Plan {
            ops,
            ..Plan::default()
        };
        let task = run.task;
        for (index, effect) in effects.into_iter().enumerate() {
            // Unique within the task: events are counted, and each effect has its place.
            let number = run.events * 64 + index as u64;
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
                Effect::Match { only } => self.match_members(run, only, now, &mut plan)?,
                Effect::Pause { nodes, attempt } => {
                    plan.tell(nodes, Command::Pause { task, attempt });
                }
                Effect::Stop { node, reason } => {
                    plan.tell(vec![node], Command::Stop { task, reason });
                }
                Effect::Tell { number, event } => {
                    plan.batch.put(&EventRecord {
                        task,
                        number,
                        at: now,
                        event,
                    });
                }
                Effect::Earn { checkpoint, shares } => {
                    let share = |(member, amount): (cryptomind_protocol::task::Member, _)| Share {
                        account: member.owner,
                        node: member.node,
                        amount,
                    };
                    let shares = shares.into_iter().map(share).collect();
                    plan.ops.push(Op::Earn {
                        task,
                        checkpoint,
                        shares,
                    });
                }
                Effect::Settle(fees) => {
                    plan.ops.push(Op::Settle { task, fees });
                    plan.settles = true;
                    self.count_uses(run, &mut plan)?;
                }
                Effect::Praise(node) => plan.hear(task, number, node, Evidence::Done, now),
                Effect::Blame { node, reason } => {
                    plan.hear(task, number, node, Evidence::Failed { reason }, now);
                }
                Effect::Publish { files, metrics } => {
                    let record = self.trained(run, files, metrics, now).await?;
                    plan.store(record);
                }
            }
        }
        Ok(plan)
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
        if !run.delivered {
            return Ok(());
        }
        for used in &run.terms.items {
            let mut record = self.item(&used.item)?;
            record.uses = record.uses.saturating_add(1);
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
        now: Timestamp,
        plan: &mut Plan,
    ) -> Result<(), ErrorBody> {
        let wanted = |node: &NodeId| only.is_none_or(|only| only == *node);
        for (rank, seat) in run.seats.iter().enumerate() {
            if wanted(&seat.member.node) {
                let place = self.place(run, rank, now)?;
                plan.tell(vec![seat.member.node], Command::Match(Box::new(place)));
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

    fn hear(&mut self, task: TaskId, number: u64, node: NodeId, evidence: Evidence, at: Timestamp) {
        let record = EvidenceRecord {
            task,
            number,
            node,
            at,
            evidence,
        };
        self.batch.put(&record);
        self.deliveries.push(Delivery::Heard(record));
    }

    fn store(&mut self, record: ItemRecord) {
        self.batch.put(&record);
        self.deliveries.push(Delivery::Stored(record));
    }
}

/// The run as money left it, and its records.
fn records(mut run: Run, settles: bool, changes: &Changes, now: Timestamp) -> (Run, Batch) {
    let mut batch = Batch::new();
    if settles {
        let hold = changes.holds.iter().find(|hold| hold.task == run.task);
        let payments: Vec<Payment> = hold.map(|h| h.payments().to_vec()).unwrap_or_default();
        if let Effect::Tell { number, event } = run.settled(payments) {
            batch.put(&EventRecord {
                task: run.task,
                number,
                at: now,
                event,
            });
        }
    }
    batch.put(&run);
    (run, batch)
}
