//! `market`: what computing costs.

use anyhow::Result;

use crate::cli::MarketCommand;
use crate::context::Context;

mod price;

/// Runs a `market` command.
pub async fn run(context: &Context, command: MarketCommand) -> Result<()> {
    match command {
        MarketCommand::Price(args) => price::run(context, args).await,
    }
}
