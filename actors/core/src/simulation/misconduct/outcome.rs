//! What came of it all, and whether the bars are met.

use serde::Serialize;

use super::colluders::{Colluded, Plot, collude};
use super::miner::Books;
use super::play::{Played, Setup, play};
use super::policy::Policy;
use super::task::MEAN;
use crate::simulation::outcome::percentile;

/// Honest miners, and wrongdoers beside them: 20 %.
const MINERS: (usize, usize) = (8, 2);
/// Paid tasks of a play.
const TASKS: u32 = 10_000;
/// Paid tasks of miners whose hardware errs.
const HONEST_TASKS: u32 = 100_000;
/// How often it does, in millionths of answers.
const ERROR_PPM: u32 = 100;
/// Fresh keys of one owner.
const FRESH_KEYS: usize = 1_000;
/// Paid tasks of the play with those.
const FRESH_TASKS: u32 = 1_000;
/// For which part of their time miners are busy.
const BUSY: f64 = 0.6;
/// The same, where fresh keys wait for what the others have no time for.
const BUSY_BESIDE_FRESH: f64 = 0.95;
/// What computing costs, as a part of the pay: whichever is best for wrongdoers counts.
const COSTS: [f64; 3] = [0.5, 0.7, 0.9];
/// Wrong verdicts that exclude.
const VERDICTS: f64 = 3.0;
/// Checks take at most so much of paid compute, in millionths.
pub const OVERHEAD_MAX_PPM: u64 = 60_000;
/// Colluders let at most so many wrongdoers off, in millionths.
pub const LET_OFF_MAX_PPM: u64 = 100_000;

/// All plays of a seed.
#[derive(Debug, Clone, PartialEq)]
pub struct OfSeed {
    /// All honest, then [`Policy::WRONGDOERS`] in order.
    plays: Vec<Played>,
    /// All honest, for long, and hardware errs.
    errs: Played,
    /// Many fresh keys of one owner at one place.
    fresh: Played,
    colluded: [Colluded; 2],
}

/// What a policy comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Which.
    pub policy: Policy,
    /// What it gains over honesty, in tasks' pay, mean over who follows it, median over seeds. Nothing for honesty itself.
    pub gain: Option<f64>,
    /// Wrong results until exclusion, mean over all who follow it. Those that are never excluded count with all of theirs.
    pub wrong: f64,
    /// What the checks imply for that: see [`bound`]. Nothing where there were none.
    pub wrong_max: Option<f64>,
    /// Who was excluded …
    pub excluded: u32,
    /// … of so many.
    pub of: u32,
    /// Control tasks and second checks, in millionths of paid compute: the median over seeds.
    pub overhead_ppm: u64,
}

/// Long honest work whose hardware errs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Errs {
    /// Paid tasks, over all seeds.
    pub tasks: u64,
    /// Wrong answers, paid ones and checks.
    pub errors: u32,
    /// Of those, found by a check and confirmed by another owner.
    pub verdicts: u32,
    /// Miners excluded.
    pub excluded: u32,
    /// Miners that had to rest.
    pub rested: u32,
}

/// Fresh keys of one owner.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Fresh {
    /// Keys, in each seed.
    pub keys: u32,
    /// The most unproven work they had at a time, in millionths of one owner's cap.
    pub exposed_max_ppm: u64,
    /// Wrong results of theirs that were paid, over all seeds.
    pub paid_wrong: u32,
    /// Second checks that they were asked for.
    pub seats: u32,
}

/// What came of all seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How many.
    pub seeds: usize,
    /// The largest gain of a policy, in tasks' pay.
    pub cheat_gain_max: f64,
    /// The largest overhead with an asked-for policy or none, in millionths.
    pub overhead_max_ppm: u64,
    /// Honest miners that were excluded in long work.
    pub honest_excluded: u32,
    /// By policy, honesty first.
    pub policies: Vec<Row>,
    /// Long honest work.
    pub honest: Errs,
    /// By plot.
    pub colluders: [Colluded; 2],
    /// Fresh keys of one owner.
    pub fresh_keys: Fresh,
}

/// 20 % of the miners behave so.
pub const fn setup(policy: Policy) -> Setup {
    Setup {
        honest: MINERS.0,
        others: MINERS.1,
        policy,
        one_place: false,
        tasks: TASKS,
        busy: BUSY,
        error_ppm: 0,
        checks: true,
    }
}

