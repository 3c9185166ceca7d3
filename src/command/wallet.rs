//! `register` and `wallet`: the account and its tokens.

use anyhow::Result;
use cryptomind_protocol::AccountId;
use cryptomind_protocol::api::{AccountView, TransferView};
use serde_json::json;

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
        WalletCommand::History { limit } => history(context, limit).await,
        WalletCommand::Faucet => faucet(context).await,
        WalletCommand::Send { to, amount } => {
            let client = context.client().await?;
            let to = resolve::account(client, &to).await?;
            let amount = client.send(to, amount).await?;
            let sent = json!({ "to": to, "amount": amount });
            context
                .output
                .value(&sent, || format!("{amount} sent to {to}"))?;
            Ok(())
        }
    }
}

async fn balance(context: &Context) -> Result<()> {
    let account = context.client().await?.my_account().await?;
    context.output.value(&account, || account_text(&account))?;
    Ok(())
}

fn account_text(account: &AccountView) -> String {
    let nickname = account.nickname.as_deref().unwrap_or("(no nickname)");
    format!(
        "{nickname}  {}\nfree     {}\nheld     {}\nearning  {}",
        account.account, account.available, account.held, account.earning
    )
}

async fn history(context: &Context, limit: u32) -> Result<()> {
    let client = context.client().await?;
    let own = client.account_id();
    let transfers = client.history(None, limit).await?;
    context.output.rows(
        &transfers,
        &["when (UTC)", "amount", "from", "to", "why", "task"],
        |transfer| transfer_row(transfer, own),
        "no transfers yet",
    )?;
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
    ]
}

async fn faucet(context: &Context) -> Result<()> {
    let amount = context.client().await?.faucet().await?;
    context.output.value(&json!({ "amount": amount }), || {
        format!("{amount} received")
    })?;
    Ok(())
}
