//! Who is told what, in virtual time.

use super::super::link::Measure;
use super::*;

const SECRET: [u8; 32] = [7; 32];
/// Two minutes of one-second calls, and the jitter.
const ROUND_S: u64 = ROUND_MS / 1000 * 3 / 2;

fn node(n: u8) -> NodeId {
    NodeId::new([n; 32])
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_ms(1_000_000_000 + seconds * 1000)
}

/// `lans` networks of eight, each behind its own public address.
fn survey(lans: u8) -> (Survey, Dice) {
    let (mut survey, mut dice) = (Survey::new(SECRET), Dice::new(3));
    for n in 0..lans * 8 {
        let place = Place::new(
            [203, 0, 113, n / 8].into(),
            ([192, 168, 0, n % 8 + 1], 7000).into(),
        );
        survey.enter(node(n), place, &mut dice, at(0));
    }
    (survey, dice)
}

/// All orders of so many seconds, with when they were given.
fn run(
    survey: &mut Survey,
    dice: &mut Dice,
    seconds: std::ops::Range<u64>,
) -> Vec<(u64, NodeId, Order)> {
    let links = Links::default();
    let mut all = Vec::new();
    for second in seconds {
        let orders = survey.orders(&links, &|_| true, dice, at(second));
        for (to, peers) in orders {
            assert!(peers.len() <= MAX_ORDERS);
            all.extend(peers.into_iter().map(|peer| (second, to, peer)));
        }
    }
    all
}

#[test]
fn neighbours_measure_each_other_from_both_ends_by_private_addresses() {
    let (mut survey, mut dice) = survey(3);
    let orders = run(&mut survey, &mut dice, 0..ROUND_S);
    let told = |from: u8, to: u8| {
        let of_pair = |(_, node_, peer): &&(u64, NodeId, Order)| {
            *node_ == node(from) && peer.node == node(to)
        };
        orders
            .iter()
            .find(of_pair)
            .map(|(_, _, peer)| peer.address.to_string())
    };
    for (a, b) in [(0, 7), (9, 15), (16, 17)] {
        let address = |n: u8| Some(format!("192.168.0.{}:7000", n % 8 + 1));
        assert_eq!((told(a, b), told(b, a)), (address(b), address(a)));
    }
    let far = orders
        .iter()
        .find(|(_, to, peer)| *to == node(0) && peer.node >= node(8));
    let (_, _, far) = far.expect("somebody far by chance");
    assert!(
        far.address.to_string().starts_with("203.0.113."),
        "{}",
        far.address
    );
}

#[test]
fn a_local_network_moves_its_bytes_within_minutes_and_one_pair_at_a_time_a_node() {
    let (mut survey, mut dice) = survey(1);
    let orders = run(&mut survey, &mut dice, 0..600);
    let bulks: Vec<_> = orders
        .iter()
        .filter(|(_, _, peer)| peer.bulk_bytes > 0)
        .collect();
    let directed: BTreeSet<_> = bulks.iter().map(|(_, to, peer)| (*to, peer.node)).collect();
    assert_eq!(directed.len(), 8 * 7, "every pair from both ends");
    for (n, (second, a, peer)) in bulks.iter().enumerate() {
        let clashes = bulks[n + 1..].iter().filter(|(later, b, other)| {
            let shared = [a, &peer.node].iter().any(|x| [b, &other.node].contains(x));
            shared && later - second < BULK_TURN_MS / 1000
        });
        assert_eq!(clashes.count(), 0, "{second} s, {a} and {}", peer.node);
    }
}

