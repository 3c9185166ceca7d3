//! Items of the catalog: datasets and models, as manifests of content-addressed files.

use serde::{Deserialize, Serialize};

use crate::model::ModelSpec;
use crate::task::{Metrics, Split};
use crate::{AccountId, Amount, BlobId, ItemId, TaskId, Timestamp};

/// The most files in an item.
pub const MAX_FILES: usize = 64;
/// The largest file, 64 GiB.
pub const MAX_FILE_BYTES: u64 = 1 << 36;

/// The most classes, or values that are predicted.
pub const MAX_OUTPUTS: usize = 10_000;
const MILLION: u32 = 1_000_000;
/// Values of a byte.
const BYTES: usize = 256;

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
    /// One table: numeric columns, and a column of labels or columns of numbers to predict. Every fifth row by a seeded
    /// shuffle is held out.
    Csv {
        /// The file.
        file: String,
        /// The column of labels; empty where there are `targets`.
        label: String,
        /// Seed of the shuffle that divides training from test rows.
        split_seed: u64,
        /// The columns that are predicted, as [`DatasetInfo::values`] names them; none where there is a `label`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        targets: Vec<String>,
    },
    /// One text. A sample is a window of so many tokens as [`DatasetInfo::input`] says, one after the other without
    /// overlap; its labels are the token after each. The end of the text is held out, as it lies.
    Text {
        /// The file.
        file: String,
        /// What a token is.
        level: TextLevel,
        /// Share of the tokens that is held out, millionths: above 0, below a million.
        held_out_ppm: u32,
    },
    /// Two safetensors files. Each has `inputs` (samples × the shape of one, F32 or U8) and either `labels` (samples;
    /// I64, I32, U32 or U8) or `targets` (samples × values, F32). They are taken as they are.
    Safetensors {
        /// File of the training samples.
        train: String,
        /// File of the samples held out.
        test: String,
    },
}

impl DataFormat {
    /// Names of its files.
    pub fn files(&self) -> Vec<&str> {
        match self {
            Self::Idx {
                train_images,
                train_labels,
                test_images,
                test_labels,
                ..
            } => vec![train_images, train_labels, test_images, test_labels],
            Self::Csv { file, .. } | Self::Text { file, .. } => vec![file],
            Self::Safetensors { train, test } => vec![train, test],
        }
    }
}

/// What a token of a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextLevel {
    /// A character of UTF-8; the classes are those of the text, by code point.
    Character,
    /// A byte of any file; the classes are all 256.
    Byte,
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
    /// The classes' names, by label; of a text its tokens. None where numbers are predicted.
    pub classes: Vec<String>,
    /// Names of the numbers that are predicted; none where there are classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl DatasetInfo {
    /// Outputs that a model for it has, of a text those for each token: one a class, or one a value that is predicted.
    pub const fn outputs(&self) -> usize {
        match self.classes.len() {
            0 => self.values.len(),
            classes => classes,
        }
    }

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
        if let Err(reason) = check_outputs(info) {
            return error("kind.dataset", reason);
        }
        if info.input.is_empty() || info.input.len() > 4 || info.input.contains(&0) {
            return error(
                "kind.dataset",
                format!("input {:?} is no shape", info.input),
            );
        }
        if let Err(reason) = check_format(info) {
            return error("kind.dataset", reason);
        }
        let needed = info.format.files();
        match needed.iter().find(|name| self.file(name).is_none()) {
            Some(name) => error("files", format!("`{name}` is missing")),
            None => Ok(()),
        }
    }
}

/// Refuses what has neither classes nor values, both, or too many.
fn check_outputs(info: &DatasetInfo) -> Result<(), String> {
    let (classes, values) = (info.classes.len(), info.values.len());
    match (classes, values) {
        (0, 1..=MAX_OUTPUTS) | (2..=MAX_OUTPUTS, 0) => Ok(()),
        (0, 1..) => Err(format!("{values} values: give 1 to {MAX_OUTPUTS}")),
        (1.., 1..) => Err(format!(
            "{classes} classes and {values} values: give one kind"
        )),
        _ => Err(format!("{classes} classes: give 2 to {MAX_OUTPUTS}")),
    }
}

/// Refuses what a format cannot give.
fn check_format(info: &DatasetInfo) -> Result<(), String> {
    match &info.format {
        DataFormat::Idx { scale, .. } if !(scale.is_finite() && *scale > 0.0) => {
            Err(format!("scale {scale} is not above 0"))
        }
        DataFormat::Idx { .. } if info.classes.is_empty() => {
            Err("images have classes, no values to predict".into())
        }
        DataFormat::Csv { label, targets, .. } => {
            let is_one = targets.is_empty() || label.is_empty();
            match *targets == info.values && is_one {
                true => Ok(()),
                false => Err("a table has either a label, or its values as targets".into()),
            }
        }
        DataFormat::Text {
            level,
            held_out_ppm,
            ..
        } => check_text(info, *level, *held_out_ppm),
        DataFormat::Idx { .. } | DataFormat::Safetensors { .. } => Ok(()),
    }
}

