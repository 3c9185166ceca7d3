//! The schedules against naive sums, for every small world.

use proptest::prelude::*;

use super::*;

type Way = fn(usize, usize, usize) -> Schedule;
const WAYS: [Way; 2] = [Schedule::ring, Schedule::direct];

/// Runs a schedule over in-memory buffers, one per rank.
fn all_reduce(way: Way, buffers: &mut [Vec<f32>]) {
    let (world, len) = (buffers.len(), buffers[0].len());
    let plans: Vec<Schedule> = (0..world).map(|rank| way(rank, world, len)).collect();
    let mut collected = vec![Vec::new(); world];
    for number in 0..plans[0].hops.len() {
        // Everything is sent before anything is received: a hop's two halves are concurrent.
        let sent: Vec<Vec<f32>> = (0..world)
            .map(|rank| {
                let segment = plans[rank].hops[number].send;
                buffers[rank][plans[rank].segments[segment].clone()].to_vec()
            })
            .collect();
        for rank in 0..world {
            let hop = plans[rank].hops[number];
            let from = (rank + world - hop.distance) % world;
            let theirs = plans[from].hops[number];
            assert_eq!((theirs.send, theirs.distance), (hop.receive, hop.distance));
            let own = &mut buffers[rank][plans[rank].segments[hop.receive].clone()];
            receive(hop.kind, &sent[from], own, &mut collected[rank]);
        }
    }
}

fn receive(kind: Kind, received: &[f32], own: &mut [f32], collected: &mut Vec<f32>) {
    let sums = collected.iter().zip(received).map(|(sum, new)| sum + new);
    let sums = match collected.is_empty() {
        true => received.to_vec(),
        false => sums.collect(),
    };
    match kind {
        Kind::Collect => *collected = sums,
        Kind::Reduce => own.iter_mut().zip(sums).for_each(|(own, sum)| *own += sum),
        Kind::Gather => own.copy_from_slice(received),
    }
}

/// What the documentation promises: the fold of segment s starts at rank s+1 and ends at rank s.
fn fold_in_ring_order(buffers: &[Vec<f32>]) -> Vec<f32> {
    let world = buffers.len();
    let mut sums = vec![0.0; buffers[0].len()];
    for (segment, cut) in segments(sums.len(), world).into_iter().enumerate() {
        for at in cut {
            let ranks = (1..=world).map(|step| (segment + step) % world);
            sums[at] = ranks
                .map(|rank| buffers[rank][at])
                .reduce(|a, b| a + b)
                .unwrap();
        }
    }
    sums
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn segments_cover_everything_once_and_evenly() {
    for world in 1..=8 {
        for len in 0..200 {
            let cuts = segments(len, world);
            assert_eq!(cuts.len(), world);
            assert_eq!(cuts.first().unwrap().start, 0);
            assert_eq!(cuts.last().unwrap().end, len);
            assert!(cuts.windows(2).all(|pair| pair[0].end == pair[1].start));
            let lens = || cuts.iter().map(ExactSizeIterator::len);
            assert!(lens().max().unwrap() - lens().min().unwrap() <= 1);
        }
    }
}

#[test]
fn every_world_and_length_sums_exactly() {
    for (way, world) in WAYS
        .into_iter()
        .flat_map(|way| (1..=8).map(move |n| (way, n)))
    {
        for len in [0, 1, 2, 3, 5, 7, 8, 13, 64, 101] {
            // Small integers: their sum is exact in any order.
            let mut buffers: Vec<Vec<f32>> = (0..world)
                .map(|rank| (0..len).map(|at| (rank * 31 + at) as f32).collect())
                .collect();
            let naive: Vec<f32> = (0..len)
                .map(|at| buffers.iter().map(|b| b[at]).sum())
                .collect();
            all_reduce(way, &mut buffers);
            assert!(
                buffers.iter().all(|b| *b == naive),
                "{world} ranks, {len} values"
            );
        }
    }
}

/// The least that any all-reduce can send is 2(N−1)/N of the values a rank. Where the ranks do not divide them, the
/// group sends just N times that, and no rank more than a value a hop beyond its part.
#[test]
fn what_is_sent_is_exactly_the_least_possible() {
    for (way, world) in WAYS
        .into_iter()
        .flat_map(|way| (1..=8).map(move |n| (way, n)))
    {
        for len in (0..200).chain([4096, 65_537, 16 << 20]) {
            let sent = |rank| way(rank, world, len).sent_values();
            assert_eq!((0..world).map(sent).sum::<usize>(), 2 * (world - 1) * len);
            let least = 2 * (world - 1) * (len / world);
            let most = 2 * (world - 1) * len.div_ceil(world);
            assert!((0..world).map(sent).all(|n| (least..=most).contains(&n)));
        }
    }
}

/// Nothing is sent before it is there, and nothing is overwritten that is still to be sent: what overwrites it is made of it.
#[test]
fn what_is_sent_was_received_at_the_hop_that_is_named() {
    for (way, world) in WAYS
        .into_iter()
        .flat_map(|way| (2..=8).map(move |n| (way, n)))
    {
        for rank in 0..world {
            let Schedule { hops, .. } = way(rank, world, 64);
            for (number, hop) in hops.iter().enumerate() {
                let mut before = hops[..number].iter();
                let received = before.rposition(|earlier| earlier.receive == hop.send);
                assert_eq!(hop.after, received, "rank {rank} of {world}, hop {number}");
            }
        }
    }
}

#[test]
fn a_barrier_sends_nothing_and_each_hop_waits_for_the_one_before() {
    for world in 1..=8 {
        let barrier = Schedule::barrier(world - 1, world);
        assert_eq!((barrier.hops.len(), barrier.sent_values()), (world - 1, 0));
        for (number, hop) in barrier.hops.iter().enumerate() {
            assert_eq!(hop.after, number.checked_sub(1));
        }
    }
}

proptest! {
    #[test]
    fn all_ranks_end_with_the_bits_of_the_promised_order(
        direct: bool,
        world in 1usize..=8,
        len in 0usize..40,
        seed in any::<u64>(),
    ) {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            f32::from_bits((state >> 40) as u32 | 0x3f00_0000) * if state & 1 == 0 { 1.0 } else { -1.0 }
        };
        let mut buffers: Vec<Vec<f32>> =
            (0..world).map(|_| (0..len).map(|_| draw()).collect()).collect();
        let promised = fold_in_ring_order(&buffers);
        all_reduce(WAYS[usize::from(direct)], &mut buffers);
        for buffer in &buffers {
            prop_assert_eq!(bits(buffer), bits(&promised));
        }
    }
}
