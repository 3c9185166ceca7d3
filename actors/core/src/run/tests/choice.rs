//! Offers, gates, and the seats of those who are chosen.

use crate::market::link::{Links, Measure, Party};

use super::*;

/// Who was withdrawn, and why.
fn withdrawn(effects: &[Effect]) -> Vec<(NodeId, String)> {
    let withdrawn = effects.iter().filter_map(|effect| match effect {
        Effect::Withdraw { node, reason } => Some((*node, reason.clone())),
        _ => None,
    });
    withdrawn.collect()
}

fn offered(world: &mut World, offer: Offer, around: &Surroundings) -> Vec<Effect> {
    world.run.apply(Input::Offered(offer), around, world.now)
}

#[test]
fn an_offer_that_fails_a_gate_is_told_why_and_not_asked_again_before_it_joins_anew() {
    let mut world = World::new();
    let around = Surroundings::default();
    let mut dear = offer(1);
    let unit_price = world.run.terms.prices.unit_price;
    dear.ability.reserve = unit_price.checked_add(Amount::from_base_units(1)).unwrap();
    for _ in 0..2 {
        let effects = offered(&mut world, dear.clone(), &around);
        let withdrawn = withdrawn(&effects);
        assert_eq!(withdrawn.len(), 1);
        assert!(withdrawn[0].1.contains("a CU or more"), "{withdrawn:?}");
    }
    assert!(world.run.offers.is_empty() && world.run.barred == [node(1)]);
    assert!(!world.run.wants(node(1)));
    world.feed(Input::Joined {
        node: node(1),
        position: None,
    });
    assert!(world.run.asked.contains(&node(1)));
}

#[test]
fn a_better_offer_of_a_barred_miner_is_no_offer_to_count_on() {
    let mut world = World::new();
    let around = Surroundings::default();
    offered(&mut world, offer(1), &around);
    let mut shrunk = offer(1);
    shrunk.ability.memory_bytes = Some(1);
    offered(&mut world, shrunk, &around);
    assert!(
        world.run.offers.is_empty(),
        "its first offer stands no more"
    );
}

/// Whoever was not asked is refused, and told so; whoever was asked and is late is heard.
#[test]
fn an_offer_that_nobody_asked_for_is_refused() {
    let mut world = World::new();
    let around = Surroundings::default();
    let effects = offered(&mut world, offer(9), &around);
    let withdrawn = withdrawn(&effects);
    assert_eq!(withdrawn.len(), 1);
    assert!(withdrawn[0].1.contains("was not asked"), "{withdrawn:?}");
    assert!(world.run.offers.is_empty());
    world.pass(LIMITS.offer_window_ms);
    assert_eq!(world.run.asked, []);
    assert!(self::withdrawn(&offered(&mut world, offer(1), &around)).is_empty());
    world.feed(Input::Declined {
        node: node(2),
        reason: "busy".into(),
    });
    offered(&mut world, offer(2), &around);
    let offers: Vec<_> = world.run.offers.iter().map(|o| o.member.node).collect();
    assert_eq!(offers, [node(1)], "who declined has answered");
}

/// One that offers twice has one seat; what it said last counts.
#[test]
fn a_double_offer_is_one_offer() {
    let mut world = World::new();
    let around = Surroundings::default();
    for address in ["host:1", "host:2"] {
        let mut twice = offer(1);
        twice.ring_address = address.into();
        offered(&mut world, twice, &around);
    }
    (2..=3).for_each(|n| world.feed(Input::Offered(offer(n))));
    world.pass(500);
    assert_eq!(world.run.state, TaskState::Matched);
    let seats = world.run.seats.iter();
    let addresses: Vec<_> = seats.map(|seat| seat.ring_address.as_str()).collect();
    assert_eq!(addresses, ["host:2", "host:2", "host:3"]);
    let effects = offered(&mut world, offer(1), &around);
    assert_eq!(withdrawn(&effects), [], "a member is no candidate");
    assert_eq!(world.run.seats.len(), 3);
}

/// Four miners offer; three are near each other, the fourth is the fastest and far away.
#[test]
fn the_group_is_chosen_by_links_and_seated_in_ring_order() {
    let mut links = Links::default();
    let mut report = |a: u8, b: u8, bytes_per_s: u64| {
        let measure = Measure {
            rtt_us: 300,
            bytes_per_s: Some(bytes_per_s),
        };
        for (from, to) in [(a, b), (b, a)] {
            let [from, to] = [from, to].map(|n| Party::Node(node(n)));
            links.report(from, to, measure, Timestamp::from_ms(1000));
        }
    };
    for (a, b) in [(1, 2), (2, 3), (1, 3)] {
        report(a, b, 125_000_000);
    }
    for near in 1..=3 {
        report(near, 4, 1_000);
    }
    // The first rank is who reaches the store best.
    for (near, bytes_per_s) in [
        (1, 10_000_000),
        (2, 50_000_000),
        (3, 10_000_000),
        (4, 10_000_000),
    ] {
        report(near, STORAGE, bytes_per_s);
    }
    let around = Surroundings {
        links: links.table(Timestamp::from_ms(1000)).into(),
        stores: vec![Party::Node(node(STORAGE))],
    };
    let mut world = World::new();
    for n in 1..=3 {
        assert!(withdrawn(&offered(&mut world, offer(n), &around)).is_empty());
    }
    let mut far = offer(4);
    far.ability.mflops = 100_000;
    let effects = offered(&mut world, far, &around);
    assert_eq!(world.run.state, TaskState::Matched);
    assert_eq!(world.run.seats[0].member.node, node(2));
    let withdrawn = withdrawn(&effects);
    assert_eq!(withdrawn.len(), 1);
    assert_eq!(withdrawn[0].0, node(4));
    assert!(withdrawn[0].1.contains("exchange"), "{withdrawn:?}");
}
