//! `miner explain`: what a rating rests on, event by event, recomputed here from the coordinator's events.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use cryptomind_core::rating::{self, Rating};
use cryptomind_protocol::api::MinerView;
use cryptomind_protocol::rating::{Bar, EvidenceRecord, Odds, RatingView};
use cryptomind_protocol::{AccountId, ErrorBody, NodeId, Timestamp};
use cryptomind_sdk::Client;
use serde::Serialize;

use super::milli;
use crate::context::Context;
use crate::output::{printable, table};
use crate::{chart, moment, resolve};

/// Events of the table: the newest.
const SHOWN: usize = 20;
/// How often it is looked at while it changes.
const LOOKS: usize = 8;
/// Between two looks: what is decided is on the coordinator's disk by then.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Width and height of the curve, characters.
const CURVE: (usize, usize) = (60, 8);

/// All that is said of a miner's rating.
#[derive(Serialize)]
struct Explained {
    node: NodeId,
    name: String,
    owner: AccountId,
    /// As the coordinator says.
    rating: RatingView,
    /// As it follows from the events.
    recomputed: RatingView,
    agrees: bool,
    /// The owner's events, oldest first.
    events: Vec<Told>,
}

/// An event, and the miner's rating after it.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    record: EvidenceRecord,
    /// The evidence in words.
    reason: String,
    rating_milli: u32,
    low_milli: u32,
}

/// Explains a miner's rating.
pub async fn run(context: &Context, miner: &str) -> Result<()> {
    let client = context.client().await?;
    let mut explained = look(client, miner).await?;
    // What happens between the two questions is in one answer and not in the other.
    for _ in 1..LOOKS {
        if explained.agrees {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        explained = look(client, miner).await?;
    }
    context.output.value(&explained, || explained.text())?;
    Ok(())
}

async fn look(client: &Client, miner: &str) -> Result<Explained> {
    let miners = client.miners().await?;
    let nodes: Vec<_> = miners.iter().map(|miner| miner.node).collect();
    let node = resolve::node(miner, &nodes)?;
    let found = miners.into_iter().find(|miner| miner.node == node);
    let miner = found.ok_or_else(|| {
        let message = format!("{node} has never joined as a miner");
        ErrorBody::not_found("miner", message).with_help("see `cryptomind miner ls`")
    })?;
    let evidence = evidence(client, &miner).await?;
    Ok(explain(miner, evidence))
}

/// All pages.
async fn evidence(client: &Client, miner: &MinerView) -> Result<Vec<EvidenceRecord>> {
    let mut all: Vec<EvidenceRecord> = Vec::new();
    loop {
        let after = all.last().map(EvidenceRecord::key);
        let page = client.evidence(miner.owner, after).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

fn explain(miner: MinerView, evidence: Vec<EvidenceRecord>) -> Explained {
    let (mut node, mut owner) = (Rating::default(), Rating::default());
    let mut told = |record: EvidenceRecord| {
        owner.hear(&record.evidence, record.at);
        if record.node == miner.node {
            node.hear(&record.evidence, record.at);
        }
        let after = rating::view(&node, &owner, record.at);
        Told {
            reason: record.evidence.to_string(),
            record,
            rating_milli: after.rating_milli,
            low_milli: after.low_milli,
        }
    };
    let events: Vec<Told> = evidence.into_iter().map(&mut told).collect();
    let recomputed = rating::view(&node, &owner, miner.rating.at);
    Explained {
        node: miner.node,
        name: miner.name,
        owner: miner.owner,
        agrees: recomputed == undoubted(&miner.rating),
        rating: miner.rating,
        recomputed,
        events,
    }
}

impl Explained {
    fn text(&self) -> String {
        let rating = &self.rating;
        let mut text = format!(
            "{} is rated {} of 5; where it is compared, {} counts\n\n{}\n",
            printable(&self.name),
            milli(rating.rating_milli),
            milli(rating.low_milli),
            self.parts(),
        );
        if let Some(bar) = &rating.bar {
            let until = bar.until().map(moment::text);
            let until = until.map_or_else(|| "that is known".into(), |at| format!("{at} UTC"));
            let _ = writeln!(text, "No work until {until}: {bar}.");
        }
        text.push_str(&match self.events.is_empty() {
            true => "\nNothing is known yet of it or of its owner's other nodes: so are newcomers rated.\n".into(),
            false => format!("\n{}\n\n{}\n", self.curve(), self.table()),
        });
        text.push_str(match self.agrees {
            true => "Recomputed from these events on this machine: the same to the last digit.",
            false => "Recomputed from these events on this machine: NOT the same. Ask the operator why, and trust neither.",
        });
        text
    }

    fn parts(&self) -> String {
        let (rating, parts) = (&self.rating, &self.rating.parts);
        let odds = |name: &str, odds: Odds, rests: String| {
            vec![
                name.into(),
                share(odds.mean_ppm),
                share(odds.low_ppm),
                rests,
            ]
        };
        let wrong = format!(
            "{} proved wrong, {} checked and right in a row",
            rating.wrong, rating.streak
        );
        let runs = format!(
            "{} seen through, {} failed, {} left with notice",
            rating.done, rating.failed, rating.left
        );
        let speed = share(parts.speed_ppm);
        let stars = milli(parts.stars_milli);
        let rows = [
            odds("correctness, squared", parts.correctness, wrong),
            odds("delivery", parts.delivery, runs),
            vec![
                "speed, of what was promised".into(),
                speed.clone(),
                speed,
                "the last 15 runs".into(),
            ],
            vec![
                "users' stars".into(),
                stars.clone(),
                stars,
                format!("{} votes", rating.votes),
            ],
        ];
        table(&["part of its own", "shown", "counts", "rests on"], rows)
    }

    /// The rating that is shown, over time.
    fn curve(&self) -> String {
        let at = |told: &Told| told.record.at.as_ms();
        let (first, last) = (at(&self.events[0]), self.rating.at.as_ms());
        let dot = |at: Timestamp, milli: u32| chart::Point {
            step: at.as_ms().saturating_sub(first),
            value: milli as f32 / 1e3,
        };
        let begin = dot(self.events[0].record.at, rating::NEWCOMER_MILLI);
        let events = self
            .events
            .iter()
            .map(|told| dot(told.record.at, told.rating_milli));
        let now = dot(self.rating.at, self.rating.rating_milli);
        let dots: Vec<_> = std::iter::once(begin).chain(events).chain([now]).collect();
        let total = last.saturating_sub(first);
        chart::draw(&dots, total, CURVE.0, CURVE.1).join("\n")
    }

    fn table(&self) -> String {
        let newest = self.events.iter().rev().take(SHOWN);
        let rows = newest.map(|told| {
            let of = if told.record.node == self.node {
                ""
            } else {
                "its owner's "
            };
            vec![
                moment::text(told.record.at),
                told.record.task.short(),
                format!("{of}{}", told.record.node.short()),
                printable(&told.reason),
                milli(told.rating_milli),
                milli(told.low_milli),
            ]
        });
        table(
            &["when (UTC)", "task", "node", "what", "rated", "counts"],
            rows,
        )
    }
}

/// A doubt is no evidence yet, and follows from none.
fn undoubted(rating: &RatingView) -> RatingView {
    let bar = rating.bar.filter(|bar| *bar != Bar::Doubted {});
    RatingView {
        bar,
        ..rating.clone()
    }
}

/// Millionths, for people.
fn share(ppm: u32) -> String {
    format!("{}.{:03}", ppm / 1_000_000, ppm % 1_000_000 / 1_000)
}
