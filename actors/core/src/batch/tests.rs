use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn weight(number: u32) -> Weight {
    number.try_into().unwrap()
}

fn weights() -> impl Strategy<Value = Vec<Weight>> {
    let alike = (1u32..20).prop_map(weight);
    let any = (1..=Weight::MOST).prop_map(weight);
    prop_oneof![vec(alike, 1..12), vec(any, 1..12)]
}

fn lens_of(shares: &Shares, samples: u32) -> Vec<u32> {
    let ranks = 0..shares.0.len() as u32;
    ranks.map(|rank| shares.part_len(samples, rank)).collect()
}

/// Sample by sample: each goes to the first of those that lack most of what their weights make of the batch.
fn naive(samples: u32, weights: &[Weight]) -> Vec<u32> {
    let total: i64 = weights.iter().map(|w| i64::from(w.get())).sum();
    let mut lens = vec![0; weights.len()];
    for _ in 0..samples {
        let lacks = |rank: &usize| {
            i64::from(samples) * i64::from(weights[*rank].get()) - lens[*rank] * total
        };
        // Whole samples before what is left over.
        let ranks = (0..weights.len()).rev();
        let next = ranks.max_by_key(|rank| (lacks(rank) >= total, lacks(rank)));
        lens[next.unwrap()] += 1;
    }
    lens.into_iter().map(|len| len as u32).collect()
}

proptest! {
    #[test]
    fn an_epoch_visits_every_sample_once(seed: u64, epoch in 0u64..5, samples in 0u32..3000, batch in 1u32..700) {
        let order = Epoch::new(seed, epoch, samples);
        let steps = u64::from(samples.div_ceil(batch));
        let mut seen: Vec<u32> = (0..steps).flat_map(|s| order.step(s, batch).to_vec()).collect();
        prop_assert!(order.step(steps, batch).is_empty());
        prop_assert!(order.step(u64::MAX, batch).is_empty());
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..samples).collect::<Vec<_>>());
    }

    #[test]
    fn shares_are_contiguous_even_and_together_the_batch(samples in 0usize..2000, world in 1u32..20) {
        let batch: Vec<u32> = (0..samples as u32).map(|n| n.wrapping_mul(77)).collect();
        let equal = Shares::equal(world);
        let shares: Vec<&[u32]> = (0..world).map(|rank| equal.part(&batch, rank)).collect();
        // The first ranks have what is left over.
        let (part, more) = (samples / world as usize, samples % world as usize);
        let sizes = (0..world as usize).map(|rank| part + usize::from(rank < more));
        prop_assert!(sizes.eq(shares.iter().map(|s| s.len())));
        prop_assert_eq!(shares.concat(), batch.clone());
        prop_assert!(equal.part(&batch, world).is_empty());
    }

    #[test]
    fn shares_follow_the_weights_and_are_together_the_batch(samples in 0u32..3000, weights in weights()) {
        let batch: Vec<u32> = (0..samples).map(|n| n.wrapping_mul(77)).collect();
        let shares = Shares::new(weights.clone());
        let world = weights.len() as u32;
        let parts: Vec<&[u32]> = (0..world).map(|rank| shares.part(&batch, rank)).collect();
        prop_assert_eq!(parts.concat(), batch.clone());
        let lens: Vec<u32> = (0..world).map(|rank| shares.part_len(samples, rank)).collect();
        prop_assert!(lens.iter().map(|len| *len as usize).eq(parts.iter().map(|part| part.len())));
        prop_assert_eq!(&lens, &naive(samples, &weights));
        for rank in [world, world + 1, u32::MAX] {
            prop_assert!(shares.part(&batch, rank).is_empty() && shares.part_len(samples, rank) == 0);
        }
        prop_assert_eq!(Shares::told(&shares.tell(), weights.len()).map(|told| lens_of(&told, samples)), Some(lens));
    }

    #[test]
    fn as_many_times_the_weight_is_the_same_share(samples in 0u32..3000, weights in weights(), times in 1u32..8) {
        let of = |times: u32| {
            let weights = weights.iter().map(|w| weight((w.get() / 8).max(1) * times));
            lens_of(&Shares::new(weights.collect()), samples)
        };
        prop_assert_eq!(of(times), of(1));
    }

    #[test]
    fn another_seed_or_epoch_is_another_order(seed: u64, epoch in 0u64..1000) {
        let order = Epoch::new(seed, epoch, 100);
        prop_assert_eq!(&order, &Epoch::new(seed, epoch, 100));
        prop_assert_ne!(&order, &Epoch::new(seed, epoch + 1, 100));
        prop_assert_ne!(&order, &Epoch::new(seed ^ 1, epoch, 100));
    }
}

