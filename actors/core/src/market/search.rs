//! The search for a group: see [`select`](super::select()) for what is compared and how it is searched.
//!
//! Candidates are numbers here: each is a [`Load`] on its group, and its links are [`Hops`] in milliseconds.

use cryptomind_protocol::{Amount, NodeId};

use super::candidate::Candidate;
use super::expectation::{Demand, Tally, Times};
use super::ring_order::ring_order;
use super::select::{Preference, Surroundings, Wanted, price_power};
use super::verdict::{Score, Verdict};
use crate::price::work_cost;

mod hops;
mod load;

use hops::Hops;
use load::Load;

/// How many groups are grown.
const SEEDS: usize = 16;
/// An exchange of members has to better the value by more than rounding could: by this factor.
const GAIN: f64 = 1.0 - 1e-9;

/// A group in ring order. `hops[at]` is the link from the member at that place to the next.
#[derive(Debug, Clone)]
struct Group {
    members: Vec<usize>,
    hops: Vec<f64>,
    value: f64,
}

/// A group without one of its members.
#[derive(Debug, Clone, Copy)]
struct Vacancy {
    place: usize,
    /// Who would be the newcomer's neighbours.
    neighbours: Option<(usize, usize)>,
    /// The rest, with the hops that stay.
    tally: Tally,
    /// The sum of the rest's prices.
    price: f64,
}

/// All that a search looks at.
pub(super) struct Search<'a> {
    demand: Demand,
    preference: Preference,
    flops: u128,
    needed: usize,
    able: &'a [Candidate],
    loads: Vec<Load>,
    /// What the price makes of a value, where it is the same for all.
    price_factor: Option<f64>,
    hops: Hops<'a>,
}

impl<'a> Search<'a> {
    /// `able` are sorted by node and at least as many as are wanted.
    pub(super) fn new(wanted: &Wanted, able: &'a [Candidate], around: &'a Surroundings) -> Self {
        let demand = Demand::new(&wanted.workload, wanted.miners);
        let load = |c: &Candidate| Load::of(c, &demand, wanted, around);
        let loads: Vec<_> = able.iter().map(load).collect();
        let price = loads.first().map_or(0.0, |load| load.price);
        let is_same = loads.iter().all(|load| load.price == price);
        Self {
            price_factor: is_same.then(|| price_factor(wanted.preference, price)),
            loads,
            hops: Hops::new(demand, able, &around.links),
            demand,
            preference: wanted.preference,
            flops: wanted.workload.flops,
            needed: wanted.miners,
            able,
        }
    }

    /// The best group that is found, in ring order, the member with the best way to a store first.
    pub(super) fn best_group(&mut self) -> Vec<usize> {
        let mut best: Option<Group> = None;
        for seed in self.seeds() {
            let group = self.grown(seed);
            if best.as_ref().is_none_or(|best| group.value < best.value) {
                best = Some(group);
            }
        }
        let Some(group) = best else { return Vec::new() };
        let mut group = self.in_order(group);
        // Each exchange betters the value, so this ends; the bound is for the time it may take.
        for _ in 0..2 * self.needed {
            match self.exchanged(&group) {
                Some(better) => group = better,
                None => break,
            }
        }
        group.members
    }

    /// What is said of those who passed the gates, once this group is chosen.
    pub(super) fn verdicts(&self, members: &[usize]) -> Vec<(NodeId, Verdict)> {
        let group = self.group(members.to_vec());
        let vacancies = self.vacancies(&group);
        let verdict = |at: usize| self.verdict(&group, &vacancies, at);
        let all = 0..self.able.len();
        all.map(|at| (self.able[at].node, verdict(at))).collect()
    }

