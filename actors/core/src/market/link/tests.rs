use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_ms(1_000_000);

fn node(n: u16) -> Party {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    Party::Node(NodeId::new(bytes))
}

fn measure(rtt_us: u64, bytes_per_s: u64) -> Measure {
    Measure {
        rtt_us,
        bytes_per_s: Some(bytes_per_s),
    }
}

/// Both ends of pairs among nodes 100 and up report these.
fn population(links: &mut Links, values: &[(u64, u64)]) {
    for (i, (rtt, throughput)) in values.iter().enumerate() {
        let (a, b) = (node(100 + 2 * i as u16), node(101 + 2 * i as u16));
        links.report(a, b, measure(*rtt, *throughput), START);
        links.report(b, a, measure(*rtt, *throughput), START);
    }
}

const POPULATION: [(u64, u64); 5] = [
    (50_000, 1_000),
    (40_000, 2_000),
    (30_000, 3_000),
    (20_000, 4_000),
    (10_000, 5_000),
];

#[test]
fn of_two_reports_the_worse_value_counts() {
    let mut links = Links::default();
    links.report(node(1), node(2), measure(100, 9_000), START);
    links.report(node(2), node(1), measure(700, 8_000), START);
    let expected = Link {
        rtt_us: 700,
        bytes_per_s: 8_000,
        estimated: false,
    };
    let table = links.table(START);
    assert_eq!(table.link(node(1), node(2)), Some(expected));
    assert_eq!(table.link(node(2), node(1)), Some(expected));
}

#[test]
fn nothing_is_estimated_of_nothing_and_a_single_word_is_nothing() {
    let mut links = Links::default();
    assert_eq!(links.table(START).link(node(1), node(2)), None);
    links.report(node(1), node(2), measure(1, 1_000_000), START);
    assert_eq!(links.table(START).link(node(1), node(2)), None);
}

#[test]
fn an_unmeasured_pair_is_the_worse_quartile() {
    let mut links = Links::default();
    population(&mut links, &POPULATION);
    let estimate = links.table(START).link(node(1), node(2)).unwrap();
    assert_eq!((estimate.rtt_us, estimate.bytes_per_s), (40_000, 2_000));
    assert!(estimate.estimated);
}

#[test]
fn a_local_network_that_nobody_measured_is_as_others_of_its_kind() {
    let mut links = Links::default();
    population(&mut links, &POPULATION);
    links.prove_lan(node(1), node(2), START);
    let like_any = links.table(START).link(node(1), node(2)).unwrap();
    assert_eq!(like_any.bytes_per_s, 2_000, "no local network is measured");
    links.report(node(3), node(4), measure(300, 100_000), START);
    links.report(node(4), node(3), measure(300, 100_000), START);
    links.prove_lan(node(4), node(3), START);
    let local = links.table(START).link(node(1), node(2)).unwrap();
    assert_eq!((local.rtt_us, local.bytes_per_s), (300, 100_000));
    assert!(local.estimated);
    let later = START.plus_ms(LAN_EXPIRY_MS + 1);
    assert_eq!(links.table(later).link(node(1), node(2)), None);
}

#[test]
fn reports_expire_round_trips_first() {
    let mut links = Links::default();
    population(&mut links, &[(50_000, 1_000)]);
    let (a, b) = (node(1), node(2));
    links.report(a, b, measure(100, 9_000), START);
    links.report(b, a, measure(100, 9_000), START);
    let later = START.plus_ms(RTT_EXPIRY_MS + 1);
    population_at(&mut links, later);
    let link = links.table(later).link(a, b).unwrap();
    assert_eq!((link.rtt_us, link.bytes_per_s), (50_000, 9_000));
    let much_later = START.plus_ms(THROUGHPUT_EXPIRY_MS + 1);
    links.forget_expired(much_later);
    assert!(links.sides.len() <= 2, "only the later reports are left");
    assert_eq!(links.table(much_later).known(a, b), None);
}

fn population_at(links: &mut Links, now: Timestamp) {
    links.report(node(100), node(101), measure(50_000, 1_000), now);
    links.report(node(101), node(100), measure(50_000, 1_000), now);
}

#[test]
fn a_moving_average_follows_and_an_expired_one_begins_anew() {
    let mut links = Links::default();
    let (a, b) = (node(1), node(2));
    for value in [1_000, 2_000] {
        links.report(a, b, measure(100, value), START);
        links.report(b, a, measure(100, value), START);
    }
    assert_eq!(links.table(START).link(a, b).unwrap().bytes_per_s, 1_200);
    let later = START.plus_ms(THROUGHPUT_EXPIRY_MS + 1);
    links.report(a, b, measure(100, 5_000), later);
    links.report(b, a, measure(100, 5_000), later);
    assert_eq!(links.table(later).link(a, b).unwrap().bytes_per_s, 5_000);
}

#[test]
fn peers_are_bounded_and_the_oldest_goes() {
    let mut links = Links::default();
    for n in 0..MAX_PEERS as u16 + 10 {
        let now = START.plus_ms(n.into());
        links.report(node(1000), node(n), measure(10, 10), now);
    }
    let peers = &links.sides[&node(1000)];
    assert_eq!(peers.len(), MAX_PEERS);
    assert!(!peers.contains_key(&node(9)) && peers.contains_key(&node(10)));
    for n in 1..=MAX_PEERS as u16 + 10 {
        links.prove_lan(node(0), node(n), START.plus_ms(n.into()));
    }
    let proved = &links.lan[&node(0)];
    assert_eq!(proved.len(), MAX_PEERS);
    assert!(!proved.contains_key(&node(10)) && proved.contains_key(&node(11)));
}

