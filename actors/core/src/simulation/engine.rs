//! Virtual time: what happens next, to whom, and what the market says to it.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_protocol::key::Hash;
use cryptomind_protocol::node::Report;
use cryptomind_protocol::task::{Event as TaskEvent, Member, Metrics, ResultFile, TaskState};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{AccountId, BlobId, NodeId, SecretKey, Timestamp};

use super::Policy;
use super::dice::Dice;
use super::group::step_ms;
use super::measured::{Measured, node};
use super::outcome::Outcome;
use super::scenario::Scenario;
use super::task::{self, Task};
use super::truth::{Place, Truth};
use crate::market::link::Party;
use crate::market::{Expectation, Offer, expect};
use crate::rating::Evidence;
use crate::run::{Effect, Input, Limits, Run};

/// From one measurement of a miner's links to the next; round trips are believed a little longer.
const MEASURE_MS: u64 = 240_000;
/// Within this time after the start all miners have measured once.
const FIRST_MEASURE_MS: u64 = 30_000;
/// The longest that a miner takes to answer.
const ANSWER_MS: u64 = 200;
/// From a member's death to its neighbour's word.
const SILENCE_MS: u64 = 1_500;
/// From a pause to its answer.
const PAUSE_MS: u64 = 50;
/// First ranks tell of progress at least so often.
const PROGRESS_MS: f64 = 60_000.0;

/// What runs wait for. Data may take its time: slow groups are to be seen, not cut short.
const LIMITS: Limits = Limits {
    offer_window_ms: 400,
    wait_ms: 4 * 3_600_000,
    prepare_ms: 1_800_000,
    hold_ms: 7 * 24 * 3_600_000,
};

const CLIENT: AccountId = AccountId::new([1; 20]);
const STORE_OWNER: AccountId = AccountId::new([2; 20]);

enum Event {
    /// A miner measures its links.
    Measure(usize),
    /// A client posts.
    Post,
    /// A run hears something.
    Feed(usize, Box<Input>),
    /// A run's timer.
    Timer(usize),
    /// A group has done these steps, if it is still of this attempt.
    Work { at: usize, attempt: u32, step: u64 },
    /// A first rank has stored the checkpoint of this step.
    Stored { at: usize, attempt: u32, step: u64 },
    /// A miner's machine goes away.
    Leave(usize),
    /// It comes back.
    Return(usize),
}

/// A simulation under way.
pub struct Engine {
    scenario: Scenario,
    policy: Policy,
    truth: Truth,
    measured: Measured,
    dice: Dice,
    now: Timestamp,
    queue: BTreeMap<(Timestamp, u64), Event>,
    events: u64,
    tasks: Vec<Task>,
    open: BTreeSet<usize>,
    may_post: bool,
    online: Vec<bool>,
    /// Which task a miner has offered for or works on.
    engaged: Vec<Option<usize>>,
    receipt: StoredReceipt,
    outcome: Outcome,
}

fn number(node: &NodeId) -> usize {
    let bytes = node.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(bytes) as usize
}

fn file(bytes: u64) -> ResultFile {
    ResultFile {
        name: "model.safetensors".into(),
        blob: BlobId::new([0; 32]),
        bytes,
    }
}

impl Engine {
    pub fn new(scenario: &Scenario, policy: Policy, seed: u64) -> Self {
        let truth = Truth::new(scenario, seed);
        let count = scenario.count();
        let start = Timestamp::from_ms(0);
        let key = SecretKey::from_seed([1; 32]);
        let mut engine = Self {
            measured: Measured::new(scenario, policy, &truth, seed),
            scenario: scenario.clone(),
            policy,
            truth,
            dice: Dice::new(seed).branch(4),
            now: start,
            queue: BTreeMap::new(),
            events: 0,
            tasks: Vec::new(),
            open: BTreeSet::new(),
            may_post: true,
            online: vec![true; count],
            engaged: vec![None; count],
            receipt: StoredReceipt::sign(BlobId::new([0; 32]), 0, start, &key),
            outcome: Outcome::default(),
        };
        engine.begin();
        engine
    }

