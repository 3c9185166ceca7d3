//! Transactions at the door: proven, checked, answered once, handed to the actor that decides.

use cryptomind_core::ledger::Op;
use cryptomind_core::transaction;
use cryptomind_protocol::genesis::NetworkKind;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::task::{TaskSpec, Work};
use cryptomind_protocol::transaction::{Action, Outcome, Transaction};
use cryptomind_protocol::{Amount, ErrorBody, PublicKey, Signed};

use super::Office;
use crate::catalog::{CATALOG_LIMIT, CatalogMsg, ItemName};
use crate::clock;
use crate::ledger::{LEDGER_LIMIT, LedgerMsg, Posting, Stamp, Unposted};
use crate::matchmaker::{MATCHMAKER_LIMIT, MatchmakerMsg, Materials};
use crate::rating::{RATING_LIMIT, RatingMsg};

impl Office {
    /// Carries out a transaction, or answers it as it was answered before.
    pub(super) async fn submit(
        &self,
        caller: PublicKey,
        signed: &Signed,
    ) -> Result<Outcome, ErrorBody> {
        let transaction = transaction::open(signed, &self.genesis.hash(), clock::now())?;
        if signed.signer != caller {
            let message = "the transaction is signed by another key than this connection's";
            return Err(ErrorBody::auth("wrong_account", message));
        }
        let Transaction {
            id,
            account,
            valid_until,
            action,
            ..
        } = transaction;
        let stamp = Stamp {
            account,
            id,
            payload: Hash::of(&signed.payload),
            valid_until,
        };
        let question = |reply| LedgerMsg::AnswerOf(stamp.clone(), reply);
        if let Some(outcome) = self.ledger.call(question, LEDGER_LIMIT).await?? {
            return Ok(outcome);
        }
        self.decide(stamp, action).await
    }

    async fn decide(&self, stamp: Stamp, action: Action) -> Result<Outcome, ErrorBody> {
        match action {
            Action::Register { nickname } => {
                let register = |reply| CatalogMsg::Register(stamp, nickname, reply);
                self.catalog.call(register, CATALOG_LIMIT).await?
            }
            Action::Publish { manifest, receipts } => {
                let item = Box::new((manifest, receipts));
                let publish = |reply| CatalogMsg::Publish(stamp, item, reply);
                self.catalog.call(publish, CATALOG_LIMIT).await?
            }
            Action::Faucet {} => self.faucet(stamp).await,
            Action::Send { to, amount } => {
                let op = Op::Send {
                    from: stamp.account,
                    to,
                    amount,
                };
                self.pay(stamp, op, amount).await
            }
            Action::Post { spec } => {
                let materials = Box::new(self.materials(&spec).await?);
                let spec = Box::new(spec);
                let post = |reply| MatchmakerMsg::Post {
                    stamp,
                    spec,
                    materials,
                    reply,
                };
                self.matchmaker.call(post, MATCHMAKER_LIMIT).await?
            }
            Action::Cancel { task } => {
                let cancel = |reply| MatchmakerMsg::Cancel { stamp, task, reply };
                self.matchmaker.call(cancel, MATCHMAKER_LIMIT).await?
            }
            Action::Rate { task, stars } => {
                let rate = |reply| RatingMsg::Rate {
                    stamp,
                    task,
                    stars,
                    reply,
                };
                self.rating.call(rate, RATING_LIMIT).await?
            }
        }
    }

    async fn faucet(&self, stamp: Stamp) -> Result<Outcome, ErrorBody> {
        if self.genesis.kind != NetworkKind::Development {
            return Err(
                ErrorBody::user("no_faucet", "this network has no test money")
                    .with_help("test money is for development networks: `cryptomind dev`"),
            );
        }
        let amount = self.config.faucet.amount;
        let op = Op::Faucet {
            to: stamp.account,
            amount,
        };
        self.pay(stamp, op, amount).await
    }

    async fn pay(&self, stamp: Stamp, op: Op, amount: Amount) -> Result<Outcome, ErrorBody> {
        let outcome = Outcome::Moved { amount };
        let answers = Some((stamp, outcome.clone()));
        match self
            .ledger
            .post(Posting {
                answers,
                ops: vec![op],
                ..Posting::default()
            })
            .await
        {
            Ok(posted) => posted
                .commit
                .await
                .map(|()| outcome)
                .map_err(ErrorBody::internal),
            Err(Unposted::Answered(before)) => Ok(before),
            Err(Unposted::Refused(refusal)) => Err(refusal),
        }
    }

    /// The items that a task names.
    pub(super) async fn materials(&self, spec: &TaskSpec) -> Result<Materials, ErrorBody> {
        let (dataset, model) = match &spec.work {
            Work::Train { dataset, .. } => (*dataset, None),
            Work::Infer { model, dataset, .. } => (*dataset, Some(*model)),
        };
        let item = |id| async move {
            let question = |reply| CatalogMsg::ItemOf(ItemName::Id(id), reply);
            self.catalog.call(question, CATALOG_LIMIT).await?
        };
        let dataset = item(dataset).await?;
        let model = match model {
            Some(id) => Some(item(id).await?),
            None => None,
        };
        Ok(Materials { dataset, model })
    }
}