/// Whoever is told to move bytes says a second later that it did. Gives when each end of each pair was told to.
fn run_with_reports(
    survey: &mut Survey,
    dice: &mut Dice,
    seconds: u64,
) -> Vec<(u64, NodeId, NodeId)> {
    let mut told: Vec<(u64, NodeId, NodeId)> = Vec::new();
    for second in 0..seconds {
        for (_, from, to) in told.iter().filter(|(when, ..)| when + 1 == second) {
            survey.moved(*from, *to, at(second));
        }
        let orders = run(survey, dice, second..second + 1).into_iter();
        let bulks = orders.filter(|(_, _, peer)| peer.bulk_bytes > 0);
        told.extend(bulks.map(|(second, to, peer)| (second, to, peer.node)));
    }
    told
}

#[test]
fn a_report_begins_the_next_turn_and_a_line_rests_for_as_long_as_it_was_used() {
    let (mut survey, mut dice) = survey(1);
    let told = run_with_reports(&mut survey, &mut dice, 60);
    let directed: BTreeSet<_> = told.iter().map(|(_, from, to)| (*from, *to)).collect();
    assert_eq!(
        directed.len(),
        8 * 7,
        "every pair from both ends in a minute"
    );
    assert_eq!(told.len(), 8 * 7, "and once");
    for n in 0..8 {
        let of_node = |(_, from, to): &&(u64, NodeId, NodeId)| [*from, *to].contains(&node(n));
        let turns: Vec<_> = told.iter().filter(of_node).map(|told| told.0).collect();
        for pair in turns.chunks(2) {
            assert_eq!(pair[0] + 1, pair[1], "{turns:?}");
        }
        let begins = turns.iter().step_by(2);
        let begins: Vec<_> = begins.collect();
        assert!(begins.windows(2).all(|w| *w[1] >= w[0] + 4), "{turns:?}");
    }
}

#[test]
fn a_word_out_of_turn_ends_nothing() {
    let (mut survey, mut dice) = survey(1);
    let told = run_with_reports(&mut survey, &mut dice, FIRST_ROUND_MS / 1000);
    let (second, first, other) = told[0];
    let now = at(second + 3);
    let exchange = Exchange {
        peer: other,
        is_second: false,
        began: now,
        until: now.plus_ms(2 * BULK_TURN_MS),
    };
    let member = survey.members.get_mut(&first).unwrap();
    member.exchange = Some(exchange);
    survey.turns.clear();
    survey.moved(first, other, now.plus_ms(1));
    assert!(
        survey.members[&first].moves(now.plus_ms(10)),
        "the other's turn"
    );
    survey.moved(node(99), first, now.plus_ms(1));
    survey.moved(first, node(99), now.plus_ms(1));
    assert!(survey.members[&first].moves(now.plus_ms(10)));
}

#[test]
fn bytes_for_far_peers_are_few() {
    let (mut survey, mut dice) = (Survey::new(SECRET), Dice::new(4));
    for n in 0..100 {
        let place = Place::new([203, 0, 113, n].into(), ([192, 168, 0, 1], 7000).into());
        survey.enter(node(n), place, &mut dice, at(0));
    }
    let orders = run(&mut survey, &mut dice, 0..BULK_PAUSE_MS / 1000);
    for n in 0..100 {
        let of_node = |(_, to, peer): &&(u64, NodeId, Order)| {
            peer.bulk_bytes > 0 && (*to == node(n) || peer.node == node(n))
        };
        let bytes = orders
            .iter()
            .filter(of_node)
            .map(|(_, _, peer)| peer.bulk_bytes);
        // Both ends' turns of each, and both ways of each turn.
        assert!(bytes.sum::<u64>() * 2 <= MAX_FAR_BULKS as u64 * 4 * FAR_BULK_BYTES);
    }
}

#[test]
fn who_runs_a_task_is_left_alone_and_his_round_waits() {
    let (mut survey, mut dice) = survey(1);
    let links = Links::default();
    let busy = node(3);
    for second in 0..ROUND_S {
        let orders = survey.orders(&links, &|node| *node != busy, &mut dice, at(second));
        let named = orders.values().flatten().any(|peer| peer.node == busy);
        assert!(!named && !orders.contains_key(&busy));
    }
    let orders = survey.orders(&links, &|_| true, &mut dice, at(ROUND_S));
    assert!(orders.contains_key(&busy), "at once when it is free");
    survey.leave(&busy);
    assert!(!survey.has(&busy));
}

