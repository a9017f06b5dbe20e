//! The feed-forward of a double block: one projection to a gate and to what it lets through.
//!
//! Follows diffusers 0.42.1, `Flux2SwiGLU` (lines 285-298) and `Flux2FeedForward` (301-324):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux2.py#L285>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::Linear;
use crate::ops::activation::Activation;
use crate::ops::gated_parts::GatedParts;
use crate::ops::linear::GateAndResidual;

#[derive(Debug)]
pub(super) struct FeedForward {
    /// Gate and value side by side.
    widen: Linear,
    narrow: Linear,
    inner_size: usize,
}

impl FeedForward {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let (size, inner_size) = (config.hidden_size(), config.inner_size());
        Ok(Self {
            widen: Linear::load(size, 2 * inner_size, false, parameters.pp("linear_in"))?,
            narrow: Linear::load(inner_size, size, false, parameters.pp("linear_out"))?,
            inner_size,
        })
    }

    /// `[rows, tokens, size]` to the same, through a gate and onto a residual.
    pub(super) fn forward(&self, x: &Tensor, onto: GateAndResidual<'_>) -> Result<Tensor> {
        self.narrow.forward_onto(&gated(&self.widen.forward(x)?, 0, self.inner_size)?, onto)
    }
}

/// The channels from `first` on: as many as `size` that are a gate, and as many behind them that go through it.
pub(super) fn gated(x: &Tensor, first: usize, size: usize) -> Result<Tensor> {
    GatedParts { gate: first, value: first + size, size }.apply(x, Activation::Silu)
}
