//! Over real QUIC on loopback. Each module is one part's behaviour; what they share is here.

mod bulk;
mod follow;
mod hello;
mod probe;
mod request;
mod ring;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cryptomind_protocol::frame::{ALPN_API, ALPN_BLOB, ALPN_NODE};
use cryptomind_protocol::{GenesisHash, NodeAddress, NodeId, SecretKey};

use crate::{Connection, Endpoint, Limits};

/// Long enough for anything that works, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const NETWORK: GenesisHash = GenesisHash::new([7; 32]);

pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId::of_key(&key(n).public())
}

/// Key 1 listens.
pub(crate) fn server(limits: Limits) -> Endpoint {
    Endpoint::serve(
        loopback(),
        key(1),
        NETWORK,
        &[ALPN_API, ALPN_NODE, ALPN_BLOB],
        limits,
    )
    .unwrap()
}

pub(crate) fn address(of: NodeId, at: SocketAddr) -> NodeAddress {
    NodeAddress {
        node: of,
        host: at.ip().to_string(),
        port: at.port(),
    }
}

/// A connection from key 2 to key 1: the caller's end, the server's end.
pub(crate) async fn pair(alpn: &'static str) -> (Connection, Connection) {
    pair_within(alpn, Limits::default()).await
}

pub(crate) async fn pair_within(alpn: &'static str, limits: Limits) -> (Connection, Connection) {
    let server = server(limits);
    let to = address(node(1), server.local_addr());
    let caller = Endpoint::dialler().unwrap();
    let caller_key = key(2);
    let (dialled, accepted) = tokio::join!(caller.dial(&to, alpn, &caller_key), async {
        server.accept().await.unwrap().establish().await
    });
    (dialled.unwrap(), accepted.unwrap())
}
