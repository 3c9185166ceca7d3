//! What each command does: it asks the client library and prints the answer.
//!
//! One file a noun. Rules live elsewhere: what is refused is refused by the coordinator or by the
//! checks of `protocol` and `config`.

use anyhow::Result;

use crate::cli::Command;
use crate::context::Context;
use crate::exit;

pub mod check;
mod completions;
mod config;
pub mod data;
mod dataset;
pub mod doctor;
pub mod files;
mod key;
mod ledger;
mod market;
mod miner;
mod model;
mod network;
mod run_local;
pub mod serve;
pub mod task;
mod wallet;

pub use completions::print as completions;
pub use config::run as config;
pub use ledger::run_offline as ledger_offline;
pub use market::{honesty, simulate};
pub use miner::stars;

/// Runs a command that needs a network. Ctrl-C ends it.
pub async fn run(context: &Context, command: Command) -> Result<()> {
    match command {
        // These follow tasks, and have something to say when they are interrupted.
        Command::Task(command) => task::run(context, command).await,
        Command::Model(command) => model::run(context, command).await,
        Command::Register { nickname } => interruptible(wallet::register(context, &nickname)).await,
        Command::Wallet(command) => interruptible(wallet::run(context, command)).await,
        Command::Ledger(command) => interruptible(ledger::run(context, command)).await,
        Command::Dataset(command) => interruptible(dataset::run(context, command)).await,
        Command::Miner(command) => interruptible(miner::run(context, command)).await,
        Command::Market(command) => interruptible(market::run(context, command)).await,
        Command::Network(command) => interruptible(network::run(context, command)).await,
        Command::Key(command) => key::run(context, command).await,
        Command::Doctor
        | Command::Config(_)
        | Command::Completions { .. }
        | Command::Bench(_)
        | Command::Demo(_)
        | Command::Dev(_) => Err(exit::interrupted("this command needs no network").into()),
    }
}

/// `work`, or the error of a user who pressed Ctrl-C.
pub async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(exit::interrupted("interrupted").into()),
    }
}
