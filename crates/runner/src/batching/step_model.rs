//! What the step loop needs of a model.

use std::sync::Arc;

use afterimage_cache::ImageReport;
use afterimage_diffusion::Inside;

use super::batch_key::BatchKey;
use crate::error::RunnerError;
use crate::request::{ImageSpec, RequestWarning, RgbImage};

/// A model that makes images step by step, several at a time.
///
/// Errors and panics of the methods that return a `Result` are the image's; the others must not fail.
pub(crate) trait StepModel: Send + Sync + 'static {
    /// An image on its way. A clone is a snapshot that is cheap to take: tensors are shared, all that a
    /// step changes is not.
    type Image: Clone + Send;

    /// Lets a worker use its device, which it does while the answer lives: work on it, and free its memory.
    fn enter(&self) -> Option<Inside> {
        None
    }

    /// Whether setting the image up encodes texts, which is slow.
    fn must_encode(&self, spec: &ImageSpec) -> bool;

    /// Sets an image up.
    fn begin(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<Self::Image, RunnerError>;

    /// Sets an image up that is no client's: what is kept for clients (texts that were encoded) is used, but neither
    /// changed nor counted.
    fn begin_sample(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<Self::Image, RunnerError>;

    /// What the image must have in common with others to share its next step.
    fn batch_key(&self, image: &Self::Image) -> BatchKey;

    /// Makes one step of every image, all of one key. Tells of each whether its latents were free of NaN and
    /// infinity before the step: a step that looked at what it makes would have to wait for it. After an error
    /// the images are in no known state.
    fn step(&self, images: &mut [&mut Self::Image]) -> Result<Vec<bool>, RunnerError>;

    /// Whether the latents are free of NaN and infinity; asked behind the last step, as no other follows that
    /// could tell.
    fn is_finite(&self, image: &Self::Image) -> Result<bool, RunnerError>;

    /// The finished picture.
    fn decode(&self, image: &Self::Image) -> Result<RgbImage, RunnerError>;

    /// The picture as far as it is known; `None` before the first step.
    fn preview(&self, image: &Self::Image) -> Result<Option<RgbImage>, RunnerError>;

    /// What of the image's request turned out not to be done as it was asked for.
    fn warnings(&self, image: &Self::Image) -> Vec<RequestWarning>;

    /// Forwards reused so far.
    fn cached_forwards(&self, image: &Self::Image) -> usize;

    /// Whether the device may have no memory left for work, and does other work after that. The CPU does not: the process
    /// ends.
    fn can_run_out(&self) -> bool;

    /// Gives back what the device keeps and nobody uses.
    fn free_unused_memory(&self) -> Result<(), RunnerError>;

    /// What the cache decided so far.
    fn report(&self, image: &Self::Image) -> ImageReport;
}
