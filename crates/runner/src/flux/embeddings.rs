//! Timestep, guidance scale and pooled text as one vector per row.

use candle_core::{DType, Device, Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::{Linear, Sinusoids, TimestepEmbedding};
use crate::weights::Parameters;

/// What guidance scales are multiplied by, so that they span what timesteps do.
const GUIDANCE_FACTOR: f32 = 1000.0;

#[derive(Debug)]
pub(super) struct RowEmbedding {
    timestep: TimestepEmbedding,
    /// Of models that are told their guidance scale.
    guidance: Option<TimestepEmbedding>,
    pooled: PooledProjection,
    dtype: DType,
    device: Device,
}

/// CLIP's pooled output to the size of the transformer.
#[derive(Debug)]
struct PooledProjection {
    linear_1: Linear,
    linear_2: Linear,
}

impl RowEmbedding {
    pub(super) fn new(config: &TransformerConfig, parameters: Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let guidance = || TimestepEmbedding::new(size, parameters.pp("guidance_embedder"));
        let pooled = parameters.pp("text_embedder");
        Ok(Self {
            timestep: TimestepEmbedding::new(size, parameters.pp("timestep_embedder"))?,
            guidance: config.guidance_embeds.then(guidance).transpose()?,
            pooled: PooledProjection {
                linear_1: Linear::new(config.pooled_projection_dim, size, pooled.pp("linear_1"))?,
                linear_2: Linear::new(size, size, pooled.pp("linear_2"))?,
            },
            dtype: parameters.dtype(),
            device: parameters.device().clone(),
        })
    }

    /// `[rows, pooled size]` to `[rows, hidden]`.
    pub(super) fn project_pooled(&self, pooled: &Tensor) -> Result<Tensor> {
        let PooledProjection { linear_1, linear_2 } = &self.pooled;
        linear_2.forward(&linear_1.forward(&pooled.to_dtype(self.dtype)?)?.silu()?)
    }

    /// `[rows, hidden]` from a timestep (0 to 1000) and a guidance scale per row, and what
    /// [`Self::project_pooled`] made of the texts.
    pub(super) fn forward(&self, timesteps: &[f32], guidance_scales: &[f32], pooled: &Tensor) -> Result<Tensor> {
        let project = |values: &[f32]| Sinusoids::StopShort.project(values, &self.device)?.to_dtype(self.dtype);
        let mut embedding = self.timestep.forward(&project(timesteps)?)?;
        if let Some(guidance) = &self.guidance {
            let scales: Vec<f32> = guidance_scales.iter().map(|scale| scale * GUIDANCE_FACTOR).collect();
            embedding = (embedding + guidance.forward(&project(&scales)?)?)?;
        }
        embedding + pooled
    }
}
