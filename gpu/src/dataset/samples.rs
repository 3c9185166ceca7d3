//! Samples of one split: kept as their files have them, turned into numbers a batch at a time.
//!
//! Grey values stay bytes, tokens stay tokens, and tensors stay in their file, so a split takes the room of its files and
//! not four times as much. A table's numbers are kept as f32, scaled.

use std::sync::Arc;

use cryptomind_protocol::model::Loss;

use super::DataError;
use super::rows::Rows;
use super::tokens::Tokens;
use crate::error::EngineError;
use crate::goal::Goal;
use crate::scaling::{Scaling, Shades};

/// Samples of one split, and what is known of each: a class, numbers, or the token after each of its own.
#[derive(Debug, Clone)]
pub struct Samples {
    inputs: Inputs,
    targets: Targets,
    /// Values of one sample.
    input_len: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Inputs {
    /// As a network takes them, samples × values.
    Values(Vec<f32>),
    /// One a value, and what it becomes.
    Bytes(Vec<u8>, Shades),
    /// Windows without overlap.
    Text(Arc<Tokens>, Scaling),
    /// In their file.
    File(Arc<Rows>),
}

#[derive(Debug, Clone)]
pub(super) enum Targets {
    /// A class a sample, or so many of a sequence.
    Labels {
        labels: Vec<u32>,
        /// Labels of one sample.
        each: usize,
        classes: usize,
        /// The largest of them, so that a batch need not be looked through.
        largest: u32,
    },
    /// Numbers, samples × width.
    Values {
        values: Vec<f32>,
        width: usize,
        /// The first of them that is no share, 0 to 1, so that a batch need not be looked through.
        no_share: Option<f32>,
    },
    /// The token after each of a window.
    Next { tokens: Arc<Tokens>, classes: usize },
}

impl Targets {
    /// One label a sample.
    pub(super) fn labels(labels: Vec<u32>, classes: usize) -> Self {
        Self::sequences(labels, 1, classes)
    }

    /// `width` numbers a sample.
    pub(super) fn values(values: Vec<f32>, width: usize) -> Self {
        let is_share = |value: &f32| (0.0..=1.0).contains(value);
        Self::Values {
            no_share: values.iter().copied().find(|value| !is_share(value)),
            values,
            width,
        }
    }

    /// `each` labels a sample.
    fn sequences(labels: Vec<u32>, each: usize, classes: usize) -> Self {
        Self::Labels {
            largest: labels.iter().copied().max().unwrap_or(0),
            labels,
            each,
            classes,
        }
    }
}

impl Samples {
    /// Samples of classes. `inputs` are row-major, samples × `input_len`, scaled already; `labels` are one a sample, or
    /// as many of each sample of a sequence, below `classes`. What does not fit is refused by whoever is given it.
    pub fn labelled(inputs: Vec<f32>, labels: Vec<u32>, input_len: usize, classes: usize) -> Self {
        let samples = inputs.len() / input_len.max(1);
        let each = (labels.len() / samples.max(1)).max(1);
        let targets = Targets::sequences(labels, each, classes);
        Self::new(Inputs::Values(inputs), targets, input_len)
    }

    /// Samples of numbers that are predicted: `values` are row-major, samples × `width`. The rest is as in
    /// [`Samples::labelled`].
    pub fn valued(inputs: Vec<f32>, values: Vec<f32>, input_len: usize, width: usize) -> Self {
        Self::new(
            Inputs::Values(inputs),
            Targets::values(values, width),
            input_len,
        )
    }

    /// Windows of `context` tokens, each a class below `classes`.
    pub(super) fn windows(
        tokens: Tokens,
        scaling: Scaling,
        context: usize,
        classes: usize,
    ) -> Self {
        let tokens = Arc::new(tokens);
        let inputs = Inputs::Text(Arc::clone(&tokens), scaling);
        Self::new(inputs, Targets::Next { tokens, classes }, context)
    }

