//! The client: one account at one network.
//!
//! Cheap to clone; clones share the connection. Every method has a limit ([`Limits`]) and fails with an
//! [`ErrorBody`] whose class says whose fault it is and whose help says what to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use cryptomind_protocol::api::{
    AccountView, DelegationView, EnrolmentRequest, Explanation, Knocked, LedgerStatus, LinkView,
    MAX_ROWS, MinerView, NetworkStatus, Placement, Request, RunKey, TransferView, WorkVerdict,
};
use cryptomind_protocol::block::{Block, ReceiptFile};
use cryptomind_protocol::genesis::Genesis;
use cryptomind_protocol::item::{ItemView, Manifest};
use cryptomind_protocol::price::{PriceClass, PricePoint, PriceRing};
use cryptomind_protocol::rating::{EvidenceKey, EvidenceRecord};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::speed::RunStatistic;
use cryptomind_protocol::task::{Event, Quote, TaskSpec, TaskState, TaskView};
use cryptomind_protocol::transaction::{
    Accepted, Action, Outcome, StoredReceipt, Transaction, sign_rotation,
};
use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, GenesisHash, ItemId, NodeAddress, NodeId, ReceiptId, SecretKey,
    Signed, TaskId, Timestamp,
};
use serde::de::DeserializeOwned;

use crate::blocks::Blocks;
use crate::link::{Limits, Link};
use crate::watch::Watch;

/// How long a transaction of this client stays valid: ten minutes.
pub const DEFAULT_VALIDITY_MS: u64 = 10 * 60 * 1000;

/// One account at one network.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    account: AccountId,
    genesis: Genesis,
    network: GenesisHash,
    /// Coordinator's clock minus ours, milliseconds.
    drift_ms: AtomicI64,
}

impl Client {
    /// Connects to the coordinator at `address` as the account of `key`, with the default [`Limits`].
    ///
    /// # Errors
    /// Class network where nobody answers, class auth where another node answers than `address` names.
    pub async fn connect(address: NodeAddress, key: SecretKey) -> Result<Self, ErrorBody> {
        Self::connect_within(address, key, Limits::default()).await
    }

