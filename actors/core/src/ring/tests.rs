//! The schedule against naive sums, for every small world.

use proptest::prelude::*;

use super::*;

/// Runs the schedule over in-memory buffers, one per rank.
fn all_reduce(buffers: &mut [Vec<f32>]) {
    let world = buffers.len();
    let cuts = segments(buffers[0].len(), world);
    for number in 0..hops(world) {
        let plan: Vec<Hop> = (0..world).map(|rank| hop(rank, world, number)).collect();
        // Everything is sent before anything is received: a hop's two halves are concurrent.
        let sent: Vec<Vec<f32>> = (0..world)
            .map(|rank| buffers[rank][cuts[plan[rank].send].clone()].to_vec())
            .collect();
        for rank in 0..world {
            let before = (rank + world - 1) % world;
            assert_eq!(plan[before].send, plan[rank].receive, "neighbours agree");
            let own = &mut buffers[rank][cuts[plan[rank].receive].clone()];
            match plan[rank].kind {
                Kind::Reduce => own.iter_mut().zip(&sent[before]).for_each(|(a, b)| *a += b),
                Kind::Gather => own.copy_from_slice(&sent[before]),
            }
        }
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
    for world in 1..=8usize {
        for len in [0, 1, 2, 3, 5, 7, 8, 13, 64, 101] {
            // Small integers: their sum is exact in any order.
            let mut buffers: Vec<Vec<f32>> = (0..world)
                .map(|rank| (0..len).map(|at| (rank * 31 + at) as f32).collect())
                .collect();
            let naive: Vec<f32> = (0..len)
                .map(|at| buffers.iter().map(|b| b[at]).sum())
                .collect();
            all_reduce(&mut buffers);
            assert!(
                buffers.iter().all(|b| *b == naive),
                "{world} ranks, {len} values"
            );
        }
    }
}

proptest! {
    #[test]
    fn all_ranks_end_with_the_bits_of_the_promised_order(
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
        all_reduce(&mut buffers);
        for buffer in &buffers {
            prop_assert_eq!(bits(buffer), bits(&promised));
        }
    }
}
