//! The residual block of the decoder.

use candle_core::{Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, GroupNorm, Module, VarBuilder};

use crate::convolution::Conv3x3;

/// Epsilon of every group norm in the decoder.
pub(super) const NORM_EPS: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv3x3,
    norm2: GroupNorm,
    conv2: Conv3x3,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(super) fn new(input: usize, output: usize, groups: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let shortcut = if input == output {
            None
        } else {
            Some(candle_nn::conv2d(input, output, 1, Conv2dConfig::default(), vb.pp("conv_shortcut"))?)
        };
        Ok(Self {
            norm1: candle_nn::group_norm(groups, input, NORM_EPS, vb.pp("norm1"))?,
            conv1: Conv3x3::new(input, output, vb.pp("conv1"))?,
            norm2: candle_nn::group_norm(groups, output, NORM_EPS, vb.pp("norm2"))?,
            conv2: Conv3x3::new(output, output, vb.pp("conv2"))?,
            shortcut,
        })
    }

    /// `[rows, input, height, width]` to `[rows, output, height, width]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.conv1.forward(&self.norm1.forward(x)?.silu()?)?;
        let hidden = self.conv2.forward(&self.norm2.forward(&hidden)?.silu()?)?;
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x)? + hidden,
            None => x + hidden,
        }
    }
}
