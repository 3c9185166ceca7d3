//! A market in virtual time: who gets which task, who is checked, what comes of it.

use std::collections::{BTreeMap, VecDeque};

use cryptomind_protocol::{Amount, Timestamp};

use super::miner::{Books, Job, Miner, Work, node, number, owner};
use super::policy::Policy;
use super::task::{MINUTE, Pay, Task, Tasks};
use crate::check::{Answer, Case, Finding, Next, Witness, may_witness, next_ppm};
use crate::dice::Dice;
use crate::exposure::{self, Holding, Place};

/// What the network is ready to lose to somebody of whom it knows nothing: five minutes' work.
pub const ALLOWANCE: Amount = Amount::from_base_units(5 * MINUTE);
/// Deviation of the logarithm of miners' speeds.
const SPEED_SIGMA: f64 = 0.3;
const ALL_PPM: u32 = 1_000_000;

/// What is played.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Miners that are honest.
    pub honest: usize,
    /// Miners that behave as `policy` says.
    pub others: usize,
    /// How.
    pub policy: Policy,
    /// Whether those come from one place, and are no part of what demand is measured by.
    pub one_place: bool,
    /// Paid tasks to be done.
    pub tasks: u32,
    /// For which part of their time the miners are busy with paid tasks.
    pub busy: f64,
    /// How often hardware errs, in millionths of answers.
    pub error_ppm: u32,
    /// Whether anything is checked.
    pub checks: bool,
}

/// What came of a play.
#[derive(Debug, Clone, PartialEq)]
pub struct Played {
    /// The honest ones first.
    pub books: Vec<Books>,
    /// Paid work, as its pay.
    pub paid: Pay,
    /// Tasks that were paid.
    pub tasks: u32,
    /// Control tasks and second checks, as the pay of as large paid tasks.
    pub checked: Pay,
    /// The most of unproven paid work that a group had at a time, in millionths of what one owner may have in its place.
    pub exposed_max_ppm: u64,
}

/// A case and how large its task is.
#[derive(Debug)]
struct Open {
    case: Case,
    pay: Pay,
}

struct Play {
    setup: Setup,
    now: Timestamp,
    miners: Vec<Miner>,
    places: usize,
    waiting: VecDeque<Pay>,
    cases: Vec<Open>,
    /// Cases that want another witness.
    asking: VecDeque<usize>,
    /// When works end, in order, and whose.
    ends: BTreeMap<(Timestamp, u64), usize>,
    works: u64,
    lots: Dice,
    done: u32,
    played: Played,
}

/// Plays to its end.
pub fn play(setup: Setup, seed: u64) -> Played {
    let dice = Dice::new(seed);
    let miners = miners(&setup, &dice);
    let demanded = if setup.one_place {
        &miners[..setup.honest]
    } else {
        &miners[..]
    };
    let speeds = demanded.iter().map(|miner| miner.speed).sum();
    let mut tasks = Tasks::new(dice.branch(1), speeds, setup.busy);
    let places = miners.iter().map(|miner| miner.place.0 as usize + 1).max();
    let mut play = Play {
        setup,
        now: Timestamp::from_ms(0),
        places: places.unwrap_or_default(),
        waiting: VecDeque::new(),
        cases: Vec::new(),
        asking: VecDeque::new(),
        ends: BTreeMap::new(),
        works: 0,
        lots: dice.branch(2),
        done: 0,
        played: Played {
            books: Vec::new(),
            paid: 0,
            tasks: 0,
            checked: 0,
            exposed_max_ppm: 0,
        },
        miners,
    };
    let posted: Vec<_> = (0..setup.tasks).map(|_| tasks.draw()).collect();
    play.run(&posted);
    play.played.tasks = play.done;
    play.played.books = play.miners.into_iter().map(|miner| miner.books).collect();
    play.played
}

fn miners(setup: &Setup, dice: &Dice) -> Vec<Miner> {
    let mut speeds = dice.branch(3);
    let all = 0..setup.honest + setup.others;
    let miner = |at: usize| {
        let is_honest = at < setup.honest;
        let policy = if is_honest {
            Policy::Honest
        } else {
            setup.policy
        };
        let place = if is_honest || !setup.one_place {
            at
        } else {
            setup.honest
        };
        let speed = speeds.factor(SPEED_SIGMA);
        Miner::new(
            policy,
            Place(place as u64),
            speed,
            dice.branch(4 + at as u64),
        )
    };
    all.map(miner).collect()
}

