//! What travels between Cryptomind's processes: ids, money, messages, their CBOR codec and their signatures.
//!
//! Every other crate speaks in these types. This crate does no I/O, reads no clock and draws no
//! randomness: bytes come in, values or refusals come out.
//!
//! Reading order: [`id`], [`money`], [`codec`], [`signed`], [`hello`], then the messages by door:
//! [`api`] (clients), [`node`] (miners and storage nodes), [`blob`] (bytes), [`ring`] (gradients), [`succession`]
//! (members among themselves), [`follow`] (newcomers to a group), [`probe`] (distances),
//! [`serve`] (sessions of single calls), [`audit`] (what ranks sign of their steps).
//! `cryptomind.cddl` beside this crate describes the same messages for other languages; a test
//! checks one against the other.

pub mod address;
pub mod api;
pub mod audit;
pub mod batch;
pub mod blob;
pub mod block;
pub mod codec;
pub mod error;
pub mod follow;
pub mod frame;
pub mod genesis;
pub mod hello;
pub mod id;
pub mod item;
pub mod key;
pub mod model;
pub mod money;
pub mod node;
pub mod price;
pub mod probe;
pub mod rating;
pub mod ring;
pub mod role;
pub mod selftest;
pub mod serve;
pub mod signed;
pub mod speed;
pub mod succession;
pub mod task;
pub mod time;
pub mod timeline;
pub mod train;
pub mod transaction;

pub use address::NodeAddress;
pub use error::{ErrorBody, ErrorClass};
pub use id::{AccountId, BlobId, GenesisHash, ItemId, NodeId, ReceiptId, TaskId};
pub use key::{PublicKey, SecretKey, Signature};
pub use money::Amount;
pub use signed::Signed;
pub use time::Timestamp;
