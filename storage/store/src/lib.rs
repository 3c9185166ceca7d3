//! State that must survive: typed records in redb, and blobs as files with an index in redb.
//!
//! - [`state`] is the coordinator's: small records, many to one transaction, durable before anyone
//!   hears of them.
//! - [`blobs`] is a storage node's: files under their hash, verified on the way in and out.
//!
//! Every call blocks on the disk, except [`state::StateStore::commit`], which hands its batch to a
//! thread. This crate knows no network, no actor and no rule of the market.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod blobs;
mod catalog;
pub mod chain;
pub mod error;
mod journal;
mod ledger;
mod price;
pub mod run;
pub mod state;

pub use error::StoreError;