const fn erring() -> Setup {
    Setup {
        tasks: HONEST_TASKS,
        error_ppm: ERROR_PPM,
        ..setup(Policy::Honest)
    }
}

const fn fresh() -> Setup {
    Setup {
        others: FRESH_KEYS,
        one_place: true,
        tasks: FRESH_TASKS,
        busy: BUSY_BESIDE_FRESH,
        ..setup(Policy::WrongEarly)
    }
}

impl OfSeed {
    /// Plays everything once.
    pub fn play(seed: u64) -> Self {
        let policies = std::iter::once(Policy::Honest).chain(Policy::WRONGDOERS);
        Self {
            plays: policies.map(|policy| play(setup(policy), seed)).collect(),
            errs: play(erring(), seed),
            fresh: play(fresh(), seed),
            colluded: [Plot::ApproveAll, Plot::RejectAll].map(|plot| collude(plot, seed)),
        }
    }
}

/// What wrongdoers gain over the honest ones that they would be in the same world, in tasks' pay: the mean. Of what
/// computing may cost, and whether control tasks are paid, whatever is best for them.
pub fn gain(wrong: &[Books], honest: &[Books]) -> f64 {
    let count = wrong.len().max(1) as f64;
    let over = |cost: f64, is_paid: bool| {
        let pairs = wrong.iter().zip(honest);
        let all = pairs.map(|(w, h)| w.gain(cost, is_paid) - h.gain(cost, is_paid));
        all.sum::<f64>() / count / MEAN as f64
    };
    let all = COSTS.map(|cost| over(cost, true).max(over(cost, false)));
    all.into_iter().fold(f64::NEG_INFINITY, f64::max)
}

/// How many wrong results a wrongdoer gives at most in the mean, where each is a check's with at least this chance p and
/// three verdicts exclude: 3/p, and three standard errors of a mean of so many (of a negative binomial distribution).
pub fn bound(chance_ppm: u32, wrongdoers: usize) -> f64 {
    let p = f64::from(chance_ppm) / 1e6;
    let deviation = (VERDICTS * (1.0 - p)).sqrt() / p;
    VERDICTS / p + 3.0 * deviation / (wrongdoers.max(1) as f64).sqrt()
}

/// The middle one.
fn median(values: &[f64]) -> f64 {
    percentile(values, 50).unwrap_or_default()
}

fn wrongdoers(played: &Played) -> &[Books] {
    &played.books[MINERS.0..]
}

impl Row {
    fn of(at: usize, policy: Policy, seeds: &[OfSeed]) -> Self {
        let plays = seeds.iter().map(|seed| &seed.plays[at]);
        let all: Vec<_> = plays.clone().flat_map(wrongdoers).collect();
        let gains = seeds.iter().map(|seed| {
            let honest = wrongdoers(&seed.plays[0]);
            gain(wrongdoers(&seed.plays[at]), honest)
        });
        let gains: Vec<_> = gains.collect();
        let overheads: Vec<_> = plays.map(|p| p.checked as f64 / p.paid as f64).collect();
        let wrong: u32 = all.iter().map(|books| books.wrong).sum();
        let chance = all.iter().filter_map(|books| books.chance_ppm).min();
        Self {
            policy,
            gain: (policy != Policy::Honest).then(|| median(&gains)),
            wrong: f64::from(wrong) / all.len().max(1) as f64,
            wrong_max: chance.map(|chance| bound(chance, all.len())),
            excluded: all.iter().filter(|books| books.excluded).count() as u32,
            of: all.len() as u32,
            overhead_ppm: (median(&overheads) * 1e6).ceil() as u64,
        }
    }
}

impl Errs {
    fn of(seeds: &[OfSeed]) -> Self {
        let mut all = Self::default();
        for seed in seeds {
            all.tasks += u64::from(seed.errs.tasks);
            for books in &seed.errs.books {
                all.errors += books.wrong;
                all.verdicts += books.verdicts;
                all.excluded += u32::from(books.excluded);
                all.rested += u32::from(books.rested);
            }
        }
        all
    }
}

