//! What prices were: minutes of a day, hours of a year, and no more.
//!
//! Two rings a class, as in a round-robin database (Oetiker, RRDtool): a point has its place by its time, and replaces
//! what was there a day or a year before. So the history is bounded by its keys, and nothing has to be cleared away.

use cryptomind_protocol::Timestamp;
use cryptomind_protocol::price::{PriceClass, PricePoint, PriceRing};
use serde::{Deserialize, Serialize};

/// The place of a point in a ring.
const fn slot(ring: PriceRing, at: Timestamp) -> u16 {
    (at.as_ms() / ring.step_ms() % ring.points()) as u16
}

/// A point in one of its class's rings, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceRecord {
    /// Which.
    pub ring: PriceRing,
    /// What it was.
    pub point: PricePoint,
}

impl PriceRecord {
    /// Where a point is kept: among the minutes, and as the price of its hour until the hour ends.
    pub fn of(point: PricePoint) -> [Self; 2] {
        [PriceRing::Minutes, PriceRing::Hours].map(|ring| Self { ring, point })
    }

    /// What the keys of a class's ring begin with.
    pub fn prefix(class: PriceClass, ring: PriceRing) -> Vec<u8> {
        let ring = match ring {
            PriceRing::Minutes => b'm',
            PriceRing::Hours => b'h',
        };
        let mut prefix = class.as_str().as_bytes().to_vec();
        prefix.extend_from_slice(&[b'/', ring]);
        prefix
    }

    /// Its place: the class, the ring, the slot.
    pub fn key(&self) -> Vec<u8> {
        let mut key = Self::prefix(self.point.class, self.ring);
        key.extend_from_slice(&slot(self.ring, self.point.at).to_be_bytes());
        key
    }
}

/// A ring's points in order of time, without those that are older than it goes back: nobody looked for a while, and their
/// places were not taken.
pub fn in_order(mut points: Vec<PricePoint>, ring: PriceRing, now: Timestamp) -> Vec<PricePoint> {
    let span_ms = ring.step_ms() * ring.points();
    points.retain(|point| now.ms_since(point.at) < span_ms);
    points.sort_unstable_by_key(|point| point.at);
    points
}

#[cfg(test)]
mod tests;
