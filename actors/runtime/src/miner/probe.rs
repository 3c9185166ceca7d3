//! Measuring links: this miner's probe port, and the measurements that the coordinator orders.
//!
//! Owned by the link: the port opens when the network is first known and stays; [`Prober::obey`] lasts as long as the
//! connection that its orders come on. What is measured and heard goes to the coordinator through the outbox, gathered
//! for [`GATHER`]. Nothing is measured while a task runs, and a measurement in progress is given up when one begins.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cryptomind_config::ProbePort;
use cryptomind_net::Endpoint;
use cryptomind_net::probe::{self, Gate, Greeting};
use cryptomind_protocol::frame::ALPN_PROBE;
use cryptomind_protocol::node::Request;
use cryptomind_protocol::probe::{Echo, LinkReport, MAX_PEERS, MAX_REPORTS, Peer};
use cryptomind_protocol::{ErrorBody, GenesisHash, NodeAddress, NodeId, Timestamp};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::worker::{Context, Place};
use crate::clock;

/// Orders that may wait; more are lost, and come again with the next round.
pub const MAX_ORDERS: usize = 8;
/// Peers that are measured at a time, those apart that bytes are moved with.
const AT_ONCE: usize = 4;
/// Greetings that may wait to be told.
const MAX_GREETINGS: usize = MAX_REPORTS;
/// News is gathered for so long before it is told.
const GATHER: Duration = Duration::from_secs(1);

/// What one miner measures with.
pub struct Prober {
    context: Arc<Context>,
    dialler: Endpoint,
    listen: ProbePort,
    /// Whom callers must be sent by.
    coordinator: NodeId,
    /// By how much the coordinator's clock is ahead of this machine's, milliseconds.
    ahead_ms: Arc<AtomicI64>,
    port: Mutex<Option<Port>>,
}

/// An open port; dropped, it is closed.
struct Port {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Port {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Prober {
    /// With its port still closed.
    pub fn new(
        context: Arc<Context>,
        dialler: Endpoint,
        listen: ProbePort,
        coordinator: NodeId,
    ) -> Self {
        Self {
            context,
            dialler,
            listen,
            coordinator,
            ahead_ms: Arc::default(),
            port: Mutex::new(None),
        }
    }

    /// The coordinator says what time it is.
    pub fn set_clock(&self, now: Timestamp) {
        let ahead = i128::from(now.as_ms()) - i128::from(clock::now().as_ms());
        let ahead = i64::try_from(ahead).unwrap_or_default();
        self.ahead_ms.store(ahead, Ordering::Relaxed);
    }

    fn gate(&self, network: GenesisHash) -> Gate {
        let ahead_ms = Arc::clone(&self.ahead_ms);
        Gate {
            coordinator: self.coordinator.key(),
            network,
            node: NodeId::of_key(&self.context.key.public()),
            now: Arc::new(move || shifted(clock::now(), ahead_ms.load(Ordering::Relaxed))),
        }
    }

    /// Where others of this miner's network measure it; opens the port where it is still closed. Nothing where the
    /// owner lets nobody, or where the port cannot be had: a miner works without.
    pub fn address(&self, place: Place) -> Option<String> {
        let ProbePort::At(listen) = self.listen else {
            return None;
        };
        let mut port = self.port.lock().unwrap_or_else(PoisonError::into_inner);
        if port.is_none() {
            let opened = self.open(bind_address(listen, place.host), place);
            *port = opened
                .inspect_err(|error| warn!("nobody can measure this miner's links: {error}"))
                .ok();
        }
        let number = port.as_ref()?.address.port();
        Some(SocketAddr::new(place.host, number).to_string())
    }

    fn open(&self, listen: SocketAddr, place: Place) -> Result<Port, ErrorBody> {
        let (key, limits) = (self.context.key.clone(), probe::limits());
        let endpoint = Endpoint::serve(listen, key, place.network, &[ALPN_PROBE], limits)?;
        let (sender, greetings) = mpsc::channel(MAX_GREETINGS);
        let address = endpoint.local_addr();
        let busy = self.context.standing.busy();
        let telling = tell(Arc::clone(&self.context), greetings);
        let responding = probe::respond(endpoint, self.gate(place.network), busy, sender);
        Ok(Port {
            address,
            tasks: [tokio::spawn(responding), tokio::spawn(telling)],
        })
    }

