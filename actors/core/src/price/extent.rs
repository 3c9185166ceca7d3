//! What a task amounts to: how much is computed, over how many samples, and what it leaves behind.

use cryptomind_protocol::item::{DatasetInfo, ModelInfo};
use cryptomind_protocol::model::{Loss, ModelMisfit, ModelSpec};
use cryptomind_protocol::serve::{MAX_CALL_BYTES, byte_len};
use cryptomind_protocol::task::{TaskSpec, Work};
use serde::{Deserialize, Serialize};

use super::PriceError;

/// Bytes of a safetensors header or a model card, above the weights; generous.
const RESULT_OVERHEAD_BYTES: u64 = 256 * 1024;
/// Bytes of one line of an inference's answers, above the class's name: index, label, probability.
const ANSWER_BYTES: u64 = 64;
/// Bytes of an f32.
const F32_BYTES: u64 = 4;

/// A task's extent. It follows from the task, its dataset and its model; the group plays no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Samples of one pass over the split: at most 2³², as sample indices are u32.
    pub samples: u32,
    /// Samples over all passes: what is earned by.
    pub total_samples: u64,
    /// Optimizer steps; 1 for an inference, the samples of a session.
    pub steps: u64,
    /// Floating-point operations of one sample, as the graph counts them.
    pub flops_per_sample: u64,
    /// The least that the results take, bytes.
    pub result_bytes_min: u64,
    /// The most that is charged for the results, bytes.
    pub result_bytes_max: u64,
}

fn misfit(field: &'static str, reason: String) -> PriceError {
    PriceError::Misfit { field, reason }
}

impl Extent {
    /// The extent of `spec` on its dataset, where it has one, and, for an inference, its model. Refuses a task whose
    /// model does not fit its dataset. `spec.check()` must have passed.
    pub fn of<'a>(
        spec: &TaskSpec,
        dataset: impl Into<Option<&'a DatasetInfo>>,
        model: Option<&ModelInfo>,
    ) -> Result<Self, PriceError> {
        let dataset = || {
            dataset
                .into()
                .ok_or_else(|| misfit("dataset", "no such dataset".into()))
        };
        match &spec.work {
            Work::Train { model, train, .. } => {
                let dataset = dataset()?;
                let samples = fit(model, dataset, dataset.train_samples)?;
                let epochs = u64::from(train.epochs);
                let weights = model.parameter_count() * F32_BYTES;
                Ok(Self {
                    samples,
                    total_samples: u64::from(samples) * epochs,
                    steps: train.total_steps(samples.into()),
                    flops_per_sample: model.training_flops(),
                    result_bytes_min: weights,
                    result_bytes_max: weights + RESULT_OVERHEAD_BYTES,
                })
            }
            Work::Infer { split, .. } => {
                let model = model.ok_or_else(|| misfit("model", "no such model".into()))?;
                let dataset = dataset()?;
                let samples = fit(&model.spec, dataset, dataset.samples(*split))?;
                let longest = model.classes.iter().map(|c| c.len() as u64).max();
                let line = ANSWER_BYTES.saturating_add(longest.unwrap_or(0));
                Ok(Self {
                    samples,
                    total_samples: samples.into(),
                    steps: 1,
                    flops_per_sample: model.spec.forward_flops(),
                    result_bytes_min: u64::from(samples),
                    result_bytes_max: line
                        .saturating_mul(samples.into())
                        .saturating_add(RESULT_OVERHEAD_BYTES),
                })
            }
            Work::Serve { samples_max, .. } => {
                let model = model.ok_or_else(|| misfit("model", "no such model".into()))?;
                fit_call(&model.spec)?;
                tells_classes_apart(&model.spec)?;
                Ok(Self {
                    samples: *samples_max,
                    total_samples: (*samples_max).into(),
                    steps: (*samples_max).into(),
                    flops_per_sample: model.spec.forward_flops(),
                    result_bytes_min: 0,
                    result_bytes_max: 0,
                })
            }
        }
    }

    /// Floating-point operations of the whole task.
    pub fn flops(&self) -> u128 {
        u128::from(self.flops_per_sample) * u128::from(self.total_samples)
    }
}

/// Refuses a model whose answers to calls would have no classes.
fn tells_classes_apart(model: &ModelSpec) -> Result<(), PriceError> {
    match model.loss {
        Loss::CrossEntropy => Ok(()),
        loss => Err(misfit(
            "model",
            format!(
                "it was fitted by {}: calls are answered by classifiers; `model infer --dataset` runs it over a dataset",
                loss.name()
            ),
        )),
    }
}

/// Refuses a model of which not even one sample fits a call.
fn fit_call(model: &ModelSpec) -> Result<(), PriceError> {
    let widest = model.input_len().max(model.output_len().unwrap_or(0));
    let bytes = byte_len(1, widest);
    if bytes <= MAX_CALL_BYTES {
        return Ok(());
    }
    let reason = format!("{bytes} bytes a sample: a call carries at most {MAX_CALL_BYTES}");
    Err(misfit("model", reason))
}

/// The samples of a split, where the model fits the dataset.
fn fit(model: &ModelSpec, dataset: &DatasetInfo, samples: u64) -> Result<u32, PriceError> {
    let refuse = |e: ModelMisfit| misfit(e.misfit.key(), e.to_string());
    model.fits(dataset).map_err(refuse)?;
    match u32::try_from(samples) {
        Ok(0) => Err(misfit("dataset", "it has no samples in this split".into())),
        Ok(samples) => Ok(samples),
        Err(_) => {
            let reason = format!("{samples} samples: at most {} are possible", u32::MAX);
            Err(misfit("dataset", reason))
        }
    }
}
