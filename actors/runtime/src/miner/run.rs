//! The life of one task on this miner, as one task of the runtime, over as many attempts as there are.
//!
//! The worker starts it and passes the coordinator's orders on; it answers through the outbox and ends with an
//! [`Ending`]. Training together is [`group`]: it carries out what [`cryptomind_core::member`] decides. Whatever one miner does by
//! itself, inference and sessions, is [`single`]. Every wait listens for orders, so a stop or a new attempt is obeyed wherever it
//! finds the run. Dropping the future stops everything: thread, ring and transfers go with it.

use std::sync::Arc;
use std::time::Duration;

pub use cryptomind_core::member::Ending;
use cryptomind_net::ring::RingSocket;
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::node::Match;
use cryptomind_protocol::task::Work;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::train::Fault;
use super::worker::{Context, Place};
use crate::idle::IdleMsg;

mod fetch;
mod follow;
mod group;
mod single;
mod store;

pub(super) use fetch::may_pass;

/// What the idle command gets beyond its own limits.
const IDLE_SLACK: Duration = Duration::from_secs(15);

/// What the coordinator wants of a run.
#[derive(Debug)]
pub enum Order {
    /// A place in an attempt.
    Match(Box<Match>),
    /// Leave the attempt before this one.
    Pause {
        /// The attempt to come.
        attempt: u32,
        /// Whether where a step ends, as all members do, or else at once.
        at_step_end: bool,
    },
    /// It is over.
    Stop {
        /// Why.
        reason: String,
    },
    /// From the worker: say that this member wants to go, and go on until the coordinator says stop.
    Leave {
        /// Why.
        reason: String,
    },
}

/// Where a run is reached by other members.
pub struct Berth {
    /// It serves all attempts.
    pub socket: RingSocket,
    /// `host:port`, as others see it.
    pub address: String,
}

/// Carries out a match, and what follows from it, to the end.
pub async fn drive(
    context: Arc<Context>,
    place: Place,
    matched: Match,
    berth: Berth,
    orders: mpsc::Receiver<Order>,
) -> Ending {
    if let Work::Train { .. } = matched.spec.work {
        return group::drive(context, place, matched, berth, orders).await;
    }
    let Berth { socket, address } = berth;
    // Nobody dials it, and its port may be wanted for the client's door.
    drop(socket);
    single::drive(context, place, matched, address, orders).await
}

/// Stops the owner's program and waits until it is gone. A front that is being restarted is asked again.
async fn stop_idle(context: &Context) -> Result<(), ErrorBody> {
    let limit = context.idle_stop_limit + IDLE_SLACK;
    let deadline = Instant::now() + limit;
    loop {
        match context.idle.call(IdleMsg::Stop, limit).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => return Err(e),
            Err(e) if Instant::now() >= deadline => return Err(e),
            Err(e) => {
                let pause = e.retry_after_ms.unwrap_or(200);
                sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
