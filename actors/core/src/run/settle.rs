//! The end of a run: what is paid, and what goes back.

use cryptomind_protocol::block::{Ending, Transfer};
use cryptomind_protocol::task::{Event, Payment, TaskState};
use cryptomind_protocol::{NodeId, TaskId, Timestamp};

use super::{Effect, Run};

impl Run {
    pub(super) fn cancel(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let reason = "its client cancelled it".to_owned();
        if !self.ask_for_the_last(TaskState::Cancelled, reason.clone(), now, effects) {
            self.end(TaskState::Cancelled, reason, now, effects);
        }
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

    /// The ledger was faster: there is nothing left to settle.
    pub(super) fn hold_expired(
        &mut self,
        payments: Vec<Payment>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let reason = "nobody settled it before its hold expired".to_owned();
        self.close(TaskState::Expired, reason, now, effects);
        let last = self.settled(payments);
        effects.push(last);
    }

    /// Ends the run: everybody is told, the hold is paid out.
    pub(super) fn end(
        &mut self,
        state: TaskState,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        self.close(state, reason, now, effects);
        effects.push(Effect::Settle(self.ending()));
    }

    fn close(
        &mut self,
        state: TaskState,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        // Members hold their state until they hear that nobody needs it any more.
        let newcomers = std::mem::take(&mut self.newcomers).into_iter();
        let to_stop = self
            .nodes()
            .into_iter()
            .chain(newcomers.map(|n| n.offer.member.node));
        let to_stop: Vec<_> = to_stop.collect();
        let ran = self.seats.iter().filter_map(|seat| self.ran(seat, now));
        effects.extend(ran);
        let to_withdraw = self
            .offers
            .iter()
            .map(|o| o.member.node)
            .chain(self.asked.clone())
            .chain(self.late.clone());
        for node in to_stop.into_iter().chain(to_withdraw) {
            effects.push(Effect::Stop {
                node,
                reason: reason.clone(),
            });
        }
        self.state = state;
        self.reason = reason;
        self.ended = Some(now);
        self.offers.clear();
        self.asked.clear();
        self.late.clear();
        self.checkpoints.clear();
    }

    /// What the settlement depends on. What is withheld depends on ratings, which the run does not know.
    fn ending(&self) -> Ending {
        let files = self.result.iter().flat_map(|(files, _)| files);
        let bytes = files.fold(0u64, |sum, file| sum.saturating_add(file.bytes));
        let stored = self.stored_by.filter(|_| bytes > 0);
        Ending {
            items_used: self.used_items(),
            stored: stored.map(|account| (account, bytes)).into_iter().collect(),
            withheld: Vec::new(),
        }
    }

    /// Whether the items' owners are due their fees: once anything was earned with them; and where a group had the data
    /// and the task ended through no fault of the network's.
    fn used_items(&self) -> bool {
        use TaskState::{Cancelled, Failed, Finished};
        let through_no_fault = matches!(self.state, Finished | Cancelled | Failed);
        !self.earned.is_zero() || (self.delivered && through_no_fault)
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

/// A task's payments among the transfers of a receipt.
pub fn payments(transfers: &[Transfer], task: &TaskId) -> Vec<Payment> {
    let of_task = transfers.iter().filter(|t| t.task == Some(*task));
    let payment = |t: &Transfer| Payment {
        payer: t.payer,
        payee: t.payee,
        amount: t.amount,
        reason: t.reason,
        node: t.node,
    };
    of_task.map(payment).collect()
}
