//! `register` and `wallet`: the account and its tokens.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Result;
use cryptomind_protocol::api::{AccountView, TransferView};
use cryptomind_protocol::transaction::Action;
use cryptomind_protocol::{AccountId, Amount, ErrorBody, ReceiptId};
use serde_json::json;

use super::ledger;
use crate::cli::WalletCommand;
use crate::context::Context;
use crate::{moment, resolve};

/// Takes a nickname.
pub async fn register(context: &Context, nickname: &str) -> Result<()> {
    let client = context.client().await?;
    client.register(nickname).await?;
    let account = client.account_id();
    context
        .output
        .value(&json!({ "nickname": nickname, "account": account }), || {
            format!("{nickname} is {account}")
        })?;
    Ok(())
}

/// Runs a `wallet` command.
pub async fn run(context: &Context, command: WalletCommand) -> Result<()> {
    match command {
        WalletCommand::Balance => balance(context).await,
        WalletCommand::History { limit, before } => history(context, limit, before).await,
        WalletCommand::Faucet => faucet(context).await,
        WalletCommand::Send { to, amount, yes } => send(context, &to, amount, yes).await,
        WalletCommand::Receipt { receipt, output } => save_receipt(context, receipt, &output).await,
    }
}

async fn balance(context: &Context) -> Result<()> {
    let account = context.client().await?.my_account().await?;
    context.output.value(&account, || account_text(&account))?;
    Ok(())
}

fn account_text(account: &AccountView) -> String {
    let nickname = account.nickname.as_deref().unwrap_or("(no nickname)");
    let unlocks = account
        .unlocks
        .map(|at| format!(", the next part until {} UTC", moment::text(at)));
    format!(
        "{nickname}  {}\nfree     {}\nheld     {}\nearning  {}\nlocked   {}{}",
        account.account,
        account.available,
        account.held,
        account.earning,
        account.locked,
        unlocks.unwrap_or_default(),
    )
}

async fn history(context: &Context, limit: u32, before: Option<ReceiptId>) -> Result<()> {
    let client = context.client().await?;
    let own = client.account_id();
    let transfers = client.history(before, limit).await?;
    let empty = match before {
        Some(_) => "no earlier transfers",
        None => "no transfers yet",
    };
    context.output.rows(
        &transfers,
        &[
            "when (UTC)",
            "amount",
            "from",
            "to",
            "why",
            "task",
            "receipt",
        ],
        |transfer| transfer_row(transfer, own),
        empty,
    )?;
    if let Some(last) = transfers
        .last()
        .filter(|_| transfers.len() >= limit as usize)
    {
        let next = format!(
            "earlier: cryptomind wallet history --before {}",
            last.receipt
        );
        context.output.note(next)?;
    }
    Ok(())
}

fn transfer_row(transfer: &TransferView, own: AccountId) -> Vec<String> {
    // What a hold gives back had never left the account: it neither adds nor takes.
    let sign = match (transfer.payer == own, transfer.payee == own) {
        (true, true) => "",
        (_, true) => "+",
        _ => "-",
    };
    vec![
        moment::text(transfer.at),
        format!("{sign}{}", transfer.amount),
        transfer.payer_name.clone(),
        transfer.payee_name.clone(),
        transfer.reason.to_string(),
        transfer.task.map(|task| task.short()).unwrap_or_default(),
        transfer.receipt.to_string(),
    ]
}

async fn send(context: &Context, name: &str, amount: Amount, yes: bool) -> Result<()> {
    let (client, output) = (context.client().await?, context.output);
    let to = resolve::account(client, name).await?;
    let fee = client.fee(&Action::Send { to, amount });
    let total = amount.checked_add(fee).ok_or_else(|| {
        ErrorBody::user(
            "bad_amount",
            format!("{amount} and the fee of {fee} are more than there is"),
        )
    })?;
    output.note(format!(
        "send   {amount} to {to}\nfee    {fee}\ntotal  {total}"
    ))?;
    if !yes && std::io::stdin().is_terminal() {
        confirm(&format!("send {amount} to {name}, {total} in all?")).await?;
    }
    let receipt = client.send(to, amount).await?;
    let sent =
        json!({ "to": to, "amount": amount, "fee": fee, "total": total, "receipt": receipt });
    output.value(&sent, || {
        format!("{amount} sent to {to}\nreceipt  {receipt}")
    })?;
    output.note(format!(
        "prove it: cryptomind wallet receipt {receipt} -o FILE"
    ))?;
    Ok(())
}

/// Goes on where the user types `y`.
async fn confirm(question: &str) -> Result<()> {
    let question = crate::output::printable(question);
    // A thread of its own: Ctrl-C must end the command, not the next line.
    let asked = tokio::task::spawn_blocking(move || {
        write!(std::io::stderr(), "{question} [y/N] ")?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = asked.await??;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(ErrorBody::user("not_confirmed", "nothing was signed")
        .with_help("answer y, or give --yes")
        .into())
}

async fn save_receipt(context: &Context, receipt: ReceiptId, path: &Path) -> Result<()> {
    let client = context.client().await?;
    let network = client.network();
    let file = client.receipt(receipt).await?;
    ledger::check_receipt(&file, &network)?;
    let bytes = ledger::save_receipt(&file, path)?;
    let saved = json!({ "path": path, "bytes": bytes, "receipt": receipt, "network": network });
    context.output.value(&saved, || {
        format!("{bytes} bytes written to {}", path.display())
    })?;
    context.output.note(format!(
        "anyone checks it with: cryptomind ledger verify-receipt {} --genesis {network}",
        path.display()
    ))?;
    Ok(())
}

async fn faucet(context: &Context) -> Result<()> {
    let amount = context.client().await?.faucet().await?;
    context.output.value(&json!({ "amount": amount }), || {
        format!("{amount} received")
    })?;
    Ok(())
}
