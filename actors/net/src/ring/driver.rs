//! What carries a closed ring's collectives out, on the ring's own thread: one after another, in the order of the calls.
//!
//! It moves bytes between the streams and the [`Collective`], which knows what they mean. Sending and receiving wait at the same
//! time, in one task: what has come is folded, and what became ready by it is on its way, before anything else is looked at.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cryptomind_protocol::NodeId;
use cryptomind_protocol::ring::Wire;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::blocks::Blocks;
use super::collective::{Buffer, Collective, Unfit};
use super::error::{Place, RingError};
use super::health::Health;
use super::link::{Heard, Next, Previous};

/// A collective in which nothing comes or goes for this long has failed, although all answer pings. However slow a link is, it may
/// take as long as it goes on.
pub const COLLECTIVE_LIMIT: Duration = Duration::from_secs(120);
/// Leaving waits for this long at most until the others have everything.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);
/// Pieces that are taken from a stream at a time, a packet's each.
const PIECES: usize = 32;
/// Bytes that [`Driver::raw`] writes at a time.
const RAW_BLOCK: usize = 64 * 1024;

/// Answers a job.
pub(super) type Answer<T> = oneshot::Sender<Result<T, RingError>>;

/// What a driver does next.
pub(super) enum Job {
    /// Answered by the sum and when it was there.
    Sum(Wire, Buffer, Answer<(Buffer, Instant)>),
    Barrier(Answer<()>),
    /// Moves these bytes to the next rank, as all do, where nobody looks at them: how fast that is bounds every sum.
    Raw(Bytes, Answer<()>),
    Leave(oneshot::Sender<()>),
}

/// All links of a closed ring.
pub(super) struct Driver {
    health: Arc<Health>,
    attempt: u32,
    /// By distance, the nearest first.
    ahead: Vec<Next>,
    behind: Vec<Incoming>,
    /// Number of the next collective.
    sequence: u64,
    sent: Arc<AtomicU64>,
    /// When bytes came or went last.
    moved: Heard,
    blocks: Blocks,
}

struct Incoming {
    link: Previous,
    /// What was read beyond what was asked for.
    early: VecDeque<Bytes>,
}

impl Driver {
    /// Of links by distance, the nearest first.
    pub(super) fn new(
        health: Arc<Health>,
        attempt: u32,
        next: Vec<Next>,
        previous: Vec<Previous>,
    ) -> Self {
        let incoming = |link| Incoming {
            link,
            early: VecDeque::new(),
        };
        Self {
            health,
            attempt,
            ahead: next,
            behind: previous.into_iter().map(incoming).collect(),
            sequence: 0,
            sent: Arc::default(),
            moved: Heard::new(),
            blocks: Blocks::default(),
        }
    }

    /// Bytes that were sent, headers included and QUIC's own not.
    pub(super) fn sent(&self) -> Arc<AtomicU64> {
        self.sent.clone()
    }

