//! `market runs`: what miners achieved in past runs, as a table, JSON lines or CSV.

use anyhow::Result;
use cryptomind_protocol::api::RunKey;
use cryptomind_protocol::speed::RunStatistic;
use cryptomind_sdk::Client;

use crate::cli::RunsArgs;
use crate::command::miner::speed;
use crate::context::Context;
use crate::output::Output;
use crate::{exit, moment, resolve};

/// Rows of the table: the newest.
const SHOWN: usize = 20;
/// Operations a second in the unit of a speed.
const MFLOPS: u128 = 1_000_000;

/// Shows or exports them.
pub async fn run(context: &Context, args: RunsArgs) -> Result<()> {
    let client = context.client().await?;
    let node = match &args.node {
        Some(node) => {
            let miners = client.miners().await?;
            let nodes: Vec<_> = miners.iter().map(|miner| miner.node).collect();
            Some(resolve::node(node, &nodes)?)
        }
        None => None,
    };
    let mut pages = Pages {
        client,
        node,
        before: None,
    };
    match args.output {
        Some(file) => {
            let written = export(&mut pages, &file).await?;
            context
                .output
                .note(format!("{written} runs in {}", file.display()))?;
            Ok(())
        }
        None if context.output.is_json() => lines(context.output, &mut pages).await,
        None => table(context.output, &mut pages).await,
    }
}

/// All pages, newest first.
struct Pages<'a> {
    client: &'a Client,
    node: Option<cryptomind_protocol::NodeId>,
    before: Option<RunKey>,
}

impl Pages<'_> {
    /// The next one; an empty one is the last.
    async fn next(&mut self) -> Result<Vec<RunStatistic>> {
        let page = self.client.runs(self.node, self.before).await?;
        let last = page.last().map(|run| RunKey {
            at: run.at,
            task: run.task,
            node: run.node,
        });
        self.before = last.or(self.before);
        Ok(page)
    }
}

async fn export(pages: &mut Pages<'_>, file: &std::path::Path) -> Result<usize> {
    let opened = csv::Writer::from_path(file);
    let mut writer = opened.map_err(|e| exit::file(file, &std::io::Error::other(e)))?;
    let mut written = 0;
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            writer.flush()?;
            return Ok(written);
        }
        for run in &page {
            writer.serialize(run)?;
        }
        written += page.len();
    }
}

async fn lines(output: Output, pages: &mut Pages<'_>) -> Result<()> {
    loop {
        let page = pages.next().await?;
        if page.is_empty() {
            return Ok(());
        }
        page.iter().try_for_each(|run| output.json_line(run))?;
    }
}

async fn table(output: Output, pages: &mut Pages<'_>) -> Result<()> {
    let mut page = pages.next().await?;
    page.truncate(SHOWN);
    let header = [
        "ended (UTC)",
        "node",
        "task",
        "work",
        "engine",
        "step",
        "computed",
        "speed",
    ];
    let row = |run: &RunStatistic| {
        vec![
            moment::text(run.at),
            run.node.short(),
            run.task.short(),
            run.kind.to_string(),
            run.engine.to_string(),
            format!("2^{} flop", run.step.size_class()),
            moment::duration(run.ms),
            speed(mflops(run)),
        ]
    };
    output.rows(&page, &header, row, "no run has ended yet")?;
    Ok(())
}

/// Of the time that it computed.
fn mflops(run: &RunStatistic) -> u64 {
    let per_s = u128::from(run.flops) * 1000 / u128::from(run.ms.max(1));
    u64::try_from(per_s / MFLOPS).unwrap_or(u64::MAX)
}
