//! Groups at work: they fetch, compute as the hidden truth has it, and report.

use std::collections::BTreeSet;

use cryptomind_protocol::NodeId;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::node::Report;
use cryptomind_protocol::task::{Metrics, ResultFile, TaskState};
use cryptomind_protocol::transaction::StoredReceipt;

use super::{Engine, Event, file, number};
use crate::market::link::Party;
use crate::market::{Expectation, expect};
use crate::simulation::Policy;
use crate::simulation::group::step_ms;
use crate::simulation::measured::node;
use crate::simulation::truth::Place;

/// From a pause to its answer.
const PAUSE_MS: f64 = 50.0;
/// First ranks tell of progress at least so often.
const PROGRESS_MS: f64 = 60_000.0;

impl Engine {
    pub(super) fn members(&self, at: usize) -> Vec<usize> {
        let seats = self.tasks[at].run.seats.iter();
        seats.map(|seat| number(&seat.member.node)).collect()
    }

    pub(super) fn matched(&mut self, at: usize, only: Option<NodeId>) {
        let members = self.members(at);
        let attempt = self.tasks[at].run.attempt;
        if only.is_none() {
            self.count_group(at, &members);
        }
        let fetches = self.tasks[at].computes == 0;
        for miner in members {
            let node = node(miner);
            if only.is_some_and(|only| only != node) || !self.online[miner] {
                continue;
            }
            // Who was in the attempt before has the data.
            let bytes = self.scenario.job.dataset_bytes as f64;
            let way = self.truth.best_store(miner);
            let ms = if fetches { way.transfer_ms(bytes) } else { 0.0 };
            let fetched_bytes = self.scenario.job.dataset_bytes;
            self.report(at, ms, node, attempt, Report::Ready { fetched_bytes });
        }
        self.followed(at, only, attempt);
    }

    /// Newcomers fetch the data, and are level.
    fn followed(&mut self, at: usize, only: Option<NodeId>, attempt: u32) {
        let newcomers = self.tasks[at].run.newcomers.iter();
        let newcomers = newcomers.map(|n| n.offer.member.node);
        let told: Vec<_> = newcomers
            .filter(|node| only.is_none_or(|only| only == *node))
            .collect();
        let bytes = self.scenario.job.dataset_bytes as f64;
        let step = self.tasks[at].done;
        for node in told {
            let ms = self.truth.best_store(number(&node)).transfer_ms(bytes);
            self.report(at, ms, node, attempt, Report::Level { step });
        }
    }

    fn count_group(&mut self, at: usize, members: &[usize]) {
        self.outcome.groups += 1;
        let lans: BTreeSet<_> = members
            .iter()
            .map(|m| self.truth.lan(Place::Miner(*m)))
            .collect();
        self.outcome.in_one_lan += u32::from(lans.len() == 1);
        if self.tasks[at].first_match.is_some() {
            return;
        }
        let waited_ms = self.now.ms_since(self.tasks[at].run.posted);
        self.outcome.wait_ms.push(waited_ms);
        let expected = self.expected(at, members);
        self.tasks[at].first_match = Some((self.now, expected));
    }

    /// What the market expects of a group that it chose; nothing where it was not allowed to know.
    fn expected(&mut self, at: usize, members: &[usize]) -> Option<Expectation> {
        if self.policy != Policy::Market {
            return None;
        }
        let (workload, bytes) = (self.tasks[at].workload, self.scenario.job.dataset_bytes);
        let (measured, now) = (&mut self.measured, self.now);
        let member = |m: &usize| {
            (
                Party::Node(node(*m)),
                measured.ability(*m, &workload, bytes, now),
            )
        };
        let group: Vec<_> = members.iter().map(member).collect();
        let around = self.measured.around();
        expect(&workload, &group, &around.links, &around.stores)
    }

    pub(super) fn pause(&mut self, at: usize, nodes: &[NodeId], attempt: u32, at_step_end: bool) {
        if at_step_end {
            let (since, one_ms, steps) = self.tasks[at].stretch;
            let done = (self.now.ms_since(since) as f64 / one_ms) as u64;
            self.tasks[at].done += done.min(steps);
        }
        let committed = self.tasks[at].done;
        for node in nodes {
            let report = Report::Paused {
                committed,
                prepared: false,
                ring_address: String::new(),
            };
            self.report(at, PAUSE_MS, *node, attempt, report);
        }
    }

    /// A group whose attempt has just begun to run computes.
    pub(super) fn start_computing(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        let (attempt, start) = (task.run.attempt, task.run.start_step);
        if task.run.state != TaskState::Running || task.computes == attempt {
            return;
        }
        task.computes = attempt;
        task.done = start;
        task.computed_ms.clear();
        task.stores_until = self.now;
        // What was done when the ring broke may never have been stored: it is, first of all.
        let step = if self.is_due(at, start) { start } else { 0 };
        if step > 0 {
            self.after(0.0, Event::Work { at, attempt, step });
        } else {
            self.compute(at, 0.0);
        }
    }