    /// [`Client::connect`] with limits of your own.
    pub async fn connect_within(
        address: NodeAddress,
        key: SecretKey,
        limits: Limits,
    ) -> Result<Self, ErrorBody> {
        let link = Link::new(address, key, limits)?;
        let network = link.first().await?.network();
        let asked = local_ms();
        let status: NetworkStatus = link.request(&Request::Status {}).await?;
        let drift_ms = AtomicI64::new(drift(asked, &status));
        if status.genesis.hash() != network {
            let message = "the coordinator's genesis is not that of its own network";
            return Err(ErrorBody::auth("wrong_genesis", message));
        }
        let inner = Inner {
            link,
            account: status.account,
            genesis: status.genesis,
            network,
            drift_ms,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What the network started from: among other things, what it charges.
    pub fn genesis(&self) -> &Genesis {
        &self.inner.genesis
    }

    /// What carrying out `action` will cost, beside what the action itself moves.
    pub fn fee(&self, action: &Action) -> Amount {
        self.genesis().fees.of(action)
    }

    /// The account that this client acts for.
    pub fn account_id(&self) -> AccountId {
        self.inner.account
    }

    /// The network's id, which every signature carries.
    pub fn network(&self) -> GenesisHash {
        self.inner.network
    }

    /// The coordinator's address.
    pub fn coordinator(&self) -> &NodeAddress {
        &self.inner.link.address
    }

    /// What this client waits for, and how long.
    pub fn limits(&self) -> Limits {
        self.inner.link.limits
    }

    /// Coordinator's clock minus this machine's, as of the last [`Client::status`]: milliseconds.
    pub fn drift_ms(&self) -> i64 {
        self.inner.drift_ms.load(Ordering::Relaxed)
    }

    /// Now by the coordinator's clock, as far as the last [`Client::status`] told.
    pub fn now(&self) -> Timestamp {
        let ms = local_ms().saturating_add_signed(self.drift_ms());
        Timestamp::from_ms(ms)
    }

    pub(crate) fn link(&self) -> &Link {
        &self.inner.link
    }

    /// Ends the connection in good order. Tasks go on.
    pub async fn close(&self) {
        self.link().close().await;
    }

    async fn ask<A: DeserializeOwned>(&self, request: Request) -> Result<A, ErrorBody> {
        self.link().request(&request).await
    }
}

/// Reading. Free, and repeated by itself when the connection is lost.
impl Client {
    /// What network this is, and how it is.
    pub async fn status(&self) -> Result<NetworkStatus, ErrorBody> {
        let asked = local_ms();
        let status: NetworkStatus = self.ask(Request::Status {}).await?;
        let drift = drift(asked, &status);
        self.inner.drift_ms.store(drift, Ordering::Relaxed);
        Ok(status)
    }

    /// Whether the coordinator reaches this UDP port of this machine, where `node` answers by `cryptomind-probe/1`; and how far
    /// it is. Code `port_closed` where it does not.
    pub async fn knock(&self, node: NodeId, port: u16) -> Result<Knocked, ErrorBody> {
        self.ask(Request::Knock { node, port }).await
    }

    /// This client's own account.
    pub async fn my_account(&self) -> Result<AccountView, ErrorBody> {
        self.ask(Request::Account {
            account: None,
            nickname: None,
        })
        .await
    }

    /// The account with this id. Code `account_not_found` where the ledger never saw it.
    pub async fn account(&self, account: AccountId) -> Result<AccountView, ErrorBody> {
        self.ask(Request::Account {
            account: Some(account),
            nickname: None,
        })
        .await
    }

    /// The account with this nickname, or the system account with this name.
    pub async fn account_named(&self, nickname: &str) -> Result<AccountView, ErrorBody> {
        self.ask(Request::Account {
            account: None,
            nickname: Some(nickname.to_owned()),
        })
        .await
    }

    /// This account's transfers, newest first: `limit` of them, and the rest of the last entry. Those of entries before `before`, where it is given.
    pub async fn history(
        &self,
        before: Option<ReceiptId>,
        limit: u32,
    ) -> Result<Vec<TransferView>, ErrorBody> {
        let (mut transfers, mut before) = (Vec::new(), before);
        while (transfers.len() as u32) < limit {
            let limit = (limit - transfers.len() as u32).min(MAX_ROWS);
            let page: Vec<TransferView> = self.ask(Request::History { before, limit }).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.receipt);
            transfers.extend(page);
        }
        Ok(transfers)
    }

    /// How the chain stands.
    pub async fn ledger(&self) -> Result<LedgerStatus, ErrorBody> {
        self.ask(Request::Ledger {}).await
    }

    /// One block of the chain. Code `block_not_found` where it is not there yet.
    pub async fn block(&self, height: u64) -> Result<Block, ErrorBody> {
        self.ask(Request::Block { height }).await
    }

    /// An entry with everything that proves it. Code `receipt_not_found` where the chain has no such entry.
    pub async fn receipt(&self, receipt: ReceiptId) -> Result<ReceiptFile, ErrorBody> {
        self.ask(Request::Receipt { receipt }).await
    }

    /// Blocks from height `from` on, as they become durable.
    pub fn follow(&self, from: u64) -> Blocks {
        Blocks::start(self.clone(), from)
    }

    /// Items of the catalog; of one kind (`dataset` or `model`) where it is given.
    pub async fn items(&self, kind: Option<&str>) -> Result<Vec<ItemView>, ErrorBody> {
        self.ask(Request::Items {
            kind: kind.map(str::to_owned),
            limit: MAX_ROWS,
        })
        .await
    }

    /// One item, by path (`nickname/name`) or by full id. Code `item_not_found` where there is none.
    pub async fn item(&self, which: &str) -> Result<ItemView, ErrorBody> {
        if which.starts_with(ItemId::PREFIX) && !which.contains('/') {
            let item = which
                .parse()
                .map_err(|e| ErrorBody::user("bad_item", format!("{e}")))?;
            return self.item_by_id(item).await;
        }
        self.ask(Request::Item {
            item: None,
            path: Some(which.to_owned()),
        })
        .await
    }

    /// One item by its id.
    pub async fn item_by_id(&self, item: ItemId) -> Result<ItemView, ErrorBody> {
        self.ask(Request::Item {
            item: Some(item),
            path: None,
        })
        .await
    }

    /// Where an item's files can be had, with the ticket for it.
    pub async fn locate_item(&self, item: ItemId) -> Result<Placement, ErrorBody> {
        self.ask(Request::Locate {
            item: Some(item),
            task: None,
        })
        .await
    }

    /// Where the result files of a task of this account can be had, with the ticket for it.
    pub async fn locate_task(&self, task: TaskId) -> Result<Placement, ErrorBody> {
        self.ask(Request::Locate {
            item: None,
            task: Some(task),
        })
        .await
    }

    /// What a task would cost and take, and who could do it. Nothing is owed.
    pub async fn quote(&self, spec: &TaskSpec) -> Result<Quote, ErrorBody> {
        self.ask(Request::Quote {
            spec: Box::new(spec.clone()),
        })
        .await
    }

    /// A task as it stands.
    pub async fn task(&self, task: TaskId) -> Result<TaskView, ErrorBody> {
        self.ask(Request::Task { task }).await
    }

    /// This account's tasks, newest first; only those in `state` where it is given.
    pub async fn tasks(&self, state: Option<TaskState>) -> Result<Vec<TaskView>, ErrorBody> {
        self.ask(Request::Tasks {
            state,
            limit: MAX_ROWS,
        })
        .await
    }

    /// A task's events from number `from` on, as they happen.
    pub fn watch(&self, task: TaskId, from: u64) -> Watch {
        Watch::start(self.clone(), task, from)
    }

    /// Waits until a task has ended and is settled, at most `limit`. Code `wait_timeout` after that:
    /// the task goes on.
    pub async fn wait(&self, task: TaskId, limit: Duration) -> Result<TaskView, ErrorBody> {
        tokio::time::timeout(limit, self.wait_settled(task))
            .await
            .unwrap_or_else(|_| Err(timed_out(task, limit)))?;
        self.task(task).await
    }

    async fn wait_settled(&self, task: TaskId) -> Result<(), ErrorBody> {
        let mut watch = self.watch(task, 0);
        while let Some(event) = watch.next().await {
            if matches!(event?.event, Event::Settled { .. }) {
                break;
            }
        }
        Ok(())
    }

    /// The miners, as the network knows them.
    pub async fn miners(&self) -> Result<Vec<MinerView>, ErrorBody> {
        self.ask(Request::Miners {}).await
    }

    /// What a CU of each class costs now.
    pub async fn prices(&self) -> Result<Vec<PricePoint>, ErrorBody> {
        self.ask(Request::Prices {}).await
    }

    /// What a CU of `class` cost, oldest first: minutes of a day or hours of a year.
    pub async fn price_history(
        &self,
        class: PriceClass,
        every: PriceRing,
    ) -> Result<Vec<PricePoint>, ErrorBody> {
        let mut points: Vec<PricePoint> = Vec::new();
        loop {
            let last = points.last().map(|point| point.at);
            let page: Vec<PricePoint> = self
                .ask(Request::PriceHistory {
                    class,
                    every,
                    from: last.map_or(Timestamp::from_ms(0), |at| at.plus_ms(1)),
                    limit: MAX_ROWS,
                })
                .await?;
            let is_last = page.len() < MAX_ROWS as usize;
            points.extend(page);
            if is_last || points.len() as u64 > every.points() {
                return Ok(points);
            }
        }
    }

    /// What nodes achieved in past runs, or what one did, newest first: a page of at most 1000, from before `before` on.
    pub async fn runs(
        &self,
        node: Option<NodeId>,
        before: Option<RunKey>,
    ) -> Result<Vec<RunStatistic>, ErrorBody> {
        let limit = MAX_ROWS;
        self.ask(Request::Runs {
            node,
            before,
            limit,
        })
        .await
    }

    /// What an owner's nodes have shown, oldest first: the first page, or the one after a piece.
    pub async fn evidence(
        &self,
        owner: AccountId,
        after: Option<EvidenceKey>,
    ) -> Result<Vec<EvidenceRecord>, ErrorBody> {
        let limit = MAX_ROWS;
        self.ask(Request::Evidence {
            owner,
            after,
            limit,
        })
        .await
    }

    /// What is known of the links between miners, or of one node's.
    pub async fn links(&self, node: Option<NodeId>) -> Result<Vec<LinkView>, ErrorBody> {
        self.ask(Request::Links { node }).await
    }

    /// Nodes that ask to work for this account.
    pub async fn enrolment_requests(&self) -> Result<Vec<EnrolmentRequest>, ErrorBody> {
        self.ask(Request::EnrolmentRequests {}).await
    }

    /// Which miners could do a task of this account's, which would be chosen now, and why not the others.
    pub async fn explain(&self, task: TaskId) -> Result<Explanation, ErrorBody> {
        self.ask(Request::Explain { task }).await
    }

    /// Why this account's miners have no work.
    pub async fn why_no_work(&self) -> Result<Vec<WorkVerdict>, ErrorBody> {
        self.ask(Request::WhyNoWork {}).await
    }

    /// Nodes that work for this account, and those whose time is over.
    pub async fn delegations(&self) -> Result<Vec<DelegationView>, ErrorBody> {
        self.ask(Request::Delegations {}).await
    }
}

fn timed_out(task: TaskId, limit: Duration) -> ErrorBody {
    ErrorBody::network(
        "wait_timeout",
        format!(
            "the task has not ended within {} s; it goes on",
            limit.as_secs()
        ),
    )
    .with_help(format!("wait longer: cryptomind task wait {task}"))
}

/// Changing. Each call signs one transaction, which takes effect once however often it is sent.
impl Client {
    /// Signs and submits `action` under a fresh id, valid for [`DEFAULT_VALIDITY_MS`].
    ///
    /// After an error of class network the outcome is unknown: the transaction may have arrived.
    pub async fn submit(&self, action: Action) -> Result<Accepted, ErrorBody> {
        let transaction = self.transaction(action)?;
        self.submit_signed(self.sign(&transaction)).await
    }

