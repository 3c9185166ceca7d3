//! A newcomer's way to the members' state: it dials one after another until one lets it follow, and passes what that one says to the
//! training thread.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_core::member::FOLLOW_LIMIT_MS;
use cryptomind_net::ring::{Guide, Passed};
use cryptomind_protocol::follow::{Follow, Piece};
use cryptomind_protocol::node::Match;
use cryptomind_protocol::task::Work;
use cryptomind_protocol::{ErrorBody, NodeId};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::Fault;

/// Pieces that may wait for the thread: the member's own queue is the long one.
const PIECES: usize = 4;
/// Between two members that did not let it follow: they may be on their way into the ring.
const TURN_PAUSE: Duration = Duration::from_millis(200);
const FOLLOW_LIMIT: Duration = Duration::from_millis(FOLLOW_LIMIT_MS);
/// What the end of an attempt gets to arrive that was called to end: others wait for this newcomer, a moment.
const END_LIMIT: Duration = Duration::from_millis(200);
/// Bytes of a parameter in a state: itself and two moments, and one to spare.
const STATE_BYTES_PER_PARAMETER: u64 = 16;
/// Its names and shapes.
const STATE_HEADER_BYTES: u64 = 8 * 1024 * 1024;

/// A newcomer that follows. Dropping it ends what the thread takes.
pub(super) struct Following {
    pieces: mpsc::Sender<Passed>,
    ends: watch::Sender<bool>,
    /// How often it has turned to a member.
    turns: usize,
}

impl Following {
    /// With what the thread takes.
    pub(super) fn new() -> (Self, mpsc::Receiver<Passed>) {
        let (pieces, taken) = mpsc::channel(PIECES);
        let following = Self {
            pieces,
            ends: watch::Sender::new(false),
            turns: 0,
        };
        (following, taken)
    }

    /// Follows a member of this place until its ring is left, each time another one first.
    pub(super) fn begin(
        &mut self,
        guide: Guide,
        matched: &Arc<Match>,
    ) -> impl Future<Output = Result<(), Fault>> + Send + use<> {
        self.ends.send_replace(false);
        self.turns += 1;
        let members = matched.members.iter().map(|member| member.node);
        let mut members: Vec<_> = members.collect();
        // The first rank stores checkpoints beside: it is asked last.
        members.rotate_left(1);
        let first = (self.turns - 1) % members.len();
        members.rotate_left(first);
        let way = Way {
            guide,
            members,
            follow: Follow {
                task: matched.task,
                attempt: matched.attempt,
            },
            most: most_bytes(matched),
            pieces: self.pieces.clone(),
        };
        let mut ends = self.ends.subscribe();
        async move {
            tokio::select! {
                taken = way.take(ends.clone()) => taken,
                () = ended(&mut ends) => Ok(()),
            }
        }
    }

    /// The attempt that it follows is called to end.
    pub(super) fn end(&self) {
        self.ends.send_replace(true);
    }
}

async fn ended(ends: &mut watch::Receiver<bool>) {
    // Closed, it has ended, too.
    let _ = ends.wait_for(|ends| *ends).await;
    // A limit: the end itself is what the other branch waits for.
    sleep(END_LIMIT).await;
}

/// From one member to the next.
struct Way {
    guide: Guide,
    members: Vec<NodeId>,
    follow: Follow,
    most: usize,
    pieces: mpsc::Sender<Passed>,
}

impl Way {
    /// Until a member leaves its ring, or breaks off where it was called to.
    async fn take(self, mut ends: watch::Receiver<bool>) -> Result<(), Fault> {
        let mut since = Instant::now();
        for member in self.members.iter().cycle() {
            match self.follow(*member, &mut since).await {
                Ok(()) => return Ok(()),
                Err(error) if since.elapsed() >= FOLLOW_LIMIT => {
                    let limit = FOLLOW_LIMIT.as_secs();
                    let reason = format!("no member lets it follow for {limit} s: {error}");
                    return Err(Fault::here(reason));
                }
                Err(error) => debug!(%error, "{} cannot be followed", member.short()),
            }
            if timeout(TURN_PAUSE, ends.wait_for(|ends| *ends))
                .await
                .is_ok()
            {
                break;
            }
        }
        Ok(())
    }

    /// Notes when it heard of the member last.
    async fn follow(&self, member: NodeId, heard: &mut Instant) -> Result<(), ErrorBody> {
        let mut following = self.guide.follow(member, self.follow, self.most).await?;
        // Its state leaves where its next step begins.
        let first = timeout(FOLLOW_LIMIT, following.next()).await;
        let mut passed = first.unwrap_or_else(|_| Err(no_state()))?;
        loop {
            *heard = Instant::now();
            let is_last = passed.piece == Piece::End {};
            let taken = self.pieces.send(passed).await;
            if is_last || taken.is_err() {
                return Ok(());
            }
            passed = following.next().await?;
        }
    }
}

fn no_state() -> ErrorBody {
    let limit = FOLLOW_LIMIT.as_secs();
    ErrorBody::network("timeout", format!("no state for {limit} s"))
}

/// The largest piece that there can be.
fn most_bytes(matched: &Match) -> usize {
    let parameters = match &matched.spec.work {
        Work::Train { model, .. } => model.parameter_count(),
        Work::Infer { .. } | Work::Serve { .. } => 0,
    };
    let state = parameters.saturating_mul(STATE_BYTES_PER_PARAMETER);
    usize::try_from(state.saturating_add(STATE_HEADER_BYTES)).unwrap_or(usize::MAX)
}
