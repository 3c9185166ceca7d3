//! Posting and cancelling tasks, and quotes: all by the same terms.

use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::price::{self, Extent, ItemUse, Terms};
use cryptomind_core::run::{Input, Run, wanted};
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::block::Decision;
use cryptomind_protocol::item::{Access, DatasetInfo, ItemKind, ModelInfo};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Candidate, Quote, TaskSpec};
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ErrorClass, TaskId};

use super::carry::{Caller, Reply};
use super::{Desk, member};
use crate::clock;

/// The items that a task names.
#[derive(Debug, Clone)]
pub struct Materials {
    /// The dataset.
    pub dataset: ItemRecord,
    /// The model, for inference.
    pub model: Option<ItemRecord>,
}

impl Materials {
    fn dataset(&self) -> Result<&DatasetInfo, ErrorBody> {
        match &self.dataset.manifest.kind {
            ItemKind::Dataset(info) => Ok(info),
            ItemKind::Model(_) => Err(wrong_kind("dataset", &self.dataset)),
        }
    }

    fn model(&self) -> Result<Option<&ModelInfo>, ErrorBody> {
        let info = |record: &ItemRecord| match &record.manifest.kind {
            ItemKind::Model(_) => Ok(()),
            ItemKind::Dataset(_) => Err(wrong_kind("model", record)),
        };
        self.model.as_ref().map(info).transpose()?;
        Ok(self
            .model
            .as_ref()
            .and_then(|record| match &record.manifest.kind {
                ItemKind::Model(info) => Some(info),
                ItemKind::Dataset(_) => None,
            }))
    }

    /// What `account` pays for each, or why it may not use one.
    fn uses(&self, account: AccountId) -> Result<Vec<ItemUse>, ErrorBody> {
        [Some(&self.dataset), self.model.as_ref()]
            .into_iter()
            .flatten()
            .map(|record| {
                let fee = match record.manifest.access {
                    _ if record.owner == account => Amount::ZERO,
                    Access::Free => Amount::ZERO,
                    Access::Paid { fee } => fee,
                    Access::Owner => return Err(not_yours(record)),
                };
                Ok(ItemUse {
                    item: record.item,
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
        Ok(price::quote(spec, &terms, self.candidates().await?))
    }

    async fn candidates(&self) -> Result<Vec<Candidate>, ErrorBody> {
        let links = self.world.links.of_role(Role::Miner);
        let ratings = self
            .ratings(links.iter().map(|l| l.record.node).collect())
            .await?;
        let candidate = |(link, rating): (&_, cryptomind_protocol::api::RatingView)| {
            let link: &crate::coordinator::links::Link = link;
            let member = member(link);
            Candidate {
                node: member.node,
                name: member.name,
                owner: member.owner,
                mflops: link.record.capacity.mflops,
                rating_milli: rating.rating_milli,
                free: !self.runs.is_member(&member.node),
            }
        };
        Ok(links.iter().zip(ratings).map(candidate).collect())
    }

    pub(super) async fn post(
        &mut self,
        transaction: Verified,
        spec: TaskSpec,
        materials: Materials,
        reply: Reply,
    ) {
        let account = transaction.account();
        let (online, _) = self.free.counts();
        let terms = match self.acceptable(account, &spec, &materials, online) {
            Ok(terms) => terms,
            // Whoever no longer waits does not need it.
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        let free = self.shortlist(&wanted(&spec, &terms), terms.prices.unit_price);
        let task = TaskId::of_transaction(&account, transaction.id().as_bytes());
        let (limits, now) = (self.world.limits, clock::now());
        let (run, effects) = Run::open(task, account, spec, terms, limits, free, now);
        let lead_ms = self.world.clock.now().ms_since(now);
        let terms = run.terms.hold(run.hold_expires().plus_ms(lead_ms));
        let caller = Caller {
            decisions: vec![Decision::OpenHold { terms }],
            transaction: Some((transaction, reply)),
            ack: None,
        };
        self.carry_out(run, effects, caller).await;
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
        let effects = run.apply(Input::Cancel, &self.around, clock::now());
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
