//! The door of a ring socket: who dials is let in where it is a rank that sends to this node, in this task
//! and attempt.
//!
//! Members start at different times, so a neighbour may come before this node knows its plan: it waits at the door
//! for a while. Everybody else is closed with a reason, and the ring within hears nothing of it.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::frame::{ALPN_FOLLOW, ALPN_MEMBER};
use cryptomind_protocol::ring::Link;
use cryptomind_protocol::{ErrorBody, NodeId, TaskId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::RingPlan;
use super::error::Place;
use super::follow::{Hall, Leading};
use super::link::Arrival;
use super::talk::{Ear, Talking};
use crate::close::Close;
use crate::connection::Connection;
use crate::endpoint::{Endpoint, Pending};

/// Callers at a time that have not said yet what they want.
const MAX_ARRIVING: usize = 64;
/// Callers that wait for a plan at a time.
const MAX_WAITING: usize = 32;
/// How long they wait.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// Whom this node expects, in its present plan.
#[derive(Clone)]
struct Expected {
    task: TaskId,
    attempt: u32,
    callers: Vec<(u32, NodeId)>,
    arrivals: mpsc::Sender<Arrival>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    LetIn,
    Wait,
    Refuse,
}

fn judge(expected: Option<&Expected>, caller: NodeId, link: &Link) -> Verdict {
    let Some(expected) = expected else {
        return Verdict::Wait;
    };
    if link.task != expected.task || link.attempt > expected.attempt {
        // For a plan that is still on its way here.
        Verdict::Wait
    } else if link.attempt == expected.attempt && expected.callers.contains(&(link.rank, caller)) {
        Verdict::LetIn
    } else {
        Verdict::Refuse
    }
}

/// Who has come, by what is wanted.
enum Caller {
    /// To say something.
    Member(Connection),
    /// To follow this node's group.
    Newcomer(Connection),
    /// To be linked.
    Neighbour(Arrival),
}

/// The door. Clones are the same one.
#[derive(Clone)]
pub(super) struct Door {
    ear: Ear,
    hall: Hall,
    expected: watch::Sender<Option<Expected>>,
    waiting: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new(ear: Ear, hall: Hall) -> Self {
        Self {
            ear,
            hall,
            expected: watch::Sender::new(None),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    /// From now on lets in the ranks that send to `place`, in this task and attempt. A caller that breaks off may dial
    /// again, so there may be more arrivals than ranks.
    pub(super) fn expect(&self, plan: &RingPlan, place: &Place) -> mpsc::Receiver<Arrival> {
        let distances = 1..=plan.farthest();
        let (arrivals, arrived) = mpsc::channel(2 * plan.farthest());
        let callers = distances.map(|distance| place.behind(distance));
        self.expected.send_replace(Some(Expected {
            task: plan.task,
            attempt: plan.attempt,
            callers: callers
                .map(|rank| (rank as u32, place.node(rank)))
                .collect(),
            arrivals,
        }));
        arrived
    }

    /// Takes callers until the endpoint closes.
    pub(super) async fn listen(self, endpoint: Endpoint) {
        let mut arriving: JoinSet<Option<Caller>> = JoinSet::new();
        // Bounded by `waiting`, but for a moment.
        let mut waiting = JoinSet::new();
        let mut talking = Talking::new(self.ear.clone());
        let mut leading = Leading::new(self.hall.clone());
        let mut came = 0;
        loop {
            tokio::select! {
                Some(arrived) = arriving.join_next(), if !arriving.is_empty() => match arrived {
                    Ok(Some(Caller::Member(caller))) => talking.listen_to(caller),
                    Ok(Some(Caller::Newcomer(caller))) => match self.ear.knows(&caller.peer_node()) {
                        true => leading.lead(caller),
                        false => Close::Stranger.apply(caller.quic()),
                    },
                    Ok(Some(Caller::Neighbour(arrival))) => {
                        waiting.spawn(self.clone().wait(arrival));
                    }
                    _ => {}
                },
                Some(_) = waiting.join_next(), if !waiting.is_empty() => {}
                pending = endpoint.accept() => match pending {
                    // Dropping it refuses it: a neighbour dials again.
                    Some(pending) if arriving.len() >= MAX_ARRIVING => drop(pending),
                    Some(pending) => {
                        came += 1;
                        arriving.spawn(Self::receive(pending, came));
                    }
                    None => return,
                },
            }
        }
    }

    /// Hears what a caller wants; nothing of one that breaks off.
    async fn receive(pending: Pending, number: u64) -> Option<Caller> {
        let from = pending.remote();
        let caller = async {
            let connection = pending.establish().await?;
            Ok::<_, ErrorBody>(match connection.alpn() {
                ALPN_MEMBER => Caller::Member(connection),
                ALPN_FOLLOW => Caller::Newcomer(connection),
                _ => Caller::Neighbour(Arrival::read(connection, number).await?),
            })
        };
        let log =
            |error: &ErrorBody| tracing::debug!(%from, %error, "a caller at the door broke off");
        caller.await.inspect_err(log).ok()
    }

    async fn wait(self, arrival: Arrival) {
        let caller = arrival.caller();
        let waited = tokio::time::timeout(WAIT_LIMIT, self.admit(arrival)).await;
        tracing::debug!(%caller, in_time = waited.is_ok(), "a caller at the ring's door");
    }

    /// Lets the caller in, has it wait, or refuses it.
    async fn admit(self, arrival: Arrival) {
        let mut expected = self.expected.subscribe();
        let mut slot = None;
        loop {
            let now = expected.borrow_and_update().clone();
            match judge(now.as_ref(), arrival.caller(), &arrival.link) {
                Verdict::LetIn => return deliver(now, arrival),
                Verdict::Refuse => return arrival.refuse(Close::Stranger),
                Verdict::Wait => {}
            }
            if slot.is_none() {
                slot = self.waiting.try_acquire().ok();
            }
            if slot.is_none() {
                return arrival.refuse(Close::Busy);
            }
            tokio::select! {
                changed = expected.changed() => if changed.is_err() { return },
                () = arrival.gone() => return,
            }
        }
    }
}

/// A ring that is closed already takes no second link.
fn deliver(expected: Option<Expected>, arrival: Arrival) {
    let Some(expected) = expected else { return };
    match expected.arrivals.try_send(arrival) {
        Ok(()) => {}
        // Others are being looked at: it may dial again.
        Err(TrySendError::Full(arrival)) => arrival.refuse(Close::Busy),
        Err(TrySendError::Closed(arrival)) => arrival.refuse(Close::Stranger),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_expected_ranks_in_this_attempt_are_let_in() {
        let (before, other) = (NodeId::new([1; 32]), NodeId::new([2; 32]));
        let (task, elsewhere) = (TaskId::new([1; 16]), TaskId::new([2; 16]));
        let expected = Expected {
            task,
            attempt: 5,
            callers: vec![(3, before), (1, other)],
            arrivals: mpsc::channel(1).0,
        };
        let verdict = |caller, task, attempt, rank| {
            let link = Link {
                task,
                attempt,
                rank,
            };
            judge(Some(&expected), caller, &link)
        };
        assert_eq!(verdict(before, task, 5, 3), Verdict::LetIn);
        assert_eq!(verdict(other, task, 5, 1), Verdict::LetIn);
        assert_eq!(verdict(other, task, 5, 3), Verdict::Refuse);
        assert_eq!(verdict(before, task, 5, 2), Verdict::Refuse);
        assert_eq!(verdict(before, task, 4, 3), Verdict::Refuse);
        assert_eq!(verdict(before, task, 6, 3), Verdict::Wait);
        assert_eq!(verdict(before, elsewhere, 5, 3), Verdict::Wait);
        let link = Link {
            task,
            attempt: 5,
            rank: 3,
        };
        assert_eq!(judge(None, before, &link), Verdict::Wait);
    }
}
