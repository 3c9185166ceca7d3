//! How far a rater is believed: by how far its stars were from what was thought of the nodes before.
//!
//! ```text
//! off         = (4 · 1 + Σ |stars − mean of the node|) / (4 + votes)      a newcomer is off by 1, as people are
//! credibility = 1 / max(1, off)²
//! ```
//!
//! Who gives one star to the best and five to the worst is off by 3 or more, and soon counts for a ninth. What was believed of
//! a vote when it was given stays in its [`Evidence`], so that a rating follows from its own evidence.

use std::collections::BTreeMap;

use cryptomind_protocol::AccountId;
use cryptomind_protocol::rating::Evidence;

/// Votes that a rater's first impression counts for, each off by 1.
const PRIOR_VOTES: f64 = 4.0;
const PPM: f64 = 1e6;

/// What all raters are believed.
#[derive(Debug, Clone, Default)]
pub struct Credibility(BTreeMap<AccountId, (f64, f64)>);

impl Credibility {
    /// Takes a vote on a node with these mean stars, in thousandths, before it. Other evidence is nobody's vote.
    pub fn voted(&mut self, evidence: &Evidence, mean_milli: u32) {
        if let Evidence::Stars { stars, rater, .. } = evidence {
            let (votes, off) = self.0.entry(*rater).or_default();
            *votes += 1.0;
            *off += (f64::from(*stars) - f64::from(mean_milli) / 1e3).abs();
        }
    }

    /// What a rater is believed now, in millionths.
    pub fn of(&self, rater: &AccountId) -> u32 {
        let (votes, off) = self.0.get(rater).copied().unwrap_or_default();
        let mean_off = (PRIOR_VOTES + off) / (PRIOR_VOTES + votes);
        (PPM / mean_off.max(1.0).powi(2)).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::Amount;

    fn vote(stars: u8) -> Evidence {
        Evidence::Stars {
            stars,
            paid: Amount::ZERO,
            rater: AccountId::new([1; 20]),
            credibility_ppm: 0,
        }
    }

    #[test]
    fn who_says_what_others_say_is_believed_and_who_says_the_opposite_is_not() {
        let rater = AccountId::new([1; 20]);
        let mut fair = Credibility::default();
        assert_eq!(fair.of(&rater), 1_000_000);
        (0..50).for_each(|_| fair.voted(&vote(4), 4_200));
        assert_eq!(fair.of(&rater), 1_000_000);
        let mut spiteful = Credibility::default();
        (0..50).for_each(|_| spiteful.voted(&vote(1), 4_800));
        assert!(spiteful.of(&rater) < 80_000, "{}", spiteful.of(&rater));
        spiteful.voted(&Evidence::Right {}, 0);
        assert!(spiteful.of(&rater) < 80_000);
    }
}
