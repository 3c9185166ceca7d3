//! Newcomers that take this member's state while it trains.
//!
//! It waits for none of them. Who keeps up is passed each step's sums, and has the state that they lead to where the member leaves its
//! ring. Where steps are too quick for a newcomer's link, or its machine, it is passed no more of them until it is given the state anew:
//! once it has taken what it was sent, more and more seldom, and where the member leaves its ring, if the state is
//! small. Who gets that soon enough is level all the same ([`Bench::follow`](super::Bench::follow)).

use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cryptomind_gpu::session::Session;
use cryptomind_net::ring::{Follower, GivenUp};
use cryptomind_protocol::follow::Piece;
use tracing::info;

/// All wait for a member that copies its state: it does so this often at most, whoever asks.
const GIVE_EVERY: Duration = Duration::from_millis(500);
/// Who falls behind again and again waits twice as long each time, up to 2⁷ times as long.
const MOST_DOUBLINGS: u32 = 7;
/// The others wait while a member that leaves its ring copies its state: no larger one, bytes.
const MOST_AT_END: usize = 64 * 1024 * 1024;

/// Those of one leg. By default there are none, and none come.
#[derive(Default)]
pub struct Followers {
    arriving: Option<std_mpsc::Receiver<Follower>>,
    here: Vec<Led>,
    /// When the state was given last, and how large it was, bytes.
    given: Option<(Instant, usize)>,
}

/// One of them.
struct Led {
    follower: Follower,
    /// Whether it is passed each step.
    keeps_up: bool,
    /// When it was given the state, and how often before.
    given: Instant,
    times: u32,
}

impl Led {
    /// Whether it is time to give it the state anew.
    fn is_due(&self) -> bool {
        let wait = GIVE_EVERY * (1 << self.times.min(MOST_DOUBLINGS));
        !self.keeps_up && self.given.elapsed() >= wait && self.follower.is_idle()
    }
}

impl Followers {
    /// Those that come in here.
    pub fn new(arriving: std_mpsc::Receiver<Follower>) -> Self {
        Self {
            arriving: Some(arriving),
            ..Self::default()
        }
    }

    /// Passes the committed state on to those that have come, and to those that have fallen behind, where a step begins.
    pub(super) fn welcome(&mut self, session: &Session) {
        if self.given.is_some_and(|(at, _)| at.elapsed() < GIVE_EVERY) {
            return;
        }
        let arrived = self.arriving.iter().flat_map(std_mpsc::Receiver::try_iter);
        let mut wanting: Vec<_> = arrived.map(|follower| (follower, 0)).collect();
        for (follower, _) in &wanting {
            self.here
                .retain(|led| led.follower.node() != follower.node());
        }
        let due = self.here.extract_if(.., |led| led.is_due());
        wanting.extend(due.map(|led| (led.follower, led.times + 1)));
        if wanting.is_empty() {
            return;
        }
        let (step, state) = (session.step(), Bytes::from(session.checkpoint()));
        let given = Instant::now();
        self.given = Some((given, state.len()));
        for (mut follower, times) in wanting {
            info!(
                "{} takes the state after step {step}",
                follower.node().short()
            );
            if follower.give(step, state.clone()).is_ok() {
                self.here.push(Led {
                    follower,
                    keeps_up: true,
                    given,
                    times,
                });
            }
        }
    }

    /// Passes the sums of the prepared step on, of so many samples.
    pub(super) fn pass_sums(&mut self, session: &mut Session, samples: u32) {
        if !self.here.iter().any(|led| led.keeps_up) {
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

    /// The ring is left, in this state, from which another one is to go on. Who is behind and cannot be given it asks anew.
    pub(super) fn end(&mut self, session: &Session) {
        let is_small = self.given.is_some_and(|(_, bytes)| bytes <= MOST_AT_END);
        let is_behind = self.here.iter().any(|led| !led.keeps_up);
        let state = (is_behind && is_small).then(|| Bytes::from(session.checkpoint()));
        for mut led in self.here.drain(..) {
            let has_it = match &state {
                _ if led.keeps_up => true,
                Some(state) => led.follower.give(session.step(), state.clone()).is_ok(),
                None => false,
            };
            if has_it {
                led.follower.end();
            }
        }
    }

    /// To those that keep up. Who is gone is forgotten.
    fn pass(&mut self, piece: Piece, bytes: Bytes) {
        self.here.retain_mut(|led| {
            let passed = match led.keeps_up {
                true => led.follower.pass(piece, bytes.clone()),
                false => Ok(()),
            };
            led.keeps_up &= passed.is_ok();
            passed != Err(GivenUp::Gone)
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
