//! The side that is measured: a port that answers whom the coordinator sends, within its limits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cryptomind_protocol::error::Answer;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::node::Ack;
use cryptomind_protocol::probe::{MAX_BULK_BYTES, METHODS, Request, Ticket};
use cryptomind_protocol::{ErrorBody, ErrorClass, NodeId, Signed};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::budget::Budget;
use super::gate::Gate;
use super::{BULK_LIMIT, CONNECTION_LIMIT, MAX_BULKS, receive, send};
use crate::connection::Connection;
use crate::endpoint::{Endpoint, Pending};
use crate::exchange::Exchange;
use crate::fault;
use crate::stream::{Receiver, Sender};

/// Who greeted, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting {
    /// The caller, which has proven its key.
    pub from: NodeId,
    /// What it said.
    pub nonce: Nonce,
    /// Where its packets come from.
    pub address: std::net::SocketAddr,
}

/// How long callers are borne with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// In all.
    pub(crate) connection: Duration,
    /// While bytes are moved.
    pub(crate) bulk: Duration,
}

/// What all callers of a port share.
struct Port {
    gate: Gate,
    patience: Patience,
    /// Whether the node runs a task.
    busy: watch::Receiver<bool>,
    greetings: mpsc::Sender<Greeting>,
    bulks: Semaphore,
    budget: Mutex<Budget>,
}

/// Answers callers that `gate` lets in until the endpoint is closed. Nothing while `busy` is true; greetings go to `greetings`, and are
/// refused where it is full. Dropped, it drops its callers.
pub async fn respond(
    endpoint: Endpoint,
    gate: Gate,
    busy: watch::Receiver<bool>,
    greetings: mpsc::Sender<Greeting>,
) {
    let patience = Patience {
        connection: CONNECTION_LIMIT,
        bulk: BULK_LIMIT,
    };
    respond_within(endpoint, gate, busy, greetings, patience).await;
}

pub(crate) async fn respond_within(
    endpoint: Endpoint,
    gate: Gate,
    busy: watch::Receiver<bool>,
    greetings: mpsc::Sender<Greeting>,
    patience: Patience,
) {
    let port = Arc::new(Port {
        gate,
        patience,
        busy,
        greetings,
        bulks: Semaphore::new(MAX_BULKS),
        budget: Mutex::default(),
    });
    // Bounded by the endpoint's own limit of connections.
    let mut callers = JoinSet::new();
    while let Some(pending) = endpoint.accept().await {
        callers.spawn(receive_caller(Arc::clone(&port), pending));
        while callers.try_join_next().is_some() {}
    }
}

async fn receive_caller(port: Arc<Port>, pending: Pending) {
    let remote = pending.remote();
    let connection = match pending.establish().await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%remote, %error, "a prober was not let in"),
    };
    let mut busy = port.busy.clone();
    let reason = tokio::select! {
        done = timeout(port.patience.connection, attend(&port, &connection)) => match done {
            Ok(()) => "done",
            Err(_) => "a probe takes no longer",
        },
        // A sender that is gone took the node along.
        _ = busy.wait_for(|busy| *busy), if !*port.busy.borrow() => "this node runs a task",
    };
    connection.close(reason);
}

/// One request after the other, until the caller is gone.
async fn attend(port: &Port, connection: &Connection) {
    let mut admitted = None;
    while let Some(exchange) = connection.accept_request().await {
        answer(port, connection, exchange, &mut admitted).await;
    }
}

async fn answer(
    port: &Port,
    connection: &Connection,
    exchange: Exchange,
    admitted: &mut Option<Ticket>,
) {
    let request = exchange.decode::<Request>(&METHODS);
    let request = request.and_then(|request| port.is_at_rest().map(|()| request));
    let request = request.and_then(|request| is_admitted(&request, admitted).map(|()| request));
    match request {
        Ok(Request::Greet { nonce, ticket }) => {
            let greeting = Greeting {
                from: connection.peer_node(),
                nonce,
                address: connection.remote(),
            };
            let greeted = port.greeted(greeting, &ticket);
            exchange
                .answer(greeted.map(|ticket| {
                    *admitted = Some(ticket);
                    Ack {}
                }))
                .await;
        }
        Ok(Request::Ping {}) => exchange.answer(Ok(Ack {})).await,
        Ok(Request::Bulk { bytes }) => {
            let most = admitted.map_or(0, |ticket| ticket.bulk_bytes);
            port.bulk(connection.peer_node(), (bytes, most), exchange)
                .await;
        }
        Err(refusal) => exchange.answer(Err::<Ack, _>(refusal)).await,
    }
}

impl Port {
    fn is_at_rest(&self) -> Result<(), ErrorBody> {
        if *self.busy.borrow() {
            let message = "this node runs a task: it measures nothing meanwhile";
            return Err(ErrorBody::new(ErrorClass::Capacity, "probe_task", message));
        }
        Ok(())
    }

    fn greeted(&self, greeting: Greeting, ticket: &Signed) -> Result<Ticket, ErrorBody> {
        let ticket = self.gate.admit(greeting.from, ticket)?;
        let full = |_| busy("as many greetings wait here as may");
        self.greetings.try_send(greeting).map_err(full)?;
        Ok(ticket)
    }

    async fn bulk(&self, caller: NodeId, (bytes, most): (u64, u64), exchange: Exchange) {
        let permit = self.bulks.try_acquire();
        let full = |_| busy("bytes are moved for as many callers as may");
        let granted = check_bytes(bytes, most)
            .and_then(|()| permit.as_ref().map_err(full))
            .and_then(|_| self.budget().take(caller, Instant::now()));
        if let Err(refusal) = granted {
            return exchange.answer(Err::<Ack, _>(refusal)).await;
        }
        let (sender, receiver) = exchange.into_stream();
        let moved = move_bytes(sender, receiver, bytes);
        if let Err(error) = fault::within(self.patience.bulk, "the bytes", moved).await {
            tracing::debug!(%caller, %error, "a probe broke off");
        }
    }

    fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        // Changed by single pushes and pops: a panic elsewhere leaves it whole.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy(message: &str) -> ErrorBody {
    ErrorBody::new(ErrorClass::Capacity, "probe_busy", message).with_retry_after_ms(1_000)
}

/// Who has not shown a ticket gets nothing.
fn is_admitted(request: &Request, admitted: &Option<Ticket>) -> Result<(), ErrorBody> {
    if admitted.is_some() || matches!(request, Request::Greet { .. }) {
        return Ok(());
    }
    let message = "this node answers whom the coordinator sends";
    Err(ErrorBody::auth("no_ticket", message).with_help("greet first, with the order's ticket"))
}

fn check_bytes(bytes: u64, most: u64) -> Result<(), ErrorBody> {
    let most = most.min(MAX_BULK_BYTES);
    if (1..=most).contains(&bytes) {
        return Ok(());
    }
    let message = format!("{bytes} bytes: from 1 to {most} are moved each way by this ticket");
    Err(ErrorBody::user("probe_bytes", message))
}

/// Out, then in, with an acknowledgement after half and one after all.
async fn move_bytes(
    mut sender: Sender,
    mut receiver: Receiver,
    bytes: u64,
) -> Result<(), ErrorBody> {
    sender.frame(&Answer::Ok(Ack {})).await?;
    send(&mut sender, bytes).await?;
    for part in [bytes / 2, bytes - bytes / 2] {
        receive(&mut receiver, part).await?;
        sender.frame(&Answer::Ok(Ack {})).await?;
    }
    sender.finish().await
}
