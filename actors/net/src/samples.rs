//! How fast blobs really moved, and to or from whom: samples of links that cost nothing.
//!
//! Whoever moves blobs adds to it, whoever is connected to the coordinator takes from it and tells. Both ends of a transfer
//! do, so that neither is believed alone. A sample that nobody takes is replaced by the next of the same peer; there are
//! [`MAX_REPORTS`] at most. Nothing of it is kept over a restart.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptomind_protocol::probe::{LinkReport, MAX_REPORTS};
use cryptomind_protocol::{ErrorBody, NodeId};
use tokio::sync::Notify;

use crate::bulk;
use crate::connection::Connection;

/// Fewer bytes say nothing of a throughput: they are gone before congestion control knows the link.
const LEAST_BYTES: u64 = 512 * 1024;

/// Samples that nobody has told yet.
#[derive(Debug, Default)]
pub struct Samples {
    by_peer: Mutex<BTreeMap<NodeId, LinkReport>>,
    more: Notify,
}

impl Samples {
    /// A transfer over this connection took so long for so many bytes, checking and storing them included.
    pub fn add(&self, connection: &Connection, bytes: u64, took: Duration) {
        // A client's key reads as a node's: the coordinator knows whose it is.
        let to = connection.peer_node();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.put(LinkReport {
            to,
            rtt_us: micros(connection.rtt()).max(1),
            bytes_per_s: rate(bytes, micros(took)),
        });
    }

    fn put(&self, report: LinkReport) {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let known = by_peer.get(&report.to);
        if by_peer.len() < MAX_REPORTS || known.is_some() {
            // A few bytes after many say nothing of what the many said.
            let bytes_per_s = report.bytes_per_s.or(known.and_then(|k| k.bytes_per_s));
            let report = LinkReport {
                bytes_per_s,
                ..report
            };
            by_peer.insert(report.to, report);
            self.more.notify_one();
        }
    }

    /// All that there are.
    pub fn take(&self) -> Vec<LinkReport> {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *by_peer).into_values().collect()
    }

    /// Waits until there may be some.
    pub async fn more(&self) {
        self.more.notified().await;
    }
}

/// Bytes a second.
fn rate(bytes: u64, micros: u64) -> Option<u64> {
    let enough = bytes >= LEAST_BYTES;
    enough.then(|| u64::try_from(u128::from(bytes) * 1_000_000 / u128::from(micros.max(1))).ok())?
}

/// A source or a sink of a blob, and how many bytes passed: what was there already is not sent.
#[derive(Debug)]
pub struct Metered<T> {
    /// What is metered.
    pub inner: T,
    /// Bytes that passed.
    pub bytes: u64,
    start: Instant,
}

impl<T> Metered<T> {
    /// From now on.
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            bytes: 0,
            start: Instant::now(),
        }
    }

    /// Since its start.
    pub fn took(&self) -> Duration {
        self.start.elapsed()
    }
}

impl<T: bulk::Sink> bulk::Sink for Metered<T> {
    fn begin(&mut self, bytes: u64, hashes: Vec<[u8; 32]>) -> Result<(), ErrorBody> {
        self.inner.begin(bytes, hashes)
    }

    fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), ErrorBody> {
        self.bytes += data.len() as u64;
        self.inner.chunk(index, data)
    }
}

impl<T: bulk::Origin> bulk::Origin for Metered<T> {
    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        self.inner.hashes()
    }

    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
        let chunk = self.inner.chunk(index)?;
        self.bytes += chunk.len() as u64;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(n: u8, rtt_us: u64) -> LinkReport {
        LinkReport {
            to: NodeId::new([n; 32]),
            rtt_us,
            bytes_per_s: None,
        }
    }

    #[test]
    fn the_newest_sample_of_a_peer_counts_and_there_are_few() {
        let samples = Samples::default();
        samples.put(report(0, 1));
        samples.put(report(0, 2));
        assert_eq!(samples.take(), [report(0, 2)]);
        assert_eq!(samples.take(), []);
        let fast = LinkReport {
            bytes_per_s: Some(7),
            ..report(0, 1)
        };
        samples.put(fast);
        samples.put(report(0, 2));
        assert_eq!(samples.take()[0].bytes_per_s, Some(7), "it was not unsaid");
        (0..=MAX_REPORTS as u8).for_each(|n| samples.put(report(n, 1)));
        samples.put(report(0, 3));
        let taken = samples.take();
        assert_eq!((taken.len(), taken[0]), (MAX_REPORTS, report(0, 3)));
    }

    #[test]
    fn few_bytes_have_no_throughput() {
        assert_eq!(rate(LEAST_BYTES - 1, 1), None);
        assert_eq!(rate(1_000_000, 500_000), Some(2_000_000));
        assert_eq!(rate(1_000_000, 0), Some(1_000_000_000_000));
    }
}
