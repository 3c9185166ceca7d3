//! Where a node is: as the coordinator sees it, and as it says itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where a miner that lets others measure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where its connection to the coordinator comes from.
    seen: IpAddr,
    /// Its probe port, by its own address in its own network.
    probe: SocketAddr,
}

impl Place {
    /// Seen from `seen`, and listening at `probe` by its own word.
    pub fn new(seen: IpAddr, probe: SocketAddr) -> Self {
        Self {
            seen: seen.to_canonical(),
            probe: SocketAddr::new(probe.ip().to_canonical(), probe.port()),
        }
    }

    /// Whether both seem to be in one network: they come from one public address, or from private ones of one /24
    /// (IPv6: one /64 of either kind). Private addresses alone say little: tunnels join sites of 10.0.0.0/8 over continents.
    pub fn is_near(&self, other: &Self) -> bool {
        self.network() == other.network()
    }

    /// The network that it seems to be in: what all its near ones have in common.
    pub(super) fn network(&self) -> IpAddr {
        origin(self.seen)
    }

    /// At which address this node reaches the other's probe port. What the other says itself is passed on within
    /// its network alone: elsewhere it would lead to somebody else, and be a way to have strangers dialled.
    pub fn address_of(&self, other: &Self) -> SocketAddr {
        if self.is_near(other) && is_private(other.probe.ip()) {
            return other.probe;
        }
        SocketAddr::new(other.seen, other.probe.port())
    }
}

/// What nodes of one network have in common, as far as the coordinator sees it.
fn origin(seen: IpAddr) -> IpAddr {
    match seen {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = u128::from(v6) & (u128::from(u64::MAX) << 64);
            Ipv6Addr::from(network).into()
        }
        IpAddr::V4(v4) if is_private(seen) && !v4.is_loopback() => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        one => one,
    }
}

/// Whether an address means something in its own network alone: RFC 1918, link-local, unique local, loopback.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(seen: &str, probe: &str) -> Place {
        Place::new(seen.parse().unwrap(), probe.parse().unwrap())
    }

    #[test]
    fn a_private_address_is_told_within_its_network_alone() {
        let home = place("203.0.113.5", "192.168.1.7:7000");
        let beside = place("203.0.113.5", "192.168.1.8:7001");
        let away = place("198.51.100.9", "192.168.1.8:7001");
        let address = |from: &Place, to: &Place| from.address_of(to).to_string();
        assert_eq!(address(&home, &beside), "192.168.1.8:7001");
        assert_eq!(address(&home, &away), "198.51.100.9:7001");
        // A public address by a node's own word is nobody's business but its own.
        let liar = place("203.0.113.5", "192.0.2.1:53");
        assert_eq!(address(&home, &liar), "203.0.113.5:53");
    }

    #[test]
    fn networks_are_told_apart_by_where_they_come_from() {
        let near = |a: &str, b: &str| place(a, "10.0.0.1:1").is_near(&place(b, "10.0.0.2:1"));
        assert!(
            near("10.1.0.1", "10.1.0.200"),
            "the coordinator's own network"
        );
        assert!(!near("10.1.0.1", "10.2.0.1"), "another site of its owner");
        assert!(near("::ffff:203.0.113.5", "203.0.113.5"));
        assert!(near("2001:db8:0:1::1", "2001:db8:0:1::2"));
        assert!(near("fd00:0:0:1::1", "fd00:0:0:1::2"));
        assert!(near("127.0.0.1", "127.0.0.1"));
        assert!(!near("2001:db8:0:1::1", "2001:db8:0:2::1"));
        assert!(!near("203.0.113.5", "203.0.113.6"));
        assert!(!near("127.0.0.1", "10.0.0.1"));
    }

    #[test]
    fn private_addresses_are_those_of_the_books() {
        let private = "10.0.0.1 172.16.0.1 192.168.0.1 169.254.0.1 127.0.0.1 fd00::1 fe80::1 ::1";
        let public = "172.32.0.1 100.64.0.1 8.8.8.8 2001:db8::1 ::ffff:8.8.8.8 0.0.0.0";
        let is = |text: &str| is_private(text.parse().unwrap());
        assert!(private.split(' ').all(is));
        assert!(!public.split(' ').any(is));
    }
}
