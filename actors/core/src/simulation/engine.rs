//! Virtual time: what happens next, to whom, and what the market says to it.

use std::collections::{BTreeMap, BTreeSet};

use cryptomind_protocol::node::Report;
use cryptomind_protocol::rating::Evidence;
use cryptomind_protocol::task::{Event as TaskEvent, Member, ResultFile, TaskSpec, TaskState};
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{AccountId, Amount, BlobId, NodeId, SecretKey, Timestamp};

use super::Policy;
use super::measured::{Measured, node};
use super::outcome::Outcome;
use super::price::Floating;
use super::scenario::Scenario;
use super::task::{self, Task, UNIT_PRICE};
use super::truth::Truth;
use crate::dice::Dice;
use crate::market::speed::Engine as Processor;
use crate::market::{Ability, Offer};
use crate::price::{INTERVAL_MS, Terms};
use crate::run::{Effect, Input, Limits, Run};

mod presence;
mod work;

/// From one measurement of a miner's links to the next; round trips are believed a little longer.
const MEASURE_MS: u64 = 240_000;
/// Within this time after the start all miners have measured once.
const FIRST_MEASURE_MS: u64 = 30_000;
/// The longest that a miner takes to answer.
const ANSWER_MS: u64 = 200;

/// Operations a millisecond in 10⁶ operations a second.
const FLOPS_PER_MS_IN_MFLOPS: f64 = 1e3;

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
    /// A minute has passed for the price.
    Price,
}

/// A simulation under way.
pub struct Engine {
    scenario: Scenario,
    policy: Policy,
    truth: Truth,
    measured: Measured,
    price: Option<Floating>,
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
            price: Floating::new(scenario, seed),
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
        if self.price.is_some() {
            self.outcome.prices = vec![Vec::new()];
            self.after(INTERVAL_MS as f64, Event::Price);
        }
    }

    /// The price moves by what the market looks like now.
    fn move_price(&mut self) {
        let Some(price) = &mut self.price else { return };
        let mflops = |miner: usize| (self.truth.speed(miner) / FLOPS_PER_MS_IN_MFLOPS) as u64;
        let online = (0..self.online.len()).filter(|miner| self.online[*miner]);
        let suppliers = online.map(|miner| {
            let works = self.engaged[miner].is_some();
            price.supplier(miner, mflops(miner), works)
        });
        let suppliers: Vec<_> = suppliers.collect();
        let open = self.open.iter();
        let demands = open.filter_map(|at| self.tasks[*at].run.demand()).collect();
        price.tick(demands, suppliers, self.now);
        let curves = self.outcome.prices.iter_mut();
        curves.for_each(|curve| curve.push(price.unit_price().base_units()));
        if self.may_post || !self.open.is_empty() {
            self.after(INTERVAL_MS as f64, Event::Price);
        }
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
            Event::Price => self.move_price(),
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
        if let Some(posting) = self.posting() {
            self.post_task(posting);
        } else {
            self.outcome.too_dear += 1;
        }
        let gap = self.scenario.gap_ms(self.now.as_ms());
        let next = gap.map(|mean| self.dice.wait(mean));
        let over = |ms: &f64| self.now.as_ms() as f64 + ms <= self.scenario.duration_ms as f64;
        match next.filter(over) {
            Some(ms) => self.after(ms, Event::Post),
            None => self.may_post = false,
        }
    }

    /// What the next client posts; nothing where a CU costs more than it pays.
    fn posting(&self) -> Option<(AccountId, TaskSpec, Terms)> {
        let Some(price) = &self.price else {
            let (spec, terms) = task::posted(&self.scenario.job, UNIT_PRICE);
            return Some((CLIENT, spec, terms));
        };
        let number = self.outcome.posted + self.outcome.too_dear;
        let (client, most) = price.client(number as usize);
        let (mut spec, terms) = task::posted(&self.scenario.job, price.unit_price());
        spec.conditions.max_unit_price = Some(most);
        let accepted = terms.check_unit_price(spec.conditions.max_unit_price);
        accepted.is_ok().then_some((client, spec, terms))
    }

    fn post_task(&mut self, (client, spec, terms): (AccountId, TaskSpec, Terms)) {
        let at = self.tasks.len();
        let free = self.free().map(node).collect();
        let (run, effects) = Run::open(task::id(at), client, spec, terms, LIMITS, free, self.now);
        self.tasks.push(Task::new(run, &self.scenario.job));
        self.open.insert(at);
        self.outcome.posted += 1;
        self.carry_out(at, effects);
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
                Effect::Pause {
                    nodes,
                    attempt,
                    at_step_end,
                } => self.pause(at, &nodes, attempt, at_step_end),
                Effect::Tell { event, .. } => {
                    self.outcome.lost += u32::from(matches!(event, TaskEvent::Lost { .. }));
                }
                Effect::Settle(_) => self.settle(at),
                Effect::Praise { node, agreed } => {
                    self.measured
                        .rate(node, &Evidence::Done { agreed }, self.now);
                }
                Effect::LetGo(node) => {
                    self.measured.rate(node, &Evidence::Left {}, self.now);
                }
                Effect::Blame { node, reason } => {
                    let evidence = Evidence::Failed { reason };
                    self.measured.rate(node, &evidence, self.now);
                }
                Effect::Ran(run) => self.measured.ran(&run),
                Effect::Earn { .. }
                | Effect::Waited(_)
                | Effect::Keep { .. }
                | Effect::Publish { .. } => {}
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
            engine: Processor::Cpu,
            ability: Ability {
                reserve: self
                    .price
                    .as_ref()
                    .map_or(Amount::ZERO, |price| price.reserve(miner)),
                ..self.measured.ability(miner, &workload, bytes, self.now)
            },
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
            let range = expected.p95_ms as f64 / expected.p50_ms as f64;
            self.outcome.range.push(range);
            self.outcome.within_p95 += u32::from(took_ms <= expected.p95_ms);
        }
    }
}
