//! What a client asks for, before it is checked against the model.

mod bucket_choice;
mod finished_request;
mod hold;
mod image_spec;
mod owner;
mod picture;
mod planned_request;
mod preview;
mod sample;
mod seeds;
mod size;
mod ticket;

use afterimage_cache::CacheConfig;
use afterimage_diffusion::schedulers::SchedulerKind;

pub use bucket_choice::{BucketChoice, ParseBucketChoiceError};
pub use finished_request::{FinishedRequest, RequestFailure, Timings};
pub use hold::Hold;
pub use image_spec::ImageSpec;
pub use owner::Owner;
pub use picture::RgbImage;
pub use planned_request::PlannedRequest;
pub use preview::{Preview, PreviewCount};
pub use sample::{SampleFailure, SampleSink, UncachedImage};
pub use seeds::Seeds;
pub use size::{BucketPolicy, ParseSizeError, Size};
pub(crate) use ticket::{Outcome, ticket};
pub use ticket::{Progress, Ticket};

/// A request for one or more images. `None` takes the model's default.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// Text; for a class-conditional model one of its labels.
    pub prompt: String,
    /// What should not be in the picture.
    pub negative_prompt: Option<String>,
    /// Number of images; image `k` uses seed `seed + k`.
    pub images: usize,
    /// One of the model's buckets.
    pub size: Option<Size>,
    /// Seed of the first image.
    pub seed: u64,
    /// Denoising steps.
    pub num_inference_steps: Option<usize>,
    /// Strength of classifier-free guidance.
    pub guidance_scale: Option<f64>,
    /// Second-forward guidance of FLUX and Qwen style models.
    pub true_cfg_scale: Option<f64>,
    /// Noise scheduler.
    pub scheduler: Option<SchedulerKind>,
    /// Caching.
    pub cache: CacheConfig,
    /// Previews of every image on its way, taken with [`Ticket::previews`].
    pub previews: PreviewCount,
}

/// A part of a request that is not done as it was asked for, although the request is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestWarning {
    /// The request field, dotted.
    pub param: String,
    /// Machine-readable reason in snake case.
    pub code: &'static str,
    /// What is done instead, and why.
    pub message: String,
}

/// A request this model cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The request field at fault, dotted (`cache_config.Fn_compute_blocks`).
    pub param: String,
    /// Machine-readable reason in snake case.
    pub code: &'static str,
    /// What was wrong, what was found and what would be right.
    pub message: String,
}
