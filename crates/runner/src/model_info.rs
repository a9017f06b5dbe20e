//! What a loaded model offers, for the API that serves it.

use std::sync::Arc;

use afterimage_cache::ModelFit;
use afterimage_cache::plan::ModelFacts;
use afterimage_checkpoint::Quantization;
use afterimage_diffusion::families::{Guidance, GuidanceKind, LabelPolicy, Labels};
use afterimage_diffusion::schedulers::SchedulerKind;
use afterimage_diffusion::text::PromptLimit;

use crate::request::Size;

/// Facts about a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Folder name or hub id.
    pub id: String,
    /// diffusers class of the pipeline.
    pub pipeline: &'static str,
    /// What it is computed in: `f32`, `bf16` or `f16`.
    pub dtype: &'static str,
    /// What the matrices of the transformer's blocks are.
    pub quantization: Quantization,
    /// Names and numbers of blocks of the block lists.
    pub block_lists: Vec<(&'static str, usize)>,
    /// So many of its first blocks leave a skip to one from the end on.
    pub long_skips: usize,
    /// From this list on text and picture are one stream to caches that decide about lists one by one.
    pub streams_join_at: Option<usize>,
    /// Sizes served, the default first.
    pub buckets: Vec<Size>,
    /// Denoising steps of a request that does not say.
    pub default_steps: usize,
    /// Guidance scale of a request that does not say.
    pub default_guidance_scale: f64,
    /// The model's own scheduler.
    pub default_scheduler: SchedulerKind,
    /// The schedulers it can be sampled with.
    pub schedulers: Vec<SchedulerKind>,
    /// Class labels; none where prompts are free text.
    pub labels: Labels,
    /// What becomes of a prompt that is no label.
    pub label_policy: LabelPolicy,
    /// Measured facts that TeaCache and MagCache need.
    pub fit: Option<ModelFit>,
    /// The text of the file with cache settings that were measured on it.
    pub cache_profile: Option<Arc<str>>,
    /// How it can be steered towards prompts.
    pub guidance: GuidanceKind,
    /// What its text encoders read of a prompt; none for a class-conditional model.
    pub prompt_limits: Vec<PromptLimit>,
}

impl ModelInfo {
    /// All that likeness to another precision depends on: [`Self::dtype`], and what matrices are quantised to.
    pub fn precision(&self) -> &'static str {
        match (self.quantization, self.dtype) {
            (Quantization::Int8, "bf16") => "bf16, int8",
            (Quantization::Int8, _) => "f32, int8",
            (Quantization::None, dtype) => dtype,
        }
    }

    /// Guidance of a request that does not say.
    pub fn default_guidance(&self) -> Guidance {
        self.guidance.with(self.default_guidance_scale, 1.0)
    }

    /// What a cache configuration has to fit, where an image runs one forward per step. `blocks` are the
    /// numbers of blocks of the lists.
    pub fn cache_facts<'a>(&'a self, blocks: &'a [usize]) -> ModelFacts<'a> {
        ModelFacts {
            blocks,
            separate_cfg: false,
            tea_cache_coefficients: self.fit.as_ref().map(|fit| fit.tea_cache_coefficients),
            mag_ratios: self.fit.as_ref().map(|fit| &fit.mag_ratios[..]).filter(|ratios| !ratios.is_empty()),
            long_skips: self.long_skips,
            streams_join_at: self.streams_join_at,
        }
    }

    /// Numbers of blocks of the block lists.
    pub fn blocks(&self) -> Vec<usize> {
        self.block_lists.iter().map(|(_, blocks)| *blocks).collect()
    }
}
