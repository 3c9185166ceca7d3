//! A step's gradients on their way around the ring: they leave as the backward pass makes them, and come back as sums.
//!
//! Small buckets travel together, since each collective costs the ring's round trip; the backward pass does not wait for any.
//! Nothing is written to the session before that pass is through. What a coarse wire format rounds off is kept here, as
//! part of the state after the step: it counts once the step is committed.

use std::time::Instant;

use cryptomind_gpu::Bucket;
use cryptomind_net::ring::{Buffer, Ring, Summing};
use cryptomind_protocol::ring::Wire;

/// Values that travel together at least, but for a step's last: 1 MiB of f32.
const BUNDLE: usize = 256 * 1024;

/// Bundles of a member, from step to step.
pub(super) struct Exchange {
    wire: Wire,
    /// What was rounded off on this member and not sent yet, as of the committed step and of the next one; empty where
    /// nothing is.
    owed: Vec<f32>,
    owed_next: Vec<f32>,
    /// Whether the latter is of this step.
    is_known: bool,
    filling: Bundle,
    under_way: Vec<UnderWay>,
    /// Memory of earlier bundles.
    spare: Vec<Bundle>,
}

/// Buckets that travel together.
#[derive(Default)]
struct Bundle {
    parts: Vec<Part>,
    buffer: Buffer,
}

type Part = std::ops::Range<usize>;

/// A bundle on the ring.
pub(super) struct UnderWay {
    pub(super) parts: Vec<Part>,
    pub(super) summing: Summing,
    /// When it left.
    pub(super) since: Instant,
}

impl Exchange {
    /// For a model with so many parameters.
    pub(super) fn new(wire: Wire, parameters: usize) -> Self {
        let owed = match wire {
            Wire::Int8 => vec![0.0; parameters],
            Wire::F32 | Wire::Bf16 => Vec::new(),
        };
        Self {
            wire,
            owed_next: owed.clone(),
            owed,
            is_known: false,
            filling: Bundle::default(),
            under_way: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Forgets what an earlier step left behind, such as one whose ring broke.
    pub(super) fn begin(&mut self) {
        self.under_way.clear();
        self.is_known = false;
        self.filling = self.spare.pop().unwrap_or_default().emptied();
    }

    /// Takes a copy of a bucket, and starts the bundle that it fills. Does not block.
    pub(super) fn add(&mut self, ring: &Ring, bucket: Bucket<'_>) {
        let buffer = &mut self.filling.buffer;
        buffer.values.extend_from_slice(bucket.values);
        if !self.owed.is_empty() {
            let owed = &self.owed[bucket.range.clone()];
            buffer.residual.extend_from_slice(owed);
        }
        self.filling.parts.push(bucket.range);
        if self.filling.buffer.values.len() >= BUNDLE {
            self.start(ring);
        }
    }

    /// Starts what is left.
    pub(super) fn finish(&mut self, ring: &Ring) {
        if !self.filling.parts.is_empty() {
            self.start(ring);
        }
    }

    fn start(&mut self, ring: &Ring) {
        let next = self.spare.pop().unwrap_or_default().emptied();
        let Bundle { parts, buffer } = std::mem::replace(&mut self.filling, next);
        self.under_way.push(UnderWay {
            parts,
            summing: ring.sum(self.wire, buffer),
            since: Instant::now(),
        });
    }

    /// The sums that are under way, in the order in which they end.
    pub(super) fn take_under_way(&mut self) -> Vec<UnderWay> {
        std::mem::take(&mut self.under_way)
    }

    /// Writes a bundle's sums to their places in the arena, which it returns, and keeps what was rounded off.
    pub(super) fn put(&mut self, parts: Vec<Part>, buffer: Buffer, arena: &mut [f32]) -> Vec<Part> {
        let mut at = 0;
        for part in &parts {
            let place = at..at + part.len();
            at = place.end;
            arena[part.clone()].copy_from_slice(&buffer.values[place.clone()]);
            if !self.owed.is_empty() {
                self.owed_next[part.clone()].copy_from_slice(&buffer.residual[place]);
            }
        }
        let places = joined(&parts);
        self.spare.push(Bundle { parts, buffer });
        self.is_known = true;
        places
    }

    /// The step is committed. What is owed stays owed where nobody else took part in it.
    pub(super) fn commit(&mut self) {
        if std::mem::take(&mut self.is_known) {
            std::mem::swap(&mut self.owed, &mut self.owed_next);
        }
    }

    /// Nothing is owed: the state was taken from elsewhere.
    pub(super) fn forget(&mut self) {
        self.owed.fill(0.0);
        self.is_known = false;
    }
}

/// The same places with neighbours as one: buckets come last layer first.
fn joined(parts: &[Part]) -> Vec<Part> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(last) if last.start == part.end => last.start = part.start,
            _ => joined.push(part.clone()),
        }
    }
    joined
}

impl Bundle {
    /// The same memory without anything in it.
    fn emptied(mut self) -> Self {
        self.parts.clear();
        self.buffer.values.clear();
        self.buffer.residual.clear();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step with others owes `owed` from then on.
    fn together(exchange: &mut Exchange, owed: f32) {
        exchange.begin();
        let buffer = Buffer {
            values: vec![0.0; 2],
            residual: vec![owed; 2],
        };
        let whole = std::iter::once(0..2).collect();
        exchange.put(whole, buffer, &mut [0.0; 2]);
    }

    #[test]
    fn neighbours_are_one_place() {
        let whole = std::iter::once(60..100);
        assert!(joined(&[90..100, 70..90, 60..70]).into_iter().eq(whole));
        assert_eq!(joined(&[90..100, 60..70, 50..60]), [90..100, 50..70]);
        assert_eq!(joined(&[0..1, 1..2]), [0..1, 1..2]);
        assert!(joined(&[]).is_empty());
    }

    #[test]
    fn what_is_owed_waits_for_the_next_step_with_others() {
        let mut exchange = Exchange::new(Wire::Int8, 2);
        together(&mut exchange, 1.0);
        assert_eq!(exchange.owed, [0.0; 2], "the step may not be confirmed");
        exchange.commit();
        assert_eq!(exchange.owed, [1.0; 2]);
        // Alone, once and twice.
        for _ in 0..2 {
            exchange.begin();
            exchange.commit();
            assert_eq!(exchange.owed, [1.0; 2]);
        }
        // Dropped, and done again.
        together(&mut exchange, 2.0);
        together(&mut exchange, 3.0);
        exchange.commit();
        assert_eq!(exchange.owed, [3.0; 2]);
        together(&mut exchange, 4.0);
        exchange.forget();
        exchange.commit();
        assert_eq!(exchange.owed, [0.0; 2]);
    }
}
