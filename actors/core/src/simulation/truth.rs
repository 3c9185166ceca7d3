//! Machines and links as they really are. No decision sees this.

use super::scenario::{Network, Scenario, Wire};
use crate::dice::Dice;

/// Where a party is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A miner, by number.
    Miner(usize),
    /// A storage node, by number.
    Store(usize),
}

/// A link as it is.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Throughput either way, bytes a millisecond.
    pub bytes_per_ms: f64,
    /// One way, milliseconds.
    pub latency_ms: f64,
}

impl Way {
    /// From the first byte's departure to the last one's arrival.
    pub fn transfer_ms(&self, bytes: f64) -> f64 {
        self.latency_ms + bytes / self.bytes_per_ms
    }
}

/// The hidden truth.
#[derive(Debug)]
pub struct Truth {
    seed: u64,
    network: Network,
    per_lan: usize,
    /// Floating-point operations a millisecond, by miner.
    speeds: Vec<f64>,
}

impl Truth {
    /// Of a scenario and a seed.
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut dice = Dice::new(seed).branch(1);
        let miners = &scenario.miners;
        let speed = |_| miners.mflops as f64 * 1e3 * dice.factor(miners.speed_sigma);
        Self {
            seed,
            network: scenario.network.clone(),
            per_lan: miners.per_lan as usize,
            speeds: (0..scenario.count()).map(speed).collect(),
        }
    }

    /// A miner's speed, floating-point operations a millisecond.
    pub fn speed(&self, miner: usize) -> f64 {
        self.speeds[miner]
    }

    /// Which local network a place is in; storage nodes are in none.
    pub fn lan(&self, place: Place) -> Option<usize> {
        match place {
            Place::Miner(miner) => Some(miner / self.per_lan),
            Place::Store(_) => None,
        }
    }

    /// Whether two places are in one local network.
    pub fn in_one_lan(&self, a: Place, b: Place) -> bool {
        self.lan(a).is_some() && self.lan(a) == self.lan(b)
    }

    /// The link between two places: of its kind, and scattered by a factor that is the pair's own.
    pub fn way(&self, a: Place, b: Place) -> Way {
        let Wire {
            bytes_per_s,
            rtt_us,
        } = if self.in_one_lan(a, b) {
            self.network.inside
        } else {
            self.network.between
        };
        let mut dice = Dice::new(self.seed).branch(2).branch(of_pair(a, b));
        let scatter = self.network.scatter;
        Way {
            bytes_per_ms: bytes_per_s as f64 / 1e3 * dice.factor(scatter),
            latency_ms: rtt_us as f64 / 2e3 * dice.factor(scatter),
        }
    }

    /// The storage node that a miner reaches best.
    pub fn best_store(&self, miner: usize) -> Way {
        let ways = (0..self.network.stores as usize)
            .map(|store| self.way(Place::Miner(miner), Place::Store(store)));
        ways.max_by(|a, b| a.bytes_per_ms.total_cmp(&b.bytes_per_ms))
            .expect("a scenario has at least one storage node")
    }
}

fn of_pair(a: Place, b: Place) -> u64 {
    let number = |place| match place {
        Place::Miner(n) => n as u64 * 2,
        Place::Store(n) => n as u64 * 2 + 1,
    };
    let (first, second) = (number(a.min(b)), number(a.max(b)));
    first << 32 | second
}
