//! The one vector that conditions all blocks of a row: timestep, prompt and, where the model takes it, the guidance
//! scale.
//!
//! Follows diffusers 0.42.1, `CombinedTimestepTextProjEmbeddings` (lines 1350-1366) and
//! `CombinedTimestepGuidanceTextProjEmbeddings` (1369-1390):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L1350>
//!
//! Departs from it: timesteps and guidance scales stay f32 until their sinusoids are taken; for FLUX diffusers rounds
//! both to the dtype of the model before (`FluxTransformer2DModel.forward`).

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::linear::Linear;
use super::timestep::NumberEmbedding;
use crate::ops::activation::Activation;

/// What guidance scales are multiplied by, so that they span what timesteps do.
const GUIDANCE_FACTOR: f32 = 1000.0;

/// diffusers' `time_text_embed`.
#[derive(Debug)]
pub(crate) struct TimeTextEmbedding {
    timestep: NumberEmbedding,
    guidance: Option<NumberEmbedding>,
    text: (Linear, Linear),
}

impl TimeTextEmbedding {
    /// To vectors of `size`, from prompts in vectors of `pooled_size`.
    pub(crate) fn new(size: usize, pooled_size: usize, has_guidance: bool, parameters: Parameters) -> Result<Self> {
        let guidance = || NumberEmbedding::new(size, parameters.pp("guidance_embedder"));
        let text = parameters.pp("text_embedder");
        Ok(Self {
            timestep: NumberEmbedding::new(size, parameters.pp("timestep_embedder"))?,
            guidance: has_guidance.then(guidance).transpose()?,
            text: (Linear::new(pooled_size, size, text.pp("linear_1"))?, Linear::new(size, size, text.pp("linear_2"))?),
        })
    }

    /// The prompt's part of the sum: `[rows, pooled_size]` to `[rows, size]`.
    pub(crate) fn embed_text(&self, pooled: &Tensor) -> Result<Tensor> {
        self.text.1.forward(&self.text.0.forward_activated(pooled, Activation::Silu)?)
    }

    /// The sum: `[rows, size]`. Timesteps, 0 to 1000, and guidance scales are one per row, the latter without effect
    /// where the model does not take them; `texts` are those of [`Self::embed_text`].
    pub(crate) fn forward(&self, timesteps: &[f32], guidance_scales: &[f32], texts: &Tensor) -> Result<Tensor> {
        let mut embedding = self.timestep.forward(timesteps)?;
        if let Some(guidance) = &self.guidance {
            let scales: Vec<f32> = guidance_scales.iter().map(|scale| scale * GUIDANCE_FACTOR).collect();
            embedding = (embedding + guidance.forward(&scales)?)?;
        }
        embedding + texts
    }
}
