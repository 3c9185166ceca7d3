//! A miner: an owner with one node, its standing as production code has it, and its books.

use std::collections::VecDeque;

use cryptomind_protocol::rating::{BEST_MILLI, Bar, Evidence};
use cryptomind_protocol::{AccountId, Amount, NodeId, Timestamp};

use super::policy::{Known, Policy};
use super::task::{MINUTE, Pay};
use crate::check::{Standing, is_newcomer};
use crate::dice::Dice;
use crate::exposure::Place;
use crate::rating::{Rating, failed, hour, view_with, withheld_ppm};

/// Earnings are withheld for a week, as the main network's genesis says.
const WITHHELD_MS: u64 = 7 * 24 * 3_600_000;
/// The share withheld at most, as it says.
const WITHHELD_MAX_PPM: u32 = 200_000;
/// 10⁶ floating-point operations a second of a miner of speed 1.
const MFLOPS: f64 = 1e6;
/// Deviation of the logarithm of a speed from one work to the next.
const SPEED_NOISE: f64 = 0.05;
/// Work is taken away after so many times the time that was expected of a miner.
const PATIENCE: f64 = 3.0;

/// What a miner has in hand.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// A paid task.
    Paid,
    /// A case's control task, as the first or a later witness.
    Check(usize),
}

/// A work in hand.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// What kind; its miner does not know.
    pub job: Job,
    /// How large.
    pub pay: Pay,
    /// Whether it is not computed.
    pub wrong: bool,
}

/// What came of a miner.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Books {
    /// Pay for paid tasks, what was withheld of it included.
    pub received: Pay,
    /// Of that, what was forfeited.
    pub forfeited: Pay,
    /// Pay for right answers to control tasks, where those are paid.
    pub for_checks: Pay,
    /// What it has really computed, as its pay.
    pub computed: Pay,
    /// Right answers to checks.
    pub right: u32,
    /// Wrong answers, until it was excluded.
    pub wrong: u32,
    /// Wrong answers that were paid.
    pub paid_wrong: u32,
    /// Verdicts against it.
    pub verdicts: u32,
    /// Whether it was excluded.
    pub excluded: bool,
    /// Whether it had to rest.
    pub rested: bool,
    /// How often it was asked for a second answer.
    pub seats: u32,
    /// The lowest chance of a check under which it answered wrongly, in millionths.
    pub chance_ppm: Option<u32>,
}

/// A miner.
#[derive(Debug)]
pub struct Miner {
    pub policy: Policy,
    pub place: Place,
    pub speed: f64,
    pub streak: u32,
    pub work: Option<Work>,
    /// A case waits for what others say to its answer.
    pub doubted: bool,
    /// Its work will be taken away unfinished.
    pub is_late: bool,
    pub books: Books,
    dice: Dice,
    rating: Rating,
    /// Of which hour, and what.
    score: Option<(u64, Thought)>,
    best_milli: u32,
    /// Until when, how much.
    locks: VecDeque<(Timestamp, Pay)>,
    withheld: Pay,
}

/// What is thought of a miner.
#[derive(Debug, Clone, Copy)]
struct Thought {
    low_milli: u32,
    speed_ppm: u32,
    bar: Option<Bar>,
}

impl Books {
    /// What it gained, where computing costs this share of the pay and control tasks are paid or not; in base units.
    pub fn gain(&self, cost: f64, checks_are_paid: bool) -> f64 {
        let checks = if checks_are_paid { self.for_checks } else { 0 };
        let income = self.received + checks - self.forfeited;
        income as f64 - cost * self.computed as f64
    }
}

/// A miner's node.
pub fn node(miner: usize) -> NodeId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(miner as u64).to_be_bytes());
    NodeId::new(bytes)
}

/// Which miner that is.
pub fn number(node: &NodeId) -> usize {
    let bytes = node.as_bytes().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(bytes) as usize
}

/// Its owner.
pub fn owner(miner: usize) -> AccountId {
    let mut bytes = [0; AccountId::LEN];
    bytes[..8].copy_from_slice(&(miner as u64).to_be_bytes());
    AccountId::new(bytes)
}

impl Miner {
    /// A newcomer.
    pub fn new(policy: Policy, place: Place, speed: f64, dice: Dice) -> Self {
        Self {
            policy,
            place,
            speed,
            streak: 0,
            work: None,
            doubted: false,
            is_late: false,
            books: Books::default(),
            dice,
            rating: Rating::default(),
            score: None,
            best_milli: 0,
            locks: VecDeque::new(),
            withheld: 0,
        }
    }

    /// Whether it could begin something now, as far as it goes by itself.
    pub const fn is_free(&self) -> bool {
        self.work.is_none() && !self.doubted
    }

    pub const fn is_newcomer(&self) -> bool {
        is_newcomer(self.streak)
    }

    /// What is withheld of it now.
    pub fn withheld(&mut self, now: Timestamp) -> Pay {
        while let Some((_, pay)) = self.locks.pop_front_if(|(until, _)| *until <= now) {
            self.withheld -= pay;
        }
        self.withheld
    }

    /// Its standing when it is about to get work of this size.
    pub fn standing(&mut self, pay: Pay, now: Timestamp) -> Standing {
        Standing {
            streak: self.streak,
            withheld: Amount::from_base_units(self.withheld(now)),
            pay: Amount::from_base_units(pay),
            twin: false,
            is_first: self.books.right + self.books.verdicts == 0 && self.books.received == 0,
        }
    }

