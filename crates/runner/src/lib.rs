//! Diffusion transformer pipelines and the worker that runs them step by step.
//!
//! A model folder in diffusers layout becomes a pipeline; a request becomes one running image per
//! picture; each worker thread advances the running images of one size together, one denoising step at
//! a time, so requests join, are watched and leave between steps. Caching is the business of
//! `afterimage-cache`: model files here only expose their block lists.

mod activation;
mod admission;
mod batching;
mod bucket_choice;
mod calibration;
mod component_config;
mod conditioning;
#[cfg(test)]
mod config_variants;
mod convolution;
mod device_spec;
mod dit;
mod embedded;
mod engine;
mod error;
mod flux;
#[cfg(test)]
mod golden_fixture;
mod hub;
mod image;
mod job;
mod labels;
mod layers;
mod lenient_json;
mod model_folder;
mod model_info;
mod noise;
mod pipeline;
mod pixart;
mod precision;
mod preview;
mod prompt_cache;
mod random_model;
mod replicas;
mod request;
pub mod schedulers;
mod sd3;
mod size;
mod text;
mod vae;
mod weights;

pub use batching::{BucketEstimate, EngineStatistics, SubmitError};
pub use bucket_choice::{BucketChoice, ParseBucketChoiceError};
pub use calibration::calibrate;
pub use device_spec::{DeviceSpec, ParseDeviceError};
pub use engine::{Engine, EngineOptions};
pub use error::RunnerError;
pub use hub::{FetchProgress, HubOptions, LoggedProgress, Token, existing, resolve};
pub use image::RgbImage;
pub use job::{FinishedImage, FinishedJob, Job, JobError, Progress, Ticket, Timings};
pub use labels::{LabelPolicy, Labels};
pub use model_folder::ModelFolder;
pub use model_info::ModelInfo;
pub use noise::{NoiseGenerator, randn};
pub use pipeline::{CALIBRATION_FILE, Guidance, GuidanceKind, ImageSpec, LoadOptions, Pipeline, RunningImage};
pub use precision::Precision;
pub use preview::{Preview, PreviewCount};
pub use prompt_cache::PromptCacheStatistics;
pub use random_model::{RandomModelKind, write_random_model};
pub use replicas::Replicas;
pub use request::{ImageRequest, RequestError, RequestWarning};
pub use size::{BucketPolicy, ParseSizeError, Size};
pub use text::{Offload, PromptLimit};
pub use weights::{Weights, is_variant};
