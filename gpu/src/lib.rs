//! Engines: what turns a model, a dataset and hyper-parameters into trained weights and answers.
//!
//! A [`session::Session`] trains: it computes gradient sums into one flat arena in the canonical
//! order of [`ModelSpec::parameters`], takes the arena back once a ring has summed it over all
//! members, and updates a shadow that becomes the state when every member has confirmed the step.
//! [`inference::Model`] runs trained weights and says how good they are; [`dataset`] reads what both work on;
//! [`devices`], [`memory`] and [`bench`] say what a machine has and how fast it is, [`selftest`] whether it computes
//! rightly, [`determinism`] whose bits its own equal; [`agreement`] says whether two models are the same work.
//!
//! From a model to its numbers: `graph` makes it a list of operations on numbered values, `plan` gives
//! each value its buffer, `node` calls the [`kernel`] of an operation, `forward` and `network` go over
//! the list. All of that is known before the first step: nothing is recorded, and after it nothing allocated.
//! [`engine`] is where other hardware would come in.
//!
//! Every call blocks and belongs on a thread of its caller. Nothing here knows of networks, tasks
//! or money, and no clock but those of [`bench`], [`profile`] and [`selftest`] are read. On one machine the same inputs
//! give the same bits, whatever the number of threads.
//!
//! The matrix products are those of `gemm`, the library below candle's, called on the arenas
//! themselves, so that a weight's gradient is written where the ring reads it. candle, with its
//! autograd and optimizers, is the oracle of the tests; its own layers are 5 to 10 times slower in a
//! training step, and some of them lose gradients silently.
//!
//! [`ModelSpec::parameters`]: cryptomind_protocol::model::ModelSpec::parameters

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

pub mod agreement;
pub mod bench;
pub mod dataset;
pub mod determinism;
pub mod devices;
pub mod digits;
pub mod engine;
pub mod error;
pub mod inference;
pub mod kernel;
pub mod memory;
pub mod profile;
pub mod selftest;
pub mod session;

mod bucket;
mod filling;
mod forward;
mod goal;
mod gradient;
mod graph;
mod initial;
mod network;
mod node;
mod optimizer;
mod plan;
mod product;
mod random;
mod root;
mod scaling;
mod team;
#[cfg(test)]
mod traps;
mod weights;

pub use bucket::{Bucket, OnBucket};
pub use error::EngineError;
pub use goal::Evaluation;
pub use scaling::Scaling;
