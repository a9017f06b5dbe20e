//! What a text encoder gives to the size of a transformer.
//!
//! Follows diffusers 0.42.1, `PixArtAlphaTextProjection` (lines 1957-1983):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L1957>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::linear::Linear;
use crate::ops::activation::Activation;

/// Two linear layers.
#[derive(Debug)]
pub(crate) struct CaptionProjection {
    linear_1: Linear,
    linear_2: Linear,
}

impl CaptionProjection {
    /// From states of `channels`.
    pub(crate) fn new(channels: usize, size: usize, parameters: Parameters) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(channels, size, parameters.pp("linear_1"))?,
            linear_2: Linear::new(size, size, parameters.pp("linear_2"))?,
        })
    }

    /// `[rows, tokens, channels]` to `[rows, tokens, size]`
    pub(crate) fn forward(&self, states: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&self.linear_1.forward_activated(states, Activation::GeluApproximate)?)
    }
}
