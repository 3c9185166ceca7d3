//! The nodes' door: miners and storage nodes enrol, join, offer and report.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_core::journal::NodeRecord;
use cryptomind_core::ledger::Delegation;
use cryptomind_core::succession::Proof;
use cryptomind_core::{audit, selftest, serve};
use cryptomind_net::{Connection, Exchange, Sender};
use cryptomind_protocol::address::is_host_port;
use cryptomind_protocol::api::EnrolmentRequest;
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::item::{MAX_FILE_BYTES, MAX_FILES, is_file_name};
use cryptomind_protocol::node::{Ack, Command, Enrolment, Join, METHODS, Report, Request};
use cryptomind_protocol::probe::{Echo, LinkReport, MAX_REPORTS};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::succession::Decision;
use cryptomind_protocol::task::ResultFile;
use cryptomind_protocol::timeline::{MAX_SPANS, Span};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{AccountId, ErrorBody, GenesisHash, NodeAddress, NodeId, Signed, TaskId};
use cryptomind_storage::state::Batch;
use tokio::sync::mpsc;

use super::Office;
use super::door::Permit;
use super::surveyor::News;
use crate::clock;
use crate::matchmaker::{MATCHMAKER_LIMIT, MatchmakerMsg};

/// How often a connected node's delegation is looked at, beside its end and its revocation.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// When a node that has not joined may try again, milliseconds.
const NOT_JOINED_RETRY_MS: u64 = 500;
/// The most characters of a node's name.
const MAX_NAME_CHARS: usize = 64;
/// The most devices that a node may name, and characters of each.
const MAX_DEVICES: usize = 32;
/// The most characters of a reason.
const MAX_REASON_CHARS: usize = 300;

/// Answers one request of a node.
pub(super) async fn answer(
    office: Arc<Office>,
    connection: Connection,
    exchange: Exchange,
    permit: Permit,
) {
    let node = connection.peer_node();
    match exchange.decode::<Request>(&METHODS) {
        Ok(Request::Join(join)) => {
            drop(permit);
            office.join(&connection, *join, exchange).await;
        }
        Ok(Request::Enrol { owner, role, name }) => {
            let address = connection.remote().to_string();
            let request = EnrolmentRequest {
                node,
                name: plain(&name),
                role,
                address,
            };
            exchange.answer(office.enrol(owner, request)).await;
        }
        Ok(Request::Links { reports, echoes }) => {
            let rtt = connection.rtt();
            let heard = office.links_reported((node, rtt), reports, echoes);
            exchange.answer(heard).await;
        }
        Ok(request) => exchange.answer(office.news(node, request).await).await,
        Err(refusal) => exchange.answer(Err::<Ack, _>(refusal)).await,
    }
}

/// A name from outside, fit for a table: no control characters, not too long.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control())
        .take(MAX_NAME_CHARS)
        .collect()
}

impl Office {
    fn enrol(&self, owner: AccountId, request: EnrolmentRequest) -> Result<Enrolment, ErrorBody> {
        match self.delegated(owner, request.node, request.role) {
            Ok(delegation) => Ok(Enrolment::Granted {
                expires: delegation.expires,
            }),
            Err(_) => {
                self.enrolments.ask(owner, request, clock::now())?;
                Ok(Enrolment::Pending {})
            }
        }
    }

    /// Whether `node` works for `owner` in `role`, by the ledger.
    pub(super) fn delegated(
        &self,
        owner: AccountId,
        node: NodeId,
        role: Role,
    ) -> Result<Delegation, ErrorBody> {
        let known = self.directory.delegation(owner, node);
        let valid = known.filter(|delegation| delegation.covers(role, self.clock.now()));
        valid.ok_or_else(|| {
            let message = format!(
                "{} does not let {} work for it as a {role}",
                owner,
                node.short()
            );
            ErrorBody::auth("not_delegated", message).with_help(format!(
                "its owner says yes with: cryptomind miner approve {node}"
            ))
        })
    }

