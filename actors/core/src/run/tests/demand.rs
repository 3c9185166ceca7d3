//! What a run asks of the market.

use super::*;
use cryptomind_protocol::price::PriceClass;

/// A world whose samples take 10⁶ operations each, and cost no more for it.
fn world() -> World {
    let mut world = World::new();
    world.run.terms.extent.flops_per_sample = 1_000_000;
    world.run.terms.prices.unit_price = Amount::ZERO;
    world
}

fn left(world: &World) -> u64 {
    world.run.demand().unwrap().mflop
}

#[test]
fn a_task_asks_for_what_is_not_verified_yet() {
    let mut world = world();
    let asked = world.run.demand().unwrap();
    assert_eq!(
        (asked.client, asked.miners, asked.mflop),
        (owner(CLIENT), 3, 400)
    );
    assert_eq!(asked.class, PriceClass::ALL[0]);
    world.match_three();
    world.report(
        1,
        Report::Progress {
            step: 30,
            loss: 1.0,
            samples_per_s: 1,
            timeline: Vec::new(),
        },
    );
    assert_eq!(left(&world), 400, "a word is no work");
    world.checkpoint(&[1, 2, 3], 10);
    assert_eq!(left(&world), 300);
    world.feed(Input::Cancel);
    assert_eq!(world.run.demand(), None);
}

#[test]
fn who_works_for_oneself_asks_for_nothing() {
    let mut world = world();
    world.run.client = owner(2);
    assert_eq!(left(&world), 400);
    world.match_three();
    assert_eq!(world.run.demand(), None);
}
