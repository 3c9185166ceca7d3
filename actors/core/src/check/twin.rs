//! The same hardware under two owners: one may be the other's second name, with a past that is forgotten.

use std::net::IpAddr;

use cryptomind_protocol::selftest::Machine;

/// Whether two miners look like one machine: the same address, threads, devices and memory to the byte, as their self-tests say.
/// Where the memory is not known, nothing is concluded. Racks of equal machines behind one address look so too: they are checked
/// more, and no worse. Whoever lies of his machine is not found by this.
pub fn is_twin(one: (&Machine, IpAddr), other: (&Machine, IpAddr)) -> bool {
    let ((a, at), (b, there)) = (one, other);
    at.to_canonical() == there.to_canonical() && a.memory_bytes > 0 && a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(memory_bytes: u64, device: &str) -> Machine {
        Machine {
            threads: 8,
            devices: vec![device.into()],
            memory_bytes,
        }
    }

    #[test]
    fn equal_machines_at_one_address_are_twins() {
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let (a, b, c) = (machine(7, "card"), machine(8, "card"), machine(7, "other"));
        assert!(is_twin((&a, here), (&a, here)));
        assert!(is_twin(
            (&a, here),
            (&a, "::ffff:192.0.2.1".parse().unwrap())
        ));
        for other in [(&b, here), (&c, here), (&a, there)] {
            assert!(!is_twin((&a, here), other));
        }
        let unknown = machine(0, "card");
        assert!(!is_twin((&unknown, here), (&unknown, here)));
    }
}
