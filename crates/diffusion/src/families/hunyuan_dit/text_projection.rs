//! Two linear layers with SiLU between, which turn one of the model's inputs into what its blocks take.
//!
//! Follows diffusers 0.42.1, `PixArtAlphaTextProjection` (lines 1957-1983):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L1957>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use crate::layers::Linear;
use crate::ops::activation::Activation;

#[derive(Debug)]
pub(super) struct TextProjection {
    linear_1: Linear,
    linear_2: Linear,
}

impl TextProjection {
    pub(super) fn new(input: usize, width: usize, output: usize, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(input, width, parameters.pp("linear_1"))?,
            linear_2: Linear::new(width, output, parameters.pp("linear_2"))?,
        })
    }

    /// `[.., input]` to `[.., output]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&self.linear_1.forward_activated(x, Activation::Silu)?)
    }
}