impl Fresh {
    fn of(seeds: &[OfSeed]) -> Self {
        let mut all = Self {
            keys: FRESH_KEYS as u32,
            ..Self::default()
        };
        for seed in seeds {
            all.exposed_max_ppm = all.exposed_max_ppm.max(seed.fresh.exposed_max_ppm);
            for books in wrongdoers(&seed.fresh) {
                all.paid_wrong += books.paid_wrong;
                all.seats += books.seats;
            }
        }
        all
    }
}

impl Report {
    /// Of all seeds that were played.
    pub fn of(seeds: &[OfSeed]) -> Self {
        let policies = std::iter::once(Policy::Honest).chain(Policy::WRONGDOERS);
        let rows = policies.enumerate();
        let rows: Vec<_> = rows
            .map(|(at, policy)| Row::of(at, policy, seeds))
            .collect();
        let gains = rows.iter().filter_map(|row| row.gain);
        let asked_for = rows.iter().filter(|row| !row.policy.is_extra());
        let overheads = asked_for.map(|row| row.overhead_ppm);
        let honest = Errs::of(seeds);
        let mut colluders = [Plot::ApproveAll, Plot::RejectAll].map(Colluded::none);
        for seed in seeds {
            let both = colluders.iter_mut().zip(&seed.colluded);
            both.for_each(|(all, one)| all.add(one));
        }
        Self {
            seeds: seeds.len(),
            cheat_gain_max: gains.fold(f64::NEG_INFINITY, f64::max),
            overhead_max_ppm: overheads.max().unwrap_or_default(),
            honest_excluded: honest.excluded,
            policies: rows,
            honest,
            colluders,
            fresh_keys: Fresh::of(seeds),
        }
    }

    /// What does not hold, a sentence each; none where honesty pays.
    pub fn misses(&self) -> Vec<String> {
        let rows = self.policies.iter().flat_map(Row::misses);
        let colluders = self.colluders.iter().flat_map(Colluded::misses);
        let rest = self
            .honest
            .misses()
            .into_iter()
            .chain(self.fresh_keys.misses());
        rows.chain(colluders).chain(rest).collect()
    }
}

/// Those of these sentences whose condition holds.
fn said<const N: usize>(sentences: [(bool, String); N]) -> Vec<String> {
    let missed = sentences.into_iter().filter(|(is_missed, _)| *is_missed);
    missed.map(|(_, sentence)| sentence).collect()
}

impl Row {
    fn misses(&self) -> Vec<String> {
        let name = self.policy.name();
        let gain = self.gain.unwrap_or(f64::NEG_INFINITY);
        let bound = self.wrong_max.unwrap_or(f64::INFINITY);
        let is_costly = self.overhead_ppm > OVERHEAD_MAX_PPM && !self.policy.is_extra();
        said([
            (gain >= 0.0, format!("{name} gains {gain:.2} tasks' pay")),
            (
                self.wrong > bound,
                format!(
                    "{name}: {:.1} wrong results, the checks imply {bound:.1}",
                    self.wrong
                ),
            ),
            (
                is_costly,
                format!(
                    "{name}: checks are {:.2} % of paid work",
                    self.overhead_ppm as f64 / 1e4
                ),
            ),
        ])
    }
}

impl Errs {
    fn misses(&self) -> Vec<String> {
        said([
            (
                self.excluded > 0,
                format!("{} honest miners were excluded", self.excluded),
            ),
            (
                self.rested > 0,
                format!("{} honest miners had to rest", self.rested),
            ),
        ])
    }
}

impl Fresh {
    fn misses(&self) -> Vec<String> {
        let times = self.exposed_max_ppm as f64 / 1e6;
        said([
            (
                self.exposed_max_ppm > 1_000_000,
                format!("fresh keys of one owner had {times:.2} times one owner's cap"),
            ),
            (
                self.seats > 0,
                format!("fresh keys were asked for {} second checks", self.seats),
            ),
        ])
    }
}

impl Colluded {
    fn misses(&self) -> Vec<String> {
        let plot = self.plot;
        said([
            (
                self.honest_punished > 0,
                format!(
                    "{plot:?}: {} honest owners were punished",
                    self.honest_punished
                ),
            ),
            (
                self.let_off_ppm() > LET_OFF_MAX_PPM,
                format!(
                    "{plot:?}: {} of {} wrongdoers were let off",
                    self.let_off, self.wrongdoers
                ),
            ),
            (
                self.excluded == 0,
                format!("{plot:?}: no colluder was found"),
            ),
        ])
    }
}