    /// A transaction of this account under a fresh id, that allows for what the network charges.
    pub fn transaction(&self, action: Action) -> Result<Transaction, ErrorBody> {
        Ok(Transaction {
            version: 1,
            id: crate::random::new_nonce()?,
            account: self.inner.account,
            valid_until: self.now().plus_ms(DEFAULT_VALIDITY_MS),
            max_fee: self.fee(&action),
            action,
        })
    }

    /// A transaction in its signed form, for [`Client::submit_signed`].
    pub fn sign(&self, transaction: &Transaction) -> Signed {
        Signed::sign(transaction, &self.inner.network, &self.link().key)
    }

    /// Submits a transaction that was signed before. The same bytes always get the same answer.
    pub async fn submit_signed(&self, transaction: Signed) -> Result<Accepted, ErrorBody> {
        self.ask(Request::Submit { transaction }).await
    }

    /// Takes a nickname for this account, once.
    pub async fn register(&self, nickname: &str) -> Result<(), ErrorBody> {
        let nickname = nickname.to_owned();
        match self.submit(Action::Register { nickname }).await?.outcome {
            Outcome::Registered { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Receives test money, on a development network. Gives the amount.
    pub async fn faucet(&self) -> Result<Amount, ErrorBody> {
        self.moved(Action::Faucet {}).await
    }

    /// Sends tokens to another account. Gives the payment's place in the chain.
    pub async fn send(&self, to: AccountId, amount: Amount) -> Result<ReceiptId, ErrorBody> {
        let accepted = self.submit(Action::Send { to, amount }).await?;
        match accepted.outcome {
            Outcome::Moved { .. } => Ok(accepted.receipt),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes `new` the account's key: the present one signs nothing any more. This client's connection ends with it.
    pub async fn rotate_key(&self, new: &SecretKey) -> Result<ReceiptId, ErrorBody> {
        let proof = sign_rotation(&self.inner.network, &self.inner.account, new);
        let key = new.public();
        let accepted = self.submit(Action::RotateKey { key, proof }).await?;
        match accepted.outcome {
            Outcome::Rotated { .. } => Ok(accepted.receipt),
            other => Err(unexpected(&other)),
        }
    }

    async fn moved(&self, action: Action) -> Result<Amount, ErrorBody> {
        match self.submit(action).await?.outcome {
            Outcome::Moved { amount } => Ok(amount),
            other => Err(unexpected(&other)),
        }
    }

    /// Publishes an item whose files were uploaded ([`Client::upload`]), with one receipt a file.
    pub async fn publish(
        &self,
        manifest: Manifest,
        receipts: Vec<StoredReceipt>,
    ) -> Result<ItemId, ErrorBody> {
        manifest.check().map_err(|e| {
            ErrorBody::user("bad_manifest", e).with_help("change what the message names")
        })?;
        let accepted = self.submit(Action::Publish { manifest, receipts }).await?;
        match accepted.outcome {
            Outcome::Published { item } => Ok(item),
            other => Err(unexpected(&other)),
        }
    }

    /// Posts a task: its whole cap goes into a hold. Gives its id and what is held.
    pub async fn post(&self, spec: TaskSpec) -> Result<(TaskId, Amount), ErrorBody> {
        spec.check().map_err(|e| ErrorBody::user("bad_task", e))?;
        match self.submit(Action::Post { spec }).await?.outcome {
            Outcome::Posted { task, held } => Ok((task, held)),
            other => Err(unexpected(&other)),
        }
    }

    /// Cancels a task: what was earned is paid, the rest comes back.
    pub async fn cancel(&self, task: TaskId) -> Result<(), ErrorBody> {
        match self.submit(Action::Cancel { task }).await?.outcome {
            Outcome::Cancelling { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives the miners of a finished task 1 to 5 stars, once.
    pub async fn rate(&self, task: TaskId, stars: u8) -> Result<(), ErrorBody> {
        match self.submit(Action::Rate { task, stars }).await?.outcome {
            Outcome::Rated { .. } => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets a node work for this account in `role`, until a block time. Said
    /// again, it replaces what was said before.
    pub async fn delegate(
        &self,
        node: NodeId,
        role: Role,
        expires: Timestamp,
    ) -> Result<ReceiptId, ErrorBody> {
        let action = Action::Delegate {
            node,
            role,
            expires,
        };
        let accepted = self.submit(action).await?;
        match accepted.outcome {
            Outcome::Delegated { .. } => Ok(accepted.receipt),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends a node's work for this account: its connection ends, and what it earned stays earned.
    pub async fn revoke(&self, node: NodeId) -> Result<ReceiptId, ErrorBody> {
        let accepted = self.submit(Action::Revoke { node }).await?;
        match accepted.outcome {
            Outcome::Revoked { .. } => Ok(accepted.receipt),
            other => Err(unexpected(&other)),
        }
    }
}

fn unexpected(outcome: &Outcome) -> ErrorBody {
    ErrorBody::internal(format!(
        "the coordinator answered another action: {outcome:?}"
    ))
}

/// Coordinator's clock minus ours, milliseconds, by an answer to what was asked at `asked`.
fn drift(asked: u64, status: &NetworkStatus) -> i64 {
    let middle = asked.midpoint(local_ms());
    status.now.as_ms() as i64 - middle as i64
}

fn local_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
