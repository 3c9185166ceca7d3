//! `cryptomind bench …`: benchmarks and endurance runs of parts of this software, on this machine.
//!
//! What is measured is the real thing: a coordinator in a process of its own, started as an operator starts it,
//! and clients that use the client library over QUIC. A benchmark prints one JSON object, with the baseline of
//! the same run beside each figure, or a small table for people.

use anyhow::Result;

use crate::cli::bench::BenchCommand;
use crate::context::Context;

mod arrivals;
mod calls;
mod coordinator;
mod cores;
mod crowd;
mod disk;
mod escrow;
mod infer;
mod infer_local;
pub mod kills;
mod latency;
mod ledger;
mod load;
mod market;
mod matching;
mod member;
mod netns;
mod promise;
mod quality;
mod rank;
mod recovery;
mod ring;
mod scale;
mod shapes;
mod shown;
mod train;
mod usage;

/// Runs a benchmark. Ctrl-C ends it, and its processes.
pub async fn run(context: &Context, command: BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Ledger(args) => ledger::run(context.output, args).await,
        BenchCommand::Market(args) => market::run(context.output, args).await,
        BenchCommand::Infer(args) => infer::run(context.output, args).await,
        BenchCommand::Promise(args) => promise::run(context.output, args).await,
        BenchCommand::Ring(args) => ring::run(context.output, args).await,
        BenchCommand::RingMember(args) => ring::member(args).await,
        BenchCommand::Scale(args) => scale::run(context.output, args).await,
        BenchCommand::ScaleMember(args) => scale::member(args).await,
        BenchCommand::Train(args) => train::run(context.output, args).await,
        BenchCommand::InferLocal(args) => infer_local::run(context.output, args).await,
        BenchCommand::Quality(args) => quality::run(context.output, args).await,
        BenchCommand::QualityMember(args) => quality::member(args).await,
        BenchCommand::Kills(args) => kills::run(context.output, args).await,
    }
}
