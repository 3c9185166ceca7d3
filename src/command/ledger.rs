//! `ledger`: the chain, looked at, checked and copied.
//!
//! What is checked is checked by `cryptomind-core` and by the replica and the audit in `cryptomind-actors`; here is what
//! is asked and how it is shown.

use anyhow::Result;
use cryptomind_config::{Coordinator, load};
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::api::LedgerStatus;
use serde_json::json;

use crate::cli::{Global, LedgerCommand};
use crate::context::Context;
use crate::output::Output;
use crate::{moment, roles};

mod entry;
mod export;
mod follow;
mod receipt_file;
mod verify;

pub use receipt_file::{check as check_receipt, save as save_receipt};

/// Runs a `ledger` command that asks a coordinator.
pub async fn run(context: &Context, command: LedgerCommand) -> Result<()> {
    match command {
        LedgerCommand::Status => status(context).await,
        LedgerCommand::Block { height } => {
            let block = context.client().await?.block(height).await?;
            entry::show_block(context.output, block)
        }
        LedgerCommand::Tx { receipt } => {
            let client = context.client().await?;
            let file = client.receipt(receipt).await?;
            receipt_file::check(&file, &client.network())?;
            entry::show_entry(context.output, &file)
        }
        LedgerCommand::Export(args) => export::from_coordinator(context, &args).await,
        LedgerCommand::Follow(args) => follow::run(context, &args).await,
        LedgerCommand::Verify { .. } | LedgerCommand::VerifyReceipt { .. } => {
            Err(ErrorBody::internal("this command asks no coordinator").into())
        }
    }
}

/// Runs a `ledger` command that needs nobody else, see [`LedgerCommand::is_offline`].
pub fn run_offline(output: Output, global: &Global, command: LedgerCommand) -> Result<()> {
    tokio::task::block_in_place(|| match command {
        LedgerCommand::Verify { dir } => {
            let dir = dir.map_or_else(|| coordinators_folder(global), Ok)?;
            verify::run(output, &dir)
        }
        LedgerCommand::VerifyReceipt { file, genesis } => {
            receipt_file::verify(output, &file, &genesis)
        }
        LedgerCommand::Export(args) => export::from_folder(output, &args),
        _ => Err(ErrorBody::internal("this command asks a coordinator").into()),
    })
}

fn coordinators_folder(global: &Global) -> Result<std::path::PathBuf> {
    let config: Coordinator = load(&roles::layers("coordinator", global))?.value;
    Ok(config.node.data_dir)
}

async fn status(context: &Context) -> Result<()> {
    let status = context.client().await?.ledger().await?;
    let per_entry = status.disk_bytes.checked_div(status.entries).unwrap_or(0);
    let mut value = serde_json::to_value(&status)?;
    value["disk_bytes_per_entry"] = json!(per_entry);
    context
        .output
        .value(&value, || status_text(&status, per_entry))?;
    Ok(())
}

fn status_text(status: &LedgerStatus, per_entry: u64) -> String {
    format!(
        "network     {}\nengine      {}, tolerates {} failures\nheight      {}\ntime        {} UTC\nhead        {}\n\
         state       {}\nentries     {}\naccounts    {}\nopen holds  {}, of {}\nlocks       {}\nsupply      {}\n\
         on disk     {} bytes, {per_entry} an entry; {} syncs since the start",
        status.network,
        status.engine,
        status.tolerates,
        status.height,
        moment::text(status.time),
        status.head,
        status.state,
        status.entries,
        status.accounts,
        status.open_holds,
        status.held,
        status.locks,
        status.supply,
        status.disk_bytes,
        status.syncs,
    )
}
