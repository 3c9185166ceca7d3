//! `cryptomind bench …`: benchmarks and endurance runs of a part of this software on this machine.
//!
//! What runs is the real thing: a coordinator in a process of its own, and clients that use the client library over
//! QUIC. A benchmark prints one JSON object, or a small table for people.

use anyhow::Result;

use crate::cli::BenchCommand;
use crate::context::Context;

pub mod kills;

/// Runs a benchmark. Ctrl-C ends it, and its processes.
pub async fn run(context: &Context, command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Kills(args) => kills::run(context.output, args).await,
    }
}