#[test]
fn a_report_on_oneself_and_values_beyond_reason_do_no_harm() {
    let mut links = Links::default();
    links.report(node(1), node(1), measure(1, 1), START);
    links.prove_lan(node(1), node(1), START);
    assert!(links.sides.is_empty() && links.lan.is_empty());
    for (a, b) in [(1, 2), (2, 1)] {
        links.report(node(a), node(b), measure(u64::MAX, u64::MAX), START);
        links.report(node(a), node(b), measure(0, 0), START);
    }
    let link = links.table(START).link(node(1), node(2)).unwrap();
    assert!(link.rtt_us <= MAX_RTT_US && link.bytes_per_s <= MAX_BYTES_PER_S);
    assert!(link.rtt_us > 0 && link.bytes_per_s > 0);
}

proptest! {
    /// Whatever one end claims of its links, none of them gets better than if it had said nothing.
    #[test]
    fn flattering_oneself_gains_nothing(rtt in 0..100_000u64, throughput in 0..10_000u64, others in prop::collection::vec((1..100_000u64, 1..10_000u64), 1..20)) {
        let mut links = Links::default();
        population(&mut links, &others);
        let silent = links.table(START).link(node(1), node(2)).unwrap();
        links.report(node(1), node(2), measure(rtt, throughput), START);
        let claimed = links.table(START).link(node(1), node(2)).unwrap();
        prop_assert!(claimed.rtt_us >= silent.rtt_us);
        prop_assert!(claimed.bytes_per_s <= silent.bytes_per_s);
        prop_assert!(claimed.estimated);
    }

    /// The order in which pairs report is irrelevant.
    #[test]
    fn a_table_does_not_depend_on_the_order_of_reports(reports in prop::collection::vec((0..6u16, 0..6u16, 1..9_000u64, 1..9_000u64), 1..40)) {
        let mut once = BTreeMap::new();
        for (a, b, rtt, throughput) in reports {
            once.insert((a, b), measure(rtt, throughput));
        }
        let (mut forth, mut back) = (Links::default(), Links::default());
        for ((a, b), measure) in &once {
            forth.report(node(*a), node(*b), *measure, START);
        }
        for ((a, b), measure) in once.iter().rev() {
            back.report(node(*a), node(*b), *measure, START);
        }
        let (forth, back) = (forth.table(START), back.table(START));
        for a in 0..6 {
            for b in 0..6 {
                prop_assert_eq!(forth.link(node(a), node(b)), back.link(node(a), node(b)));
            }
        }
    }
}

#[test]
fn who_is_far_is_in_no_local_network_whatever_its_addresses() {
    let mut links = Links::default();
    let is_lan = |links: &Links| links.pairs(None, 1, START).first().is_some_and(|p| p.lan);
    links.prove_lan(node(1), node(2), START);
    links.report(node(2), node(1), measure(MAX_LAN_RTT_US, 1), START);
    assert!(is_lan(&links));
    links.report(node(2), node(1), measure(6 * MAX_LAN_RTT_US, 1), START);
    assert!(!is_lan(&links), "measured to be far, by one end");
    links.prove_lan(node(1), node(2), START);
    assert!(!is_lan(&links), "a proof does not help");
    let later = START.plus_ms(RTT_EXPIRY_MS + 1);
    links.prove_lan(node(2), node(1), later);
    assert!(
        links.pairs(None, 1, later)[0].lan,
        "until that is forgotten"
    );
}

fn client(n: u16) -> Party {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    Party::Client(AccountId::new(bytes))
}

#[test]
fn clients_say_nothing_of_nodes_and_are_compared_with_clients() {
    let mut links = Links::default();
    population(&mut links, &POPULATION);
    let before = links.table(START).estimate().unwrap();
    let slow = measure(400_000, 10);
    for n in 0..9 {
        links.report(client(n), node(50), slow, START);
        links.report(node(50), client(n), slow, START);
    }
    let table = links.table(START);
    assert_eq!(table.estimate(), Some(before));
    assert_eq!(table.link(node(1), node(2)), Some(before));
    let unknown = table.link(client(99), node(1)).unwrap();
    assert_eq!((unknown.rtt_us, unknown.bytes_per_s), (400_000, 10));
    let known = table.link(node(50), client(3)).unwrap();
    assert!(!known.estimated);
}

#[test]
fn a_hub_speaks_of_many_and_clients_are_few() {
    let mut links = Links::default();
    let (hub, other) = (node(1), node(2));
    links.set_hub(hub);
    for n in 0..2 * MAX_PEERS as u16 {
        let now = START.plus_ms(n.into());
        links.report(hub, client(n), measure(1, 1), now);
        links.report(other, client(n), measure(1, 1), now);
    }
    assert_eq!(links.sides[&hub].len(), 2 * MAX_PEERS);
    assert_eq!(links.sides[&other].len(), MAX_PEERS);
    for n in 0..=MAX_CLIENTS as u16 {
        links.report(client(n), hub, measure(1, 1), START.plus_ms(n.into()));
    }
    let clients = links.sides.keys().filter(|p| matches!(p, Party::Client(_)));
    assert_eq!(clients.count(), MAX_CLIENTS);
    assert!(!links.sides.contains_key(&client(0)), "the oldest went");
    links.unset_hub(&hub);
    links.report(hub, client(9_999), measure(1, 1), START);
    assert_eq!(
        links.sides[&hub].len(),
        2 * MAX_PEERS,
        "one goes for one that comes"
    );
}
