//! The client library: what the command line, the REPL and third parties use to work with a network.
//!
//! [`Client`] speaks the public API `cryptomind/1` with a coordinator, `cryptomind-blob/1` with storage nodes and
//! `cryptomind-serve/1` with the miners of its sessions, and nothing else: whatever it can do, any other client can do.
//!
//! - A lost connection is dialled again, with back-off, for as long as [`Limits::patience`] says.
//! - Reads are simply asked again. A transaction is signed once and sent again as the same bytes:
//!   the coordinator gives the first answer to every copy, so nothing happens twice.
//! - [`Watch`] hands out each event of a task once and in order, over any number of connections.
//! - Files are verified chunk by chunk in both directions, and an interrupted download goes on
//!   where it ended.
//!
//! ```no_run
//! # async fn example() -> Result<(), cryptomind_sdk::ErrorBody> {
//! use cryptomind_sdk::{Client, NodeAddress, SecretKey};
//!
//! let coordinator: NodeAddress = "cm://cmn1…@127.0.0.1:7700".parse().unwrap();
//! let key: SecretKey = std::fs::read_to_string("my.key").unwrap().parse().unwrap();
//! let client = Client::connect(coordinator, key).await?;
//! println!("{} free", client.my_account().await?.available);
//! # Ok(())
//! # }
//! ```
//!
//! It is not: a wallet (it never writes a key), a cache, or a place for rules of the market.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod blocks;
mod client;
mod link;
mod random;
mod retry;
mod serve;
mod transfer;
mod watch;

pub use blocks::Blocks;
pub use client::{Client, DEFAULT_VALIDITY_MS};
pub use cryptomind_protocol as protocol;
pub use cryptomind_protocol::{
    AccountId, Amount, ErrorBody, ErrorClass, ItemId, NodeAddress, NodeId, SecretKey, TaskId,
};
pub use link::Limits;
pub use random::{new_key, new_nonce};
pub use serve::{Answer, News, Session, Standing, serving};
pub use transfer::Progress;
pub use watch::Watch;
