//! Misconduct: whether it pays, in virtual time, from a seed.
//!
//! Eight honest miners and two that are not do ten thousand paid tasks. What decides is production code:
//! [`check`](crate::check) how often an owner is checked and who is to blame, [`rating`](crate::rating) what it is worth, how
//! much is withheld and whether it is barred, [`exposure`](crate::exposure) how large a task it may have. The loop around
//! these is a lean one of its own, since [`simulate`](super::simulate) plays every hop of every link and this is about a million
//! tasks. Each task is one miner's, sizes are log-normal from a minute to an hour, and the miner is chosen whose believed
//! speed times rating is largest: what [`select`](crate::market::select()) does with one member, one price and no links.
//!
//! ```text
//! task ──▶ the best free miner that may have it ──▶ drawn: paid ──▶ paid, a share withheld for a week
//!                     ▲                              drawn: a check of that size ──▶ right: the streak grows
//!                     └── the task goes on to the next one ◀──┘        └──▶ different: no work until a proven owner,
//!                                                                          drawn by lot, answers too (Case)
//! ```
//!
//! **What is measured.** A policy's gain is what its miners get (pay, less what is forfeited, less what they really computed)
//! over what *the same miners in the same world* get when they are honest. Computing costs half, seven or nine tenths of
//! the pay, control tasks are paid or not: whatever is best for the wrongdoer counts. All begin as newcomers, and
//! nobody answers sooner for not computing, which would be seen.
//!
//! **What it showed**, and what was changed for it; the figures are medians of 20 seeds.
//! - With a *typical* task's pay in the rate, to cheat on the largest tenth alone gained 9 tasks' pay: what is at risk stays
//!   while what is saved is twice as much and more. The rate is of the very task, and so is the size of the control task.
//! - 1.2 · R/(W + R) cost 7.3 % of paid compute here, nearly all of it while W is still small. 0.9 · R/W is what it takes:
//!   6.9 %. Work of more than a tenth of W goes to owners with more to lose (`exposure`): 5.4 %. The price is that on a
//!   young network large tasks wait until somebody has earned enough (of the first five hundred here, two hours in the
//!   mean; half of all do not wait at all). The allowance sets how long.
//! - Beyond ten answers the streak hardly ever matters: W grows more slowly than trust does.
//! - The other end of the week's withholding: a better rating withholds less, and is checked more for it.
//! - Who has to prove itself anew after each wrong answer costs more checks: wrong answers to the largest tasks alone come to
//!   about 6 % and are no part of the bar for the overhead; nor is the other policy that nobody asked for.
//!   Its gain is far below nothing in the median, but not in every seed: a few are lucky and are never found.
//! - A forged speed gained where the forger was the slowest anyway: its first task came early. It loses since work is taken
//!   away after three times the time that the believed speed promises.
//!
//! **Invariants**: equal setup and seed give equal results; tasks and speeds do not depend on the policy.
//!
//! **Is not**: groups of miners (those see each other's gradients), nor places that are many: whoever has a thousand
//! addresses is a thousand newcomers, each with one allowance.

mod colluders;
mod miner;
mod outcome;
mod play;
mod policy;
mod task;

pub use colluders::{Colluded, Plot};
pub use outcome::{
    Errs, Fresh, LET_OFF_MAX_PPM, OVERHEAD_MAX_PPM, OfSeed, Report, Row, bound, gain, setup,
};
pub use play::{Played, Setup, play};
pub use policy::Policy;

#[cfg(test)]
mod tests;
