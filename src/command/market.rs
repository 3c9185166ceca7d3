//! `market`: what computing costs, and what the market would do.

use anyhow::Result;

use crate::cli::MarketCommand;
use crate::context::Context;

mod honesty;
mod price;
mod runs;
mod simulate;

pub use honesty::run as honesty;
pub use simulate::run as simulate;

/// Runs a `market` command.
pub async fn run(context: &Context, command: MarketCommand) -> Result<()> {
    match command {
        MarketCommand::Price(args) => price::run(context, args).await,
        MarketCommand::Runs(args) => runs::run(context, args).await,
        MarketCommand::Simulate(args) => simulate(context.output, args).await,
        MarketCommand::Honesty(args) => honesty(context.output, args).await,
    }
}