impl Play {
    fn run(&mut self, posted: &[Task]) {
        let mut posted = posted.iter().peekable();
        while self.done < self.setup.tasks {
            let end = self.ends.first_key_value().map(|((at, _), _)| at.as_ms());
            let post = posted.peek().map(|task| task.at_ms);
            match (end, post) {
                (None, None) => break,
                (Some(end), post) if post.is_none_or(|post| end <= post) => self.end(),
                _ => {
                    let task = posted.next().copied();
                    let Some(task) = task else { break };
                    self.now = Timestamp::from_ms(task.at_ms);
                    self.waiting.push_back(task.pay);
                }
            }
            self.assign();
        }
    }

    // Who gets what.

    fn assign(&mut self) {
        self.ask();
        let mut at = 0;
        // What nobody gets who is free; no larger one needs to be looked at.
        let mut too_large = Pay::MAX;
        while at < self.waiting.len() && self.miners.iter().any(Miner::is_free) {
            let pay = self.waiting[at];
            if pay < too_large && self.place(pay) {
                self.waiting.remove(at);
            } else {
                too_large = too_large.min(pay);
                at += 1;
            }
        }
    }

    /// Gives a paid task to whom it is due. Whoever would get it, and draws a control task instead, gets one of the same
    /// size.
    fn place(&mut self, pay: Pay) -> bool {
        while let Some(miner) = self.choose(pay) {
            let chance = self.chance(miner, pay);
            if self.lots.below(ALL_PPM.into()) >= chance.into() {
                self.give(miner, Job::Paid, pay, chance);
                self.note_exposure(miner);
                return true;
            }
            self.cases.push(Open {
                case: Case::open(),
                pay,
            });
            self.give(miner, Job::Check(self.cases.len() - 1), pay, chance);
        }
        false
    }

    fn chance(&mut self, miner: usize, pay: Pay) -> u32 {
        if !self.setup.checks {
            return 0;
        }
        next_ppm(&self.miners[miner].standing(pay, self.now))
    }

    /// Who is best for it, by the speed that is believed and the rating that counts: what `market::select` compares where
    /// one miner is wanted, all cost the same and no links are known.
    fn choose(&mut self, pay: Pay) -> Option<usize> {
        let holdings = self.holdings();
        let now = self.now;
        let mut best: Option<(f64, usize)> = None;
        for (at, miner) in self.miners.iter_mut().enumerate() {
            if !miner.is_free() {
                continue;
            }
            let worth = Amount::from_base_units(pay);
            let holding = holding(miner, &holdings, now);
            let may = exposure::check(miner.streak, &holding, worth, ALLOWANCE).is_ok()
                && miner.bar(now).is_none();
            if !may {
                continue;
            }
            let value = miner.worth(now);
            if best.is_none_or(|(most, _)| value > most) {
                best = Some((value, at));
            }
        }
        best.map(|(_, at)| at)
    }

    /// What newcomers have, by place.
    fn holdings(&mut self) -> Vec<Holding> {
        let now = self.now;
        let mut holdings = vec![Holding::default(); self.places];
        for miner in self.miners.iter_mut().filter(|m| m.is_newcomer()) {
            let own = own(miner, now);
            let all = &mut holdings[miner.place.0 as usize];
            all.works += own.works;
            all.worth = sum(all.worth, own.worth);
            all.withheld = sum(all.withheld, own.withheld);
        }
        holdings
    }

    /// Counts what there is in hands, without the rule that is to bound it.
    fn note_exposure(&mut self, at: usize) {
        let (place, is_newcomer) = (self.miners[at].place, self.miners[at].is_newcomer());
        let now = self.now;
        let group = self.miners.iter_mut().enumerate().filter(|(other, miner)| {
            *other == at || is_newcomer && miner.is_newcomer() && miner.place == place
        });
        let (mut worth, mut withheld) = (0, 0);
        for (_, miner) in group {
            let paid = miner.work.filter(|work| matches!(work.job, Job::Paid));
            worth += paid.map_or(0, |work| work.pay);
            withheld += miner.withheld(now);
        }
        let withheld = Amount::from_base_units(withheld);
        let cap = exposure::cap(self.miners[at].streak, withheld, ALLOWANCE);
        let ppm = worth * 1_000_000 / cap.base_units();
        self.played.exposed_max_ppm = self.played.exposed_max_ppm.max(ppm);
    }

