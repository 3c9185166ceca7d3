//! What a match names, fetched into the cache.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cryptomind_protocol::item::FileEntry;
use cryptomind_protocol::node::Match;
use cryptomind_protocol::task::ResultFile;
use cryptomind_protocol::{BlobId, ErrorBody, ErrorClass};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Context, Fault};

/// What fetching one blob may take, all tries together.
const FETCH_LIMIT: Duration = Duration::from_secs(600);
/// Between two tries at all sources.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Fetches for one place, with the newest ticket for it.
pub(super) struct Fetch {
    context: Arc<Context>,
    place: watch::Receiver<Arc<Match>>,
    /// Bytes that were not in the cache.
    pub(super) bytes: u64,
}

impl Fetch {
    pub(super) const fn new(context: Arc<Context>, place: watch::Receiver<Arc<Match>>) -> Self {
        Self {
            context,
            place,
            bytes: 0,
        }
    }

    /// Where these files lie, by name.
    pub(super) async fn files(
        &mut self,
        files: &[FileEntry],
    ) -> Result<BTreeMap<String, PathBuf>, Fault> {
        let needed: Vec<BlobId> = files.iter().map(|f| f.blob).collect();
        let mut paths = BTreeMap::new();
        for file in files {
            let blob = (file.blob, file.bytes);
            let path = self.blob(&file.name, blob, &needed).await?;
            paths.insert(file.name.clone(), path);
        }
        Ok(paths)
    }

    /// Where a stored file lies.
    pub(super) async fn file(&mut self, file: &ResultFile) -> Result<PathBuf, Fault> {
        self.blob(&file.name, (file.blob, file.bytes), &[]).await
    }

    /// Where a blob lies in the cache, fetched from the sources if it did not.
    async fn blob(
        &mut self,
        name: &str,
        (blob, bytes): (BlobId, u64),
        needed: &[BlobId],
    ) -> Result<PathBuf, Fault> {
        let (cache, keep) = (self.context.cache.clone(), needed.to_vec());
        let path = cache.path(&blob);
        let here = tokio::task::spawn_blocking(move || {
            let here = cache.has(&blob);
            if here {
                Ok(true)
            } else {
                cache.make_room(bytes, &keep).map(|()| false)
            }
        });
        if here.await.map_err(Fault::here)?.map_err(Fault::here)? {
            return Ok(path);
        }
        let deadline = Instant::now() + FETCH_LIMIT;
        loop {
            let matched = Arc::clone(&self.place.borrow());
            let transfer = &self.context.transfer;
            let got = transfer.get(&matched.sources, &matched.get_ticket, (blob, bytes), &path);
            match got.await {
                Ok(received) => {
                    self.bytes += received;
                    self.context.tell_samples();
                    return Ok(path);
                }
                Err(e) if may_pass(&e) && Instant::now() < deadline => sleep(RETRY_PAUSE).await,
                Err(e) => return Err(Fault::here(format!("{name} cannot be fetched: {e}"))),
            }
        }
    }
}

/// Whether trying again may help.
pub(in crate::miner) fn may_pass(error: &ErrorBody) -> bool {
    error.class == ErrorClass::Network || error.retry_after_ms.is_some()
}
