//! Threads that read blocks and look at their signatures ahead of their turn.
//!
//! Block `n` goes to worker `n` modulo their number and comes back from there, so blocks come back in order. Each
//! channel is bounded: so many blocks are in memory and no more.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope};

use cryptomind_core::chain::Opened;
use cryptomind_protocol::GenesisHash;
use cryptomind_protocol::block::Block;
use cryptomind_storage::chain::block_key;

use super::Fault;
use super::rows::Row;

/// Blocks that may be under way at each worker.
const AHEAD: usize = 4;
/// More threads than this would wait for the one that carries out.
const MOST_WORKERS: usize = 8;

/// A block that was opened, and its length.
type Done = Result<(Opened, usize), Fault>;

struct Worker {
    rows: SyncSender<(u64, Row<Block>)>,
    done: Receiver<Done>,
}

impl Worker {
    fn start<'scope>(scope: &'scope Scope<'scope, '_>, network: GenesisHash) -> Self {
        let (rows, given) = sync_channel::<(u64, Row<Block>)>(AHEAD);
        let (ready, done) = sync_channel(AHEAD);
        scope.spawn(move || {
            for (height, row) in given {
                // Whoever waited may have found a fault already.
                if ready.send(open(height, row, &network)).is_err() {
                    return;
                }
            }
        });
        Self { rows, done }
    }

    fn give(&self, height: u64, row: Row<Block>) -> Result<(), Fault> {
        self.rows.send((height, row)).map_err(|_| gone())
    }

    fn take(&self) -> Done {
        self.done.recv().map_err(|_| gone())?
    }
}

fn gone() -> Fault {
    Fault::of_all("a thread that checks signatures ended")
}

fn open(height: u64, row: Row<Block>, network: &GenesisHash) -> Done {
    if row.key != block_key(height) {
        return Err(Fault::at(height, "it is not in the file, and others are"));
    }
    let block = row
        .record()
        .map_err(|wrong| Fault::at(height, format!("it {wrong}")))?;
    Ok((Opened::new(block, network), row.value.len()))
}

/// Opens all blocks on all cores and hands each out in its turn, with its length in bytes.
pub(super) fn each(
    rows: impl Iterator<Item = Result<Row<Block>, Fault>>,
    network: &GenesisHash,
    mut take: impl FnMut(Opened, usize) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let start = |_| Worker::start(scope, *network);
        let crew: Vec<Worker> = (0..workers.min(MOST_WORKERS)).map(start).collect();
        let mut take_from = |number: usize| {
            let (opened, bytes) = crew[number % crew.len()].take()?;
            take(opened, bytes)
        };
        let (mut given, mut taken, mut unread) = (0, 0, None);
        for row in rows {
            match row {
                Ok(row) => crew[given % crew.len()].give(given as u64, row)?,
                Err(fault) => {
                    unread = Some(fault);
                    break;
                }
            }
            given += 1;
            if given - taken == AHEAD * crew.len() {
                take_from(taken)?;
                taken += 1;
            }
        }
        // What cannot be read comes after all that was given out.
        (taken..given).try_for_each(take_from)?;
        unread.map_or(Ok(()), Err)
    })
}
