//! A closed ring at work: sums and barriers.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_core::ring::{self, Kind};
use cryptomind_protocol::ring::SegmentHeader;
use cryptomind_protocol::{ErrorBody, codec, frame};
use quinn::SendStream;
use tokio::task::JoinSet;

use super::error::{Place, RingError};
use super::fold::{Fold, append};
use super::health::Health;
use super::link::{Heard, Next, Previous};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::stream::{FrameError, FrameReader};

/// A collective in which some member takes no part for this long has failed, although all answer pings.
pub const COLLECTIVE_LIMIT: Duration = Duration::from_secs(120);
/// Leaving waits for this long at most until the next rank has everything, and again until both were told.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);
/// Values that are turned into bytes and written at a time: 64 KiB.
const VALUES_AT_ONCE: usize = 16 * 1024;
/// The segment number of a barrier's frames, which no all-reduce has.
const BARRIER: u32 = u32::MAX;

/// A closed ring. It belongs to the runtime in which it was joined. Dropping it without [`Ring::leave`] may lose what
/// the next rank has not read yet.
pub struct Ring {
    /// Nothing in a ring of one.
    links: Option<Links>,
}

struct Links {
    endpoint: Endpoint,
    health: Arc<Health>,
    out: Outgoing,
    incoming: Incoming,
    /// Number of the next collective.
    sequence: u64,
    /// Hop at which this member is.
    hop: usize,
    /// A call is under way; still set at the next call where that one was dropped.
    busy: bool,
    /// Pings and watches of both links; they end with the ring.
    _watches: JoinSet<()>,
}

struct Outgoing {
    _connection: Connection,
    stream: SendStream,
    buffer: Vec<u8>,
    sent: u64,
}

struct Incoming {
    _connection: Connection,
    reader: FrameReader,
    heard: Heard,
}

/// What all members do together.
enum Collective<'a> {
    Sum(&'a mut [f32]),
    Barrier,
}

impl Ring {
    pub(super) const fn alone() -> Self {
        Self { links: None }
    }

    pub(super) fn new(
        endpoint: Endpoint,
        health: Arc<Health>,
        next: Next,
        previous: Previous,
    ) -> Self {
        let place = health.place();
        let (to, stream, watch_next) = next.split(place.next());
        let (from, reader, watch_previous) = previous.split(place.previous());
        let incoming = Incoming {
            _connection: from,
            reader,
            heard: watch_previous.heard.clone(),
        };
        let out = Outgoing {
            _connection: to,
            stream,
            buffer: Vec::new(),
            sent: 0,
        };
        let mut watches = JoinSet::new();
        watches.spawn(watch_next.run(health.clone()));
        watches.spawn(watch_previous.run(health.clone()));
        let links = Links {
            endpoint,
            health,
            out,
            incoming,
            sequence: 0,
            hop: 0,
            busy: false,
            _watches: watches,
        };
        Self { links: Some(links) }
    }

    /// Replaces `values` by their sum over all members, with the same bits everywhere. All members must call it with the
    /// same number of values, in the same order among their calls. In a ring of one it does nothing.
    ///
    /// # Errors
    /// Any [`RingError`]; the values are then half-summed and of no use. Dropping the future ends the ring.
    pub async fn all_reduce(&mut self, values: &mut [f32]) -> Result<(), RingError> {
        match &mut self.links {
            Some(links) => links.run(Collective::Sum(values)).await,
            None => Ok(()),
        }
    }

    /// Returns when every member has called it.
    ///
    /// # Errors
    /// Any [`RingError`]. Dropping the future ends the ring.
    pub async fn barrier(&mut self) -> Result<(), RingError> {
        match &mut self.links {
            Some(links) => links.run(Collective::Barrier).await,
            None => Ok(()),
        }
    }

    /// Leaves in good order: what was sent arrives, and the neighbours learn at once. Takes a second at most.
    pub async fn leave(self) {
        if let Some(links) = self.links {
            links.leave().await;
        }
    }

    /// Bytes that were sent to the next rank, headers included and QUIC's own not.
    pub fn sent_bytes(&self) -> u64 {
        self.links.as_ref().map_or(0, |links| links.out.sent)
    }
}

impl Links {
    async fn run(&mut self, collective: Collective<'_>) -> Result<(), RingError> {
        if let Some(error) = self.health.failure() {
            return Err(error);
        }
        if std::mem::replace(&mut self.busy, true) {
            return Err(self.health.fail(RingError::Interrupted));
        }
        let health = self.health.clone();
        let done = tokio::select! {
            biased;
            done = self.hops(collective) => done,
            error = health.failed() => Err(error),
            () = tokio::time::sleep(COLLECTIVE_LIMIT) => Err(self.stuck()),
        };
        self.busy = false;
        self.sequence += 1;
        done.map_err(|error| self.health.fail(error))
    }

    /// At the first hop only the rank before can be missing; later it may be anyone before that.
    fn stuck(&self) -> RingError {
        let place = self.health.place();
        RingError::Timeout {
            what: format!("hop {} of a collective was not done", self.hop),
            ms: COLLECTIVE_LIMIT.as_millis() as u64,
            suspect: (self.hop == 0).then(|| place.node(place.previous())),
        }
    }

