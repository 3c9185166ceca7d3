//! Checkpoints: what every member's state hashes to, where it is stored, and what that earns.

use cryptomind_protocol::block::Share;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::task::{Event, Metrics, ResultFile, TaskState};
use cryptomind_protocol::{AccountId, Amount, NodeId, Timestamp};

use super::blame::{Fault, Loss};
use super::{
    Effect, MAX_PENDING_CHECKPOINTS, PendingCheckpoint, Run, STALL_LIMIT_MS, Seat, Vouched,
    work_after,
};

impl Run {
    pub(super) fn checkpoint(
        &mut self,
        vouched: Vouched,
        stored: Option<ResultFile>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let (node, step) = (vouched.node, vouched.step);
        if !self.is_training() || step <= self.verified_step || step > self.terms.extent.steps {
            return;
        }
        let pending = self.pending(step);
        pending.fingerprints.retain(|(known, _)| *known != node);
        pending.fingerprints.push((node, vouched.fingerprint));
        pending.computed.retain(|(known, _)| *known != node);
        pending.computed.push((node, vouched.computed_ms));
        pending.heard.get_or_insert(now);
        let is_stored = stored.is_some();
        if is_stored {
            pending.stored = stored;
        }
        self.wait_for_others(is_stored, now);
        self.verify_checkpoints(now, effects);
    }

    /// The timers of whoever has yet to store or to confirm, from the first that is not verified on. That it
    /// is there is news of the whole group, once.
    fn wait_for_others(&mut self, is_stored: bool, now: Timestamp) {
        let news = self.heard_since.is_none() || (is_stored && self.stored_since.is_none());
        self.heard_since.get_or_insert(now);
        if is_stored {
            self.stored_since.get_or_insert(now);
        }
        if news {
            self.renew_stall(now);
        }
    }

    fn renew_stall(&mut self, now: Timestamp) {
        if self.state == TaskState::Running {
            self.deadline = now.plus_ms(STALL_LIMIT_MS);
        }
    }

    fn pending(&mut self, step: u64) -> &mut PendingCheckpoint {
        if let Ok(at) = self.checkpoints.binary_search_by_key(&step, |c| c.step) {
            return &mut self.checkpoints[at];
        }
        // The oldest one is given up when there are too many: a newer one covers its work too.
        if self.checkpoints.len() >= MAX_PENDING_CHECKPOINTS {
            self.checkpoints.remove(0);
        }
        let at = self.checkpoints.partition_point(|c| c.step < step);
        let new = PendingCheckpoint {
            step,
            fingerprints: Vec::new(),
            computed: Vec::new(),
            heard: None,
            stored: None,
        };
        self.checkpoints.insert(at, new);
        &mut self.checkpoints[at]
    }

    /// Verifies every pending checkpoint that all present members vouch for and that is stored.
    pub(super) fn verify_checkpoints(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let members = self.nodes();
        let complete = self.checkpoints.iter().rposition(|c| {
            let vouched = |seat: &Seat| {
                let node = seat.member.node;
                seat.from_step >= c.step || c.fingerprints.iter().any(|(known, _)| *known == node)
            };
            let someone = c
                .fingerprints
                .iter()
                .any(|(node, _)| members.contains(node));
            c.stored.is_some() && someone && self.seats.iter().all(vouched)
        });
        let Some(at) = complete else { return };
        let checkpoint = self.checkpoints[at].clone();
        self.checkpoints.drain(..=at);
        self.heard_since = self.checkpoints.first().map(|_| now);
        let later = self.checkpoints.iter().find(|c| c.stored.is_some());
        self.stored_since = later.map(|_| now);
        let votes = checkpoint
            .fingerprints
            .iter()
            .filter(|(node, _)| members.contains(node));
        let votes: Vec<_> = votes.copied().collect();
        if votes.iter().any(|(_, hash)| *hash != votes[0].1) {
            return self.states_differ(checkpoint.step, &votes, now, effects);
        }
        self.count_effort(&checkpoint);
        self.earn(checkpoint.step, effects);
        self.verified_file = checkpoint.stored;
        self.verified_step = checkpoint.step;
        self.step = self.step.max(checkpoint.step);
        self.blame_overtaken(effects);
        (self.fruitless, self.unverified_attempts) = (0, 0);
        self.renew_stall(now);
        self.promise_met(now);
        let complete = self.verified_step >= self.terms.extent.steps;
        if let Some((files, metrics)) = self.result.take_if(|_| complete) {
            return self.deliver(files, metrics, now, effects);
        }
        self.call_newcomers(now, effects);
        self.call_to_weigh(now, effects);
    }

