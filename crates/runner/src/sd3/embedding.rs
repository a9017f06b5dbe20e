//! What all blocks are told about a row: its timestep and its prompt, in one vector.

use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::{Linear, Sinusoids, TimestepEmbedding};
use crate::weights::Parameters;

#[derive(Debug)]
pub(super) struct TimeTextEmbedding {
    timestep: TimestepEmbedding,
    text: (Linear, Linear),
}

impl TimeTextEmbedding {
    pub(super) fn new(config: &TransformerConfig, parameters: Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let text = parameters.pp("text_embedder");
        Ok(Self {
            timestep: TimestepEmbedding::new(size, parameters.pp("timestep_embedder"))?,
            text: (
                Linear::new(config.pooled_projection_dim, size, text.pp("linear_1"))?,
                Linear::new(size, size, text.pp("linear_2"))?,
            ),
        })
    }

    /// The prompt's part of the sum: `[rows, pooled]` to `[rows, hidden]`.
    pub(super) fn embed_text(&self, pooled: &Tensor) -> Result<Tensor> {
        self.text.1.forward(&self.text.0.forward(pooled)?.silu()?)
    }

    /// The sum: `[rows, hidden]`. `texts` are those of [`Self::embed_text`].
    pub(super) fn forward(&self, timesteps: &[f32], texts: &Tensor) -> Result<Tensor> {
        let projected = Sinusoids::StopShort.project(timesteps, texts.device())?.to_dtype(texts.dtype())?;
        self.timestep.forward(&projected)? + texts
    }
}
