//! Ratings: what a node has shown, in numbers that anybody can recompute.
//!
//! Owned by the rating actor: one [`Rating`] a node and one an owner, which is that of all its nodes. Each is a fold of
//! [`Evidence`] in its order ([`EvidenceKey`]) and of the time; nothing else enters it.
//!
//! ```text
//! C = Beta(4 + right, 1 + 8 · wrong)                correctness; half is forgotten in 60 days
//! D = Beta(4 + done, 1 + failed + ¼ · left)         delivery; half is forgotten in 14 days
//! V = median of achieved ÷ promised speed           speed truth, of the last 15 runs, 1.1 at most; 1 before there are any
//! U = (10 · 3.5 + Σ w · stars) ÷ (10 + Σ w)         users, w = √(CTM paid) · credibility; half is forgotten in 60 days
//! R = C² · D · V · (0.85 + 0.15 · U ÷ 5)            times 5 stars
//! ```
//!
//! With the means of C and D it is the rating that is shown; with their 5 % quantiles, what counts where nodes are chosen and
//! earnings are withheld: a newcomer is as good as it has shown, not as it may turn out to be. Correctness is squared, as it
//! gates. Both are the lower one of the node's and its owner's, so that a new key hides nothing and a good name covers nothing.
//!
//! A run whose members came to the same counts as right only where another owner had a part in it. A difference alone proves
//! nothing (honest hardware errs too): that is a failure, and an answer is *wrong* once a check of another owner's says so.
//! Votes move R by a twentieth up or a twelfth down at most, however many there are: users see a result, not whose fault it was.
//!
//! Ages count in whole hours, so that a rating holds for an hour. Beta distributions with forgetting are those of Jøsang and
//! Ismail (2002); U is a Bayesian average.
//!
//! A rating also bars from work: who fails often of late rests ([`breaker`]), and an owner whose nodes gave three wrong answers
//! within 90 days is excluded. And it says how much of a node's earnings is withheld for a while when they are paid: see
//! [`withheld_ppm`]. That is all that a miner can lose, and so it needs no money to start.
//!
//! Not here: what else a rating leads to (`market`), whose evidence counts (the run; one vote a task).

use std::collections::VecDeque;

pub use credibility::Credibility;
use cryptomind_protocol::money::BASE_UNITS_PER_CTM;
pub use cryptomind_protocol::rating::BEST_MILLI;
use cryptomind_protocol::rating::{Bar, Evidence, RatingParts, RatingView};
use cryptomind_protocol::{ErrorBody, Timestamp};

mod breaker;
mod credibility;
mod odds;

use breaker::Breaker;
use odds::Odds;

/// A newcomer's rating as it is shown, in thousandths of a star.
pub const NEWCOMER_MILLI: u32 = 2445;
/// A newcomer's rating as it counts.
pub const NEWCOMER_LOW_MILLI: u32 = 505;
/// Withheld of the earnings of a node that is rated nothing, before the bounds, in millionths.
const WITHHELD_AT_WORST_PPM: u32 = 300_000;
/// What the best rating takes off that.
const WITHHELD_RANGE_PPM: u32 = 250_000;
/// The least that is withheld, where a network withholds so much at all.
pub const WITHHELD_LEAST_PPM: u32 = 50_000;
/// The most that is withheld.
pub const WITHHELD_MOST_PPM: u32 = 250_000;
/// Reasons are kept up to this many characters.
const MAX_REASON_CHARS: usize = 200;

/// After so many hours half of what was right or wrong is forgotten, and of users' stars.
const CORRECTNESS_HALF_LIFE_H: f64 = 60.0 * 24.0;
/// After so many hours half of what was done or failed is forgotten.
const DELIVERY_HALF_LIFE_H: f64 = 14.0 * 24.0;
const HOUR_MS: u64 = 3_600_000;
/// What a wrong answer counts for, in right ones.
const WRONG_WEIGHT: f64 = 8.0;
/// What leaving with notice counts for, in failures.
const LEFT_WEIGHT: f64 = 0.25;
/// Runs whose speed is looked at.
const SPEEDS: usize = 15;
/// More than promised is worth no more than this, in millionths.
const SPEED_MAX_PPM: u32 = 1_100_000;
/// Stars and votes as taken before there are any.
const PRIOR_STARS: f64 = 3.5;
const PRIOR_VOTES: f64 = 10.0;
const BEST_STARS: f64 = 5.0;
/// What users' stars make of the rest: all of it or, were there fewer than one star, so much of it.
const WITHOUT_STARS: f64 = 0.85;
/// So many wrong answers exclude an owner …
const WRONG_MAX: usize = 3;
/// … within this time, milliseconds.
const WRONG_WITHIN_MS: u64 = 90 * 24 * HOUR_MS;
const PPM: f64 = 1e6;

