//! Stars, ratings before and after, and the survivors back at their owners' work.

use std::time::Duration;

use anyhow::Result;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::api::MinerView;
use cryptomind_protocol::task::Activity;
use serde::Serialize;

use super::{Demo, Trained, miner};
use crate::command::stars;
use crate::output::table;

const STARS: u8 = 5;
/// Until the survivors mine again.
const LIMIT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A miner's rating before and after, with the reason.
#[derive(Serialize)]
pub(super) struct Rated {
    miner: String,
    before_milli: u32,
    after_milli: u32,
    reason: String,
    online: bool,
}

impl Demo<'_> {
    pub(super) async fn rate(&mut self, trained: &Trained, before: &[MinerView]) -> Result<Vec<Rated>> {
        self.bob.rate(trained.task.task, STARS).await?;
        self.line(format!("\n   bob gives the miners of his model {STARS} stars"))?;
        let after = self.mining_again(trained.killed.as_deref()).await?;
        let rated: Vec<Rated> = before
            .iter()
            .filter_map(|old| Some(rated(old, miner(&after, &old.name)?)))
            .collect();
        self.block(&ratings_table(before, &after))?;
        check_lowered(&rated, trained.killed.as_deref())?;
        let back: Vec<&str> = after
            .iter()
            .filter(|miner| miner.activity == Activity::Mining && miner.online)
            .map(|miner| miner.name.as_str())
            .collect();
        self.line(format!("back at their owners' own work: {}", back.join(", ")))?;
        Ok(rated)
    }

    /// Waits until every miner but the dead one runs its idle command again.
    async fn mining_again(&self, killed: Option<&str>) -> Result<Vec<MinerView>> {
        let mining = async {
            loop {
                let miners = self.bob.miners().await?;
                let is_back = |m: &MinerView| {
                    Some(m.name.as_str()) == killed || m.activity == Activity::Mining
                };
                if miners.iter().all(is_back) {
                    return Ok(miners);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(LIMIT, mining)
            .await
            .unwrap_or_else(|_| Err(ErrorBody::internal("the miners did not go back to mining").into()))
    }
}

fn rated(before: &MinerView, after: &MinerView) -> Rated {
    Rated {
        miner: after.name.clone(),
        before_milli: before.rating.rating_milli,
        after_milli: after.rating.rating_milli,
        reason: after.rating.last_change.clone(),
        online: after.online,
    }
}

fn check_lowered(rated: &[Rated], killed: Option<&str>) -> Result<(), ErrorBody> {
    let dead = rated.iter().find(|r| Some(r.miner.as_str()) == killed);
    match dead {
        Some(dead) if dead.after_milli >= dead.before_milli => Err(ErrorBody::internal(format!(
            "the rating of {} was not lowered",
            dead.miner
        ))),
        _ => Ok(()),
    }
}

fn ratings_table(before: &[MinerView], after: &[MinerView]) -> String {
    let rows = after.iter().map(|now| {
        let then = miner(before, &now.name).map(|m| stars(&m.rating));
        vec![
            now.name.clone(),
            then.unwrap_or_default(),
            stars(&now.rating),
            now.rating.last_change.clone(),
        ]
    });
    table(&["miner", "before", "after", "why"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rated(before_milli: u32, after_milli: u32) -> [Rated; 1] {
        [Rated {
            miner: "miner-ben".into(),
            before_milli,
            after_milli,
            reason: String::new(),
            online: false,
        }]
    }

    #[test]
    fn a_dead_miner_must_be_rated_lower() {
        check_lowered(&rated(2500, 2400), Some("miner-ben")).unwrap();
        check_lowered(&rated(2500, 2500), None).unwrap();
        assert!(check_lowered(&rated(2500, 2500), Some("miner-ben")).is_err());
    }
}
