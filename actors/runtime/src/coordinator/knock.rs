//! Knocking: whether the coordinator reaches a port of a caller's machine, and how far it is.
//!
//! A miner's owner asks before it joins, as other miners will have to reach it. The socket that knocks is a fresh one, which
//! the caller never spoke to, so a firewall or address translation between them shows. Only the address that the call comes
//! from is knocked at: it is proven, and nobody has packets sent to others.
//!
//! Invariants: [`AT_ONCE`] at a time; an address every [`PAUSE`]; nothing is kept longer than that.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptomind_net::probe::{Measured, measure};
use cryptomind_net::{Connection, Endpoint};
use cryptomind_protocol::api::Knocked;
use cryptomind_protocol::frame::ALPN_PROBE;
use cryptomind_protocol::key::Nonce;
use cryptomind_protocol::{ErrorBody, ErrorClass, NodeAddress, NodeId};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Office;
use crate::clock;

/// At a time.
const AT_ONCE: usize = 2;
/// From one knock at an address to the next.
const PAUSE: Duration = Duration::from_secs(10);
/// What a port gets to be reached.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// What the measurement gets.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes that are moved each way.
const BULK_BYTES: u64 = 1 << 20;

/// Who was knocked at.
#[derive(Debug)]
pub(crate) struct Knocker {
    permits: Semaphore,
    knocked: Mutex<BTreeMap<IpAddr, Instant>>,
}

impl Default for Knocker {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(AT_ONCE),
            knocked: Mutex::default(),
        }
    }
}

impl Knocker {
    /// Whether it is an address' turn; then it was.
    fn turn(&self, address: IpAddr, now: Instant) -> Result<(), ErrorBody> {
        // Changed by single calls: a panic elsewhere leaves it whole.
        let mut knocked = self.knocked.lock().unwrap_or_else(PoisonError::into_inner);
        knocked.retain(|_, last| now.duration_since(*last) < PAUSE);
        match knocked.get(&address) {
            Some(last) => Err(busy(
                "this address was knocked at a moment ago",
                PAUSE.saturating_sub(now.duration_since(*last)),
            )),
            None => {
                knocked.insert(address, now);
                Ok(())
            }
        }
    }
}

fn busy(message: &str, wait: Duration) -> ErrorBody {
    ErrorBody::new(ErrorClass::Capacity, "knocking_busy", message)
        .with_help("try again in ten seconds")
        .with_retry_after_ms(wait.as_millis() as u64 + 1)
}

impl Office {
    /// Knocks at a port of the machine that `caller` comes from.
    pub(super) async fn knock(
        &self,
        caller: &Connection,
        node: NodeId,
        port: u16,
    ) -> Result<Knocked, ErrorBody> {
        let address = SocketAddr::new(caller.remote().ip().to_canonical(), port);
        if port == 0 || node == self.node {
            return Err(ErrorBody::user(
                "bad_address",
                "name a port and your own node",
            ));
        }
        let full = |_| {
            busy(
                "as many ports are knocked at as may",
                Duration::from_secs(1),
            )
        };
        let _permit = self.knocker.permits.try_acquire().map_err(full)?;
        self.knocker.turn(address.ip(), Instant::now())?;
        let dialler = Endpoint::dialler()?;
        let measured = self.measured(&dialler, address, node).await;
        dialler.close("knocked").await;
        let Measured { rtt, bytes_per_s } = measured?;
        Ok(Knocked {
            address: address.to_string(),
            rtt_us: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
            bytes_per_s,
        })
    }

    async fn measured(
        &self,
        dialler: &Endpoint,
        address: SocketAddr,
        node: NodeId,
    ) -> Result<Measured, ErrorBody> {
        let to = NodeAddress {
            node,
            host: address.ip().to_string(),
            port: address.port(),
        };
        let late = |_| closed(address, "no answer in time");
        let dialled = dialler.dial(&to, ALPN_PROBE, &self.tickets.key);
        let connection = timeout(DIAL_LIMIT, dialled).await.map_err(late)?;
        let connection = connection.map_err(|error| closed(address, &error.message))?;
        let ticket = self
            .tickets
            .probe((self.node, node), BULK_BYTES, clock::now());
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(ErrorBody::internal)?;
        let measuring = measure(&connection, (Nonce::new(nonce), ticket), BULK_BYTES);
        let measured = timeout(LIMIT, measuring).await.map_err(late)?;
        measured.map_err(|error| closed(address, &error.message))
    }
}

/// Of class user: the way to the coordinator is in order, the caller's port is not.
fn closed(address: SocketAddr, why: &str) -> ErrorBody {
    let message = format!("the coordinator does not reach UDP {address}: {why}");
    ErrorBody::user("port_closed", message).with_help(
        "open that port for UDP in the firewall, forward it in the router, then try again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_turn_every_ten_seconds() {
        let knocker = Knocker::default();
        let [one, other] = [1, 2].map(|n| IpAddr::from([10, 0, 0, n]));
        let start = Instant::now();
        assert!(knocker.turn(one, start).is_ok());
        assert!(knocker.turn(other, start).is_ok());
        let refused = knocker.turn(one, start + PAUSE / 2).unwrap_err();
        assert_eq!(refused.retry_after_ms, Some(5_001));
        assert!(knocker.turn(one, start + PAUSE).is_ok());
        assert_eq!(
            knocker.knocked.lock().unwrap().len(),
            1,
            "others are forgotten"
        );
    }
}
