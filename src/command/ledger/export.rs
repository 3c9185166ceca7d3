//! `ledger export`: every transfer, one row each, in the chain's order.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use cryptomind_actors::ledger::folder;
use cryptomind_protocol::block::Block;
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::{ErrorBody, ReceiptId};
use serde::Serialize;
use serde_json::json;

use super::entry::TransferRow;
use crate::cli::{ExportForm, LedgerExportArgs};
use crate::context::Context;
use crate::output::Output;
use crate::{exit, moment};

const TEMPLATE: &str = "{elapsed_precise} {bar:32} block {pos} of {len}";

/// A transfer with its place and time.
#[derive(Debug, Serialize)]
struct Row {
    height: u64,
    time_ms: u64,
    time: String,
    receipt: ReceiptId,
    number: usize,
    payer: String,
    payee: String,
    base_units: u64,
    amount: String,
    reason: Reason,
    task: Option<String>,
    node: Option<String>,
}

fn rows(block: &Block) -> impl Iterator<Item = Row> + '_ {
    let header = &block.header;
    let entries = block.receipts.iter().zip(0u32..);
    entries.flat_map(move |(receipt, index)| {
        let numbered = receipt.transfers.iter().map(TransferRow::from).enumerate();
        numbered.map(move |(number, t)| Row {
            height: header.height,
            time_ms: header.time.as_ms(),
            time: moment::text(header.time),
            receipt: ReceiptId::at(header.height, index),
            number,
            payer: t.payer.to_string(),
            payee: t.payee.to_string(),
            base_units: t.amount.base_units(),
            amount: t.amount.to_string(),
            reason: t.reason,
            task: t.task.map(|task| task.to_string()),
            node: t.node.map(|node| node.to_string()),
        })
    })
}

/// Where the rows go. A file has its name only when it is whole.
struct Sink {
    form: Form,
    file: Option<(PathBuf, PathBuf)>,
    written: u64,
}

enum Form {
    Jsonl(BufWriter<Box<dyn Write>>),
    Csv(Box<csv::Writer<Box<dyn Write>>>),
}

impl Sink {
    fn open(args: &LedgerExportArgs) -> Result<Self> {
        let file = args
            .output
            .as_deref()
            .map(|file| (file.to_owned(), partial(file)));
        let out: Box<dyn Write> = match &file {
            Some((_, part)) => Box::new(File::create(part).map_err(|e| exit::file(part, &e))?),
            None => Box::new(std::io::stdout()),
        };
        let form = match args.form {
            ExportForm::Jsonl => Form::Jsonl(BufWriter::new(out)),
            ExportForm::Csv => Form::Csv(Box::new(csv::Writer::from_writer(out))),
        };
        Ok(Self {
            form,
            file,
            written: 0,
        })
    }

    fn put(&mut self, block: &Block) -> Result<()> {
        for row in rows(block) {
            match &mut self.form {
                Form::Jsonl(out) => {
                    serde_json::to_writer(&mut *out, &row).map_err(std::io::Error::from)?;
                    out.write_all(b"\n")?;
                }
                Form::Csv(out) => out.serialize(&row).map_err(std::io::Error::from)?,
            }
            self.written += 1;
        }
        Ok(())
    }

    fn finish(mut self, output: Output) -> Result<()> {
        match &mut self.form {
            Form::Jsonl(out) => out.flush()?,
            Form::Csv(out) => out.flush()?,
        }
        let Some((file, part)) = self.file else {
            return Ok(());
        };
        std::fs::rename(&part, &file).map_err(|e| exit::file(&file, &e))?;
        let written = self.written;
        output.value(&json!({ "path": file, "transfers": written }), || {
            format!("{written} transfers written to {}", file.display())
        })?;
        Ok(())
    }
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Exports the chain in a folder.
pub fn from_folder(output: Output, args: &LedgerExportArgs) -> Result<()> {
    let dir = args.dir.as_deref().unwrap_or(Path::new("."));
    let store = folder::open(dir)?;
    let bar = output.bar(folder::height(&store)?, TEMPLATE);
    let mut sink = Sink::open(args)?;
    for block in folder::blocks(&store) {
        let block = block?;
        sink.put(&block)?;
        bar.set_position(block.header.height);
    }
    bar.finish_and_clear();
    sink.finish(output)
}

/// Exports the chain that a coordinator has, up to its present height.
pub async fn from_coordinator(context: &Context, args: &LedgerExportArgs) -> Result<()> {
    let client = context.client().await?;
    let last = client.ledger().await?.height;
    let bar = context.output.bar(last, TEMPLATE);
    let mut sink = Sink::open(args)?;
    let mut blocks = client.follow(0);
    loop {
        let ended = || ErrorBody::network("unreachable", "the stream of blocks ended early");
        let block = blocks.next().await.ok_or_else(ended)??;
        sink.put(&block)?;
        bar.set_position(block.header.height);
        if block.header.height >= last {
            break;
        }
    }
    bar.finish_and_clear();
    sink.finish(context.output)
}
