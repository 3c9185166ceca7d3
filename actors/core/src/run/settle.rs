//! The end of a run: what is paid, and what goes back.

use cryptomind_protocol::genesis::FEES;
use cryptomind_protocol::task::{Event, Payment, TaskState};
use cryptomind_protocol::{AccountId, NodeId, Timestamp};

use super::{Effect, Run};
use crate::ledger::Fee;
use crate::price::Ending;

impl Run {
    pub(super) fn cancel(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.end(
            TaskState::Cancelled,
            "its client cancelled it".to_owned(),
            now,
            effects,
        );
    }

    /// The task itself is at fault when most of its members say so: one alone may be lying.
    pub(super) fn faulty(
        &mut self,
        node: NodeId,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        if !self.faults.contains(&node) {
            self.faults.push(node);
        }
        if self.faults.len() * 2 > self.seats.len() {
            self.fail(reason, now, effects);
        }
    }

    fn fail(&mut self, reason: String, now: Timestamp, effects: &mut Vec<Effect>) {
        self.end(TaskState::Failed, reason, now, effects);
    }

    /// Ends the run: everybody is told, the hold is paid out.
    pub(super) fn end(
        &mut self,
        state: TaskState,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        // Members hold their state until they hear that nobody needs it any more.
        let to_stop = self.nodes();
        let to_withdraw = self
            .offers
            .iter()
            .map(|o| o.member.node)
            .chain(self.asked.clone());
        for node in to_stop.into_iter().chain(to_withdraw) {
            effects.push(Effect::Stop {
                node,
                reason: reason.clone(),
            });
        }
        effects.push(Effect::Settle(self.fees()));
        self.state = state;
        self.reason = reason;
        self.ended = Some(now);
        self.offers.clear();
        self.asked.clear();
        self.checkpoints.clear();
    }

    /// What is due besides the miners' earnings. Items' owners are due their fees once the group had the data.
    fn fees(&self) -> Vec<Fee> {
        let files = self.result.iter().flat_map(|(files, _)| files);
        let bytes = files.fold(0u64, |sum, file| sum.saturating_add(file.bytes));
        let ending = Ending {
            earned: self.earned,
            items_used: self.delivered,
            stored: self
                .stored_by
                .map(|account| (account, bytes))
                .into_iter()
                .collect(),
        };
        self.terms.fees(&ending, AccountId::of_system(FEES))
    }

    /// Records how the ledger paid the hold out, and returns the run's last event.
    pub fn settled(&mut self, payments: Vec<Payment>) -> Effect {
        self.payments = payments.clone();
        let event = Event::Settled {
            state: self.state,
            reason: self.reason.clone(),
            payments,
        };
        self.note(event)
    }
}
