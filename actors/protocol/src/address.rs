//! A node's address: who it is and where it listens. `cm://<node id>@host:port`; a caller pins the id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::NodeId;

/// Who and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAddress {
    /// The node that must answer.
    pub node: NodeId,
    /// Host name or IP address, without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// Why a text is not a node's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a node's address ({reason}); one looks like cm://cmn1…@203.0.113.5:7700")]
pub struct ParseAddressError {
    text: String,
    reason: String,
}

/// The most bytes of a `host:port`.
const MAX_HOST_PORT_BYTES: usize = 256;

/// Whether a text may be the `host:port` of a socket: what others are told to dial.
pub fn is_host_port(text: &str) -> bool {
    let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    text.len() <= MAX_HOST_PORT_BYTES && matches!(port, Some(Ok(_)))
}

impl NodeAddress {
    /// `host:port`, with brackets around IPv6.
    pub fn socket(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cm://{}@{}", self.node, self.socket())
    }
}

impl FromStr for NodeAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let error = |reason: &str| ParseAddressError {
            text: text.chars().take(120).collect(),
            reason: reason.to_owned(),
        };
        let rest = text
            .strip_prefix("cm://")
            .ok_or_else(|| error("it starts with cm://"))?;
        let (node, socket) = rest
            .split_once('@')
            .ok_or_else(|| error("an @ stands between node id and host"))?;
        let node = node.parse::<NodeId>().map_err(|e| error(&e.to_string()))?;
        let (host, port) = socket
            .rsplit_once(':')
            .ok_or_else(|| error("the port is missing"))?;
        let port = port
            .parse()
            .map_err(|_| error("the port is not a number up to 65535"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(error("the host is missing"));
        }
        Ok(Self {
            node,
            host: host.to_owned(),
            port,
        })
    }
}

impl Serialize for NodeAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip_and_nonsense_is_named() {
        for host in ["127.0.0.1", "::1", "node.example.org"] {
            let address = NodeAddress {
                node: NodeId::new([7; 32]),
                host: host.into(),
                port: 7700,
            };
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        let good = NodeAddress {
            node: NodeId::new([7; 32]),
            host: "h".into(),
            port: 1,
        }
        .to_string();
        for bad in [
            "",
            "cm://",
            &good[5..],
            &good[..good.len() - 2],
            &good.replace('@', ""),
        ] {
            assert!(bad.parse::<NodeAddress>().is_err(), "{bad}");
        }
    }
}
