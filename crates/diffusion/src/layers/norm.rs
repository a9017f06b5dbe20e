//! Norms with their parameters, and the modulation of layer norms (adaLN).
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
use candle_core::{D, Result, Tensor};

use crate::ops::layer_norm::{LayerNormParameters, layer_norm, modulated_layer_norm};
use crate::ops::rms_norm::rms_norm;

/// Layer norm over the last dimension.
#[derive(Debug)]
pub(crate) struct PlainLayerNorm(LayerNormParameters);

impl PlainLayerNorm {
    /// Without weight and bias.
    pub(crate) fn new(size: usize, eps: f64) -> Self {
        Self(LayerNormParameters::new(None, size, eps as f32))
    }

    /// With weight and bias, where `affine`.
    pub(crate) fn load(size: usize, eps: f64, affine: bool, parameters: Parameters) -> Result<Self> {
        let affine = if affine { Some((parameters.get(size, "weight")?, parameters.get(size, "bias")?)) } else { None };
        Ok(Self(LayerNormParameters::new(affine, size, eps as f32)))
    }

    /// The size of the last dimension.
    pub(crate) fn size(&self) -> usize {
        self.0.size
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        debug_assert_eq!(x.dim(D::Minus1)?, self.0.size);
        layer_norm(x, &self.0)
    }

    /// The norm of `[rows, tokens, hidden]`, moved by a scale and a shift `[rows, hidden]`.
    pub(crate) fn modulated(&self, x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
        debug_assert_eq!(x.dim(D::Minus1)?, self.0.size);
        modulated_layer_norm(x, &self.0, scale, shift)
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
        rms_norm(x, &self.weight, self.eps)
    }

    /// Weight and epsilon.
    pub(super) fn parameters(&self) -> (&Tensor, f64) {
        (&self.weight, self.eps)
    }
}
