//! The network's clock: what time the next block would have.
//!
//! Owned by the coordinator, not by the ledger actor: a restarted actor goes on with it, or a wall clock that has just jumped
//! would be believed anew. The ledger reads it for its blocks, the doors for everything that ends at a block time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cryptomind_core::block_clock::BlockClock;
use cryptomind_protocol::Timestamp;

use crate::clock;

/// A lag or lead beyond this is worth a line in the log.
const WORTH_TELLING_MS: u64 = 60_000;

/// The machine's two clocks, read together, and the last block's time. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct NetworkClock(Arc<Mutex<Pace>>);

#[derive(Debug)]
struct Pace {
    started: Instant,
    clock: BlockClock,
    /// The last block's time.
    last: Timestamp,
    told: bool,
}

impl NetworkClock {
    /// Starts now, with what the wall clock says.
    pub fn start() -> Self {
        Self(Arc::new(Mutex::new(Pace {
            started: Instant::now(),
            clock: BlockClock::new(clock::now(), 0),
            last: Timestamp::default(),
            told: false,
        })))
    }

    /// What time it is: at least the last block's.
    pub fn now(&self) -> Timestamp {
        // A reading is whole or was not made: a panic elsewhere leaves it whole.
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pace.now()
    }

    /// The chain has a block of this time.
    pub(super) fn reached(&self, block: Timestamp) {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead_ms = block.ms_since(clock::now());
        if ahead_ms > WORTH_TELLING_MS && pace.last == Timestamp::default() {
            tracing::warn!(
                ahead_ms,
                "the chain's last block is later than this machine's clock: set the clock"
            );
        }
        pace.last = pace.last.max(block);
    }
}

impl Pace {
    fn now(&mut self) -> Timestamp {
        let wall = clock::now();
        let steady_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = self.clock.now(wall, steady_ms);
        let lag_ms = self.clock.lag_ms(wall);
        if lag_ms > WORTH_TELLING_MS && !self.told {
            tracing::warn!(
                lag_ms,
                "this machine's clock jumped ahead: block time catches up at twice the pace; restart the coordinator \
                 if the clock is right now"
            );
        }
        self.told = lag_ms > WORTH_TELLING_MS;
        now.max(self.last)
    }
}
