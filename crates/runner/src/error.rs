//! The one error type of this crate.

use std::error::Error;

use afterimage_checkpoint::CheckpointError;
use afterimage_diffusion::DiffusionError;

use crate::request::Size;

/// What can go wrong while a model is loaded or an image is made.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The model, one of its files or what is asked of it.
    #[error(transparent)]
    Model(DiffusionError),

    /// The model's own scheduler cannot be used.
    #[error("{0}; `--scheduler CLASS` puts one of these in its place")]
    OwnScheduler(#[source] DiffusionError),

    /// An option of loading does not fit the model.
    #[error("{option}: {message}")]
    LoadOption {
        /// The field of [`LoadOptions`](crate::LoadOptions).
        option: &'static str,
        /// What was found and what would be right.
        message: String,
    },

    /// An option of the engine makes no sense.
    #[error("{0}")]
    Options(String),

    /// An option asks for more memory than a device has.
    #[error("{option}: {message}")]
    Memory {
        /// As a command line names it.
        option: &'static str,
        /// What was found and what would be right.
        message: String,
    },

    /// A device is too small for a model.
    #[error("device {device}: {reason}")]
    Device {
        /// The device, as a command line names it.
        device: String,
        /// Why not.
        reason: String,
    },

    /// A size larger than those that are to be served.
    #[error("the size {size} has {} pixels, more than the {max_pixels} that are allowed", .size.pixels())]
    TooManyPixels {
        /// The size.
        size: Size,
        /// Most pixels.
        max_pixels: usize,
    },

    /// Latents that hold NaN or infinity.
    #[error("the latents are not finite")]
    NotFinite,

    /// A decoder that made NaN or infinity of finite latents.
    #[error(
        "the decoded picture is not finite: the VAE's weights do not fit, or overflow in this precision (--dtype f32)"
    )]
    PictureNotFinite,

    /// An image is asked for more steps than it has.
    #[error("the image has no step left")]
    NoStepLeft,

    /// Too little was measured to fit a model.
    #[error("{steps} steps do not determine a polynomial; run more images or more steps")]
    Calibration {
        /// Steps that were measured.
        steps: usize,
    },

    /// The first images, which a worker makes before it says that it is ready, ended in a panic.
    #[error("the warm-up ended in a panic")]
    WarmUp,

    /// The system gave no thread.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[source] std::io::Error),

    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl RunnerError {
    /// What it says, and what those behind it say beyond that.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let reason = error.to_string();
            if !text.contains(&reason) {
                text = format!("{text}: {reason}");
            }
            cause = error.source();
        }
        text
    }
}

impl From<DiffusionError> for RunnerError {
    fn from(error: DiffusionError) -> Self {
        match error {
            DiffusionError::TooManyPixels { canvas, max_pixels } => {
                Self::TooManyPixels { size: Size::of(canvas), max_pixels }
            }
            other => Self::Model(other),
        }
    }
}

impl From<CheckpointError> for RunnerError {
    fn from(error: CheckpointError) -> Self {
        Self::Model(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("allocating failed")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_told_unless_they_were_already() {
        let cause = || std::io::Error::other("CUDA_ERROR_OUT_OF_MEMORY");
        let error = RunnerError::Tensor(candle_core::Error::Cuda(Box::new(Outer(cause()))));
        assert_eq!(error.with_causes(), "allocating failed: CUDA_ERROR_OUT_OF_MEMORY");
        let told = "cannot start a worker thread: CUDA_ERROR_OUT_OF_MEMORY";
        assert_eq!(RunnerError::Thread(cause()).with_causes(), told);
    }
}
