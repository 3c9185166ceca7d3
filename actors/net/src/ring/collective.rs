//! A collective of one rank as a machine without sockets: what it sends next, and what received bytes mean.
//!
//! States: a place in the schedule for sending and one for receiving. Sending goes on as far as what is sent has come,
//! block by block, so a segment is on its way to the next rank while its rest still comes from the one before. Values are
//! folded in place: what overwrites a value was made of it, so it was sent before.
//!
//! Not here: links, timers, and who is to blame.

use std::ops::Range;

use bytes::Bytes;
use cryptomind_core::ring::{Hop, Kind, Schedule};
use cryptomind_protocol::codec;
use cryptomind_protocol::frame::{self, LENGTH_BYTES};
use cryptomind_protocol::ring::{SegmentHeader, Wire};

use super::blocks::Blocks;
use super::wire::{self, NotFinite, Reader, VALUES_AT_ONCE};

/// Largest header frame: a handful of small numbers.
pub(super) const MAX_HEADER: usize = 256;
/// What [`Collective::send`] gives at most.
pub(super) const BLOCK_BYTES: usize = VALUES_AT_ONCE * size_of::<f32>();
/// The segment number of a barrier's frames, which no sum has.
const BARRIER: u32 = u32::MAX;

/// Values that all ranks sum.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buffer {
    /// This rank's before, and everybody's sum after.
    pub values: Vec<f32>,
    /// What earlier sums rounded off on this rank, value by value, and after the sum what they and this one did. Empty where
    /// nobody keeps it. Only [`Wire::Int8`] uses it.
    pub residual: Vec<f32>,
}

impl Buffer {
    /// These values, and nothing owed.
    pub const fn of(values: Vec<f32>) -> Self {
        let residual = Vec::new();
        Self { values, residual }
    }
}

/// Received bytes that a collective does not go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A frame for another place.
    OutOfStep {
        expected: SegmentHeader,
        got: SegmentHeader,
    },
    /// No frame.
    Malformed(String),
    /// A value that is no number, or infinite.
    NotFinite,
    /// And it is this rank's own.
    OwnNotFinite,
    /// A sum of finite values is not.
    Overflow,
}

/// One collective of one rank, under way.
pub(super) struct Collective {
    schedule: Schedule,
    /// What all its frames have in common.
    header: SegmentHeader,
    buffer: Buffer,
    /// What was collected of others' values of the own segment; empty where nothing is collected.
    collected: Vec<f32>,
    sending: Sending,
    receiving: Receiving,
}

#[derive(Default)]
struct Sending {
    hop: usize,
    /// Values of the hop's segment that were sent; nothing where its header was not.
    done: Option<usize>,
    /// Blocks of the segment, where the next hop sends the same to another rank: rounded once, it is the same for all.
    made: Vec<Bytes>,
}

struct Receiving {
    hop: usize,
    head: Vec<u8>,
    /// Once the header was read.
    segment: Option<Reader>,
    /// Values that have come, by hop.
    progress: Vec<usize>,
}

impl Collective {
    pub(super) fn sum(
        place: (u32, u64),
        (rank, world): (usize, usize),
        wire: Wire,
        buffer: Buffer,
    ) -> Self {
        let way = match wire {
            Wire::F32 | Wire::Bf16 => Schedule::ring,
            Wire::Int8 => Schedule::direct,
        };
        Self::new(place, way(rank, world, buffer.values.len()), wire, buffer)
    }

    pub(super) fn barrier(place: (u32, u64), (rank, world): (usize, usize)) -> Self {
        let schedule = Schedule::barrier(rank, world);
        let mut barrier = Self::new(place, schedule, Wire::F32, Buffer::default());
        barrier.header.segment = BARRIER;
        barrier
    }

    fn new(
        (attempt, sequence): (u32, u64),
        schedule: Schedule,
        wire: Wire,
        buffer: Buffer,
    ) -> Self {
        let collects = schedule.hops.iter().find(|hop| is_collecting(hop));
        let collected = collects.map_or(0, |hop| schedule.segments[hop.receive].len());
        let header = SegmentHeader {
            attempt,
            sequence,
            hop: 0,
            segment: 0,
            values: 0,
            wire,
        };
        let progress = vec![0; schedule.hops.len()];
        Self {
            schedule,
            header,
            buffer,
            collected: vec![0.0; collected],
            sending: Sending::default(),
            receiving: Receiving {
                hop: 0,
                head: Vec::new(),
                segment: None,
                progress,
            },
        }
    }

    /// How many ranks ahead the next bytes go; nothing when all are sent.
    pub(super) fn sends_to(&self) -> Option<usize> {
        self.schedule
            .hops
            .get(self.sending.hop)
            .map(|hop| hop.distance)
    }

    /// How many ranks behind the next bytes come from, and how many at most belong to this collective; nothing
    /// when all are there.
    pub(super) fn receives(&self) -> Option<(usize, usize)> {
        let hop = self.schedule.hops.get(self.receiving.hop)?;
        let missing = match &self.receiving.segment {
            Some(reader) => reader.missing(self.schedule.segments[hop.receive].len()),
            None => missing_of_header(&self.receiving.head),
        };
        Some((hop.distance, missing))
    }

    /// Hop at which it waits for bytes.
    pub(super) const fn hop(&self) -> usize {
        self.receiving.hop
    }

    /// The buffer, once all is sent and received.
    pub(super) fn into_buffer(self) -> Buffer {
        self.buffer
    }

