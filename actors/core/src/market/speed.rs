//! How fast a node is at a kind of work, predicted from what it has done.
//!
//! Owned by the matchmaker: it feeds every finished run's [`RunStatistic`] and every start test, and asks for
//! [`Prediction`]s. What a prediction rests on, the best first:
//!
//! 1. the node's own runs of this kind, engine and size;
//! 2. its runs of the nearest other size, as much faster or slower as its start test is there;
//! 3. its start test for steps of this size ([`StartTest`]), times what nodes achieved of their start tests at this kind of work (the median);
//! 4. its start test alone.
//!
//! A start test is the node's own word. So it counts for no more than what machines of the same make reached that earn for others: see
//! [`Makes`].
//!
//! Speeds scatter by factors, not by amounts, so averages are taken of logarithms: the mean of the last runs, with
//! weight 0.2 for the newest once there are five. A prediction's spread is a standard deviation of that logarithm and
//! narrows with the count: the sample's own scatter, blended with a prior. A start test's is the scatter of what nodes
//! achieved of theirs around its median, blended the same way: how far start tests lead astray, the network learns.
//!
//! Is not: the record on disk (the statistics themselves are), nor ratings.

use std::collections::BTreeMap;

use cryptomind_protocol::selftest::{Machine, Pace};
pub use cryptomind_protocol::speed::{Engine, RunStatistic, SpeedBasis, Step, WorkKind};
use cryptomind_protocol::{AccountId, NodeId};

mod make;

use make::Makes;

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
/// By so much a start test makes steps of another size faster than those that were shown, at most: honest ones found 3.6 between
/// the slowest and the fastest.
const MOST_FASTER: f64 = 4.0;
/// How many runs the prior spread of a node's own runs counts for.
const PRIOR_RUNS: f64 = 3.0;
/// Spread of runs of one node as taken before there are any: other load, heat.
const PRIOR_SPREAD: f64 = 0.2;

/// Logarithm of the operations a second of a run; nothing of one that computed nothing or took no time.
fn ln_speed(run: &RunStatistic) -> Option<f64> {
    let measurable = run.flops > 0 && run.ms > 0;
    measurable.then(|| (run.flops as f64 * 1e3 / run.ms as f64).ln())
}

/// Of what a speed is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// What kind of work.
    pub kind: WorkKind,
    /// What computes.
    pub engine: Engine,
    /// In which steps.
    pub step: Step,
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

/// What a node's start test says: a speed for any work and, for training, how it depends on the step.
///
/// A step computes gradients and then updates its parameters:
///
/// ```text
/// time = operations ÷ speed(operations) + parameters × update(parameters)
/// ```
///
/// Small steps spend their time otherwise than large ones, and an update is as fast as the memory in which the parameters
/// fit: one thread made 24 to 86 GFLOP/s of steps of 0.4 to 1600 million operations, and took 1.1 to 2.2 ns a parameter.
/// Between what was measured the logarithms are interpolated, beyond it the nearest counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StartTest {
    /// Floating-point operations a second.
    flops_per_s: f64,
    /// Of gradients, operations a second by operations of a step.
    gradients: Curve,
    /// Of an update, seconds a parameter by parameters.
    update: Curve,
    /// The smallest step, seconds.
    least_s: f64,
}

/// A quantity that was measured at some sizes: the logarithms of both, by size.
#[derive(Debug, Clone, Default, PartialEq)]
struct Curve(Vec<(f64, f64)>);

impl Curve {
    fn new(points: impl Iterator<Item = (f64, f64)>) -> Self {
        let logarithms = points.map(|(size, value)| (size.max(1.0).ln(), value.ln()));
        let mut points: Vec<_> = logarithms.collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self(points)
    }

    /// The quantity at a size; nothing where none was measured.
    fn at(&self, size: f64) -> Option<f64> {
        let size = size.max(1.0).ln();
        let next = self.0.partition_point(|(known, _)| *known < size);
        let before = next.checked_sub(1).and_then(|at| self.0.get(at));
        let value = match (before, self.0.get(next)) {
            (Some((low, from)), Some((high, to))) => {
                from + (size - low) / (high - low) * (to - from)
            }
            (Some((_, value)), None) | (None, Some((_, value))) => *value,
            (None, None) => return None,
        };
        Some(value.exp())
    }
}

impl From<u64> for StartTest {
    /// One speed for all sizes, floating-point operations a second.
    fn from(flops_per_s: u64) -> Self {
        Self {
            flops_per_s: flops_per_s.max(1) as f64,
            ..Self::default()
        }
    }
}

impl StartTest {
    /// With how fast it trains in steps of several sizes.
    pub fn with_paces(self, paces: &[Pace]) -> Self {
        let seconds = |nanos: u64| nanos.max(1) as f64 / 1e9;
        let speed = |flops: u64, nanos: u64| flops.max(1) as f64 / seconds(nanos);
        let gradients = paces.iter().map(|pace| {
            let flops = pace.step.flops;
            (flops as f64, speed(flops, pace.gradients_ns))
        });
        let update = paces.iter().map(|pace| {
            let parameters = pace.step.parameters.max(1) as f64;
            (parameters, seconds(pace.update_ns) / parameters)
        });
        let smallest = paces.iter().min_by_key(|pace| pace.step.flops);
        let least = smallest.map(|pace| pace.gradients_ns.saturating_add(pace.update_ns));
        Self {
            gradients: Curve::new(gradients),
            update: Curve::new(update),
            least_s: least.map_or(0.0, seconds),
            ..self
        }
    }

