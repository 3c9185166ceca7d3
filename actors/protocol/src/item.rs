//! Items of the catalog: datasets and models, as manifests of content-addressed files.

use serde::{Deserialize, Serialize};

use crate::model::ModelSpec;
use crate::task::{Metrics, Split};
use crate::{AccountId, Amount, BlobId, ItemId, TaskId, Timestamp};

/// The most files in an item.
pub const MAX_FILES: usize = 64;
/// The largest file, 64 GiB.
pub const MAX_FILE_BYTES: u64 = 1 << 36;

/// Who may use an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Access {
    /// Everybody, for nothing.
    Free,
    /// Everybody, for a fee a use by a task; the owner uses it for nothing.
    Paid {
        /// What one use costs.
        fee: Amount,
    },
    /// Its owner alone.
    Owner,
}

/// A file of an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name, without folders.
    pub name: String,
    /// Its address.
    pub blob: BlobId,
    /// Its length.
    pub bytes: u64,
}

/// How a dataset's files are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DataFormat {
    /// Four IDX files, gzipped or not: images and labels of both splits, u8, divided by `scale`.
    Idx {
        /// File of the training images.
        train_images: String,
        /// File of the training labels.
        train_labels: String,
        /// File of the test images.
        test_images: String,
        /// File of the test labels.
        test_labels: String,
        /// What grey values are divided by.
        scale: f32,
    },
    /// One table: numeric columns and a column of labels. Every fifth row by a seeded shuffle is held out.
    Csv {
        /// The file.
        file: String,
        /// The column of labels.
        label: String,
        /// Seed of the shuffle that divides training from test rows.
        split_seed: u64,
    },
}

/// What is known of a dataset. A miner checks it against the files and refuses a lie.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetInfo {
    /// How its files are read.
    pub format: DataFormat,
    /// Samples for fitting.
    pub train_samples: u64,
    /// Samples held out.
    pub test_samples: u64,
    /// Shape of one sample.
    pub input: Vec<u32>,
    /// The classes' names, by label.
    pub classes: Vec<String>,
}

impl DatasetInfo {
    /// Samples of a split.
    pub const fn samples(&self, split: Split) -> u64 {
        match split {
            Split::Train => self.train_samples,
            Split::Test => self.test_samples,
        }
    }
}

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// Its graph.
    pub spec: ModelSpec,
    /// The classes' names, by output.
    pub classes: Vec<String>,
    /// The dataset that it was trained on, where it was trained here.
    pub dataset: Option<ItemId>,
    /// The task that trained it, where one did.
    pub task: Option<TaskId>,
    /// What its makers say of it.
    pub metrics: Metrics,
}

/// What an item is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ItemKind {
    /// Samples.
    Dataset(DatasetInfo),
    /// Weights; the file `model.safetensors` holds them.
    Model(ModelInfo),
}

impl ItemKind {
    /// `dataset` or `model`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dataset(_) => "dataset",
            Self::Model(_) => "model",
        }
    }
}

/// A version of an item, as its owner publishes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its name; people write `<nickname>/<name>`.
    pub name: String,
    /// What it is.
    pub kind: ItemKind,
    /// Its files.
    pub files: Vec<FileEntry>,
    /// Who may use it.
    pub access: Access,
    /// SPDX expression or a sentence.
    pub licence: String,
    /// Where it comes from, for people.
    pub source: String,
}

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct ManifestError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// Whether `name` is one path component that is safe on every system.
pub fn is_file_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.bytes().all(allowed)
}

impl Manifest {
    /// The file with this name.
    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Length of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Refuses what cannot be an item.
    pub fn check(&self) -> Result<(), ManifestError> {
        let error = |field, reason: String| Err(ManifestError { field, reason });
        if !crate::task::is_name(&self.name) {
            return error(
                "name",
                format!(
                    "`{}` is not a name",
                    self.name.chars().take(80).collect::<String>()
                ),
            );
        }
        if self.files.is_empty() || self.files.len() > MAX_FILES {
            return error(
                "files",
                format!("{} files: give 1 to {MAX_FILES}", self.files.len()),
            );
        }
        if self.licence.len() > 256 || self.source.len() > 1024 {
            return error(
                "source",
                "licence of at most 256, source of at most 1024 bytes".into(),
            );
        }
        let mut names = std::collections::BTreeSet::new();
        for file in &self.files {
            if !is_file_name(&file.name) || !names.insert(&file.name) {
                return error(
                    "files",
                    format!("`{}` is not a plain file name, or occurs twice", file.name),
                );
            }
            if file.bytes > MAX_FILE_BYTES {
                return error(
                    "files",
                    format!("`{}` exceeds {MAX_FILE_BYTES} bytes", file.name),
                );
            }
        }
        match &self.kind {
            ItemKind::Dataset(info) => self.check_dataset(info),
            ItemKind::Model(info) => match info.spec.check() {
                Ok(()) if self.file(MODEL_FILE).is_none() => {
                    error("files", format!("a model needs the file {MODEL_FILE}"))
                }
                Ok(()) => Ok(()),
                Err(e) => error("kind.model", e.to_string()),
            },
        }
    }

    fn check_dataset(&self, info: &DatasetInfo) -> Result<(), ManifestError> {
        let error = |field, reason: String| Err(ManifestError { field, reason });
        if info.train_samples == 0 || info.test_samples == 0 {
            return error(
                "kind.dataset",
                "an empty dataset: both splits need samples".into(),
            );
        }
        if info.classes.len() < 2 || info.classes.len() > 10_000 {
            return error(
                "kind.dataset",
                format!("{} classes: give 2 to 10000", info.classes.len()),
            );
        }
        if info.input.is_empty() || info.input.len() > 4 || info.input.contains(&0) {
            return error(
                "kind.dataset",
                format!("input {:?} is no shape", info.input),
            );
        }
        let needed: Vec<&str> = match &info.format {
            DataFormat::Idx {
                train_images,
                train_labels,
                test_images,
                test_labels,
                scale,
            } => {
                if !(scale.is_finite() && *scale > 0.0) {
                    return error("kind.dataset", format!("scale {scale} is not above 0"));
                }
                vec![train_images, train_labels, test_images, test_labels]
            }
            DataFormat::Csv { file, .. } => vec![file],
        };
        match needed.iter().find(|name| self.file(name).is_none()) {
            Some(name) => error("files", format!("`{name}` is missing")),
            None => Ok(()),
        }
    }
}

/// The file that holds a model's weights.
pub const MODEL_FILE: &str = "model.safetensors";
/// The file that describes a model to people.
pub const CARD_FILE: &str = "README.md";
/// The file that holds an inference's answers: one line a sample, `index,label,class,probability`.
pub const PREDICTIONS_FILE: &str = "predictions.csv";

/// An item as the catalog shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ItemView {
    /// Its id.
    pub item: ItemId,
    /// Whose it is.
    pub owner: AccountId,
    /// The owner's nickname.
    pub nickname: String,
    /// What was published.
    pub manifest: Manifest,
    /// When.
    pub published: Timestamp,
    /// How many tasks used it.
    pub uses: u64,
}

impl ItemView {
    /// `nickname/name`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.nickname, self.manifest.name)
    }
}
