//! Explanations: what became of every miner for a task, and why a miner has no work. By the lines that decide.

use cryptomind_core::market::{Ability, Availability, MatchReport, Verdict, Workload};
use cryptomind_core::run::Run;
use cryptomind_protocol::api::{Explanation, Fate, MinerVerdict, WorkVerdict};
use cryptomind_protocol::role::Role;
use cryptomind_protocol::task::TaskState;
use cryptomind_protocol::{AccountId, ErrorBody, NodeId, TaskId};

use super::Desk;
use super::past::Miner;

/// The most miners that one answer speaks of; those that would be chosen come first.
const MAX_VERDICTS: usize = 500;
/// The most rows of one answer on an owner's miners.
const MAX_ROWS: usize = 1_000;
/// The most tasks that one answer looks at: each takes a choice among all miners.
const MAX_TASKS: usize = 16;

fn row(miner: &Miner, task: Option<TaskId>, reason: &str) -> WorkVerdict {
    WorkVerdict {
        node: miner.record.node,
        name: miner.record.name.clone(),
        task,
        reason: reason.to_owned(),
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
            usual_wait: self.usual_wait(&run.spec, &run.terms),
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
    fn occupied(&self, known: &Miner) -> WorkVerdict {
        match self.runs.of_member(&known.record.node).pop() {
            Some(task) => row(known, Some(task), "it works on this task"),
            None => row(known, None, "it is not connected to the coordinator"),
        }
    }

    /// What became of idle miners for each task that waits.
    fn passed_over(&self, miners: &[Miner], idle: &[&Miner]) -> Vec<WorkVerdict> {
        let tasks = self.runs.waiting();
        let waiting = tasks.filter_map(|task| self.runs.get(&task));
        let reports: Vec<_> = waiting
            .take(MAX_TASKS)
            .map(|run| (run.task, self.report(run, miners)))
            .collect();
        if reports.is_empty() {
            let why = |known: &&Miner| match known.rating.bar {
                Some(bar) => row(known, None, &bar.to_string()),
                None => row(known, None, "no task waits for miners"),
            };
            return idle.iter().map(why).collect();
        }
        let verdicts = idle.iter().flat_map(|known| {
            // What is for one miner alone is no news to others.
            let node = known.record.node;
            let is_for = move |task: &TaskId| {
                let only = self.runs.get(task).and_then(|run| run.only);
                only.is_none_or(|only| only == node)
            };
            let reports = reports.iter().filter(move |(task, _)| is_for(task));
            reports.filter_map(|(task, report)| {
                let verdict = report.verdict(&known.record.node)?;
                Some(row(known, Some(*task), &verdict.to_string()))
            })
        });
        verdicts.collect()
    }

    fn report(&self, run: &Run, miners: &[Miner]) -> MatchReport {
        let workload = Workload::of(&run.spec, &run.terms);
        let known = miners.iter().map(|miner| {
            let node = miner.record.node;
            let (ability, _) = self.ability(miner, &workload, &run.terms.items);
            let link = self.world.links.get(&node);
            let exposed = link.and_then(|link| self.exposed(&link, &miner.rating, run));
            let ability = Ability { exposed, ..ability };
            (node, self.availability(run, &node), ability)
        });
        run.explain(known, &self.world.around())
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
fn sorted(miners: &[Miner]) -> Vec<&Miner> {
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