    fn give(&mut self, at: usize, job: Job, pay: Pay, chance_ppm: u32) {
        let error_ppm = self.setup.error_ppm;
        let ms = self.miners[at].begin(job, pay, chance_ppm, error_ppm, self.now);
        self.works += 1;
        self.ends.insert((self.now.plus_ms(ms), self.works), at);
        if matches!(job, Job::Check(_)) {
            self.played.checked += pay;
        }
    }

    /// Second witnesses are drawn by lot.
    fn ask(&mut self) {
        for _ in 0..self.asking.len() {
            let Some(at) = self.asking.pop_front() else {
                return;
            };
            let Next::Ask { apart_from } = self.cases[at].case.next() else {
                continue;
            };
            let now = self.now;
            let mut able = Vec::new();
            for (number, miner) in self.miners.iter_mut().enumerate() {
                let is_other = !apart_from.contains(&owner(number));
                if is_other && miner.is_free() && may_witness(miner.streak, miner.bar(now)) {
                    able.push(number);
                }
            }
            if able.is_empty() {
                self.asking.push_back(at);
                continue;
            }
            let witness = able[self.lots.below(able.len() as u64) as usize];
            self.miners[witness].books.seats += 1;
            self.give(witness, Job::Check(at), self.cases[at].pay, ALL_PPM);
        }
    }

    // What comes of it.

    fn end(&mut self) {
        let Some(((now, _), at)) = self.ends.pop_first() else {
            return;
        };
        self.now = now;
        let Some(work) = self.miners[at].work.take() else {
            return;
        };
        let is_late = self.miners[at].is_late;
        match work.job {
            Job::Paid if is_late => {
                self.miners[at].was_late(now);
                self.waiting.push_front(work.pay);
            }
            Job::Paid => self.paid(at, work),
            Job::Check(case) if is_late => {
                self.miners[at].was_late(now);
                self.ask_again(case);
            }
            Job::Check(case) => self.checked(at, case, work),
        }
    }

    fn paid(&mut self, at: usize, work: Work) {
        let miner = &mut self.miners[at];
        miner.did(self.now);
        miner.earn(work.pay, self.now);
        miner.books.paid_wrong += u32::from(work.wrong);
        self.played.paid += work.pay;
        self.done += 1;
    }

    fn checked(&mut self, at: usize, case: usize, work: Work) {
        let miner = &mut self.miners[at];
        miner.did(self.now);
        miner.doubted = work.wrong;
        let answer = if work.wrong {
            Answer::Other(miner.nonsense())
        } else {
            Answer::Expected
        };
        let open = &mut self.cases[case];
        let pay = open.pay;
        let doubted: Vec<_> = open.case.doubted().collect();
        let findings = open.case.hear(Witness {
            node: node(at),
            owner: owner(at),
            answer,
        });
        if open.case.is_withdrawn() {
            self.miners[at].doubted = false;
            let miners = self.miners.iter_mut().enumerate();
            let cleared = miners.filter(|(number, _)| doubted.contains(&owner(*number)));
            cleared.for_each(|(_, miner)| miner.doubted = false);
        }
        for finding in findings {
            match finding {
                Finding::Right(node) => self.miners[number(&node)].was_right(pay, self.now),
                Finding::Wrong(node) => self.miners[number(&node)].was_wrong(self.now),
            }
        }
        self.ask_again(case);
    }

    fn ask_again(&mut self, case: usize) {
        // A case on which nobody was heard is over when its first miner fails.
        let is_doubtful = self.cases[case].case.doubted().next().is_some();
        if is_doubtful {
            self.asking.push_back(case);
        }
    }
}

fn own(miner: &mut Miner, now: Timestamp) -> Holding {
    Holding {
        works: u32::from(miner.work.is_some()),
        worth: Amount::from_base_units(miner.work.map_or(0, |work| work.pay)),
        withheld: Amount::from_base_units(miner.withheld(now)),
    }
}

/// Of the group in which a miner counts.
fn holding(miner: &mut Miner, newcomers: &[Holding], now: Timestamp) -> Holding {
    if miner.is_newcomer() {
        newcomers[miner.place.0 as usize]
    } else {
        own(miner, now)
    }
}

fn sum(a: Amount, b: Amount) -> Amount {
    a.checked_add(b).unwrap_or(a)
}
