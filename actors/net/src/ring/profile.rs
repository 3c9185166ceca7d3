//! How packets of a ring travel, by the path between two members.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// What a path allows, chosen by where the other end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The same machine: packets as large as the system takes them.
    Loopback,
    /// A local network: packets of an Ethernet frame, many in one system call.
    Lan,
}

impl Profile {
    /// Of the path to `target`: the same machine, where the system answers to that address itself.
    pub(crate) fn of(target: SocketAddr) -> Self {
        match target.ip().to_canonical().is_loopback() || is_own(target) {
            true => Self::Loopback,
            false => Self::Lan,
        }
    }

    /// The largest UDP payload that is tried on the path to `target`; what it really takes is measured packet by packet (RFC 8899).
    pub(crate) const fn largest_payload(self, target: IpAddr) -> u16 {
        match (self, target.to_canonical()) {
            (Self::Loopback, _) => LARGEST_PAYLOAD,
            (Self::Lan, IpAddr::V4(_)) => ETHERNET_PAYLOAD - IPV4_HEADER - UDP_HEADER,
            (Self::Lan, IpAddr::V6(_)) => ETHERNET_PAYLOAD - IPV6_HEADER - UDP_HEADER,
        }
    }

    /// Whether the system cuts one large write into packets. It takes 64 KiB at a time, so not for packets of that size.
    pub(crate) const fn segments(self) -> bool {
        matches!(self, Self::Lan)
    }
}

/// Bytes of an Ethernet frame's payload, and of the headers in it.
const ETHERNET_PAYLOAD: u16 = 1_500;
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;
const UDP_HEADER: u16 = 8;
/// The largest UDP payload that a ring socket takes, and any profile sends.
pub(crate) const LARGEST_PAYLOAD: u16 = 65_000;

/// Whether packets to `target` would leave from that very address.
fn is_own(target: SocketAddr) -> bool {
    let unspecified: IpAddr = match target {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
        // Sends nothing: the system looks up the way.
        socket.connect(target)?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == target.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_a_local_network_fill_its_frames() {
        let of = |ip: &str| Profile::Lan.largest_payload(ip.parse().unwrap());
        assert_eq!(of("192.0.2.1"), 1_472);
        assert_eq!(of("::ffff:192.0.2.1"), 1_472);
        assert_eq!(of("2001:db8::1"), 1_452);
        let loopback = Profile::Loopback.largest_payload([127, 0, 0, 1].into());
        assert_eq!(loopback, LARGEST_PAYLOAD);
    }

    #[test]
    fn this_machine_is_known_by_any_of_its_addresses() {
        let of = |text: &str| Profile::of(text.parse().unwrap());
        assert_eq!(of("127.0.0.1:9"), Profile::Loopback);
        assert_eq!(of("127.9.9.9:9"), Profile::Loopback);
        assert_eq!(of("[::1]:9"), Profile::Loopback);
        assert_eq!(of("[::ffff:127.0.0.1]:9"), Profile::Loopback);
        // Of the documentation's networks (RFC 5737), which nobody has.
        assert_eq!(of("192.0.2.1:9"), Profile::Lan);
        assert_eq!(of("[2001:db8::1]:9"), Profile::Lan);
    }
}
