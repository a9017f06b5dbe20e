//! What comes of an accepted request.

use std::sync::Arc;
use std::time::Duration;

use afterimage_cache::CacheReport;
use afterimage_checkpoint::Quantization;

use super::{ImageSpec, RequestWarning, RgbImage, Seeds};

/// The images of a request and how they came about.
#[derive(Debug)]
pub struct FinishedRequest {
    /// What the images are made of.
    pub spec: Arc<ImageSpec>,
    /// Their seeds; each gives its picture alone, too.
    pub seeds: Seeds,
    /// What they were computed in: `f32`, `bf16` or `f16`.
    pub dtype: &'static str,
    /// What the matrices of the transformer's blocks were.
    pub quantization: Quantization,
    /// In order of their seeds.
    pub images: Vec<RgbImage>,
    /// What the cache did.
    pub cache: CacheReport,
    /// Where the time went.
    pub timings: Timings,
    /// What of the request was not done as it was asked for.
    pub warnings: Vec<RequestWarning>,
    /// The device that made them, counted from 0.
    pub device: usize,
}

/// Seconds a request spent in each stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// From acceptance to the start of the first image.
    pub queue_seconds: f64,
    /// Noise and conditioning.
    pub encode_seconds: f64,
    /// The steps its images took part in, shared ones in full.
    pub denoise_seconds: f64,
    /// VAE decoding.
    pub decode_seconds: f64,
}

/// Why an accepted request gave no images.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailure {
    /// The request failed; the worker goes on.
    #[error("the image could not be made: {0}")]
    Failed(String),
    /// The request was cancelled.
    #[error("the request was cancelled")]
    Cancelled,
    /// The request was not done within its time.
    #[error("the request was not done within {} s (--request-timeout)", timeout.as_secs_f64())]
    TimedOut {
        /// The time it had.
        timeout: Duration,
    },
}
