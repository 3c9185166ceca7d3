//! Posting and cancelling tasks, and quotes: all by the same terms.

use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::market::{self, Ability, Availability, Candidate, Wanted};
use cryptomind_core::price::{Extent, ItemUse, Terms};
use cryptomind_core::run::{Input, Run};
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::block::Decision;
use cryptomind_protocol::item::{Access, DatasetInfo, ItemKind, ModelInfo};
use cryptomind_protocol::task::{Quote, TaskSpec};
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ErrorClass, NodeId, TaskId};

use super::Desk;
use super::carry::{Caller, Reply};
use crate::clock;

/// The items that a task names.
#[derive(Debug, Clone)]
pub struct Materials {
    /// The dataset, where the task has one.
    pub dataset: Option<ItemRecord>,
    /// The model, for inference.
    pub model: Option<ItemRecord>,
}

impl Materials {
    fn dataset(&self) -> Result<Option<&DatasetInfo>, ErrorBody> {
        let info = self
            .dataset
            .as_ref()
            .map(|record| match &record.manifest.kind {
                ItemKind::Dataset(info) => Ok(info),
                ItemKind::Model(_) => Err(wrong_kind("dataset", record)),
            });
        info.transpose()
    }

    fn model(&self) -> Result<Option<&ModelInfo>, ErrorBody> {
        let info = self
            .model
            .as_ref()
            .map(|record| match &record.manifest.kind {
                ItemKind::Model(info) => Ok(info),
                ItemKind::Dataset(_) => Err(wrong_kind("model", record)),
            });
        info.transpose()
    }

    /// What `account` pays for each, or why it may not use one.
    fn uses(&self, account: AccountId) -> Result<Vec<ItemUse>, ErrorBody> {
        [self.dataset.as_ref(), self.model.as_ref()]
            .into_iter()
            .flatten()
            .map(|record| {
                let fee = match record.manifest.access {
                    _ if record.owner == account => Amount::ZERO,
                    Access::Free => Amount::ZERO,
                    Access::Paid { fee } => fee,
                    Access::Owner => return Err(not_yours(record)),
                };
                let files = record.manifest.files.iter();
                Ok(ItemUse {
                    item: record.item,
                    bytes: files.fold(0, |sum, file| sum.saturating_add(file.bytes)),
                    payee: record.owner,
                    fee,
                })
            })
            .collect()
    }
}

fn wrong_kind(wanted: &str, record: &ItemRecord) -> ErrorBody {
    let (name, kind) = (&record.manifest.name, record.manifest.kind.name());
    ErrorBody::user(
        "wrong_item_kind",
        format!("`{name}` is a {kind}, a {wanted} is needed"),
    )
    .with_help(format!("see `cryptomind {wanted} ls`"))
}

fn not_yours(record: &ItemRecord) -> ErrorBody {
    let name = &record.manifest.name;
    ErrorBody::auth(
        "item_closed",
        format!("`{name}` may be used by its owner alone"),
    )
}

impl Desk {
    fn terms(
        &self,
        account: AccountId,
        spec: &TaskSpec,
        materials: &Materials,
    ) -> Result<Terms, ErrorBody> {
        spec.check().map_err(|e| ErrorBody::user("bad_task", e))?;
        let extent = Extent::of(spec, materials.dataset()?, materials.model()?)?;
        let prices = self.prices(spec, &extent);
        Ok(Terms::new(extent, materials.uses(account)?, prices)?)
    }

    pub(super) async fn quote(
        &self,
        account: AccountId,
        spec: &TaskSpec,
        materials: &Materials,
    ) -> Result<Quote, ErrorBody> {
        let terms = self.terms(account, spec, materials)?;
        let miners = self.quotable(spec, &terms).await?;
        let around = self.world.around();
        let wait = self.usual_wait(spec, &terms);
        Ok(market::quote(spec, &terms, &miners, &around, wait))
    }