    fn begin(&mut self) {
        for miner in 0..self.online.len() {
            let first = self.dice.below(FIRST_MEASURE_MS);
            self.after(first as f64, Event::Measure(miner));
            self.leave_later(miner);
        }
        self.after(self.scenario.demand.first_ms as f64, Event::Post);
    }

    /// Plays until nothing is posted any more and every task has ended.
    pub fn play(mut self) -> Outcome {
        while self.may_post || !self.open.is_empty() {
            let Some(((now, _), event)) = self.queue.pop_first() else {
                break;
            };
            self.now = now;
            self.happens(event);
        }
        self.outcome
    }

    fn after(&mut self, ms: f64, event: Event) {
        self.events += 1;
        let at = self.now.plus_ms(ms.ceil() as u64);
        self.queue.insert((at, self.events), event);
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Measure(miner) => self.measure(miner),
            Event::Post => self.post(),
            Event::Feed(at, input) => self.deliver(at, *input),
            Event::Timer(at) => {
                self.tasks[at].timer = None;
                self.feed(at, Input::Tick);
            }
            Event::Work { at, attempt, step } => self.worked(at, attempt, step),
            Event::Stored { at, attempt, step } => self.stored(at, attempt, step),
            Event::Leave(miner) => self.leave(miner),
            Event::Return(miner) => self.comes_back(miner),
        }
    }

    fn measure(&mut self, miner: usize) {
        if self.online[miner] {
            self.measured
                .measure(miner, &self.truth, &self.online, self.now);
        }
        self.after(MEASURE_MS as f64, Event::Measure(miner));
    }

    // Tasks.

    fn post(&mut self) {
        let at = self.tasks.len();
        let (spec, terms) = task::posted(&self.scenario.job);
        let free = self.free().map(node).collect();
        let (run, effects) = Run::open(task::id(at), CLIENT, spec, terms, LIMITS, free, self.now);
        self.tasks.push(Task::new(run, &self.scenario.job));
        self.open.insert(at);
        self.outcome.posted += 1;
        self.carry_out(at, effects);
        let gap = self.scenario.gap_ms(self.now.as_ms());
        let next = gap.map(|mean| self.dice.wait(mean));
        let over = |ms: &f64| self.now.as_ms() as f64 + ms <= self.scenario.duration_ms as f64;
        match next.filter(over) {
            Some(ms) => self.after(ms, Event::Post),
            None => self.may_post = false,
        }
    }

    fn free(&self) -> impl Iterator<Item = usize> + '_ {
        let all = 0..self.online.len();
        all.filter(|miner| self.online[*miner] && self.engaged[*miner].is_none())
    }

    fn feed(&mut self, at: usize, input: Input) {
        self.measured.refresh(self.now);
        let task = &mut self.tasks[at];
        let effects = task.run.apply(input, self.measured.around(), self.now);
        self.carry_out(at, effects);
        self.start_computing(at);
    }

    /// What was said arrives, unless whoever said it is gone.
    fn deliver(&mut self, at: usize, input: Input) {
        let speaker = match &input {
            Input::Offered(offer) => Some(offer.member.node),
            Input::Reported { node, .. } | Input::Free(node) => Some(*node),
            _ => None,
        };
        if speaker.is_none_or(|node| self.online[number(&node)]) {
            self.feed(at, input);
        }
    }

    fn say(&mut self, at: usize, ms: f64, input: Input) {
        self.after(ms, Event::Feed(at, Box::new(input)));
    }

    fn report(&mut self, at: usize, ms: f64, node: NodeId, attempt: u32, report: Report) {
        let input = Input::Reported {
            node,
            attempt,
            report,
            stored_by: Some(STORE_OWNER),
        };
        self.say(at, ms, input);
    }

    fn set_timer(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        let next = task.run.next_timer();
        let Some(next) = next.filter(|next| task.timer.is_none_or(|set| *next < set)) else {
            return;
        };
        task.timer = Some(next);
        // A timer that is due and changes nothing is looked at again a moment later.
        let ms = next.ms_since(self.now).max(1);
        self.after(ms as f64, Event::Timer(at));
    }

    // What the market says.

    fn carry_out(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Announce(nodes) => nodes.iter().for_each(|n| self.answer(at, number(n))),
                Effect::AskFree => {
                    let free: Vec<_> = self.free().map(node).collect();
                    free.into_iter()
                        .for_each(|node| self.say(at, 0.0, Input::Free(node)));
                }
                Effect::Withdraw { node, .. } | Effect::Stop { node, .. } => {
                    self.release(at, number(&node));
                }
                Effect::Match { only } => self.matched(at, only),
                Effect::Pause { nodes, attempt } => self.pause(at, &nodes, attempt),
                Effect::Tell { event, .. } => {
                    self.outcome.lost += u32::from(matches!(event, TaskEvent::Lost { .. }));
                }
                Effect::Settle(_) => self.settle(at),
                Effect::Praise(node) => self.measured.rate(node, Evidence::Done, self.now),
                Effect::Blame { node, reason } => {
                    let evidence = Evidence::Failed { reason };
                    self.measured.rate(node, evidence, self.now);
                }
                Effect::Earn { .. } | Effect::Publish { .. } => {}
            }
        }
        self.set_timer(at);
    }

    fn answer(&mut self, at: usize, miner: usize) {
        let ms = self.dice.below(ANSWER_MS) as f64;
        let node = node(miner);
        if !self.online[miner] || self.engaged[miner].is_some() {
            let reason = "it is busy".to_owned();
            return self.say(at, ms, Input::Declined { node, reason });
        }
        self.engaged[miner] = Some(at);
        let bytes = self.scenario.job.dataset_bytes;
        let workload = self.tasks[at].workload;
        let offer = Offer {
            member: Member {
                node,
                name: format!("m{miner}"),
                owner: AccountId::new([3; 20]),
            },
            ring_address: String::new(),
            ability: self.measured.ability(miner, &workload, bytes),
        };
        self.say(at, ms, Input::Offered(offer));
    }

    fn release(&mut self, at: usize, miner: usize) {
        if self.engaged[miner] != Some(at) {
            return;
        }
        self.engaged[miner] = None;
        self.offer_work(miner);
    }

    /// Tasks that wait hear of a miner that is free.
    fn offer_work(&mut self, miner: usize) {
        let node = node(miner);
        let open = self.open.iter().copied();
        let waiting: Vec<_> = open.filter(|at| self.tasks[*at].run.wants(node)).collect();
        for at in waiting {
            self.say(at, 0.0, Input::Free(node));
        }
    }

    fn settle(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        task.run.settled(Vec::new());
        self.open.remove(&at);
        let took_ms = self.now.ms_since(task.run.posted);
        self.outcome.ended(task.run.state, took_ms);
        if let (TaskState::Finished, Some((from, Some(expected)))) =
            (task.run.state, task.first_match)
        {
            let took_ms = self.now.ms_since(from);
            let over = took_ms as f64 / expected.p50_ms as f64;
            self.outcome.over_expected.push(over);
            self.outcome.within_p95 += u32::from(took_ms <= expected.p95_ms);
        }
    }

    // Groups.

    fn members(&self, at: usize) -> Vec<usize> {
        let seats = self.tasks[at].run.seats.iter();
        seats.map(|seat| number(&seat.member.node)).collect()
    }

    fn matched(&mut self, at: usize, only: Option<NodeId>) {
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
        let measured = &mut self.measured;
        let member = |m: &usize| {
            (
                Party::Node(node(*m)),
                measured.ability(*m, &workload, bytes),
            )
        };
        let group: Vec<_> = members.iter().map(member).collect();
        let around = self.measured.around();
        expect(&workload, &group, &around.links, &around.stores)
    }

    fn pause(&mut self, at: usize, nodes: &[NodeId], attempt: u32) {
        let committed = self.tasks[at].done;
        for node in nodes {
            let report = Report::Paused {
                committed,
                prepared: false,
                ring_address: String::new(),
            };
            self.report(at, PAUSE_MS as f64, *node, attempt, report);
        }
    }

    /// A group whose attempt has just begun to run computes.
    fn start_computing(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        let (attempt, start) = (task.run.attempt, task.run.start_step);
        if task.run.state != TaskState::Running || task.computes == attempt {
            return;
        }
        task.computes = attempt;
        task.done = start;
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
        let ms = wait_ms + one_ms * steps as f64;
        self.after(ms, Event::Work { at, attempt, step });
    }

    /// The statistics of a stretch of work: each member's own computing, without waiting for others.
    fn learn(&mut self, at: usize, members: &[usize], load: &[f64], steps: u64) {
        let task = &self.tasks[at];
        let samples = task.step.batch as f64 / members.len() as f64 * steps as f64;
        let flops = samples * task.step.flops_per_sample;
        let (id, workload) = (task.run.task, task.workload);
        for (miner, load) in members.iter().zip(load) {
            let ms = flops / self.truth.speed(*miner) * load;
            self.measured
                .ran(*miner, id, &workload, (flops, ms), self.now);
        }
    }

    /// Whether an attempt is still under way with all its members there.
    fn goes_on(&self, at: usize, attempt: u32) -> bool {
        let run = &self.tasks[at].run;
        let present = || self.members(at).iter().all(|miner| self.online[*miner]);
        run.attempt == attempt && run.state == TaskState::Running && present()
    }

    fn worked(&mut self, at: usize, attempt: u32, step: u64) {
        if !self.goes_on(at, attempt) {
            return;
        }
        self.tasks[at].done = step;
        let first = self.tasks[at].run.seats[0].member.node;
        let progress = Report::Progress {
            step,
            loss: 1.0,
            samples_per_s: 1,
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
            self.report(at, 0.0, node(*miner), attempt, fingerprint(step, None));
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

    fn stored(&mut self, at: usize, attempt: u32, step: u64) {
        if !self.goes_on(at, attempt) {
            return;
        }
        let task = &self.tasks[at];
        let first = task.run.seats[0].member.node;
        let stored = (file(task.workload.checkpoint_bytes), self.receipt.clone());
        let (last, bytes) = (task.run.terms.extent.steps, task.workload.result_bytes);
        self.report(at, 0.0, first, attempt, fingerprint(step, Some(stored)));
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

    // Coming and going.

    /// Half of the miners stay three times as long as the others, with the scenario's mean over all.
    fn leave_later(&mut self, miner: usize) {
        if let Some(stay_ms) = self.scenario.miners.stay_ms {
            let steadiness = if miner.is_multiple_of(2) { 1.5 } else { 0.5 };
            let ms = self.dice.wait(stay_ms as f64 * steadiness);
            self.after(ms, Event::Leave(miner));
        }
    }

    fn leave(&mut self, miner: usize) {
        let gone = node(miner);
        self.online[miner] = false;
        self.engaged[miner] = None;
        let away_ms = self.dice.wait(self.scenario.miners.away_ms as f64);
        self.after(away_ms, Event::Return(miner));
        let open = self.open.iter().copied();
        let concerned: Vec<_> = open
            .filter(|at| self.tasks[*at].run.concerns(&gone))
            .collect();
        for at in concerned {
            self.feed(at, Input::Disconnected(gone));
            self.ring_breaks(at, miner);
        }
    }

    /// The rest of a group notices that a member is silent.
    fn ring_breaks(&mut self, at: usize, miner: usize) {
        let members = self.members(at);
        let witness = members.iter().find(|m| self.online[**m]);
        let (Some(witness), true) = (witness, members.contains(&miner)) else {
            return;
        };
        let broken = Report::RingBroken {
            committed: self.tasks[at].done,
            suspect: Some(node(miner)),
            reason: "silence".into(),
        };
        let attempt = self.tasks[at].run.attempt;
        self.report(at, SILENCE_MS as f64, node(*witness), attempt, broken);
    }

    fn comes_back(&mut self, miner: usize) {
        let node = node(miner);
        self.online[miner] = true;
        self.leave_later(miner);
        let open: Vec<_> = self.open.iter().copied().collect();
        for at in open {
            let position = None;
            self.feed(at, Input::Joined { node, position });
        }
    }
}

fn fingerprint(step: u64, stored: Option<(ResultFile, StoredReceipt)>) -> Report {
    Report::Checkpoint {
        step,
        fingerprint: Hash::of(&step.to_be_bytes()),
        stored,
    }
}
