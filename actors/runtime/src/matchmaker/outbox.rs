//! The outbox: news leaves in the order of its postings, each once it is durable.
//!
//! Postings become durable a block at a time. Whoever waits for an answer is answered before anything else is told of that
//! block.
//!
//! A posting can be lost with a ledger that dies before it is on the disk. Then what the matchmaker has in memory did not
//! happen: the outbox tells it, and nothing is posted until a new matchmaker has read the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cryptomind_core::catalog::ItemRecord;
use cryptomind_protocol::node::Command;
use cryptomind_protocol::rating::EvidenceRecord;
use cryptomind_protocol::transaction::Accepted;
use cryptomind_protocol::{ErrorBody, NodeId, TaskId};
use ractor::ActorRef;
use tokio::sync::mpsc;

use super::carry::{Ack, Reply};
use super::{MatchmakerArguments, MatchmakerMsg};
use crate::catalog::CatalogMsg;
use crate::control::{ControlMsg, Over};
use crate::ledger::Durable;
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
    /// The control actor.
    Over(Over),
}

/// A posting on its way to the disk, and what is told after.
pub(super) struct Parcel {
    pub(super) durable: Durable,
    pub(super) answer: Option<(Result<Accepted, ErrorBody>, Reply)>,
    pub(super) ack: Option<Ack>,
    pub(super) deliveries: Vec<Delivery>,
}

/// Sends parcels in order. Its queue is bounded by the requests at the door: each makes one parcel.
pub(super) struct Outbox {
    parcels: mpsc::UnboundedSender<Parcel>,
    world: MatchmakerArguments,
    loss: Loss,
}

/// Whether a posting was lost, or may have been.
#[derive(Clone)]
struct Loss {
    happened: Arc<AtomicBool>,
    me: ActorRef<MatchmakerMsg>,
}

impl Loss {
    fn happen(&self) {
        if !self.happened.swap(true, Ordering::SeqCst) {
            // A matchmaker that has ended meanwhile reads the store when it is back.
            drop(self.me.cast(MatchmakerMsg::Lost));
        }
    }
}

impl Outbox {
    pub(super) fn start(world: &MatchmakerArguments, me: ActorRef<MatchmakerMsg>) -> Self {
        let (parcels, waiting) = mpsc::unbounded_channel::<Parcel>();
        let loss = Loss {
            happened: Arc::default(),
            me,
        };
        let carrier = Carrier {
            world: world.clone(),
            loss: loss.clone(),
        };
        // Ends with the matchmaker, when its end of the channel is dropped and all is delivered.
        tokio::spawn(carrier.carry(waiting));
        Self {
            parcels,
            world: world.clone(),
            loss,
        }
    }

    /// Whether a posting was lost: then memory is not what the store will hold.
    pub(super) fn has_lost(&self) -> bool {
        self.loss.happened.load(Ordering::SeqCst)
    }

    /// Nobody knows whether a posting was carried out: it counts as lost, and the store will tell.
    pub(super) fn lose(&self) {
        self.loss.happen();
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

/// The task that waits for the disk.
struct Carrier {
    world: MatchmakerArguments,
    loss: Loss,
}

impl Carrier {
    async fn carry(self, mut waiting: mpsc::UnboundedReceiver<Parcel>) {
        let mut untold = Vec::new();
        loop {
            let parcel = match waiting.try_recv() {
                Ok(parcel) => parcel,
                Err(_) => {
                    self.tell(&mut untold);
                    match waiting.recv().await {
                        Some(parcel) => parcel,
                        None => return,
                    }
                }
            };
            let durable = self.wait(parcel.durable, &mut untold).await;
            answer(parcel.answer, parcel.ack, &durable);
            match durable {
                Ok(()) => untold.extend(parcel.deliveries),
                Err(_) => self.loss.happen(),
            }
        }
    }

    /// Waits for a posting's block. Where that is not there yet, there is time for the rest of the one before.
    async fn wait(&self, durable: Durable, untold: &mut Vec<Delivery>) -> Result<(), ErrorBody> {
        let stored = durable.wait();
        tokio::pin!(stored);
        tokio::select! {
            biased;
            durable = &mut stored => durable,
            () = std::future::ready(()) => {
                self.tell(untold);
                stored.await
            }
        }
    }

    fn tell(&self, untold: &mut Vec<Delivery>) {
        let world = &self.world;
        for delivery in untold.drain(..) {
            match delivery {
                Delivery::Command(node, command) => world.links.tell(node, command),
                Delivery::Wake(task) => world.watchers.wake(task),
                // An actor that is being restarted reads it from the store.
                Delivery::Heard(record) => {
                    let node = record.node;
                    drop(world.rating.cast(RatingMsg::Heard(record)));
                    // It asks after that was heard.
                    drop(self.loss.me.cast(MatchmakerMsg::Rated(node)));
                }
                // One that is being restarted looks at its own tasks by its timer.
                Delivery::Over(over) => {
                    drop(world.control.cast(ControlMsg::Ended(Box::new(over))));
                }
                Delivery::Stored(record) => {
                    drop(world.catalog.cast(CatalogMsg::Stored(vec![record])));
                }
            }
        }
    }
}

fn answer(
    answer: Option<(Result<Accepted, ErrorBody>, Reply)>,
    ack: Option<Ack>,
    durable: &Result<(), ErrorBody>,
) {
    // Whoever no longer waits does not need the answer.
    if let Some((accepted, reply)) = answer {
        drop(reply.send(durable.clone().and(accepted)));
    }
    if let Some(ack) = ack {
        drop(ack.send(durable.clone()));
    }
}
