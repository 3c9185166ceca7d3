//! Entries of the chain for people: who signed what, what was decided, what moved.

use anyhow::Result;
use cryptomind_core::consensus::{Consensus as _, Solo};
use cryptomind_core::ledger::system_names;
use cryptomind_protocol::block::{Block, Decision, Entry, Receipt, ReceiptFile, Transfer};
use cryptomind_protocol::task::Reason;
use cryptomind_protocol::transaction::{Action, Outcome, Transaction};
use cryptomind_protocol::{AccountId, Amount, NodeId, PublicKey, ReceiptId, TaskId, codec};
use serde::Serialize;
use serde_json::json;

use crate::moment;
use crate::output::{Output, Tone, table};

/// An entry as it is shown.
#[derive(Debug, Serialize)]
pub struct EntryView {
    /// Where in the chain.
    pub receipt: ReceiptId,
    /// In a few words.
    pub what: String,
    /// The account whose transaction it carries.
    pub by: Option<AccountId>,
    /// The key that signed.
    pub signer: Option<PublicKey>,
    /// The transaction.
    pub transaction: Option<Transaction>,
    /// What the coordinator decided with it.
    pub decisions: Vec<Decision>,
    /// What the account was answered.
    pub outcome: Option<Outcome>,
    /// What it moved.
    pub transfers: Vec<TransferRow>,
}

impl EntryView {
    /// ` by cm1…`, where an account signed.
    pub fn signed_by(&self) -> String {
        self.by
            .map_or_else(String::new, |by| format!(", signed for {by}"))
    }

    fn cells(&self) -> Vec<String> {
        let moved = Amount::sum(self.transfers.iter().map(|t| t.amount));
        vec![
            self.receipt.to_string(),
            self.what.clone(),
            self.by.map(|by| by.to_string()).unwrap_or_default(),
            moved.map(|moved| moved.to_string()).unwrap_or_default(),
        ]
    }
}

/// A transfer as it is shown, and exported.
#[derive(Debug, Clone, Serialize)]
pub struct TransferRow {
    /// From.
    pub payer: AccountId,
    /// To.
    pub payee: AccountId,
    /// How much.
    pub amount: Amount,
    /// What for.
    pub reason: Reason,
    /// The task whose hold paid.
    pub task: Option<TaskId>,
    /// The node that did the work.
    pub node: Option<NodeId>,
}

impl From<&Transfer> for TransferRow {
    fn from(t: &Transfer) -> Self {
        Self {
            payer: t.payer,
            payee: t.payee,
            amount: t.amount,
            reason: t.reason,
            task: t.task,
            node: t.node,
        }
    }
}