    fn is_due(&self, at: usize, step: u64) -> bool {
        let (each, run) = (self.scenario.job.checkpoint_steps, &self.tasks[at].run);
        let boundary = step == run.terms.extent.steps || step.is_multiple_of(each.into());
        boundary && step > run.verified_step
    }

    /// The next stretch of work, after a wait: to the next checkpoint, or for as long as a first rank may be silent.
    fn compute(&mut self, at: usize, wait_ms: f64) {
        let members = self.members(at);
        let sigma = self.scenario.miners.load_sigma;
        let load: Vec<f64> = members.iter().map(|_| self.dice.factor(sigma)).collect();
        let task = &self.tasks[at];
        let one_ms = step_ms(&self.truth, &members, &load, &task.step);
        let each = u64::from(self.scenario.job.checkpoint_steps);
        let to_checkpoint = each - task.done % each;
        let left = task.run.terms.extent.steps - task.done;
        let told = ((PROGRESS_MS / one_ms) as u64).max(1);
        let steps = to_checkpoint.min(left).min(told);
        let (attempt, step) = (task.run.attempt, task.done + steps);
        self.learn(at, &members, &load, steps);
        let begins = self.now.plus_ms(wait_ms.ceil() as u64);
        self.tasks[at].stretch = (begins, one_ms, steps);
        let ms = wait_ms + one_ms * steps as f64;
        self.after(ms, Event::Work { at, attempt, step });
    }

    /// How long each member computes in a stretch of work, without waiting for others: what it says at the next checkpoint.
    fn learn(&mut self, at: usize, members: &[usize], load: &[f64], steps: u64) {
        let task = &mut self.tasks[at];
        let samples = task.step.batch as f64 / members.len() as f64 * steps as f64;
        let flops = samples * task.step.flops_per_sample;
        for (miner, load) in members.iter().zip(load) {
            let ms = flops / self.truth.speed(*miner) * load;
            *task.computed_ms.entry(*miner).or_default() += ms;
        }
    }

    /// Whether an attempt is still under way with all its members there.
    fn goes_on(&self, at: usize, attempt: u32) -> bool {
        let run = &self.tasks[at].run;
        let present = || self.members(at).iter().all(|miner| self.online[*miner]);
        run.attempt == attempt && run.state == TaskState::Running && present()
    }

    pub(super) fn worked(&mut self, at: usize, attempt: u32, step: u64) {
        if !self.goes_on(at, attempt) {
            return;
        }
        self.tasks[at].done = step;
        self.tasks[at].stretch.2 = 0;
        let first = self.tasks[at].run.seats[0].member.node;
        let progress = Report::Progress {
            step,
            loss: 1.0,
            samples_per_s: 1,
            timeline: Vec::new(),
        };
        self.report(at, 0.0, first, attempt, progress);
        let wait_ms = if self.is_due(at, step) {
            self.checkpoint(at, attempt, step)
        } else {
            0.0
        };
        if step < self.tasks[at].run.terms.extent.steps {
            self.compute(at, wait_ms);
        }
    }

    /// All members tell what their state hashes to; the first one stores it, after the one before. Returns how long that
    /// keeps the work waiting.
    fn checkpoint(&mut self, at: usize, attempt: u32, step: u64) -> f64 {
        let members = self.members(at);
        for miner in &members[1..] {
            let report = self.fingerprint(at, *miner, step, None);
            self.report(at, 0.0, node(*miner), attempt, report);
        }
        let store = self.truth.best_store(members[0]);
        let task = &mut self.tasks[at];
        let upload_ms = store.transfer_ms(task.workload.checkpoint_bytes as f64);
        let wait_ms = task.stores_until.ms_since(self.now) as f64;
        let until_ms = wait_ms + upload_ms;
        task.stores_until = self.now.plus_ms(until_ms.ceil() as u64);
        self.after(until_ms, Event::Stored { at, attempt, step });
        wait_ms
    }

    pub(super) fn stored(&mut self, at: usize, attempt: u32, step: u64) {
        if !self.goes_on(at, attempt) {
            return;
        }
        let task = &self.tasks[at];
        let first = task.run.seats[0].member.node;
        let stored = (file(task.workload.checkpoint_bytes), self.receipt.clone());
        let (last, bytes) = (task.run.terms.extent.steps, task.workload.result_bytes);
        let report = self.fingerprint(at, number(&first), step, Some(stored));
        self.report(at, 0.0, first, attempt, report);
        if step == last {
            let ms = self
                .truth
                .best_store(number(&first))
                .transfer_ms(bytes as f64);
            let finished = Report::Finished {
                files: vec![file(bytes)],
                receipts: Vec::new(),
                metrics: Metrics::default(),
            };
            self.report(at, ms, first, attempt, finished);
        }
    }

    fn fingerprint(
        &self,
        at: usize,
        miner: usize,
        step: u64,
        stored: Option<(ResultFile, StoredReceipt)>,
    ) -> Report {
        let computed_ms = self.tasks[at].computed_ms.get(&miner);
        Report::Checkpoint {
            step,
            fingerprint: Hash::of(&step.to_be_bytes()),
            computed_ms: computed_ms.map_or(0, |ms| *ms as u64),
            stored,
        }
    }
}
