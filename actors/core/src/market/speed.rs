//! How fast a node is at a kind of work, predicted from what it has done.
//!
//! Owned by the matchmaker: it feeds every finished run's [`RunStatistic`] and every start test, and asks for
//! [`Prediction`]s. What a prediction rests on, the best first:
//!
//! 1. the node's own runs of this kind, engine and size;
//! 2. its runs of the nearest other size;
//! 3. its start test for steps of this size ([`StartTest`]), times what nodes achieved of their start tests at this kind of work (the median);
//! 4. its start test alone.
//!
//! Speeds scatter by factors, not by amounts, so averages are taken of logarithms: the mean of the last runs, with
//! weight 0.2 for the newest once there are five. A prediction's spread is a standard deviation of that logarithm and
//! narrows with the count: the sample's own scatter, blended with a prior. A start test's is the scatter of what nodes
//! achieved of theirs around its median, blended the same way: how far start tests lead astray, the network learns.
//!
//! Is not: the record on disk (the statistics themselves are), nor ratings.

use std::collections::BTreeMap;
use std::f64::consts::LN_2;

use cryptomind_protocol::selftest::Pace;
pub use cryptomind_protocol::speed::{Engine, RunStatistic, SpeedBasis, WorkKind};
use cryptomind_protocol::{AccountId, NodeId};

/// Operations in the unit of a [`Pace`].
const MFLOPS: f64 = 1e6;
/// The least weight of the newest run in an average.
const NEWEST_WEIGHT: f64 = 0.2;
/// Spread of a speed of which only a start test is known, before any node has run: a factor of 1.65 either way.
pub const START_TEST_SPREAD: f64 = 0.5;
/// What nodes of fewer other owners made of their start tests says nothing of a promise.
pub const WITNESSES: usize = 3;
/// How many nodes that spread counts for.
const PRIOR_NODES: f64 = 3.0;
/// Spread of a speed that is known from runs of another size.
pub const OTHER_SIZE_SPREAD: f64 = 0.3;
/// How many runs the prior spread of a node's own runs counts for.
const PRIOR_RUNS: f64 = 3.0;
/// Spread of runs of one node as taken before there are any: other load, heat.
const PRIOR_SPREAD: f64 = 0.2;

/// Logarithm of the operations a second of a run; nothing of one that computed nothing or took no time.
fn ln_speed(run: &RunStatistic) -> Option<f64> {
    let measurable = run.flops > 0 && run.ms > 0;
    measurable.then(|| (run.flops as f64 * 1e3 / run.ms as f64).ln())
}

/// The class of steps of so many floating-point operations: the logarithm to base 2, rounded down.
pub const fn size_class(flops_per_step: u64) -> u8 {
    match flops_per_step.checked_ilog2() {
        Some(class) => class as u8,
        None => 0,
    }
}

/// Of what a speed is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// What kind of work.
    pub kind: WorkKind,
    /// What computes.
    pub engine: Engine,
    /// Size of a step: see [`size_class`].
    pub size_class: u8,
}

/// A node's speed as predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Median, floating-point operations a second.
    pub flops_per_s: f64,
    /// Standard deviation of its logarithm.
    pub spread: f64,
    /// What it rests on.
    pub basis: SpeedBasis,
}

/// What a node's start test says: a speed for any work and, for training, how it depends on the size of a step.
///
/// Small steps spend their time otherwise than large ones: the same thread made 23 to 43 GFLOP/s of steps of 0.3 to 1300
/// million operations. Between the measured sizes the logarithms are interpolated, beyond them the nearest counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StartTest {
    /// Floating-point operations a second.
    flops_per_s: f64,
    /// Logarithms of a step's operations and of operations a second, by size.
    paces: Vec<(f64, f64)>,
}

impl From<u64> for StartTest {
    /// One speed for all sizes, floating-point operations a second.
    fn from(flops_per_s: u64) -> Self {
        Self {
            flops_per_s: flops_per_s.max(1) as f64,
            paces: Vec::new(),
        }
    }
}