    /// Does what it is told until it is told to leave. Whoever drops the other end of `jobs` aborts it too.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            // Who does not wait for the answer any more does not need it.
            match job {
                Job::Sum(wire, buffer, answer) => {
                    let sum = self.sum(wire, buffer).await;
                    let _ = answer.send(sum.map(|sum| (sum, Instant::now())));
                }
                Job::Barrier(answer) => {
                    let _ = answer.send(self.barrier().await);
                }
                Job::Raw(data, answer) => {
                    let _ = answer.send(self.raw(data).await);
                }
                Job::Leave(left) => {
                    self.leave().await;
                    let _ = left.send(());
                    return;
                }
            }
        }
    }

    async fn sum(&mut self, wire: Wire, buffer: Buffer) -> Result<Buffer, RingError> {
        self.check(wire, &buffer)?;
        let at = (self.attempt, self.sequence);
        let mut sum = Collective::sum(at, self.rank_of_world(), wire, buffer);
        self.carry_out(&mut sum).await?;
        Ok(sum.into_buffer())
    }

    /// Whether there are links for this format, and a residual for each value, or none.
    fn check(&self, wire: Wire, buffer: &Buffer) -> Result<(), RingError> {
        let links = wire.farthest(self.health.place().world());
        let Buffer { values, residual } = buffer;
        let refuse = |reason: String| {
            let error = RingError::Plan { reason };
            Err(self.health.fail(error))
        };
        if links > self.ahead.len() {
            return refuse(format!("{wire} was not planned"));
        }
        if !residual.is_empty() && residual.len() != values.len() {
            let (values, residual) = (values.len(), residual.len());
            return refuse(format!("{values} values, {residual} residuals"));
        }
        Ok(())
    }

    pub(super) async fn barrier(&mut self) -> Result<(), RingError> {
        let at = (self.attempt, self.sequence);
        let mut barrier = Collective::barrier(at, self.rank_of_world());
        self.carry_out(&mut barrier).await
    }

    fn rank_of_world(&self) -> (usize, usize) {
        let place = self.health.place();
        (place.rank(), place.world())
    }

    async fn carry_out(&mut self, collective: &mut Collective) -> Result<(), RingError> {
        self.sequence += 1;
        let (health, moved) = (self.health.clone(), self.moved.clone());
        let carried = to_its_end(&health, &moved, self.carry(collective)).await;
        let carried = carried.unwrap_or_else(|| Err(stuck(health.place(), collective)));
        carried.map_err(|error| health.fail(error))
    }

    async fn carry(&mut self, collective: &mut Collective) -> Result<(), RingError> {
        let place = self.health.place();
        let (mut block, mut to) = (Bytes::new(), 0);
        loop {
            if block.is_empty() {
                to = collective.sends_to().unwrap_or(1);
                block = collective.send(&self.blocks);
                self.sent.fetch_add(block.len() as u64, Ordering::Relaxed);
            }
            let from = collective.receives().map(|(distance, _)| distance);
            if block.is_empty() && from.is_none() {
                return Ok(());
            }
            let outgoing = &mut self.ahead[to - 1].stream;
            let incoming = &mut self.behind[from.unwrap_or(1) - 1];
            tokio::select! {
                biased;
                read = incoming.fill(), if from.is_some() => {
                    let from = place.behind(from.unwrap_or(1));
                    read.map_err(|e| place.read_failed(from, &e))?
                        .ok_or_else(|| place.left(from))?;
                    self.moved.now();
                    incoming.feed(collective).map_err(|unfit| place.unfit(from, unfit))?;
                }
                written = outgoing.write_chunks(std::slice::from_mut(&mut block)), if !block.is_empty() => {
                    written.map_err(|e| place.write_failed(place.ahead(to), &e))?;
                    self.moved.now();
                }
            }
        }
    }

    async fn raw(&mut self, mut data: Bytes) -> Result<(), RingError> {
        let bytes = data.len();
        let health = self.health.clone();
        let place = health.place();
        let (next, previous) = (place.ahead(1), place.behind(1));
        let (ahead, behind) = (&mut self.ahead[0].stream, &mut self.behind[0]);
        let moved = &self.moved;
        let write = async {
            while !data.is_empty() {
                let now = data.split_to(data.len().min(RAW_BLOCK));
                let written = ahead.write_chunk(now).await;
                written.map_err(|e| place.write_failed(next, &e))?;
                moved.now();
            }
            Ok(())
        };
        let both = async { tokio::try_join!(write, behind.skip(bytes, place, previous)).map(drop) };
        let moved = to_its_end(&health, moved, both).await;
        let moved = moved.unwrap_or_else(|| Err(too_long("bytes did not pass".into(), None)));
        moved.map_err(|error| health.fail(error))
    }

    async fn leave(&mut self) {
        if self.health.failure().is_none() {
            for link in &mut self.ahead {
                // Fails where the rank is gone.
                let _ = link.stream.finish();
            }
            let taken = join_all(self.ahead.iter_mut().map(|link| link.stream.stopped()));
            let _ = tokio::time::timeout(LEAVE_LIMIT, taken).await;
        }
        self.health.close(self.health.place().leave_code(), "left");
    }
}

/// At the first hop only the rank behind can be missing; later it may be anyone before that.
fn stuck(place: &Place, collective: &Collective) -> RingError {
    let first = collective.receives().filter(|_| collective.hop() == 0);
    let suspect = first.map(|(distance, _)| place.node(place.behind(distance)));
    let what = format!("hop {} of a collective was not done", collective.hop());
    too_long(what, suspect)
}

