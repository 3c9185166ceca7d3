//! A newcomer's thread: it takes a member's state, and applies the sums that the member passes on to it.
//!
//! It is level where it keeps up with the steps, or where a state comes so soon that the one of the end will: whichever is first.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cryptomind_gpu::EngineError;
use cryptomind_net::ring::Passed;
use cryptomind_protocol::follow::Piece;
use tokio::sync::mpsc;

use super::{Bench, Event, Halt};

/// A step is one behind while its sums are on their way.
const LEVEL: u64 = 1;
/// The others may wait for so long for a state: half of what they may stand still when somebody joins.
const SOON: Duration = Duration::from_millis(100);

/// How the thread goes on after a piece.
enum Next {
    Piece,
    Level,
    Over,
}

impl Bench {
    /// Takes pieces until there are no more.
    pub(super) fn follow(
        &mut self,
        number: u64,
        mut pieces: mpsc::Receiver<Passed>,
    ) -> Result<(), Halt> {
        let (mut is_level, mut is_astray) = (false, false);
        while let Some(passed) = pieces.blocking_recv() {
            let is_state = matches!(passed.piece, Piece::State { .. });
            if is_astray && !is_state && passed.piece != (Piece::End {}) {
                continue;
            }
            // Whom it follows anew does not know that it was level.
            is_level &= !is_state;
            let next = self.take(&passed, pieces.is_empty());
            self.show();
            is_astray = next.is_err();
            match next {
                Ok(Next::Level) if !is_level => {
                    is_level = true;
                    let step = self.session.step();
                    self.say(Event::Level { step })?;
                }
                Ok(Next::Piece | Next::Level) => {}
                Ok(Next::Over) => break,
                Err(error) => self.say(Event::Astray(error.to_string()))?,
            }
        }
        self.say(Event::Unfollowed(number))
    }

    fn take(&mut self, passed: &Passed, is_newest: bool) -> Result<Next, EngineError> {
        let (committed, bytes) = (self.session.step(), &passed.bytes[..]);
        match passed.piece {
            Piece::State { step, .. } => {
                let begin = Instant::now();
                self.session.restore(bytes)?;
                self.exchange.forget();
                if self.session.step() != step {
                    return Err(EngineError::Order("the state is of another step"));
                }
                Ok(match passed.took + begin.elapsed() <= SOON {
                    true => Next::Level,
                    false => Next::Piece,
                })
            }
            Piece::Sums { step, samples, .. } => {
                if step != committed + 1 {
                    return Err(EngineError::Order("the sums are of another step"));
                }
                self.session.take_sums(values(bytes))?;
                self.session.apply(samples)?;
                self.told.prepared.store(true, Ordering::SeqCst);
                Ok(Next::Piece)
            }
            Piece::Committed { step, newest } => {
                if step != committed + 1 || !self.session.is_prepared() {
                    return Err(EngineError::Order("another step is committed"));
                }
                self.commit();
                Ok(match is_newest && newest <= step + LEVEL {
                    true => Next::Level,
                    false => Next::Piece,
                })
            }
            Piece::End {} => Ok(Next::Over),
        }
    }
}

fn values(bytes: &[u8]) -> impl ExactSizeIterator<Item = f32> {
    let values = bytes.chunks_exact(size_of::<f32>());
    values.map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]))
}
