//! The outbox: news leaves in the order of its postings, each once it is durable.

use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::journal::EvidenceRecord;
use cryptomind_protocol::node::Command;
use cryptomind_protocol::transaction::Outcome;
use cryptomind_protocol::{ErrorBody, NodeId, TaskId};
use cryptomind_storage::state::Commit;
use tokio::sync::mpsc;

use super::MatchmakerArguments;
use super::carry::{Ack, Reply};
use crate::catalog::CatalogMsg;
use crate::rating::RatingMsg;

/// What is told, and to whom.
#[allow(
    clippy::large_enum_variant,
    reason = "a delivery is on its way, never kept"
)]
pub(super) enum Delivery {
    /// A node.
    Command(NodeId, Command),
    /// Whoever follows a task.
    Wake(TaskId),
    /// The rating actor.
    Heard(EvidenceRecord),
    /// The catalog actor.
    Stored(ItemRecord),
}

/// A posting on its way to the disk, and what is told after.
pub(super) struct Parcel {
    pub(super) commit: Commit,
    pub(super) answer: Option<(Outcome, Reply)>,
    pub(super) ack: Option<Ack>,
    pub(super) deliveries: Vec<Delivery>,
}

/// Sends parcels in order. Its queue is bounded by the requests at the door: each makes one parcel.
pub(super) struct Outbox {
    parcels: mpsc::UnboundedSender<Parcel>,
    world: MatchmakerArguments,
}

impl Outbox {
    pub(super) fn start(world: &MatchmakerArguments) -> Self {
        let (parcels, mut waiting) = mpsc::unbounded_channel::<Parcel>();
        let carrier = world.clone();
        // Ends with the matchmaker, when its end of the channel is dropped and all is delivered.
        tokio::spawn(async move {
            while let Some(parcel) = waiting.recv().await {
                deliver(&carrier, parcel).await;
            }
        });
        Self {
            parcels,
            world: world.clone(),
        }
    }

    pub(super) fn send(&self, parcel: Parcel) {
        // The carrier lives as long as this end does.
        drop(self.parcels.send(parcel));
    }

    /// Tells a node at once that a run, long over, is over.
    pub(super) fn stop(&self, node: NodeId, task: TaskId) {
        let reason = "the task has ended".to_owned();
        self.world.links.tell(node, Command::Stop { task, reason });
    }
}

async fn deliver(world: &MatchmakerArguments, parcel: Parcel) {
    let durable = parcel.commit.await.map_err(ErrorBody::internal);
    // Whoever no longer waits does not need the answer.
    if let Some((outcome, reply)) = parcel.answer {
        drop(reply.send(durable.clone().map(|()| outcome)));
    }
    if let Some(ack) = parcel.ack {
        drop(ack.send(durable.clone()));
    }
    if durable.is_err() {
        return;
    }
    for delivery in parcel.deliveries {
        match delivery {
            Delivery::Command(node, command) => world.links.tell(node, command),
            Delivery::Wake(task) => world.watchers.wake(task),
            // An actor that is being restarted reads it from the store.
            Delivery::Heard(record) => drop(world.rating.cast(RatingMsg::Heard(record))),
            Delivery::Stored(record) => drop(world.catalog.cast(CatalogMsg::Stored(vec![record]))),
        }
    }
}
