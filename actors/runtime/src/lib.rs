//! The actors that join decisions to the world. No market rule lives here: `cryptomind-core` decides,
//! these carry.
//!
//! [`supervisor`] restarts what fails; [`idle`] is the owner's own program; [`miner`] is a miner.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod idle;
pub mod supervisor;