fn check_text(info: &DatasetInfo, level: TextLevel, held_out_ppm: u32) -> Result<(), String> {
    if held_out_ppm == 0 || held_out_ppm >= MILLION {
        return Err(format!(
            "{held_out_ppm} millionths held out: give 1 to {}",
            MILLION - 1
        ));
    }
    if let [.., _, _] = info.input[..] {
        return Err(format!("input {:?} is no number of tokens", info.input));
    }
    match (level, info.classes.len()) {
        (TextLevel::Character, 1..) | (TextLevel::Byte, BYTES) => Ok(()),
        (_, classes) => Err(format!("{classes} classes are not the tokens of a text")),
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

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "a";

    fn manifest(info: DatasetInfo) -> Manifest {
        Manifest {
            name: "data".into(),
            kind: ItemKind::Dataset(info),
            files: vec![FileEntry {
                name: FILE.into(),
                blob: BlobId::new([0; 32]),
                bytes: 1,
            }],
            access: Access::Free,
            licence: String::new(),
            source: String::new(),
        }
    }

    fn info(format: DataFormat, classes: usize, values: usize) -> DatasetInfo {
        DatasetInfo {
            format,
            train_samples: 1,
            test_samples: 1,
            input: vec![8],
            classes: vec![String::new(); classes],
            values: vec!["v".into(); values],
        }
    }

    fn idx(scale: f32) -> DataFormat {
        let file = || FILE.to_owned();
        DataFormat::Idx {
            train_images: file(),
            train_labels: file(),
            test_images: file(),
            test_labels: file(),
            scale,
        }
    }

    fn csv(label: &str, targets: usize) -> DataFormat {
        DataFormat::Csv {
            file: FILE.into(),
            label: label.into(),
            split_seed: 0,
            targets: vec!["v".into(); targets],
        }
    }

    fn text(level: TextLevel, held_out_ppm: u32) -> DataFormat {
        DataFormat::Text {
            file: FILE.into(),
            level,
            held_out_ppm,
        }
    }

    fn tensors(test: &str) -> DataFormat {
        DataFormat::Safetensors {
            train: FILE.into(),
            test: test.into(),
        }
    }

    #[test]
    fn a_dataset_has_classes_or_values_that_its_format_can_give() {
        let good = [
            info(idx(1.0), 2, 0),
            info(csv("l", 0), 2, 0),
            info(csv("", 3), 0, 3),
            info(text(TextLevel::Character, 1), 2, 0),
            info(text(TextLevel::Byte, 999_999), 256, 0),
            info(tensors(FILE), 2, 0),
            info(tensors(FILE), 0, 1),
        ];
        let outputs: Vec<usize> = good.iter().map(DatasetInfo::outputs).collect();
        assert_eq!(outputs, [2, 2, 3, 2, 256, 2, 1]);
        for info in good {
            manifest(info).check().unwrap();
        }
        let mut plane = info(text(TextLevel::Character, 1), 2, 0);
        plane.input = vec![8, 8];
        let bad = [
            (info(idx(0.0), 2, 0), "not above 0"),
            (info(idx(f32::NAN), 2, 0), "not above 0"),
            (info(idx(1.0), 0, 2), "images have classes"),
            (info(csv("l", 0), 0, 0), "0 classes"),
            (info(csv("l", 0), 1, 0), "1 classes"),
            (info(csv("l", 0), 10_001, 0), "10001 classes"),
            (info(csv("", 10_001), 0, 10_001), "10001 values"),
            (info(csv("", 1), 2, 1), "2 classes and 1 values"),
            (info(csv("", 2), 0, 3), "either a label"),
            (info(csv("l", 3), 0, 3), "either a label"),
            (info(text(TextLevel::Character, 0), 2, 0), "0 millionths"),
            (
                info(text(TextLevel::Character, 1_000_000), 2, 0),
                "1000000 millionths",
            ),
            (info(text(TextLevel::Byte, 1), 255, 0), "255 classes"),
            (info(text(TextLevel::Character, 1), 0, 1), "0 classes"),
            (plane, "no number of tokens"),
            (info(tensors("b"), 2, 0), "`b` is missing"),
        ];
        for (info, reason) in bad {
            let said = manifest(info).check().unwrap_err().to_string();
            assert!(said.contains(reason), "{said} lacks {reason}");
        }
    }
}
