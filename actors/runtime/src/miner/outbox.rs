//! What this node has to say to the coordinator, in order, until it is acknowledged.
//!
//! Everybody in the miner pushes; the link alone takes. Reports and changes of activity stay over any
//! number of connections; offers, declines and measurements answer a question of one connection and go with it. Progress, and what
//! a session's client has acknowledged, is news only while it is new: a later one takes the place of one that has not left. The queue is bounded,
//! and of what this member signed of its steps, only the newest [`COMMITTED_MAX`] wait: they are large, and without them the rest is
//! understood.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptomind_protocol::TaskId;
use cryptomind_protocol::node::{Report, Request};
use tokio::sync::watch;
use tracing::warn;

/// The most that may wait.
const ENTRIES_MAX: usize = 1024;

/// The most signed commitments that may wait: those of a minute, or of fewer where checkpoints follow each other sooner than a
/// second.
const COMMITTED_MAX: usize = 64;

/// The queue.
pub struct Outbox {
    queue: Mutex<Queue>,
    waiting: watch::Sender<usize>,
}

#[derive(Default)]
struct Queue {
    next: u64,
    entries: VecDeque<(u64, Request)>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            waiting: watch::Sender::new(0),
        }
    }
}

/// Whether `new` makes `old` old news.
fn supersedes(new: &Request, old: &Request) -> bool {
    match (new, old) {
        (
            Request::Report {
                task,
                attempt,
                report,
            },
            Request::Report {
                task: old_task,
                attempt: old_attempt,
                report: old,
            },
        ) => task == old_task && attempt == old_attempt && covers(report, old),
        _ => false,
    }
}

/// Whether a report of a run says all that one before it said.
const fn covers(new: &Report, old: &Report) -> bool {
    matches!(
        (new, old),
        (Report::Progress { .. }, Report::Progress { .. })
            | (Report::Served { .. }, Report::Served { left: false, .. })
    )
}

/// Whether the coordinator can do without it.
const fn is_dispensable(request: &Request) -> bool {
    matches!(
        request,
        Request::Activity { .. }
            | Request::Links { .. }
            | Request::Report {
                report: Report::Progress { .. } | Report::Committed { .. },
                ..
            }
    )
}

/// Whether it is word of a checkpoint: a newer one covers its work, too. Without what members decided by themselves, which is older,
/// nothing that comes after it would be believed.
const fn is_checkpoint(request: &Request) -> bool {
    matches!(
        request,
        Request::Report {
            report: Report::Checkpoint { .. },
            ..
        }
    )
}

/// Whether it is what this member signed of its steps.
const fn is_committed(request: &Request) -> bool {
    matches!(
        request,
        Request::Report {
            report: Report::Committed { .. },
            ..
        }
    )
}

impl Queue {
    /// Makes room for one more, where that costs others their place.
    fn make_room(&mut self, new: &Request) {
        if is_committed(new) {
            let committed = self.entries.iter().enumerate();
            let committed = committed.filter(|(_, (_, waiting))| is_committed(waiting));
            let committed: Vec<usize> = committed.map(|(place, _)| place).collect();
            if let Some(oldest) = committed
                .first()
                .filter(|_| committed.len() >= COMMITTED_MAX)
            {
                self.entries.remove(*oldest);
            }
        }
        if self.entries.len() >= ENTRIES_MAX {
            let first =
                |may_go: fn(&Request) -> bool| self.entries.iter().position(|(_, r)| may_go(r));
            let first = first(is_dispensable).or_else(|| first(is_checkpoint));
            let lost = self.entries.remove(first.unwrap_or(0));
            warn!("too much waits for the coordinator; lost: {lost:?}");
        }
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, queue: &Queue) {
        self.waiting.send_replace(queue.entries.len());
    }

