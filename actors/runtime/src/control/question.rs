//! Questions: drawn from what clients ask and from the catalog, priced as everybody's, signed by an account like others.

use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::check::Case;
use cryptomind_core::control::{self, Bounds, ControlRecord};
use cryptomind_core::dice::Dice;
use cryptomind_core::transaction::{self, Verified};
use cryptomind_protocol::item::{Access, DatasetInfo, ItemKind, ModelInfo};
use cryptomind_protocol::task::{TaskSpec, Work};
use cryptomind_protocol::transaction::Action;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ItemId, NodeId, TaskId, Timestamp};

use super::ControlArguments;
use super::purse::{self, Purse};
use crate::catalog::{CATALOG_LIMIT, CatalogMsg, ItemName};
use crate::ledger::{LEDGER_LIMIT, LedgerMsg, Posting};
use crate::matchmaker::{MATCHMAKER_LIMIT, MatchmakerMsg, Materials};

/// Datasets of the catalog that are drawn from.
const MAX_DATASETS: u32 = 200;
/// Prices may rise between a quote and its posting: so much more is allowed for.
const ROOM: (u128, u128) = (11, 10);

/// What is wanted.
pub(super) enum Wanted {
    /// A new question: like this one, where clients asked any.
    New(Option<TaskSpec>),
    /// This one once more.
    Again(TaskSpec),
}

/// A question that is ready to be posted.
pub(super) struct Question {
    pub(super) task: TaskId,
    /// The most that it costs.
    pub(super) cost: Amount,
    spec: TaskSpec,
    account: AccountId,
    transaction: Verified,
    materials: Materials,
}

/// Draws what is wanted. Takes a moment: datasets are looked up, and the price is asked.
pub(super) async fn draw(
    world: &ControlArguments,
    purse: &Purse,
    wanted: Wanted,
    dice: &mut Dice,
) -> Result<Question, ErrorBody> {
    let (spec, materials) = match wanted {
        Wanted::New(seen) => new(world, seen, dice).await?,
        Wanted::Again(spec) => {
            let materials = materials_of(world, &spec).await?;
            (control::again(&spec, dice), materials)
        }
    };
    let key = purse.some(dice);
    let account = purse::account(key);
    let cost = price(world, account, &spec, &materials).await?;
    let spec = TaskSpec {
        max_cost: control::cap(spec.max_cost, cost),
        ..spec
    };
    let action = Action::Post { spec: spec.clone() };
    let signed = purse::sign(key, &world.genesis, action, world.clock.now())?;
    let transaction = transaction::open(signed, &world.genesis.hash())?;
    Ok(Question {
        task: TaskId::of_transaction(&account, transaction.id().as_bytes()),
        cost,
        spec,
        account,
        transaction,
        materials,
    })
}

/// Like what a client asked lately; otherwise the usual, of a dataset that everybody may use for nothing.
async fn new(
    world: &ControlArguments,
    seen: Option<TaskSpec>,
    dice: &mut Dice,
) -> Result<(TaskSpec, Materials), ErrorBody> {
    let bounds = world.rule.bounds;
    if let Some(seen) = seen
        && let Ok(materials) = materials_of(world, &seen).await
        && let Some(spec) = like(&seen, &materials, bounds, dice)
    {
        return Ok((spec, materials));
    }
    let list = |reply| CatalogMsg::ItemsOf(Some("dataset".into()), MAX_DATASETS, reply);
    let mut items = world.catalog.call(list, CATALOG_LIMIT).await??;
    while !items.is_empty() {
        let item = items
            .swap_remove(dice.below(items.len() as u64) as usize)
            .item;
        let record = item_of(world, item).await?;
        let info = dataset_in(&record).filter(|_| is_open(&record, bounds));
        if let Some(spec) = info.and_then(|info| control::usual(item, info, bounds, dice)) {
            let materials = Materials {
                dataset: Some(record),
                model: None,
            };
            return Ok((spec, materials));
        }
    }
    let message = "the catalog has no dataset that everybody may use and that is small enough";
    Err(ErrorBody::not_found("dataset", message)
        .with_help("publish one that others may use for nothing, or raise control.max_milli_cu"))
}

fn like(
    seen: &TaskSpec,
    materials: &Materials,
    bounds: Bounds,
    dice: &mut Dice,
) -> Option<TaskSpec> {
    let items = [&materials.dataset, &materials.model];
    if !items.into_iter().flatten().all(|r| is_open(r, bounds)) {
        return None;
    }
    let info = materials.dataset.as_ref().and_then(dataset_in)?;
    let model = materials.model.as_ref().and_then(model_in);
    control::like(seen, info, model, bounds, dice)
}