impl StartTest {
    /// With how fast it trains in steps of several sizes.
    pub fn with_paces(mut self, paces: &[Pace]) -> Self {
        let ln = |value: u64| (value.max(1) as f64).ln();
        let point = |pace: &Pace| (ln(pace.flops_per_step), ln(pace.mflops) + MFLOPS.ln());
        self.paces = paces.iter().map(point).collect();
        self.paces.sort_by(|a, b| a.0.total_cmp(&b.0));
        self
    }

    /// Floating-point operations a second at a kind of work in steps of a size.
    fn at(&self, kind: WorkKind, size_class: u8) -> f64 {
        match kind {
            WorkKind::Infer => self.flops_per_s,
            // The middle of the class.
            WorkKind::Train => self.between((f64::from(size_class) + 0.5) * LN_2),
        }
    }

    fn between(&self, size: f64) -> f64 {
        let next = self.paces.partition_point(|(known, _)| *known < size);
        let before = next.checked_sub(1).and_then(|at| self.paces.get(at));
        match (before, self.paces.get(next)) {
            (Some((low, slow)), Some((high, fast))) => {
                let part = (size - low) / (high - low);
                (slow + part * (fast - slow)).exp()
            }
            (Some((_, speed)), None) | (None, Some((_, speed))) => speed.exp(),
            (None, None) => self.flops_per_s,
        }
    }
}

/// Mean and scatter of logarithms.
#[derive(Debug, Clone, Copy)]
struct History {
    count: u32,
    mean: f64,
    variance: f64,
}

impl History {
    fn first(value: f64) -> Self {
        Self {
            count: 1,
            mean: value,
            variance: 0.0,
        }
    }

    /// West's incremental mean and variance with a weight (1979): of 1/n first, then of the least.
    fn feed(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let weight = NEWEST_WEIGHT.max(1.0 / f64::from(self.count));
        let off = value - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
    }

    /// Of the next run: the scatter of runs and the doubt about their mean.
    fn spread(&self) -> f64 {
        let count = f64::from(self.count);
        let prior = PRIOR_RUNS * PRIOR_SPREAD * PRIOR_SPREAD;
        let scatter = (prior + count * self.variance) / (PRIOR_RUNS + count);
        let doubt = NEWEST_WEIGHT.max(1.0 / count);
        (scatter * (1.0 + doubt)).sqrt()
    }
}

/// All that is known of nodes' speeds.
#[derive(Debug, Clone, Default)]
pub struct Speeds {
    histories: BTreeMap<(NodeId, WorkKind, Engine), BTreeMap<u8, History>>,
    start_tests: BTreeMap<NodeId, StartTest>,
    /// Logarithm of what each node last achieved of its start test.
    factors: BTreeMap<(WorkKind, NodeId), f64>,
    /// The same for each size of a step: small steps take longer than their operations say.
    sized: BTreeMap<(WorkKind, u8, NodeId), f64>,
    /// Whom nodes earn for.
    owners: BTreeMap<NodeId, AccountId>,
}

impl Speeds {
    /// Takes the start test of an owner's node; a bare number is one speed for all work, floating-point operations a second.
    pub fn started(&mut self, node: NodeId, owner: AccountId, test: impl Into<StartTest>) {
        self.owners.insert(node, owner);
        self.start_tests.insert(node, test.into());
    }

    /// Takes what a node achieved in a run. A run that computed nothing or took no time says nothing.
    pub fn ran(&mut self, run: &RunStatistic) {
        let Some(speed) = ln_speed(run) else { return };
        let sizes = self.histories.entry((run.node, run.kind, run.engine));
        let sizes = sizes.or_default();
        let known = sizes.entry(run.size_class);
        known
            .and_modify(|history| history.feed(speed))
            .or_insert_with(|| History::first(speed));
        if let Some(test) = self.start_tests.get(&run.node) {
            let factor = speed - test.at(run.kind, run.size_class).ln();
            self.factors.insert((run.kind, run.node), factor);
            let sized = (run.kind, run.size_class, run.node);
            self.sized.insert(sized, factor);
        }
    }

