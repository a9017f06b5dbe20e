//! What blocks and output are modulated by: the timestep, and the guidance scale where the model is told it.
//!
//! Follows diffusers 0.42.1:
//!
//! * sana_transformer.py: `SanaCombinedTimestepGuidanceEmbeddings` (lines 105-131):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * `AdaLayerNormSingle` (lines 235-266):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L235>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::block::MODULATIONS;
use super::config::Variant;
use crate::layers::{Linear, NumberEmbedding};

#[derive(Debug)]
pub(super) struct TimeEmbedding {
    timestep: NumberEmbedding,
    guidance: Option<NumberEmbedding>,
    modulation: Linear,
    size: usize,
}

/// The rows' embedding in both forms.
pub(super) struct Embedded {
    /// `[rows, 6, hidden]`: what blocks move.
    pub(super) modulation: Tensor,
    /// `[rows, hidden]`
    pub(super) embedding: Tensor,
}

impl TimeEmbedding {
    pub(super) fn new(size: usize, variant: Variant, parameters: &Parameters) -> Result<Self> {
        let (timestep, guidance) = match variant {
            Variant::Guided => (parameters.pp("emb").pp("timestep_embedder"), None),
            Variant::Sprint => (parameters.pp("timestep_embedder"), Some(parameters.pp("guidance_embedder"))),
        };
        Ok(Self {
            timestep: NumberEmbedding::new(size, timestep)?,
            guidance: guidance.map(|parameters| NumberEmbedding::new(size, parameters)).transpose()?,
            modulation: Linear::new(size, MODULATIONS * size, parameters.pp("linear"))?,
            size,
        })
    }

    /// Of timesteps and guidance scales as they are projected to sinusoids, one of each per row.
    pub(super) fn embed(&self, timesteps: &[f32], guidance: &[f32]) -> Result<Embedded> {
        let embedding = self.timestep.forward(timesteps)?;
        let embedding = match &self.guidance {
            Some(embedder) => (embedding + embedder.forward(guidance)?)?,
            None => embedding,
        };
        let modulation = self.modulation.forward(&embedding.silu()?)?.reshape(((), MODULATIONS, self.size))?;
        Ok(Embedded { modulation, embedding })
    }
}
