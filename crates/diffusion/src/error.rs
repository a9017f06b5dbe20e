//! The one error type of this crate.

use afterimage_checkpoint::CheckpointError;

use crate::Canvas;

/// What can go wrong while a model is loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum DiffusionError {
    /// A file, a configuration key or a tensor is not what the model needs.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),

    /// Two components of a model do not fit each other.
    #[error("{model}: {reason}")]
    Mismatch {
        /// The model.
        model: String,
        /// Which sizes differ.
        reason: String,
    },

    /// A key of the scheduler's configuration has a value that cannot be served.
    #[error("scheduler_config.json: {key} is {found}; supported: {supported}")]
    SchedulerKey {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What would be right.
        supported: String,
    },

    /// A scheduler is unknown, does not fit the model, or its configuration as a whole cannot be served.
    #[error("{0}")]
    Scheduler(String),

    /// A number of denoising steps that the model's scheduler cannot do; another number may be possible.
    #[error("{0}")]
    InferenceSteps(String),

    /// A scheduler was asked for more steps than it was made for.
    #[error("the scheduler has made all its {0} steps already")]
    NoStepLeft(usize),

    /// An option of loading does not fit the model.
    #[error("{option} {reason}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is wrong.
        reason: String,
    },

    /// A size that the model cannot make.
    #[error("bucket {canvas}: {reason}")]
    Bucket {
        /// The size.
        canvas: Canvas,
        /// What the model can make.
        reason: String,
    },

    /// A size larger than those that are to be served.
    #[error("the size {canvas} has more than {max_pixels} pixels")]
    TooManyPixels {
        /// The size.
        canvas: Canvas,
        /// Most pixels.
        max_pixels: usize,
    },

    /// A prompt that means nothing to the model, or that its tokenizer cannot read.
    #[error("{0}")]
    Prompt(String),

    /// A random model that is not known, or has no place.
    #[error("{0}")]
    RandomModel(String),

    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
