//! The same hardware under two owners: one may be the other's second name, with a past that is forgotten.

use std::net::IpAddr;

use cryptomind_protocol::node::Capacity;

/// Whether two miners look like one machine: the same address, threads, devices and memory to the byte. Where the memory is not
/// known, nothing is concluded. Racks of equal machines behind one address look so too: they are checked more, and no worse.
pub fn is_twin(one: (&Capacity, IpAddr), other: (&Capacity, IpAddr)) -> bool {
    let ((a, at), (b, there)) = (one, other);
    at.to_canonical() == there.to_canonical()
        && a.memory_bytes.is_some()
        && (a.threads, a.memory_bytes, &a.devices) == (b.threads, b.memory_bytes, &b.devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(memory_bytes: u64, device: &str) -> Capacity {
        Capacity {
            threads: 8,
            devices: vec![device.into()],
            memory_bytes: Some(memory_bytes),
            ..Capacity::default()
        }
    }

    #[test]
    fn equal_machines_at_one_address_are_twins() {
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let (a, b, c) = (machine(7, "card"), machine(8, "card"), machine(7, "other"));
        let fast = Capacity {
            mflops: 9,
            free_bytes: 4,
            ..a.clone()
        };
        assert!(
            is_twin((&a, here), (&fast, here)),
            "what changes by itself says nothing"
        );
        assert!(is_twin(
            (&a, here),
            (&a, "::ffff:192.0.2.1".parse().unwrap())
        ));
        for other in [(&b, here), (&c, here), (&a, there)] {
            assert!(!is_twin((&a, here), other));
        }
        let unknown = Capacity {
            memory_bytes: None,
            ..a
        };
        assert!(!is_twin((&unknown, here), (&unknown, here)));
    }
}
