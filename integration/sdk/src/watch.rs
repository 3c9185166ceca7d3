//! Numbered streams, such as a task's events and the chain's blocks: each item once and in order, over any number of
//! connections.
//!
//! A task of its own subscribes, and subscribes again from the first missing number whenever the
//! connection breaks, a number is skipped, or nothing was heard for [`SILENCE`]. What was seen is
//! passed on over a bounded channel: a slow reader slows the stream, nothing is dropped.

use std::time::Duration;

use cryptomind_net::Subscription;
use cryptomind_protocol::api::Request;
use cryptomind_protocol::task::{Event, TaskEvent};
use cryptomind_protocol::{ErrorBody, TaskId};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Client;
use crate::retry::Retry;

/// After so long without an event the subscription is renewed: it may be dead unnoticed.
const SILENCE: Duration = Duration::from_secs(30);
/// Events that wait for a slow reader.
const WAITING_EVENTS: usize = 256;

/// A stream whose items are numbered without gaps.
pub(crate) trait Numbered: Send + 'static {
    /// What comes.
    type Item: DeserializeOwned + Send + 'static;
    /// Asks for the items from a number on.
    fn request(&self, from: u64) -> Request;
    /// An item's number.
    fn number(item: &Self::Item) -> u64;
    /// Whether nothing comes after it.
    fn is_last(item: &Self::Item) -> bool;
}

/// Follows a stream from a number on, with room for so many items that a slow reader has not taken.
pub(crate) fn start<S: Numbered>(
    client: Client,
    stream: S,
    from: u64,
    waiting: usize,
) -> (mpsc::Receiver<Result<S::Item, ErrorBody>>, JoinHandle<()>) {
    let (sender, items) = mpsc::channel(waiting);
    let follower = Follower {
        client,
        stream,
        next: from,
        sender,
    };
    (items, tokio::spawn(follower.run()))
}

/// A task's events.
struct Events(TaskId);

impl Numbered for Events {
    type Item = TaskEvent;

    fn request(&self, from: u64) -> Request {
        Request::Watch { task: self.0, from }
    }

    fn number(item: &TaskEvent) -> u64 {
        item.number
    }

    fn is_last(item: &TaskEvent) -> bool {
        matches!(item.event, Event::Settled { .. })
    }
}

/// The events of one task. Dropping it ends the watching, never the task.
pub struct Watch {
    events: mpsc::Receiver<Result<TaskEvent, ErrorBody>>,
    follower: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start(client: Client, task: TaskId, from: u64) -> Self {
        let (events, follower) = start(client, Events(task), from, WAITING_EVENTS);
        Self { events, follower }
    }

    /// The next event. `None` after the last, which is [`Event::Settled`]; an error ends it too.
    /// Safe to cancel: an event that was not handed out comes with the next call.
    ///
    /// A task may rest for as long as its timers allow: put a limit around this where you have one.
    pub async fn next(&mut self) -> Option<Result<TaskEvent, ErrorBody>> {
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

struct Follower<S: Numbered> {
    client: Client,
    stream: S,
    next: u64,
    sender: mpsc::Sender<Result<S::Item, ErrorBody>>,
}

impl<S: Numbered> Follower<S> {
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
        let request = self.stream.request(self.next);
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
            let heard = tokio::time::timeout(SILENCE, subscription.next::<S::Item>()).await;
            let item = match heard {
                Ok(Some(Ok(item))) => item,
                Ok(Some(Err(error))) => return Ended::Again(error),
                Ok(None) => return renew("the stream ended before its last item"),
                Err(_) => return Ended::Quiet,
            };
            match position(S::number(&item), self.next) {
                Position::Seen => continue,
                Position::Gap => return renew("an item was skipped"),
                Position::Next => self.next += 1,
            }
            let last = S::is_last(&item);
            if self.sender.send(Ok(item)).await.is_err() || last {
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