    /// Adds something to say.
    pub fn say(&self, request: Request) {
        let mut queue = self.lock();
        if queue
            .entries
            .back()
            .is_some_and(|(_, last)| supersedes(&request, last))
        {
            queue.entries.pop_back();
        }
        queue.make_room(&request);
        let id = queue.next;
        queue.next += 1;
        queue.entries.push_back((id, request));
        self.tell(&queue);
    }

    /// Adds news of a run.
    pub fn report(&self, task: TaskId, attempt: u32, report: Report) {
        self.say(Request::Report {
            task,
            attempt,
            report,
        });
    }

    /// Waits for something to say; it stays until [`Outbox::done`].
    pub async fn first(&self) -> (u64, Request) {
        let mut waiting = self.waiting.subscribe();
        loop {
            if let Some(first) = self.lock().entries.front() {
                return first.clone();
            }
            // The sender lives as long as self.
            let _ = waiting.wait_for(|n| *n > 0).await;
        }
    }

    /// It was acknowledged, or refused for good.
    pub fn done(&self, id: u64) {
        let mut queue = self.lock();
        queue.entries.retain(|(other, _)| *other != id);
        self.tell(&queue);
    }

    /// The connection is gone, and with it the questions that were asked on it.
    pub fn disconnected(&self) {
        let of_connection = |request: &Request| {
            matches!(
                request,
                Request::Offer { .. } | Request::Decline { .. } | Request::Links { .. }
            )
        };
        let mut queue = self.lock();
        queue.entries.retain(|(_, r)| !of_connection(r));
        self.tell(&queue);
    }

    /// A run is over by the coordinator's own word: it wants no news of it.
    pub fn forget(&self, task: TaskId) {
        let of_it = |r: &Request| match r {
            Request::Offer { task: t, .. }
            | Request::Decline { task: t, .. }
            | Request::Report { task: t, .. }
            | Request::Succeeded { task: t, .. } => *t == task,
            _ => false,
        };
        let mut queue = self.lock();
        queue.entries.retain(|(_, r)| !of_it(r));
        self.tell(&queue);
    }

