//! What enters a DiT block besides the tokens: timesteps and class labels.

use candle_core::{Result, Tensor};
use candle_nn::{Embedding, Module, VarBuilder};

use crate::layers::TimestepEmbedding;

/// What a block is told about its rows.
#[derive(Debug, Clone)]
pub(super) struct Conditioning {
    /// `[rows, 256]`, in the model's dtype.
    pub(super) timesteps: Tensor,
    /// `[rows]`, u32.
    pub(super) classes: Tensor,
}

impl Conditioning {
    pub(super) fn select(&self, rows: &[usize]) -> Result<Self> {
        let rows: Vec<u32> = rows.iter().map(|row| *row as u32).collect();
        let rows = Tensor::new(rows, self.classes.device())?;
        Ok(Self { timesteps: self.timesteps.index_select(&rows, 0)?, classes: self.classes.index_select(&rows, 0)? })
    }
}

/// Timestep and class label to one vector per row; every block has its own.
#[derive(Debug)]
pub(super) struct TimestepLabelEmbedding {
    timestep: TimestepEmbedding,
    classes: Embedding,
}

impl TimestepLabelEmbedding {
    pub(super) fn new(num_classes: usize, hidden_size: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let table = vb.pp("class_embedder").pp("embedding_table");
        Ok(Self {
            timestep: TimestepEmbedding::new(hidden_size, vb.pp("timestep_embedder"))?,
            classes: candle_nn::embedding(num_classes + 1, hidden_size, table)?,
        })
    }

    /// `[rows, hidden]`
    pub(super) fn forward(&self, conditioning: &Conditioning) -> Result<Tensor> {
        self.timestep.forward(&conditioning.timesteps)? + self.classes.forward(&conditioning.classes)?
    }
}