    /// What is thought of it now.
    fn thought(&mut self, now: Timestamp) -> Thought {
        let hour = hour(now);
        match self.score {
            Some((of, thought)) if of == hour => thought,
            _ => {
                let score = self.rating.score(now);
                let view = view_with((score, score), &self.rating, &self.rating, now);
                let thought = Thought {
                    low_milli: view.low_milli,
                    speed_ppm: view.parts.speed_ppm,
                    bar: view.bar,
                };
                self.best_milli = self.best_milli.max(view.low_milli);
                self.books.rested |= matches!(view.bar, Some(Bar::Rests { .. }));
                self.books.excluded |= matches!(view.bar, Some(Bar::Excluded { .. }));
                self.score = Some((hour, thought));
                thought
            }
        }
    }

    /// Why it gets no work now. A bar that was there when its rating last changed has at most ended since.
    pub fn bar(&mut self, now: Timestamp) -> Option<Bar> {
        let is_on = |bar: &Bar| bar.until().is_some_and(|until| until > now);
        self.thought(now).bar.filter(is_on)
    }

    /// What it is worth to the market: the speed that is believed times the rating that counts.
    pub fn worth(&mut self, now: Timestamp) -> f64 {
        let low_milli = self.thought(now).low_milli;
        self.believed(now) * f64::from(low_milli) / f64::from(BEST_MILLI)
    }

    /// Gets work, and says how long it takes over it, milliseconds. `error_ppm`: how often hardware errs.
    pub fn begin(
        &mut self,
        job: Job,
        pay: Pay,
        chance_ppm: u32,
        error_ppm: u32,
        now: Timestamp,
    ) -> u64 {
        let known = Known {
            streak: self.streak,
            withheld: self.withheld(now),
            best_milli: self.best_milli,
            pay,
        };
        let cheats = self.policy.is_wrong(known, &mut self.dice);
        let errs = error_ppm > 0 && self.dice.below(1_000_000) < error_ppm.into();
        let wrong = cheats || errs;
        self.work = Some(Work { job, pay, wrong });
        if !cheats && self.policy != Policy::Late {
            self.books.computed += pay;
        }
        if wrong && !self.books.excluded {
            let lowest = self.books.chance_ppm.unwrap_or(u32::MAX);
            self.books.chance_ppm = Some(lowest.min(chance_ppm));
            self.books.wrong += 1;
        }
        // A wrong answer takes as long as a right one: sooner, it would be seen.
        let minutes = pay as f64 / MINUTE as f64;
        let takes = match self.policy {
            Policy::Late => f64::INFINITY,
            _ => minutes / self.speed,
        };
        let most = minutes / self.believed(now) * PATIENCE;
        self.is_late = takes > most;
        (takes.min(most) * 60e3).ceil() as u64
    }

    /// The speed that the market believes.
    fn believed(&mut self, now: Timestamp) -> f64 {
        let truth = f64::from(self.thought(now).speed_ppm) / 1e6;
        self.speed * self.policy.boast() * truth
    }

    /// Takes evidence about it.
    pub fn hear(&mut self, evidence: &Evidence, now: Timestamp) {
        self.rating.hear(evidence, now);
        self.score = None;
    }

    /// A work was seen through.
    pub fn did(&mut self, now: Timestamp) {
        self.hear(&Evidence::Done { agreed: false }, now);
        self.was_fast(now);
    }

    fn was_fast(&mut self, now: Timestamp) {
        let achieved = self.speed * MFLOPS * self.dice.factor(SPEED_NOISE);
        let promised = self.speed * self.policy.boast() * MFLOPS;
        let speed = Evidence::Speed {
            achieved_mflops: achieved as u64,
            promised_mflops: promised as u64,
        };
        self.hear(&speed, now);
    }

    /// Its work was taken away, unfinished.
    pub fn was_late(&mut self, now: Timestamp) {
        self.was_fast(now);
        self.hear(&failed("its answer came too late"), now);
    }

    /// It is paid; a share is withheld.
    pub fn earn(&mut self, pay: Pay, now: Timestamp) {
        let share = withheld_ppm(self.thought(now).low_milli, WITHHELD_MAX_PPM);
        let withheld = pay * u64::from(share) / 1_000_000;
        self.books.received += pay;
        self.withheld += withheld;
        self.locks.push_back((now.plus_ms(WITHHELD_MS), withheld));
    }

    /// Its answer to a check was right.
    pub fn was_right(&mut self, pay: Pay, now: Timestamp) {
        self.streak += 1;
        self.books.right += 1;
        self.books.for_checks += pay;
        self.doubted = false;
        self.hear(&Evidence::Right {}, now);
    }

    /// Its answer was proved wrong: all that is withheld of it goes to the reward fund.
    pub fn was_wrong(&mut self, now: Timestamp) {
        let reason = "another owner came to the expected answer".to_owned();
        self.books.forfeited += self.withheld(now);
        (self.withheld, self.streak, self.doubted) = (0, 0, false);
        self.locks.clear();
        self.books.verdicts += 1;
        self.hear(&Evidence::Wrong { reason }, now);
        // Notes whether it is excluded now.
        self.thought(now);
    }

    /// Something to answer instead of the truth.
    pub fn nonsense(&mut self) -> [u8; 32] {
        self.dice.bytes()
    }
}
