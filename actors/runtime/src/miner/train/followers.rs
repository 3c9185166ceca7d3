//! Newcomers that take this member's state while it trains.
//!
//! It waits for none of them: whoever does not keep up, or is gone, is passed nothing more.

use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cryptomind_gpu::session::Session;
use cryptomind_net::ring::{Follower, GivenUp};
use cryptomind_protocol::follow::Piece;
use tracing::info;

/// All wait for a member that copies its state: it does so this often at most, whoever asks.
const GIVE_EVERY: Duration = Duration::from_millis(500);

/// Those of one leg. By default there are none, and none come.
#[derive(Default)]
pub struct Followers {
    arriving: Option<std_mpsc::Receiver<Follower>>,
    here: Vec<Follower>,
    /// When the last one was given the state.
    given: Option<Instant>,
}

impl Followers {
    /// Those that come in here.
    pub fn new(arriving: std_mpsc::Receiver<Follower>) -> Self {
        Self {
            arriving: Some(arriving),
            ..Self::default()
        }
    }

    /// Passes the committed state on to those that have come, where a step begins.
    pub(super) fn welcome(&mut self, session: &Session) {
        if self.given.is_some_and(|at| at.elapsed() < GIVE_EVERY) {
            return;
        }
        let arrived = self
            .arriving
            .iter()
            .flat_map(|arriving| arriving.try_iter());
        let arrived: Vec<_> = arrived.collect();
        if arrived.is_empty() {
            return;
        }
        self.given = Some(Instant::now());
        let (step, state) = (session.step(), Bytes::from(session.checkpoint()));
        let bytes = state.len() as u64;
        for follower in arrived {
            info!(
                "{} takes the state after step {step}",
                follower.node().short()
            );
            self.here.retain(|other| other.node() != follower.node());
            self.here.push(follower);
            if let Some(last) = self.here.last()
                && last
                    .pass(Piece::State { step, bytes }, state.clone())
                    .is_err()
            {
                self.here.pop();
            }
        }
    }

    /// Passes the sums of the prepared step on, of so many samples.
    pub(super) fn pass_sums(&mut self, session: &mut Session, samples: u32) {
        if self.here.is_empty() {
            return;
        }
        let step = session.step() + 1;
        let values = session.gradients();
        let piece = Piece::Sums {
            step,
            samples,
            values: values.len() as u64,
        };
        self.pass(piece, bytes_of(values));
    }

    /// A step is committed.
    pub(super) fn committed(&mut self, step: u64) {
        let newest = step;
        self.pass(Piece::Committed { step, newest }, Bytes::new());
    }

    /// The ring is left.
    pub(super) fn end(&mut self) {
        self.here.drain(..).for_each(Follower::end);
    }

    fn pass(&mut self, piece: Piece, bytes: Bytes) {
        self.here.retain(|follower| {
            let passed = follower.pass(piece, bytes.clone());
            if passed == Err(GivenUp::Behind) {
                info!(
                    "{} follows too slowly, and is given up",
                    follower.node().short()
                );
            }
            passed.is_ok()
        });
    }
}

/// Little-endian.
fn bytes_of(values: &[f32]) -> Bytes {
    let mut bytes = vec![0; size_of_val(values)];
    for (to, value) in bytes.chunks_exact_mut(size_of::<f32>()).zip(values) {
        to.copy_from_slice(&value.to_le_bytes());
    }
    bytes.into()
}
