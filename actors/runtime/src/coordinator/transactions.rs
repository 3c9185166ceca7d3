//! Transactions at the door: proven, checked, answered once, handed to the actor that decides.

use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::transaction::{self, Verified};
use cryptomind_protocol::genesis::NetworkKind;
use cryptomind_protocol::task::{TaskSpec, Work};
use cryptomind_protocol::transaction::{Accepted, Action};
use cryptomind_protocol::{AccountId, ErrorBody, ItemId, NodeId, PublicKey, Signed};

use super::Office;
use crate::catalog::{CATALOG_LIMIT, CatalogMsg, ItemName};
use crate::clock;
use crate::ledger::{Posting, stored_answer};
use crate::matchmaker::{MATCHMAKER_LIMIT, MatchmakerMsg, Materials};
use crate::rating::{RATING_LIMIT, RatingMsg};

impl Office {
    /// Carries out a transaction, or answers it as it was answered before.
    pub(super) async fn submit(
        &self,
        caller: PublicKey,
        signed: Signed,
    ) -> Result<Accepted, ErrorBody> {
        if signed.signer != caller {
            let message = "the transaction is signed by another key than this connection's";
            return Err(ErrorBody::auth("wrong_account", message));
        }
        let transaction = transaction::open(signed, &self.network)?;
        let (account, action) = (
            transaction.account(),
            transaction.transaction().action.clone(),
        );
        let accepted = match stored_answer(&self.store, &transaction)? {
            Some(before) => before,
            None => self.carry_out(transaction, action.clone()).await?,
        };
        if let Action::Delegate { node, .. } | Action::Revoke { node } = action {
            self.delegation_changed(account, node);
        }
        Ok(accepted)
    }

    async fn carry_out(
        &self,
        transaction: Verified,
        action: Action,
    ) -> Result<Accepted, ErrorBody> {
        match action {
            Action::Send { .. }
            | Action::RotateKey { .. }
            | Action::Delegate { .. }
            | Action::Revoke { .. } => self.pay(transaction).await,
            Action::Faucet {} => self.faucet(transaction).await,
            // Sent again it may be refused by its own effect: then the first answer counts. The ledger itself asks
            // the same where it is not.
            action @ (Action::Post { .. } | Action::Cancel { .. }) => {
                let again = transaction.clone();
                match self.decide(Box::new(transaction), action).await {
                    Err(refusal) => self.ledger.answer_of(&again).await?.ok_or(refusal),
                    accepted => accepted,
                }
            }
            // These change what their actor remembers before the ledger is asked.
            action => {
                if let Some(before) = self.ledger.answer_of(&transaction).await? {
                    return Ok(before);
                }
                self.decide(Box::new(transaction), action).await
            }
        }
    }

    /// What follows at once from what the ledger now says of a node, whatever was asked for.
    fn delegation_changed(&self, owner: AccountId, node: NodeId) {
        self.enrolments.done(owner, node, clock::now());
        let Some(link) = self.links.get(&node) else {
            return;
        };
        if link.record.owner == owner && self.delegated(owner, node, link.record.role).is_err() {
            self.links.dismiss(node, owner);
        }
    }

    /// What other actors than the ledger decide.
    async fn decide(
        &self,
        transaction: Box<Verified>,
        action: Action,
    ) -> Result<Accepted, ErrorBody> {
        match action {
            Action::Register { nickname } => {
                let register = |reply| CatalogMsg::Register(transaction, nickname, reply);
                self.catalog.call(register, CATALOG_LIMIT).await?
            }
            Action::Publish { manifest, receipts } => {
                let item = Box::new((manifest, receipts));
                let publish = |reply| CatalogMsg::Publish(transaction, item, reply);
                self.catalog.call(publish, CATALOG_LIMIT).await?
            }
            Action::Post { spec } => {
                let materials = Box::new(self.materials(&spec).await?);
                let spec = Box::new(spec);
                let post = |reply| MatchmakerMsg::Post {
                    transaction,
                    spec,
                    materials,
                    only: None,
                    reply,
                };
                self.matchmaker.call(post, MATCHMAKER_LIMIT).await?
            }
            Action::Cancel { task } => {
                let cancel = |reply| MatchmakerMsg::Cancel {
                    transaction,
                    task,
                    reply,
                };
                self.matchmaker.call(cancel, MATCHMAKER_LIMIT).await?
            }
            Action::Rate { task, stars } => {
                let rate = |reply| RatingMsg::Rate {
                    transaction,
                    task,
                    stars,
                    reply,
                };
                self.rating.call(rate, RATING_LIMIT).await?
            }
            Action::Faucet {}
            | Action::Send { .. }
            | Action::RotateKey { .. }
            | Action::Delegate { .. }
            | Action::Revoke { .. } => self.pay(*transaction).await,
        }
    }

    async fn faucet(&self, transaction: Verified) -> Result<Accepted, ErrorBody> {
        if self.genesis.kind != NetworkKind::Development {
            return Err(
                ErrorBody::user("no_faucet", "this network has no test money")
                    .with_help("test money is for development networks: `cryptomind dev`"),
            );
        }
        self.pay(transaction).await
    }

    /// What the ledger alone decides.
    async fn pay(&self, transaction: Verified) -> Result<Accepted, ErrorBody> {
        let transaction = Some(transaction);
        let posting = Posting {
            transaction,
            ..Posting::default()
        };
        self.ledger.submit(posting).await
    }

    /// The items that a task names.
    pub(super) async fn materials(&self, spec: &TaskSpec) -> Result<Materials, ErrorBody> {
        let (dataset, model) = match &spec.work {
            Work::Train { dataset, .. } => (Some(*dataset), None),
            Work::Infer { model, dataset, .. } => (Some(*dataset), Some(*model)),
            Work::Serve { model, .. } => (None, Some(*model)),
        };
        Ok(Materials {
            dataset: self.material(dataset).await?,
            model: self.material(model).await?,
        })
    }

    async fn material(&self, item: Option<ItemId>) -> Result<Option<ItemRecord>, ErrorBody> {
        let Some(id) = item else { return Ok(None) };
        let question = |reply| CatalogMsg::ItemOf(ItemName::Id(id), reply);
        self.catalog.call(question, CATALOG_LIMIT).await?.map(Some)
    }
}
