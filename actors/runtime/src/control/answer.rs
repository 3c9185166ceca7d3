//! Answers: the model or the predictions that a miner delivered, beside those that computing them again gives here.
//!
//! The miner's file is read from storage, as its client would read it; so a model that was trained well and stored badly is
//! found too. Both files are read with caps, and one answer is computed at a time, on one thread: the coordinator has other
//! things to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cryptomind_core::catalog::ItemRecord;
use cryptomind_core::dice::Dice;
use cryptomind_core::price::Extent;
use cryptomind_gpu::agreement::{self, Agreement};
use cryptomind_protocol::item::{DatasetInfo, MODEL_FILE};
use cryptomind_protocol::key::Hash;
use cryptomind_protocol::model::ModelSpec;
use cryptomind_protocol::task::{ResultFile, TaskSpec, TrainSpec, Work};
use cryptomind_protocol::{BlobId, ErrorBody};
use tokio::sync::Semaphore;

use super::question::{dataset_in, materials_of, model_in};
use super::{ControlArguments, Desk};
use crate::clock;
use crate::matchmaker::Materials;
use crate::miner::infer::{self, Verdict};
use crate::miner::{Fault, train};

/// A model's file may be larger than it need be by so much, bytes: its header.
const MAX_HEADER_BYTES: u64 = 8 << 20;

/// What fetching an answer may take, with its dataset.
const FETCH_LIMIT: Duration = Duration::from_secs(120);

/// One at a time of each: a slow storage node holds up no computing.
static FETCHING: Semaphore = Semaphore::const_new(1);
static COMPUTING: Semaphore = Semaphore::const_new(1);

/// What the answer in `file` is to the one that `spec` comes to. Nothing where that cannot be said, whatever is done: rounding alone
/// leads such work astray.
///
/// # Errors
/// Where it cannot be said now, for reasons of this side or of storage.
pub(super) async fn look_at(
    world: &ControlArguments,
    desk: &Desk,
    spec: &TaskSpec,
    file: &ResultFile,
) -> Result<Option<Agreement>, ErrorBody> {
    let materials = materials_of(world, spec).await?;
    if file.bytes > most_bytes(spec, &materials)? {
        return Ok(Some(Agreement::Other {
            digest: Hash::new(*file.blob.as_bytes()),
            reason: format!("{} bytes are no such answer", file.bytes),
        }));
    }
    let fetched = async {
        let _one = FETCHING.acquire().await.map_err(ErrorBody::internal)?;
        let again = Again::of(world, desk, spec, materials).await?;
        Ok::<_, ErrorBody>((again, fetch(world, desk, file).await?))
    };
    let (again, answer) = tokio::time::timeout(FETCH_LIMIT, fetched)
        .await
        .map_err(|_| ErrorBody::network("storage_slow", "an answer took too long to fetch"))??;
    let _one = COMPUTING.acquire().await.map_err(ErrorBody::internal)?;
    let compared = tokio::task::spawn_blocking(move || again.compare(&answer));
    compared.await.map_err(ErrorBody::internal)?
}

/// More than any right answer has, bytes.
fn most_bytes(spec: &TaskSpec, materials: &Materials) -> Result<u64, ErrorBody> {
    let info = materials.dataset.as_ref().and_then(dataset_in);
    let model = materials.model.as_ref().and_then(model_in);
    let extent = Extent::of(spec, info, model)?;
    Ok(extent.result_bytes_max.saturating_add(MAX_HEADER_BYTES))
}

/// Whoever finishes without an answer has not done the work.
pub(super) fn nothing(name: &str) -> Agreement {
    Agreement::Other {
        digest: Hash::of(&[]),
        reason: format!("there is no {name} among its files"),
    }
}

/// Work that is done again.
enum Again {
    Training {
        model: ModelSpec,
        train: TrainSpec,
        info: DatasetInfo,
        files: Files,
    },
    Inference {
        plan: infer::Plan,
        files: Files,
    },
}

/// Where an item's files lie, by name.
type Files = BTreeMap<String, PathBuf>;

