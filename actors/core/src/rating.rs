//! Ratings: what a node has shown, in numbers that anybody can recompute.
//!
//! Owned by the rating actor, one [`Rating`] a node. It rests on work done, work failed, and the
//! stars that users gave for finished tasks; every change keeps its reason.
//!
//! ```text
//! reliability = 5 · (done + 3.5) / (done + failed + 5)      a Beta prior of 3.5 good to 1.5 bad runs
//! users       = (stars + 3.5 · 10) / (votes + 10)           the mean stars, with ten votes of 3.5 to start
//! rating      = ¾ · reliability + ¼ · users                 0 to 5; a newcomer has 3.5
//! ```
//!
//! The first is the mean of a Beta distribution (Jøsang and Ismail, 2002, without forgetting), the
//! second a Bayesian average. Users weigh little: they see a result, not who was at fault. The
//! rating is computed in integers, as one fraction rounded down once, so it is monotone: work
//! done or five stars never lower it, a failure or one star never raises it.
//!
//! A rating also says how much of a node's earnings is withheld for a while when they are paid: see
//! [`withheld_ppm`]. That is all that a miner can lose, and so it needs no money to start.
//!
//! Not here: what else a rating leads to (`market`), whose evidence counts (the run; one vote a task).

use cryptomind_protocol::api::RatingView;
use cryptomind_protocol::{ErrorBody, NodeId, Timestamp};
use serde::{Deserialize, Serialize};

/// The best rating, in thousandths of a star.
pub const BEST_MILLI: u32 = 5000;
/// A newcomer's rating, in thousandths of a star.
pub const NEWCOMER_MILLI: u32 = 3500;
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

/// What a node has shown, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rating {
    /// The node.
    pub node: NodeId,
    /// Runs that it saw through.
    pub done: u32,
    /// Runs in which it failed.
    pub failed: u32,
    /// Sum of users' stars.
    pub stars: u32,
    /// How many users gave stars.
    pub votes: u32,
    /// Why it last changed.
    pub last_change: String,
    /// When it last changed.
    pub changed: Timestamp,
}

/// Something that a node has shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// It saw a run through.
    Done,
    /// It failed in a run.
    Failed {
        /// What happened, for people.
        reason: String,
    },
    /// A user gave stars for a finished task.
    Stars(u8),
}

/// A change of a rating.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rated {
    /// Before, in thousandths of a star.
    pub before_milli: u32,
    /// After.
    pub after_milli: u32,
    /// Why.
    pub reason: String,
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

impl Rating {
    /// A newcomer's.
    pub fn new(node: NodeId, now: Timestamp) -> Self {
        Self {
            node,
            done: 0,
            failed: 0,
            stars: 0,
            votes: 0,
            last_change: "new".into(),
            changed: now,
        }
    }

    /// The rating in thousandths of a star, 0 to [`BEST_MILLI`]: the module's formula as one fraction.
    pub fn rating_milli(&self) -> u32 {
        let [done, failed, stars, votes] =
            [self.done, self.failed, self.stars, self.votes].map(u128::from);
        // Doubled, so that the priors of 3.5 and 5 runs are whole.
        let (good, runs) = (2 * done + 7, 2 * (done + failed) + 10);
        let (given, givers) = (stars + 35, votes + 10);
        let numerator = 3 * 5000 * good * givers + 1000 * given * runs;
        (numerator / (4 * runs * givers)).min(BEST_MILLI.into()) as u32
    }

    /// As the API shows it.
    pub fn view(&self) -> RatingView {
        RatingView {
            rating_milli: self.rating_milli(),
            done: self.done,
            failed: self.failed,
            stars: self.stars,
            votes: self.votes,
            last_change: self.last_change.clone(),
        }
    }

    fn count(&mut self, evidence: &Evidence) {
        match evidence {
            Evidence::Done => self.done = self.done.saturating_add(1),
            Evidence::Failed { .. } => self.failed = self.failed.saturating_add(1),
            Evidence::Stars(stars) => {
                // Together or not at all, or the mean would drift at the end of the range.
                if let Some(sum) = self.stars.checked_add((*stars).into()) {
                    self.stars = sum;
                    self.votes += 1;
                }
            }
        }
    }
}

fn reason(evidence: Evidence) -> String {
    match evidence {
        Evidence::Done => "saw a run through".into(),
        Evidence::Failed { reason } => {
            let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
            format!("failed: {reason}")
        }
        Evidence::Stars(1) => "a user gave 1 star".into(),
        Evidence::Stars(stars) => format!("a user gave {stars} stars"),
    }
}

/// Share of a node's earnings that is withheld for a while, in millionths: 0.30 − 0.25·R, within 0.05 and 0.25, where R
/// is the rating as a part of the best one; never above `max_ppm`, which the genesis sets.
pub fn withheld_ppm(rating_milli: u32, max_ppm: u32) -> u32 {
    let rating = rating_milli.min(BEST_MILLI);
    // 250,000 · 5000 is well within u32's range.
    let earned_trust = WITHHELD_RANGE_PPM * rating / BEST_MILLI;
    (WITHHELD_AT_WORST_PPM - earned_trust)
        .clamp(WITHHELD_LEAST_PPM, WITHHELD_MOST_PPM)
        .min(max_ppm)
}

/// Takes evidence into account. Refuses stars outside 1 to 5 and changes nothing then.
pub fn apply(rating: &mut Rating, evidence: Evidence, now: Timestamp) -> Result<Rated, StarsError> {
    if let Evidence::Stars(stars) = evidence {
        check_stars(stars)?;
    }
    let before_milli = rating.rating_milli();
    rating.count(&evidence);
    rating.last_change = reason(evidence);
    rating.changed = now;
    Ok(Rated {
        before_milli,
        after_milli: rating.rating_milli(),
        reason: rating.last_change.clone(),
    })
}

#[cfg(test)]
mod tests;
