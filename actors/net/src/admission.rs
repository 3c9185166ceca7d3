//! Who gets in: how many connections there are, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::close::Close;
use crate::limits::Limits;

/// The counters of one endpoint.
pub(crate) struct Admission {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: usize,
    handshakes: usize,
    by_origin: HashMap<IpAddr, usize>,
}

/// A counted connection; not counted any more when dropped.
pub(crate) struct Permit {
    admission: Arc<Admission>,
    origin: IpAddr,
}

/// A counted handshake; not counted any more when dropped.
pub(crate) struct Handshake(Arc<Admission>);

impl Admission {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            counts: Mutex::default(),
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether callers must prove their address before anything else.
    pub(crate) fn is_pressed(&self) -> bool {
        self.with(|counts| counts.handshakes >= self.limits.max_handshakes)
    }

    /// Counts a handshake that begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Handshake {
        self.with(|counts| counts.handshakes += 1);
        Handshake(self.clone())
    }

    fn most_from(&self, from: IpAddr) -> usize {
        if self.limits.exempt.iter().any(|ip| origin(*ip) == from) {
            self.limits.max_connections
        } else if from.is_loopback() {
            self.limits.max_per_loopback
        } else {
            self.limits.max_per_address
        }
    }

    /// Counts a connection from `remote`, or says why there is no room for it.
    pub(crate) fn enter(self: &Arc<Self>, remote: IpAddr) -> Result<Permit, Close> {
        let origin = origin(remote);
        let most = self.most_from(origin);
        self.with(|counts| {
            let here = counts.by_origin.get(&origin).copied().unwrap_or(0);
            if counts.total >= self.limits.max_connections {
                return Err(Close::Busy);
            }
            if here >= most {
                return Err(Close::BusyAddress);
            }
            counts.total += 1;
            counts.by_origin.insert(origin, here + 1);
            Ok(())
        })?;
        Ok(Permit {
            admission: self.clone(),
            origin,
        })
    }
}

/// Whom connections count against: an IPv4 address, or an IPv6 /64, which one subscriber owns whole.
fn origin(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            let network = u128::from(v6) & (u128::from(u64::MAX) << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        other => other,
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.with(|counts| {
            counts.total -= 1;
            if let Some(here) = counts.by_origin.get_mut(&self.origin) {
                *here -= 1;
                if *here == 0 {
                    counts.by_origin.remove(&self.origin);
                }
            }
        });
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.with(|counts| counts.handshakes -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Arc<Admission> {
        Admission::new(Limits {
            max_connections: 4,
            max_per_address: 1,
            max_per_loopback: 2,
            max_handshakes: 1,
            ..Limits::default()
        })
    }

    #[test]
    fn each_limit_refuses_with_its_reason_and_room_comes_back() {
        let admission = small();
        let enter = |ip: &str| admission.enter(ip.parse().unwrap());
        let first = enter("192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").err(), Some(Close::BusyAddress));
        assert_eq!(enter("::ffff:192.0.2.1").err(), Some(Close::BusyAddress));
        let _loopback = [enter("127.0.0.1").unwrap(), enter("127.0.0.1").unwrap()];
        assert_eq!(enter("127.0.0.1").err(), Some(Close::BusyAddress));
        let _v6 = enter("2001:db8::1").unwrap();
        assert_eq!(enter("198.51.100.9").err(), Some(Close::Busy));
        drop(first);
        assert_eq!(enter("2001:db8::2").err(), Some(Close::BusyAddress));
        assert!(enter("192.0.2.1").is_ok());
    }

    #[test]
    fn an_exempt_address_may_have_all_connections_there_are_and_no_more() {
        let admission = Admission::new(Limits {
            max_connections: 3,
            max_per_address: 1,
            max_per_loopback: 1,
            exempt: vec!["127.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            ..Limits::default()
        });
        let enter = |ip: &str| admission.enter(ip.parse().unwrap());
        let _exempt = [
            enter("127.0.0.1").unwrap(),
            enter("127.0.0.1").unwrap(),
            enter("2001:db8::2").unwrap(),
        ];
        assert_eq!(enter("127.0.0.1").err(), Some(Close::Busy));
        drop(_exempt);
        let _other = enter("192.0.2.1").unwrap();
        assert_eq!(enter("192.0.2.1").err(), Some(Close::BusyAddress));
    }

    #[test]
    fn handshakes_in_progress_press() {
        let admission = small();
        let one = admission.begin();
        assert!(admission.is_pressed());
        drop(one);
        assert!(!admission.is_pressed());
    }
}
