//! Which items nodes have at hand: who need not fetch a model or a dataset begins sooner.
//!
//! Owned by the matchmaker. It knows of a node what the node had when it was last ready for a run; nobody is believed who
//! says so of itself. Caches forget: a node that had to fetch an item again is seen to do so, and pays with its own time.
//! Lies in memory alone: after a restart nobody is warm, and tasks tell soon enough.

use std::collections::{BTreeMap, VecDeque};

use cryptomind_protocol::{ItemId, NodeId};

use crate::price::ItemUse;

/// Items that are remembered a node, the last used.
pub const MAX_ITEMS: usize = 32;

/// Who has what.
#[derive(Debug, Clone, Default)]
pub struct Warmth(BTreeMap<NodeId, VecDeque<ItemId>>);

impl Warmth {
    /// A node has these items now.
    pub fn has(&mut self, node: NodeId, items: impl IntoIterator<Item = ItemId>) {
        let known = self.0.entry(node).or_default();
        for item in items {
            known.retain(|other| *other != item);
            known.push_back(item);
            if known.len() > MAX_ITEMS {
                known.pop_front();
            }
        }
    }

    /// What a node has to fetch of these, bytes.
    pub fn missing_bytes(&self, node: &NodeId, items: &[ItemUse]) -> u64 {
        let known = self.0.get(node);
        let missing = items
            .iter()
            .filter(|used| known.is_none_or(|items| !items.contains(&used.item)));
        missing.fold(0, |sum, used| sum.saturating_add(used.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::{AccountId, Amount};

    const fn item(n: u8) -> ItemId {
        ItemId::new([n; 16])
    }

    fn used(n: u8) -> ItemUse {
        ItemUse {
            item: item(n),
            bytes: 1 << n,
            payee: AccountId::new([1; 20]),
            fee: Amount::ZERO,
        }
    }

    #[test]
    fn only_what_a_node_lacks_is_to_be_fetched() {
        let node = NodeId::new([1; 32]);
        let mut warmth = Warmth::default();
        let items = [used(3), used(4)];
        assert_eq!(warmth.missing_bytes(&node, &items), 8 + 16);
        warmth.has(node, [item(3)]);
        assert_eq!(warmth.missing_bytes(&node, &items), 16);
        assert_eq!(warmth.missing_bytes(&NodeId::new([2; 32]), &items), 8 + 16);
    }

    #[test]
    fn the_last_used_are_remembered() {
        let node = NodeId::new([1; 32]);
        let mut warmth = Warmth::default();
        warmth.has(node, (0..=MAX_ITEMS as u8).map(item));
        assert_eq!(warmth.0[&node].len(), MAX_ITEMS);
        warmth.has(node, [item(1), item(100)]);
        let left: Vec<_> = [0, 1, 2, 100]
            .map(|n| warmth.0[&node].contains(&item(n)))
            .into();
        assert_eq!(left, [false, true, false, true]);
    }
}
