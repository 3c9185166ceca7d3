//! The stores as their users see them: what was acknowledged is there, whatever happens to the
//! process or the disk.
#![allow(clippy::unwrap_used)]

mod backend;
mod blobs;
mod chain;
mod crash;
mod damage;
mod faults;
mod matrix;
mod money;
mod state;
mod trace;