/// Whether anybody may use an item for nothing, and it is small enough. Whoever is paid for the use of his item could have the
/// operator pay for a great many.
fn is_open(record: &ItemRecord, bounds: Bounds) -> bool {
    let files = record.manifest.files.iter();
    let bytes = files.fold(0u64, |sum, file| sum.saturating_add(file.bytes));
    record.manifest.access == Access::Free && bytes <= bounds.most_bytes
}

pub(super) const fn dataset_in(record: &ItemRecord) -> Option<&DatasetInfo> {
    match &record.manifest.kind {
        ItemKind::Dataset(info) => Some(info),
        _ => None,
    }
}

pub(super) const fn model_in(record: &ItemRecord) -> Option<&ModelInfo> {
    match &record.manifest.kind {
        ItemKind::Model(info) => Some(info),
        _ => None,
    }
}

/// What a task works on.
pub(super) async fn materials_of(
    world: &ControlArguments,
    spec: &TaskSpec,
) -> Result<Materials, ErrorBody> {
    let (dataset, model) = match &spec.work {
        Work::Train { dataset, .. } => (dataset, None),
        Work::Infer { dataset, model, .. } => (dataset, Some(model)),
        Work::Serve { .. } => return Err(ErrorBody::internal("a session asks nothing of its own")),
    };
    let model = match model {
        Some(model) => Some(item_of(world, *model).await?),
        None => None,
    };
    Ok(Materials {
        dataset: Some(item_of(world, *dataset).await?),
        model,
    })
}

async fn item_of(world: &ControlArguments, item: ItemId) -> Result<ItemRecord, ErrorBody> {
    let question = |reply| CatalogMsg::ItemOf(ItemName::Id(item), reply);
    world.catalog.call(question, CATALOG_LIMIT).await?
}

/// The most that it costs, with some room.
async fn price(
    world: &ControlArguments,
    account: AccountId,
    spec: &TaskSpec,
    materials: &Materials,
) -> Result<Amount, ErrorBody> {
    let quote = |reply| MatchmakerMsg::QuoteOf {
        account,
        spec: Box::new(spec.clone()),
        materials: Box::new(materials.clone()),
        reply,
    };
    let quote = world.matchmaker.call(quote, MATCHMAKER_LIMIT).await??;
    let cost = quote.cost_high.mul_div_ceil(ROOM.0, ROOM.1);
    cost.ok_or_else(|| ErrorBody::internal("a control task costs more than there is"))
}

impl Question {
    /// A new record of it, before anybody is asked.
    pub(super) fn record(&self, now: Timestamp) -> Result<ControlRecord, ErrorBody> {
        Ok(ControlRecord {
            id: some_id()?,
            spec: self.spec.clone(),
            cost: self.cost,
            case: Case::open(),
            asked: None,
            heard: Vec::new(),
            opened: now,
        })
    }

    /// Posts it, for this miner alone. An account that has too little takes test money first, where there is any.
    pub(super) async fn post(
        self,
        world: &ControlArguments,
        purse: &Purse,
        node: NodeId,
    ) -> Result<(), ErrorBody> {
        let balances = |reply| LedgerMsg::BalancesOf(self.account, reply);
        let balances = world.ledger.call(balances, LEDGER_LIMIT).await?;
        let is_short = balances.available < self.spec.max_cost;
        if is_short && purse::has_test_money(&world.genesis) {
            self.take_test_money(world, purse).await?;
        }
        self.submit(world, node).await.map_err(|refusal| {
            if refusal.code != "insufficient_funds" {
                return refusal;
            }
            let help = format!("send tokens to {}, a control account", self.account);
            refusal.with_help(help)
        })
    }

    async fn submit(&self, world: &ControlArguments, node: NodeId) -> Result<(), ErrorBody> {
        let post = |reply| MatchmakerMsg::Post {
            transaction: Box::new(self.transaction.clone()),
            spec: Box::new(self.spec.clone()),
            materials: Box::new(self.materials.clone()),
            only: Some(node),
            reply,
        };
        let posted = world.matchmaker.call(post, MATCHMAKER_LIMIT).await?;
        posted.map(drop)
    }

    async fn take_test_money(
        &self,
        world: &ControlArguments,
        purse: &Purse,
    ) -> Result<(), ErrorBody> {
        let key = purse.key_of(&self.account);
        let key = key.ok_or_else(|| ErrorBody::internal("a control account is gone"))?;
        let signed = purse::sign(key, &world.genesis, Action::Faucet {}, world.clock.now())?;
        let posting = Posting {
            transaction: Some(transaction::open(signed, &world.genesis.hash())?),
            ..Posting::default()
        };
        world.ledger.submit(posting).await.map(drop)
    }
}

/// An id that names nothing.
pub(super) fn some_id() -> Result<TaskId, ErrorBody> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(ErrorBody::internal)?;
    Ok(TaskId::new(bytes))
}
