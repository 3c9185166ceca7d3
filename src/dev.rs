//! `cryptomind dev`: a network on this machine, left running until Ctrl-C.
//!
//! One person, `dev`, has a key, a nickname, test money and a client configuration in the network's
//! folder. Miners and storage nodes from elsewhere may join under that account: it says yes to every one.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use cryptomind_sdk::Client;
use serde_json::json;

use crate::cli::DevArgs;
use crate::context::Context;
use crate::local_network::{COORDINATOR, DELEGATION_MS, LocalNetwork, register_once};
use crate::output::{Output, Tone};
use crate::platform;

const PERSON: &str = "dev";
/// How often the account is asked whether nodes want to work for it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Starts the network and keeps it until Ctrl-C.
pub async fn run(context: &Context, args: DevArgs) -> Result<()> {
    let output = context.output;
    let dir = match args.dir {
        Some(dir) => dir,
        None => fresh_dir("dev")?,
    };
    let started = std::time::Instant::now();
    output.note("starting a coordinator, a storage node and three miners …")?;
    let mut network = tokio::select! {
        network = LocalNetwork::start(&dir, args.listen) => network?,
        _ = tokio::signal::ctrl_c() => return Err(crate::exit::interrupted("interrupted").into()),
    };
    let kept = keep(output, &mut network, started.elapsed()).await;
    output.note("ending every part …")?;
    network.shutdown().await;
    kept
}

/// A fresh folder among the user's data, named by the moment.
pub fn fresh_dir(kind: &str) -> Result<PathBuf, ErrorBody> {
    let base = platform::data_dir().unwrap_or_else(|_| std::env::temp_dir().join("cryptomind"));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64);
    let stamp = crate::moment::text(cryptomind_protocol::Timestamp::from_ms(now));
    let stamp: String = stamp.chars().filter(char::is_ascii_digit).collect();
    Ok(base.join(format!("{kind}-{stamp}-{}", std::process::id())))
}

async fn keep(output: Output, network: &mut LocalNetwork, up: Duration) -> Result<()> {
    let client = network.client(PERSON).await?;
    register_once(&client, PERSON).await?;
    if client.my_account().await?.available.is_zero() {
        client.faucet().await?;
    }
    tell(output, network, &client, up)?;
    let ended = tokio::select! {
        never = approve_all(output, &client) => never,
        why = watch_parts(output, network) => Err(why),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    client.close().await;
    ended
}

/// Tells of every part that ends by itself; without the coordinator there is no network.
async fn watch_parts(output: Output, network: &mut LocalNetwork) -> anyhow::Error {
    loop {
        let name = network.broken().await;
        let log = network.dir().join(format!("logs/{name}.log"));
        let log = format!("its log: {}", log.display());
        if name == COORDINATOR {
            return ErrorBody::internal("the coordinator ended by itself")
                .with_help(log)
                .into();
        }
        let _ = output.note(format!("{name} ended, the others go on; {log}"));
    }
}

fn tell(output: Output, network: &LocalNetwork, client: &Client, up: Duration) -> Result<()> {
    let config = network.client_config(PERSON)?;
    let (coordinator, account) = (network.coordinator(), client.account_id());
    let key_file = network.key_file(PERSON);
    let join = format!("cryptomind --role miner --join {coordinator} --account {account}");
    if output.is_json() {
        output.json_line(&json!({
            "coordinator": coordinator, "account": account, "config": config, "key_file": key_file,
            "dir": network.dir(), "join": join, "network_up_s": up.as_secs_f64(),
        }))?;
        return Ok(());
    }
    let title = |text: &str| output.paint(Tone::Strong, text);
    output.say(format!(
        "{} in {:.1} s: a coordinator, a storage node, three miners\n  {coordinator}\n  folder {}\n",
        title("The network is up"),
        up.as_secs_f64(),
        network.dir().display(),
    ))?;
    output.say(format!(
        "{}, as `{PERSON}` with test money, in another terminal:\n  export CRYPTOMIND_COORDINATOR='{coordinator}' CRYPTOMIND_KEY_FILE='{}'\n  cryptomind wallet balance\nor with a flag: cryptomind --config '{}' wallet balance\n",
        title("Use it"),
        key_file.display(),
        config.display(),
    ))?;
    output.say(format!(
        "{}: it makes its key and configuration by itself and earns for `{PERSON}`\n  {join}\n",
        title("Add a miner from another machine"),
    ))?;
    if coordinator
        .host
        .parse()
        .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    {
        output.say("(this one listens on this machine only: for others, cryptomind dev --listen 0.0.0.0:7700)\n")?;
    }
    output.say("Ctrl-C ends it.")?;
    Ok(())
}

/// Says yes to every node that asks. Ends only with an error that does not pass by itself.
async fn approve_all(output: Output, client: &Client) -> Result<()> {
    loop {
        for request in client.enrolment_requests().await? {
            let expires = client.now().plus_ms(DELEGATION_MS);
            client.delegate(request.node, request.role, expires).await?;
            output.note(format!(
                "{} ({}) joined from {} and earns for `{PERSON}`",
                crate::output::printable(&request.name),
                request.role,
                request.address
            ))?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
