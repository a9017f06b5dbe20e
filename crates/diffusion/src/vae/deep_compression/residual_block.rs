//! The block of stages that do not attend.
//!
//! Follows diffusers 0.42.1, `ResBlock` (lines 31-60):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_dc.py#L31>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::norm::BiasedRmsNorm;
use crate::ops::activation::Activation;
use crate::ops::convolution::Convolution;
use crate::vae::stripes::{Stripes, in_stripes};

/// Two convolutions and a norm behind them.
#[derive(Debug)]
pub(super) struct ResidualBlock {
    conv1: Convolution,
    activation: Activation,
    conv2: Convolution,
    norm: BiasedRmsNorm,
}

impl ResidualBlock {
    pub(super) fn new(channels: usize, activation: Activation, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            conv1: Convolution::three(channels, channels, parameters.pp("conv1"))?,
            activation,
            conv2: Convolution::three_without_bias(channels, channels, &parameters.pp("conv2"))?,
            norm: BiasedRmsNorm::new(channels, &parameters.pp("norm"))?,
        })
    }

    /// `[1, channels, height, width]`
    pub(super) fn forward(&self, x: &Tensor, stripes: Stripes) -> Result<Tensor> {
        let height = x.dim(2)?;
        let line_values = x.elem_count() / height;
        let convolved = in_stripes(height, stripes.of(height, line_values), |stripe| {
            let seen = x.narrow(2, stripe.seen.start, stripe.seen.len())?;
            self.activation.apply(self.conv1.forward_lines(&seen, stripe.lines_seen())?)
        })?;
        in_stripes(height, stripes.of(height, line_values), |stripe| {
            let seen = convolved.narrow(2, stripe.seen.start, stripe.seen.len())?;
            let lines = self.norm.forward_map(&self.conv2.forward_lines(&seen, stripe.lines_seen())?)?;
            lines + x.narrow(2, stripe.lines.start, stripe.lines.len())?
        })
    }
}
