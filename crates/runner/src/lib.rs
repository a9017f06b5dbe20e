//! Diffusion transformer pipelines and the worker that runs them step by step.
//!
//! A model folder in diffusers layout becomes a pipeline; a request becomes one running image per
//! picture; each worker thread advances the running images of one size together, one denoising step at
//! a time, so requests join, are watched and leave between steps. Caching is the business of
//! `afterimage-cache`: model files here only expose their block lists.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests look at values"))]

mod admission;
mod batching;
mod calibrate;
mod engine;
mod error;
mod fair_share;
mod memory;
mod model_info;
mod pipeline;
mod replicas;
mod request;

pub use afterimage_checkpoint::guard::panic_text;
pub use afterimage_checkpoint::{
    CACHE_PROFILE_FILE, FetchProgress, GivenFile, HubOptions, LoggedProgress, MODEL_FIT_FILE, ModelFolder,
    Quantization, Token, existing, is_variant, plain_file, resolve,
};
/// How pictures are computed on the CPU.
pub mod cpu {
    pub use afterimage_kernels::{Isa, IsaError, keep_freed_memory, set_threads, threads};
}

pub use afterimage_diffusion::families::{Guidance, GuidanceKind, LabelPolicy, Labels};
pub use afterimage_diffusion::noise::{NoiseGenerator, randn};
pub use afterimage_diffusion::random::{RandomModelKind, write_random_model};
pub use afterimage_diffusion::text::{Offload, PromptLimit};
pub use afterimage_diffusion::{BlockRuns, Precision, block_runs, schedulers};
pub use batching::{BucketEstimate, EngineStatistics, SubmitError};
pub use calibrate::calibrate;
pub use engine::{Engine, EngineOptions};
pub use error::RunnerError;
pub use fair_share::{SharedUse, UsesByOwner};
pub use model_info::ModelInfo;
pub use pipeline::{DeviceSpec, LoadOptions, ParseDeviceError, Pipeline, Place, PromptCacheStatistics, RunningImage};
pub use replicas::Replicas;
pub use request::{
    BucketChoice, BucketPolicy, FinishedRequest, Hold, ImageRequest, ImageSpec, Owner, ParseBucketChoiceError,
    ParseSizeError, PlannedRequest, Preview, PreviewCount, Progress, RequestError, RequestFailure, RequestWarning,
    RgbImage, SampleFailure, SampleSink, Seeds, Size, Ticket, Timings, UncachedImage,
};