fn too_long(what: String, suspect: Option<NodeId>) -> RingError {
    RingError::Timeout {
        what,
        ms: COLLECTIVE_LIMIT.as_millis() as u64,
        suspect,
    }
}

/// Works until it is done, or the ring has failed; nothing where nothing has moved for [`COLLECTIVE_LIMIT`].
async fn to_its_end<T>(
    health: &Health,
    moved: &Heard,
    work: impl Future<Output = Result<T, RingError>>,
) -> Option<Result<T, RingError>> {
    if let Some(error) = health.failure() {
        return Some(Err(error));
    }
    let work = async {
        tokio::select! {
            biased;
            done = work => done,
            error = health.failed() => Err(error),
        }
    };
    let mut work = pin!(work);
    moved.now();
    loop {
        let limit = moved.last() + COLLECTIVE_LIMIT;
        match tokio::time::timeout_at(limit, &mut work).await {
            Ok(done) => return Some(done),
            Err(_) if moved.last().elapsed() < COLLECTIVE_LIMIT => {}
            Err(_) => return None,
        }
    }
}

impl Incoming {
    /// Waits until there is something to feed; nothing where the stream has ended.
    async fn fill(&mut self) -> Result<Option<()>, quinn::ReadError> {
        if !self.early.is_empty() {
            return Ok(Some(()));
        }
        let mut pieces = [const { Bytes::new() }; PIECES];
        let read = self.link.stream.read_chunks(&mut pieces).await?;
        self.link.heard.now();
        Ok(read.map(|count| self.early.extend(pieces.into_iter().take(count))))
    }

    /// Feeds what is there and belongs to the present link's part of the collective.
    fn feed(&mut self, collective: &mut Collective) -> Result<(), Unfit> {
        let Some((distance, _)) = collective.receives() else {
            return Ok(());
        };
        while let Some((from, most)) = collective.receives()
            && from == distance
            && let Some(first) = self.early.front_mut()
        {
            let piece = first.split_to(first.len().min(most));
            if first.is_empty() {
                self.early.pop_front();
            }
            collective.receive(&piece)?;
        }
        Ok(())
    }

    /// Reads so many bytes and forgets them.
    async fn skip(&mut self, bytes: usize, place: &Place, from: usize) -> Result<(), RingError> {
        let mut left = bytes;
        while left > 0 {
            let read = self.fill().await.map_err(|e| place.read_failed(from, &e))?;
            read.ok_or_else(|| place.left(from))?;
            while left > 0
                && let Some(first) = self.early.front_mut()
            {
                let now = first.len().min(left);
                left -= now;
                let _ = first.split_to(now);
                if first.is_empty() {
                    self.early.pop_front();
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Arc<Health> {
        let nodes = [1, 2].map(|n| NodeId::new([n; 32]));
        let plan = crate::ring::RingPlan {
            task: cryptomind_protocol::TaskId::new([0; 16]),
            attempt: 1,
            rank: 0,
            members: nodes.to_vec(),
            addresses: vec!["127.0.0.1:1".into(); 2],
            wire: Wire::F32,
            profile: None,
            limit: Duration::from_secs(1),
        };
        Health::new(Place::of(&plan, nodes[0]).unwrap())
    }

    /// A collective may take as long as it goes on.
    #[tokio::test(start_paused = true)]
    async fn what_moves_is_not_given_up_and_what_stands_still_is() {
        let (health, moved) = (health(), Heard::new());
        let slow = async {
            for _ in 0..5 {
                tokio::time::sleep(COLLECTIVE_LIMIT * 9 / 10).await;
                moved.now();
            }
            Ok(())
        };
        assert_eq!(to_its_end(&health, &moved, slow).await, Some(Ok(())));
        let begin = tokio::time::Instant::now();
        let stuck = std::future::pending::<Result<(), RingError>>();
        assert_eq!(to_its_end(&health, &moved, stuck).await, None);
        assert!(begin.elapsed() < COLLECTIVE_LIMIT * 11 / 10);
    }
}