    /// A connected miner, looked at for a task that is not posted yet.
    pub(super) fn candidate(
        &self,
        node: &NodeId,
        ability: Ability,
        unit_price: Amount,
    ) -> Candidate {
        let availability = if self.runs.is_member(node) {
            Availability::Busy
        } else {
            Availability::Free
        };
        Candidate {
            node: *node,
            availability,
            strikes: 0,
            ability,
            unit_price,
        }
    }

    pub(super) async fn post(
        &mut self,
        transaction: Verified,
        (spec, materials): (TaskSpec, Materials),
        only: Option<NodeId>,
        reply: Reply,
    ) {
        let account = transaction.account();
        let (online, _) = self.free.counts();
        let terms = match self.acceptable(account, &spec, &materials, online) {
            Ok(terms) => terms,
            // Whoever no longer waits does not need it.
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        if let Err(refusal) = self.may_post(account) {
            // It may be the very transaction that posted the last task.
            return drop(reply.send(self.before(&transaction, refusal).await));
        }
        let wanted = Wanted::of(&spec, &terms);
        let free = match only {
            Some(node) => Vec::from_iter(self.is_free(&node).then_some(node)),
            None => self.shortlist(&wanted, terms.prices.unit_price),
        };
        let task = TaskId::of_transaction(&account, transaction.id().as_bytes());
        let (limits, now) = (self.world.limits, clock::now());
        let (run, effects) = Run::open(task, account, spec, terms, limits, free, now);
        let run = run.called_by(transaction.signed().signer).only_by(only);
        let lead_ms = self.world.clock.now().ms_since(now);
        let terms = run.terms.hold(run.hold_expires().plus_ms(lead_ms));
        let caller = Caller {
            decisions: vec![Decision::OpenHold { terms }],
            transaction: Some((transaction, reply)),
            ack: None,
        };
        self.carry_out(run, effects, caller).await;
    }

    fn may_post(&self, account: AccountId) -> Result<(), ErrorBody> {
        let (rule, open) = (&self.world.posting, self.runs.of_client(&account));
        Ok(self.postings.check(rule, &account, open, clock::now())?)
    }

    /// The terms of a task that can be posted now.
    fn acceptable(
        &self,
        account: AccountId,
        spec: &TaskSpec,
        materials: &Materials,
        online: usize,
    ) -> Result<Terms, ErrorBody> {
        let terms = self.terms(account, spec, materials)?;
        terms.check_cap(spec.max_cost)?;
        terms.check_unit_price(spec.conditions.max_unit_price)?;
        let needed = spec.miners as usize;
        if online < needed {
            let message = format!("the task asks for {needed} miners, {online} are online");
            let help = format!("set group.miners to {online} or less, or wait for more miners");
            let refusal = ErrorBody::new(ErrorClass::Capacity, "not_enough_miners", message);
            return Err(refusal.with_help(help));
        }
        Ok(terms)
    }

    pub(super) async fn cancel(&mut self, transaction: Verified, task: TaskId, reply: Reply) {
        let account = transaction.account();
        let run = self.runs.get(&task).filter(|run| run.client == account);
        let Some(mut run) = run.cloned() else {
            let refusal = ErrorBody::not_found("task", format!("you have no open task {task}"))
                .with_help("see `cryptomind task ls`");
            return drop(reply.send(self.before(&transaction, refusal).await));
        };
        let now = clock::now();
        if run.earned.is_zero() {
            self.postings.cancelled(account, now);
        }
        let effects = run.apply(Input::Cancel, &self.around, now);
        let caller = Caller {
            transaction: Some((transaction, reply)),
            ..Caller::default()
        };
        self.carry_out(run, effects, caller).await;
    }

    /// A repeated transaction is refused by its own effect; then the first answer counts.
    async fn before(
        &self,
        transaction: &Verified,
        refusal: ErrorBody,
    ) -> Result<Accepted, ErrorBody> {
        let before = self.world.ledger.answer_of(transaction).await?;
        before.ok_or(refusal)
    }
}
