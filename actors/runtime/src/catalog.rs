//! The catalog actor: nicknames, datasets and models.
//!
//! **Owns**: the catalog. **Talked to by**: sessions (register, publish, questions), the matchmaker
//! (trained models, uses). State comes from the store; decisions are [`cryptomind_core::catalog`]'s.

use std::time::Duration;

use cryptomind_core::catalog::{Catalog, ItemRecord, Nickname};
use cryptomind_core::journal::NodeRecord;
use cryptomind_protocol::delegation::Role;
use cryptomind_protocol::item::{ItemView, Manifest};
use cryptomind_protocol::transaction::{Outcome, StoredReceipt};
use cryptomind_protocol::{AccountId, ErrorBody, ItemId, NodeId};
use cryptomind_storage::state::{Batch, StateStore};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::clock;
use crate::ledger::{LedgerRef, Posting, Stamp, Unposted};
use crate::rating::answer_when_durable;
use crate::supervisor::Handle;

/// How long anybody waits for the catalog.
pub const CATALOG_LIMIT: Duration = Duration::from_secs(5);

/// Reaches the catalog.
pub type CatalogRef = Handle<CatalogMsg>;

/// How an item is named in a question.
#[derive(Debug, Clone)]
pub enum ItemName {
    /// By id.
    Id(ItemId),
    /// As `nickname/name`.
    Path(String),
}

/// What the catalog is told and asked.
pub enum CatalogMsg {
    /// From sessions: take a nickname.
    Register(Stamp, String, RpcReplyPort<Result<Outcome, ErrorBody>>),
    /// From sessions: publish an item.
    Publish(
        Stamp,
        Box<(Manifest, Vec<StoredReceipt>)>,
        RpcReplyPort<Result<Outcome, ErrorBody>>,
    ),
    /// From the matchmaker: which name is free for a trained model of this owner?
    NameFor(AccountId, String, RpcReplyPort<String>),
    /// From the matchmaker: these records are durable.
    Stored(Vec<ItemRecord>),
    /// From sessions: which item is this?
    ItemOf(ItemName, RpcReplyPort<Result<ItemRecord, ErrorBody>>),
    /// From sessions: items for a table.
    ItemsOf(
        Option<String>,
        u32,
        RpcReplyPort<Result<Vec<ItemView>, ErrorBody>>,
    ),
    /// From sessions: an item for a person.
    ViewOf(ItemName, RpcReplyPort<Result<ItemView, ErrorBody>>),
    /// From sessions: who has this nickname?
    AccountOf(String, RpcReplyPort<Result<AccountId, ErrorBody>>),
    /// From sessions: what are these accounts called?
    NicknamesOf(Vec<AccountId>, RpcReplyPort<Vec<Option<String>>>),
}

/// The actor. Its state is a [`Shelf`].
pub struct CatalogActor;

/// What the catalog actor needs.
#[derive(Clone)]
pub struct CatalogArguments {
    /// Where the catalog lies.
    pub store: StateStore,
    /// Through which it is written.
    pub ledger: LedgerRef,
}

/// What the catalog actor holds in memory.
pub struct Shelf {
    arguments: CatalogArguments,
    catalog: Catalog,
}

impl Actor for CatalogActor {
    type Msg = CatalogMsg;
    type State = Shelf;
    type Arguments = CatalogArguments;

    async fn pre_start(
        &self,
        _: ActorRef<CatalogMsg>,
        arguments: CatalogArguments,
    ) -> Result<Shelf, ActorProcessingErr> {
        let catalog = read(&arguments.store).await?;
        Ok(Shelf { arguments, catalog })
    }

    async fn handle(
        &self,
        _: ActorRef<CatalogMsg>,
        message: CatalogMsg,
        shelf: &mut Shelf,
    ) -> Result<(), ActorProcessingErr> {
        // Whoever no longer waits does not need the answer: hence the ignored sends.
        match message {
            CatalogMsg::Register(stamp, nickname, reply) => {
                shelf.register(stamp, nickname, reply).await?;
            }
            CatalogMsg::Publish(stamp, item, reply) => shelf.publish(stamp, *item, reply).await?,
            CatalogMsg::NameFor(owner, wanted, reply) => {
                drop(reply.send(shelf.catalog.free_name(&owner, &wanted)));
            }
            CatalogMsg::Stored(records) => {
                records
                    .into_iter()
                    .for_each(|record| shelf.catalog.put(record));
            }
            CatalogMsg::ItemOf(name, reply) => drop(reply.send(shelf.item(&name).cloned())),
            CatalogMsg::ItemsOf(kind, limit, reply) => {
                drop(reply.send(shelf.catalog.list(kind.as_deref(), limit)));
            }
            CatalogMsg::ViewOf(name, reply) => {
                drop(reply.send(shelf.item(&name).map(|record| shelf.catalog.view(record))));
            }
            CatalogMsg::AccountOf(nickname, reply) => {
                drop(reply.send(shelf.catalog.account(&nickname)));
            }
            CatalogMsg::NicknamesOf(accounts, reply) => {
                let names = accounts
                    .iter()
                    .map(|a| shelf.catalog.nickname(a).map(str::to_owned));
                drop(reply.send(names.collect()));
            }
        }
        Ok(())
    }
}

