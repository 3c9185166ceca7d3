//! A closed ring as a member holds it: sums and barriers are started here and done on the ring's thread.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use cryptomind_protocol::ring::Wire;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::collective::Buffer;
use super::driver::{Driver, Job};
use super::error::RingError;
use super::health::Health;
use super::home::Home;

/// Collectives that may wait for their turn: a step has some ten buckets.
const WAITING: usize = 4096;

/// A closed ring. Dropping it without [`Ring::leave`] breaks off what is under way, and may lose what the others have not
/// read yet.
pub struct Ring {
    /// Nothing in a ring of one.
    member: Option<Member>,
}

struct Member {
    jobs: mpsc::Sender<Job>,
    driver: AbortHandle,
    health: Arc<Health>,
    sent: Arc<AtomicU64>,
    /// The thread of the driver.
    _home: Home,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Before the streams are gone: a broken stream would look like a broken member.
        let leave = self.health.place().leave_code();
        self.health.close(leave, "left");
        self.driver.abort();
    }
}

/// How much a member has sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames: headers and values.
    pub frame_bytes: u64,
    /// All UDP payloads by QUIC's own count: with handshakes, acknowledgements and pings.
    pub udp_bytes: u64,
}

/// A sum under way: the buffer with everybody's sum, once it is there. Dropping it changes nothing but that nobody gets the sum.
pub struct Summing(oneshot::Receiver<Result<(Buffer, Instant), RingError>>);

impl Summing {
    /// The buffer, and when everybody's sum was in it: whoever waits for it may have been busy with something else.
    ///
    /// # Errors
    /// As without the time.
    pub async fn timed(self) -> Result<(Buffer, Instant), RingError> {
        self.0.await.unwrap_or(Err(RingError::Ended))
    }
}

impl Future for Summing {
    type Output = Result<Buffer, RingError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.0).poll(context);
        answer.map(|answer| Ok(answer.unwrap_or(Err(RingError::Ended))?.0))
    }
}

impl Ring {
    pub(super) const fn alone() -> Self {
        Self { member: None }
    }

    pub(super) fn start(home: Home, health: Arc<Health>, driver: Driver) -> Self {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let sent = driver.sent();
        let driver = home.handle().spawn(driver.run(waiting)).abort_handle();
        let member = Member {
            jobs,
            driver,
            health,
            sent,
            _home: home,
        };
        Self {
            member: Some(member),
        }
    }

    /// Starts to replace the values by their sum over all members, with the same bits everywhere. It begins once the calls
    /// before it are done. All members must make the same calls with the same number of values, in the same order. In a ring
    /// of one it does nothing.
    ///
    /// # Errors
    /// Any [`RingError`], of what is awaited; the ring has then ended.
    pub fn sum(&self, wire: Wire, buffer: Buffer) -> Summing {
        let (answer, sum) = oneshot::channel();
        match &self.member {
            // Where it is not taken, its end of the answer is gone, which says so.
            Some(member) => drop(member.jobs.try_send(Job::Sum(wire, buffer, answer))),
            None => drop(answer.send(Ok((buffer, Instant::now())))),
        }
        Summing(sum)
    }

    /// Returns when every member has called it, and the calls before it are done.
    ///
    /// # Errors
    /// Any [`RingError`].
    pub async fn barrier(&self) -> Result<(), RingError> {
        self.ask(Job::Barrier).await
    }

    /// Moves bytes to the next rank and as many from the one before, over the same streams as sums, without a look at them:
    /// what a sum's speed is measured by. All members must bring as many.
    ///
    /// # Errors
    /// Any [`RingError`].
    pub async fn raw(&self, data: Bytes) -> Result<(), RingError> {
        self.ask(|answer| Job::Raw(data, answer)).await
    }

    async fn ask(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<(), RingError>>) -> Job,
    ) -> Result<(), RingError> {
        let Some(member) = &self.member else {
            return Ok(());
        };
        let (answer, answered) = oneshot::channel();
        let _ = member.jobs.try_send(job(answer));
        answered.await.unwrap_or(Err(RingError::Ended))
    }

    /// Leaves in good order, once the calls before it are done: returns when what was sent has arrived, or after half a second, and the
    /// others learn at once.
    pub async fn leave(self) {
        if let Some(member) = &self.member {
            let (left, is_left) = oneshot::channel();
            let _ = member.jobs.try_send(Job::Leave(left));
            // An error says that the driver is gone already.
            let _ = is_left.await;
        }
    }

    /// Says whether it has ended by an error, from any thread, and without keeping it alive.
    pub fn fall(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let health = self
            .member
            .as_ref()
            .map(|member| Arc::downgrade(&member.health));
        move || {
            let health = health.as_ref();
            health.is_some_and(|health| health.upgrade().is_none_or(|h| h.failure().is_some()))
        }
    }

    /// How much this member has sent in this ring.
    pub fn sent(&self) -> Sent {
        self.member
            .as_ref()
            .map_or_else(Sent::default, |member| Sent {
                frame_bytes: member.sent.load(Ordering::Relaxed),
                udp_bytes: member.health.udp_sent(),
            })
    }
}
