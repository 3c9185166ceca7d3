//! Checks: how often a miner is given work whose answer is known already, and who judges a different answer.
//!
//! Owned by the control actor. A *control task* is work like any other whose answer the coordinator knows. How
//! many an owner gets for each paid task is the greatest of three:
//!
//! ```text
//! floor    2 %                          for ever: BOINC's 1/n goes to nothing, and then the long con pays
//! streak   all below ten right answers in a row, then 1/(1 + streak)
//! money    0.9 · R/W, all at most       R the pay at stake, W what is withheld of the owner at this moment
//! ```
//!
//! Whose hardware shows up under another owner too is checked in full, whatever it has shown ([`is_twin`]).
//!
//! The third is what makes a wrong answer a loss, whatever its giver plans. It saves the cost of computing, at most nine
//! tenths of R; found, it costs W; it is found with chance q/(1 + q). So it gains nothing as soon as q ≥ 0.9 · R/W, where not
//! a rating nor any future is counted. W is looked at now, not as it usually is: who has nothing to lose is checked
//! always, and so needs no deposit to start. (1.2 · R/(W + R), as the design research has it, is less than that where W is
//! below 3 R, and a third more than is needed where W is large.)
//!
//! [`Standing::pay`] is the pay of *the very task* that the miner would be given next, and a control task of about that
//! size takes its place. Both matter: with a typical pay there, who cheats on its largest tasks alone gains, since what it
//! risks stays and what it saves is many times as much; and with control tasks of another size, size would tell them.
//! A right answer to a control task is best paid like any other: where it is not, being honest costs a newcomer more than
//! failing does. `simulation::misconduct` plays all of this.
//!
//! The order of paid and control tasks tells nothing either: each time a miner is about to get work, a lot is drawn
//! anew ([`next_ppm`]). Only the first work of somebody who has shown nothing is surely a control task. After paid work it is
//! never sure: whoever knew could decline it, again and again, and be paid for wrong answers in between.
//!
//! A different answer proves nothing by itself, since honest hardware errs, ours too: [`Case`] hears other owners first.
//! While it is open, whoever gave the answer gets no further work. Witnesses are drawn by lot among owners whom
//! [`may_witness`] lets, and are not told that they are any: to a witness it is a control task like others, so whoever
//! repeats a friend's answer, or rejects everybody's, is found as every other wrong answer is.
//!
//! **Is not**: what a wrong answer costs (`rating` and the ledger), how much work an owner may hold meanwhile
//! ([`exposure`](crate::exposure)). Nor yet re-execution of single steps of real runs ("audits": commit, freeze, recompute).
//! They will stand beside control tasks here: an audit is a case like others, whose expected answer is the root that an
//! auditor recomputed, so `Case` judges it as it is; and a right one extends the streak. [`rate_ppm`] is then what both kinds
//! together come to, and audits take the place of control tasks wherever a real run can be audited.

use cryptomind_protocol::Amount;
use cryptomind_protocol::rating::Bar;

mod case;
mod twin;

pub use case::{Answer, Case, Finding, MAX_WITNESSES, Next, Witness};
pub use twin::is_twin;

/// So many right answers in a row make an owner a proven one; below, all it does is checked.
pub const PROVEN_STREAK: u32 = 10;
/// Control tasks for each paid task at the least, in millionths.
pub const FLOOR_PPM: u32 = 20_000;
/// The part of its pay that work costs at most whoever does it, and that a wrong answer saves; in millionths.
const SAVED_PPM: u128 = 900_000;
const ALL_PPM: u32 = 1_000_000;

/// What decides how often an owner is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Right answers to checks in a row, of the owner, since the last wrong one.
    pub streak: u32,
    /// What is withheld of the owner's earnings at this moment.
    pub withheld: Amount,
    /// What the work that it is about to get is paid. Of a typical task of its, where that is not known yet.
    pub pay: Amount,
    /// Whether its hardware shows up under another owner too: see [`is_twin`].
    pub twin: bool,
    /// Whether it has had no work yet since it connected.
    pub is_first: bool,
}

/// Whether an owner is still a newcomer: also who gave a wrong answer is one again.
pub const fn is_newcomer(streak: u32) -> bool {
    streak < PROVEN_STREAK
}

/// Control tasks for each paid task, in millionths: at most as many as paid ones.
pub fn rate_ppm(standing: &Standing) -> u32 {
    if standing.twin {
        return ALL_PPM;
    }
    FLOOR_PPM
        .max(streak_ppm(standing.streak))
        .max(money_ppm(standing.withheld, standing.pay))
}

/// The chance that the next work a miner gets is a control task, in millionths.
pub fn next_ppm(standing: &Standing) -> u32 {
    if standing.is_first && standing.streak == 0 {
        return ALL_PPM;
    }
    let rate = u64::from(rate_ppm(standing));
    let chance = (rate * u64::from(ALL_PPM)).div_ceil(u64::from(ALL_PPM) + rate);
    // At most a half.
    chance as u32
}

