//! What clients see of accounts, tasks and links, made of what is stored and measured.

use std::collections::BTreeMap;

use cryptomind_core::market::link::{Link, Pair, Party};
use cryptomind_core::run::Run;
use cryptomind_protocol::api::{LinkBasis, LinkView, TransferView};
use cryptomind_protocol::block::Transfer;
use cryptomind_protocol::task::{TaskState, TaskView};
use cryptomind_protocol::{ItemId, NodeId, ReceiptId, Timestamp};

/// A task for its client.
pub(super) fn task(run: Run) -> TaskView {
    let trained = run.is_training() && run.state == TaskState::Finished;
    let item = trained.then(|| ItemId::of_task(&run.task));
    let session = run.session_metrics();
    let trail = run.trail.view();
    let members = run.seats.into_iter().map(|seat| seat.member).collect();
    let (files, metrics) = run
        .result
        .map_or((Vec::new(), session), |(f, m)| (f, Some(m)));
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
        trail,
        spec: run.spec,
    }
}

/// The node that a party is; nothing of a client.
pub(super) const fn node(party: Party) -> Option<NodeId> {
    match party {
        Party::Node(node) => Some(node),
        Party::Client(_) => None,
    }
}

/// A link between nodes, which `names` has. Nothing of one with a client.
pub(super) fn link(
    pair: Pair,
    counts: Option<Link>,
    names: &BTreeMap<NodeId, String>,
    now: Timestamp,
) -> Option<LinkView> {
    let (from, to) = (node(pair.a)?, node(pair.b)?);
    let name = |node| names.get(&node).cloned().unwrap_or_default();
    Some(LinkView {
        from,
        from_name: name(from),
        to,
        to_name: name(to),
        rtt_us: counts.map(|link| link.rtt_us),
        bytes_per_s: counts.map(|link| link.bytes_per_s),
        known: basis(pair.ends, counts),
        age_ms: pair.heard.map(|at| now.ms_since(at)),
        lan: pair.lan,
    })
}

fn basis(ends: u8, counts: Option<Link>) -> LinkBasis {
    match (ends, counts) {
        (0, _) => LinkBasis::Estimated,
        (2, Some(link)) if !link.estimated => LinkBasis::BothEnds,
        _ => LinkBasis::OneEnd,
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