    async fn join(&self, connection: &Connection, join: Join, exchange: Exchange) {
        let record = match self.record(connection, &join).await {
            Ok(record) => record,
            Err(refusal) => return exchange.answer(Err::<Ack, _>(refusal)).await,
        };
        let (node, name, role) = (record.node, record.name.clone(), record.role);
        let probe = join.probe.as_deref().and_then(|text| text.parse().ok());
        let (session, commands) = self
            .links
            .enter(record, join.activity, connection.remote().ip());
        tracing::info!(%node, name, %role, "joined");
        if role == Role::Storage {
            self.surveyor.enter_store(node);
        }
        if role == Role::Miner {
            self.surveyor.enter(node, connection.remote().ip(), probe);
            // A matchmaker that is being restarted looks at the links itself.
            drop(self.matchmaker.cast(MatchmakerMsg::Joined {
                node,
                position: join.running,
            }));
        }
        let (sender, _) = exchange.into_stream();
        let why = tokio::select! {
            why = stream(connection, sender, commands) => why,
            refusal = self.until_undelegated(join.owner, node, role) => refusal.message,
        };
        if self.links.leave(node, session) {
            tracing::info!(%node, name, why, "left");
            self.surveyor.leave(&node);
            drop(self.matchmaker.cast(MatchmakerMsg::Left(node)));
        }
        // Nobody speaks for a place that is given up.
        connection.close(&why);
    }

    /// Waits until the node no longer works for its owner: a delegation expires, or is shortened or revoked.
    async fn until_undelegated(&self, owner: AccountId, node: NodeId, role: Role) -> ErrorBody {
        loop {
            let expires = match self.delegated(owner, node, role) {
                Ok(delegation) => delegation.expires,
                Err(refusal) => return refusal,
            };
            let left = Duration::from_millis(expires.ms_since(self.clock.now()));
            // Until its end; a word that was changed meanwhile is seen at the next look.
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
        }
    }

    /// Checks a join and writes the node down.
    async fn record(&self, connection: &Connection, join: &Join) -> Result<NodeRecord, ErrorBody> {
        let node = connection.peer_node();
        let role = if join.listen.is_some() {
            Role::Storage
        } else {
            Role::Miner
        };
        let owner = join.owner;
        self.delegated(owner, node, role)?;
        join.listen.as_deref().map_or(Ok(()), check_address)?;
        join.probe.as_deref().map_or(Ok(()), check_probe)?;
        let mut capacity = join.capacity.clone();
        let (mut steps, mut machine) = (Vec::new(), None);
        if role == Role::Miner {
            let shown = join.selftest.as_ref();
            let report = selftest::open(shown, &self.network, node, clock::now())?;
            // What a node says without signing it counts for less.
            capacity.mflops = report.work.mflops();
            capacity.threads = report.machine.threads;
            capacity.memory_bytes = selftest::memory(capacity.memory_bytes, &report);
            steps = selftest::kept_paces(&report.work);
            machine = Some(report.machine);
        }
        capacity.devices.truncate(MAX_DEVICES);
        capacity
            .devices
            .iter_mut()
            .for_each(|device| *device = plain(device));
        let address = join
            .listen
            .as_deref()
            .map(|listen| seen_address(listen, connection));
        let name = plain(&join.name);
        let seen = clock::now();
        let record = NodeRecord {
            node,
            name,
            role,
            owner,
            address,
            capacity,
            reserve: join.reserve,
            steps,
            machine,
            seen,
        };
        let mut batch = Batch::new();
        batch.put(&record);
        self.store
            .commit(batch)
            .await
            .map_err(ErrorBody::internal)?;
        Ok(record)
    }

