//! A sweep's body and report, as documentation: the body is parsed by hand, the report is the study's.

#![allow(dead_code, reason = "documentation: the types are never built")]

use serde::Serialize;
use utoipa::ToSchema;

use super::cache_settings::SchedulerName;

/// The picture to measure caches on. Absent and null are the same
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SweepRequest)]
pub(in crate::api) struct SweepBody {
    /// What the picture should show: one of the model's labels, or `class:N`, for a class-conditional model
    #[schema(min_length = 1)]
    prompt: String,
    /// What should not be in the picture; refused where it can have no effect, unless it is empty
    negative_prompt: Option<String>,
    /// A served id
    model: Option<String>,
    /// How often every setting is timed, in turns; the median counts
    #[schema(minimum = 1, maximum = 5, default = 1)]
    repeats: Option<i64>,
    /// One of the model's sizes
    #[schema(pattern = "^(auto|[1-9][0-9]*x[1-9][0-9]*)$", default = "auto")]
    size: Option<String>,
    /// Absent or -1: chosen by the server and echoed
    #[schema(minimum = -1, maximum = 9_223_372_036_854_775_807_i64)]
    seed: Option<i64>,
    /// Denoising steps; absent: the model's default
    #[schema(minimum = 1, maximum = 200)]
    num_inference_steps: Option<i64>,
    /// As in a generation
    #[schema(minimum = 0, maximum = 20)]
    guidance_scale: Option<f64>,
    /// As in a generation
    #[schema(minimum = 0, maximum = 20)]
    true_cfg_scale: Option<f64>,
    /// Absent: the model's own
    scheduler: Option<SchedulerName>,
}

/// What was measured
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct SweepReport {
    model: String,
    device: String,
    /// `f32`, `bf16` or `f16`, and what `--quantize` made of matrices: `f32, int8`
    dtype: String,
    scheduler: String,
    steps: u64,
    guidance_scale: f64,
    prompts: Vec<String>,
    seeds: Vec<u64>,
    complete: bool,
    /// The uncached picture first
    rows: Vec<SweepRow>,
}

/// A setting, with what it costs and brings. It has further figures, which `afterimage bench --json` writes too
#[derive(Serialize, ToSchema)]
pub(in crate::api) struct SweepRow {
    name: String,
    cache_backend: String,
    /// Every key in force; gives the same picture when sent in a request
    #[schema(value_type = Object)]
    cache_config: (),
    /// Of the steps of a picture
    #[schema(required)]
    seconds: Option<f64>,
    /// Seconds of the uncached picture through these
    #[schema(required)]
    speedup: Option<f64>,
    /// What `speedup` would be if all took as long as the blocks that run
    speedup_bound: f64,
    /// Reused share of all passes through a block list
    hit_rate: f64,
    /// Steps reused
    cached_steps: f64,
    /// Against the uncached picture; 99 for equal ones
    #[schema(required)]
    psnr_db: Option<f64>,
    #[schema(required)]
    ssim: Option<f64>,
}