    /// Forgets a node.
    pub fn forget(&mut self, node: NodeId) {
        self.histories.retain(|(known, ..), _| *known != node);
        self.start_tests.remove(&node);
        self.owners.remove(&node);
        self.factors.retain(|(_, known), _| *known != node);
        self.sized.retain(|(.., known), _| *known != node);
    }

    /// A node's speed at a sort of work. Nothing of a node that has shown nothing.
    pub fn predict(&self, node: NodeId, sort: Sort) -> Option<Prediction> {
        self.of_runs(node, sort).or_else(|| {
            let test = self.start_tests.get(&node)?;
            let (factor, spread) = self.achieved(sort.kind);
            Some(Prediction {
                flops_per_s: test.at(sort.kind, sort.size_class) * factor,
                spread,
                basis: SpeedBasis::StartTest {},
            })
        })
    }

    /// What a node's start test promises for steps of a size, by what nodes of others made of theirs, one an owner, operations
    /// a second. Nothing where fewer than [`WITNESSES`] owners have shown it. The runs of the owner's own nodes do not enter:
    /// what was claimed stays what was claimed, and nobody's nodes vouch for each other.
    pub fn promised(&self, node: &NodeId, kind: WorkKind, size_class: u8) -> Option<f64> {
        let test = self.start_tests.get(node)?;
        let (first, last) = ([0; NodeId::LEN], [u8::MAX; NodeId::LEN]);
        let [first, last] = [first, last].map(|id| (kind, size_class, NodeId::new(id)));
        let judged = self.owners.get(node)?;
        let mut by_owner = BTreeMap::new();
        for ((.., other), factor) in self.sized.range(first..=last) {
            let owner = self.owners.get(other).filter(|owner| *owner != judged);
            by_owner.extend(owner.map(|owner| (*owner, *factor)));
        }
        let factors: Vec<f64> = by_owner.into_values().collect();
        let enough = factors.len() >= WITNESSES;
        enough.then(|| test.at(kind, size_class) * median(factors).exp())
    }

    /// Whom a node earns for, as far as it is known.
    pub fn owner(&self, node: &NodeId) -> Option<AccountId> {
        self.owners.get(node).copied()
    }

    fn of_runs(&self, node: NodeId, sort: Sort) -> Option<Prediction> {
        let sizes = self.histories.get(&(node, sort.kind, sort.engine))?;
        let nearest = sizes
            .iter()
            .min_by_key(|(size, _)| size.abs_diff(sort.size_class));
        let (size, history) = nearest?;
        let (spread, basis) = if *size == sort.size_class {
            let count = history.count;
            (history.spread(), SpeedBasis::Runs { count })
        } else {
            let spread = history.spread().hypot(OTHER_SIZE_SPREAD);
            (spread, SpeedBasis::OtherSize { size_class: *size })
        };
        Some(Prediction {
            flops_per_s: history.mean.exp(),
            spread,
            basis,
        })
    }

    /// What nodes achieve of their start tests at this kind of work: the median, 1 as long as none has; and the spread
    /// around it.
    fn achieved(&self, kind: WorkKind) -> (f64, f64) {
        let of_kind = self.factors.iter().filter(|((known, _), _)| *known == kind);
        let factors: Vec<f64> = of_kind.map(|(_, factor)| *factor).collect();
        if factors.is_empty() {
            return (1.0, START_TEST_SPREAD);
        }
        let median = median(factors.clone());
        let squares: f64 = factors.iter().map(|factor| (factor - median).powi(2)).sum();
        let prior = PRIOR_NODES * START_TEST_SPREAD * START_TEST_SPREAD;
        let variance = (prior + squares) / (PRIOR_NODES + factors.len() as f64);
        (median.exp(), variance.sqrt())
    }
}

/// The middle one of these, of which there is at least one.
fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests;
