//! The clients' door: questions and transactions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_core::journal::{EventRecord, NodeRecord};
use cryptomind_core::ledger::Delegation;
use cryptomind_core::run::Run;
use cryptomind_net::{Connection, Exchange, Sender};
use cryptomind_protocol::api::{
    AccountView, DelegationView, Explanation, LinkView, MAX_ROWS, METHODS, MinerView,
    NetworkStatus, Placement, Request, WorkVerdict,
};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::item::{Access, ItemView, MAX_FILE_BYTES};
use cryptomind_protocol::node::Ack;
use cryptomind_protocol::probe::{LinkReport, MAX_REPORTS};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::{Event, Quote, TaskEvent, TaskSpec, TaskState, TaskView};
use cryptomind_protocol::{
    AccountId, BlobId, ErrorBody, ErrorClass, ItemId, NodeId, PublicKey, TaskId,
};
use cryptomind_storage::run::numbered_key;
use cryptomind_storage::state::after_prefix;
use serde::Serialize;

use super::door::Permit;
use super::{Office, ledger, views};
use crate::catalog::{CATALOG_LIMIT, CatalogMsg, ItemName};
use crate::clock;
use crate::ledger::{LEDGER_LIMIT, LedgerMsg};
use crate::matchmaker::{MATCHMAKER_LIMIT, MatchmakerMsg};
use crate::rating::{RATING_LIMIT, RatingMsg};

/// Events that are read from the store at a time for one watcher.
const EVENTS_AT_ONCE: usize = 64;

/// Answers one request of a client.
pub(super) async fn answer(
    office: Arc<Office>,
    connection: Connection,
    exchange: Exchange,
    permit: Permit,
) {
    let key = connection.peer();
    let known = office.directory.account_of(&key);
    let request = exchange.decode::<Request>(&METHODS);
    let (me, request) = match known.and_then(|me| Ok((me, request?))) {
        Ok(both) => both,
        Err(refusal) => return exchange.answer(Err::<Ack, _>(refusal)).await,
    };
    match request {
        Request::Status {} => exchange.answer(office.status(me).await).await,
        Request::Submit { transaction } => {
            exchange.answer(office.submit(key, transaction).await).await;
        }
        Request::Account { account, nickname } => {
            exchange
                .answer(office.account(me, account, nickname).await)
                .await;
        }
        Request::History { before, limit } => {
            exchange
                .answer(office.history(me, before, limit).await)
                .await;
        }
        Request::Items { kind, limit } => {
            exchange
                .answer(office.items(kind, limit.min(MAX_ROWS)).await)
                .await;
        }
        Request::Item { item, path } => exchange.answer(office.item(item, path).await).await,
        Request::Place { bytes } => exchange.answer(office.room(key, bytes)).await,
        Request::Locate { item, task } => {
            exchange
                .answer(office.locate(me, key, item, task).await)
                .await;
        }
        Request::Quote { spec } => exchange.answer(office.quote(me, *spec).await).await,
        Request::Task { task } => {
            exchange
                .answer(office.task(me, task).map(views::task))
                .await
        }
        Request::Explain { task } => exchange.answer(office.explain(me, task).await).await,
        Request::Tasks { state, limit } => exchange.answer(office.tasks(me, state, limit)).await,
        Request::Watch { task, from } => match office.task(me, task) {
            Ok(_) => {
                drop(permit);
                watch(&office, &connection, exchange.into_stream().0, task, from).await;
            }
            Err(refusal) => exchange.answer(Err::<Ack, _>(refusal)).await,
        },
        Request::Miners {} => exchange.answer(office.miners().await).await,
        Request::Evidence {
            owner,
            after,
            limit,
        } => {
            let evidence = |reply| RatingMsg::EvidenceOf {
                owner,
                after,
                limit,
                reply,
            };
            let found = office.rating.call(evidence, RATING_LIMIT).await;
            exchange.answer(found.and_then(|found| found)).await;
        }
        Request::WhyNoWork {} => exchange.answer(office.why_no_work(me).await).await,
        Request::Prices {} => exchange.answer(office.prices().await).await,
        Request::PriceHistory {
            class,
            every,
            from,
            limit,
        } => {
            exchange
                .answer(office.price_history(class, every, from, limit))
                .await;
        }
        Request::Runs {
            node,
            before,
            limit,
        } => exchange.answer(office.runs(node, before, limit)).await,
        Request::Links { node } => exchange.answer(office.links(node)).await,
        Request::ReportLinks { reports } => {
            let heard = office.client_reported((me, connection.rtt()), &reports);
            exchange.answer(heard).await;
        }
        Request::Knock { node, port } => {
            exchange
                .answer(office.knock(&connection, node, port).await)
                .await;
        }
        Request::EnrolmentRequests {} => {
            exchange
                .answer(Ok(office.enrolments.of(me, clock::now())))
                .await;
        }
        Request::Ledger {} => exchange.answer(office.ledger_status().await).await,
        Request::Block { height } => exchange.answer(office.block(height)).await,
        Request::Receipt { receipt } => exchange.answer(office.receipt(receipt)).await,
        Request::Follow { from } => {
            drop(permit);
            ledger::follow(&office, &connection, exchange.into_stream().0, from).await;
        }
        Request::Delegations {} => exchange.answer(office.delegations(me)).await,
    }
}

