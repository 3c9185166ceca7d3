//! What the surveyor makes of what nodes say, honest ones and others.

use super::*;
use cryptomind_protocol::key::Nonce;

const COORDINATOR: u8 = 100;
const MB: u64 = 1_000_000;

fn node(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

fn party(n: u8) -> Party {
    Party::Node(node(n))
}

/// Nodes 1 to 4 of one local network, and what they were ordered.
fn surveyed() -> (Surveyor, Orders, Timestamp) {
    let surveyor = Surveyor::new(node(COORDINATOR)).unwrap();
    for n in 1..=4 {
        let probe = ([192, 168, 0, n], 7000).into();
        surveyor.enter(node(n), [203, 0, 113, 5].into(), Some(probe));
    }
    let later = clock::now().plus_ms(10_000);
    let orders = {
        let Inner {
            survey,
            links,
            dice,
            ..
        } = &mut *surveyor.inner();
        survey.orders(links, &|_| true, dice, later)
    };
    (surveyor, orders, later)
}

fn order(orders: &Orders, from: u8, to: u8) -> &Order {
    let peers = &orders[&node(from)];
    peers.iter().find(|peer| peer.node == node(to)).unwrap()
}

fn report(to: u8, rtt_us: u64, bytes_per_s: u64) -> LinkReport {
    LinkReport {
        to: node(to),
        rtt_us,
        bytes_per_s: Some(bytes_per_s),
    }
}

fn echo(from: u8, nonce: Nonce, address: &str) -> Echo {
    Echo {
        from: node(from),
        nonce,
        address: address.to_owned(),
    }
}

fn news(from: u8, reports: Vec<LinkReport>, echoes: Vec<Echo>) -> News {
    News {
        node: node(from),
        rtt: Duration::from_millis(2),
        reports,
        clients: Vec::new(),
        echoes,
    }
}

fn hear(surveyor: &Surveyor, news: &News, now: Timestamp) {
    surveyor.inner().hear(news, now);
}

fn table(surveyor: &Surveyor, now: Timestamp) -> LinkTable {
    surveyor.inner().links.table(now)
}

#[test]
fn both_ends_make_a_link_and_an_echo_a_local_network() {
    let (surveyor, orders, now) = surveyed();
    let (there, back) = (order(&orders, 1, 2).nonce, order(&orders, 2, 1).nonce);
    assert_ne!(there, back);
    let first = news(1, vec![report(2, 300, 110 * MB)], vec![]);
    let echoed = echo(1, there, "192.168.0.1:50000");
    let second = news(2, vec![report(1, 350, 100 * MB)], vec![echoed]);
    hear(&surveyor, &first, now);
    hear(&surveyor, &second, now);
    let link = table(&surveyor, now).link(party(1), party(2)).unwrap();
    assert_eq!((link.rtt_us, link.bytes_per_s), (350, 100 * MB));
    assert!(!link.estimated);
    let pairs = surveyor.pairs(Some(node(1)), 9);
    let of_two = pairs.iter().find(|(pair, _)| pair.b == party(2)).unwrap();
    assert_eq!((of_two.0.ends, of_two.0.lan), (2, true));
    let to_coordinator = pairs.iter().find(|(pair, _)| pair.b == party(COORDINATOR));
    assert_eq!(to_coordinator.unwrap().0.ends, 1);
}

#[test]
fn flattering_reports_alone_gain_nothing() {
    let (surveyor, _, now) = surveyed();
    for (a, b) in [(1, 2), (2, 1), (2, 3), (3, 2)] {
        hear(
            &surveyor,
            &news(a, vec![report(b, 5_000, 10 * MB)], vec![]),
            now,
        );
    }
    let before = table(&surveyor, now).link(party(4), party(1)).unwrap();
    let flattery = (1..=3).map(|to| report(to, 1, 1_000 * MB)).collect();
    let made_up = echo(1, Nonce::new([0; 16]), "192.168.0.1:50000");
    hear(&surveyor, &news(4, flattery, vec![made_up]), now);
    let after = table(&surveyor, now).link(party(4), party(1)).unwrap();
    assert_eq!(
        (after.rtt_us, after.bytes_per_s),
        (before.rtt_us, before.bytes_per_s)
    );
    assert!(surveyor.pairs(None, 99).iter().all(|(pair, _)| !pair.lan));
}

#[test]
fn what_is_of_nodes_that_are_not_there_is_ignored() {
    let (surveyor, _, now) = surveyed();
    hear(&surveyor, &news(9, vec![report(1, 1, MB)], vec![]), now);
    hear(&surveyor, &news(1, vec![report(9, 1, MB)], vec![]), now);
    surveyor.leave(&node(2));
    hear(&surveyor, &news(2, vec![report(1, 1, MB)], vec![]), now);
    let to_coordinator = surveyor.pairs(None, 99);
    assert_eq!(
        to_coordinator.len(),
        1,
        "node 1's own connection: {to_coordinator:?}"
    );
}

#[test]
fn a_table_is_made_anew_when_it_is_due_and_something_changed() {
    let (surveyor, _, now) = surveyed();
    surveyor.inner().table.pause = Duration::from_secs(3600);
    let first = surveyor.table();
    for (a, b) in [(1, 2), (2, 1)] {
        hear(&surveyor, &news(a, vec![report(b, 5_000, MB)], vec![]), now);
    }
    assert!(Arc::ptr_eq(&first, &surveyor.table()), "too early");
    surveyor.inner().table.pause = Duration::ZERO;
    let second = surveyor.table();
    assert!(second.link(party(1), party(2)).is_some());
    surveyor.inner().table.pause = Duration::ZERO;
    assert!(Arc::ptr_eq(&second, &surveyor.table()), "nothing changed");
}

/// The storage node, which is nobody's neighbour.
const STORE: u8 = 60;

#[test]
fn a_way_to_a_storage_node_is_what_both_ends_of_transfers_saw() {
    let (surveyor, _, now) = surveyed();
    surveyor.enter_store(node(STORE));
    hear(
        &surveyor,
        &news(1, vec![report(STORE, 700, 9 * MB)], vec![]),
        now,
    );
    hear(
        &surveyor,
        &news(STORE, vec![report(1, 500, 4 * MB)], vec![]),
        now,
    );
    let link = table(&surveyor, now).link(party(1), party(STORE)).unwrap();
    assert_eq!(
        (link.rtt_us, link.bytes_per_s),
        (700, 4 * MB),
        "the worse of each"
    );
    assert!(!link.estimated);
    surveyor.leave(&node(STORE));
    hear(&surveyor, &news(2, vec![report(STORE, 1, MB)], vec![]), now);
    let pairs = surveyor.pairs(Some(node(STORE)), 9);
    let ends: Vec<_> = pairs
        .iter()
        .flat_map(|(pair, _)| [pair.a, pair.b])
        .collect();
    assert!(ends.contains(&party(1)) && ends.contains(&party(COORDINATOR)));
    assert!(!ends.contains(&party(2)), "what is gone is not heard of");
}

#[test]
fn a_client_is_as_far_as_both_ends_say() {
    let (surveyor, _, now) = surveyed();
    surveyor.enter_store(node(STORE));
    let ada = AccountId::new([7; 20]);
    let seen = News {
        clients: vec![(ada, report(9, 31_000, 3 * MB))],
        ..news(STORE, vec![], vec![])
    };
    hear(&surveyor, &seen, now);
    let flattery = [
        report(STORE, 1, 1_000 * MB),
        report(COORDINATOR, 1, MB),
        report(1, 1, MB),
    ];
    let client = (ada, Duration::from_millis(31));
    surveyor.inner().hear_client(client, &flattery, now);
    let table = table(&surveyor, now);
    let link = table.link(Party::Client(ada), party(STORE)).unwrap();
    assert_eq!((link.rtt_us, link.bytes_per_s), (31_000, 3 * MB));
    assert!(!link.estimated);
    let home = table.link(Party::Client(ada), party(COORDINATOR)).unwrap();
    assert_eq!(home.rtt_us, 31_000);
    let known = surveyor
        .inner()
        .links
        .pairs(Some(Party::Client(ada)), 9, now);
    assert_eq!(known.len(), 2, "its word of miners is not asked for");
}

/// Of so many that a table takes a while.
#[tokio::test]
async fn a_large_table_is_made_while_the_last_one_serves() {
    let (surveyor, _, now) = surveyed();
    let many = |n: u16| {
        let mut bytes = [0; NodeId::LEN];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        Party::Node(NodeId::new(bytes))
    };
    let measure = Measure {
        rtt_us: 5_000,
        bytes_per_s: Some(MB),
    };
    {
        let Inner { links, table, .. } = &mut *surveyor.inner();
        for n in 0..=SMALL as u16 {
            links.report(many(n), many(n + 1), measure, now);
            links.report(many(n + 1), many(n), measure, now);
        }
        (table.pause, table.is_stale) = (Duration::ZERO, true);
    }
    let first = surveyor.table();
    assert!(
        first.link(many(0), many(1)).is_none(),
        "the last one serves"
    );
    let made = async {
        while Arc::ptr_eq(&first, &surveyor.table()) {
            tokio::task::yield_now().await;
        }
    };
    let made = tokio::time::timeout(Duration::from_secs(20), made).await;
    made.expect("the next one comes");
    assert!(surveyor.table().link(many(0), many(1)).is_some());
}
