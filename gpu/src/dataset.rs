//! Datasets: files of a stranger become samples, or a refusal that says what is wrong where.
//!
//! [`inspect_idx`], [`inspect_csv`], [`inspect_csv_values`], [`inspect_text`] and [`inspect_safetensors`] look at files
//! that a client wants to publish and say what they are; [`load`] opens a split on a miner and holds the files to what was
//! said. Every size is bounded before memory is taken. Not here: where files come from, and the order of samples.
//!
//! What is held out is part of a dataset: IDX and safetensors have it in files of its own, of a table it is one row in five
//! by a seeded shuffle, of a text a share at its end.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use cryptomind_protocol::ErrorBody;
use cryptomind_protocol::item::{
    DataFormat, DatasetInfo, MAX_FILE_BYTES, MAX_OUTPUTS, TextLevel, is_file_name,
};
use cryptomind_protocol::task::Split;

use crate::scaling::Scaling;

mod idx;
mod records;
mod rows;
mod samples;
mod table;
mod tensors;
mod text;
mod tokens;

pub use samples::Samples;

/// The most classes.
pub const MAX_CLASSES: usize = MAX_OUTPUTS;
/// The most values (samples × values a sample) of one split that lie in memory: 1 GiB of f32. What a split predicts does
/// always.
pub const MAX_VALUES: u64 = 1 << 28;

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
            targets,
        } => {
            let wanted = match targets.is_empty() {
                true => table::Wanted::Label(label),
                false => table::Wanted::Values(targets),
            };
            table::load(info, split, known, &file(name), wanted, *split_seed)
        }
        DataFormat::Text {
            file: name,
            level,
            held_out_ppm,
        } => text::load(info, split, known, &file(name), *level, *held_out_ppm),
        DataFormat::Safetensors { train, test } => {
            let name = match split {
                Split::Train => train,
                Split::Test => test,
            };
            tensors::load(info, split, known, &file(name))
        }
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
    table::inspect(file, table::Wanted::Label(label))
}

/// Says what a table holds of which these columns are predicted. All columns must be numbers; the predicted ones are not
/// scaled.
pub fn inspect_csv_values(
    file: &Path,
    targets: &[String],
) -> Result<(DatasetInfo, PathBuf), DataError> {
    table::inspect(file, table::Wanted::Values(targets))
}

/// Says what a text holds, cut into windows of `context` tokens, of which `held_out_ppm` millionths at its end are held
/// out. Nothing is left out of it: a byte order mark is a character, as the end of a line is.
pub fn inspect_text(
    file: &Path,
    context: u32,
    level: TextLevel,
    held_out_ppm: u32,
) -> Result<(DatasetInfo, PathBuf), DataError> {
    text::inspect(file, context, level, held_out_ppm)
}

/// Finds `train.safetensors` and `test.safetensors` in a folder, and says what they hold; the paths are in this order. All
/// inputs are read once.
pub fn inspect_safetensors(dir: &Path) -> Result<(DatasetInfo, Vec<PathBuf>), DataError> {
    tensors::inspect(dir)
}

/// Bounds what the description makes us allocate.
fn check_info(info: &DatasetInfo, split: Split) -> Result<(), DataError> {
    let refuse = |reason: String| Err(DataError::Info(reason));
    let (classes, values) = (info.classes.len(), info.values.len());
    match (classes, values) {
        (2..=MAX_CLASSES, 0) | (0, 1..=MAX_CLASSES) => {}
        (0, 1..) => return refuse(format!("{values} values: a dataset has 1 to {MAX_CLASSES}")),
        (1.., 1..) => return refuse("a dataset has classes or values, not both".into()),
        _ => {
            return refuse(format!(
                "{classes} classes: a dataset has 2 to {MAX_CLASSES}"
            ));
        }
    }
    if info.input.is_empty() || info.input.len() > 4 || info.input.contains(&0) {
        return refuse(format!("input {:?} is no shape", info.input));
    }
    // Tensors stay in their file, which may be larger than memory.
    let most = match info.format {
        DataFormat::Safetensors { .. } => MAX_FILE_BYTES,
        _ => MAX_VALUES,
    };
    let samples = info.samples(split);
    let sizes = info.input.iter().map(|size| u64::from(*size));
    let inputs = sizes.chain([samples]).try_fold(1, u64::checked_mul);
    let targets = samples.checked_mul(values.max(1) as u64);
    match (inputs, targets) {
        (Some(0), _) => refuse("the dataset is empty: both splits need samples".into()),
        (Some(inputs), Some(targets)) if inputs <= most && targets <= MAX_VALUES => Ok(()),
        (Some(inputs), _) if inputs <= most => {
            refuse(format!("a split exceeds {MAX_VALUES} values to predict"))
        }
        _ => refuse(format!("a split exceeds {most} values")),
    }
}

/// The name under which a file is published: what is not allowed there becomes a dash.
fn plain_name(file: &str, otherwise: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let plain: String = file
        .chars()
        .map(|c| if allowed(c) { c } else { '-' })
        .collect();
    match is_file_name(&plain) {
        true => plain,
        false => otherwise.into(),
    }
}

fn wrong(file: &str, reason: String) -> DataError {
    DataError::File {
        file: file.into(),
        reason,
    }
}

/// A file that cannot be read, or ends before it should.
fn short(file: &str, error: io::Error) -> DataError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => wrong(file, "is truncated".into()),
        // So a gzip file says that its bytes are not what was packed.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            wrong(file, format!("is corrupt: {error}"))
        }
        _ => DataError::Io {
            file: file.into(),
            source: error,
        },
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
