//! `miner`: who computes, and who asks to compute for this account.

use anyhow::Result;
use cryptomind_protocol::api::{LinkBasis, LinkView, MinerView};
use cryptomind_protocol::rating::RatingView;
use cryptomind_protocol::{ErrorBody, Timestamp};
use serde_json::json;

use crate::cli::MinerCommand;
use crate::context::Context;
use crate::output::printable;
use crate::{moment, resolve};

mod explain;
mod selftest;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Runs a `miner` command.
pub async fn run(context: &Context, command: MinerCommand) -> Result<()> {
    match command {
        MinerCommand::Ls => list(context).await,
        MinerCommand::Links { miner } => links(context, miner.as_deref()).await,
        MinerCommand::Approve { node: None, .. } => requests(context).await,
        MinerCommand::Approve {
            node: Some(node),
            days,
        } => approve(context, &node, days).await,
        MinerCommand::WhyNoWork => why_no_work(context).await,
        MinerCommand::Explain { miner } => explain::run(context, &miner).await,
        MinerCommand::Selftest(args) => selftest::run(context, args).await,
        MinerCommand::Delegations => delegations(context).await,
        MinerCommand::Revoke { node } => revoke(context, &node).await,
    }
}

async fn list(context: &Context) -> Result<()> {
    let miners = context.client().await?.miners().await?;
    context.output.rows(
        &miners,
        &[
            "miner", "owner", "now", "task", "speed", "rating", "done", "failed", "node",
        ],
        row,
        "no miner has joined yet: cryptomind --role miner --join cm://… --account cm1…",
    )?;
    Ok(())
}

fn row(miner: &MinerView) -> Vec<String> {
    let now = if miner.online {
        miner.activity.to_string()
    } else {
        "offline".to_owned()
    };
    vec![
        miner.name.clone(),
        miner.owner_name.clone(),
        now,
        miner.task.map(|task| task.short()).unwrap_or_default(),
        speed(miner.mflops),
        stars(&miner.rating),
        miner.rating.done.to_string(),
        miner.rating.failed.to_string(),
        miner.node.short(),
    ]
}

/// 10⁶ floating-point operations a second, for people.
pub fn speed(mflops: u64) -> String {
    if mflops < 1000 {
        return format!("{mflops} MFLOP/s");
    }
    format!("{:.1} GFLOP/s", mflops as f64 / 1000.0)
}

/// A rating, for people: of 5.
pub fn stars(rating: &RatingView) -> String {
    milli(rating.rating_milli)
}

/// Thousandths, for people.
fn milli(milli: u32) -> String {
    format!("{}.{:03}", milli / 1000, milli % 1000)
}

async fn links(context: &Context, miner: Option<&str>) -> Result<()> {
    let client = context.client().await?;
    let node = match miner {
        Some(text) => {
            let miners = client.miners().await?;
            let nodes: Vec<_> = miners.iter().map(|miner| miner.node).collect();
            Some(resolve::node(text, &nodes)?)
        }
        None => None,
    };
    let links = client.links(node).await?;
    context.output.rows(
        &links,
        &["from", "to", "round trip", "throughput", "known by", "age", "network"],
        link_row,
        "no link is measured yet: miners measure each other within seconds of joining, where there are two",
    )?;
    Ok(())
}

fn link_row(link: &LinkView) -> Vec<String> {
    let unknown = || "unknown".to_owned();
    let network = if link.lan { "local" } else { "" };
    vec![
        link.from_name.clone(),
        link.to_name.clone(),
        link.rtt_us.map_or_else(unknown, round_trip),
        link.bytes_per_s.map_or_else(unknown, throughput),
        basis(link.known).to_owned(),
        link.age_ms.map(moment::duration).unwrap_or_default(),
        network.to_owned(),
    ]
}

const fn basis(known: LinkBasis) -> &'static str {
    match known {
        LinkBasis::BothEnds => "both ends",
        LinkBasis::OneEnd => "one end",
        LinkBasis::Estimated => "estimated",
    }
}

