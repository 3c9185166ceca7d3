//! Whether others reach this miner: the coordinator knocks at its probe port, and moves bytes over the link.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cryptomind_config::{Miner, ProbePort};
use cryptomind_net::Endpoint;
use cryptomind_net::probe::{self, Gate};
use cryptomind_protocol::api::Knocked;
use cryptomind_protocol::frame::ALPN_PROBE;
use cryptomind_protocol::{ErrorBody, NodeId, SecretKey};
use cryptomind_sdk::Client;
use tokio::sync::{mpsc, watch};

use crate::command::check::{Check, Verdict};
use crate::follow::size;

const PORT: &str = "port";
const PORT_NEEDED: &str = "reached by the coordinator over UDP";
const LINK: &str = "link";
const LINK_NEEDED: &str = "1 MiB a second both ways";
/// Less, and gradients take longer than computing them.
const LINK_BYTES_PER_S: u64 = 1 << 20;
/// Greetings that may wait: there is one.
const GREETINGS: usize = 4;

/// The port and the link, as the coordinator sees them.
pub(super) async fn checks(
    client: &Client,
    coordinator: NodeId,
    miner: Option<&Miner>,
) -> Vec<Check> {
    let any = ProbePort::At((Ipv4Addr::UNSPECIFIED, 0).into());
    let ProbePort::At(listen) = miner.map_or(any, |miner| miner.probe.listen) else {
        let off = Check::new(PORT, PORT_NEEDED, Verdict::Notice, "off");
        return vec![off.remedy(
            "set probe.listen in miner.toml: a link that nobody measures counts as slow as the slower quarter",
        )];
    };
    match knocked(client, coordinator, listen).await {
        Ok(knocked) => vec![
            Check::new(PORT, PORT_NEEDED, Verdict::Good, &knocked.address),
            link(&knocked),
        ],
        Err(error) => vec![Check::failed(PORT, PORT_NEEDED, &error)],
    }
}

/// Opens the port, and asks the coordinator to measure its link to it.
async fn knocked(
    client: &Client,
    coordinator: NodeId,
    listen: SocketAddr,
) -> Result<Knocked, ErrorBody> {
    let key = cryptomind_sdk::new_key()?;
    let node = NodeId::of_key(&key.public());
    let (endpoint, gate) = (open(client, &key, listen)?, gate(client, coordinator, node));
    let port = endpoint.local_addr().port();
    // Nobody listens to greetings, and no task runs.
    let (greetings, _heard) = mpsc::channel(GREETINGS);
    let (_task, busy) = watch::channel(false);
    tokio::select! {
        knocked = client.knock(node, port) => knocked,
        () = probe::respond(endpoint, gate, busy, greetings) => Err(ErrorBody::internal("the port was closed")),
    }
}

fn open(client: &Client, key: &SecretKey, listen: SocketAddr) -> Result<Endpoint, ErrorBody> {
    let (network, limits) = (client.genesis().hash(), probe::limits());
    let opened = Endpoint::serve(listen, key.clone(), network, &[ALPN_PROBE], limits);
    opened.map_err(|error| {
        let help = "stop the miner that uses it, then run it again; or set another probe.listen in miner.toml";
        ErrorBody::user("port_in_use", error.message).with_help(help)
    })
}

fn gate(client: &Client, coordinator: NodeId, node: NodeId) -> Gate {
    let clock = client.clone();
    Gate {
        coordinator: coordinator.key(),
        network: client.genesis().hash(),
        node,
        now: Arc::new(move || clock.now()),
    }
}

fn link(knocked: &Knocked) -> Check {
    let round_trip = knocked.rtt_us as f64 / 1e3;
    let Some(bytes_per_s) = knocked.bytes_per_s else {
        let found = format!("round trip {round_trip:.1} ms, throughput not measured");
        return Check::new(LINK, LINK_NEEDED, Verdict::Notice, found)
            .remedy("run it again when the line is less busy");
    };
    let found = format!(
        "round trip {round_trip:.1} ms, {} a second in the slower direction",
        size(bytes_per_s)
    );
    if bytes_per_s >= LINK_BYTES_PER_S {
        return Check::new(LINK, LINK_NEEDED, Verdict::Good, found);
    }
    Check::new(LINK, LINK_NEEDED, Verdict::Notice, found).remedy(
        "use a cable instead of radio, or stop what else uses the line: slow links are chosen late",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_link_says_what_to_do() {
        let knocked = |bytes_per_s| Knocked {
            address: "192.0.2.1:7720".into(),
            rtt_us: 12_300,
            bytes_per_s,
        };
        let fast = link(&knocked(Some(20 << 20)));
        assert_eq!(fast.verdict, Verdict::Good);
        assert!(fast.found.contains("12.3 ms"), "{fast:?}");
        for slow in [Some(100_000), None] {
            let check = link(&knocked(slow));
            assert_eq!(check.verdict, Verdict::Notice);
            assert!(check.remedy.is_some());
        }
    }
}
