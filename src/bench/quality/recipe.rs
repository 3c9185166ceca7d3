//! What is trained, on which data, and how good it must become.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cryptomind_gpu::dataset::{DataError, inspect_idx, inspect_text};
use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::{DatasetInfo, TextLevel};
use cryptomind_protocol::model::{Gpt, ModelSpec};
use cryptomind_protocol::task::{DecayGroup, Optimizer, Schedule, TrainSpec};

/// Tokens of a sample of the language model, and of its vocabulary's file the share that is held out, as nanoGPT has
/// them.
const CONTEXT: u32 = 64;
const HELD_OUT_PPM: u32 = 100_000;
const TEXT_STEPS: u32 = 2_000;

/// What must be reached on held-out samples.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bar {
    /// Accuracy, at least.
    Accuracy(f64),
    /// Loss, nats a token, at most.
    Loss(f64),
}

/// A model, its data and its recipe.
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// Within the folder of data.
    pub(super) data: &'static str,
    pub(super) bar: Bar,
    epochs: u32,
    batch: u32,
    /// Whether a seed after the first is worth its time.
    pub(super) is_quick: bool,
}

pub(super) const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "digits-mlp",
        data: "digits",
        bar: Bar::Accuracy(0.975),
        epochs: 30,
        batch: 32,
        is_quick: true,
    },
    Recipe {
        name: "mnist10k-mlp",
        data: "mnist10k",
        bar: Bar::Accuracy(0.94),
        epochs: 5,
        batch: 128,
        is_quick: true,
    },
    Recipe {
        name: "mnist10k-cnn",
        data: "mnist10k",
        bar: Bar::Accuracy(0.96),
        epochs: 3,
        batch: 64,
        is_quick: true,
    },
    Recipe {
        name: "tinyshakespeare-gpt",
        data: "tinyshakespeare/input.txt",
        bar: Bar::Loss(1.95),
        epochs: 100,
        batch: 12,
        is_quick: false,
    },
];

/// A recipe's files.
pub(super) struct Data {
    pub(super) info: DatasetInfo,
    /// Where they lie, by name.
    pub(super) files: BTreeMap<String, PathBuf>,
}

fn inspect(path: &Path) -> Result<(DatasetInfo, Vec<PathBuf>), DataError> {
    if path.is_dir() || path.extension().is_none() {
        return inspect_idx(path);
    }
    let (info, file) = inspect_text(path, CONTEXT, TextLevel::Character, HELD_OUT_PPM)?;
    Ok((info, vec![file]))
}

impl Recipe {
    /// Finds its files below this folder.
    pub(super) fn find(&self, folder: &Path) -> Result<Data, ErrorBody> {
        let path = folder.join(self.data);
        let (info, paths) = inspect(&path).map_err(|error| {
            ErrorBody::user("data_missing", format!("{}: {error}", path.display()))
                .with_help("--data names a folder with digits/, mnist10k/ and tinyshakespeare/")
        })?;
        let names = info.format.files().into_iter().map(str::to_owned);
        let files = names.zip(paths).collect();
        Ok(Data { info, files })
    }

    /// At most so many steps; by default all of its epochs.
    pub(super) fn most_steps(&self) -> Option<u64> {
        matches!(self.bar, Bar::Loss(_)).then_some(TEXT_STEPS.into())
    }

    /// Model and hyper-parameters.
    pub(super) fn plan(&self, info: &DatasetInfo, seed: u64) -> (ModelSpec, TrainSpec) {
        let (input, classes) = (info.input.clone(), info.classes.len() as u32);
        let train = TrainSpec {
            epochs: self.epochs,
            global_batch: self.batch,
            seed,
            ..TrainSpec::default()
        };
        match self.name {
            "digits-mlp" => (ModelSpec::mlp(input, &[64], classes), train),
            "mnist10k-mlp" => (ModelSpec::mlp(input, &[512, 512], classes), train),
            "mnist10k-cnn" => (ModelSpec::cnn(input, &[32, 64], 128, classes), train),
            _ => (gpt(classes), text_recipe(train)),
        }
    }
}

/// The shapes of nanoGPT's recipe for processors.
fn gpt(vocabulary: u32) -> ModelSpec {
    ModelSpec::gpt(Gpt {
        vocabulary,
        context: CONTEXT,
        width: 128,
        heads: 4,
        blocks: 4,
        dropout_ppm: 0,
    })
}

/// Its optimizer, which decays matrices alone, clips, and lets the rate fall by half a cosine.
fn text_recipe(train: TrainSpec) -> TrainSpec {
    TrainSpec {
        optimizer: Optimizer::Adamw {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.1,
        },
        clip_norm: Some(1.0),
        schedule: Schedule::Cosine {
            warmup_steps: 100,
            decay_steps: TEXT_STEPS,
            min_lr: 1e-4,
        },
        decay: DecayGroup::Matrices,
        ..train
    }
}

impl Bar {
    /// What has to be reached, and whether it is.
    pub(super) fn judge(self, loss: f64, accuracy: Option<f64>) -> (f64, bool) {
        match self {
            Self::Accuracy(bar) => (bar, accuracy.is_some_and(|got| got >= bar)),
            Self::Loss(bar) => (bar, loss <= bar),
        }
    }
}
