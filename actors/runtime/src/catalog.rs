//! The catalog actor: nicknames, datasets and models.
//!
//! **Owns**: the catalog. **Talked to by**: sessions (register, publish, questions), the matchmaker
//! (trained models, uses). State comes from the store; decisions are [`cryptomind_core::catalog`]'s.

use std::time::Duration;

use cryptomind_core::catalog::{Catalog, ItemRecord, Nickname};
use cryptomind_core::journal::NodeRecord;
use cryptomind_core::transaction::Verified;
use cryptomind_protocol::item::{ItemView, Manifest};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::transaction::{Accepted, StoredReceipt};
use cryptomind_protocol::{AccountId, ErrorBody, ItemId, NodeId};
use cryptomind_storage::state::{Batch, StateStore};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::clock;
use crate::ledger::{LedgerRef, Posting};
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
    Register(
        Box<Verified>,
        String,
        RpcReplyPort<Result<Accepted, ErrorBody>>,
    ),
    /// From sessions: publish an item.
    Publish(
        Box<Verified>,
        Box<(Manifest, Vec<StoredReceipt>)>,
        RpcReplyPort<Result<Accepted, ErrorBody>>,
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
    /// From itself: something that it remembers was lost with the ledger.
    Reread,
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
    me: ActorRef<CatalogMsg>,
}

impl Actor for CatalogActor {
    type Msg = CatalogMsg;
    type State = Shelf;
    type Arguments = CatalogArguments;

    async fn pre_start(
        &self,
        me: ActorRef<CatalogMsg>,
        arguments: CatalogArguments,
    ) -> Result<Shelf, ActorProcessingErr> {
        let catalog = read(&arguments).await?;
        Ok(Shelf {
            arguments,
            catalog,
            me,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<CatalogMsg>,
        message: CatalogMsg,
        shelf: &mut Shelf,
    ) -> Result<(), ActorProcessingErr> {
        // Whoever no longer waits does not need the answer: hence the ignored sends.
        match message {
            CatalogMsg::Register(transaction, nickname, reply) => {
                shelf.register(*transaction, nickname, reply).await?;
            }
            CatalogMsg::Publish(transaction, item, reply) => {
                shelf.publish(*transaction, *item, reply).await?;
            }
            CatalogMsg::Reread => shelf.catalog = read(&shelf.arguments).await?,
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
        transaction: Verified,
        nickname: String,
        reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    ) -> Result<(), ActorProcessingErr> {
        let account = transaction.account();
        let record = match self.catalog.register(account, &nickname, clock::now()) {
            Ok(record) => record,
            Err(refusal) => {
                self.refuse(&transaction, refusal, reply).await;
                return Ok(());
            }
        };
        let mut batch = Batch::new();
        batch.put(&record);
        self.post(transaction, batch, reply).await
    }

    async fn publish(
        &mut self,
        transaction: Verified,
        (manifest, receipts): (Manifest, Vec<StoredReceipt>),
        reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    ) -> Result<(), ActorProcessingErr> {
        let id = ItemId::of_transaction(&transaction.account(), transaction.id().as_bytes());
        let decided = self.storage_nodes().and_then(|nodes| {
            let (account, now) = (transaction.account(), clock::now());
            let is_storage = |node: &NodeId| nodes.contains(node);
            self.catalog
                .publish(id, account, manifest, &receipts, is_storage, now)
        });
        let record = match decided {
            Ok(record) => record,
            Err(refusal) => {
                self.refuse(&transaction, refusal, reply).await;
                return Ok(());
            }
        };
        let mut batch = Batch::new();
        batch.put(&record);
        self.post(transaction, batch, reply).await
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
        transaction: &Verified,
        refusal: ErrorBody,
        reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    ) {
        let before = self.arguments.ledger.answer_of(transaction).await;
        drop(reply.send(before.and_then(|before| before.ok_or(refusal))));
    }

    /// Posts a change that memory has already taken. Where it is not taken, memory is read anew.
    async fn post(
        &mut self,
        transaction: Verified,
        batch: Batch,
        reply: RpcReplyPort<Result<Accepted, ErrorBody>>,
    ) -> Result<(), ActorProcessingErr> {
        let posting = Posting {
            transaction: Some(transaction),
            batch,
            ..Posting::default()
        };
        let unposted = match self.arguments.ledger.post(posting).await {
            Ok(posted) => {
                let me = self.me.clone();
                // An actor that is being restarted reads anyway.
                answer_when_durable(posted, reply, move || drop(me.cast(CatalogMsg::Reread)));
                return Ok(());
            }
            Err(unposted) => unposted,
        };
        self.catalog = read(&self.arguments).await?;
        drop(reply.send(unposted.into()));
        Ok(())
    }
}

async fn read(arguments: &CatalogArguments) -> Result<Catalog, ActorProcessingErr> {
    // What was carried out before is part of the catalog, durable or not.
    let store = &arguments.store;
    arguments.ledger.settled(store).await?;
    Ok(Catalog::rebuild(
        store.load::<Nickname>()?,
        store.load::<ItemRecord>()?,
    ))
}