    /// Waits until nothing is left to say.
    pub async fn emptied(&self) {
        let mut waiting = self.waiting.subscribe();
        let _ = waiting.wait_for(|n| *n == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cryptomind_protocol::task::Activity;

    fn progress(step: u64) -> Report {
        Report::Progress {
            step,
            loss: 1.0,
            samples_per_s: 1,
            timeline: Vec::new(),
        }
    }

    fn ready() -> Report {
        Report::Ready { fetched_bytes: 0 }
    }

    const TASK: TaskId = TaskId::new([1; 16]);

    async fn drain(outbox: &Outbox) -> Vec<Request> {
        let mut said = Vec::new();
        while !outbox.lock().entries.is_empty() {
            let (id, request) = outbox.first().await;
            outbox.done(id);
            said.push(request);
        }
        said
    }

    fn steps(said: &[Request]) -> Vec<u64> {
        said.iter()
            .filter_map(|r| match r {
                Request::Report {
                    report: Report::Progress { step, .. },
                    ..
                } => Some(*step),
                _ => None,
            })
            .collect()
    }

    #[tokio::test]
    async fn only_the_latest_progress_waits_and_the_rest_keeps_its_order() {
        let outbox = Outbox::default();
        outbox.report(TASK, 1, progress(1));
        outbox.report(TASK, 1, progress(2));
        outbox.report(TASK, 1, ready());
        outbox.report(TASK, 1, progress(3));
        outbox.report(TASK, 2, progress(4));
        let said = drain(&outbox).await;
        assert_eq!((said.len(), steps(&said)), (4, vec![2, 3, 4]));
    }

    #[tokio::test]
    async fn the_newest_acknowledgement_takes_the_place_of_older_ones_but_for_the_last() {
        let served = |left| Report::Served {
            acknowledgement: None,
            left,
        };
        let outbox = Outbox::default();
        for left in [false, false, true, false] {
            outbox.report(TASK, 1, served(left));
        }
        outbox.report(TASK, 2, served(false));
        let said = drain(&outbox).await;
        let left: Vec<_> = said
            .iter()
            .map(|r| matches!(r, Request::Report { report, .. } if *report == served(true)))
            .collect();
        assert_eq!(left, [true, false, false]);
    }

    fn committed(byte: u8) -> Report {
        let payload = vec![byte];
        let commitments = cryptomind_protocol::Signed {
            payload,
            signer: cryptomind_protocol::PublicKey::new([0; 32]),
            signature: cryptomind_protocol::Signature::new([0; 64]),
        };
        Report::Committed { commitments }
    }

    #[tokio::test]
    async fn only_the_newest_commitments_wait_and_they_push_out_nothing_else() {
        let outbox = Outbox::default();
        outbox.report(TASK, 1, ready());
        for byte in 0..=u8::MAX {
            outbox.report(TASK, 1, committed(byte));
            if byte % 2 == 0 {
                outbox.report(TASK, 1, ready());
            }
        }
        let said = drain(&outbox).await;
        let bytes = said.iter().filter_map(|request| match request {
            Request::Report {
                report: Report::Committed { commitments },
                ..
            } => Some(commitments.payload[0]),
            _ => None,
        });
        let newest = u8::MAX - COMMITTED_MAX as u8 + 1..=u8::MAX;
        assert!(bytes.eq(newest));
        assert_eq!(said.len(), COMMITTED_MAX + 1 + 128);
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_not_mistaken_for_its_successor() {
        let outbox = Outbox::default();
        outbox.report(TASK, 1, progress(1));
        let (id, _) = outbox.first().await;
        outbox.report(TASK, 1, progress(2));
        outbox.done(id);
        assert_eq!(steps(&drain(&outbox).await), [2]);
    }

    #[tokio::test]
    async fn a_lost_connection_takes_offers_along_and_a_stop_the_run() {
        let outbox = Outbox::default();
        outbox.say(Request::Offer {
            task: TASK,
            ring_address: "h:1".into(),
        });
        outbox.say(Request::Links {
            reports: Vec::new(),
            echoes: Vec::new(),
        });
        outbox.report(TASK, 1, ready());
        outbox.disconnected();
        assert_eq!(outbox.lock().entries.len(), 1);
        outbox.forget(TASK);
        outbox.emptied().await;
    }

    #[tokio::test]
    async fn a_full_queue_loses_what_can_be_done_without() {
        let outbox = Outbox::default();
        outbox.report(TASK, 1, ready());
        outbox.say(Request::Activity {
            from: Activity::Idle,
            to: Activity::Training,
            task: None,
        });
        (0..ENTRIES_MAX).for_each(|_| outbox.report(TASK, 1, ready()));
        let said = drain(&outbox).await;
        assert_eq!(said.len(), ENTRIES_MAX);
        assert!(said.iter().all(|r| !is_dispensable(r)));
    }

    /// The members went on by themselves, and for long: what they decided is the oldest news, and all later news hangs on it.
    #[tokio::test]
    async fn a_full_queue_loses_old_checkpoints_before_all_else() {
        let checkpoint = |step| Report::Checkpoint {
            step,
            fingerprint: cryptomind_protocol::key::Hash::of(b"state"),
            computed_ms: 0,
            stored: None,
        };
        let outbox = Outbox::default();
        outbox.report(TASK, 1, ready());
        let steps = ENTRIES_MAX as u64 + 9;
        (0..steps).for_each(|step| outbox.report(TASK, 2, checkpoint(step)));
        let said = drain(&outbox).await;
        let report = |request: &Request| match request {
            Request::Report { report, .. } => report.clone(),
            _ => panic!("{request:?}"),
        };
        assert_eq!(said.len(), ENTRIES_MAX);
        assert_eq!(report(&said[0]), ready());
        assert_eq!(report(&said[ENTRIES_MAX - 1]), checkpoint(steps - 1));
    }
}
