//! Configuration and task files: TOML to checked types, with the line of whatever is wrong.
//!
//! Roles read [`Coordinator`], [`Miner`], [`Storage`] or [`Client`] by [`load`]; the command line reads
//! [`TaskFile`]s, [scenarios](read_scenario) and [`key`] files. A setting comes from the strongest of these layers that has it: explicit
//! overrides, the environment (`CRYPTOMIND_<SECTION>_<KEY>`), the file, what the caller knows of the
//! platform, the built-in default. Unknown keys, wrong types and impossible values are refused, never
//! ignored: an operator who mistypes a limit must hear of it.
//!
//! Not here: reading the environment for anything but these layers, resolving names of the catalog,
//! the network, a clock, randomness (keys are made of bytes that the caller drew).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod convert;
mod coordinator;
mod document;
mod error;
pub mod key;
mod layers;
mod miner;
mod nearest;
mod node;
mod reader;
mod rental;
mod sample;
mod scenario;
mod storage;
pub mod task;

pub use client::{Client, Format};
pub use convert::PortRange;
pub use coordinator::{Allocations, Coordinator, Faucet, Limits, Market, Network};
pub use error::ConfigError;
pub use layers::{Layers, Loaded, Origin, Settings, load};
pub use miner::{
    Asking, Cache, Compute, Idle, Miner, Probe, ProbePort, Ring, RingProfile, Selftest,
};
pub use node::{CoordinatorNode, MinerNode, StorageNode};
pub use reader::Reader;
pub use rental::Card;
pub use sample::{SampleError, fill_sample};
pub use scenario::read_scenario;
pub use storage::{Storage, Store};
pub use task::TaskFile;

#[cfg(test)]
mod tests;
