//! A newcomer's thread: it applies the sums that a member passes on to that member's state.

use std::sync::atomic::Ordering;

use cryptomind_gpu::EngineError;
use cryptomind_protocol::follow::Piece;
use tokio::sync::mpsc;

use super::{Bench, Event, Halt};

/// A piece with its bytes.
pub type Passed = (Piece, Vec<u8>);

/// A step is one behind while its sums are on their way.
const LEVEL: u64 = 1;

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
        while let Some((piece, bytes)) = pieces.blocking_recv() {
            let is_state = matches!(piece, Piece::State { .. });
            if is_astray && !is_state && piece != (Piece::End {}) {
                continue;
            }
            // Whom it follows anew does not know that it was level.
            is_level &= !is_state;
            let next = self.take(piece, &bytes);
            self.show();
            is_astray = next.is_err();
            match next {
                Ok(Next::Level) if !is_level && pieces.is_empty() => {
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

    fn take(&mut self, piece: Piece, bytes: &[u8]) -> Result<Next, EngineError> {
        let committed = self.session.step();
        match piece {
            Piece::State { step, .. } => {
                self.session.restore(bytes)?;
                self.exchange.forget();
                match self.session.step() == step {
                    true => Ok(Next::Piece),
                    false => Err(EngineError::Order("the state is of another step")),
                }
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
                Ok(match newest <= step + LEVEL {
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
