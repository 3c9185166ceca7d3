//! Machines of one make: what those of several owners reach, no other one exceeds by much.
//!
//! Owned by [`Speeds`](super::Speeds). A make is the devices and the number of threads that a self-test names. What it reaches
//! is what its runs show, of which the coordinator knows the time; whoever names a device that he has not gets the speed of those
//! who have it, and shows less at the first run.

use std::collections::BTreeMap;
use std::sync::Arc;

use cryptomind_protocol::selftest::Machine;
use cryptomind_protocol::speed::{Engine, WorkKind};
use cryptomind_protocol::{AccountId, NodeId};

use super::WITNESSES;

/// Machines of one make differ: memory, cooling, what else runs on them.
const MARGIN: f64 = 1.25;
/// Makes and sorts of work that are remembered: whoever makes names up does not fill the memory.
const MAX_KNOWN: usize = 10_000;
/// Owners whose speeds are kept, the fastest.
const FASTEST: usize = 4 * WITNESSES;

/// Of which sort of work a speed is: its kind, what computes, and the size of its steps.
type Sized = (WorkKind, Engine, u8);

/// What is known of all makes.
#[derive(Debug, Clone, Default)]
pub(super) struct Makes {
    of: BTreeMap<NodeId, Arc<str>>,
    reached: BTreeMap<(Arc<str>, Sized), Fastest>,
}

/// Logarithms of operations a second, the fastest owner first, each once.
type Fastest = Vec<(f64, AccountId)>;

impl Makes {
    /// A node is of this make.
    pub(super) fn joined(&mut self, node: NodeId, machine: &Machine) {
        let name = format!("{} × {}", machine.threads, machine.devices.join(" + "));
        self.of.insert(node, name.into());
    }

    /// An owner's node reaches this speed: the logarithm of operations a second.
    pub(super) fn reached(&mut self, node: &NodeId, owner: AccountId, sort: Sized, speed: f64) {
        let Some(make) = self.of.get(node) else {
            return;
        };
        let key = (Arc::clone(make), sort);
        if self.reached.len() >= MAX_KNOWN && !self.reached.contains_key(&key) {
            // What too few have shown says nothing yet.
            self.reached.retain(|_, known| known.len() >= WITNESSES);
        }
        if self.reached.len() >= MAX_KNOWN && !self.reached.contains_key(&key) {
            return;
        }
        let fastest = self.reached.entry(key).or_default();
        fastest.retain(|(_, known)| *known != owner);
        let place = fastest.partition_point(|(faster, _)| *faster >= speed);
        fastest.insert(place, (speed, owner));
        fastest.truncate(FASTEST);
    }

    /// The most that a node of `owner` is believed to reach unseen, operations a second: a little more than the third fastest
    /// of the other owners of such machines. Nothing where fewer have shown it.
    pub(super) fn most(&self, node: &NodeId, owner: &AccountId, sort: Sized) -> Option<f64> {
        let make = self.of.get(node)?;
        let fastest = self.reached.get(&(Arc::clone(make), sort))?;
        let mut others = fastest.iter().filter(|(_, known)| known != owner);
        let (speed, _) = others.nth(WITNESSES - 1)?;
        Some(speed.exp() * MARGIN)
    }

    /// Forgets a node; what it reached stays true.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.of.remove(node);
    }
}
