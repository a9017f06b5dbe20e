//! Why a study ends before its end.

use afterimage_runner::{RequestError, RequestFailure, SubmitError};

use crate::likeness::LikenessError;

/// A study that cannot be done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// There is nothing to make.
    #[error("a study needs at least one prompt and one seed")]
    NoPictures,
    /// The uncached pictures cannot be made on this model.
    #[error("{0}")]
    Request(RequestError),
    /// A setting cannot be used on this model.
    #[error("{name}: {source}")]
    Setting {
        /// Place in [`crate::Grid::settings`].
        index: usize,
        /// The setting's name.
        name: String,
        /// Why.
        source: RequestError,
    },
    /// The engine accepts nothing more.
    #[error("{0}")]
    Submit(#[from] SubmitError),
    /// A picture was not made.
    #[error("{0}")]
    Picture(#[from] RequestFailure),
    /// Two pictures of one request differ in size, which is a fault of the model.
    #[error("{0}")]
    Likeness(#[from] LikenessError),
    /// Pictures are too small to be compared by SSIM.
    #[error("the pictures are smaller than the 7 x 7 pixels that SSIM compares")]
    NotComparable,
    /// The clock stood still.
    #[error("the pictures took no measurable time")]
    NotTimed,
    /// What was measured is nothing that a profile holds, which is a fault of this program.
    #[error("internal error: {0}")]
    Profile(String),
    /// A setting that is searched cannot be parsed, which is a fault of this program.
    #[error("internal error: {0}")]
    Config(#[from] afterimage_cache::ConfigError),
    /// The operating system gives no runtime to wait in.
    #[error("cannot wait for pictures: {0}")]
    Runtime(#[from] std::io::Error),
    /// It was asked to stop.
    #[error("the study was cancelled")]
    Cancelled,
}
