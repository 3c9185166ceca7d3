//! End-to-end tests: real processes or real nodes, real QUIC, the client library as a black box.
//!
//! - [`layers`]: which crate may use which, from `cargo metadata`;
//! - [`actors`]: each actor dies in the middle of a task;
//! - [`bad_input`]: what is wrong is refused by name, costs nothing and stops nobody;
//! - [`bench`]: the benchmarks of the ledger and the market count what the chain and the coordinator hold;
//! - [`deaths`]: members of a group die at every point of a step, and the others go on with it;
//! - [`joins`]: who comes back takes a lost place while the others train on;
//! - [`delegations`]: nodes work for whom the chain says;
//! - [`kills`]: a coordinator is killed again and again under load;
//! - [`lans`]: local networks far from each other, and the group that a task gets;
//! - [`liars`]: miners that lie are found by control tasks, and pay for it;
//! - [`life`]: a task whose miners are killed or stopped, or whose client is gone;
//! - [`ledger`]: payments, proofs, copies and audits by the commands;
//! - [`local`]: training without a network: what a run leaves, goes on from, and refuses;
//! - [`processes`]: the demo, and nodes that die as in a power cut and are started again;
//! - [`reconnect`]: 500 miners are back soon after their coordinator;
//! - [`selftest`]: a miner shows that it computes rightly, and how fast, before it joins;
//! - [`serve`]: sessions of calls to a model on a miner: who may call, what is paid, and who takes over;
//! - [`nodes`]: what the other tests start.

#![allow(clippy::unwrap_used, missing_docs)]

mod actors;
mod bad_input;
mod bench;
mod deaths;
mod delegations;
mod joins;
mod kills;
mod lans;
mod layers;
mod ledger;
mod liars;
mod life;
mod local;
mod nodes;
mod processes;
mod reconnect;
mod selftest;
mod serve;
