//! Explanations: what became of every miner for a task, and why a miner has no work. By the lines that decide.

use cryptomind_core::journal::NodeRecord;
use cryptomind_core::market::{Ability, Availability, MatchReport, Verdict};
use cryptomind_core::run::Run;
use cryptomind_protocol::api::{Explanation, Fate, MinerVerdict, WorkVerdict};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::TaskState;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId};

use super::Desk;

/// The most miners that one answer speaks of; those that would be chosen come first.
const MAX_VERDICTS: usize = 500;
/// The most rows of one answer on an owner's miners.
const MAX_ROWS: usize = 1_000;

/// A miner as it is looked at.
struct Known {
    record: NodeRecord,
    ability: Ability,
}

impl Desk {
    /// What became of every miner for this task, if its group were chosen now.
    pub(super) async fn explain(&self, run: &Run) -> Result<Explanation, ErrorBody> {
        let miners = self.known_miners().await?;
        let report = self.report(run, &miners);
        let mut verdicts: Vec<_> = report
            .verdicts
            .iter()
            .zip(sorted(&miners))
            .map(|((node, verdict), known)| MinerVerdict {
                node: *node,
                name: known.record.name.clone(),
                fate: fate(verdict),
                reason: verdict.to_string(),
            })
            .collect();
        let rank = |node: &NodeId| report.chosen.iter().position(|chosen| chosen == node);
        verdicts.sort_by_key(|verdict| (verdict.fate, rank(&verdict.node), verdict.node));
        verdicts.truncate(MAX_VERDICTS);
        Ok(Explanation {
            task: run.task,
            state: run.state,
            reason: run.reason.clone(),
            needed: run.spec.miners,
            able: report.able() as u32,
            advice: (run.state == TaskState::Waiting).then(|| report.advice().to_string()),
            verdicts,
        })
    }

    /// Why each of an account's miners has no work, or which it has.
    pub(super) async fn why_no_work(
        &self,
        owner: AccountId,
    ) -> Result<Vec<WorkVerdict>, ErrorBody> {
        let miners = self.known_miners().await?;
        let waiting: Vec<&Run> = self
            .runs
            .waiting()
            .iter()
            .filter_map(|task| self.runs.get(task))
            .collect();
        let reports: Vec<_> = waiting
            .iter()
            .map(|run| self.report(run, &miners))
            .collect();
        let mut rows = Vec::new();
        for known in miners.iter().filter(|known| known.record.owner == owner) {
            let (node, name) = (known.record.node, known.record.name.clone());
            let row = |task, reason| WorkVerdict {
                node,
                name: name.clone(),
                task,
                reason,
            };
            if let Some(task) = self.runs.of_member(&node).pop() {
                rows.push(row(Some(task), "it works on this task".to_owned()));
            } else if !self.world.links.has(&node, Role::Miner) {
                rows.push(row(
                    None,
                    "it is not connected to the coordinator".to_owned(),
                ));
            } else if waiting.is_empty() {
                rows.push(row(None, "no task waits for miners".to_owned()));
            } else {
                let verdicts = waiting.iter().zip(&reports).filter_map(|(run, report)| {
                    let verdict = report.verdict(&node)?;
                    Some(row(Some(run.task), verdict.to_string()))
                });
                rows.extend(verdicts);
            }
        }
        rows.truncate(MAX_ROWS);
        Ok(rows)
    }

    async fn known_miners(&self) -> Result<Vec<Known>, ErrorBody> {
        let stored = self.world.store.load::<NodeRecord>();
        let mut records = stored.map_err(ErrorBody::internal)?;
        records.retain(|record| record.role == Role::Miner);
        let nodes = records.iter().map(|record| record.node).collect();
        let ratings = self.ratings(nodes).await?;
        let known = |(record, rating): (NodeRecord, cryptomind_protocol::api::RatingView)| Known {
            ability: Ability::new(record.capacity.mflops, rating.rating_milli),
            record,
        };
        Ok(records.into_iter().zip(ratings).map(known).collect())
    }

    fn report(&self, run: &Run, miners: &[Known]) -> MatchReport {
        let known = miners.iter().map(|known| {
            let node = known.record.node;
            (node, self.availability(run, &node), known.ability)
        });
        run.explain(known, &self.around)
    }

    /// The task's own members count as free: the question is why they.
    fn availability(&self, run: &Run, node: &NodeId) -> Availability {
        let is_own = run.seats.iter().any(|seat| seat.member.node == *node);
        if !self.world.links.has(node, Role::Miner) {
            Availability::Offline
        } else if self.runs.is_member(node) && !is_own {
            Availability::Busy
        } else {
            Availability::Free
        }
    }
}

/// As a report's verdicts are: by node.
fn sorted(miners: &[Known]) -> Vec<&Known> {
    let mut sorted: Vec<_> = miners.iter().collect();
    sorted.sort_by_key(|known| known.record.node);
    sorted
}

const fn fate(verdict: &Verdict) -> Fate {
    match verdict {
        Verdict::Chosen { .. } => Fate::Chosen,
        Verdict::Waits { .. } => Fate::Ready,
        Verdict::PassedOver { .. } => Fate::PassedOver,
        Verdict::Barred(_) => Fate::Barred,
    }
}