impl Office {
    async fn status(&self, me: AccountId) -> Result<NetworkStatus, ErrorBody> {
        let totals = self.ledger.call(LedgerMsg::TotalsOf, LEDGER_LIMIT).await?;
        let counts = self
            .matchmaker
            .call(MatchmakerMsg::CountsOf, MATCHMAKER_LIMIT)
            .await?;
        Ok(NetworkStatus {
            network: self.network,
            account: me,
            genesis: self.genesis.clone(),
            now: self.clock.now(),
            miners: counts.miners as u32,
            miners_free: counts.miners_free as u32,
            storage_nodes: self.links.of_role(Role::Storage).len() as u32,
            supply: totals.supply,
            held: totals.held,
            open_tasks: counts.open_tasks as u32,
            unit_price: counts.unit_price,
        })
    }

    async fn account(
        &self,
        me: AccountId,
        account: Option<AccountId>,
        nickname: Option<String>,
    ) -> Result<AccountView, ErrorBody> {
        let account = match (account, nickname) {
            (Some(account), _) => account,
            (None, Some(nickname)) => {
                let question = |reply| CatalogMsg::AccountOf(nickname, reply);
                self.catalog.call(question, CATALOG_LIMIT).await??
            }
            (None, None) => me,
        };
        let balances = |reply| LedgerMsg::BalancesOf(account, reply);
        let balances = self.ledger.call(balances, LEDGER_LIMIT).await?;
        let nickname = self.nicknames(vec![account]).await?.pop().flatten();
        let crate::ledger::Balances {
            available,
            held,
            earning,
            locked,
            unlocks,
            withheld: _,
        } = balances;
        Ok(AccountView {
            account,
            nickname,
            available,
            held,
            earning,
            locked,
            unlocks,
        })
    }

    pub(super) async fn nicknames(
        &self,
        accounts: Vec<AccountId>,
    ) -> Result<Vec<Option<String>>, ErrorBody> {
        let question = |reply| CatalogMsg::NicknamesOf(accounts, reply);
        self.catalog.call(question, CATALOG_LIMIT).await
    }

    async fn items(&self, kind: Option<String>, limit: u32) -> Result<Vec<ItemView>, ErrorBody> {
        let question = |reply| CatalogMsg::ItemsOf(kind, limit, reply);
        self.catalog.call(question, CATALOG_LIMIT).await?
    }

    async fn item(
        &self,
        item: Option<ItemId>,
        path: Option<String>,
    ) -> Result<ItemView, ErrorBody> {
        let name = match (item, path) {
            (Some(id), _) => ItemName::Id(id),
            (None, Some(path)) => ItemName::Path(path),
            (None, None) => {
                return Err(ErrorBody::user(
                    "malformed_request",
                    "name an item, by id or by path",
                ));
            }
        };
        let question = |reply| CatalogMsg::ViewOf(name, reply);
        self.catalog.call(question, CATALOG_LIMIT).await?
    }

    /// Where `bytes` may be put.
    fn room(&self, key: PublicKey, bytes: u64) -> Result<Placement, ErrorBody> {
        if bytes > MAX_FILE_BYTES {
            let message = format!("{bytes} bytes: at most {MAX_FILE_BYTES} are taken at once");
            return Err(ErrorBody::user("too_large", message));
        }
        let sources = self.sources()?;
        Ok(Placement {
            sources,
            ticket: self.tickets.put(key, bytes, clock::now()),
        })
    }

    fn sources(&self) -> Result<Vec<cryptomind_protocol::blob::Source>, ErrorBody> {
        let sources = self.links.sources();
        if sources.is_empty() {
            let message = "no storage node is online";
            return Err(ErrorBody::new(ErrorClass::Capacity, "no_storage", message)
                .with_help("start one: cryptomind --role storage --join cm://… --account cm1…")
                .with_retry_after_ms(2000));
        }
        Ok(sources)
    }