    /// What the work of these members costs: an equal share at each one's unit price.
    pub(super) fn price(&self, members: &[usize]) -> Amount {
        let cost = |at: &usize| work_cost(self.flops, self.able[*at].unit_price).ok();
        let sum: u128 = members
            .iter()
            .filter_map(cost)
            .map(|cost| u128::from(cost.base_units()))
            .sum();
        let mean = sum.div_ceil(members.len().max(1) as u128);
        // A mean of amounts fits an amount.
        Amount::from_base_units(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    // Seeds.

    /// The best candidates by the value that each would have among its own best neighbours.
    fn seeds(&self) -> Vec<usize> {
        let value = |at: usize| {
            let tally = self.loads[at].tally(self.near_ms(at));
            self.value(std::iter::once(at), &tally, self.loads[at].price)
        };
        let mut seeds: Vec<_> = (0..self.able.len()).map(|at| (value(at), at)).collect();
        seeds.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        seeds.truncate(SEEDS);
        seeds.into_iter().map(|(_, at)| at).collect()
    }

    /// The dearest hop of a candidate at its best: to its nearest neighbour in a ring of two, to the second nearest in a
    /// longer one.
    fn near_ms(&self, at: usize) -> f64 {
        let nearest = self.hops.nearest_ms(at);
        match self.needed {
            0 | 1 => 0.0,
            2 => nearest[0],
            _ => nearest[1],
        }
    }

    // Growth.

    fn grown(&mut self, seed: usize) -> Group {
        self.hops.fill(seed);
        let mut group = self.group(vec![seed]);
        while group.members.len() < self.needed {
            let Some((joins, place)) = self.best_joiner(&group) else {
                break;
            };
            self.hops.fill(joins);
            let mut members = group.members;
            members.insert(place, joins);
            group = self.group(members);
        }
        group
    }

    /// Who leaves the value lowest, and where in the ring.
    fn best_joiner(&self, group: &Group) -> Option<(usize, usize)> {
        let base = self.tally(group);
        let price: f64 = group.members.iter().map(|m| self.loads[*m].price).sum();
        let others: Vec<f64> = (0..group.hops.len())
            .map(|at| dearest_but(&group.hops, &[at]))
            .collect();
        let count = group.members.len() as f64 + 1.0;
        let mut best = (f64::INFINITY, None);
        for at in (0..self.able.len()).filter(|at| !group.members.contains(at)) {
            let (hop_ms, place) = self.best_place(group, &others, at);
            let tally = Tally { hop_ms, ..base }.with(&self.loads[at]);
            let price = (price + self.loads[at].price) / count;
            let rest = group.members.iter().copied();
            if let Some(value) = self.value_below(best.0, rest, at, &tally, price) {
                best = (value, Some((at, place)));
            }
        }
        best.1
    }

    /// The dearest hop with a candidate in the ring where it costs least, and that place. `others[at]` is the dearest hop
    /// without the one from that place on; empty in a group of one.
    fn best_place(&self, group: &Group, others: &[f64], joins: usize) -> (f64, usize) {
        let members = &group.members;
        let last = members.len() - 1;
        let mut before = self.hops.get(members[last], joins);
        let mut best = (f64::INFINITY, 0);
        for (at, member) in members.iter().enumerate() {
            let after = self.hops.get(*member, joins);
            let broken = at.checked_sub(1).unwrap_or(last);
            let stay = others.get(broken).copied().unwrap_or(0.0);
            let hop = stay.max(before).max(after);
            if hop < best.0 {
                best = (hop, at);
            }
            before = after;
        }
        best
    }

    // Exchange.

    /// The group with the one exchange that betters it most, if any does.
    fn exchanged(&mut self, group: &Group) -> Option<Group> {
        let vacancies = self.vacancies(group);
        let (mut least, mut better) = (group.value * GAIN, None);
        for at in (0..self.able.len()).filter(|at| !group.members.contains(at)) {
            if let Some((place, _, value)) = self.best_exchange(group, &vacancies, at, least) {
                (least, better) = (value, Some((place, at)));
            }
        }
        let (place, joins) = better?;
        self.hops.fill(joins);
        let members = exchange(&group.members, place, joins).collect();
        let better = self.in_order(self.group(members));
        (better.value < group.value).then_some(better)
    }

    fn vacancies(&self, group: &Group) -> Vec<Vacancy> {
        let places = 0..group.members.len();
        places.map(|place| self.vacancy(group, place)).collect()
    }

    fn vacancy(&self, group: &Group, place: usize) -> Vacancy {
        let members = &group.members;
        let count = members.len();
        let (before, after) = ((place + count - 1) % count, (place + 1) % count);
        let empty = Tally::empty(dearest_but(&group.hops, &[before, place]));
        let stay = (0..count).filter(|at| *at != place);
        let loads = stay.map(|at| &self.loads[members[at]]);
        Vacancy {
            place,
            neighbours: (count > 1).then(|| (members[before], members[after])),
            price: loads.clone().map(|load| load.price).sum(),
            tally: loads.fold(empty, Tally::with),
        }
    }

    /// Whose place a candidate would best take, the group's tally then, and its value; where that is below `bound`.
    fn best_exchange(
        &self,
        group: &Group,
        vacancies: &[Vacancy],
        joins: usize,
        bound: f64,
    ) -> Option<(usize, Tally, f64)> {
        let (mut least, mut best) = (bound, None);
        let load = &self.loads[joins];
        for vacancy in vacancies {
            let hop = |(before, after)| {
                self.hops
                    .get(before, joins)
                    .max(self.hops.get(after, joins))
            };
            let hop_ms = vacancy.neighbours.map_or(0.0, hop);
            let mut tally = vacancy.tally.with(load);
            tally.hop_ms = tally.hop_ms.max(hop_ms);
            let price = (vacancy.price + load.price) / vacancies.len() as f64;
            let stay = group.members.iter().enumerate();
            let stay = stay.filter(|(at, _)| *at != vacancy.place).map(|(_, m)| *m);
            if let Some(value) = self.value_below(least, stay, joins, &tally, price) {
                (least, best) = (value, Some((vacancy.place, tally, value)));
            }
        }
        best
    }

    // Groups.

    /// A group of these members in this order; their rows are there.
    fn group(&self, members: Vec<usize>) -> Group {
        let next = |at: usize| members[(at + 1) % members.len()];
        let alone = members.len() < 2;
        let hops = (0..if alone { 0 } else { members.len() })
            .map(|at| self.hops.get(members[at], next(at)));
        let mut group = Group {
            hops: hops.collect(),
            members,
            value: 0.0,
        };
        let sum: f64 = group.members.iter().map(|m| self.loads[*m].price).sum();
        let price = sum / group.members.len() as f64;
        group.value = self.value(group.members.iter().copied(), &self.tally(&group), price);
        group
    }

    /// The same members in the best order that is found, which is never a worse one than theirs; beginning with the one
    /// that reaches a store best, of equals the best by itself.
    fn in_order(&self, group: Group) -> Group {
        let mut members = group.members.clone();
        let alone = |at: usize| self.loads[at].compute_ms * self.loads[at].weight;
        members.sort_unstable_by(|a, b| alone(*a).total_cmp(&alone(*b)).then(a.cmp(b)));
        let order = ring_order(members.len(), |a, b| self.hops.get(members[a], members[b]));
        let ordered = self.group(order.into_iter().map(|at| members[at]).collect());
        // The search for an order is no exhaustive one either: growth or an exchange may have found a better one.
        let best = if group.value < ordered.value {
            group
        } else {
            ordered
        };
        self.first_at_store(best, &members)
    }

    /// The same ring, from the member on that reaches a store best; of equals from the first in `preferred`.
    fn first_at_store(&self, mut group: Group, preferred: &[usize]) -> Group {
        let store = |at: &usize| self.loads[*at].store_ms_per_byte;
        let first = preferred
            .iter()
            .min_by(|a, b| store(a).total_cmp(&store(b)));
        let place = group.members.iter().position(|at| Some(at) == first);
        let place = place.unwrap_or_default();
        group.members.rotate_left(place);
        group.hops.rotate_left(place);
        group
    }

    fn tally(&self, group: &Group) -> Tally {
        let empty = Tally::empty(dearest_but(&group.hops, &[]));
        let loads = group.members.iter().map(|member| &self.loads[*member]);
        loads.fold(empty, Tally::with)
    }

    /// What a group is compared by. `price` is the mean over its members.
    fn value(&self, members: impl Iterator<Item = usize>, tally: &Tally, price: f64) -> f64 {
        let times = self.demand.times(tally);
        let rest_ms = times.rest_ms();
        let worst = members.map(|at| self.loads[at].weighed_ms(rest_ms));
        worst.fold(0.0, f64::max) * self.factor(&times, tally, price)
    }

    /// The value of `others` and one who joins them, where it is below `bound`. Who joins is looked at first: that settles
    /// most.
    fn value_below(
        &self,
        bound: f64,
        others: impl Iterator<Item = usize>,
        joins: usize,
        tally: &Tally,
        price: f64,
    ) -> Option<f64> {
        let times = self.demand.times(tally);
        let rest_ms = times.rest_ms();
        let factor = self.factor(&times, tally, price);
        let own = self.loads[joins].weighed_ms(rest_ms);
        if own * factor >= bound {
            return None;
        }
        let worst = others.map(|at| self.loads[at].weighed_ms(rest_ms));
        let value = worst.fold(own, f64::max) * factor;
        (value < bound).then_some(value)
    }

    /// What losses and the price make of a group's time.
    fn factor(&self, times: &Times, tally: &Tally, price: f64) -> f64 {
        let of_price = self.price_factor;
        let of_price = of_price.unwrap_or_else(|| price_factor(self.preference, price));
        times.redo_factor(tally.hazard_per_ms) * of_price
    }

    // Verdicts.

    fn verdict(&self, group: &Group, vacancies: &[Vacancy], at: usize) -> Verdict {
        let rank = group.members.iter().position(|member| *member == at);
        match (
            rank,
            self.best_exchange(group, vacancies, at, f64::INFINITY),
        ) {
            (None, Some((place, tally, value))) => {
                let members: Vec<usize> = exchange(&group.members, place, at).collect();
                Verdict::PassedOver {
                    score: self.score(at, &members, &tally, value),
                    place_of: self.able[group.members[place]].node,
                }
            }
            // Values are finite, so there is a best exchange for everybody who has no rank.
            (rank, _) => Verdict::Chosen {
                rank: rank.unwrap_or_default(),
                score: self.score(at, &group.members, &self.tally(group), group.value),
            },
        }
    }

    fn score(&self, at: usize, members: &[usize], tally: &Tally, value: f64) -> Score {
        let times: Times = self.demand.times(tally);
        let expected_ms = times.total_ms() * times.redo_factor(tally.hazard_per_ms);
        let load = &self.loads[at];
        Score {
            compute_ms: load.compute_ms.round() as u64,
            fetch_ms: load.fetch_ms.round() as u64,
            exchange_ms: times.exchange_ms.round() as u64,
            store_ms: (times.checkpoint_ms + times.return_ms).round() as u64,
            expected_ms: expected_ms.round() as u64,
            low_milli: self.able[at].ability.low_milli,
            price: self.price(members),
            value,
        }
    }
}

/// What a price makes of a time: its power. A price of nothing is as good as the least price.
fn price_factor(preference: Preference, price: f64) -> f64 {
    price.max(1.0).powf(price_power(preference))
}

/// The members with another one at this place.
fn exchange(members: &[usize], place: usize, joins: usize) -> impl Iterator<Item = usize> + '_ {
    let members = members.iter().enumerate();
    members.map(move |(at, member)| if at == place { joins } else { *member })
}

/// The dearest hop of those not at these places.
fn dearest_but(hops: &[f64], places: &[usize]) -> f64 {
    let hops = hops.iter().enumerate();
    let others = hops.filter(|(at, _)| !places.contains(at));
    others.map(|(_, hop)| *hop).fold(0.0, f64::max)
}