/// Microseconds, for people.
fn round_trip(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

/// Bytes a second, for people: in bits, as lines are sold.
fn throughput(bytes_per_s: u64) -> String {
    format!("{:.1} Mbit/s", bytes_per_s as f64 * 8.0 / 1e6)
}

async fn requests(context: &Context) -> Result<()> {
    let requests = context.client().await?.enrolment_requests().await?;
    context.output.rows(
        &requests,
        &["node", "name", "role", "from"],
        |request| {
            vec![
                request.node.to_string(),
                request.name.clone(),
                request.role.to_string(),
                request.address.clone(),
            ]
        },
        "no node asks to work for this account",
    )?;
    if !requests.is_empty() {
        context
            .output
            .note("let one work for you: cryptomind miner approve NODE")?;
    }
    Ok(())
}

async fn approve(context: &Context, node: &str, days: u64) -> Result<()> {
    let client = context.client().await?;
    let asking = client.enrolment_requests().await?;
    let asking = asking.into_iter().map(|r| (r.node, r.name, r.role));
    let known = client.delegations().await?;
    let known = known
        .into_iter()
        .map(|d| (d.node, d.name.unwrap_or_default(), d.role));
    let nodes: Vec<_> = asking.chain(known).collect();
    let ids: Vec<_> = nodes.iter().map(|(node, ..)| *node).collect();
    let node = resolve::node(node, &ids)?;
    let found = nodes.into_iter().find(|(id, ..)| *id == node);
    let (_, name, role) = found.ok_or_else(|| {
        ErrorBody::not_found(
            "node",
            format!("{node} does not ask to work for this account"),
        )
        .with_help("start it with --account and this account's id: cryptomind key show")
    })?;
    let expires = client.now().plus_ms(days * DAY_MS);
    client.delegate(node, role, expires).await?;
    let approved = json!({ "node": node, "name": name, "role": role, "expires": expires });
    context.output.value(&approved, || {
        let (name, until) = (printable(&name), moment::text(expires));
        format!("{name} ({role}) works for you until {until}")
    })?;
    Ok(())
}

async fn why_no_work(context: &Context) -> Result<()> {
    let rows = context.client().await?.why_no_work().await?;
    context.output.rows(
        &rows,
        &["miner", "task", "why"],
        |row| {
            vec![
                printable(&row.name),
                row.task.map(|task| task.short()).unwrap_or_default(),
                row.reason.clone(),
            ]
        },
        "no miner of this account has ever joined: cryptomind --role miner --join cm://… --account cm1…",
    )?;
    Ok(())
}

async fn delegations(context: &Context) -> Result<()> {
    let client = context.client().await?;
    let (delegations, now) = (client.delegations().await?, client.now());
    context.output.rows(
        &delegations,
        &["node", "name", "role", "until"],
        |delegation| {
            vec![
                delegation.node.to_string(),
                delegation.name.clone().unwrap_or_default(),
                delegation.role.to_string(),
                until(delegation.expires, now),
            ]
        },
        "no node works for this account: cryptomind miner approve",
    )?;
    Ok(())
}

fn until(expires: Timestamp, now: Timestamp) -> String {
    let text = moment::text(expires);
    if expires <= now {
        return format!("{text} (over)");
    }
    text
}

async fn revoke(context: &Context, node: &str) -> Result<()> {
    let client = context.client().await?;
    let delegations = client.delegations().await?;
    let nodes: Vec<_> = delegations.iter().map(|d| d.node).collect();
    let node = resolve::node(node, &nodes)?;
    let receipt = client.revoke(node).await?;
    context
        .output
        .value(&json!({ "node": node, "receipt": receipt }), || {
            format!("{node} works for you no longer")
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(speed(950), "950 MFLOP/s");
        assert_eq!(speed(12_340), "12.3 GFLOP/s");
        assert_eq!(round_trip(30_250), "30.25 ms");
        assert_eq!(round_trip(95), "0.09 ms");
        assert_eq!(throughput(2_500_000), "20.0 Mbit/s");
        assert_eq!(milli(4_050), "4.050");
    }
}
