//! What travels, held against what is promised about it: `cryptomind.cddl` describes every message, golden
//! vectors pin the bytes, and an independent decoder reads them. Changed blocks and forged signatures are
//! noticed.

#![allow(clippy::unwrap_used)]

mod block;
mod cddl;
mod forgery;
mod golden;
mod message;
mod samples;
