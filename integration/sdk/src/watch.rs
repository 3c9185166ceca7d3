//! A task's events, each once and in order, over any number of connections.
//!
//! A task of its own subscribes, and subscribes again from the first missing number whenever the
//! connection breaks, a number is skipped, or nothing was heard for [`SILENCE`]. What was seen is
//! passed on over a bounded channel: a slow reader slows the stream, nothing is dropped.

use std::time::Duration;

use cryptomind_net::Subscription;
use cryptomind_protocol::api::Request;
use cryptomind_protocol::task::{Event, TaskEvent};
use cryptomind_protocol::{ErrorBody, TaskId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Client;
use crate::retry::Retry;

/// After so long without an event the subscription is renewed: it may be dead unnoticed.
const SILENCE: Duration = Duration::from_secs(30);
/// Events that wait for a slow reader.
const WAITING_EVENTS: usize = 256;

type Item = Result<TaskEvent, ErrorBody>;

/// The events of one task. Dropping it ends the watching, never the task.
pub struct Watch {
    events: mpsc::Receiver<Item>,
    follower: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(client: Client, task: TaskId, from: u64) -> Self {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let follower = Follower {
            client,
            task,
            next: from,
            sender,
        };
        Self {
            events,
            follower: tokio::spawn(follower.run()),
        }
    }

    /// The next event. `None` after the last, which is [`Event::Settled`]; an error ends it too.
    /// Safe to cancel: an event that was not handed out comes with the next call.
    ///
    /// A task may rest for as long as its timers allow: put a limit around this where you have one.
    pub async fn next(&mut self) -> Option<Item> {
        self.events.recv().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// What one subscription came to.
enum Ended {
    /// The last event was passed on, or nobody reads any more.
    Done,
    /// Nothing was heard for [`SILENCE`]: subscribe again, at once and for as long as it takes.
    Quiet,
    /// It broke: subscribe again after a pause.
    Again(ErrorBody),
}

struct Follower {
    client: Client,
    task: TaskId,
    next: u64,
    sender: mpsc::Sender<Item>,
}

impl Follower {
    async fn run(mut self) {
        let patience = self.client.limits().patience;
        let mut retry = Retry::new(patience);
        loop {
            let before = self.next;
            let error = match self.follow().await {
                Ended::Done => return,
                Ended::Quiet => {
                    retry = Retry::new(patience);
                    continue;
                }
                Ended::Again(error) => error,
            };
            if self.next > before {
                retry = Retry::new(patience);
            }
            if let Err(error) = retry.pause(error).await {
                let _ = self.sender.send(Err(error)).await;
                return;
            }
        }
    }

    /// One subscription, for as long as it lasts.
    async fn follow(&mut self) -> Ended {
        let request = Request::Watch {
            task: self.task,
            from: self.next,
        };
        let link = self.client.link();
        let (generation, subscription) = match link.subscribe(&request).await {
            Ok(opened) => opened,
            Err(error) => return Ended::Again(error),
        };
        let ended = self.pass_on(subscription).await;
        if let Ended::Again(error) = &ended
            && error.class == cryptomind_protocol::ErrorClass::Network
            && error.code != RENEWED
        {
            self.client.link().drop_connection(generation).await;
        }
        ended
    }

    async fn pass_on(&mut self, mut subscription: Subscription) -> Ended {
        loop {
            let heard = tokio::time::timeout(SILENCE, subscription.next::<TaskEvent>()).await;
            let event = match heard {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return Ended::Again(error),
                Ok(None) => return renew("the stream ended before the task did"),
                Err(_) => return Ended::Quiet,
            };
            match position(event.number, self.next) {
                Position::Seen => continue,
                Position::Gap => return renew("an event was skipped"),
                Position::Next => self.next += 1,
            }
            let last = matches!(event.event, Event::Settled { .. });
            if self.sender.send(Ok(event)).await.is_err() || last {
                return Ended::Done;
            }
        }
    }
}

/// The code of a subscription that is renewed on a connection that is well.
const RENEWED: &str = "watch_renewed";

fn renew(why: &str) -> Ended {
    Ended::Again(ErrorBody::network(RENEWED, why))
}

/// Where an event stands to what was seen.
#[derive(Debug, PartialEq)]
enum Position {
    Seen,
    Next,
    Gap,
}

fn position(number: u64, next: u64) -> Position {
    match number.cmp(&next) {
        std::cmp::Ordering::Less => Position::Seen,
        std::cmp::Ordering::Equal => Position::Next,
        std::cmp::Ordering::Greater => Position::Gap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_events_are_dropped_and_gaps_are_noticed() {
        let seen: Vec<_> = [3, 4, 5, 7].map(|number| position(number, 5)).into();
        use Position::{Gap, Next, Seen};
        assert_eq!(seen, [Seen, Seen, Next, Gap]);
    }
}
