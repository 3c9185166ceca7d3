//! The connection to the coordinator: kept, and made again whenever it is lost.
//!
//! The actor [`Link`] has one task of the runtime that dials, enrols, joins, passes commands to the
//! worker and the prober, and the outbox's content to the coordinator. A lost connection changes nothing else: a run goes on while its ring
//! does, and what could not be said waits in the outbox. A link that dies is restarted; it has no state of its own.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use cryptomind_net::{Connection, Endpoint, Subscription};
use cryptomind_protocol::frame::ALPN_NODE;
use cryptomind_protocol::node::{Ack, Capacity, Command, Join, Request};
use cryptomind_protocol::probe::Peer;
use cryptomind_protocol::role::Role;
use cryptomind_protocol::selftest::Report;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ErrorClass, NodeAddress, NodeId, Signed};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::probe::{MAX_ORDERS, Prober};
use super::worker::{Context, Place, WorkerMsg};
use crate::back_off::{self, BackOff};
use crate::enrol::Applicant;
use crate::supervisor::Handle;

/// From one heartbeat to the next, give or take a fifth.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// What the coordinator gets to acknowledge; it does so once it is durable.
const ACK_LIMIT: Duration = Duration::from_secs(10);
/// What a restarting worker gets to come back before a command for it is lost.
const WORKER_LIMIT: Duration = Duration::from_secs(5);
/// The longest wait that the coordinator may ask for.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// What the last words get when the miner stops.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// What a link needs.
pub struct Wiring {
    /// Shared with the worker.
    pub context: Arc<Context>,
    /// Who gets the commands.
    pub worker: Handle<WorkerMsg>,
    /// Measures how far others are.
    pub prober: Arc<Prober>,
    /// Dials.
    pub endpoint: Endpoint,
    /// The coordinator.
    pub coordinator: NodeAddress,
    /// This node.
    pub node: NodeId,
    /// Its name in tables.
    pub name: String,
    /// The account that earns.
    pub owner: AccountId,
    /// What this node can do, but for free disk.
    pub capacity: Capacity,
    /// What its self-test found.
    pub report: Report,
    /// The least that it works for, for one CU.
    pub reserve: Amount,
}

/// What can happen to a link.
pub enum LinkMsg {
    /// Its task died.
    Died(String),
}

/// The actor.
pub struct Link;

/// A link's task; dropped, it is aborted.
pub struct Linked {
    wiring: Arc<Wiring>,
    keeping: JoinHandle<()>,
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.keeping.abort();
        self.wiring.context.joined.send_replace(false);
    }
}

impl Actor for Link {
    type Msg = LinkMsg;
    type State = Linked;
    type Arguments = Arc<Wiring>;

    async fn pre_start(
        &self,
        myself: ActorRef<LinkMsg>,
        wiring: Arc<Wiring>,
    ) -> Result<Linked, ActorProcessingErr> {
        let kept = tokio::spawn(keep(Arc::clone(&wiring)));
        let abort = kept.abort_handle();
        let keeping = tokio::spawn(async move {
            let _guard = AbortOnDrop(abort);
            if let Err(e) = kept.await {
                // A link that is stopped needs no news of its end.
                let _ = myself.cast(LinkMsg::Died(e.to_string()));
            }
        });
        Ok(Linked { wiring, keeping })
    }

    async fn handle(
        &self,
        _: ActorRef<LinkMsg>,
        LinkMsg::Died(reason): LinkMsg,
        _: &mut Linked,
    ) -> Result<(), ActorProcessingErr> {
        Err(reason.into())
    }

