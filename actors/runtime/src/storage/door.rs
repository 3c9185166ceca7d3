//! The blobs' door: who has a ticket may read or store what it names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cryptomind_net::samples::Metered;
use cryptomind_net::{Connection, Endpoint, Exchange, bulk};
use cryptomind_protocol::blob::{HasOk, METHODS, Request, Right, Ticket};
use cryptomind_protocol::error::Answer;
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::node::Ack;
use cryptomind_protocol::transaction::StoredReceipt;
use cryptomind_protocol::{BlobId, ErrorBody, Signed, Timestamp};
use cryptomind_storage::StoreError;
use cryptomind_storage::blobs::{BlobWriter, StoredBlob};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Keep;
use crate::clock;

/// Transfers at once, over all connections. Streams beyond wait at their senders.
const MAX_TRANSFERS: usize = 128;

/// How much each put ticket has been used for. Losing this at a restart only grants a ticket anew.
#[derive(Default)]
pub(crate) struct Quotas(Mutex<BTreeMap<Hash, (u64, Timestamp)>>);

impl Quotas {
    fn take(
        &self,
        ticket: &Signed,
        right: u64,
        bytes: u64,
        ends: Timestamp,
    ) -> Result<(), ErrorBody> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        used.retain(|_, (_, ends)| *ends > now);
        let (taken, _) = used.entry(Hash::of(&ticket.payload)).or_insert((0, ends));
        let after = taken.saturating_add(bytes);
        if after > right {
            let message = format!("the ticket is for {right} bytes, {taken} of them are used");
            return Err(ErrorBody::auth("ticket_used_up", message));
        }
        *taken = after;
        Ok(())
    }
}

/// Serves blobs until the endpoint is closed.
pub(super) async fn open(endpoint: Endpoint, keep: Arc<Keep>) {
    let permits = Arc::new(Semaphore::new(MAX_TRANSFERS));
    let mut visits = JoinSet::new();
    while let Some(pending) = endpoint.accept().await {
        let (keep, permits) = (Arc::clone(&keep), Arc::clone(&permits));
        visits.spawn(async move {
            match pending.establish().await {
                Ok(connection) => serve(connection, keep, permits).await,
                Err(error) => tracing::debug!(%error, "a caller was not let in"),
            }
        });
        while visits.try_join_next().is_some() {}
    }
}

async fn serve(connection: Connection, keep: Arc<Keep>, permits: Arc<Semaphore>) {
    let mut transfers = JoinSet::new();
    while let Some(exchange) = connection.accept_request().await {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            break;
        };
        let (keep, connection) = (Arc::clone(&keep), connection.clone());
        transfers.spawn(async move {
            keep.answer(&connection, exchange).await;
            drop(permit);
        });
        while transfers.try_join_next().is_some() {}
    }
}

impl Keep {
    async fn answer(&self, connection: &Connection, exchange: Exchange) {
        match exchange.decode::<Request>(&METHODS) {
            Ok(Request::Has { blob, ticket }) => {
                exchange
                    .answer(self.has(connection, blob, &ticket).await)
                    .await;
            }
            Ok(Request::Get {
                blob,
                first_chunk,
                ticket,
            }) => {
                self.get(connection, exchange, blob, first_chunk, &ticket)
                    .await;
            }
            Ok(Request::Put {
                blob,
                bytes,
                ticket,
            }) => {
                self.put(connection, exchange, blob, bytes, &ticket).await;
            }
            Err(refusal) => exchange.answer(Err::<Ack, _>(refusal)).await,
        }
    }

    /// What a ticket allows its bearer, who must be the caller.
    fn right(&self, connection: &Connection, ticket: &Signed) -> Result<Ticket, ErrorBody> {
        let refuse = |message: &str| {
            Err(ErrorBody::auth("bad_ticket", message)
                .with_help("ask the coordinator for a fresh one: blob.locate or blob.place"))
        };
        if ticket.signer != self.coordinator {
            return refuse("the ticket is not this coordinator's");
        }
        let Ok(read) = ticket.verify::<Ticket>(&self.network) else {
            return refuse("the ticket's signature does not fit");
        };
        if read.bearer != connection.peer() {
            return refuse("the ticket is for another caller");
        }
        if read.expires <= clock::now() {
            return refuse("the ticket has expired");
        }
        Ok(read)
    }

    fn readable(
        &self,
        connection: &Connection,
        blob: &BlobId,
        ticket: &Signed,
    ) -> Result<(), ErrorBody> {
        match self.right(connection, ticket)?.right {
            Right::Get { blobs } if blobs.contains(blob) => Ok(()),
            _ => Err(ErrorBody::auth(
                "bad_ticket",
                "the ticket is not for reading this blob",
            )),
        }
    }

