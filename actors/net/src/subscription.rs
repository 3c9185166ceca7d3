//! A request with many answers: a watch. Dropping it tells the server that nobody listens any more.

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::error::Answer;
use serde::de::DeserializeOwned;

use crate::stream::{Receiver, decode};

/// The answers of a watch, in order.
pub struct Subscription {
    receiver: Receiver,
    frame_deadline: std::time::Duration,
    ended: bool,
}

impl Subscription {
    pub(crate) const fn new(receiver: Receiver, frame_deadline: std::time::Duration) -> Self {
        Self {
            receiver,
            frame_deadline,
            ended: false,
        }
    }

    /// The next answer; nothing at the end of the watch, and after a lost connection has been told as an
    /// error. It waits as long as the connection lives: a dead peer ends it within 2.5 s, a node's
    /// coordinator within 10 s. Dropping the future
    /// loses nothing.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<Result<T, ErrorBody>> {
        if self.ended {
            return None;
        }
        let frame = self.receiver.awaited(self.frame_deadline).await;
        self.ended = !matches!(frame, Ok(Some(_)));
        match frame.transpose()? {
            Ok(bytes) => Some(decode::<Answer<T>>(&bytes).and_then(Into::into)),
            Err(error) => Some(Err(error)),
        }
    }
}