    /// What a node measured, and who measured it. Nothing of it is kept longer than it counts.
    fn links_reported(
        &self,
        (node, rtt): (NodeId, Duration),
        reports: Vec<LinkReport>,
        echoes: Vec<Echo>,
    ) -> Result<Ack, ErrorBody> {
        if reports.len().max(echoes.len()) > MAX_REPORTS {
            let message = format!("at most {MAX_REPORTS} reports, and as many echoes, at once");
            return Err(ErrorBody::user("too_many_reports", message));
        }
        // Only storage nodes deal with clients; whose key it is that called them, the ledger knows.
        let is_store = self.links.has(&node, Role::Storage);
        let is_client = |to: &NodeId| is_store && self.links.get(to).is_none();
        let (clients, reports): (Vec<_>, _) = reports.into_iter().partition(|r| is_client(&r.to));
        let account = |report: LinkReport| {
            let account = self.directory.account_of(&report.to.key()).ok()?;
            Some((account, report))
        };
        self.surveyor.hear(&News {
            node,
            rtt,
            reports,
            clients: clients.into_iter().filter_map(account).collect(),
            echoes,
        });
        Ok(Ack {})
    }

    async fn news(&self, node: NodeId, request: Request) -> Result<Ack, ErrorBody> {
        if self.links.get(&node).is_none() {
            return Err(not_joined());
        }
        let told = match request {
            Request::Offer { task, ring_address } => {
                check_address(&ring_address)?;
                let offered = |reply| MatchmakerMsg::Offered {
                    node,
                    task,
                    ring_address,
                    reply,
                };
                self.matchmaker.call(offered, MATCHMAKER_LIMIT).await
            }
            Request::Decline { task, reason } => {
                let reason = short(&reason);
                let declined = |reply| MatchmakerMsg::Declined {
                    node,
                    task,
                    reason,
                    reply,
                };
                self.matchmaker.call(declined, MATCHMAKER_LIMIT).await
            }
            Request::Report {
                task,
                attempt,
                report,
            } => self.report(node, task, attempt, report).await,
            Request::Succeeded { task, decision } => {
                let proof = proof(&decision, &self.network)?;
                let succeeded = |reply| MatchmakerMsg::Succeeded {
                    node,
                    task,
                    proof,
                    reply,
                };
                self.matchmaker.call(succeeded, MATCHMAKER_LIMIT).await
            }
            Request::Activity { from, to, task } => {
                let change = |reply| MatchmakerMsg::Activity {
                    node,
                    from,
                    to,
                    task,
                    reply,
                };
                self.matchmaker.call(change, MATCHMAKER_LIMIT).await
            }
            Request::Enrol { .. } | Request::Join(_) | Request::Links { .. } => {
                return Err(ErrorBody::internal("handled before"));
            }
        };
        told?.map(|()| Ack {})
    }

    async fn report(
        &self,
        node: NodeId,
        task: TaskId,
        attempt: u32,
        report: Report,
    ) -> Result<Result<(), ErrorBody>, ErrorBody> {
        let report = vetted(report)?;
        if let Report::Served {
            acknowledgement,
            left,
        } = report
        {
            return self
                .served(node, (task, attempt), acknowledgement.as_ref(), left)
                .await;
        }
        if let Report::Committed { commitments } = report {
            return self.committed(node, (task, attempt), commitments).await;
        }
        let stored_by = match &report {
            Report::Checkpoint {
                stored: Some((file, receipt)),
                ..
            } => Some(self.stored_by(std::slice::from_ref(file), std::slice::from_ref(receipt))?),
            Report::Finished {
                files, receipts, ..
            } => Some(self.stored_by(files, receipts)?),
            _ => None,
        };
        let report = Box::new(report);
        let told = |reply| MatchmakerMsg::Reported {
            node,
            task,
            attempt,
            report,
            stored_by,
            reply,
        };
        self.matchmaker.call(told, MATCHMAKER_LIMIT).await
    }