    async fn has(
        &self,
        connection: &Connection,
        blob: BlobId,
        ticket: &Signed,
    ) -> Result<HasOk, ErrorBody> {
        // Whoever may store may ask whether that is needed.
        self.right(connection, ticket)?;
        let store = self.store.clone();
        let bytes = blocking(move || store.has(&blob)).await?;
        Ok(HasOk {
            present: bytes.is_some(),
            bytes: bytes.unwrap_or(0),
        })
    }

    async fn get(
        &self,
        connection: &Connection,
        exchange: Exchange,
        blob: BlobId,
        first_chunk: u64,
        ticket: &Signed,
    ) {
        let opened = match self.readable(connection, &blob, ticket) {
            Ok(()) => self.reader(blob).await,
            Err(refusal) => Err(refusal),
        };
        let stored = match opened {
            Ok(stored) => stored,
            Err(refusal) => return exchange.answer(Err::<Ack, _>(refusal)).await,
        };
        let (mut sender, _) = exchange.into_stream();
        let mut reading = Metered::new(Reading(stored));
        match bulk::serve_get(&mut sender, first_chunk, &mut reading).await {
            // A caller that left after its last byte has all it wanted.
            Ok(()) => {
                sender.finish_and_wait().await;
                let (bytes, took) = (reading.bytes, reading.took());
                self.samples.add(connection, bytes, took);
            }
            Err(error) => tracing::info!(%blob, %error, "a download broke off"),
        }
    }

    async fn reader(&self, blob: BlobId) -> Result<StoredBlob, ErrorBody> {
        let store = self.store.clone();
        blocking(move || store.reader(&blob)).await?.ok_or_else(|| {
            ErrorBody::not_found("blob", format!("{blob} is not stored here"))
                .with_help("try another source, or store it again")
        })
    }

    async fn put(
        &self,
        connection: &Connection,
        exchange: Exchange,
        blob: BlobId,
        bytes: u64,
        ticket: &Signed,
    ) {
        let writer = match self.room(connection, blob, bytes, ticket).await {
            Ok(writer) => writer,
            Err(refusal) => return exchange.answer(Err::<Ack, _>(refusal)).await,
        };
        let (mut sender, mut receiver) = exchange.into_stream();
        let first = writer.first_missing_chunk();
        let mut sink = Metered::new(Writing(writer));
        let received = bulk::serve_put(&mut sender, &mut receiver, bytes, first, &mut sink).await;
        let receipt = match received {
            Ok(()) => {
                self.samples.add(connection, sink.bytes, sink.took());
                blocking(move || sink.inner.0.finish()).await
            }
            Err(error) => Err(error),
        };
        let receipt = receipt.map(|()| StoredReceipt::sign(blob, bytes, clock::now(), &self.key));
        if let Err(error) = &receipt {
            tracing::info!(%blob, %error, "an upload broke off");
        }
        // A caller that is gone puts it again and finds it here.
        if sender.frame(&Answer::from(receipt)).await.is_ok() {
            drop(sender.finish().await);
        }
    }

    async fn room(
        &self,
        connection: &Connection,
        blob: BlobId,
        bytes: u64,
        ticket: &Signed,
    ) -> Result<BlobWriter, ErrorBody> {
        let read = self.right(connection, ticket)?;
        let Right::Put { max_bytes } = read.right else {
            return Err(ErrorBody::auth(
                "bad_ticket",
                "the ticket is not for storing",
            ));
        };
        self.quotas.take(ticket, max_bytes, bytes, read.expires)?;
        let store = self.store.clone();
        blocking(move || store.writer(blob, bytes)).await
    }
}

/// Disk work that may take a while goes to a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, ErrorBody> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .map_err(ErrorBody::internal)?;
    done.map_err(ErrorBody::from)
}

struct Reading(StoredBlob);

impl bulk::Origin for Reading {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn hashes(&self) -> Vec<[u8; 32]> {
        self.0.tree().chunks().to_vec()
    }

    fn chunk(&mut self, index: u64) -> Result<Vec<u8>, ErrorBody> {
        Ok(self.0.chunk(index)?)
    }
}

struct Writing(BlobWriter);

impl bulk::Sink for Writing {
    fn begin(&mut self, _: u64, hashes: Vec<[u8; 32]>) -> Result<(), ErrorBody> {
        Ok(self.0.begin(hashes)?)
    }

    fn chunk(&mut self, index: u64, data: &[u8]) -> Result<(), ErrorBody> {
        Ok(self.0.chunk(index, data)?)
    }
}
