//! The feed-forward part of a block.
//!
//! Follows diffusers 0.42.1:
//!
//! * `FeedForward` (lines 1682-1742):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention.py#L1682>
//! * `GELU` (lines 65-90):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/activations.py#L65>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::linear::Linear;
use crate::ops::activation::Activation;
use crate::ops::linear::GateAndResidual;

/// Width of the feed-forward relative to the hidden size.
const FEED_FORWARD_FACTOR: usize = 4;

/// Those of diffusers' feed-forwards.
impl Activation {
    /// The values of a configuration's `activation_fn`.
    pub(crate) const NAMES: &'static str = "gelu-approximate or gelu";

    /// By its name in a configuration.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "gelu-approximate" => Some(Self::GeluApproximate),
            "gelu" => Some(Self::Gelu),
            _ => None,
        }
    }
}

/// Two linear layers around an activation, under diffusers' names: `0.proj`, `2`.
#[derive(Debug)]
pub(crate) struct FeedForward {
    widen: Linear,
    narrow: Linear,
    activation: Activation,
}

impl FeedForward {
    /// `parameters` is that of the block's `ff.net`.
    pub(crate) fn new(size: usize, activation: Activation, parameters: Parameters) -> Result<Self> {
        Self::with_width(size, FEED_FORWARD_FACTOR * size, activation, parameters)
    }

    /// The same with a width of its own.
    pub(crate) fn with_width(
        size: usize,
        width: usize,
        activation: Activation,
        parameters: Parameters,
    ) -> Result<Self> {
        Ok(Self {
            widen: Linear::new(size, width, parameters.pp(0).pp("proj"))?,
            narrow: Linear::new(width, size, parameters.pp(2))?,
            activation,
        })
    }

    /// `[rows, tokens, size]` to the same, through a gate and onto a residual.
    pub(crate) fn forward(&self, x: &Tensor, onto: GateAndResidual<'_>) -> Result<Tensor> {
        self.narrow.forward_onto(&self.widen.forward_activated(x, self.activation)?, onto)
    }
}
