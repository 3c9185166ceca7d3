//! A rank that trains: a miner's training thread and its place in the ring, without the market.

use std::sync::mpsc as std_mpsc;

use cryptomind_actors::miner::train::{Done, Event, Leg, Plan, StepTime, Trainer};
use cryptomind_core::batch::Shares;
use cryptomind_net::ring::{RingPlan, RingSocket};
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::{ErrorBody, ErrorClass};
use tokio::sync::watch;

/// What a rank came to.
pub(super) struct Trained {
    /// Of the state after all steps.
    pub(super) fingerprint: Hash,
    pub(super) done: Done,
}

/// States that differ are no training, however fast or good.
pub(super) fn agree<'a>(mut fingerprints: impl Iterator<Item = &'a Hash>) -> Result<(), ErrorBody> {
    let first = fingerprints.next();
    if fingerprints.all(|other| Some(other) == first) {
        return Ok(());
    }
    let message = "the members ended with different states";
    let error = ErrorBody::new(ErrorClass::Internal, "states_differ", message);
    Err(error
        .with_help("this is a fault of the ring or the engine: please report it with the command"))
}

/// Trains to the end at this place, with equal shares; each step's time is told.
pub(super) async fn train(
    socket: &RingSocket,
    place: RingPlan,
    plan: Plan,
    times: std_mpsc::Sender<StepTime>,
) -> Result<Trained, ErrorBody> {
    let trainer = Trainer::start_timed(plan, times);
    let mut trainer = trainer.map_err(ErrorBody::internal)?;
    match trainer.events.recv().await {
        Some(Event::Loaded) => {}
        other => return Err(stopped(other)),
    }
    let (rank, world) = (place.rank, place.members.len() as u32);
    let ring = socket.join(place).await.map_err(ErrorBody::internal)?;
    // Dropped, it would have the thread leave.
    let (_stay, leave) = watch::channel(false);
    trainer.train(Leg {
        ring,
        rank,
        world,
        shares: Shares::equal(world),
        attempt: 1,
        leave,
        calls: Default::default(),
        followers: Default::default(),
    });
    end(&mut trainer).await
}

/// Hears the thread until all steps are done.
async fn end(trainer: &mut Trainer) -> Result<Trained, ErrorBody> {
    let mut last = None;
    loop {
        match trainer.events.recv().await {
            Some(Event::Checkpoint { fingerprint, .. }) => last = Some(fingerprint),
            Some(Event::Progress { .. } | Event::Committed { .. }) => {}
            Some(Event::Done(done)) => {
                let fingerprint =
                    last.ok_or_else(|| ErrorBody::internal("no state after the last step"))?;
                let done = *done;
                return Ok(Trained { fingerprint, done });
            }
            other => return Err(stopped(other)),
        }
    }
}

fn stopped(event: Option<Event>) -> ErrorBody {
    let why = match event {
        Some(Event::Broken { reason, .. }) => reason,
        Some(Event::Failed(fault)) => fault.reason,
        _ => "the training thread ended before its time".into(),
    };
    ErrorBody::internal(why)
}
