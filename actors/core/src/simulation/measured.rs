//! What the coordinator knows of the simulated miners, and how it comes to know it.

use std::collections::BTreeMap;

use cryptomind_protocol::rating::{Evidence, RatingView};
use cryptomind_protocol::{AccountId, NodeId, Timestamp};

use super::Policy;
use super::scenario::{Network, Scenario};
use super::truth::{Place, Truth};
use crate::dice::Dice;
use crate::market::link::{Links, Measure, Party};
use crate::market::speed::{Engine, RunStatistic, Speeds};
use crate::market::{Ability, Surroundings, Workload};
use crate::rating::{self, NEWCOMER_MILLI, Rating};

/// A table of links is taken anew when it is older.
const TABLE_AGE_MS: u64 = 30_000;
/// Of how many peers the nearest are looked for, for each one that is wanted.
const LOOKED_AT: usize = 3;
/// By how much flatterers exaggerate.
const FLATTERY: f64 = 10.0;

/// All that is measured.
pub struct Measured {
    policy: Policy,
    network: Network,
    links: Links,
    speeds: Speeds,
    ratings: BTreeMap<NodeId, Rating>,
    around: Surroundings,
    taken: Option<Timestamp>,
    dice: Dice,
    flatterers: Vec<bool>,
}

/// A miner's id.
pub fn node(miner: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(miner as u64).to_be_bytes());
    NodeId::new(bytes)
}

/// Everybody is an owner.
fn owner(miner: usize) -> AccountId {
    let mut bytes = [0; AccountId::LEN];
    bytes[..8].copy_from_slice(&(miner as u64).to_be_bytes());
    AccountId::new(bytes)
}

fn party(place: Place) -> Party {
    match place {
        Place::Miner(miner) => Party::Node(node(miner)),
        Place::Store(store) => {
            let mut bytes = [u8::MAX; 32];
            bytes[..8].copy_from_slice(&(store as u64).to_be_bytes());
            Party::Node(NodeId::new(bytes))
        }
    }
}

impl Measured {
    /// Start tests are known, with their error; links are not.
    pub fn new(scenario: &Scenario, policy: Policy, truth: &Truth, seed: u64) -> Self {
        let mut dice = Dice::new(seed).branch(3);
        let mut speeds = Speeds::default();
        for miner in 0..scenario.count() {
            let error = dice.factor(scenario.miners.start_test_sigma);
            let test = (truth.speed(miner) * 1e3 * error) as u64;
            speeds.started(node(miner), owner(miner), test);
        }
        let flatterers = (0..scenario.count()).map(|_| dice.unit() < scenario.network.flatterers);
        Self {
            flatterers: flatterers.collect(),
            policy,
            network: scenario.network.clone(),
            links: Links::default(),
            speeds,
            ratings: BTreeMap::new(),
            around: Surroundings::default(),
            taken: None,
            dice,
        }
    }

    /// A miner measures its links: to all in its local network, to the stores, to peers by lot, and to near ones.
    pub fn measure(&mut self, miner: usize, truth: &Truth, online: &[bool], now: Timestamp) {
        let here = Place::Miner(miner);
        for peer in self.peers(miner, truth, online) {
            self.probe(here, peer, truth, now);
            if truth.in_one_lan(here, peer) {
                self.links.prove_lan(party(here), party(peer), now);
            }
        }
    }