    fn header_of(&self, number: usize, segment: usize) -> SegmentHeader {
        let is_barrier = self.header.segment == BARRIER;
        SegmentHeader {
            hop: number as u32,
            segment: if is_barrier { BARRIER } else { segment as u32 },
            values: self.schedule.segments[segment].len() as u32,
            ..self.header
        }
    }

    /// What can be sent now: a header, or a block of values. Nothing where the next values are still to come, or all are
    /// sent.
    pub(super) fn send(&mut self, blocks: &Blocks) -> Bytes {
        let Some(&hop) = self.schedule.hops.get(self.sending.hop) else {
            return Bytes::new();
        };
        let segment = self.schedule.segments[hop.send].clone();
        let done = self.sending.done.unwrap_or(0);
        let upto = segment.len().min(done + VALUES_AT_ONCE);
        if !self.is_there(&hop, upto) {
            return Bytes::new();
        }
        let (bytes, done) = match self.sending.done {
            None => (self.header(&hop), 0),
            Some(done) => {
                let place = segment.start + done..segment.start + upto;
                (self.block(done / VALUES_AT_ONCE, place, blocks), upto)
            }
        };
        self.sending.done = Some(done);
        if done == segment.len() {
            self.next_hop();
        }
        bytes
    }

    fn header(&self, hop: &Hop) -> Bytes {
        let header = self.header_of(self.sending.hop, hop.send);
        frame::wrap(&codec::encode(&header)).into()
    }

    fn block(&mut self, number: usize, place: Range<usize>, blocks: &Blocks) -> Bytes {
        if let Some(made) = self.sending.made.get(number) {
            return made.clone();
        }
        let block = blocks.fill(|bytes| self.write(place, bytes));
        if self.repeats() {
            self.sending.made.push(block.clone());
        }
        block
    }

    /// Whether the next hop sends what this one does.
    fn repeats(&self) -> bool {
        let send = |number: usize| self.schedule.hops.get(number).map(|hop| hop.send);
        send(self.sending.hop) == send(self.sending.hop + 1)
    }

    fn next_hop(&mut self) {
        if !self.repeats() {
            self.sending.made.clear();
        }
        self.sending.hop += 1;
        self.sending.done = None;
    }

    /// Whether the first so many values of the hop's segment may be sent. Of a segment without values, its frame must have
    /// come.
    fn is_there(&self, hop: &Hop, values: usize) -> bool {
        hop.after.is_none_or(|after| {
            after < self.receiving.hop || (0 < values && values <= self.receiving.progress[after])
        })
    }

    fn write(&mut self, place: Range<usize>, bytes: &mut [u8]) -> usize {
        let Buffer { values, residual } = &mut self.buffer;
        let owed = match residual.is_empty() {
            true => &mut [],
            false => &mut residual[place.clone()],
        };
        wire::write(self.header.wire, &mut values[place], owed, bytes)
    }

    /// Takes bytes from whom [`Collective::receives`] names, at most as many as it says.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), Unfit> {
        let number = self.receiving.hop;
        let Some(&hop) = self.schedule.hops.get(number) else {
            return Ok(());
        };
        let segment = self.schedule.segments[hop.receive].clone();
        match &mut self.receiving.segment {
            None => {
                self.receiving.head.extend_from_slice(bytes);
                if missing_of_header(&self.receiving.head) > 0 {
                    return too_long(&self.receiving.head);
                }
                let head = std::mem::take(&mut self.receiving.head);
                self.check(&head[LENGTH_BYTES..], self.header_of(number, hop.receive))?;
                self.receiving.segment = Some(Reader::new(self.header.wire, hop.kind));
            }
            Some(reader) => {
                let own = &mut self.buffer.values[segment.clone()];
                // Only the own segment is collected.
                let collected = match hop.kind {
                    Kind::Gather => &mut [],
                    _ => &mut self.collected[..],
                };
                reader.take(bytes, own, collected).map_err(Unfit::from)?;
                self.receiving.progress[number] = reader.done();
            }
        }
        if self.receives() == Some((hop.distance, 0)) {
            self.receiving.segment = None;
            self.receiving.hop += 1;
        }
        Ok(())
    }

    fn check(&self, head: &[u8], expected: SegmentHeader) -> Result<(), Unfit> {
        let got: SegmentHeader =
            codec::decode(head).map_err(|e| Unfit::Malformed(e.to_string()))?;
        match got == expected {
            true => Ok(()),
            false => Err(Unfit::OutOfStep { expected, got }),
        }
    }
}

const fn is_collecting(hop: &Hop) -> bool {
    matches!(hop.kind, Kind::Collect)
}

/// Bytes of a header frame that are still to come, as far as they are known.
fn missing_of_header(head: &[u8]) -> usize {
    match head.first_chunk::<LENGTH_BYTES>() {
        None => LENGTH_BYTES - head.len(),
        Some(length) => {
            let length = frame::length(*length, MAX_HEADER).unwrap_or(MAX_HEADER);
            (LENGTH_BYTES + length).saturating_sub(head.len())
        }
    }
}

fn too_long(head: &[u8]) -> Result<(), Unfit> {
    let Some(length) = head.first_chunk::<LENGTH_BYTES>() else {
        return Ok(());
    };
    let length = frame::length(*length, MAX_HEADER);
    length
        .map(drop)
        .map_err(|e| Unfit::Malformed(e.to_string()))
}

impl From<NotFinite> for Unfit {
    fn from(found: NotFinite) -> Self {
        match found {
            NotFinite::Received => Self::NotFinite,
            NotFinite::Own => Self::OwnNotFinite,
            NotFinite::Sum => Self::Overflow,
        }
    }
}

#[cfg(test)]
mod tests;
