//! Answers: the model that a miner delivered, beside the one that training again gives here.
//!
//! The miner's file is read from storage, as its client would read it; so a model that was trained well and stored badly is
//! found too. Both files are read with caps, and one answer is computed at a time, on one thread: the coordinator has other
//! things to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cryptomind_gpu::agreement::{self, Agreement};
use cryptomind_protocol::item::{DatasetInfo, ItemKind};
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::task::{ResultFile, TaskSpec, Work};
use cryptomind_protocol::{BlobId, ErrorBody};
use tokio::sync::Semaphore;

use super::question::dataset_of;
use super::{ControlArguments, Desk};
use crate::clock;
use crate::miner::train;

/// A model's file is larger than its values by this much at most, bytes: its header.
const MAX_HEADER_BYTES: u64 = 8 << 20;
const VALUE_BYTES: u64 = 4;

/// One at a time.
static COMPUTING: Semaphore = Semaphore::const_new(1);

/// What the model in `file` is to the one that `spec` trains.
///
/// # Errors
/// Where that cannot be said now, for reasons of this side or of storage.
pub(super) async fn look_at(
    world: &ControlArguments,
    desk: &Desk,
    spec: &TaskSpec,
    file: &ResultFile,
) -> Result<Agreement, ErrorBody> {
    let Work::Train { model, train, .. } = &spec.work else {
        return Err(ErrorBody::internal("only training is asked about"));
    };
    let values = model.parameter_count().saturating_mul(VALUE_BYTES);
    if file.bytes > values.saturating_add(MAX_HEADER_BYTES) {
        return Ok(Agreement::Other {
            digest: Hash::new(*file.blob.as_bytes()),
            reason: format!("{} bytes are no such model", file.bytes),
        });
    }
    let one = COMPUTING.acquire().await.map_err(ErrorBody::internal)?;
    let (info, files) = dataset(world, desk, spec).await?;
    let answer = fetch(world, desk, file).await?;
    let (model, train) = (model.clone(), train.clone());
    let compared = tokio::task::spawn_blocking(move || {
        let file = |name: &str| files.get(name).cloned().unwrap_or_default();
        let expected = train::alone(&model, &train, &info, &file)?;
        Ok(agreement::compare(&model, &train, &expected, &answer)?)
    });
    let compared = compared.await.map_err(ErrorBody::internal)?;
    drop(one);
    compared
}

/// The task's dataset, from the cache or from storage.
async fn dataset(
    world: &ControlArguments,
    desk: &Desk,
    spec: &TaskSpec,
) -> Result<(DatasetInfo, BTreeMap<String, PathBuf>), ErrorBody> {
    let record = dataset_of(world, spec).await?;
    let ItemKind::Dataset(info) = record.manifest.kind else {
        return Err(ErrorBody::internal("the task's dataset is none"));
    };
    let needed: Vec<BlobId> = record.manifest.files.iter().map(|file| file.blob).collect();
    let mut files = BTreeMap::new();
    for file in record.manifest.files {
        let path = desk.cache.path(&file.blob);
        let (cache, blob) = (desk.cache.clone(), file.blob);
        let is_here = tokio::task::spawn_blocking(move || cache.has(&blob)).await;
        if !is_here.map_err(ErrorBody::internal)? {
            desk.cache.make_room(file.bytes, &needed)?;
            get(world, desk, (file.blob, file.bytes), &path).await?;
        }
        files.insert(file.name, path);
    }
    Ok((info, files))
}

/// The bytes of an answer. Its file is gone afterwards, whatever happens.
async fn fetch(
    world: &ControlArguments,
    desk: &Desk,
    file: &ResultFile,
) -> Result<Vec<u8>, ErrorBody> {
    let path = desk.folder.join(format!("answer-{}", file.blob));
    let fetched = get(world, desk, (file.blob, file.bytes), &path).await;
    let bytes = tokio::fs::read(&path).await;
    // Where it was never made there is nothing to remove.
    drop(tokio::fs::remove_file(&path).await);
    fetched?;
    bytes.map_err(|e| ErrorBody::internal(format!("{}: {e}", path.display())))
}

async fn get(
    world: &ControlArguments,
    desk: &Desk,
    blob: (BlobId, u64),
    path: &Path,
) -> Result<(), ErrorBody> {
    let tickets = &world.tickets;
    let ticket = tickets.get(tickets.key.public(), vec![blob.0], clock::now());
    let sources = world.links.sources();
    desk.transfer.get(&sources, &ticket, blob, path).await?;
    Ok(())
}