    pub(super) const fn new(inputs: Inputs, targets: Targets, input_len: usize) -> Self {
        Self {
            inputs,
            targets,
            input_len,
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match &self.targets {
            Targets::Labels { labels, each, .. } => labels.len() / each,
            Targets::Values { values, width, .. } => values.len() / (*width).max(1),
            Targets::Next { tokens, .. } => tokens.windows(self.input_len),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values of one sample.
    pub const fn input_len(&self) -> usize {
        self.input_len
    }

    /// Number of classes; 0 where numbers are predicted.
    pub const fn classes(&self) -> usize {
        match &self.targets {
            Targets::Labels { classes, .. } | Targets::Next { classes, .. } => *classes,
            Targets::Values { .. } => 0,
        }
    }

    /// Numbers that are predicted of a sample; 0 where there are classes.
    pub const fn target_width(&self) -> usize {
        match &self.targets {
            Targets::Values { width, .. } => *width,
            Targets::Labels { .. } | Targets::Next { .. } => 0,
        }
    }

    /// Labels of one sample: 1, or as many as a window of text has tokens; 0 where numbers are predicted.
    pub const fn labels_per_sample(&self) -> usize {
        match &self.targets {
            Targets::Labels { each, .. } => *each,
            Targets::Values { .. } => 0,
            Targets::Next { .. } => self.input_len,
        }
    }

    /// Fills `into` with the inputs of these rows, rows × [`Samples::input_len`], as a network takes them. Rows are below
    /// [`Samples::len`]. Refused: a file that cannot be read any more.
    pub fn inputs_of(&self, rows: &[u32], into: &mut Vec<f32>) -> Result<(), DataError> {
        into.clear();
        let len = self.input_len;
        match &self.inputs {
            Inputs::Values(values) => {
                let add = |row: &u32| into.extend_from_slice(part(values, *row, len));
                rows.iter().for_each(add);
            }
            Inputs::Bytes(bytes, shades) => {
                let add = |row: &u32| shades.add(part(bytes, *row, len), into);
                rows.iter().for_each(add);
            }
            Inputs::Text(tokens, scaling) => {
                let add = |row: &u32| tokens.add_inputs(*row as usize * len, len, scaling, into);
                rows.iter().for_each(add);
            }
            Inputs::File(tensor) => tensor.gather(rows, into)?,
        }
        Ok(())
    }

    /// Fills `into` with the labels of these rows, rows × [`Samples::labels_per_sample`].
    pub fn labels_of(&self, rows: &[u32], into: &mut Vec<u32>) {
        into.clear();
        let len = self.input_len;
        match &self.targets {
            Targets::Labels { labels, each, .. } => {
                let add = |row: &u32| into.extend_from_slice(part(labels, *row, *each));
                rows.iter().for_each(add);
            }
            Targets::Next { tokens, .. } => {
                let add = |row: &u32| tokens.add_labels(*row as usize * len + 1, len, into);
                rows.iter().for_each(add);
            }
            Targets::Values { .. } => {}
        }
    }

    /// Fills `into` with the numbers to predict of these rows, rows × [`Samples::target_width`].
    pub fn values_of(&self, rows: &[u32], into: &mut Vec<f32>) {
        into.clear();
        if let Targets::Values { values, width, .. } = &self.targets {
            let add = |row: &u32| into.extend_from_slice(part(values, *row, *width));
            rows.iter().for_each(add);
        }
    }

    /// Refuses samples whose parts do not fit each other, or a model's inputs.
    pub(crate) fn check_inputs(&self, goal: &Goal) -> Result<(), EngineError> {
        if self.input_len != goal.inputs {
            return Err(EngineError::Data(format!(
                "a sample has {} values, the model takes {}",
                self.input_len, goal.inputs
            )));
        }
        self.check_parts().map_err(EngineError::Data)
    }

    /// Refuses samples that do not fit a model, or what its outputs are fitted to.
    pub(crate) fn check(&self, goal: &Goal) -> Result<(), EngineError> {
        self.check_inputs(goal)?;
        let checked = match &self.targets {
            Targets::Values {
                width, no_share, ..
            } => check_values(*no_share, *width, goal),
            Targets::Labels {
                labels,
                each,
                classes,
                largest,
            } => check_labels(*each, *classes, goal).and_then(|()| {
                if (*largest as usize) < goal.classes() {
                    return Ok(());
                }
                let place = labels.iter().position(|label| label == largest);
                Err(format!(
                    "label {largest} of sample {} is not below {}, the model's outputs",
                    place.unwrap_or(0) / each,
                    goal.outputs
                ))
            }),
            Targets::Next { classes, .. } => check_labels(self.input_len, *classes, goal),
        };
        checked.map_err(EngineError::Data)
    }

    fn check_parts(&self) -> Result<(), String> {
        let (samples, input_len) = (self.len(), self.input_len);
        let values = match &self.inputs {
            Inputs::Values(values) => values.len(),
            Inputs::Bytes(bytes, _) => bytes.len(),
            // The files were held to it.
            Inputs::Text(..) | Inputs::File(_) => return Ok(()),
        };
        if Some(values) != samples.checked_mul(input_len) {
            return Err(format!(
                "{values} values are not {samples} samples of {input_len}"
            ));
        }
        match &self.targets {
            Targets::Values { values, width, .. } if values.len() != samples * width => {
                Err(format!(
                    "{} numbers to predict are not {width} a sample",
                    values.len()
                ))
            }
            Targets::Labels { labels, each, .. } if labels.len() != samples * each => {
                Err(format!("{} labels are not {each} a sample", labels.len()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a goal takes such labels.
fn check_labels(each: usize, classes: usize, goal: &Goal) -> Result<(), String> {
    if each != goal.positions {
        return Err(format!(
            "a sample has {each} labels, the model answers {} times a sample",
            goal.positions
        ));
    }
    let outputs = goal.outputs;
    if classes > goal.classes() {
        return Err(format!(
            "{classes} classes, but the model's last layer has {outputs} outputs"
        ));
    }
    Ok(())
}

/// Whether a goal takes such numbers.
fn check_values(no_share: Option<f32>, width: usize, goal: &Goal) -> Result<(), String> {
    let outputs = goal.outputs * goal.positions;
    if goal.loss == Loss::CrossEntropy {
        return Err(format!(
            "a sample has {width} numbers to predict, but the model tells classes apart: loss = \"mean_square\" fits numbers"
        ));
    }
    if width != outputs {
        return Err(format!(
            "a sample has {width} numbers to predict, the model has {outputs} outputs"
        ));
    }
    match no_share {
        Some(value) if goal.loss == Loss::BinaryCrossEntropy => Err(format!(
            "{value} is to be predicted, but the loss takes 0 to 1: loss = \"mean_square\" fits any numbers"
        )),
        _ => Ok(()),
    }
}

/// One row of so many values.
fn part<T>(values: &[T], row: u32, len: usize) -> &[T] {
    let start = row as usize * len;
    &values[start..start + len]
}
