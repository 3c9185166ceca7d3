//! Nodes to draw from: who is in it comes, goes and is drawn without a look at the others.

use std::collections::BTreeMap;

use cryptomind_protocol::NodeId;

use crate::dice::Dice;

/// A set of nodes in no order.
#[derive(Debug, Default)]
pub(super) struct Pool {
    nodes: Vec<NodeId>,
    places: BTreeMap<NodeId, usize>,
}

impl Pool {
    pub(super) fn enter(&mut self, node: NodeId) {
        if !self.places.contains_key(&node) {
            self.places.insert(node, self.nodes.len());
            self.nodes.push(node);
        }
    }

    pub(super) fn leave(&mut self, node: &NodeId) {
        let Some(place) = self.places.remove(node) else {
            return;
        };
        self.nodes.swap_remove(place);
        if let Some(moved) = self.nodes.get(place) {
            self.places.insert(*moved, place);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// So many of the nodes but this one, by chance; all where there are no more.
    pub(super) fn some_but(&self, node: NodeId, count: usize, dice: &mut Dice) -> Vec<NodeId> {
        let drawn = dice.some(count + 1, self.nodes.len()).into_iter();
        let drawn = drawn.map(|at| self.nodes[at]);
        drawn.filter(|other| *other != node).take(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::new([n; 32])
    }

    #[test]
    fn everybody_who_is_in_it_is_drawn_and_nobody_else() {
        let (mut pool, mut reference) = (Pool::default(), BTreeSet::new());
        let mut dice = Dice::new(1);
        for _ in 0..2_000 {
            let one = node(dice.below(20) as u8);
            if dice.below(2) == 0 {
                pool.enter(one);
                reference.insert(one);
            } else {
                pool.leave(&one);
                reference.remove(&one);
            }
            let drawn: BTreeSet<_> = pool.some_but(one, 20, &mut dice).into_iter().collect();
            let mut others = reference.clone();
            others.remove(&one);
            assert_eq!(drawn, others);
            assert_eq!(pool.is_empty(), reference.is_empty());
            let few = pool.some_but(one, 3, &mut dice);
            assert_eq!(few.len(), others.len().min(3));
            assert!(few.iter().all(|other| others.contains(other)));
        }
    }
}
