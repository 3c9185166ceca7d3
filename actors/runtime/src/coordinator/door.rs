//! The door: a task a connection, a task a request, and a permit for each, so that memory is bounded.

use std::future::Future;
use std::sync::Arc;

use cryptomind_net::{Connection, Endpoint, Exchange, Pending};
use cryptomind_protocol::frame::ALPN_NODE;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Office, api, nodes};

/// The right to work on a request. What lasts, such as a watch, gives it back before it begins.
pub(super) type Permit = tokio::sync::OwnedSemaphorePermit;

/// Requests that are worked on at once, over all connections. Streams beyond wait at their senders.
const MAX_REQUESTS: usize = 1024;

/// Lets callers in until the endpoint is closed.
pub(super) async fn open(endpoint: Endpoint, office: Arc<Office>) {
    let permits = Arc::new(Semaphore::new(MAX_REQUESTS));
    let mut visits = JoinSet::new();
    while let Some(pending) = endpoint.accept().await {
        visits.spawn(admit(pending, Arc::clone(&office), Arc::clone(&permits)));
        while visits.try_join_next().is_some() {}
    }
    while visits.join_next().await.is_some() {}
}

async fn admit(pending: Pending, office: Arc<Office>, permits: Arc<Semaphore>) {
    let remote = pending.remote();
    match pending.establish().await {
        Ok(connection) if connection.alpn() == ALPN_NODE => {
            serve(connection, permits, |c, e, p| {
                nodes::answer(Arc::clone(&office), c, e, p)
            })
            .await;
        }
        Ok(connection) => {
            serve(connection, permits, |c, e, p| {
                api::answer(Arc::clone(&office), c, e, p)
            })
            .await;
        }
        Err(error) => tracing::debug!(%remote, %error, "a caller was not let in"),
    }
}

/// Answers a connection's requests, each on a task of its own.
async fn serve<F>(
    connection: Connection,
    permits: Arc<Semaphore>,
    answer: impl Fn(Connection, Exchange, Permit) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut requests = JoinSet::new();
    // One request a connection may wait for its permit; QUIC holds back the rest.
    while let Some(exchange) = connection.accept_request().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            break;
        };
        requests.spawn(answer(connection.clone(), exchange, permit));
        while requests.try_join_next().is_some() {}
    }
    // What was asked is still decided; only the answers find nobody.
    requests.detach_all();
}