/// What a node, or all nodes of an owner, have shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    correctness: Odds,
    delivery: Odds,
    /// Σ w · stars, Σ w.
    stars: Odds,
    /// Achieved over promised, in millionths, the newest last.
    speeds: VecDeque<u32>,
    breaker: Breaker,
    wrongs: VecDeque<Timestamp>,
    done: u32,
    failed: u32,
    left: u32,
    wrong: u32,
    streak: u32,
    votes: u32,
    last_change: String,
}

/// A rating in numbers, at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    /// As it is shown, in thousandths of a star.
    pub mean_milli: u32,
    /// As it counts.
    pub low_milli: u32,
    /// What it is made of.
    pub parts: RatingParts,
}

/// Why evidence is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} stars: give 1 to 5")]
pub struct StarsError(pub u8);

impl From<StarsError> for ErrorBody {
    fn from(error: StarsError) -> Self {
        Self::user("stars_out_of_range", error).with_help("5 is best, 1 is worst")
    }
}

/// Refuses anything but 1 to 5 stars.
pub const fn check_stars(stars: u8) -> Result<(), StarsError> {
    match stars {
        1..=5 => Ok(()),
        _ => Err(StarsError(stars)),
    }
}

/// A failure, its reason cut to what is kept.
pub fn failed(reason: &str) -> Evidence {
    Evidence::Failed {
        reason: reason.chars().take(MAX_REASON_CHARS).collect(),
    }
}

impl Default for Rating {
    /// A newcomer's.
    fn default() -> Self {
        Self {
            correctness: Odds::new(CORRECTNESS_HALF_LIFE_H),
            delivery: Odds::new(DELIVERY_HALF_LIFE_H),
            stars: Odds::new(CORRECTNESS_HALF_LIFE_H),
            speeds: VecDeque::new(),
            breaker: Breaker::default(),
            wrongs: VecDeque::new(),
            done: 0,
            failed: 0,
            left: 0,
            wrong: 0,
            streak: 0,
            votes: 0,
            last_change: "new".into(),
        }
    }
}

impl Rating {
    /// Takes evidence into account. Evidence comes in its order.
    pub fn hear(&mut self, evidence: &Evidence, at: Timestamp) {
        let hour = hour(at);
        match evidence {
            Evidence::Done { agreed } => {
                count(&mut self.done);
                self.delivery.count(hour, 1.0, 0.0);
                self.correctness.count(hour, f64::from(*agreed), 0.0);
                self.breaker.done(at);
            }
            Evidence::Left {} => {
                count(&mut self.left);
                self.delivery.count(hour, 0.0, LEFT_WEIGHT);
            }
            Evidence::Failed { .. } => {
                count(&mut self.failed);
                self.delivery.count(hour, 0.0, 1.0);
                self.breaker.failed(at);
            }
            Evidence::Right {} => {
                count(&mut self.streak);
                self.correctness.count(hour, 1.0, 0.0);
            }
            Evidence::Wrong { .. } => {
                count(&mut self.wrong);
                self.streak = 0;
                self.correctness.count(hour, 0.0, WRONG_WEIGHT);
                keep(&mut self.wrongs, at, WRONG_MAX);
            }
            Evidence::Speed {
                achieved_mflops,
                promised_mflops,
            } => {
                let ratio = *achieved_mflops as f64 / (*promised_mflops).max(1) as f64;
                // A ratio beyond any bound is the bound.
                keep(&mut self.speeds, (ratio * PPM) as u32, SPEEDS);
            }
            Evidence::Stars { .. } => {
                count(&mut self.votes);
                let (stars, weight) = vote(evidence);
                self.stars.count(hour, weight * stars, weight);
            }
        }
        self.last_change = evidence.to_string();
    }

    /// In numbers, at a time.
    pub fn score(&self, now: Timestamp) -> Score {
        let hour = hour(now);
        let parts = RatingParts {
            correctness: self.correctness.known(hour),
            delivery: self.delivery.known(hour),
            speed_ppm: self.speed_ppm(),
            stars_milli: self.stars_milli(now),
        };
        let (c, d) = (parts.correctness, parts.delivery);
        Score {
            mean_milli: milli(c.mean_ppm, d.mean_ppm, &parts),
            low_milli: milli(c.low_ppm, d.low_ppm, &parts),
            parts,
        }
    }

