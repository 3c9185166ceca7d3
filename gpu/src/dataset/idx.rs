//! IDX, the format of MNIST: a magic number, sizes as big-endian u32, then one byte a value.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use cryptomind_protocol::item::{DataFormat, DatasetInfo};
use cryptomind_protocol::task::Split;
use flate2::read::MultiGzDecoder;

use super::samples::{Inputs, Targets};
use super::{DataError, MAX_VALUES, Samples, agree, open, short, shown, wrong};
use crate::scaling::{Scaling, Shades};

/// Third byte of the magic number: unsigned bytes.
const UNSIGNED_BYTES: u8 = 8;
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes that are read at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// The most bytes that one byte of gzip unpacks to: what deflate can.
const MOST_UNPACKED: u64 = 1032;

/// An open file of which the sizes are known and nothing else is read.
struct Idx {
    file: String,
    shape: Vec<u32>,
    values: usize,
    bytes: Box<dyn Read>,
}

impl Idx {
    /// Reads the header; refuses what is no IDX file of `dimensions` sizes, or exceeds `MAX_VALUES`.
    fn open(path: &Path, dimensions: std::ops::RangeInclusive<u8>) -> Result<Self, DataError> {
        let file = shown(path);
        let (mut bytes, most) = decoded(path, &file)?;
        let magic: [u8; 4] = exact(&mut bytes, &file)?;
        let wanted = magic[..2] == [0, 0] && magic[2] == UNSIGNED_BYTES;
        if !wanted || !dimensions.contains(&magic[3]) {
            return Err(wrong(
                &file,
                format!(
                    "begins with {magic:02x?}, an IDX file of unsigned bytes with {} to {} sizes with [00, 00, 08, {:02x}]",
                    dimensions.start(),
                    dimensions.end(),
                    dimensions.start(),
                ),
            ));
        }
        let mut shape = Vec::with_capacity(usize::from(magic[3]));
        for _ in 0..magic[3] {
            shape.push(u32::from_be_bytes(exact(&mut bytes, &file)?));
        }
        let mut sizes = shape.iter().map(|size| u64::from(*size));
        let values = sizes.try_fold(1, u64::checked_mul);
        match values {
            Some(0) => Err(wrong(&file, format!("sizes {shape:?}: the file is empty"))),
            // Before memory is taken by what is said alone.
            Some(values) if values <= MAX_VALUES && values > most => Err(wrong(
                &file,
                format!("is truncated: sizes {shape:?} are more than it can hold"),
            )),
            Some(values) if values <= MAX_VALUES => Ok(Self {
                file,
                values: values as usize,
                shape,
                bytes,
            }),
            _ => Err(wrong(
                &file,
                format!("sizes {shape:?} exceed {MAX_VALUES} values"),
            )),
        }
    }

    /// Hands over all values, in blocks; refuses a file that ends early or goes on.
    fn each_block(mut self, mut block: impl FnMut(&[u8])) -> Result<(), DataError> {
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut left = self.values;
        while left > 0 {
            let part = &mut buffer[..left.min(BLOCK_BYTES)];
            self.bytes
                .read_exact(part)
                .map_err(|e| short(&self.file, e))?;
            block(part);
            left -= part.len();
        }
        match self
            .bytes
            .read(&mut buffer[..1])
            .map_err(|e| short(&self.file, e))?
        {
            0 => Ok(()),
            _ => Err(wrong(
                &self.file,
                format!("goes on after its {} values", self.values),
            )),
        }
    }
}

/// The file's content, unpacked where it is gzip, and the most bytes that this can be.
fn decoded(path: &Path, file: &str) -> Result<(Box<dyn Read>, u64), DataError> {
    let source = open(path)?;
    let bytes = source.metadata().map_err(|e| short(file, e))?.len();
    let mut raw = BufReader::new(source);
    let begin = raw.fill_buf().map_err(|e| short(file, e))?;
    match begin.starts_with(&GZIP) {
        true => {
            let unpacked = BufReader::new(MultiGzDecoder::new(raw));
            Ok((Box::new(unpacked), bytes.saturating_mul(MOST_UNPACKED)))
        }
        false => Ok((Box::new(raw), bytes)),
    }
}

fn exact<const N: usize>(bytes: &mut dyn Read, file: &str) -> Result<[u8; N], DataError> {
    let mut buffer = [0; N];
    bytes.read_exact(&mut buffer).map_err(|e| short(file, e))?;
    Ok(buffer)
}

/// Images have one to four sizes a sample.
fn open_images(path: &Path) -> Result<Idx, DataError> {
    Idx::open(path, 2..=5)
}

fn open_labels(path: &Path) -> Result<Idx, DataError> {
    Idx::open(path, 1..=1)
}