/// What miners of different versions must agree on. If this fails, runs that are under way would
/// change their samples: give the schedule a new number instead.
#[test]
fn the_schedule_is_pinned() {
    let order = Epoch::new(42, 3, 12);
    assert_eq!(order.step(0, 12), GOLDEN);
    let whole = Epoch::new(7, 0, 1437);
    let bytes: Vec<u8> = whole.order.iter().flat_map(|n| n.to_be_bytes()).collect();
    let hash = blake3::hash(&bytes).to_hex().to_string();
    assert_eq!(hash, GOLDEN_HASH);
}

const GOLDEN: [u32; 12] = [5, 3, 0, 6, 10, 7, 8, 9, 11, 2, 4, 1];
const GOLDEN_HASH: &str = "d43ce6f77f5e8df553ea4fec71428b2a649547b4ddc5f1fdd9384570eec82d9e";

#[test]
fn whoever_is_four_times_as_fast_computes_four_times_as_much() {
    let shares = Shares::new([1000, 250, 250].map(weight).to_vec());
    assert_eq!(lens_of(&shares, 60), [40, 10, 10]);
    // The largest remainders: ⅔, ⅙, ⅙ of four.
    assert_eq!(lens_of(&shares, 4), [3, 1, 0]);
}

#[test]
fn who_goes_on_keeps_its_weight_and_who_comes_weighs_most() {
    let [a, b, c, d] = [1, 2, 3, 4].map(|n| NodeId::new([n; 32]));
    let shares = Shares::new([500, 1000, 125].map(weight).to_vec());
    let kept = shares.kept(&[a, b, c], &[c, d, a]);
    assert_eq!(kept.tell(), [125, 1000, 500].map(weight));
    let alike = Shares::equal(3).kept(&[a, b, c], &[b, c]);
    assert_eq!((alike.tell(), alike), (vec![], Shares::equal(2)));
}

#[test]
fn shares_of_another_group_are_none() {
    let two = [1, 2].map(weight);
    assert!(Shares::told(&two, 2).is_some());
    for world in [0, 1, 3] {
        assert_eq!(Shares::told(&two, world), None);
    }
    assert_eq!(Shares::told(&[], 3), Some(Shares::equal(3)));
}

#[test]
fn a_step_has_its_place() {
    assert_eq!(place(0, 45), (0, 0));
    assert_eq!(place(44, 45), (0, 44));
    assert_eq!(place(45, 45), (1, 0));
    assert_eq!(place(100, 45), (2, 10));
}

/// Every order of four samples comes about equally often (chi-squared, 23 degrees of freedom; the
/// bound is exceeded by chance once in 10⁹, and the draws are fixed).
#[test]
fn no_order_is_preferred() {
    let mut counts = std::collections::BTreeMap::new();
    let runs = 24_000u64;
    for seed in 0..runs {
        *counts.entry(Epoch::new(seed, 0, 4).order).or_insert(0u64) += 1;
    }
    assert_eq!(counts.len(), 24);
    let expected = (runs / 24) as f64;
    let chi2: f64 = counts
        .values()
        .map(|n| (*n as f64 - expected).powi(2) / expected)
        .sum();
    assert!(chi2 < 90.0, "{chi2}");
}
