//! Datasets: files of a stranger become samples, or a refusal that says what is wrong where.
//!
//! [`inspect_idx`] and [`inspect_csv`] look at files that a client wants to publish and say what
//! they are; [`load`] reads a split on a miner and holds the files to what was said. Every size is
//! bounded before memory is taken. Not here: where files come from, and the order of samples.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::{DataFormat, DatasetInfo};
use cryptomind_protocol::task::Split;

use crate::error::EngineError;
use crate::scaling::Scaling;

mod idx;
mod table;

/// The most classes.
pub const MAX_CLASSES: usize = 10_000;
/// The most values (samples × values a sample) of one split: 1 GiB of f32.
pub const MAX_VALUES: u64 = 1 << 28;

/// Samples of one split.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Row-major, samples × [`Samples::input_len`].
    pub inputs: Vec<f32>,
    /// One class a sample, below [`Samples::classes`].
    pub labels: Vec<u32>,
    /// Values of one sample.
    pub input_len: usize,
    /// Number of classes.
    pub classes: usize,
}

/// Why a dataset is refused.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be read.
    #[error("{file}: {source}")]
    Io {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{file}: {reason}")]
    File {
        /// Which.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A cell of a table is not what it should be.
    #[error("{file}: row {row} (line {line}), column `{column}`: {reason}")]
    Cell {
        /// Which file.
        file: String,
        /// Row of data, counted from 1.
        row: usize,
        /// Line of the file, counted from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// The files differ from what the catalog says of them.
    #[error("the dataset says {what} {said}, its files have {found}")]
    Lie {
        /// Of what.
        what: &'static str,
        /// What the catalog says.
        said: String,
        /// What the files hold.
        found: String,
    },
    /// The description itself makes no sense.
    #[error("{0}")]
    Info(String),
}

impl From<DataError> for ErrorBody {
    fn from(error: DataError) -> Self {
        Self::user("invalid_dataset", error)
    }
}

impl Samples {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.inputs.len() / self.input_len.max(1)
    }

    /// Labels of one sample: of a sequence, one a token.
    pub fn labels_per_sample(&self) -> usize {
        self.labels.len() / self.len().max(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Refuses samples whose parts do not fit each other, or a model of this width and outputs.
    pub(crate) fn check(&self, input_len: usize, outputs: usize) -> Result<(), EngineError> {
        if self.input_len != input_len {
            return Err(EngineError::Data(format!(
                "a sample has {} values, the model takes {input_len}",
                self.input_len
            )));
        }
        let is_whole = self.inputs.len() == self.len() * self.input_len;
        if !is_whole || self.labels.len() != self.len() * self.labels_per_sample() {
            return Err(EngineError::Data(format!(
                "{} values are not {} samples of {}",
                self.inputs.len(),
                self.labels.len(),
                self.input_len
            )));
        }
        if self.classes > outputs {
            return Err(EngineError::Data(format!(
                "{} classes, but the model's last layer has {outputs} outputs",
                self.classes
            )));
        }
        Ok(())
    }
}

/// Reads one split, and says how it is scaled: as a network was that knows it, else as the dataset asks for. `file` says
/// where the file of a name lies. What the files hold must be what `info` says.
pub fn load(
    info: &DatasetInfo,
    split: Split,
    known: Option<&Scaling>,
    file: &dyn Fn(&str) -> PathBuf,
) -> Result<(Samples, Scaling), DataError> {
    check_info(info, split)?;
    let input_len: usize = info.input.iter().map(|size| *size as usize).product();
    if let Some(known) = known.filter(|known| !known.fits(input_len)) {
        return Err(DataError::Info(format!(
            "a sample has {input_len} values, the model was trained on {}",
            known.len()
        )));
    }
    match &info.format {
        DataFormat::Idx {
            train_images,
            train_labels,
            test_images,
            test_labels,
            scale,
        } => {
            let (images, labels) = match split {
                Split::Train => (train_images, train_labels),
                Split::Test => (test_images, test_labels),
            };
            idx::load(info, split, *scale, known, &file(images), &file(labels))
        }
        DataFormat::Csv {
            file: name,
            label,
            split_seed,
        } => table::load(info, split, known, &file(name), label, *split_seed),
    }
}

/// Finds the four IDX files of a folder, gzipped or not, and says what they hold: training files
/// `train-…`, test files `t10k-…` or `test-…`. Grey values are scaled by the largest of the training
/// images. The paths are those of training images and labels, then test images and labels.
pub fn inspect_idx(dir: &Path) -> Result<(DatasetInfo, Vec<PathBuf>), DataError> {
    idx::inspect(dir)
}

/// Says what a table with this column of labels holds. All other columns must be numbers.
pub fn inspect_csv(file: &Path, label: &str) -> Result<(DatasetInfo, PathBuf), DataError> {
    table::inspect(file, label)
}

/// Bounds what the description makes us allocate.
fn check_info(info: &DatasetInfo, split: Split) -> Result<(), DataError> {
    let refuse = |reason: String| Err(DataError::Info(reason));
    if info.classes.len() < 2 || info.classes.len() > MAX_CLASSES {
        return refuse(format!(
            "{} classes: a dataset has 2 to {MAX_CLASSES}",
            info.classes.len()
        ));
    }
    if info.input.is_empty() || info.input.len() > 4 || info.input.contains(&0) {
        return refuse(format!("input {:?} is no shape", info.input));
    }
    let sizes = info.input.iter().map(|size| u64::from(*size));
    let values = sizes
        .chain([info.samples(split)])
        .try_fold(1, u64::checked_mul);
    match values {
        Some(0) => refuse("the dataset is empty: both splits need samples".into()),
        Some(values) if values <= MAX_VALUES => Ok(()),
        _ => refuse(format!("a split exceeds {MAX_VALUES} values")),
    }
}

fn shown(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn open(path: &Path) -> Result<File, DataError> {
    File::open(path).map_err(|source| DataError::Io {
        file: shown(path),
        source,
    })
}

/// Refuses where what was said and what was found differ.
fn agree<T: PartialEq + std::fmt::Debug>(
    what: &'static str,
    said: T,
    found: T,
) -> Result<(), DataError> {
    if said == found {
        return Ok(());
    }
    Err(DataError::Lie {
        what,
        said: format!("{said:?}"),
        found: format!("{found:?}"),
    })
}

#[cfg(test)]
mod tests;