    async fn served(
        &self,
        node: NodeId,
        (task, attempt): (TaskId, u32),
        acknowledgement: Option<&Signed>,
        left: bool,
    ) -> Result<Result<(), ErrorBody>, ErrorBody> {
        let opened = acknowledgement.map(|signed| serve::open(signed, &self.network));
        let shown = opened.transpose()?;
        let told = |reply| MatchmakerMsg::Served {
            node,
            task,
            attempt,
            shown,
            left,
            reply,
        };
        self.matchmaker.call(told, MATCHMAKER_LIMIT).await
    }

    async fn committed(
        &self,
        node: NodeId,
        (task, attempt): (TaskId, u32),
        commitments: Signed,
    ) -> Result<Result<(), ErrorBody>, ErrorBody> {
        let opened = audit::open(commitments, &self.network, node, (task, attempt))?;
        let opened = Box::new(opened);
        let told = |reply| MatchmakerMsg::Committed {
            node,
            task,
            opened,
            reply,
        };
        self.matchmaker.call(told, MATCHMAKER_LIMIT).await
    }

    /// The owner of the storage node that acknowledged these files.
    fn stored_by(
        &self,
        files: &[ResultFile],
        receipts: &[StoredReceipt],
    ) -> Result<AccountId, ErrorBody> {
        let refuse = |message: String| Err(ErrorBody::user("file_not_stored", message));
        let mut owner = None;
        for file in files {
            let fits = |r: &&StoredReceipt| r.blob == file.blob && r.bytes == file.bytes;
            let Some(receipt) = receipts.iter().find(fits).filter(|r| r.is_signed()) else {
                return refuse(format!("no storage node acknowledged `{}`", file.name));
            };
            let stored = self.store.get::<NodeRecord>(receipt.node.as_bytes());
            let record = stored.map_err(ErrorBody::internal)?;
            match record.filter(|record| record.role == Role::Storage) {
                Some(record) => owner = Some(record.owner),
                None => return refuse(format!("{} is no storage node here", receipt.node)),
            }
        }
        owner.map_or_else(|| refuse("a result has at least one file".to_owned()), Ok)
    }
}

/// The refusal of news from a node that has no place here: not yet, or no longer.
fn not_joined() -> ErrorBody {
    ErrorBody::auth("not_joined", "only a node that has joined is listened to")
        .with_help("join first; a node whose owner revoked it cannot")
        .with_retry_after_ms(NOT_JOINED_RETRY_MS)
}

/// A reason from outside, fit for a client's eyes.
fn short(reason: &str) -> String {
    let plain = reason.chars().filter(|c| !c.is_control());
    let plain: String = plain.take(MAX_REASON_CHARS).collect();
    if plain.trim().is_empty() {
        return "it gave no reason".to_owned();
    }
    plain
}

/// Refuses what is not `host:port`: others would have to dial it.
fn check_address(address: &str) -> Result<(), ErrorBody> {
    if is_host_port(address) {
        return Ok(());
    }
    Err(ErrorBody::user(
        "bad_address",
        "an address is host:port, of at most 256 bytes",
    ))
}

/// Refuses what is not `host:port` with a host and a port: clients have to dial it.
fn check_door(address: &str) -> Result<(), ErrorBody> {
    check_address(address)?;
    let parsed: Result<NodeAddress, _> = format!("cm://{}@{address}", NodeId::new([0; 32])).parse();
    match parsed {
        Ok(parsed) if parsed.port != 0 => Ok(()),
        _ => Err(ErrorBody::user(
            "bad_address",
            "a door is a host and a port",
        )),
    }
}

/// Refuses what is no address with a port: a name would have others ask name servers.
fn check_probe(address: &str) -> Result<(), ErrorBody> {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(()),
        _ => Err(ErrorBody::user(
            "bad_address",
            "a probe port is an IP address and a port",
        )),
    }
}

