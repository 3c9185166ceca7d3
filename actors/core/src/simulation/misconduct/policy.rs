//! How miners behave.

use serde::Serialize;

use super::task::{LARGE, MEAN, Pay};
use crate::check::is_newcomer;
use crate::dice::Dice;

/// A rating that counts from which on a wrongdoer thinks itself trusted, in thousandths of a star.
const TRUSTED_MILLI: u32 = 3_500;
/// Little is withheld where it is less than ten tasks' pay.
const LITTLE: Pay = 10 * MEAN;

/// A way to behave. Wrongdoers know all rules, and their own standing at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Computes what it is given.
    Honest,
    /// Never computes, and answers something.
    WrongAlways,
    /// Does so one time in ten.
    WrongOneInTen,
    /// Does so while it is a newcomer, except where it is surely checked.
    WrongEarly,
    /// Does so while little is withheld, once it is no newcomer any more.
    WrongWhileLittleWithheld,
    /// Takes longer than it may.
    Late,
    /// Says that it is ten times as fast as it is.
    ForgedSpeed,
    /// Answers wrongly where the work is among the largest tenth.
    WrongOnLargest,
    /// Is honest until it is rated well, and then answers wrongly for ever.
    WrongOnceTrusted,
}

/// What a miner knows when it gets work.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Its right answers to checks in a row.
    pub streak: u32,
    /// What is withheld of its earnings.
    pub withheld: Pay,
    /// Its rating that counts, the best one that it ever had.
    pub best_milli: u32,
    /// What the work is paid.
    pub pay: Pay,
}

impl Policy {
    /// All that are not honest; the two that nobody asked for last.
    pub const WRONGDOERS: [Self; 8] = [
        Self::WrongAlways,
        Self::WrongOneInTen,
        Self::WrongEarly,
        Self::WrongWhileLittleWithheld,
        Self::Late,
        Self::ForgedSpeed,
        Self::WrongOnLargest,
        Self::WrongOnceTrusted,
    ];

    /// Whether nobody asked for it: a smarter wrongdoer, of the kind that the rules had to be made for.
    pub const fn is_extra(self) -> bool {
        matches!(self, Self::WrongOnLargest | Self::WrongOnceTrusted)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::WrongAlways => "wrong_always",
            Self::WrongOneInTen => "wrong_one_in_ten",
            Self::WrongEarly => "wrong_early",
            Self::WrongWhileLittleWithheld => "wrong_while_little_withheld",
            Self::Late => "late",
            Self::ForgedSpeed => "forged_speed",
            Self::WrongOnLargest => "wrong_on_largest",
            Self::WrongOnceTrusted => "wrong_once_trusted",
        }
    }

    /// Whether it answers something instead of computing.
    pub fn is_wrong(self, known: Known, dice: &mut Dice) -> bool {
        // Its first work is surely a check.
        let may_pass = known.streak > 0;
        match self {
            Self::Honest | Self::Late | Self::ForgedSpeed => false,
            Self::WrongAlways => true,
            Self::WrongOneInTen => dice.below(10) == 0,
            Self::WrongEarly => may_pass && is_newcomer(known.streak),
            Self::WrongWhileLittleWithheld => !is_newcomer(known.streak) && known.withheld < LITTLE,
            Self::WrongOnLargest => known.pay >= LARGE,
            Self::WrongOnceTrusted => known.best_milli >= TRUSTED_MILLI,
        }
    }

    /// What it says that its speed is, as a multiple of the truth.
    pub const fn boast(self) -> f64 {
        match self {
            Self::ForgedSpeed => 10.0,
            _ => 1.0,
        }
    }
}
