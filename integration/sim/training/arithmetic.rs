//! A model whose arithmetic shows every mistake: f32 sums tell the order of folds and the size of the group, wrapping integers
//! tell a step that was skipped, repeated or computed on other samples. And the oracle: one machine that trains the same steps.

use std::collections::HashMap;
use std::sync::LazyLock;

use cryptomind_core::batch::{self, Epoch, Shares};
use cryptomind_core::ring;
use cryptomind_protocol::key::Hash;

pub const VALUES: usize = 7;
pub const SAMPLES: u32 = 100;
pub const GLOBAL_BATCH: u32 = 10;
const STEPS_AN_EPOCH: u64 = (SAMPLES / GLOBAL_BATCH) as u64;

/// A value of each arithmetic.
pub type Value = (f32, u64);

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights(pub [Value; VALUES]);

/// How the group divided the batch at each step.
pub type Lineage = Vec<Shares>;

static EPOCHS: LazyLock<Vec<Epoch>> =
    LazyLock::new(|| (0..8).map(|epoch| Epoch::new(1, epoch, SAMPLES)).collect());

impl Default for Weights {
    fn default() -> Self {
        Self(std::array::from_fn(|at| (at as f32 / 3.0, at as u64 + 1)))
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let mixed = (a + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 29)
}

/// The sums over a rank's share of the step after `step` steps, and how many samples that were.
pub fn gradients(weights: &Weights, step: u64, rank: u32, shares: &Shares) -> Vec<Value> {
    let (epoch, place) = batch::place(step, STEPS_AN_EPOCH);
    let batch = EPOCHS[epoch as usize].step(place, GLOBAL_BATCH);
    let mut sums: Vec<Value> = vec![(0.0, 0); VALUES + 1];
    for sample in shares.part(batch, rank) {
        for (at, (sum, weight)) in sums.iter_mut().zip(&weights.0).enumerate() {
            let drawn = mix((*sample).into(), at as u64);
            sum.0 += (drawn % 2003) as f32 / 977.0 - weight.0 / 7.0;
            sum.1 = sum.1.wrapping_add(drawn.wrapping_mul(weight.1 | 1));
        }
        sums[VALUES].0 += 1.0;
        sums[VALUES].1 += 1;
    }
    sums
}

/// The weights after a step whose group's sums are these.
pub fn applied(weights: &Weights, sums: &[Value]) -> Weights {
    let count = (GLOBAL_BATCH as f32, u64::from(GLOBAL_BATCH));
    assert_eq!(sums[VALUES], count, "the group computed the global batch");
    Weights(std::array::from_fn(|at| {
        let ((float, int), (sum, whole)) = (weights.0[at], sums[at]);
        let float = float + 0.1 * sum / GLOBAL_BATCH as f32;
        (float, int.wrapping_mul(31).wrapping_add(whole))
    }))
}

pub fn add(own: &mut Value, other: Value) {
    *own = (own.0 + other.0, own.1.wrapping_add(other.1));
}

pub fn fingerprint(weights: &Weights) -> Hash {
    let bytes = weights.0.iter().flat_map(|(float, int)| {
        let float = float.to_bits().to_be_bytes().into_iter();
        float.chain(int.to_be_bytes())
    });
    Hash::of(&bytes.collect::<Vec<_>>())
}

/// One machine, that computes what each rank of each group would.
#[derive(Default)]
pub struct Oracle {
    known: HashMap<Lineage, Weights>,
}

impl Oracle {
    pub fn after(&mut self, lineage: &[Shares]) -> Weights {
        let Some((shares, before)) = lineage.split_last() else {
            return Weights::default();
        };
        if let Some(known) = self.known.get(lineage) {
            return known.clone();
        }
        let weights = self.after(before);
        let step = before.len() as u64;
        let ranks = 0..shares.weights().len() as u32;
        let parts: Vec<_> = ranks
            .map(|rank| gradients(&weights, step, rank, shares))
            .collect();
        let after = applied(&weights, &folded(&parts));
        self.known.insert(lineage.to_vec(), after.clone());
        after
    }
}

/// Segment s folds from rank s+1 on to rank s.
fn folded(parts: &[Vec<Value>]) -> Vec<Value> {
    let world = parts.len();
    let mut sums = parts[0].clone();
    for (segment, cut) in ring::segments(sums.len(), world).into_iter().enumerate() {
        for at in cut {
            let mut ranks = (1..=world).map(|step| parts[(segment + step) % world][at]);
            let mut sum = ranks.next().unwrap();
            ranks.for_each(|value| add(&mut sum, value));
            sums[at] = sum;
        }
    }
    sums
}
