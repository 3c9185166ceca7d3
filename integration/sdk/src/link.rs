//! The one connection to the coordinator: dialled when needed, dialled again when lost.
//!
//! Owned by [`crate::Client`]; every request and every watch passes here. At most one dial runs at
//! a time: others wait for its connection. A connection that failed a request is dropped once,
//! whoever notices first.

use std::time::Duration;

use cryptomind_net::samples::Samples;
use cryptomind_net::{Connection, Endpoint, Subscription};
use cryptomind_protocol::api::Request;
use cryptomind_protocol::frame::ALPN_API;
use cryptomind_protocol::{ErrorBody, NodeAddress, SecretKey};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::retry::Retry;

/// How long a client waits for what.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For the very first connection, tries included.
    pub connect: Duration,
    /// For one answer.
    pub request: Duration,
    /// For a request with all its tries, over lost connections.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(6),
            request: Duration::from_secs(10),
            patience: Duration::from_secs(60),
        }
    }
}

/// The present connection and how many there were before it.
#[derive(Default)]
struct Current {
    generation: u64,
    connection: Option<Connection>,
}

pub(crate) struct Link {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: NodeAddress,
    pub(crate) key: SecretKey,
    pub(crate) limits: Limits,
    /// What transfers showed of ways to storage nodes, until it is told.
    pub(crate) samples: Samples,
    current: Mutex<Current>,
}

impl Link {
    pub(crate) fn new(
        address: NodeAddress,
        key: SecretKey,
        limits: Limits,
    ) -> Result<Self, ErrorBody> {
        Ok(Self {
            endpoint: Endpoint::dialler()?,
            address,
            key,
            limits,
            samples: Samples::default(),
            current: Mutex::default(),
        })
    }

    /// The present connection, or a new one.
    pub(crate) async fn connection(&self) -> Result<(u64, Connection), ErrorBody> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((current.generation, connection.clone()));
        }
        let connection = self.dial().await?;
        current.generation += 1;
        current.connection = Some(connection.clone());
        Ok((current.generation, connection))
    }

    async fn dial(&self) -> Result<Connection, ErrorBody> {
        self.endpoint.dial(&self.address, ALPN_API, &self.key).await
    }

    /// Forgets connection `generation`: it failed.
    pub(crate) async fn drop_connection(&self, generation: u64) {
        let mut current = self.current.lock().await;
        if current.generation == generation
            && let Some(connection) = current.connection.take()
        {
            connection.close("the client dials again");
        }
    }

    /// Dials until the first connection stands or [`Limits::connect`] is over.
    pub(crate) async fn first(&self) -> Result<Connection, ErrorBody> {
        let limit = self.limits.connect;
        tokio::time::timeout(limit, self.dial_until_it_stands())
            .await
            .unwrap_or_else(|_| {
                let (address, ms) = (&self.address, limit.as_millis());
                let message = format!("{} does not answer within {ms} ms", address.socket());
                Err(ErrorBody::network("unreachable", message).with_help(
                    "check that the node runs, its address and UDP port, and firewalls on the way",
                ))
            })
    }

    async fn dial_until_it_stands(&self) -> Result<Connection, ErrorBody> {
        let mut retry = Retry::new(self.limits.connect);
        loop {
            match self.connection().await {
                Ok((_, connection)) => return Ok(connection),
                Err(error) => retry.pause(error).await?,
            }
        }
    }

    /// One answer, over as many connections as it takes.
    pub(crate) async fn request<A: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<A, ErrorBody> {
        let mut retry = Retry::new(self.limits.patience);
        loop {
            match self.attempt(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => retry.pause(error).await?,
            }
        }
    }

    async fn attempt<A: DeserializeOwned>(&self, request: &Request) -> Result<A, ErrorBody> {
        let (generation, connection) = self.connection().await?;
        let answer = connection.request(request, self.limits.request).await;
        self.drop_if_broken(generation, &answer).await;
        answer
    }

    /// A stream of answers over the present or a new connection; not tried again here.
    pub(crate) async fn subscribe(
        &self,
        request: &Request,
    ) -> Result<(u64, Subscription), ErrorBody> {
        let (generation, connection) = self.connection().await?;
        let opened = connection.subscribe(request).await;
        self.drop_if_broken(generation, &opened).await;
        opened.map(|subscription| (generation, subscription))
    }

    async fn drop_if_broken<T>(&self, generation: u64, answer: &Result<T, ErrorBody>) {
        if let Err(error) = answer
            && error.class == cryptomind_protocol::ErrorClass::Network
        {
            self.drop_connection(generation).await;
        }
    }

    /// Says goodbye to the coordinator.
    pub(crate) async fn close(&self) {
        self.endpoint.close("the client is done").await;
    }
}
