//! `network`: what it is and how it is.

use anyhow::Result;
use cryptomind_protocol::api::NetworkStatus;

use crate::cli::NetworkCommand;
use crate::context::Context;

/// Runs a `network` command.
pub async fn run(context: &Context, command: NetworkCommand) -> Result<()> {
    let NetworkCommand::Status = command;
    let status = context.client().await?.status().await?;
    context.output.value(&status, || text(&status))?;
    Ok(())
}

fn text(status: &NetworkStatus) -> String {
    let fee = f64::from(status.genesis.fees.network_fee_ppm) / 10_000.0;
    format!(
        "network        {} ({:?})\nid             {}\nminers         {} online, {} free\n\
         storage nodes  {} online\nopen tasks     {}\nsupply         {}, of it held {}\n\
         price          {} a CU (10^12 floating-point operations)\nnetwork fee    {fee} %",
        status.genesis.name,
        status.genesis.kind,
        status.network,
        status.miners,
        status.miners_free,
        status.storage_nodes,
        status.open_tasks,
        status.supply,
        status.held,
        status.unit_price,
    )
    .replace("(Development)", "(development: test money)")
    .replace("(Main)", "(main)")
}
