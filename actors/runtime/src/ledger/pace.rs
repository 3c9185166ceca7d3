//! The ledger's clock: the machine's two clocks, read together.

use std::time::Instant;

use cryptomind_core::block_clock::BlockClock;
use cryptomind_protocol::Timestamp;

use crate::clock;

/// A lag or lead beyond this is worth a line in the log.
const WORTH_TELLING_MS: u64 = 60_000;

/// Reads the wall clock and bounds it by a steady one.
pub(super) struct Pace {
    started: Instant,
    clock: BlockClock,
    told: bool,
}

impl Pace {
    /// Starts now. `last` is the time of the chain's last block.
    pub(super) fn start(last: Option<Timestamp>) -> Self {
        let wall = clock::now();
        let ahead_ms = last.map_or(0, |last| last.ms_since(wall));
        if ahead_ms > WORTH_TELLING_MS {
            tracing::warn!(
                ahead_ms,
                "the chain's last block is later than this machine's clock: set the clock; until it has caught up, \
                 transactions may be refused as expired"
            );
        }
        Self {
            started: Instant::now(),
            clock: BlockClock::new(wall, 0),
            told: false,
        }
    }

    /// What time it is for the next block, before the chain sees to it that it is later than the last.
    pub(super) fn now(&mut self) -> Timestamp {
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
        now
    }
}
