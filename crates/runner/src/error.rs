//! The one error type of this crate.

use crate::device_spec::DeviceSpec;

/// What can go wrong while a model is loaded or an image is made.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A model folder, one of its files or one of its tensors is not what the model needs.
    /// The text names the file or tensor, what was found and what would be right.
    #[error("{0}")]
    Model(String),

    /// A number of denoising steps that the model's scheduler cannot do; another number may be possible.
    #[error("{0}")]
    InferenceSteps(String),

    /// An option of the engine makes no sense.
    #[error("{0}")]
    Options(String),

    /// A device cannot be used.
    #[error("device {device}: {reason}")]
    Device {
        /// The device.
        device: DeviceSpec,
        /// Why not.
        reason: String,
    },

    /// Reading a file failed.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// The system gave no thread.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[source] std::io::Error),

    /// Writing a file failed.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}
