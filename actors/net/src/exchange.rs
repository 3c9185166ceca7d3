//! A received request, with the stream on which to answer it.

use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::error::Answer;
use cryptomind_protocol::frame::MAX_FRAME;
use cryptomind_protocol::{ErrorBody, codec};
use quinn::{RecvStream, SendStream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::connection::Shared;
use crate::fault;
use crate::stream::{self, FrameReader, Receiver, Sender};

/// A stream whose first frame has come. It does not keep the connection open.
pub(crate) struct Arrived {
    send: SendStream,
    reader: FrameReader,
    request: Vec<u8>,
}

/// Reads a stream's first frame. What is no frame is answered here, and yields nothing.
pub(crate) async fn arrive(
    mut send: SendStream,
    receive: RecvStream,
    deadline: Duration,
) -> Option<Arrived> {
    let mut reader = FrameReader::new(receive, MAX_FRAME);
    match fault::within(deadline, "the request", reader.next()).await {
        Ok(Some(request)) => Some(Arrived {
            send,
            reader,
            request,
        }),
        Ok(None) => refuse(&mut send, empty(), deadline).await,
        Err(error) => refuse(&mut send, as_request_error(error), deadline).await,
    }
}

async fn refuse(send: &mut SendStream, error: ErrorBody, deadline: Duration) -> Option<Arrived> {
    tracing::debug!(%error, "a request was refused unread");
    write_answer(send, &Answer::<()>::Error(error), deadline).await;
    None
}

fn empty() -> ErrorBody {
    ErrorBody::user(
        "malformed_request",
        "the stream ended before a request came",
    )
}

/// A request that breaks off is malformed; one that is too slow or too large keeps its name.
fn as_request_error(error: ErrorBody) -> ErrorBody {
    match error.code.as_str() {
        "cut_short" => ErrorBody::user("malformed_request", error.message),
        "timeout" => ErrorBody::user("request_timeout", error.message),
        _ => error,
    }
}

async fn write_answer<T: Serialize>(send: &mut SendStream, answer: &Answer<T>, deadline: Duration) {
    let frame = stream::encode(answer).or_else(|e| stream::encode(&Answer::<()>::Error(e)));
    let sent = match frame {
        Ok(frame) => stream::write(send, &frame, deadline).await,
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer did not reach its caller");
    }
    let _ = send.finish();
}

/// A received request and its stream. Dropping it unanswered ends the stream, which the caller reads as an error.
pub struct Exchange {
    arrived: Arrived,
    connection: Arc<Shared>,
}

/// What every request has.
#[derive(Deserialize)]
struct Named {
    method: String,
}

impl Exchange {
    pub(crate) const fn new(arrived: Arrived, connection: Arc<Shared>) -> Self {
        Self {
            arrived,
            connection,
        }
    }

    /// Reads the request.
    ///
    /// # Errors
    /// `malformed_request` where it is no such message, `unknown_method` where its method is none of `methods`;
    /// both are the caller's fault. Hand them to [`Exchange::answer`].
    pub fn decode<Q: DeserializeOwned>(&self, methods: &[&str]) -> Result<Q, ErrorBody> {
        let malformed = |e| {
            ErrorBody::user(
                "malformed_request",
                format!("the request is malformed: {e}"),
            )
        };
        let named: Named = codec::decode(&self.arrived.request).map_err(malformed)?;
        if !methods.contains(&named.method.as_str()) {
            return Err(unknown(&named.method, methods));
        }
        codec::decode(&self.arrived.request).map_err(malformed)
    }

    /// Answers with one frame and ends the stream. A caller that is gone is none of the answerer's business;
    /// an answer that does not fit a frame becomes the error `internal`.
    pub async fn answer<T: Serialize>(mut self, result: Result<T, ErrorBody>) {
        let deadline = self.connection.frame_deadline;
        write_answer(&mut self.arrived.send, &Answer::from(result), deadline).await;
    }

    /// The two halves of the stream, for watches and bytes; what is received begins after the request.
    pub fn into_stream(self) -> (Sender, Receiver) {
        (
            Sender::new(self.arrived.send, self.connection.clone()),
            Receiver::new(self.arrived.reader, self.connection),
        )
    }
}

fn unknown(method: &str, methods: &[&str]) -> ErrorBody {
    let method: String = method.chars().take(60).collect();
    ErrorBody::user(
        "unknown_method",
        format!("there is no method `{method}` here"),
    )
    .with_help(format!("the methods are {}", methods.join(", ")))
}