    fn peers(&mut self, miner: usize, truth: &Truth, online: &[bool]) -> Vec<Place> {
        let here = Place::Miner(miner);
        let (random, near) = (
            self.network.random_peers as usize,
            self.network.near_peers as usize,
        );
        let known = self.dice.some(random + near * LOOKED_AT, online.len());
        let known: Vec<Place> = known
            .into_iter()
            .filter(|peer| online[*peer] && *peer != miner)
            .map(Place::Miner)
            .collect();
        let split = random.min(known.len());
        let (by_lot, others) = known.split_at(split);
        let mut others = others.to_vec();
        let latency = |peer: &Place| truth.way(here, *peer).latency_ms;
        others.sort_by(|a, b| latency(a).total_cmp(&latency(b)).then(a.cmp(b)));
        others.truncate(near);
        let stores = (0..self.network.stores as usize).map(Place::Store);
        let mut peers: Vec<Place> = by_lot.iter().copied().chain(others).chain(stores).collect();
        peers.extend(neighbours(miner, truth, online));
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Both ends see the exchange, and each reports what it saw.
    fn probe(&mut self, a: Place, b: Place, truth: &Truth, now: Timestamp) {
        let way = truth.way(a, b);
        for (from, to) in [(a, b), (b, a)] {
            let noise = self.network.noise;
            let mut better = 1.0;
            if matches!(from, Place::Miner(miner) if self.flatterers[miner]) {
                better = FLATTERY;
            }
            let rtt_ms = 2.0 * way.latency_ms * self.dice.factor(noise) / better;
            let bytes_per_s = way.bytes_per_ms * 1e3 * self.dice.factor(noise) * better;
            let measure = Measure {
                rtt_us: (rtt_ms * 1e3) as u64,
                bytes_per_s: Some(bytes_per_s as u64),
            };
            self.links.report(party(from), party(to), measure, now);
        }
    }

    /// What a miner can do for a workload, as the coordinator is allowed to know it.
    pub fn ability(
        &mut self,
        miner: usize,
        workload: &Workload,
        missing_bytes: u64,
        now: Timestamp,
    ) -> Ability {
        let sort = workload.sort(Engine::Cpu);
        let predicted = self.speeds.predict(node(miner), sort);
        let (flops_per_s, spread) = predicted.map_or((1.0, 0.0), |p| (p.flops_per_s, p.spread));
        let mflops = (flops_per_s / 1e6) as u64;
        match self.policy {
            Policy::Market => Ability {
                spread_ppm: (spread * 1e6) as u32,
                missing_bytes,
                ..Ability::new(mflops, 0).rated(&self.rating(miner, now))
            },
            Policy::SpeedOnly => Ability::new(mflops, NEWCOMER_MILLI),
            Policy::Random => Ability::new(1 + self.dice.below(1 << 40), NEWCOMER_MILLI),
        }
    }

    /// Every miner is its own owner.
    fn rating(&self, miner: usize, now: Timestamp) -> RatingView {
        let known = self.ratings.get(&node(miner)).cloned().unwrap_or_default();
        rating::view(&known, &known, now)
    }

    /// A miner showed something.
    pub fn rate(&mut self, node: NodeId, evidence: &Evidence, now: Timestamp) {
        self.ratings.entry(node).or_default().hear(evidence, now);
    }

    /// A miner was a member of a group.
    pub fn ran(&mut self, run: &RunStatistic) {
        self.speeds.ran(run);
    }

    /// Brings what is known around the miners up to date.
    pub fn refresh(&mut self, now: Timestamp) {
        let fresh = |taken: Timestamp| now.ms_since(taken) < TABLE_AGE_MS;
        if self.policy != Policy::Market || self.taken.is_some_and(fresh) {
            return;
        }
        self.links.forget_expired(now);
        let stores = (0..self.network.stores as usize).map(|s| party(Place::Store(s)));
        self.around = Surroundings {
            links: self.links.table(now).into(),
            stores: stores.collect(),
        };
        self.taken = Some(now);
    }

    /// What is known around the miners.
    pub const fn around(&self) -> &Surroundings {
        &self.around
    }
}

fn neighbours(miner: usize, truth: &Truth, online: &[bool]) -> Vec<Place> {
    let here = Place::Miner(miner);
    let all = (0..online.len()).filter(|peer| online[*peer] && *peer != miner);
    let all = all.map(Place::Miner);
    all.filter(|peer| truth.in_one_lan(here, *peer)).collect()
}
