//! What a loaded model offers, for the API that serves it.

use crate::labels::Labels;
use crate::schedulers::SchedulerKind;
use crate::size::Size;

/// Facts about a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Folder name or hub id.
    pub id: String,
    /// diffusers class of the pipeline.
    pub pipeline: &'static str,
    /// Names and numbers of blocks of the block lists.
    pub block_lists: Vec<(&'static str, usize)>,
    /// Sizes served, the default first.
    pub buckets: Vec<Size>,
    /// Denoising steps of a request that does not say.
    pub default_steps: usize,
    /// Guidance scale of a request that does not say.
    pub default_guidance_scale: f64,
    /// The model's own scheduler.
    pub default_scheduler: SchedulerKind,
    /// Class labels.
    pub labels: Labels,
    /// There is a class for "none", so guidance is possible.
    pub has_null_class: bool,
}