    async fn locate(
        &self,
        me: AccountId,
        key: PublicKey,
        item: Option<ItemId>,
        task: Option<TaskId>,
    ) -> Result<Placement, ErrorBody> {
        let blobs: Vec<BlobId> = match (item, task) {
            (Some(item), _) => self.readable(me, self.item(Some(item), None).await?)?,
            (None, Some(task)) => {
                let files = self.task(me, task)?.result.map(|(files, _)| files);
                files
                    .unwrap_or_default()
                    .into_iter()
                    .map(|file| file.blob)
                    .collect()
            }
            (None, None) => {
                return Err(ErrorBody::user(
                    "malformed_request",
                    "name an item or a task",
                ));
            }
        };
        let ticket = self.tickets.get(key, blobs, clock::now());
        Ok(Placement {
            sources: self.sources()?,
            ticket,
        })
    }

    /// A paid item is used by tasks, each for its fee; its files are its owner's alone.
    fn readable(&self, me: AccountId, item: ItemView) -> Result<Vec<BlobId>, ErrorBody> {
        let path = item.path();
        match item.manifest.access {
            Access::Free => {}
            _ if item.owner == me => {}
            Access::Paid { fee } => {
                let message = format!("`{path}` is used by tasks for {fee} a use, not downloaded");
                return Err(ErrorBody::auth("item_paid", message)
                    .with_help("name it in a task file: cryptomind task submit FILE"));
            }
            Access::Owner => {
                let message = format!("`{path}` may be used by its owner alone");
                return Err(ErrorBody::auth("item_closed", message));
            }
        }
        Ok(item
            .manifest
            .files
            .into_iter()
            .map(|file| file.blob)
            .collect())
    }

    async fn quote(&self, account: AccountId, spec: TaskSpec) -> Result<Quote, ErrorBody> {
        let materials = Box::new(self.materials(&spec).await?);
        let spec = Box::new(spec);
        let question = |reply| MatchmakerMsg::QuoteOf {
            account,
            spec,
            materials,
            reply,
        };
        self.matchmaker.call(question, MATCHMAKER_LIMIT).await?
    }

    /// A task of the caller's own.
    fn task(&self, me: AccountId, task: TaskId) -> Result<Run, ErrorBody> {
        let stored = self
            .store
            .get::<Run>(task.as_bytes())
            .map_err(ErrorBody::internal)?;
        stored.filter(|run| run.client == me).ok_or_else(|| {
            ErrorBody::not_found("task", format!("you have no task {task}"))
                .with_help("see `cryptomind task ls`")
        })
    }

    async fn explain(&self, me: AccountId, task: TaskId) -> Result<Explanation, ErrorBody> {
        let run = Box::new(self.task(me, task)?);
        let explain = |reply| MatchmakerMsg::Explain(run, reply);
        self.matchmaker.call(explain, MATCHMAKER_LIMIT).await?
    }

    async fn why_no_work(&self, me: AccountId) -> Result<Vec<WorkVerdict>, ErrorBody> {
        let why = |reply| MatchmakerMsg::WhyNoWork(me, reply);
        self.matchmaker.call(why, MATCHMAKER_LIMIT).await?
    }

    fn tasks(
        &self,
        me: AccountId,
        state: Option<TaskState>,
        limit: u32,
    ) -> Result<Vec<TaskView>, ErrorBody> {
        let all = self.store.load::<Run>().map_err(ErrorBody::internal)?;
        let wanted = |run: &Run| run.client == me && state.is_none_or(|s| s == run.state);
        let mut mine: Vec<_> = all.into_iter().filter(wanted).collect();
        mine.sort_by_key(|run| std::cmp::Reverse((run.posted, run.task)));
        mine.truncate(limit.min(MAX_ROWS) as usize);
        Ok(mine.into_iter().map(views::task).collect())
    }

    async fn miners(&self) -> Result<Vec<MinerView>, ErrorBody> {
        let mut miners = self
            .matchmaker
            .call(MatchmakerMsg::MinersOf, MATCHMAKER_LIMIT)
            .await??;
        let names = self
            .nicknames(miners.iter().map(|m| m.owner).collect())
            .await?;
        for (miner, name) in miners.iter_mut().zip(names) {
            miner.owner_name = name.unwrap_or_else(|| miner.owner.short());
        }
        Ok(miners)
    }

    fn links(&self, node: Option<NodeId>) -> Result<Vec<LinkView>, ErrorBody> {
        let pairs = self.surveyor.pairs(node, MAX_ROWS as usize);
        let ends = pairs.iter().flat_map(|(pair, _)| [pair.a, pair.b]);
        let nodes: BTreeSet<NodeId> = ends.filter_map(views::node).collect();
        let named = |node| Ok((node, self.node_name(node)?));
        let names = nodes
            .into_iter()
            .map(named)
            .collect::<Result<_, ErrorBody>>()?;
        let now = clock::now();
        let view = |(pair, link)| views::link(pair, link, &names, now);
        Ok(pairs.into_iter().filter_map(view).collect())
    }

