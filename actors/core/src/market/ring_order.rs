//! In which order members stand in the ring, so that its slowest link is as fast as can be.
//!
//! All links of a ring all-reduce are busy at the same time, hop by hop, so the slowest one sets the pace
//! ([`ring`](crate::ring)). A ring's cost is therefore its dearest link first, then the sum of all. The order comes from
//! nearest neighbours, tried from every member, improved by 2-opt (Croes, 1958) until no exchange of two links helps.
//! Groups are small (16 at most); a tour that 2-opt cannot improve need not be the best.

use std::cmp::Ordering;

/// What a ring costs: its dearest link, then all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    dearest: f64,
    sum: f64,
}

impl Cost {
    fn of(order: &[usize], link: &impl Fn(usize, usize) -> f64) -> Self {
        let next = |at: usize| order[(at + 1) % order.len()];
        let links = (0..order.len()).map(|at| link(order[at], next(at)));
        links.fold(
            Self {
                dearest: 0.0,
                sum: 0.0,
            },
            |cost, link| Self {
                dearest: cost.dearest.max(link),
                sum: cost.sum + link,
            },
        )
    }

    fn less(&self, other: &Self) -> bool {
        let by_dearest = self.dearest.total_cmp(&other.dearest);
        by_dearest.then(self.sum.total_cmp(&other.sum)) == Ordering::Less
    }
}

/// An order of the members `0..members`, where `link(a, b)` is what the link between two of them costs; symmetric and
/// not negative.
pub fn ring_order(members: usize, link: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let mut best: Vec<usize> = (0..members).collect();
    // Rings of up to three members are all the same ring.
    if members <= 3 {
        return best;
    }
    let mut cost = Cost::of(&best, &link);
    for start in 0..members {
        let order = improved(nearest_first(members, start, &link), &link);
        let found = Cost::of(&order, &link);
        if found.less(&cost) {
            (best, cost) = (order, found);
        }
    }
    best
}

/// From `start` on, always to the nearest that is left.
fn nearest_first(members: usize, start: usize, link: &impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..members).filter(|m| *m != start).collect();
    let mut order = vec![start];
    let mut last = start;
    while let Some((at, nearest)) = left
        .iter()
        .copied()
        .enumerate()
        .min_by(|(_, a), (_, b)| link(last, *a).total_cmp(&link(last, *b)))
    {
        left.remove(at);
        order.push(nearest);
        last = nearest;
    }
    order
}

/// Turns stretches of the ring around for as long as that makes it cheaper.
fn improved(mut order: Vec<usize>, link: &impl Fn(usize, usize) -> f64) -> Vec<usize> {
    let mut cost = Cost::of(&order, link);
    while let Some((better, less)) = turned(&order, cost, link) {
        (order, cost) = (better, less);
    }
    order
}

/// The first ring that is cheaper for having one stretch turned around.
fn turned(
    order: &[usize],
    cost: Cost,
    link: &impl Fn(usize, usize) -> f64,
) -> Option<(Vec<usize>, Cost)> {
    let stretches =
        (1..order.len()).flat_map(|from| (from + 1..order.len()).map(move |to| (from, to)));
    stretches
        .map(|(from, to)| {
            let mut other = order.to_vec();
            other[from..=to].reverse();
            let cost = Cost::of(&other, link);
            (other, cost)
        })
        .find(|(_, other)| other.less(&cost))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every order that begins with 0.
    fn all_orders(members: usize) -> Vec<Vec<usize>> {
        fn grow(order: Vec<usize>, members: usize, all: &mut Vec<Vec<usize>>) {
            if order.len() == members {
                return all.push(order);
            }
            for next in (1..members).filter(|m| !order.contains(m)) {
                let mut longer = order.clone();
                longer.push(next);
                grow(longer, members, all);
            }
        }
        let mut all = Vec::new();
        grow(vec![0], members, &mut all);
        all
    }

    #[test]
    fn two_houses_are_left_and_entered_once() {
        let house = |member: usize| member % 2;
        let link = |a, b| if house(a) == house(b) { 1.0 } else { 100.0 };
        let order = ring_order(8, link);
        let crossings = (0..8).filter(|at| house(order[*at]) != house(order[(at + 1) % 8]));
        assert_eq!(crossings.count(), 2, "{order:?}");
    }

    #[test]
    fn a_slow_link_is_avoided_where_a_ring_without_it_exists() {
        // 0–1 is slow; of the three rings of four members, one does without it.
        let link = |a: usize, b: usize| if a + b == 1 { 50.0 } else { 1.0 };
        let order = ring_order(4, link);
        assert_eq!(Cost::of(&order, &link).dearest, 1.0, "{order:?}");
    }

    proptest! {
        #[test]
        fn it_is_an_order_of_all_and_within_a_fifth_of_the_best_sum_at_the_best_bottleneck(
            places in prop::collection::vec((0.0..100.0f64, 0.0..100.0f64), 1..8)
        ) {
            let link = |a: usize, b: usize| {
                let ((ax, ay), (bx, by)): ((f64, f64), (f64, f64)) = (places[a], places[b]);
                (ax - bx).hypot(ay - by)
            };
            let order = ring_order(places.len(), link);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..places.len()).collect::<Vec<_>>());
            let best = all_orders(places.len()).iter().map(|o| Cost::of(o, &link).dearest).fold(f64::MAX, f64::min);
            let found = Cost::of(&order, &link).dearest;
            prop_assert!(found <= best * 1.5 + 1e-9, "{found} against {best}");
        }
    }
}
