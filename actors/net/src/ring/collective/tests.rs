//! Whole groups of collectives in one process, with bytes between them in any pieces and any order of turns.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A place that all frames of these tests are for.
const AT: (u32, u64) = (3, 17);

/// A group with its links: `links[from][distance − 1]` are bytes on their way.
struct Group {
    members: Vec<Collective>,
    blocks: Blocks,
    links: Vec<Vec<VecDeque<u8>>>,
}

impl Group {
    fn new(members: Vec<Collective>) -> Self {
        let world = members.len();
        let links = vec![vec![VecDeque::new(); world]; world];
        let blocks = Blocks::default();
        Self {
            members,
            blocks,
            links,
        }
    }

    /// A member writes a block, if it can.
    fn send(&mut self, rank: usize) -> bool {
        let Some(distance) = self.members[rank].sends_to() else {
            return false;
        };
        let bytes = self.members[rank].send(&self.blocks);
        self.links[rank][distance - 1].extend(&bytes);
        !bytes.is_empty()
    }

    /// A member takes up to `most` bytes, if there are any.
    fn receive(&mut self, rank: usize, most: usize) -> Result<bool, Unfit> {
        let world = self.members.len();
        let Some((distance, missing)) = self.members[rank].receives() else {
            return Ok(false);
        };
        let link = &mut self.links[(rank + world - distance) % world][distance - 1];
        let count = link.len().min(missing).min(most);
        let piece: Vec<u8> = link.drain(..count).collect();
        self.members[rank].receive(&piece)?;
        Ok(count > 0)
    }

    fn is_done(&self) -> bool {
        let done = |m: &Collective| m.sends_to().is_none() && m.receives().is_none();
        self.members.iter().all(done)
    }

    /// Turns as `draw` gives them, then all in order, until nothing moves.
    fn run(&mut self, mut draw: impl FnMut() -> Option<(usize, usize)>) -> Result<(), Unfit> {
        while let Some((rank, most)) = draw() {
            let rank = rank % self.members.len();
            self.send(rank);
            self.receive(rank, 1 + most)?;
        }
        loop {
            let mut moved = false;
            for rank in 0..self.members.len() {
                moved |= self.send(rank);
                moved |= self.receive(rank, usize::MAX)?;
            }
            if !moved {
                return Ok(());
            }
        }
    }
}

fn value(rank: usize, at: usize) -> f32 {
    ((rank * 7919 + at * 104_729) % 1009) as f32 * 0.37 - 150.0
}

fn sums(wire: Wire, world: usize, len: usize) -> Group {
    let member = |rank: usize| {
        let values = (0..len).map(|at| value(rank, at)).collect();
        let residual = vec![0.0; len];
        Collective::sum(AT, (rank, world), wire, Buffer { values, residual })
    };
    Group::new((0..world).map(member).collect())
}

/// The sum of each value in f64.
fn exact(world: usize, at: usize) -> f64 {
    (0..world).map(|rank| f64::from(value(rank, at))).sum()
}

/// In units of the last place of what travels: no rounding but f32's own, N of 2^-8, two of a 254th of the largest.
fn allowed(wire: Wire, world: usize) -> f64 {
    let largest = 230.0 * world as f64;
    match wire {
        Wire::F32 => largest * 1e-6,
        Wire::Bf16 => largest * world as f64 / 256.0,
        Wire::Int8 => 2.0 * largest / 254.0 + 1e-3,
    }
}

proptest! {
    /// Whatever the pieces and whoever's turn it is: all ranks have the same bits, near the exact sum, and what was rounded
    /// off is all that is missing.
    #[test]
    fn every_order_of_events_gives_the_same_sum(
        wire in prop::sample::select(&Wire::ALL),
        world in 2usize..=8,
        len in prop_oneof![0usize..40, 500usize..3_000],
        turns in prop::collection::vec((0usize..8, prop_oneof![0usize..5, 0usize..5_000]), 0..300),
    ) {
        let mut group = sums(wire, world, len);
        let mut turns = turns.into_iter();
        group.run(|| turns.next()).unwrap();
        prop_assert!(group.is_done());
        prop_assert!(group.links.iter().flatten().all(VecDeque::is_empty));
        let mut straight = sums(wire, world, len);
        straight.run(|| None).unwrap();
        let bits = |c: &Collective| c.buffer.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let expected = bits(&straight.members[0]);
        prop_assert!(group.members.iter().all(|member| bits(member) == expected));
        for at in 0..len {
            let sum = f64::from(group.members[0].buffer.values[at]);
            prop_assert!((sum - exact(world, at)).abs() <= allowed(wire, world), "{} at {}", sum, at);
            if wire == Wire::Int8 {
                let owed: f64 = group.members.iter().map(|m| f64::from(m.buffer.residual[at])).sum();
                prop_assert!((sum + owed - exact(world, at)).abs() < 0.01);
            }
        }
    }

    /// A byte that changed on its way is found, or it is a value, and then all ranks have it.
    #[test]
    fn no_changed_byte_passes_for_another_place(
        wire in prop::sample::select(&Wire::ALL),
        world in 2usize..=4,
        len in 0usize..20,
        (at, to) in (0usize..400, any::<u8>()),
    ) {
        let mut group = sums(wire, world, len);
        prop_assert!(group.send(0));
        let link = group.links[0].iter_mut().find(|link| !link.is_empty()).unwrap();
        let at = at % link.len();
        link[at] = to;
        // Whatever comes of it, it comes to an end without a panic, and a group that is done agrees.
        if group.run(|| None).is_ok() && group.is_done() {
            let bits = |c: &Collective| c.buffer.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            let first = bits(&group.members[0]);
            prop_assert!(group.members.iter().all(|member| bits(member) == first));
        }
    }

    /// Whatever a neighbour sends, it is taken or refused, within what was asked for.
    #[test]
    fn garbage_is_refused(
        wire in prop::sample::select(&Wire::ALL),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..30),
    ) {
        let mut group = sums(wire, 3, 1_000);
        let member = &mut group.members[1];
        for piece in pieces {
            let Some((_, missing)) = member.receives() else { break };
            prop_assert!(missing > 0);
            if member.receive(&piece[..piece.len().min(missing)]).is_err() {
                break;
            }
        }
    }
}

