//! What enters a DiT block besides the tokens: timesteps and class labels.
//!
//! Follows diffusers 0.42.1, `LabelEmbedding` (lines 1217-1250) and `CombinedTimestepLabelEmbeddings` (1331-1347):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L1217>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};
use candle_nn::{Embedding, Module};

use crate::layers::TimestepEmbedding;

/// Timestep and class label to one vector per row. Every block has its own: the original DiT shares one, of which
/// diffusers' conversion gave each block a copy.
#[derive(Debug)]
pub(super) struct TimestepLabelEmbedding {
    timestep: TimestepEmbedding,
    classes: Embedding,
}

impl TimestepLabelEmbedding {
    pub(super) fn new(num_classes: usize, hidden_size: usize, parameters: Parameters) -> Result<Self> {
        let table = parameters.pp("class_embedder").pp("embedding_table");
        Ok(Self {
            timestep: TimestepEmbedding::new(hidden_size, parameters.pp("timestep_embedder"))?,
            classes: Embedding::new(table.get((num_classes + 1, hidden_size), "weight")?, hidden_size),
        })
    }

    /// `[rows, hidden]`, from projected timesteps, `[rows, 256]`, and classes, `[rows]`.
    pub(super) fn forward(&self, timesteps: &Tensor, classes: &Tensor) -> Result<Tensor> {
        self.timestep.forward(timesteps)? + self.classes.forward(classes)?
    }
}
