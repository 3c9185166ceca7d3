//! Safetensors: a file a split, with the tensor `inputs` and either `labels` or `targets`.
//!
//! Inputs stay in the file and are read a batch at a time; what is predicted of them lies in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cryptomind_protocol::item::{DataFormat, DatasetInfo};
use cryptomind_protocol::task::Split;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::rows::{Kind, Rows, floats};
use super::samples::{Inputs, Targets};
use super::{DataError, MAX_CLASSES, MAX_VALUES, Samples, agree, open, short, shown, wrong};
use crate::scaling::{Scaling, Shades};
use crate::weights::MAX_HEADER_BYTES;

const INPUTS: &str = "inputs";
const LABELS: &str = "labels";
const TARGETS: &str = "targets";
const TRAIN_FILE: &str = "train.safetensors";
const TEST_FILE: &str = "test.safetensors";
/// Length of the length of the header, bytes.
const PREFIX_BYTES: u64 = 8;
/// Bytes that are read at once: whole values of any kind.
const BLOCK_BYTES: usize = 64 * 1024;

/// Opens one split and holds it to `info`.
pub(super) fn load(
    info: &DatasetInfo,
    split: Split,
    known: Option<&Scaling>,
    path: &Path,
) -> Result<(Samples, Scaling), DataError> {
    let mut part = Part::open(path)?;
    agree("samples", info.samples(split), u64::from(part.samples))?;
    agree("input", &info.input[..], &part.sample[..])?;
    agree("values", info.values.len(), part.width())?;
    let targets = match part.predicted {
        Predicted::Labels(..) => {
            let classes = info.classes.len();
            Targets::labels(part.labels(classes)?, classes)
        }
        Predicted::Values { width, .. } => Targets::values(part.values()?, width),
    };
    let scaling = known.cloned().unwrap_or_else(Scaling::none);
    let input_len = part.input_len;
    let rows = part.rows(&scaling);
    rows.check_finite()?;
    let inputs = Inputs::File(Arc::new(rows));
    Ok((Samples::new(inputs, targets, input_len), scaling))
}

/// See [`super::inspect_safetensors`].
pub(super) fn inspect(dir: &Path) -> Result<(DatasetInfo, Vec<PathBuf>), DataError> {
    let paths = [TRAIN_FILE, TEST_FILE].map(|name| dir.join(name));
    if let Some(missing) = paths.iter().find(|path| !path.is_file()) {
        let reason = format!("no file {} in this folder", shown(missing));
        return Err(wrong(&shown(dir), reason));
    }
    let [train, test] = &paths;
    let (train, test) = (Found::look(train)?, Found::look(test)?);
    if test.sample != train.sample {
        let reason = format!(
            "inputs of {:?}, training has {:?}",
            test.sample, train.sample
        );
        return Err(wrong(TEST_FILE, reason));
    }
    if test.width != train.width {
        let said = |width| match width {
            0 => LABELS.to_owned(),
            width => format!("{TARGETS} of [{width}]"),
        };
        let (test, train) = (said(test.width), said(train.width));
        return Err(wrong(TEST_FILE, format!("{test}, training has {train}")));
    }
    let numbered = |count: usize| (0..count).map(|number| number.to_string()).collect();
    let classes = match train.width {
        0 => train.largest_label.max(test.largest_label) as usize + 1,
        _ => 0,
    };
    if classes == 1 {
        let reason = "every label is 0: two classes are needed";
        return Err(wrong(TRAIN_FILE, reason.into()));
    }
    let info = DatasetInfo {
        format: DataFormat::Safetensors {
            train: TRAIN_FILE.into(),
            test: TEST_FILE.into(),
        },
        train_samples: train.samples.into(),
        test_samples: test.samples.into(),
        input: train.sample,
        classes: numbered(classes),
        values: numbered(train.width),
    };
    Ok((info, paths.into()))
}

/// What a split's file holds, all of it looked at.
struct Found {
    samples: u32,
    sample: Vec<u32>,
    /// Values to predict; 0 where there are labels.
    width: usize,
    largest_label: u32,
}

impl Found {
    fn look(path: &Path) -> Result<Self, DataError> {
        let mut part = Part::open(path)?;
        let largest_label = match part.predicted {
            Predicted::Labels(..) => {
                let labels = part.labels(MAX_CLASSES)?;
                labels.into_iter().max().unwrap_or(0)
            }
            Predicted::Values { .. } => {
                part.values()?;
                0
            }
        };
        let (samples, sample, width) = (part.samples, part.sample.clone(), part.width());
        part.rows(&Scaling::none()).check_finite()?;
        Ok(Self {
            samples,
            sample,
            width,
            largest_label,
        })
    }
}

/// What is predicted, and where in the file it begins.
#[derive(Clone, Copy)]
enum Predicted {
    Labels(Integer, u64),
    Values { width: usize, start: u64 },
}

/// Little-endian integers of a file.
#[derive(Clone, Copy)]
enum Integer {
    U8,
    U32,
    I32,
    I64,
}

