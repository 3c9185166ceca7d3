//! What is decided: money, price, ratings, the catalog, the order of samples.
//!
//! Every decision is a function of state, input and time: `now` and seeds are arguments, and what
//! comes back is the changed records or a refusal. Nothing here reads a clock, draws randomness,
//! waits, or touches a disk or a network; so money is property-tested without a runtime, and a
//! simulation, an `explain` command and the market run the same lines.
//!
//! Reading order: [`ledger`] (who has what), [`price`] (what a task costs and when its parts are
//! earned), [`batch`] (which samples a step trains on, and which of them a rank takes), [`rating`], [`check`] (how often
//! miners are checked, and who is to blame), [`exposure`] (how much unproven work an owner may hold),
//! [`catalog`], [`transaction`]; then [`run`] (the life of a task), [`posting`] (who may post one), [`serve`] (what of a session
//! counts), [`audit`] (which commitments to steps are), [`selftest`] (which miners are let in) and [`market`] (who is chosen);
//! [`journal`] is what else the coordinator writes down. [`merkle`] and [`state_hash`] are the two hashes
//! of many things that a block's header names; [`dice`] is randomness that a seed determines.
//!
//! The actors of `cryptomind-actors` own one of these states each, apply inputs in turn, store the
//! changed records with `cryptomind-storage`, and only then answer.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod audit;
pub mod batch;
pub mod block_clock;
pub mod catalog;
pub mod chain;
pub mod check;
pub mod consensus;
pub mod control;
pub mod dice;
pub mod division;
pub mod exposure;
pub mod journal;
pub mod ledger;
pub mod market;
pub mod member;
pub mod merkle;
pub mod posting;
pub mod price;
pub mod rating;
pub mod receipt;
pub mod ring;
pub mod run;
pub mod selftest;
pub mod serve;
pub mod simulation;
pub mod state_hash;
pub mod succession;
pub mod transaction;