impl TransferRow {
    /// Above the cells.
    pub const HEADER: [&'static str; 5] = ["amount", "from", "to", "why", "task"];

    /// For a table.
    pub fn cells(&self) -> Vec<String> {
        vec![
            self.amount.to_string(),
            name(&self.payer),
            name(&self.payee),
            self.reason.to_string(),
            self.task.map(|task| task.to_string()).unwrap_or_default(),
        ]
    }
}

/// A system account's name, anybody else's id: names of people are not in the chain's state, and are not proven.
fn name(account: &AccountId) -> String {
    let system = system_names().find(|name| AccountId::of_system(name) == *account);
    system.map_or_else(|| account.to_string(), str::to_owned)
}

/// An entry for showing. Its signature is the caller's to check.
pub fn view(receipt: ReceiptId, entry: &Entry, done: &Receipt) -> EntryView {
    let signed = entry.transaction.as_ref();
    let transaction: Option<Transaction> = signed.and_then(|s| codec::decode(&s.payload).ok());
    let mut what: Vec<String> = Vec::new();
    what.extend(transaction.as_ref().map(|t| action(&t.action)));
    what.extend(entry.decisions.iter().map(decision));
    EntryView {
        receipt,
        what: what.join("; "),
        by: transaction.as_ref().map(|t| t.account),
        signer: signed.map(|s| s.signer),
        transaction,
        decisions: entry.decisions.clone(),
        outcome: done.outcome.clone(),
        transfers: done.transfers.iter().map(TransferRow::from).collect(),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Register { nickname } => format!("takes the name {nickname}"),
        Action::Faucet {} => "asks for test money".into(),
        Action::Send { to, amount } => format!("sends {amount} to {to}"),
        Action::Publish { manifest, .. } => format!("publishes {}", manifest.name),
        Action::Post { spec } => format!("posts the task {}", spec.name),
        Action::Cancel { task } => format!("cancels {task}"),
        Action::Rate { task, stars } => format!("gives {task} {stars} stars"),
        Action::RotateKey { key, .. } => format!("signs with {key} from now on"),
        Action::Delegate {
            node,
            role,
            expires,
        } => {
            let until = moment::text(*expires);
            format!("lets {node} work for it as a {role} until {until}")
        }
        Action::Revoke { node } => format!("lets {node} work for it no longer"),
    }
}

fn decision(decision: &Decision) -> String {
    match decision {
        Decision::Mint {} => "the supply is minted".into(),
        Decision::Due {} => "what is due happens".into(),
        Decision::OpenHold { terms } => {
            format!(
                "a hold is opened, until {} UTC",
                moment::text(terms.expires)
            )
        }
        Decision::Earn {
            task, checkpoint, ..
        } => format!("checkpoint {checkpoint} of {task} is earned"),
        Decision::Settle { task, .. } => format!("{task} is settled"),
        Decision::Forfeit { node, task, .. } => {
            format!("{node} answered {task} wrongly: what is withheld of its owner's is forfeited")
        }
    }
}

/// A block with its entries.
pub fn show_block(output: Output, block: Block) -> Result<()> {
    let (header, count) = (&block.header, block.header.count);
    let entries = block.entries.iter().zip(&block.receipts).zip(0..count);
    let at = |index| ReceiptId::at(header.height, index);
    let entries = entries.map(|((entry, receipt), index)| view(at(index), entry, receipt));
    let entries: Vec<EntryView> = entries.collect();
    let makers: Vec<&PublicKey> = block
        .certificate
        .signatures
        .iter()
        .map(|(key, _)| key)
        .collect();
    let is_final =
        |maker: &&PublicKey| Solo::follower(**maker).is_final(header, &block.certificate);
    let signed: Vec<&PublicKey> = makers.into_iter().filter(is_final).collect();
    let shown = json!({
        "hash": header.hash(), "header": header, "signed_by": signed, "entries": entries,
    });
    output.value(&shown, || {
        let by = signed.iter().map(ToString::to_string);
        let by: Vec<String> = by.collect();
        let heading = output.paint(Tone::Strong, &format!("block {}", header.height));
        let rows = entries.iter().map(EntryView::cells);
        format!(
            "{heading}\nhash       {}\nparent     {}\ntime       {} UTC\nstate      {}\nsigned by  {}\n\
             entries    {count}, {} in the chain up to here\n\n{}",
            header.hash(),
            header.parent,
            moment::text(header.time),
            header.state,
            by.join(", "),
            header.total,
            table(&["entry", "what", "signed for", "moved"], rows),
        )
    })?;
    Ok(())
}

/// One entry, with what it moved.
pub fn show_entry(output: Output, file: &ReceiptFile) -> Result<()> {
    let view = view(file.id, &file.entry, &file.receipt);
    let header = &file.header;
    let mut shown = serde_json::to_value(&view)?;
    shown["height"] = json!(header.height);
    shown["time"] = json!(header.time);
    shown["block"] = json!(header.hash());
    output.value(&shown, || {
        format!(
            "{}{}\nreceipt  {}\nblock    {} ({})\ntime     {} UTC\n\n{}",
            view.what,
            view.signed_by(),
            view.receipt,
            header.height,
            header.hash(),
            moment::text(header.time),
            table(
                &TransferRow::HEADER,
                view.transfers.iter().map(TransferRow::cells)
            ),
        )
    })?;
    output.note(format!(
        "keep the proof: cryptomind wallet receipt {} -o FILE",
        view.receipt
    ))?;
    Ok(())
}