impl Integer {
    const fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::U8 => Some(Self::U8),
            Dtype::U32 => Some(Self::U32),
            Dtype::I32 => Some(Self::I32),
            Dtype::I64 => Some(Self::I64),
            _ => None,
        }
    }

    const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// Hands over the value of each part of `block`, which are whole.
    fn each(self, block: &[u8], mut see: impl FnMut(i64)) {
        let wide = || block.as_chunks().0.iter().copied();
        match self {
            Self::U8 => block.iter().for_each(|byte| see((*byte).into())),
            Self::U32 => wide().for_each(|bytes| see(u32::from_le_bytes(bytes).into())),
            Self::I32 => wide().for_each(|bytes| see(i32::from_le_bytes(bytes).into())),
            Self::I64 => {
                let wide = block.as_chunks().0.iter().copied();
                wide.for_each(|bytes| see(i64::from_le_bytes(bytes)));
            }
        }
    }
}

/// A split's file of which the header is read and found right, and nothing else is read.
struct Part {
    file: String,
    source: File,
    samples: u32,
    /// Shape of one sample.
    sample: Vec<u32>,
    /// Values of one sample.
    input_len: usize,
    /// Whether inputs are bytes, not f32.
    are_bytes: bool,
    /// Where the inputs begin, bytes.
    start: u64,
    predicted: Predicted,
}

impl Part {
    fn open(path: &Path) -> Result<Self, DataError> {
        let file = shown(path);
        let mut source = open(path)?;
        let (header, data) = header(&file, &mut source)?;
        let refuse = |reason: String| wrong(&file, reason);
        let known = [INPUTS, LABELS, TARGETS];
        let names = header.offset_keys();
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(refuse(format!(
                "holds `{name:.80}`: a dataset has `{INPUTS}` and `{LABELS}` or `{TARGETS}`"
            )));
        }
        let tensor = |name: &str| header.info(name);
        let inputs = tensor(INPUTS).ok_or_else(|| refuse(format!("`{INPUTS}` is missing")))?;
        let (samples, sample, input_len) = shape(inputs).map_err(refuse)?;
        let start = |tensor: &TensorInfo| data + tensor.data_offsets.0 as u64;
        let predicted = match (tensor(LABELS), tensor(TARGETS)) {
            (Some(labels), None) => {
                Predicted::Labels(integer(labels, samples).map_err(refuse)?, start(labels))
            }
            (None, Some(values)) => Predicted::Values {
                width: width(values, samples).map_err(refuse)?,
                start: start(values),
            },
            (None, None) => {
                return Err(refuse(format!(
                    "neither `{LABELS}` nor `{TARGETS}` is there"
                )));
            }
            (Some(_), Some(_)) => {
                return Err(refuse(format!(
                    "`{LABELS}` and `{TARGETS}`: give one of them"
                )));
            }
        };
        Ok(Self {
            samples,
            sample,
            input_len,
            are_bytes: inputs.dtype == Dtype::U8,
            start: start(inputs),
            predicted,
            file,
            source,
        })
    }

    /// Values to predict of a sample; 0 where there are labels.
    const fn width(&self) -> usize {
        match self.predicted {
            Predicted::Labels(..) => 0,
            Predicted::Values { width, .. } => width,
        }
    }

    /// One a sample; none where there are values. Refuses the first that is not below `classes`.
    fn labels(&mut self, classes: usize) -> Result<Vec<u32>, DataError> {
        let Predicted::Labels(integer, start) = self.predicted else {
            return Ok(Vec::new());
        };
        let count = self.samples as usize;
        // The file has as many: it was held to its header.
        let mut labels: Vec<u32> = Vec::with_capacity(count);
        let (file, mut broken) = (self.file.clone(), None);
        self.each_block(start, count as u64 * integer.bytes() as u64, |block| {
            integer.each(block, |label| match u32::try_from(label) {
                Ok(label) if (label as usize) < classes => labels.push(label),
                _ => broken = broken.or(Some((labels.len(), label))),
            });
        })?;
        match broken {
            None => Ok(labels),
            Some((sample, label)) => Err(wrong(
                &file,
                format!(
                    "sample {sample} has label {label}, but labels are 0 to {}",
                    classes.saturating_sub(1)
                ),
            )),
        }
    }

    /// Samples × width; none where there are labels. Refuses the first that is not finite.
    fn values(&mut self) -> Result<Vec<f32>, DataError> {
        let Predicted::Values { width, start } = self.predicted else {
            return Ok(Vec::new());
        };
        let count = self.samples as usize * width;
        let mut values = Vec::with_capacity(count);
        let bytes = count as u64 * size_of::<f32>() as u64;
        self.each_block(start, bytes, |block| values.extend(floats(block)))?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(place) => Err(wrong(
                &self.file,
                format!(
                    "target {} of sample {} is infinite or not a number",
                    place % width,
                    place / width
                ),
            )),
        }
    }

    fn each_block(
        &mut self,
        start: u64,
        bytes: u64,
        mut block: impl FnMut(&[u8]),
    ) -> Result<(), DataError> {
        let failed = |e: io::Error| short(&self.file, e);
        self.source.seek(SeekFrom::Start(start)).map_err(failed)?;
        let mut left = bytes;
        let mut buffer = vec![0; BLOCK_BYTES];
        while left > 0 {
            let part = left.min(BLOCK_BYTES as u64);
            let part = &mut buffer[..part as usize];
            self.source.read_exact(part).map_err(failed)?;
            block(part);
            left -= part.len() as u64;
        }
        Ok(())
    }

    fn rows(self, scaling: &Scaling) -> Rows {
        let kind = match self.are_bytes {
            true => Kind::U8(Shades::new(scaling)),
            false => Kind::F32(scaling.clone()),
        };
        let size = (self.samples, self.input_len);
        Rows::new(self.file, self.source, kind, self.start, size)
    }
}

