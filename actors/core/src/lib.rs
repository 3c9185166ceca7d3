//! cryptomind-core
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ring;