/// The sum of a segment is rounded once, for all: every rank gets the very same blocks.
#[test]
fn a_sum_is_rounded_once_whoever_it_goes_to() {
    let mut group = sums(Wire::Int8, 5, 200_000);
    // What rank 0 sends of its own segment, by distance. Kept, so that no block is used twice.
    let mut sent: Vec<Vec<Bytes>> = vec![Vec::new(); 5];
    while !group.is_done() {
        let member = &mut group.members[0];
        if member.sending.hop >= 4
            && let Some(distance) = member.sends_to()
        {
            let bytes = member.send(&group.blocks);
            group.links[0][distance - 1].extend(&bytes);
            sent[distance].push(bytes);
        } else {
            group.send(0);
        }
        for rank in 0..5 {
            if rank > 0 {
                group.send(rank);
            }
            group.receive(rank, usize::MAX).unwrap();
        }
    }
    // Without the header, which is for one of them, and turns in which nothing was ready.
    let blocks = |sent: &Vec<Bytes>| -> Vec<_> {
        let full = sent.iter().filter(|bytes| bytes.len() > MAX_HEADER);
        full.map(|bytes| bytes.as_ptr()).collect()
    };
    let first = blocks(&sent[1]);
    assert_eq!(first.len(), 40_000_usize.div_ceil(VALUES_AT_ONCE));
    assert!(sent[2..].iter().all(|other| blocks(other) == first));
}

/// Nobody gets through before the last has come.
#[test]
fn a_barrier_holds_everybody_until_all_are_there() {
    for world in 2..=6 {
        let enter = |rank| Collective::barrier(AT, (rank, world));
        for last in 0..world {
            let mut group = Group::new((0..world).map(enter).collect());
            let turn = |group: &mut Group, rank: usize| {
                group.send(rank) | group.receive(rank, usize::MAX).unwrap()
            };
            let others = || (0..world).filter(|rank| *rank != last);
            while others().any(|rank| turn(&mut group, rank)) {}
            for rank in others() {
                assert!(
                    group.members[rank].receives().is_some(),
                    "{rank} passed early"
                );
            }
            group.run(|| None).unwrap();
            assert!(group.is_done());
        }
    }
}

/// A frame of another attempt, collective, hop, segment, length or format is out of step.
#[test]
fn a_frame_for_any_other_place_is_out_of_step() {
    let group = sums(Wire::Bf16, 3, 10);
    let good = group.members[1].header_of(0, 0);
    let expected = SegmentHeader {
        attempt: 3,
        sequence: 17,
        hop: 0,
        segment: 2,
        values: 3,
        wire: Wire::Bf16,
    };
    let take = |header: &SegmentHeader| {
        let mut member = sums(Wire::Bf16, 3, 10).members.swap_remove(1);
        let head = frame::wrap(&codec::encode(header));
        member.receive(&head[..LENGTH_BYTES])?;
        member.receive(&head[LENGTH_BYTES..])
    };
    assert_eq!(good.attempt, expected.attempt);
    assert_eq!(take(&expected), Ok(()));
    let others = [
        SegmentHeader {
            attempt: 4,
            ..expected
        },
        SegmentHeader {
            sequence: 16,
            ..expected
        },
        SegmentHeader { hop: 1, ..expected },
        SegmentHeader {
            segment: 1,
            ..expected
        },
        SegmentHeader {
            values: 4,
            ..expected
        },
        SegmentHeader {
            wire: Wire::F32,
            ..expected
        },
    ];
    for got in others {
        assert_eq!(take(&got), Err(Unfit::OutOfStep { expected, got }));
    }
}

#[test]
fn a_header_that_is_too_long_is_refused_before_it_is_read() {
    let mut member = sums(Wire::F32, 2, 10).members.swap_remove(0);
    assert_eq!(member.receives(), Some((1, LENGTH_BYTES)));
    let announced = (MAX_HEADER as u32 + 1).to_be_bytes();
    assert!(matches!(
        member.receive(&announced),
        Err(Unfit::Malformed(_))
    ));
}
