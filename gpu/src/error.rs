//! Why an engine refuses: each variant names its cause, and where it lies.

use cryptomind_protocol::model::ModelError;
use cryptomind_protocol::task::TaskError;
use cryptomind_protocol::{ErrorBody, ErrorClass};

use crate::dataset::DataError;

/// Why a session or a model cannot go on. The state that was committed is untouched.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model cannot be built.
    #[error("model: {0}")]
    Model(#[from] ModelError),
    /// The hyper-parameters make no sense.
    #[error(transparent)]
    Train(#[from] TaskError),
    /// The model needs more memory at once than an engine takes.
    #[error("one sample needs {values} intermediate values; an engine takes {limit} at most")]
    TooWide {
        /// Values that one sample needs.
        values: u64,
        /// Values that an engine takes.
        limit: u64,
    },
    /// A layer needs more memory for one sample than an engine takes.
    #[error(
        "layer {}: {values} values of scratch for one sample; an engine takes {limit} at most: a smaller kernel or image helps",
        layer + 1
    )]
    LayerTooWide {
        /// The layer, counted from 0; shown counted from 1.
        layer: usize,
        /// Values that it needs.
        values: u64,
        /// Values that an engine takes.
        limit: u64,
    },
    /// The samples do not fit the model, or the batch does not fit the samples.
    #[error("data: {0}")]
    Data(String),
    /// The samples cannot be read, or not any more.
    #[error(transparent)]
    Samples(#[from] DataError),
    /// A loss, a gradient or a parameter became infinite or not a number.
    #[error(
        "step {step}: {what} of layer {} is infinite or not a number; a lower learning rate or scaled inputs help",
        layer + 1
    )]
    NotFinite {
        /// The step that is refused, counted from 1.
        step: u64,
        /// The layer where it was first seen, counted from 0; shown counted from 1.
        layer: usize,
        /// `output`, `loss`, `gradient`, `updated parameter` or `optimizer's state`.
        what: &'static str,
    },
    /// Calls in an order that makes no step.
    #[error("{0}")]
    Order(&'static str),
    /// A file of weights that is not what it should be.
    #[error("weights: {0}")]
    Weights(String),
    /// Whoever asked for it does not want it any more.
    #[error("it was stopped before it was done")]
    Stopped,
    /// candle refused an operation.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl EngineError {
    /// Whether the task itself is at fault, so that no other miner could do it either.
    pub const fn is_task_fault(&self) -> bool {
        match self {
            Self::Model(_) | Self::Train(_) => true,
            Self::TooWide { .. } | Self::LayerTooWide { .. } => true,
            Self::Data(_) | Self::NotFinite { .. } => true,
            // The files are what the catalog names, byte for byte: nobody would read them otherwise.
            Self::Samples(error) => !matches!(error, DataError::Io { .. }),
            Self::Order(_) | Self::Weights(_) | Self::Stopped | Self::Tensor(_) => false,
        }
    }
}

impl From<EngineError> for ErrorBody {
    fn from(error: EngineError) -> Self {
        let (class, code) = match &error {
            EngineError::Model(_) => (ErrorClass::User, "invalid_model"),
            EngineError::Train(_) => (ErrorClass::User, "invalid_task"),
            EngineError::TooWide { .. } | EngineError::LayerTooWide { .. } => {
                (ErrorClass::User, "model_too_large")
            }
            EngineError::Data(_) => (ErrorClass::User, "data_mismatch"),
            EngineError::Samples(_) => (ErrorClass::User, "invalid_dataset"),
            EngineError::NotFinite { .. } => (ErrorClass::Task, "not_finite"),
            EngineError::Weights(_) => (ErrorClass::User, "invalid_weights"),
            EngineError::Stopped => (ErrorClass::User, "interrupted"),
            EngineError::Order(_) | EngineError::Tensor(_) => (ErrorClass::Internal, "internal"),
        };
        Self::new(class, code, error)
    }
}
