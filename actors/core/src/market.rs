//! The market: what is known of miners and their links, what a task asks for, and who is chosen.
//!
//! **Owned by** the coordinator: it has the links measured as [`survey`] says and feeds [`link::Links`] with what nodes
//! report; its matchmaker feeds [`speed::Speeds`], and hands a [`link::LinkTable`] to [`Run::apply`](crate::run::Run::apply) as part of the [`Surroundings`].
//! Quotes and explanations call the same [`select()`].
//!
//! Reading order: [`workload`] (what a task asks of a group), [`candidate`] (what a miner can do), [`link`] and [`speed`]
//! (what that rests on), [`expectation`] (how long a group takes), [`select`](mod@select) (who is chosen), [`verdict`]
//! (why, and why not). Whom the matchmaker asks at all says [`shortlist`].
//!
//! **Invariants**: a choice is a function of candidates, links and request, whatever their order; nothing that a node says
//! of itself alone makes it look better than its silence; floating point numbers are times and scores, never money.
//!
//! **Is not**: the life of a task ([`run`](crate::run)), prices ([`price`](crate::price)), ratings
//! ([`rating`](crate::rating)).

mod advice;
pub mod candidate;
pub mod endurance;
pub mod expectation;
pub mod link;
mod offer;
pub mod past;
mod quote;
pub mod rental;
mod ring_order;
mod ring_share;
mod search;
pub mod select;
pub mod shortlist;
mod slowest;
pub mod speed;
pub mod survey;
pub mod verdict;
pub mod waits;
pub mod warmth;
pub mod workload;

pub use advice::Advice;
pub use candidate::{Ability, Availability, Candidate};
pub use expectation::{Expectation, expect};
pub use offer::Offer;
pub use past::Past;
pub use quote::{Known, quote};
pub use ring_order::ring_order;
pub use select::{MatchReport, Preference, Surroundings, Wanted, gate, select};
pub use survey::Survey;
pub use verdict::{Gate, Score, Verdict};
pub use workload::Workload;
