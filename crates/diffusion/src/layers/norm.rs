//! Layer norms and their modulation (adaLN).
//!
//! Follows diffusers 0.42.1:
//!
//! * `AdaLayerNormZero` (lines 130-170) and `RMSNorm` (510-568):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L130>
//!
//! and PyTorch 2.15.0:
//!
//! * `LayerNorm` (lines 105-236):
//!   <https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/modules/normalization.py#L105>

use afterimage_checkpoint::Parameters;
use candle_core::{D, DType, Result, Tensor};

/// `(1 + scale) * x + shift` with `x` `[rows, tokens, hidden]` and the others `[rows, hidden]`: a modulation of zeros,
/// with which adaLN-Zero begins training, changes nothing.
pub(crate) fn modulate(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale + 1.0)?.unsqueeze(1)?)?.broadcast_add(&shift.unsqueeze(1)?)
}

/// Layer norm without weight and bias over the last dimension.
#[derive(Debug)]
pub(crate) struct PlainLayerNorm {
    ones: Tensor,
    zeros: Tensor,
    eps: f32,
}

impl PlainLayerNorm {
    pub(crate) fn new(size: usize, eps: f64, parameters: &Parameters) -> Result<Self> {
        let ones = Tensor::ones(size, parameters.dtype(), parameters.device())?;
        Ok(Self { zeros: ones.zeros_like()?, ones, eps: eps as f32 })
    }

    /// With weight and bias, where `affine`.
    pub(crate) fn load(size: usize, eps: f64, affine: bool, parameters: Parameters) -> Result<Self> {
        if !affine {
            return Self::new(size, eps, &parameters);
        }
        Ok(Self { ones: parameters.get(size, "weight")?, zeros: parameters.get(size, "bias")?, eps: eps as f32 })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        debug_assert_eq!(x.dim(D::Minus1)?, self.ones.dim(0)?);
        candle_nn::ops::layer_norm(&x.contiguous()?, &self.ones, &self.zeros, self.eps)
    }
}

/// Root mean square norm over the last dimension, taken in f32: squares overflow f16, and their mean loses digits in
/// bf16. The weight is applied after rounding back, as in diffusers and T5.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// `weight` has the size of the last dimension.
    pub(crate) fn new(weight: Tensor, eps: f64) -> Self {
        Self { weight, eps }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let variance = wide.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = wide.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        normed.to_dtype(x.dtype())?.broadcast_mul(&self.weight)
    }
}
