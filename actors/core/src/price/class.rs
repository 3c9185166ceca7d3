//! Classes: which one a task is paid by, and which ones a miner serves.

use cryptomind_protocol::price::{MemoryTier, PriceClass, WorkClass};
use cryptomind_protocol::task::{TaskSpec, Work};

use super::Extent;

/// What training keeps beside each parameter, parameter included: two moments of the optimiser, all of it once more
/// (a step is written beside the state before it), gradients, and the ring's scratch.
const TRAINING_ARENAS: u64 = 8;
/// Bytes of an f32.
const F32_BYTES: u64 = 4;
/// A weight is used at least once a sample: multiplied and added.
const FLOPS_PER_WEIGHT: u64 = 2;

/// The class that a task is paid by. It follows from the task alone.
pub fn class_of(spec: &TaskSpec, extent: &Extent) -> PriceClass {
    let (work, bytes) = match spec.work {
        Work::Train { .. } => (
            WorkClass::Training,
            extent.result_bytes_min.saturating_mul(TRAINING_ARENAS),
        ),
        Work::Infer { .. } | Work::Serve { .. } => (
            WorkClass::Inference,
            (extent.flops_per_sample / FLOPS_PER_WEIGHT).saturating_mul(F32_BYTES),
        ),
    };
    let memory = needed_tier(bytes);
    PriceClass { work, memory }
}

/// The least tier whose miners all hold so much; the highest for what is beyond.
fn needed_tier(bytes: u64) -> MemoryTier {
    let mut tiers = MemoryTier::ALL.into_iter();
    let holds = tiers.find(|tier| tier.bytes() >= bytes);
    holds.unwrap_or(MemoryTier::Gib80)
}

/// The tier of a miner with so much memory. Where it is not known, the least: nobody makes a supply by silence.
pub fn tier_of(memory_bytes: Option<u64>) -> MemoryTier {
    let reached = |tier: &MemoryTier| memory_bytes.is_some_and(|bytes| bytes >= tier.bytes());
    let highest = MemoryTier::ALL.into_iter().rev().find(reached);
    highest.unwrap_or(MemoryTier::Gib1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_a_task_needs_its_tiers_miners_hold(task in 0u64..=80 << 30, miner in (1u64 << 30)..=u64::MAX) {
            prop_assert!(task <= needed_tier(task).bytes());
            prop_assert!(tier_of(Some(miner)).bytes() <= miner);
            prop_assert!(needed_tier(task) > tier_of(Some(miner)) || task <= miner);
        }
    }

    #[test]
    fn a_tier_begins_at_its_bytes() {
        assert_eq!(tier_of(None), MemoryTier::Gib1);
        assert_eq!(tier_of(Some(0)), MemoryTier::Gib1);
        assert_eq!(tier_of(Some((8 << 30) - 1)), MemoryTier::Gib1);
        assert_eq!(tier_of(Some(8 << 30)), MemoryTier::Gib8);
        assert_eq!(tier_of(Some(u64::MAX)), MemoryTier::Gib80);
        assert_eq!(needed_tier(8 << 30), MemoryTier::Gib8);
        assert_eq!(needed_tier((8 << 30) + 1), MemoryTier::Gib24);
        assert_eq!(needed_tier(u64::MAX), MemoryTier::Gib80);
    }
}
