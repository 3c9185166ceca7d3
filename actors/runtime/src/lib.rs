//! The actors that join decisions to the world. No market rule lives here: `cryptomind-core` decides,
//! these carry.
//!
//! Three nodes: [`coordinator`], [`miner`], [`storage`]. Their actors: [`ledger`], [`rating`], [`catalog`],
//! [`matchmaker`], [`control`] at the coordinator, [`idle`] and the GPU worker at the miner; [`supervisor`] restarts what fails.
//! [`back_off`], [`enrol`] and [`transfer`] are what nodes share.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod back_off;
mod cache;
pub mod catalog;
mod clock;
pub mod control;
pub mod coordinator;
pub mod enrol;
pub mod idle;
pub mod ledger;
pub mod matchmaker;
pub mod miner;
pub mod rating;
pub mod storage;
pub mod supervisor;
pub mod transfer;
