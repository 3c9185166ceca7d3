//! What travels, held against what is promised about it: `cryptomind.cddl` describes every message, golden
//! vectors pin the bytes, and an independent decoder reads them.

#![allow(clippy::unwrap_used)]

mod cddl;
mod golden;
mod message;
mod samples;