/// Whether an owner's miners may be asked for a second answer: those of proven owners that get work at all, so that fresh
/// keys, however many, have no seat.
pub const fn may_witness(streak: u32, bar: Option<Bar>) -> bool {
    !is_newcomer(streak) && bar.is_none()
}

/// BOINC's adaptive replication, by answers in a row.
const fn streak_ppm(streak: u32) -> u32 {
    if is_newcomer(streak) {
        ALL_PPM
    } else {
        ALL_PPM.div_ceil(streak.saturating_add(1))
    }
}

/// What makes cheating a loss, given what is at risk.
fn money_ppm(withheld: Amount, pay: Amount) -> u32 {
    let saved = u128::from(pay.base_units()) * SAVED_PPM;
    match (saved, u128::from(withheld.base_units())) {
        (0, _) => 0,
        (_, 0) => ALL_PPM,
        // At most 1,000,000, which fits.
        (saved, at_risk) => saved.div_ceil(at_risk).min(ALL_PPM.into()) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::Timestamp;
    use proptest::prelude::*;

    fn standing(streak: u32, withheld: u64, pay: u64) -> Standing {
        let [withheld, pay] = [withheld, pay].map(Amount::from_base_units);
        Standing {
            streak,
            withheld,
            pay,
            twin: false,
            is_first: false,
        }
    }

    #[test]
    fn the_rate_is_the_greatest_of_floor_streak_and_money() {
        let rate = |streak, withheld, pay| rate_ppm(&standing(streak, withheld, pay));
        assert_eq!(rate(0, 1_000_000, 1), 1_000_000, "a newcomer");
        assert_eq!(rate(9, 1_000_000, 1), 1_000_000);
        assert_eq!(rate(10, 1_000_000, 1), 90_910, "one in eleven");
        assert_eq!(rate(1_000, 1_000_000, 1), FLOOR_PPM);
        assert_eq!(rate(u32::MAX, 1_000_000, 0), FLOOR_PPM);
        assert_eq!(rate(1_000, 90, 10), 100_000, "0.9 · 10 ÷ 90");
        assert_eq!(rate(1_000, 9, 10), 1_000_000);
        assert_eq!(rate(1_000, 0, 10), 1_000_000, "nothing to lose");
        assert_eq!(rate(1_000, 0, 0), FLOOR_PPM);
        assert_eq!(rate(1_000, u64::MAX, u64::MAX), 900_000);
        let twin = Standing {
            twin: true,
            ..standing(1_000, 1_000_000, 1)
        };
        assert_eq!((rate_ppm(&twin), next_ppm(&twin)), (1_000_000, 500_000));
    }

    #[test]
    fn the_first_work_is_a_control_task_and_no_other_one_surely() {
        let next = |streak| next_ppm(&standing(streak, 1_000_000, 1));
        let first = |streak| {
            next_ppm(&Standing {
                is_first: true,
                ..standing(streak, 1_000_000, 1)
            })
        };
        assert_eq!((first(0), first(1)), (1_000_000, 500_000));
        assert_eq!(next(0), 500_000, "one for each paid one");
        assert_eq!(next(1), 500_000);
        assert_eq!(next(10), 83_335, "one in twelve");
        assert_eq!(next(1_000), 19_608);
    }

    #[test]
    fn neither_newcomers_nor_the_barred_are_witnesses() {
        let until = Timestamp::from_ms(1);
        let bar = Bar::Excluded { wrong: 3, until };
        assert!(!may_witness(9, None));
        assert!(may_witness(10, None));
        assert!(!may_witness(10, Some(bar)));
    }

    proptest! {
        #[test]
        fn who_has_shown_more_or_risks_more_is_checked_less(
            streak in 0u32..2_000, more in 0u32..2_000, withheld: u32, added: u32, pay: u32
        ) {
            let of = |streak, withheld| rate_ppm(&standing(streak, withheld, pay.into()));
            let rate = of(streak, withheld.into());
            prop_assert!(of(streak + more, withheld.into()) <= rate);
            prop_assert!(of(streak, u64::from(withheld) + u64::from(added)) <= rate);
            prop_assert!((FLOOR_PPM..=1_000_000).contains(&rate));
        }

        /// Wherever W is as much as the pay, no wrong answer has an expectation above zero, even where it saves nine
        /// tenths of the pay and nothing but W is lost.
        #[test]
        fn a_wrong_answer_is_expected_to_cost_no_less_than_it_saves(
            streak in 0u32..2_000, pay in 1u64..1_000_000, more in 0u64..100_000_000
        ) {
            let withheld = pay + more;
            let chance = f64::from(next_ppm(&standing(streak, withheld, pay))) / 1e6;
            let saved = (1.0 - chance) * 0.9 * pay as f64;
            prop_assert!(saved <= chance * withheld as f64 * (1.0 + 1e-4), "{saved}");
        }
    }
}