#[test]
fn a_near_peer_is_measured_again_before_its_report_expires() {
    let (mut survey, mut dice) = (Survey::new(SECRET), Dice::new(5));
    for n in 0..200 {
        let place = Place::new([203, 0, 113, n].into(), ([192, 168, 0, 1], 7000).into());
        survey.enter(node(n), place, &mut dice, at(0));
    }
    let mut links = Links::default();
    let (near, measure) = (
        node(150),
        Measure {
            rtt_us: 100,
            bytes_per_s: None,
        },
    );
    links.report(Party::Node(node(0)), Party::Node(near), measure, at(0));
    let mut heard = Vec::new();
    for second in 0..1_000 {
        let orders = survey.orders(&links, &|_| true, &mut dice, at(second));
        let own = orders.get(&node(0)).into_iter().flatten();
        for peer in own {
            let rtt_us = if peer.node == near { 100 } else { 50_000 };
            let measure = Measure {
                rtt_us,
                bytes_per_s: None,
            };
            links.report(
                Party::Node(node(0)),
                Party::Node(peer.node),
                measure,
                at(second),
            );
            heard.extend((peer.node == near).then_some(second));
        }
    }
    let expiry_s = super::super::link::RTT_EXPIRY_MS / 1000;
    assert!(
        heard.windows(2).all(|w| w[1] - w[0] < expiry_s),
        "{heard:?}"
    );
    assert!(heard.last().is_some_and(|last| *last > 1_000 - expiry_s));
}

fn echo(from: NodeId, nonce: Nonce, address: &str) -> Echo {
    let address = address.to_owned();
    Echo {
        from,
        nonce,
        address,
    }
}

/// The nonce that node 0 was given for node 1.
fn given(survey: &mut Survey, dice: &mut Dice) -> Nonce {
    let orders = run(survey, dice, 0..FIRST_ROUND_MS / 1000 + 1);
    let found = orders
        .iter()
        .find(|(_, to, peer)| (*to, peer.node) == (node(0), node(1)));
    found.expect("neighbours are measured at once").2.nonce
}

#[test]
fn a_local_network_is_proved_by_the_nonce_over_private_addresses_in_time() {
    let (mut survey, mut dice) = survey(2);
    let nonce = given(&mut survey, &mut dice);
    let good = echo(node(0), nonce, "192.168.0.1:50000");
    assert!(survey.proves_lan(node(1), &good, at(60)));
    assert!(!survey.proves_lan(node(1), &good, at(2 * NONCE_PERIOD_MS / 1000 + 60)));
    let bad = [
        (node(2), good.clone()),                              // said by another node
        (node(1), echo(node(2), nonce, "192.168.0.1:50000")), // of another caller
        (node(0), echo(node(1), nonce, "192.168.0.1:50000")), // the other way round
        (
            node(1),
            echo(node(0), Nonce::new([0; 16]), "192.168.0.1:50000"),
        ), // made up
        (node(1), echo(node(0), nonce, "203.0.113.0:50000")), // over the public address
        (node(1), echo(node(0), nonce, "192.168.0.1")),       // no address
        (node(1), echo(node(99), nonce, "192.168.0.1:50000")), // of a stranger
    ];
    for (by, echo) in bad {
        assert!(!survey.proves_lan(by, &echo, at(60)), "{by}: {echo:?}");
    }
}

#[test]
fn a_private_source_proves_nothing_for_a_peer_that_was_dialled_in_public() {
    let (survey, _) = survey(2);
    let period = at(0).as_ms() / NONCE_PERIOD_MS;
    let nonce = survey.nonce(node(0), node(8), period);
    let lie = echo(node(0), nonce, "192.168.0.1:50000");
    assert!(!survey.proves_lan(node(8), &lie, at(0)));
}
