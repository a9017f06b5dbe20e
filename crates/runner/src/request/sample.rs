//! A picture made again without a cache, to see what the cache cost.

use std::sync::Arc;

use afterimage_cache::CachePlan;

use super::{FinishedRequest, ImageSpec, RgbImage};

/// A picture of a finished request, as it would be without a cache.
#[derive(Debug, Clone)]
pub struct UncachedImage {
    pub(crate) spec: Arc<ImageSpec>,
    pub(crate) seed: u64,
    /// The one that made the finished picture: others may round differently.
    pub(crate) device: usize,
}

/// Takes what became of a sample. It is called exactly once: with a picture on the worker's thread, which looks after
/// requests again only then.
pub type SampleSink = Box<dyn FnOnce(Result<RgbImage, SampleFailure>) + Send>;

/// Why there is no picture of a sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleFailure {
    /// It could not be made.
    #[error("the sample could not be made: {0}")]
    Failed(String),
    /// As many wait for the device as may.
    #[error("too many samples wait")]
    QueueFull,
    /// The engine is shutting down.
    #[error("the engine is shutting down")]
    Closed,
}

impl UncachedImage {
    /// Of one of the request's images.
    pub fn of(finished: &FinishedRequest, image: usize) -> Self {
        let spec = ImageSpec { cache: CachePlan::None, ..ImageSpec::clone(&finished.spec) };
        Self { spec: Arc::new(spec), seed: finished.seeds.of(image), device: finished.device }
    }
}
