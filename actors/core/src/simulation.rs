//! Simulations of the market: many miners, clients, local networks, losses, in virtual time, from a seed.
//!
//! What decides is the market itself: [`market`](crate::market) chooses, [`Run`](crate::run::Run) leads each task through
//! its life, [`rating`](crate::rating) rates. What they decide about is the truth: machines and links as they
//! really are, which nobody in the market ever sees. Between the two stands what is measured: noisy, late, of a few
//! links only. How long a task takes follows from the truth by a model of its own, hop by hop around the ring; so an
//! expectation that is wrong shows.
//!
//! A [`Policy`] is what the coordinator is allowed to know. A choice by speed alone, or by lot, is the production choice
//! with its eyes shut: all policies run the same lines in the same worlds.
//!
//! **Invariants**: equal scenario, seed and policy give equal [`Outcome`]s; the truth does not depend on the policy.
//!
//! **Is not**: money (holds and settlements have a simulation of their own, in `integration/sim`), nor a model of
//! congestion: transfers do not slow each other down.

pub mod comparison;
mod engine;
mod group;
mod measured;
pub mod misconduct;
pub mod outcome;
mod price;
pub mod scenario;
mod task;
mod truth;

pub use comparison::{Comparison, Played, compare};
pub use outcome::Outcome;
pub use scenario::Scenario;

/// What the coordinator is allowed to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// All that is measured.
    Market,
    /// Speeds only: neither links nor ratings.
    SpeedOnly,
    /// Nothing: the choice is by lot.
    Random,
}

/// Plays a scenario to its end.
pub fn simulate(scenario: &Scenario, policy: Policy, seed: u64) -> Outcome {
    engine::Engine::new(scenario, policy, seed).play()
}

#[cfg(test)]
mod tests;
