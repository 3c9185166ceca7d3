//! What clients see of accounts and tasks, made of what is stored.

use cryptomind_core::run::Run;
use cryptomind_protocol::api::TransferView;
use cryptomind_protocol::block::Transfer;
use cryptomind_protocol::task::{TaskState, TaskView};
use cryptomind_protocol::{ItemId, ReceiptId, Timestamp};

/// A task for its client.
pub(super) fn task(run: Run) -> TaskView {
    let trained = run.is_training() && run.state == TaskState::Finished;
    let item = trained.then(|| ItemId::of_task(&run.task));
    let members = run.seats.into_iter().map(|seat| seat.member).collect();
    let (files, metrics) = run.result.map_or((Vec::new(), None), |(f, m)| (f, Some(m)));
    TaskView {
        task: run.task,
        client: run.client,
        state: run.state,
        reason: run.reason,
        posted: run.posted,
        ended: run.ended,
        members,
        attempt: run.attempt,
        step: run.step,
        total_steps: run.terms.extent.steps,
        earned: run.earned,
        payments: run.payments,
        files,
        metrics,
        item,
        events: run.events,
        spec: run.spec,
    }
}

/// A transfer, without names.
pub(super) fn transfer(
    receipt: ReceiptId,
    number: usize,
    at: Timestamp,
    transfer: Transfer,
) -> TransferView {
    TransferView {
        receipt,
        number: number as u32,
        at,
        payer_name: transfer.payer.short(),
        payer: transfer.payer,
        payee_name: transfer.payee.short(),
        payee: transfer.payee,
        amount: transfer.amount,
        reason: transfer.reason,
        task: transfer.task,
    }
}
