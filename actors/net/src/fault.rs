//! Trouble on a connection, told as [`ErrorBody`]: what happened, whose fault, whether a retry helps.

use std::future::Future;
use std::time::Duration;

use cryptomind_protocol::frame::FrameTooLarge;
use cryptomind_protocol::{ErrorBody, ErrorClass, NodeAddress};
use quinn::{ConnectionError, ReadError, TransportErrorCode, WriteError};

use crate::close::{Close, readable};

/// TLS alert `no_application_protocol` (RFC 7301).
const ALERT_NO_PROTOCOL: u8 = 120;

/// Runs `work` for at most `limit`; `what` completes the sentence "… did not come within".
pub(crate) async fn within<T, E: Into<ErrorBody>>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ErrorBody> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(timeout(limit, what)),
    }
}

pub(crate) fn timeout(limit: Duration, what: &str) -> ErrorBody {
    let ms = limit.as_millis();
    ErrorBody::network("timeout", format!("{what} did not come within {ms} ms"))
        .with_retry_after_ms(1_000)
}

/// The connection is gone.
pub(crate) fn lost(error: &ConnectionError) -> ErrorBody {
    match error {
        ConnectionError::ApplicationClosed(close) => Close::from_code(close.error_code)
            .filter(|known| *known != Close::Done)
            .map_or_else(|| closed(&readable(&close.reason)), Close::error),
        ConnectionError::ConnectionClosed(close) => by_transport(close.error_code, error),
        ConnectionError::TransportError(e) => by_transport(e.code, error),
        ConnectionError::LocallyClosed => ErrorBody::network(
            "connection_closed",
            "this side closed the connection; connect again",
        ),
        ConnectionError::TimedOut => connection_lost("the peer fell silent"),
        other => connection_lost(&other.to_string()),
    }
}

fn closed(reason: &str) -> ErrorBody {
    let message = format!("the peer closed the connection: {reason}");
    ErrorBody::network("connection_closed", message).with_retry_after_ms(1_000)
}

fn connection_lost(reason: &str) -> ErrorBody {
    let message = format!("the connection was lost: {}", readable(reason.as_bytes()));
    ErrorBody::network("connection_lost", message).with_retry_after_ms(1_000)
}

fn by_transport(code: TransportErrorCode, error: &ConnectionError) -> ErrorBody {
    if code == TransportErrorCode::crypto(ALERT_NO_PROTOCOL) {
        ErrorBody::network("wrong_protocol", "the peer does not speak this protocol")
            .with_help("check the port, and that both sides are of the same version of cryptomind")
    } else if code == TransportErrorCode::CONNECTION_REFUSED {
        Close::Busy.error()
    } else {
        connection_lost(&error.to_string())
    }
}

/// Nobody answers at an address.
pub(crate) fn unreachable(to: &NodeAddress, reason: &str) -> ErrorBody {
    let message = format!(
        "{} does not answer: {}",
        to.socket(),
        readable(reason.as_bytes())
    );
    ErrorBody::network("unreachable", message)
        .with_help("check that the node runs, its address and UDP port, and firewalls on the way")
        .with_retry_after_ms(1_000)
}

/// A connection that broke before it was one.
pub(crate) fn not_reached(to: &NodeAddress, error: &ConnectionError) -> ErrorBody {
    let known = lost(error);
    if known.code == "connection_lost" {
        unreachable(to, &error.to_string())
    } else {
        known
    }
}

pub(crate) fn read(error: &ReadError) -> ErrorBody {
    match error {
        ReadError::ConnectionLost(e) => lost(e),
        ReadError::Reset(_) => ErrorBody::network(
            "stream_reset",
            "the peer broke off in the middle of its answer",
        )
        .with_retry_after_ms(1_000),
        other => ErrorBody::internal(format!("reading a stream: {other}")),
    }
}

pub(crate) fn write(error: &WriteError) -> ErrorBody {
    match error {
        WriteError::ConnectionLost(e) => lost(e),
        WriteError::Stopped(_) => ErrorBody::network(
            "stream_stopped",
            "the peer does not want the rest of this stream",
        ),
        other => ErrorBody::internal(format!("writing a stream: {other}")),
    }
}

pub(crate) fn too_large(error: FrameTooLarge) -> ErrorBody {
    ErrorBody::user("frame_too_large", error).with_help("bytes travel as blobs, never in a frame")
}

pub(crate) fn cut_short() -> ErrorBody {
    ErrorBody::new(
        ErrorClass::Network,
        "cut_short",
        "the stream ended in the middle of a frame",
    )
}