/// Reads one split and holds it to `info`.
pub(super) fn load(
    info: &DatasetInfo,
    split: Split,
    scale: f32,
    known: Option<&Scaling>,
    images: &Path,
    labels: &Path,
) -> Result<(Samples, Scaling), DataError> {
    if !(scale.is_finite() && scale > 0.0) {
        return Err(DataError::Info(format!("scale {scale} is not above 0")));
    }
    let (images, labels) = (open_images(images)?, open_labels(labels)?);
    agree("samples", info.samples(split), u64::from(images.shape[0]))?;
    agree("labels", info.samples(split), u64::from(labels.shape[0]))?;
    agree("input", &info.input[..], &images.shape[1..])?;
    let own = || Scaling::divided_by(scale.into());
    let scaling = known.cloned().unwrap_or_else(own);
    let input_len = images.values / images.shape[0] as usize;
    let mut grey = Vec::with_capacity(images.values);
    images.each_block(|part| grey.extend_from_slice(part))?;
    let targets = read_labels(labels, info.classes.len())?;
    let inputs = Inputs::Bytes(grey, Shades::new(&scaling));
    Ok((Samples::new(inputs, targets, input_len), scaling))
}

fn read_labels(file: Idx, classes: usize) -> Result<Targets, DataError> {
    let name = file.file.clone();
    let mut labels = Vec::with_capacity(file.values);
    file.each_block(|part| labels.extend(part.iter().map(|label| u32::from(*label))))?;
    match labels.iter().position(|label| *label as usize >= classes) {
        Some(at) => Err(wrong(
            &name,
            format!(
                "sample {at} has label {}, but there are {classes} classes",
                labels[at]
            ),
        )),
        None => Ok(Targets::labels(labels, classes)),
    }
}

/// See [`super::inspect_idx`].
pub(super) fn inspect(dir: &Path) -> Result<(DatasetInfo, Vec<PathBuf>), DataError> {
    let train = Found::look(dir, &["train"])?;
    let test = Found::look(dir, &["t10k", "test"])?;
    if train.sample != test.sample {
        let reason = format!(
            "images of {:?}, training has {:?}",
            test.sample, train.sample
        );
        return Err(wrong(&shown(&test.images), reason));
    }
    if train.brightest == 0 {
        let reason = "every value is 0: nothing to learn from";
        return Err(wrong(&shown(&train.images), reason.into()));
    }
    let classes = usize::from(train.largest_label.max(test.largest_label)) + 1;
    if classes < 2 {
        let reason = "every label is 0: two classes are needed";
        return Err(wrong(&shown(&train.labels), reason.into()));
    }
    let info = DatasetInfo {
        format: DataFormat::Idx {
            train_images: shown(&train.images),
            train_labels: shown(&train.labels),
            test_images: shown(&test.images),
            test_labels: shown(&test.labels),
            scale: f32::from(train.brightest),
        },
        train_samples: u64::from(train.samples),
        test_samples: u64::from(test.samples),
        input: train.sample,
        classes: (0..classes).map(|class| class.to_string()).collect(),
        values: Vec::new(),
    };
    let files = vec![train.images, train.labels, test.images, test.labels];
    Ok((info, files))
}

/// The two files of a split and what they hold.
struct Found {
    images: PathBuf,
    labels: PathBuf,
    samples: u32,
    /// Shape of one sample.
    sample: Vec<u32>,
    brightest: u8,
    largest_label: u8,
}

impl Found {
    fn look(dir: &Path, splits: &[&str]) -> Result<Self, DataError> {
        let images = find(dir, splits, "images-idx3-ubyte")?;
        let labels = find(dir, splits, "labels-idx1-ubyte")?;
        let (mut shape, brightest) = look(open_images(&images)?)?;
        let (count, largest_label) = look(open_labels(&labels)?)?;
        let samples = shape.remove(0);
        if count != [samples] {
            let reason = format!("{samples} images, but {} labels", count[0]);
            return Err(wrong(&shown(&images), reason));
        }
        Ok(Self {
            images,
            labels,
            samples,
            sample: shape,
            brightest,
            largest_label,
        })
    }
}

/// Sizes and largest value.
fn look(idx: Idx) -> Result<(Vec<u32>, u8), DataError> {
    let shape = idx.shape.clone();
    let mut largest = 0;
    idx.each_block(|part| largest = part.iter().copied().fold(largest, u8::max))?;
    Ok((shape, largest))
}

fn find(dir: &Path, splits: &[&str], kind: &str) -> Result<PathBuf, DataError> {
    let names: Vec<String> = splits
        .iter()
        .flat_map(|split| ["", ".gz"].map(|end| format!("{split}-{kind}{end}")))
        .collect();
    let found = names
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| DataError::File {
        file: shown(dir),
        reason: format!("no file {} in this folder", names.join(" or ")),
    })
}