/// The header, and where the data begin, bytes. Its tensors lie one after the other and fill the file.
fn header(file: &str, source: &mut File) -> Result<(Metadata, u64), DataError> {
    let refuse = |reason: String| Err(wrong(file, reason));
    let whole = source.metadata().map_err(|e| short(file, e))?.len();
    let mut prefix = [0; PREFIX_BYTES as usize];
    source.read_exact(&mut prefix).map_err(|e| short(file, e))?;
    let len = u64::from_le_bytes(prefix);
    if len > MAX_HEADER_BYTES as u64 {
        return refuse(format!(
            "a header of {len} bytes exceeds {MAX_HEADER_BYTES}: no safetensors file"
        ));
    }
    let data = PREFIX_BYTES + len;
    if data > whole {
        return refuse("is truncated: its header ends after it".into());
    }
    let mut text = vec![0; len as usize];
    source.read_exact(&mut text).map_err(|e| short(file, e))?;
    let header: Metadata = match serde_json::from_slice(&text) {
        Ok(header) => header,
        Err(e) => return refuse(format!("not a safetensors file: {e}")),
    };
    let said = data.checked_add(header.data_len() as u64);
    if said != Some(whole) {
        let said = said.unwrap_or(u64::MAX);
        return refuse(format!("has {whole} bytes, but its header says {said}"));
    }
    Ok((header, data))
}

/// Number of samples, shape of one, and its values.
fn shape(inputs: &TensorInfo) -> Result<(u32, Vec<u32>, usize), String> {
    if !matches!(inputs.dtype, Dtype::F32 | Dtype::U8) {
        return Err(format!(
            "`{INPUTS}` is {:?}, must be F32 or U8",
            inputs.dtype
        ));
    }
    let shape = &inputs.shape;
    let sizes: Result<Vec<u32>, _> = shape.iter().map(|size| u32::try_from(*size)).collect();
    let sizes = sizes.map_err(|_| format!("`{INPUTS}` is {shape:?}: that is too large"))?;
    let (samples, sample) = match &sizes[..] {
        [samples, sample @ ..] if (1..=4).contains(&sample.len()) => (*samples, sample),
        _ => {
            return Err(format!(
                "`{INPUTS}` is {shape:?}, must be samples × one to four sizes of a sample"
            ));
        }
    };
    let values = sample.iter().map(|size| u64::from(*size));
    match values.chain([1]).try_fold(1, u64::checked_mul) {
        _ if samples == 0 => Err(format!("`{INPUTS}` is {shape:?}: the file is empty")),
        Some(0) => Err(format!("`{INPUTS}` is {shape:?}: the file is empty")),
        Some(values) if values <= MAX_VALUES && u64::from(samples) <= MAX_VALUES => {
            Ok((samples, sample.to_vec(), values as usize))
        }
        _ => Err(format!(
            "`{INPUTS}` is {shape:?}: that is more than {MAX_VALUES} values a sample, or samples"
        )),
    }
}

fn integer(labels: &TensorInfo, samples: u32) -> Result<Integer, String> {
    if labels.shape != [samples as usize] {
        return Err(format!(
            "`{LABELS}` is {:?}, must be [{samples}]",
            labels.shape
        ));
    }
    Integer::of(labels.dtype).ok_or_else(|| {
        format!(
            "`{LABELS}` is {:?}, must be I64, I32, U32 or U8",
            labels.dtype
        )
    })
}

/// Values to predict of a sample.
fn width(values: &TensorInfo, samples: u32) -> Result<usize, String> {
    if values.dtype != Dtype::F32 {
        return Err(format!("`{TARGETS}` is {:?}, must be F32", values.dtype));
    }
    match values.shape[..] {
        [count, width @ 1..=MAX_CLASSES] if count == samples as usize => {
            match u64::from(samples) * width as u64 {
                0..=MAX_VALUES => Ok(width),
                many => Err(format!(
                    "`{TARGETS}` has {many} values: at most {MAX_VALUES}"
                )),
            }
        }
        _ => Err(format!(
            "`{TARGETS}` is {:?}, must be [{samples}, 1 to {MAX_CLASSES}]",
            values.shape
        )),
    }
}