    /// Carries out orders until no more can come.
    pub async fn obey(&self, mut orders: mpsc::Receiver<Vec<Peer>>) {
        while let Some(mut peers) = orders.recv().await {
            peers.truncate(MAX_PEERS);
            let mut busy = self.context.standing.busy();
            let reports = tokio::select! {
                // First whether a task runs: otherwise a greeting may be gone before that is looked at.
                biased;
                // The standing lives as long as this miner.
                _ = busy.wait_for(|busy| *busy) => continue,
                reports = self.measure(peers) => reports,
            };
            if !reports.is_empty() {
                let echoes = Vec::new();
                self.context.outbox.say(Request::Links { reports, echoes });
            }
        }
    }

    /// Round trips first, then bytes, one peer at a time: they would lengthen the others' round trips.
    async fn measure(&self, peers: Vec<Peer>) -> Vec<LinkReport> {
        let (bulk, light): (Vec<_>, Vec<_>) = peers.into_iter().partition(|p| p.bulk_bytes > 0);
        let mut reports = Vec::new();
        let mut running = JoinSet::new();
        for peer in light {
            if running.len() >= AT_ONCE {
                reports.extend(running.join_next().await.and_then(Result::ok).flatten());
            }
            running.spawn(reported(
                self.dialler.clone(),
                Arc::clone(&self.context),
                peer,
            ));
        }
        reports.extend(running.join_all().await.into_iter().flatten());
        for peer in bulk {
            reports.extend(reported(self.dialler.clone(), Arc::clone(&self.context), peer).await);
        }
        reports
    }
}

/// Measures one peer. Nothing where it cannot be reached, or refuses.
async fn reported(dialler: Endpoint, context: Arc<Context>, peer: Peer) -> Option<LinkReport> {
    let to = peer.node;
    let measured = measured(&dialler, &context, peer).await;
    let measured = measured.inspect_err(|error| debug!(%to, %error, "not measured"));
    let probe::Measured { rtt, bytes_per_s } = measured.ok()?;
    Some(LinkReport {
        to,
        rtt_us: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
        bytes_per_s,
    })
}

async fn measured(
    dialler: &Endpoint,
    context: &Context,
    peer: Peer,
) -> Result<probe::Measured, ErrorBody> {
    let at: SocketAddr = peer.address.parse().map_err(|_| {
        let message = format!("`{}` is no address and port", peer.address);
        ErrorBody::network("bad_address", message)
    })?;
    let to = NodeAddress {
        node: peer.node,
        host: at.ip().to_string(),
        port: at.port(),
    };
    let connection = dialler.dial(&to, ALPN_PROBE, &context.key).await?;
    let order = (peer.nonce, peer.ticket);
    let measured = probe::measure(&connection, order, peer.bulk_bytes).await;
    connection.close("measured");
    measured
}

fn shifted(time: Timestamp, ms: i64) -> Timestamp {
    Timestamp::from_ms(time.as_ms().saturating_add_signed(ms))
}

/// Tells the coordinator who greeted this miner.
async fn tell(context: Arc<Context>, mut greetings: mpsc::Receiver<Greeting>) {
    while let Some(first) = greetings.recv().await {
        let mut echoes = vec![echo(first)];
        // Late ones go with the next.
        let _ = timeout(GATHER, async {
            while echoes.len() < MAX_REPORTS
                && let Some(greeting) = greetings.recv().await
            {
                echoes.push(echo(greeting));
            }
        })
        .await;
        let reports = Vec::new();
        context.outbox.say(Request::Links { reports, echoes });
    }
}

fn echo(greeting: Greeting) -> Echo {
    let Greeting {
        from,
        nonce,
        address,
    } = greeting;
    let address = SocketAddr::new(address.ip().to_canonical(), address.port()).to_string();
    Echo {
        from,
        nonce,
        address,
    }
}

/// Where to listen so that peers reach `host`: an address of any family means that of this family.
fn bind_address(listen: SocketAddr, host: IpAddr) -> SocketAddr {
    if listen.ip().is_unspecified() && host.is_ipv6() {
        return SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), listen.port());
    }
    listen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_of_the_hosts_family() {
        let bound = |listen: &str, host: &str| {
            bind_address(listen.parse().unwrap(), host.parse().unwrap()).to_string()
        };
        assert_eq!(bound("0.0.0.0:7", "192.168.0.1"), "0.0.0.0:7");
        assert_eq!(bound("0.0.0.0:7", "fd00::1"), "[::]:7");
        assert_eq!(bound("192.168.0.1:7", "fd00::1"), "192.168.0.1:7");
    }
}