    /// Earns the work up to `step` for the present members, for each as much of it as it computes.
    pub(super) fn earn(&mut self, step: u64, effects: &mut Vec<Effect>) {
        let after = work_after(self, step);
        let amount = after.checked_sub(self.earned).unwrap_or(Amount::ZERO);
        let shares = self.parts(amount, step).into_iter();
        let shares: Vec<_> = shares
            .filter(|(_, amount)| !amount.is_zero())
            .map(|(member, amount)| Share {
                account: member.owner,
                node: member.node,
                amount,
            })
            .collect();
        for share in &shares {
            if !self.earners.contains(&share.node) {
                self.earners.push(share.node);
            }
        }
        self.earned = self.earned.max(after);
        effects.push(Effect::Earn {
            checkpoint: step,
            shares,
        });
        if self.is_training() {
            self.tell(
                Event::Checkpoint {
                    step,
                    earned: amount,
                },
                effects,
            );
        }
    }

    /// Members part in what they computed: a minority is lost; without a majority nobody is
    /// believed, and the task begins again from the last verified checkpoint.
    fn states_differ(
        &mut self,
        step: u64,
        votes: &[(NodeId, Hash)],
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let count = |hash: Hash| votes.iter().filter(|(_, other)| *other == hash).count();
        let majority = votes
            .iter()
            .map(|(_, hash)| *hash)
            .find(|h| count(*h) * 2 > votes.len());
        let odd = votes.iter().filter(|(_, hash)| Some(*hash) != majority);
        let reason = format!("its state after step {step} differs from the others'");
        // Who came with another's state has vouched for nothing of its own yet.
        let is_new = |node: &NodeId| {
            let mut seats = self.seats.iter();
            seats.any(|seat| seat.member.node == *node && seat.from_step > self.verified_step)
        };
        let fault = |node: &NodeId| match majority {
            Some(_) if !is_new(node) => Fault::Own,
            _ => Fault::Nobodys,
        };
        let lost = odd.map(|(node, _)| Loss::new(*node, reason.clone(), fault(node)));
        let lost: Vec<_> = lost.collect();
        self.lose(lost, now, effects);
    }

    pub(super) fn finished(
        &mut self,
        files: Vec<ResultFile>,
        mut metrics: Metrics,
        stored_by: Option<AccountId>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(account) = stored_by else { return };
        if let Some(latency) = &mut metrics.latency {
            latency.queue_us = self.queue_us();
        }
        self.stored_by = Some(account);
        if self.is_training() && self.verified_step < self.terms.extent.steps {
            // The last checkpoint's other fingerprints are still on their way.
            self.result = Some((files, metrics));
            return;
        }
        if !self.is_training() {
            self.delivered = true;
            self.step = 1;
            self.count_inference(now);
            self.earn(1, effects);
        }
        self.deliver(files, metrics, now, effects);
    }

    fn deliver(
        &mut self,
        files: Vec<ResultFile>,
        metrics: Metrics,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.tell(
            Event::Stored {
                files: files.clone(),
                metrics: metrics.clone(),
            },
            effects,
        );
        self.blame_all(effects);
        let praise = self
            .nodes()
            .into_iter()
            .filter_map(|node| self.praise(node));
        effects.extend(praise.collect::<Vec<_>>());
        if self.is_training() {
            effects.push(Effect::Publish {
                files: files.clone(),
                metrics: metrics.clone(),
            });
        }
        self.result = Some((files, metrics));
        self.end(
            TaskState::Finished,
            "the result is stored".to_owned(),
            now,
            effects,
        );
    }
}