    async fn hops(&mut self, collective: Collective<'_>) -> Result<(), RingError> {
        match collective {
            Collective::Sum(values) => self.sum(values).await,
            Collective::Barrier => self.barrier().await,
        }
    }

    async fn sum(&mut self, values: &mut [f32]) -> Result<(), RingError> {
        let (rank, world) = (self.health.place().rank(), self.health.place().world());
        let segments = ring::segments(values.len(), world);
        for number in 0..ring::hops(world) {
            let hop = ring::hop(rank, world, number);
            let (send, own) = two(values, &segments[hop.send], &segments[hop.receive]);
            let fold = Fold::new(own, hop.kind);
            self.hop(number, (hop.send as u32, send), (hop.receive as u32, fold))
                .await?;
        }
        Ok(())
    }

    /// N−1 hops of empty frames, each sent when the one before has come. The first that comes says that the rank
    /// before has entered, the second that the one before it has, and so on around the ring.
    async fn barrier(&mut self) -> Result<(), RingError> {
        for number in 0..self.health.place().world() - 1 {
            let nothing = Fold::new(&mut [], Kind::Gather);
            self.hop(number, (BARRIER, &[]), (BARRIER, nothing)).await?;
        }
        Ok(())
    }

    /// Sends a segment and receives one, at the same time.
    async fn hop(
        &mut self,
        number: usize,
        (send, values): (u32, &[f32]),
        (receive, fold): (u32, Fold<'_>),
    ) -> Result<(), RingError> {
        self.hop = number;
        let header = |segment, values| SegmentHeader {
            sequence: self.sequence,
            hop: number as u32,
            segment,
            values: values as u32,
        };
        let sent = header(send, values.len());
        let expected = header(receive, fold.missing() / size_of::<f32>());
        let place = self.health.place();
        tokio::try_join!(
            self.out.send(place, &sent, values),
            self.incoming.receive(place, &expected, fold)
        )?;
        Ok(())
    }

    async fn leave(mut self) {
        if self.health.failure().is_none() && self.out.stream.finish().is_ok() {
            // A next rank that is gone, or takes too long, is not waited for.
            let _ = tokio::time::timeout(LEAVE_LIMIT, self.out.stream.stopped()).await;
        }
        self.health.close(self.health.place().leave_code(), "left");
        self.endpoint.idle(LEAVE_LIMIT).await;
    }
}

/// Two different segments of the same values, to read one while the other is written.
fn two<'a>(
    values: &'a mut [f32],
    send: &Range<usize>,
    own: &Range<usize>,
) -> (&'a [f32], &'a mut [f32]) {
    let [send, own] = values.get_disjoint_mut([send.clone(), own.clone()]).expect(
        "the segments of a schedule do not overlap, and a rank never sends what it receives",
    );
    (send, own)
}

impl Outgoing {
    /// The header and the first values go in one write, so a small segment is one packet train without a pause.
    async fn send(
        &mut self,
        place: &Place,
        header: &SegmentHeader,
        values: &[f32],
    ) -> Result<(), RingError> {
        self.buffer.clear();
        self.buffer
            .extend_from_slice(&frame::wrap(&codec::encode(header)));
        let mut blocks = values.chunks(VALUES_AT_ONCE);
        loop {
            append(&mut self.buffer, blocks.next().unwrap_or_default());
            let written = self.stream.write_all(&self.buffer).await;
            written.map_err(|e| place.write_failed(&e))?;
            self.sent += self.buffer.len() as u64;
            self.buffer.clear();
            if blocks.len() == 0 {
                return Ok(());
            }
        }
    }
}

impl Incoming {
    async fn receive(
        &mut self,
        place: &Place,
        expected: &SegmentHeader,
        mut fold: Fold<'_>,
    ) -> Result<(), RingError> {
        self.header(place, expected).await?;
        while fold.missing() > 0 {
            let chunk = self.reader.stream.read_chunk(fold.missing(), true).await;
            let chunk = chunk.map_err(|e| place.read_failed(&e))?;
            let chunk = chunk.ok_or_else(|| place.left(place.previous()))?;
            fold.take(&chunk.bytes);
            self.heard.now();
        }
        Ok(())
    }

    async fn header(&mut self, place: &Place, expected: &SegmentHeader) -> Result<(), RingError> {
        let from = place.previous();
        let header = self.reader.next().await.map_err(|e| match e {
            FrameError::Read(e) => place.read_failed(&e),
            other => place.broken(from, ErrorBody::from(other).message),
        })?;
        let header = header.ok_or_else(|| place.left(from))?;
        let got: SegmentHeader = codec::decode(&header)
            .map_err(|e| place.broken(from, format!("a header is malformed: {e}")))?;
        self.heard.now();
        if got == *expected {
            return Ok(());
        }
        Err(RingError::OutOfStep {
            rank: from as u32,
            node: place.node(from),
            expected: *expected,
            got,
        })
    }
}