    /// Users' mean stars at a time, in thousandths.
    pub fn stars_milli(&self, now: Timestamp) -> u32 {
        let (stars, weight) = self.stars.sums(hour(now));
        let mean = (PRIOR_VOTES * PRIOR_STARS + stars) / (PRIOR_VOTES + weight);
        (mean * 1e3).round() as u32
    }

    fn speed_ppm(&self) -> u32 {
        let mut speeds: Vec<u32> = self.speeds.iter().copied().collect();
        speeds.sort_unstable();
        let middle = speeds.get(speeds.len() / 2).copied();
        middle.unwrap_or(PPM as u32).min(SPEED_MAX_PPM)
    }

    /// Where these are an owner's nodes: whether they get no work for what they answered.
    fn excluded(&self, now: Timestamp) -> Option<Bar> {
        let first = *self
            .wrongs
            .front()
            .filter(|_| self.wrongs.len() == WRONG_MAX)?;
        let until = first.plus_ms(WRONG_WITHIN_MS);
        (until > now).then_some(Bar::Excluded {
            wrong: self.wrong,
            until,
        })
    }
}

/// What is thought of a node, given all that it and all that its owner's nodes have shown.
pub fn view(node: &Rating, owner: &Rating, now: Timestamp) -> RatingView {
    let scores = (node.score(now), owner.score(now));
    view_with(scores, node, owner, now)
}

/// The same, where the scores of both in this [`hour`] are known.
pub fn view_with(
    (own, all): (Score, Score),
    node: &Rating,
    owner: &Rating,
    now: Timestamp,
) -> RatingView {
    RatingView {
        rating_milli: own.mean_milli.min(all.mean_milli),
        low_milli: own.low_milli.min(all.low_milli),
        parts: own.parts,
        done: node.done,
        failed: node.failed,
        left: node.left,
        wrong: node.wrong,
        streak: owner.streak,
        votes: node.votes,
        bar: owner.excluded(now).or_else(|| node.breaker.bar(now)),
        at: now,
        last_change: node.last_change.clone(),
    }
}

/// The hour since 1970, for which a score holds.
pub fn hour(at: Timestamp) -> u64 {
    at.as_ms() / HOUR_MS
}

fn count(number: &mut u32) {
    *number = number.saturating_add(1);
}

fn keep<T>(last: &mut VecDeque<T>, value: T, most: usize) {
    if last.len() == most {
        last.pop_front();
    }
    last.push_back(value);
}

/// Stars and their weight.
fn vote(evidence: &Evidence) -> (f64, f64) {
    match evidence {
        Evidence::Stars {
            stars,
            paid,
            credibility_ppm,
            ..
        } => {
            let ctm = paid.base_units() as f64 / BASE_UNITS_PER_CTM as f64;
            let weight = ctm.sqrt() * f64::from(*credibility_ppm) / PPM;
            (f64::from(*stars), weight)
        }
        _ => (0.0, 0.0),
    }
}

/// The module's formula, in thousandths of a star.
fn milli(correctness_ppm: u32, delivery_ppm: u32, parts: &RatingParts) -> u32 {
    let [c, d, v] =
        [correctness_ppm, delivery_ppm, parts.speed_ppm].map(|ppm| f64::from(ppm) / PPM);
    let stars = f64::from(parts.stars_milli) / 1e3;
    let users = WITHOUT_STARS + (1.0 - WITHOUT_STARS) * stars / BEST_STARS;
    let rating = (f64::from(BEST_MILLI) * c * c * d * v * users).round();
    (rating as u32).min(BEST_MILLI)
}

/// Share of a node's earnings that is withheld for a while, in millionths: 0.30 − 0.25·R, within 0.05 and 0.25, where R
/// is the rating that counts as a part of the best one; never above `max_ppm`, which the genesis sets.
pub fn withheld_ppm(low_milli: u32, max_ppm: u32) -> u32 {
    let rating = low_milli.min(BEST_MILLI);
    // 250,000 · 5000 is well within u32's range.
    let earned_trust = WITHHELD_RANGE_PPM * rating / BEST_MILLI;
    (WITHHELD_AT_WORST_PPM - earned_trust)
        .clamp(WITHHELD_LEAST_PPM, WITHHELD_MOST_PPM)
        .min(max_ppm)
}

#[cfg(test)]
mod tests;
