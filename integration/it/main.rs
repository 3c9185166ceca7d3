//! End-to-end tests: real processes or real nodes, real QUIC, the client library as a black box.
//!
//! - [`layers`]: which crate may use which, from `cargo metadata`;
//! - [`actors`]: each actor dies in the middle of a task;
//! - [`nodes`]: what the other tests start.

#![allow(clippy::unwrap_used, missing_docs)]

mod actors;
mod layers;
mod nodes;
