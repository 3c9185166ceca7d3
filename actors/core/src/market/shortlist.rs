//! Whom to ask: a shortlist of the free miners, made before anybody has answered.
//!
//! **Owned by** the matchmaker, which keeps [`FreeMiners`] as miners come and go. To ask a miner costs an announcement, its answer and
//! a durable record of that; asked for every task, ten thousand would cost more than the task. So:
//!
//! - where [`ALL`] or fewer are free, all are asked;
//! - else two a member and [`MORE`]: for a group, the one that [`select`] would choose among the best [`SEARCHED`], were they all to
//!   offer, and the second best; for the rest, the best by speed and rating, and one in [`BY_LOT`] by lot, so that
//!   newcomers become known and no order is for ever;
//! - everybody who is asked passes the gates; who owes [`OWED`] tasks an answer is passed over;
//! - where too few of them offer, the next are asked, until none is left.
//!
//! **Invariant**: the group is chosen among those who offer, by [`select`]; a shortlist decides nothing else.
//!
//! **Is not**: a promise. Whoever is asked may have gone, and says so or says nothing.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use cryptomind_protocol::{Amount, NodeId};

use super::candidate::{Ability, Availability, Candidate};
use super::select::{Surroundings, Wanted, gate, select};
use crate::dice::Dice;

/// So many are all asked.
pub const ALL: usize = 64;
/// Asked beyond two a member.
pub const MORE: usize = 6;
/// One in so many is asked by lot.
pub const BY_LOT: usize = 4;
/// The most among whom a whole group is looked for.
pub const SEARCHED: usize = 2_000;
/// Tasks that a miner may owe an answer to and still be asked.
pub const OWED: u32 = 4;
/// Draws for each place that is given by lot.
const DRAWS: usize = 4;

/// How many are asked for a group of so many, where more than [`ALL`] are free.
pub const fn asked_for(miners: usize) -> usize {
    2 * miners + MORE
}

/// The most miners that a task waits for and has offers of at once.
pub const fn most_asked(miners: usize) -> usize {
    let asked = asked_for(miners);
    if asked > ALL { asked } else { ALL }
}

/// A free miner.
#[derive(Debug, Clone, Copy)]
struct Free {
    ability: Ability,
    /// Its place in [`FreeMiners::drawn`].
    place: usize,
}

impl Free {
    /// Speed times rating: what a member that computes slowly or is likely to fail is worth alone.
    const fn worth(&self) -> u64 {
        let Ability {
            mflops, low_milli, ..
        } = self.ability;
        mflops.saturating_mul(low_milli as u64)
    }
}

/// The miners that could begin now, the best first.
#[derive(Debug, Clone, Default)]
pub struct FreeMiners {
    miners: BTreeMap<NodeId, Free>,
    order: BTreeSet<(Reverse<u64>, NodeId)>,
    /// All of them in no order, to draw from.
    drawn: Vec<NodeId>,
}

/// What miners are asked for.
pub struct Asking<'a> {
    /// The task.
    pub wanted: &'a Wanted,
    /// What one CU of its class costs.
    pub unit_price: Amount,
    /// Who is not to be asked.
    pub skip: &'a dyn Fn(&NodeId) -> bool,
    /// What is measured around the miners.
    pub around: &'a Surroundings,
}

impl Asking<'_> {
    fn candidate(&self, node: NodeId, ability: Ability) -> Candidate {
        Candidate {
            node,
            availability: Availability::Free,
            strikes: 0,
            ability,
            unit_price: self.unit_price,
        }
    }

    fn is_asked(&self, node: NodeId, free: &Free) -> bool {
        let passes = || gate(self.wanted, &self.candidate(node, free.ability)).is_none();
        !(self.skip)(&node) && passes()
    }
}

impl FreeMiners {
    /// A miner is free, or can do something else than before.
    pub fn enter(&mut self, node: NodeId, ability: Ability) {
        self.leave(&node);
        let place = self.drawn.len();
        let free = Free { ability, place };
        self.order.insert((Reverse(free.worth()), node));
        self.miners.insert(node, free);
        self.drawn.push(node);
    }

    /// It is not, any more.
    pub fn leave(&mut self, node: &NodeId) {
        let Some(free) = self.miners.remove(node) else {
            return;
        };
        self.order.remove(&(Reverse(free.worth()), *node));
        self.drawn.swap_remove(free.place);
        let moved = self.drawn.get(free.place);
        if let Some(moved) = moved.and_then(|moved| self.miners.get_mut(moved)) {
            moved.place = free.place;
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.miners.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.miners.is_empty()
    }

    /// Whom to ask, the likeliest first.
    pub fn shortlist(&self, asking: &Asking<'_>, dice: &mut Dice) -> Vec<NodeId> {
        if self.len() <= ALL {
            let all = self.best().map(|(node, _)| node);
            return all.filter(|node| !(asking.skip)(node)).collect();
        }
        let count = asked_for(asking.wanted.miners);
        let mut list = Shortlist::default();
        if asking.wanted.miners > 1 {
            self.groups(asking, &mut list);
        }
        let by_lot = count / BY_LOT;
        self.fill(asking, count - by_lot, &mut list);
        self.draw(asking, count, dice, &mut list);
        self.fill(asking, count, &mut list);
        list.nodes
    }

    fn best(&self) -> impl Iterator<Item = (NodeId, &Free)> {
        let order = self.order.iter();
        order.filter_map(|(_, node)| Some((*node, self.miners.get(node)?)))
    }

    /// The best group, and the best of the others.
    fn groups(&self, asking: &Asking<'_>, list: &mut Shortlist) {
        let able = self
            .best()
            .filter(|(node, free)| asking.is_asked(*node, free));
        let able = able.map(|(node, free)| asking.candidate(node, free.ability));
        let mut able: Vec<_> = able.take(SEARCHED).collect();
        for _ in 0..2 {
            let group = select(asking.wanted, &able, asking.around).chosen;
            group.into_iter().for_each(|node| list.take(node));
            able.retain(|candidate| !list.has(&candidate.node));
        }
    }

    /// The best until there are `count`.
    fn fill(&self, asking: &Asking<'_>, count: usize, list: &mut Shortlist) {
        if list.nodes.len() >= count {
            return;
        }
        for (node, free) in self.best() {
            if !list.has(&node) && asking.is_asked(node, free) {
                list.take(node);
                if list.nodes.len() >= count {
                    return;
                }
            }
        }
    }

    /// Others by lot until there are `count`, or until luck runs out.
    fn draw(&self, asking: &Asking<'_>, count: usize, dice: &mut Dice, list: &mut Shortlist) {
        let wanted = count.saturating_sub(list.nodes.len());
        for _ in 0..wanted * DRAWS {
            if list.nodes.len() >= count {
                return;
            }
            let node = self.drawn[dice.below(self.drawn.len() as u64) as usize];
            let free = self.miners.get(&node);
            if !list.has(&node) && free.is_some_and(|free| asking.is_asked(node, free)) {
                list.take(node);
            }
        }
    }
}

/// Those who are on it, each once.
#[derive(Default)]
struct Shortlist {
    nodes: Vec<NodeId>,
    known: BTreeSet<NodeId>,
}

impl Shortlist {
    fn has(&self, node: &NodeId) -> bool {
        self.known.contains(node)
    }

    fn take(&mut self, node: NodeId) {
        if self.known.insert(node) {
            self.nodes.push(node);
        }
    }
}

#[cfg(test)]
mod tests;