impl Shelf {
    fn item(&self, name: &ItemName) -> Result<&ItemRecord, ErrorBody> {
        match name {
            ItemName::Id(id) => self.catalog.item(id),
            ItemName::Path(path) => self.catalog.item_at(path),
        }
    }

    async fn register(
        &mut self,
        stamp: Stamp,
        nickname: String,
        reply: RpcReplyPort<Result<Outcome, ErrorBody>>,
    ) -> Result<(), ActorProcessingErr> {
        let account = stamp.account;
        let record = match self.catalog.register(account, &nickname, clock::now()) {
            Ok(record) => record,
            Err(refusal) => {
                self.refuse(stamp, refusal, reply).await;
                return Ok(());
            }
        };
        let mut batch = Batch::new();
        batch.put(&record);
        let outcome = Outcome::Registered { nickname };
        self.post(stamp, outcome, batch, reply).await
    }

    async fn publish(
        &mut self,
        stamp: Stamp,
        (manifest, receipts): (Manifest, Vec<StoredReceipt>),
        reply: RpcReplyPort<Result<Outcome, ErrorBody>>,
    ) -> Result<(), ActorProcessingErr> {
        let id = ItemId::of_transaction(&stamp.account, stamp.id.as_bytes());
        let decided = self.storage_nodes().and_then(|nodes| {
            let (account, now) = (stamp.account, clock::now());
            let is_storage = |node: &NodeId| nodes.contains(node);
            self.catalog
                .publish(id, account, manifest, &receipts, is_storage, now)
        });
        let record = match decided {
            Ok(record) => record,
            Err(refusal) => {
                self.refuse(stamp, refusal, reply).await;
                return Ok(());
            }
        };
        let mut batch = Batch::new();
        batch.put(&record);
        let outcome = Outcome::Published { item: id };
        self.post(stamp, outcome, batch, reply).await
    }

    fn storage_nodes(&self) -> Result<Vec<NodeId>, ErrorBody> {
        let nodes = self
            .arguments
            .store
            .load::<NodeRecord>()
            .map_err(ErrorBody::internal)?;
        Ok(nodes
            .into_iter()
            .filter(|n| n.role == Role::Storage)
            .map(|n| n.node)
            .collect())
    }

    /// A repeated transaction is refused by its own effect; then the first answer counts.
    async fn refuse(
        &self,
        stamp: Stamp,
        refusal: ErrorBody,
        reply: RpcReplyPort<Result<Outcome, ErrorBody>>,
    ) {
        let before = self
            .arguments
            .ledger
            .call(
                |reply| crate::ledger::LedgerMsg::AnswerOf(stamp, reply),
                CATALOG_LIMIT,
            )
            .await;
        let answer = match before {
            Ok(Ok(Some(outcome))) => Ok(outcome),
            _ => Err(refusal),
        };
        drop(reply.send(answer));
    }

    /// Posts a change that memory has already taken, with its answer. Where it is not taken, memory is read
    /// anew.
    async fn post(
        &mut self,
        stamp: Stamp,
        outcome: Outcome,
        batch: Batch,
        reply: RpcReplyPort<Result<Outcome, ErrorBody>>,
    ) -> Result<(), ActorProcessingErr> {
        let answers = Some((stamp, outcome.clone()));
        let posting = Posting {
            answers,
            batch,
            ..Posting::default()
        };
        let unposted = match self.arguments.ledger.post(posting).await {
            Ok(posted) => {
                answer_when_durable(posted.commit, outcome, reply);
                return Ok(());
            }
            Err(unposted) => unposted,
        };
        self.catalog = read(&self.arguments.store).await?;
        drop(reply.send(match unposted {
            Unposted::Answered(before) => Ok(before),
            Unposted::Refused(refusal) => Err(refusal),
        }));
        Ok(())
    }
}

async fn read(store: &StateStore) -> Result<Catalog, ActorProcessingErr> {
    // What was queued before is part of the catalog.
    store.commit(Batch::new()).await?;
    Ok(Catalog::rebuild(
        store.load::<Nickname>()?,
        store.load::<ItemRecord>()?,
    ))
}
