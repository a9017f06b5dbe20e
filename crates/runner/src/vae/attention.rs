//! Self-attention over all positions of a feature map, one head.

use candle_core::{D, Result, Tensor};
use candle_nn::{GroupNorm, Linear, Module, VarBuilder};

use super::resnet::NORM_EPS;

#[derive(Debug)]
pub(super) struct SpatialAttention {
    norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl SpatialAttention {
    pub(super) fn new(channels: usize, groups: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let projection = |name: &str| candle_nn::linear(channels, channels, vb.pp(name));
        Ok(Self {
            norm: candle_nn::group_norm(groups, channels, NORM_EPS, vb.pp("group_norm"))?,
            to_q: projection("to_q")?,
            to_k: projection("to_k")?,
            to_v: projection("to_v")?,
            to_out: projection("to_out.0")?,
        })
    }

    /// `[rows, channels, height, width]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, channels, height, width) = x.dims4()?;
        // -> [rows, height * width, channels]
        let tokens = self.norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let query = (self.to_q.forward(&tokens)? * (channels as f64).powf(-0.5))?;
        let scores = query.matmul(&self.to_k.forward(&tokens)?.transpose(D::Minus2, D::Minus1)?)?;
        let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&self.to_v.forward(&tokens)?)?;
        let out = self.to_out.forward(&attended)?;
        out.transpose(1, 2)?.reshape((rows, channels, height, width))? + x
    }
}
