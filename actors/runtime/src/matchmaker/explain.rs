//! Explanations: what became of every miner for a task, and why a miner has no work. By the lines that decide.

use cryptomind_core::journal::NodeRecord;
use cryptomind_core::market::{Ability, Availability, MatchReport, Surroundings, Verdict};
use cryptomind_core::run::Run;
use cryptomind_protocol::api::{Explanation, Fate, MinerVerdict, WorkVerdict};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::TaskState;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId, TaskId};

use super::Desk;

/// The most miners that one answer speaks of; those that would be chosen come first.
const MAX_VERDICTS: usize = 500;
/// The most rows of one answer on an owner's miners.
const MAX_ROWS: usize = 1_000;
/// The most tasks that one answer looks at: each takes a choice among all miners.
const MAX_TASKS: usize = 16;

/// A miner as it is looked at.
struct Known {
    record: NodeRecord,
    ability: Ability,
}

impl Known {
    fn row(&self, task: Option<TaskId>, reason: &str) -> WorkVerdict {
        WorkVerdict {
            node: self.record.node,
            name: self.record.name.clone(),
            task,
            reason: reason.to_owned(),
        }
    }
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

    /// Why each of an account's miners has no work, or which it has. Looks at the oldest tasks that wait, and only where
    /// one of these miners could work.
    pub(super) async fn why_no_work(
        &self,
        owner: AccountId,
    ) -> Result<Vec<WorkVerdict>, ErrorBody> {
        let miners = self.known_miners().await?;
        let own = miners.iter().filter(|known| known.record.owner == owner);
        let (idle, others): (Vec<_>, Vec<_>) = own.partition(|k| self.is_free(&k.record.node));
        let mut rows: Vec<_> = others
            .into_iter()
            .map(|known| self.occupied(known))
            .collect();
        if !idle.is_empty() {
            rows.extend(self.passed_over(&miners, &idle));
        }
        rows.truncate(MAX_ROWS);
        Ok(rows)
    }

    /// A miner that could not work now.
    fn occupied(&self, known: &Known) -> WorkVerdict {
        match self.runs.of_member(&known.record.node).pop() {
            Some(task) => known.row(Some(task), "it works on this task"),
            None => known.row(None, "it is not connected to the coordinator"),
        }
    }

    /// What became of idle miners for each task that waits.
    fn passed_over(&self, miners: &[Known], idle: &[&Known]) -> Vec<WorkVerdict> {
        let tasks = self.runs.waiting();
        let waiting = tasks.filter_map(|task| self.runs.get(&task));
        let reports: Vec<_> = waiting
            .take(MAX_TASKS)
            .map(|run| (run.task, self.report(run, miners)))
            .collect();
        if reports.is_empty() {
            let none = "no task waits for miners";
            return idle.iter().map(|known| known.row(None, none)).collect();
        }
        let verdicts = idle.iter().flat_map(|known| {
            reports.iter().filter_map(|(task, report)| {
                let verdict = report.verdict(&known.record.node)?;
                Some(known.row(Some(*task), &verdict.to_string()))
            })
        });
        verdicts.collect()
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
        let around = Surroundings {
            links: self.world.surveyor.table(),
            ..self.around.clone()
        };
        run.explain(known, &around)
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
