//! The thread on which a ring socket and its rings live: packets, pings and sums, and nothing else.
//!
//! A runtime of one thread of its own: whoever computes cannot keep pings from being answered, and packets wait for no other
//! thread's locks. It ends when the socket and all its rings are dropped, once peers were told.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use cryptomind_protocol::ErrorBody;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::endpoint::Endpoint;

/// The thread's end waits for this long at most until peers were told.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);

/// Keeps the thread alive. Clones are the same one.
#[derive(Clone)]
pub(super) struct Home(Arc<Inner>);

struct Inner {
    handle: Handle,
    endpoint: Endpoint,
    /// Dropped with the rest, which the thread waits for.
    _end: oneshot::Sender<()>,
}

impl Home {
    /// Starts the thread with an endpoint that is made on it.
    pub(super) fn start(
        endpoint: impl FnOnce() -> Result<Endpoint, ErrorBody> + Send + 'static,
    ) -> Result<Self, ErrorBody> {
        keep_freed_memory();
        let (made, making) = mpsc::sync_channel(1);
        let (end, ended) = oneshot::channel::<()>();
        // The runtime is made and dropped on its own thread: a caller's is no place to wait for another one's end.
        let live = move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(made.send(Err(ErrorBody::internal(error)))),
            };
            let last = match runtime.block_on(async { endpoint() }) {
                Ok(endpoint) => endpoint,
                Err(error) => return drop(made.send(Err(error))),
            };
            // Fails where nobody waits any more: then the end is there already.
            let _ = made.send(Ok((runtime.handle().clone(), last.clone())));
            runtime.block_on(async {
                // An error says that the other end is gone.
                let _ = ended.await;
                last.idle(FAREWELL_LIMIT).await;
            });
        };
        let thread = std::thread::Builder::new().name("ring".into());
        thread.spawn(live).map_err(ErrorBody::internal)?;
        // It takes as long as binding a socket.
        let (handle, endpoint) = making.recv().map_err(ErrorBody::internal)??;
        Ok(Self(Arc::new(Inner {
            handle,
            endpoint,
            _end: end,
        })))
    }

    /// To start work on the thread.
    pub(super) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }
}

/// Has glibc keep what is freed, up to 32 MiB: packets are taken and freed by the batch, and their pages would go to the
/// system and come back cleared each time, which costs a quarter of the throughput and more. Its limits follow the largest block
/// that was ever freed (mallopt(3), "dynamic mmap threshold"); other allocators are not told anything.
fn keep_freed_memory() {
    const BYTES: usize = 16 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(BYTES)));
}