    /// What a client saw of its ways to storage nodes and to this coordinator.
    fn client_reported(
        &self,
        client: (AccountId, Duration),
        reports: &[LinkReport],
    ) -> Result<Ack, ErrorBody> {
        if reports.len() > MAX_REPORTS {
            let message = format!("at most {MAX_REPORTS} reports at once");
            return Err(ErrorBody::user("too_many_reports", message));
        }
        self.surveyor.hear_client(client, reports);
        Ok(Ack {})
    }

    /// The name that a node joined with.
    fn node_name(&self, node: NodeId) -> Result<String, ErrorBody> {
        if node == self.node {
            return Ok(self.name.clone());
        }
        let record = self.store.get::<NodeRecord>(node.as_bytes());
        let record = record.map_err(ErrorBody::internal)?;
        Ok(record.map_or_else(|| node.short(), |record| record.name))
    }

    fn delegations(&self, me: AccountId) -> Result<Vec<DelegationView>, ErrorBody> {
        let view = |delegation: Delegation| {
            let record = self.store.get::<NodeRecord>(delegation.node.as_bytes());
            let record = record.map_err(ErrorBody::internal)?;
            Ok(DelegationView {
                node: delegation.node,
                name: record.map(|record| record.name),
                role: delegation.role,
                expires: delegation.expires,
            })
        };
        let own = self.directory.delegations_of(me).into_iter();
        own.map(view).collect()
    }
}

/// Streams a task's events from `from` on, until its last or until the client leaves.
async fn watch(
    office: &Office,
    connection: &Connection,
    mut sender: Sender,
    task: TaskId,
    from: u64,
) {
    let mut news = office.watchers.follow(task);
    let mut next = from;
    loop {
        match send_events(office, &mut sender, task, &mut next).await {
            Ok(Progress::Ended) => return drop(sender.finish().await),
            Ok(Progress::Sent) => continue,
            Ok(Progress::CaughtUp) => {}
            Err(error) => return report(&mut sender, error).await,
        }
        tokio::select! {
            changed = news.changed() => if changed.is_err() { return },
            () = sender.stopped() => return,
            _ = connection.closed() => return,
        }
    }
}

enum Progress {
    Sent,
    CaughtUp,
    Ended,
}

async fn send_events(
    office: &Office,
    sender: &mut Sender,
    task: TaskId,
    next: &mut u64,
) -> Result<Progress, ErrorBody> {
    let (first, end) = (numbered_key(&task, *next), after_prefix(task.as_bytes()));
    let events = office
        .store
        .range::<EventRecord>(&first, &end, EVENTS_AT_ONCE, false);
    let mut events = events.map_err(ErrorBody::internal)?;
    let mut progress = Progress::CaughtUp;
    add_timeline(office, task, &mut events)?;
    if events.is_empty() && has_ended(office, task, *next)? {
        return Ok(Progress::Ended);
    }
    for EventRecord {
        number, at, event, ..
    } in events
    {
        let last = matches!(event, Event::Settled { .. });
        send(sender, TaskEvent { number, at, event }).await?;
        *next = number + 1;
        progress = if last {
            Progress::Ended
        } else {
            Progress::Sent
        };
    }
    Ok(progress)
}

/// Whether there is nothing to come from event `next` on.
/// The newest progress event gets its timeline back: the run keeps it, and no other.
fn add_timeline(
    office: &Office,
    task: TaskId,
    events: &mut [EventRecord],
) -> Result<(), ErrorBody> {
    let newest = events
        .iter_mut()
        .rev()
        .find_map(|record| match &mut record.event {
            Event::Progress { step, timeline, .. } => Some((*step, timeline)),
            _ => None,
        });
    let Some((step, timeline)) = newest else {
        return Ok(());
    };
    let run = office.store.get::<Run>(task.as_bytes());
    let run = run.map_err(ErrorBody::internal)?;
    // Of a later step, it goes with that step's event.
    if let Some(run) = run.filter(|run| run.progress_step == step) {
        *timeline = run.timeline;
    }
    Ok(())
}

fn has_ended(office: &Office, task: TaskId, next: u64) -> Result<bool, ErrorBody> {
    let run = office
        .store
        .get::<Run>(task.as_bytes())
        .map_err(ErrorBody::internal)?;
    Ok(run.is_none_or(|run| run.state.is_final() && next >= run.events))
}

pub(super) async fn send<T: Serialize>(sender: &mut Sender, value: T) -> Result<(), ErrorBody> {
    sender.frame(&Answer::Ok(value)).await
}

pub(super) async fn report(sender: &mut Sender, error: ErrorBody) {
    // A client that is gone does not hear it.
    drop(sender.frame(&Answer::<Ack>::Error(error)).await);
}