fn check_files(files: &[ResultFile]) -> Result<(), ErrorBody> {
    let fits = |f: &ResultFile| is_file_name(&f.name) && f.bytes <= MAX_FILE_BYTES;
    if files.len() <= MAX_FILES && files.iter().all(fits) {
        return Ok(());
    }
    Err(ErrorBody::user(
        "bad_files",
        format!("a result has at most {MAX_FILES} files with plain names"),
    ))
}

fn check_timeline(timeline: &[Span]) -> Result<(), ErrorBody> {
    if timeline.len() <= MAX_SPANS {
        return Ok(());
    }
    let message = format!("a timeline has at most {MAX_SPANS} spans");
    Err(ErrorBody::user("bad_timeline", message)
        .with_help("merge those that are left into the last one"))
}

/// A report whose texts and lists fit: others get them, and a frame has an end.
fn vetted(report: Report) -> Result<Report, ErrorBody> {
    match &report {
        Report::Paused { ring_address, .. } => check_address(ring_address)?,
        Report::Serving { address, .. } => check_door(address)?,
        Report::Finished { files, .. } => check_files(files)?,
        Report::Progress { timeline, .. } => check_timeline(timeline)?,
        Report::Checkpoint {
            stored: Some((file, _)),
            ..
        } => {
            check_files(std::slice::from_ref(file))?;
        }
        _ => {}
    }
    Ok(match report {
        Report::RingBroken {
            committed,
            suspect,
            reason,
        } => Report::RingBroken {
            committed,
            suspect,
            reason: short(&reason),
        },
        Report::Failed { task_fault, reason } => Report::Failed {
            task_fault,
            reason: short(&reason),
        },
        Report::Leaving { reason } => Report::Leaving {
            reason: short(&reason),
        },
        other => other,
    })
}

/// What a group's decision proves.
fn proof(decision: &Decision, network: &GenesisHash) -> Result<Box<Proof>, ErrorBody> {
    let addresses = &decision.successor.ring_addresses;
    addresses.iter().try_for_each(|a| check_address(a))?;
    let proof = Proof::of(decision, network).map(Box::new);
    proof.ok_or_else(|| {
        let message = "the votes of this decision are not signed, or not for one and the same";
        ErrorBody::user("not_decided", message)
    })
}

/// An unspecified host means: as the coordinator sees the node.
fn seen_address(listen: &str, connection: &Connection) -> String {
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "0"));
    let unspecified = matches!(host.trim_matches(['[', ']']), "" | "0.0.0.0" | "::");
    match connection.remote().ip() {
        _ if !unspecified => listen.to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]:{port}"),
        std::net::IpAddr::V4(ip) => format!("{ip}:{port}"),
    }
}

/// Sends a node its commands for as long as it is there. Returns why that ended.
async fn stream(
    connection: &Connection,
    mut sender: Sender,
    mut commands: mpsc::Receiver<Command>,
) -> String {
    let joined = Command::Joined { now: clock::now() };
    if let Err(error) = sender.frame(&Answer::Ok(joined)).await {
        return error.message;
    }
    loop {
        tokio::select! {
            why = connection.closed() => return why,
            command = commands.recv() => {
                let Some(command) = command else { return "its place was given up or taken over".into() };
                if let Err(error) = sender.frame(&Answer::Ok(command)).await {
                    return error.message;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptomind_protocol::timeline::Stage;

    use super::*;

    #[test]
    fn a_timeline_has_an_end() {
        let span = Span {
            stage: Stage::Ring,
            begin_us: u64::MAX,
            us: u64::MAX,
        };
        let progress = |spans| Report::Progress {
            step: 1,
            loss: 1.0,
            samples_per_s: 1,
            timeline: vec![span; spans],
        };
        let most = progress(MAX_SPANS);
        assert_eq!(vetted(most.clone()), Ok(most));
        let refused = vetted(progress(MAX_SPANS + 1)).unwrap_err();
        assert_eq!(refused.code, "bad_timeline");
    }
}