    /// Floating-point operations a second at a kind of work in such steps. None takes less time than the smallest one that was
    /// measured: what a step takes beside its operations does not shrink with them.
    fn at(&self, kind: WorkKind, step: Step) -> f64 {
        let (flops, parameters) = (step.flops.max(1) as f64, step.parameters as f64);
        let trained = self.gradients.at(flops).zip(self.update.at(parameters));
        match (kind, trained) {
            (WorkKind::Infer, _) | (_, None) => self.flops_per_s,
            (WorkKind::Train, Some((speed, update))) => {
                let takes = flops / speed + parameters * update;
                flops / takes.max(self.least_s)
            }
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

/// By class of steps, and the newest of these steps.
type BySize = BTreeMap<u8, (History, Step)>;

/// All that is known of nodes' speeds.
#[derive(Debug, Clone, Default)]
pub struct Speeds {
    makes: Makes,
    histories: BTreeMap<(NodeId, WorkKind, Engine), BySize>,
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

    /// Takes what an owner's node is made of, as its self-test says.
    pub fn made_of(&mut self, node: NodeId, machine: &Machine) {
        self.makes.joined(node, machine);
    }

    /// Takes what a node achieved in a run. A run that computed nothing or took no time says nothing.
    pub fn ran(&mut self, run: &RunStatistic) {
        let Some(speed) = ln_speed(run) else { return };
        let sizes = self.histories.entry((run.node, run.kind, run.engine));
        let sizes = sizes.or_default();
        let size_class = run.step.size_class();
        let known = sizes.entry(size_class);
        let (history, _) = known
            .and_modify(|(history, step)| {
                history.feed(speed);
                *step = run.step;
            })
            .or_insert_with(|| (History::first(speed), run.step));
        if let Some(owner) = self.owners.get(&run.node) {
            let sort = (run.kind, run.engine, size_class);
            self.makes.reached(&run.node, *owner, sort, history.mean);
        }
        if let Some(test) = self.start_tests.get(&run.node) {
            let factor = speed - test.at(run.kind, run.step).ln();
            self.factors.insert((run.kind, run.node), factor);
            let sized = (run.kind, size_class, run.node);
            self.sized.insert(sized, factor);
        }
    }

    /// Forgets a node.
    pub fn forget(&mut self, node: NodeId) {
        self.histories.retain(|(known, ..), _| *known != node);
        self.makes.forget(&node);
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
            let claimed = test.at(sort.kind, sort.step) * factor;
            Some(Prediction {
                flops_per_s: self.believed(&node, sort, claimed),
                spread,
                basis: SpeedBasis::StartTest {},
            })
        })
    }

    /// Of what a node only claims: no more than others reach on machines of its make.
    fn believed(&self, node: &NodeId, sort: Sort, claimed: f64) -> f64 {
        let sized = (sort.kind, sort.engine, sort.step.size_class());
        let owner = self.owners.get(node);
        let most = owner.and_then(|owner| self.makes.most(node, owner, sized));
        most.map_or(claimed, |most| claimed.min(most))
    }

    /// What a node's start test promises for such steps, by what nodes of others made of theirs, one an owner, operations
    /// a second. Nothing where fewer than [`WITNESSES`] owners have shown it. The runs of the owner's own nodes do not enter:
    /// what was claimed stays what was claimed, and nobody's nodes vouch for each other.
    pub fn promised(&self, node: &NodeId, kind: WorkKind, step: Step) -> Option<f64> {
        let (test, size_class) = (self.start_tests.get(node)?, step.size_class());
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
        enough.then(|| test.at(kind, step) * median(factors).exp())
    }

    /// Whom a node earns for, as far as it is known.
    pub fn owner(&self, node: &NodeId) -> Option<AccountId> {
        self.owners.get(node).copied()
    }

    fn of_runs(&self, node: NodeId, sort: Sort) -> Option<Prediction> {
        let sizes = self.histories.get(&(node, sort.kind, sort.engine))?;
        let size_class = sort.step.size_class();
        let nearest = sizes
            .iter()
            .min_by_key(|(size, _)| size.abs_diff(size_class));
        let (size, (history, shown)) = nearest?;
        let mut flops_per_s = history.mean.exp();
        let (spread, basis) = if *size == size_class {
            let count = history.count;
            (history.spread(), SpeedBasis::Runs { count })
        } else {
            // As much faster or slower as its start test is at the one than at the other.
            let test = self.start_tests.get(&node);
            let ratio = test.map(|test| test.at(sort.kind, sort.step) / test.at(sort.kind, *shown));
            // Which is its own word, again.
            flops_per_s *= ratio.unwrap_or(1.0).min(MOST_FASTER);
            flops_per_s = self.believed(&node, sort, flops_per_s);
            let spread = history.spread().hypot(OTHER_SIZE_SPREAD);
            (spread, SpeedBasis::OtherSize { size_class: *size })
        };
        Some(Prediction {
            flops_per_s,
            spread,
            basis,
        })
    }

    /// What nodes achieve of their start tests at this kind of work: the median, 1 as long as none has; and the spread
    /// around it.
    fn achieved(&self, kind: WorkKind) -> (f64, f64) {
        let of_kind = self.factors.iter().filter(|((known, _), _)| *known == kind);
        // One an owner: nobody decides alone by many nodes.
        let by_owner: BTreeMap<_, f64> = of_kind
            .filter_map(|((_, node), factor)| Some((self.owners.get(node)?, *factor)))
            .collect();
        let factors: Vec<f64> = by_owner.into_values().collect();
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
