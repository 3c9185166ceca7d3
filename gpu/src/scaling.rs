//! What stands between a value as people have it and a value as a network was trained on it.
//!
//! Training scales by what its dataset says: columns of a table by mean and deviation of the training rows, grey values by
//! the largest. Whoever calls the network later has neither, so the numbers go with the weights: as two entries of the
//! safetensors file's metadata, `input_shift` and `input_scale`, each a JSON list of one number for all values of a sample
//! or of one a value. Of a file without them nobody knows: calls pass its network
//! values as they are, and tasks over a dataset scale as the dataset proposes.

use std::collections::{BTreeMap, HashMap};

use crate::error::EngineError;

const SHIFT: &str = "input_shift";
const SCALE: &str = "input_scale";

/// An input is (value − shift) ÷ scale, computed in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// As many as `scale`.
    shift: Vec<f64>,
    /// One, or one a value of a sample; finite and not 0.
    scale: Vec<f64>,
}

impl Scaling {
    /// All values divided by this one, which is above 0.
    pub(crate) fn divided_by(scale: f64) -> Self {
        Self {
            shift: vec![0.0],
            scale: vec![scale],
        }
    }

    /// Values as they are.
    pub(crate) fn none() -> Self {
        Self::divided_by(1.0)
    }

    /// Values by their column's mean and deviation, which is above 0.
    pub(crate) fn of_columns(columns: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let (shift, scale) = columns.into_iter().unzip();
        Self { shift, scale }
    }

    /// For how many values it has numbers; with 1, any number of values.
    pub(crate) fn len(&self) -> usize {
        self.scale.len()
    }

    /// Whether it is for samples of so many values.
    pub(crate) fn fits(&self, input_len: usize) -> bool {
        self.scale.len() == 1 || self.scale.len() == input_len
    }

    /// One value of a sample, as the network takes it.
    pub(crate) fn value(&self, place: usize, value: f64) -> f32 {
        let at = if self.scale.len() == 1 { 0 } else { place };
        ((value - self.shift[at]) / self.scale[at]) as f32
    }

    /// Adds one sample's values to `into`, as the network takes them.
    pub(crate) fn add(&self, sample: impl Iterator<Item = f32>, into: &mut Vec<f32>) {
        if self.shift == [0.0] && self.scale == [1.0] {
            into.extend(sample);
            return;
        }
        let scaled = |(place, value)| self.value(place, f64::from(value));
        into.extend(sample.enumerate().map(scaled));
    }

    /// Whole samples of `input_len` values each, one after the other.
    pub(crate) fn samples(&self, input_len: usize, values: &mut [f32]) {
        for sample in values.chunks_mut(input_len) {
            for (place, value) in sample.iter_mut().enumerate() {
                *value = self.value(place, f64::from(*value));
            }
        }
    }

    /// Its entries in a weights' file. Numbers are written so that they are read as the same bits.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let list = |numbers: &[f64]| serde_json::json!(numbers).to_string();
        BTreeMap::from([
            (SHIFT.into(), list(&self.shift)),
            (SCALE.into(), list(&self.scale)),
        ])
    }

    /// What a weights' file, perhaps a stranger's, says of samples of so many values.
    pub(crate) fn read(
        metadata: &HashMap<String, String>,
        input_len: usize,
    ) -> Result<Option<Self>, EngineError> {
        let list = |key: &str| metadata.get(key).map(|text| numbers(key, text)).transpose();
        let (shift, scale) = match (list(SHIFT)?, list(SCALE)?) {
            (None, None) => return Ok(None),
            (Some(shift), Some(scale)) => (shift, scale),
            _ => {
                return refuse(format!(
                    "`{SHIFT}` and `{SCALE}` come together or not at all"
                ));
            }
        };
        let scaling = Self { shift, scale };
        let count = scaling.scale.len();
        if scaling.shift.len() != count || !scaling.fits(input_len) {
            return refuse(format!(
                "`{SHIFT}` has {} numbers and `{SCALE}` {count}: both have 1, or the {input_len} of a sample",
                scaling.shift.len()
            ));
        }
        match scaling.scale.contains(&0.0) {
            true => refuse(format!("`{SCALE}` divides by 0")),
            false => Ok(Some(scaling)),
        }
    }
}

/// What each value of a byte becomes: worked out once, as a division a value would be felt in every batch.
#[derive(Debug, Clone)]
pub(crate) enum Shades {
    /// All values of a sample are scaled alike.
    Alike(Box<[f32; 256]>),
    /// Each place of a sample has its own numbers.
    Each(Scaling),
}

impl Shades {
    pub(crate) fn new(scaling: &Scaling) -> Self {
        match scaling.len() {
            1 => {
                let shade = |byte| scaling.value(0, byte as f64);
                Self::Alike(Box::new(std::array::from_fn(shade)))
            }
            _ => Self::Each(scaling.clone()),
        }
    }

    /// Adds one sample's bytes to `into`, as the network takes them.
    pub(crate) fn add(&self, sample: &[u8], into: &mut Vec<f32>) {
        match self {
            Self::Alike(table) => into.extend(sample.iter().map(|b| table[usize::from(*b)])),
            Self::Each(scaling) => scaling.add(sample.iter().map(|b| f32::from(*b)), into),
        }
    }
}

/// JSON has no infinite numbers, so these are finite.
fn numbers(key: &str, text: &str) -> Result<Vec<f64>, EngineError> {
    serde_json::from_str(text)
        .map_err(|e| EngineError::Weights(format!("`{key}` is no list of numbers: {e}")))
}

fn refuse<T>(reason: String) -> Result<T, EngineError> {
    Err(EngineError::Weights(reason))
}

#[cfg(test)]
mod tests;
