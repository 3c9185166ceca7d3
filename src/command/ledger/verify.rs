//! `ledger verify`: a stored chain, carried out again.

use std::path::Path;

use anyhow::Result;
use cryptomind_actors::ledger::audit::{Fault, Report, audit};
use cryptomind_actors::ledger::folder;
use cryptomind_protocol::ErrorBody;
use serde_json::json;

use crate::moment;
use crate::output::Output;

const TEMPLATE: &str = "{elapsed_precise} {bar:32} block {pos} of {len}";

/// Audits the chain in a folder and says what it holds, or where it does not hold.
pub fn run(output: Output, dir: &Path) -> Result<()> {
    let report = checked(output, dir)?;
    output.value(&json_of(&report)?, || text(&report))?;
    Ok(())
}

fn checked(output: Output, dir: &Path) -> Result<Report, ErrorBody> {
    let store = folder::open(dir)?;
    let bar = output.bar(folder::height(&store).unwrap_or(0), TEMPLATE);
    let found = audit(&store, |height| bar.set_position(height));
    bar.finish_and_clear();
    found.map_err(|fault| {
        tell(output, &fault);
        fault.into()
    })
}

/// For programs: the height as a number of its own.
fn tell(output: Output, fault: &Fault) {
    let found = json!({ "ok": false, "fault_at": fault.height, "reason": fault.what });
    if output.is_json() {
        // That nobody reads it is no reason to say less on standard error.
        drop(output.json_line(&found));
    }
}

fn json_of(report: &Report) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(report)?;
    value["ok"] = json!(true);
    Ok(value)
}

fn text(report: &Report) -> String {
    format!(
        "every block holds, and what is stored is what they leave\n\
         network       {} ({})\nblocks        {}, of {} bytes\nentries       {}, of them {} transactions\n\
         from          {} UTC\nto            {} UTC\nhead          {}\nstate         {}\n\
         supply        {}\nheld          {} in {} open holds\nlocked        {}\naccounts      {}\n\
         on disk       {} bytes\ntook          {}",
        report.name,
        report.network,
        report.blocks,
        report.block_bytes,
        report.entries,
        report.transactions,
        moment::text(report.first),
        moment::text(report.last),
        report.head,
        report.state,
        report.supply,
        report.held,
        report.open_holds,
        report.locked,
        report.accounts,
        report.disk_bytes,
        moment::duration(report.took_ms),
    )
}
