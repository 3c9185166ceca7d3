//! Answers: the model that a miner delivered, beside the one that training again gives here.
//!
//! The miner's file is read from storage, as its client would read it; so a model that was trained well and stored badly is
//! found too. Both files are read with caps, and one answer is computed at a time, on one thread: the coordinator has other
//! things to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryptomind_core::dice::Dice;
use cryptomind_gpu::agreement::{self, Agreement};
use cryptomind_protocol::item::{DatasetInfo, ItemKind};
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::task::{ResultFile, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::{BlobId, ErrorBody};
use tokio::sync::Semaphore;

use super::question::dataset_of;
use super::{ControlArguments, Desk};
use crate::clock;
use crate::miner::train;

/// A model's file is larger than its values by this much at most, bytes: its header.
const MAX_HEADER_BYTES: u64 = 8 << 20;
const VALUE_BYTES: u64 = 4;

/// What fetching an answer may take, with its dataset.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// One at a time of each: a slow storage node holds up no computing.
static FETCHING: Semaphore = Semaphore::const_new(1);
static COMPUTING: Semaphore = Semaphore::const_new(1);

/// What the model in `file` is to the one that `spec` trains. Nothing where that cannot be said, whatever is done: rounding alone
/// leads such a training astray.
///
/// # Errors
/// Where it cannot be said now, for reasons of this side or of storage.
pub(super) async fn look_at(
    world: &ControlArguments,
    desk: &Desk,
    spec: &TaskSpec,
    file: &ResultFile,
) -> Result<Option<Agreement>, ErrorBody> {
    let Work::Train { model, train, .. } = &spec.work else {
        return Err(ErrorBody::internal("only training is asked about"));
    };
    let values = model.parameter_count().saturating_mul(VALUE_BYTES);
    if file.bytes > values.saturating_add(MAX_HEADER_BYTES) {
        return Ok(Some(Agreement::Other {
            digest: Hash::new(*file.blob.as_bytes()),
            reason: format!("{} bytes are no such model", file.bytes),
        }));
    }
    let fetched = async {
        let _one = FETCHING.acquire().await.map_err(ErrorBody::internal)?;
        let (info, files) = dataset(world, desk, spec).await?;
        Ok::<_, ErrorBody>((info, files, fetch(world, desk, file).await?))
    };
    let (info, files, answer) = tokio::time::timeout(FETCH_LIMIT, fetched)
        .await
        .map_err(|_| ErrorBody::network("storage_slow", "an answer took too long to fetch"))??;
    let _one = COMPUTING.acquire().await.map_err(ErrorBody::internal)?;
    let again = Again {
        model: model.clone(),
        train: train.clone(),
        info,
        files,
    };
    let compared = tokio::task::spawn_blocking(move || again.compare(&answer));
    compared.await.map_err(ErrorBody::internal)?
}

/// Whoever finishes a training without a model has not done it.
pub(super) fn nothing() -> Agreement {
    Agreement::Other {
        digest: Hash::of(&[]),
        reason: "there is no model among its files".into(),
    }
}

/// A training that is done again.
struct Again {
    model: ModelSpec,
    train: TrainSpec,
    info: DatasetInfo,
    files: BTreeMap<String, PathBuf>,
}

impl Again {
    fn compare(&self, answer: &[u8]) -> Result<Option<Agreement>, ErrorBody> {
        let expected = self.weights(&mut |_| ())?;
        let found = self.agreement(&expected, answer)?;
        if found.is_same() {
            return Ok(Some(found));
        }
        // Before anybody is doubted: does it depend on how a machine rounds?
        let rounded = self.weights(&mut rounding())?;
        let calm = self.agreement(&expected, &rounded)?.is_calm();
        Ok(calm.then_some(found))
    }

    fn weights(&self, round: &mut dyn FnMut(&mut [f32])) -> Result<Vec<u8>, ErrorBody> {
        let file = |name: &str| self.files.get(name).cloned().unwrap_or_default();
        train::alone(&self.model, &self.train, &self.info, &file, round)
    }

    fn agreement(&self, expected: &[u8], answer: &[u8]) -> Result<Agreement, ErrorBody> {
        Ok(agreement::compare(
            &self.model,
            &self.train,
            expected,
            answer,
        )?)
    }
}

/// Other last bits, as another order of additions has them: by some parts in 10⁷.
fn rounding() -> impl FnMut(&mut [f32]) {
    let mut dice = Dice::new(1);
    move |gradients| {
        for value in gradients {
            *value *= 1.0 + (dice.unit() as f32 - 0.5) * 1e-6;
        }
    }
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