impl Again {
    /// Has the task's items at hand, from the cache or from storage.
    async fn of(
        world: &ControlArguments,
        desk: &Desk,
        spec: &TaskSpec,
        materials: Materials,
    ) -> Result<Self, ErrorBody> {
        let Materials { dataset, model } = materials;
        let both = dataset.iter().chain(&model);
        let needed = both.flat_map(|record| &record.manifest.files);
        let needed: Vec<BlobId> = needed.map(|file| file.blob).collect();
        let lacks = |what: &str| ErrorBody::internal(format!("the task's {what} is none"));
        let dataset = dataset.ok_or_else(|| lacks("dataset"))?;
        let info = dataset_in(&dataset).cloned();
        let info = info.ok_or_else(|| lacks("dataset"))?;
        let files = files_of(world, desk, dataset, &needed).await?;
        match (&spec.work, model) {
            (Work::Train { model, train, .. }, _) => Ok(Self::Training {
                model: model.clone(),
                train: train.clone(),
                info,
                files,
            }),
            (Work::Infer { split, .. }, Some(record)) => {
                let model = model_in(&record).cloned();
                let mut weights = files_of(world, desk, record, &needed).await?;
                let plan = infer::Plan {
                    model: model.ok_or_else(|| lacks("model"))?,
                    weights: weights.remove(MODEL_FILE).ok_or_else(|| lacks("model"))?,
                    info,
                    split: *split,
                };
                Ok(Self::Inference { plan, files })
            }
            _ => Err(lacks("model")),
        }
    }

    fn compare(&self, answer: &[u8]) -> Result<Option<Agreement>, ErrorBody> {
        match self {
            Self::Training {
                model,
                train,
                info,
                files,
            } => trained_again(model, train, info, &at(files), answer),
            Self::Inference { plan, files } => inferred_again(plan, &at(files), answer)
                .map_err(|fault| ErrorBody::internal(fault.reason)),
        }
    }
}

/// Where a file lies. One that does not is opened in vain, and that says why.
fn at(files: &Files) -> impl Fn(&str) -> PathBuf {
    |name| files.get(name).cloned().unwrap_or_default()
}

fn inferred_again(
    plan: &infer::Plan,
    file: &dyn Fn(&str) -> PathBuf,
    answer: &[u8],
) -> Result<Option<Agreement>, Fault> {
    Ok(match infer::judge(plan, file, answer, &mut rounding())? {
        Verdict::Same => Some(Agreement::Same),
        Verdict::Other(reason) => Some(Agreement::Other {
            digest: Hash::of(answer),
            reason,
        }),
        Verdict::Undecided => None,
    })
}

fn trained_again(
    model: &ModelSpec,
    train: &TrainSpec,
    info: &DatasetInfo,
    file: &dyn Fn(&str) -> PathBuf,
    answer: &[u8],
) -> Result<Option<Agreement>, ErrorBody> {
    let weights = |round: &mut dyn FnMut(&mut [f32])| train::alone(model, train, info, file, round);
    let expected = weights(&mut |_| ())?;
    let found = agreement::compare(model, train, &expected, answer)?;
    if found.is_same() {
        return Ok(Some(found));
    }
    // Before anybody is doubted: does it depend on how a machine rounds?
    let rounded = weights(&mut rounding())?;
    let calm = agreement::compare(model, train, &expected, &rounded)?.is_calm();
    Ok(calm.then_some(found))
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

/// An item's files, from the cache or from storage; none of the needed ones makes room for another.
async fn files_of(
    world: &ControlArguments,
    desk: &Desk,
    record: ItemRecord,
    needed: &[BlobId],
) -> Result<Files, ErrorBody> {
    let mut files = BTreeMap::new();
    for file in record.manifest.files {
        let path = desk.cache.path(&file.blob);
        let (cache, blob) = (desk.cache.clone(), file.blob);
        let is_here = tokio::task::spawn_blocking(move || cache.has(&blob)).await;
        if !is_here.map_err(ErrorBody::internal)? {
            desk.cache.make_room(file.bytes, needed)?;
            get(world, desk, (file.blob, file.bytes), &path).await?;
        }
        files.insert(file.name, path);
    }
    Ok(files)
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