    async fn post_stop(
        &self,
        _: ActorRef<LinkMsg>,
        linked: &mut Linked,
    ) -> Result<(), ActorProcessingErr> {
        if *linked.wiring.context.joined.borrow() {
            let _ = timeout(FLUSH_LIMIT, linked.wiring.context.outbox.emptied()).await;
        }
        Ok(())
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep(wiring: Arc<Wiring>) {
    let mut back_off = BackOff::default();
    let mut told = String::new();
    loop {
        let error = session(&wiring).await;
        wiring.context.outbox.disconnected();
        if wiring.context.joined.send_replace(false) {
            back_off.succeeded();
            told.clear();
        }
        if error.message != told {
            warn!("coordinator: {error}; trying again");
            told = error.message.clone();
        }
        sleep(back_off.pause(&error)).await;
    }
}

/// One connection, from dialling to its loss.
async fn session(wiring: &Wiring) -> ErrorBody {
    match connect(wiring).await {
        Ok((connection, commands, place)) => {
            info!("joined the network at {}", wiring.coordinator);
            wiring.context.joined.send_replace(true);
            let (orders, ordered) = mpsc::channel(MAX_ORDERS);
            let prober = Arc::clone(&wiring.prober);
            let probing = tokio::spawn(async move { prober.obey(ordered).await });
            let _probing = AbortOnDrop(probing.abort_handle());
            let error = tokio::select! {
                error = listen(wiring, commands, place, &orders) => error,
                error = speak(wiring, &connection) => error,
                error = beat(&connection) => error,
            };
            connection.close("leaving");
            error
        }
        Err(error) => error,
    }
}

async fn connect(wiring: &Wiring) -> Result<(Connection, Subscription, Place), ErrorBody> {
    let key = &wiring.context.key;
    let connection = wiring
        .endpoint
        .dial(&wiring.coordinator, ALPN_NODE, key)
        .await?;
    let place = Place {
        host: host(&connection)?,
        network: connection.network(),
    };
    let applicant = Applicant {
        node: wiring.node,
        role: Role::Miner,
        name: wiring.name.clone(),
        owner: wiring.owner,
    };
    applicant.enrol(&connection).await?;
    let join = Join {
        owner: wiring.owner,
        name: wiring.name.clone(),
        listen: None,
        probe: wiring.prober.address(place),
        capacity: Capacity {
            free_bytes: wiring.context.cache.free_bytes(),
            ..wiring.capacity.clone()
        },
        reserve: wiring.reserve,
        activity: wiring.context.standing.activity(),
        running: wiring.context.standing.position(),
        selftest: Some(Signed::sign(&wiring.report, &place.network, key)),
    };
    let mut commands = connection.subscribe(&Request::Join(Box::new(join))).await?;
    match timeout(ACK_LIMIT, commands.next::<Command>()).await {
        Ok(Some(Ok(Command::Joined { now }))) => {
            wiring.prober.set_clock(now);
            Ok((connection, commands, place))
        }
        Ok(Some(Ok(other))) => Err(ErrorBody::network(
            "malformed_answer",
            format!("the coordinator answered joining with {other:?}"),
        )),
        Ok(Some(Err(error))) => Err(error),
        Ok(None) | Err(_) => Err(ErrorBody::network(
            "no_answer",
            "the coordinator did not answer joining",
        )),
    }
}

/// This machine's address as others on the coordinator's side reach it.
fn host(connection: &Connection) -> Result<IpAddr, ErrorBody> {
    if let Some(ip) = connection.local_ip().filter(|ip| !ip.is_unspecified()) {
        return Ok(ip.to_canonical());
    }
    // Connecting a UDP socket sends nothing; it asks the routing table.
    let any = if connection.remote().is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let route = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(connection.remote())?;
        socket.local_addr()
    });
    Ok(route.map_err(ErrorBody::internal)?.ip().to_canonical())
}

async fn listen(
    wiring: &Wiring,
    mut commands: Subscription,
    place: Place,
    orders: &mpsc::Sender<Vec<Peer>>,
) -> ErrorBody {
    loop {
        match commands.next::<Command>().await {
            Some(Ok(Command::Probe { peers })) => {
                if orders.try_send(peers).is_err() {
                    debug!("there is too much to measure: an order is left");
                }
            }
            Some(Ok(command)) => pass(wiring, command, place).await,
            Some(Err(error)) => return error,
            None => {
                return ErrorBody::network("connection_closed", "the coordinator ended the stream");
            }
        }
    }
}

/// Hands a command to the worker, waiting for one that is being restarted.
async fn pass(wiring: &Wiring, command: Command, place: Place) {
    debug!("told: {command:?}");
    let mut before = None;
    let passed = timeout(WORKER_LIMIT, async {
        while let Some(worker) = wiring.worker.successor(before.as_ref()).await {
            let message = WorkerMsg::Told(Box::new(command.clone()), place);
            match worker.cast(message) {
                Ok(()) => return,
                Err(_) => before = Some(worker),
            }
        }
    });
    if passed.await.is_err() {
        warn!("the worker is not there: a command was lost");
    }
}

async fn speak(wiring: &Wiring, connection: &Connection) -> ErrorBody {
    let outbox = &wiring.context.outbox;
    loop {
        let (id, request) = outbox.first().await;
        match connection.request::<_, Ack>(&request, ACK_LIMIT).await {
            Ok(Ack {}) => outbox.done(id),
            Err(error) if error.class == ErrorClass::Network => return error,
            Err(error) => match error.retry_after_ms {
                Some(ms) => sleep(Duration::from_millis(ms).min(RETRY_MAX)).await,
                None => {
                    warn!("the coordinator refuses {}: {error}", kind(&request));
                    outbox.done(id);
                }
            },
        }
    }
}

/// Says now and then that this node is there. The answer says that the coordinator is: its socket could live longer than
/// what is behind it.
async fn beat(connection: &Connection) -> ErrorBody {
    loop {
        sleep(back_off::jittered(HEARTBEAT)).await;
        let (reports, echoes) = (Vec::new(), Vec::new());
        let there = Request::Links { reports, echoes };
        match connection.request::<_, Ack>(&there, ACK_LIMIT).await {
            Err(error) if error.class == ErrorClass::Network => return error,
            Err(error) => debug!(%error, "a heartbeat was refused"),
            Ok(Ack {}) => {}
        }
    }
}

const fn kind(request: &Request) -> &'static str {
    match request {
        Request::Enrol { .. } => "to enrol",
        Request::Join(_) => "to join",
        Request::Offer { .. } => "an offer",
        Request::Decline { .. } => "a decline",
        Request::Report { .. } => "a report",
        Request::Succeeded { .. } => "what the group decided",
        Request::Activity { .. } => "a change of activity",
        Request::Links { .. } => "measurements",
    }
}
