//! Holds that nobody settled in time: the ledger did, and the runs learn it.

use cryptomind_core::run::{Input, Run, payments};
use cryptomind_protocol::task::Payment;
use cryptomind_protocol::{ErrorBody, ReceiptId, TaskId};
use cryptomind_storage::state::StateStore;

use super::Desk;
use crate::ledger::archive;

/// Entries of a client that are looked through at a time.
const PAGE: usize = 64;

impl Desk {
    /// At a start: asks the ledger which holds it settled while nobody listened.
    pub(super) async fn look_for_expired(&mut self) -> Result<(), ErrorBody> {
        let tasks = self.runs.tasks();
        let open = self.world.ledger.open_holds(tasks.clone()).await?;
        let gone = tasks.into_iter().zip(open).filter(|(_, open)| !open);
        let gone: Vec<TaskId> = gone.map(|(task, _)| task).collect();
        if !gone.is_empty() {
            // What the ledger has settled may still be on its way to the store.
            self.world.ledger.settled(&self.world.store).await?;
        }
        for task in gone {
            if let Some(run) = self.runs.get(&task) {
                let paid = paid(&self.world.store, run)?;
                self.expired.insert(task, paid);
            }
        }
        self.end_expired().await;
        Ok(())
    }

    /// Ends the runs whose holds are gone. What cannot be posted now is tried again at the next tick.
    pub(super) async fn end_expired(&mut self) {
        let tasks: Vec<TaskId> = self.expired.keys().copied().collect();
        for task in tasks {
            if let Some(payments) = self.expired.get(&task).cloned() {
                self.feed(task, Input::HoldExpired(payments), None).await;
            }
            if self.runs.get(&task).is_none() {
                self.expired.remove(&task);
            }
        }
    }
}

/// How a run's hold was paid out: the client was party to it.
fn paid(store: &StateStore, run: &Run) -> Result<Vec<Payment>, ErrorBody> {
    let mut before: Option<ReceiptId> = None;
    loop {
        let page = archive::passages(store, &run.client, before, PAGE)?;
        for passage in &page {
            let block = archive::block(store, passage.receipt.height())?;
            let index = passage.receipt.index() as usize;
            let receipt = block.as_ref().and_then(|block| block.receipts.get(index));
            let paid = receipt.map(|receipt| payments(&receipt.transfers, &run.task));
            if let Some(paid) = paid.filter(|paid| !paid.is_empty()) {
                return Ok(paid);
            }
        }
        let Some(last) = page.last() else {
            let message = format!("the chain does not say how the hold of {} ended", run.task);
            return Err(ErrorBody::internal(message));
        };
        before = Some(last.receipt);
    }
}
