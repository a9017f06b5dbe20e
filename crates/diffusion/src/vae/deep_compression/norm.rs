//! The norm of every pixel over its channels.
//!
//! Follows diffusers 0.42.1, `RMSNorm` (lines 510-568):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L510>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use crate::ops::rms_norm::rms_norm;
use crate::vae::dtypes::map_dtype;

/// Fixed in diffusers.
const EPS: f64 = 1e-5;

/// Root mean square norm with weight and bias.
#[derive(Debug)]
pub(super) struct BiasedRmsNorm {
    weight: Tensor,
    bias: Tensor,
}

impl BiasedRmsNorm {
    pub(super) fn new(channels: usize, parameters: &Parameters) -> Result<Self> {
        let values = |name| parameters.get(channels, name)?.to_dtype(map_dtype(parameters));
        Ok(Self { weight: values("weight")?, bias: values("bias")? })
    }

    /// `[.., channels]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm(x, &self.weight, EPS)?.broadcast_add(&self.bias)
    }

    /// `[1, channels, lines, width]`
    pub(super) fn forward_map(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, lines, width) = x.dims4()?;
        map(&self.forward(&pixels(x)?)?, (lines, width))
    }
}

/// `[1, channels, lines, width]` to `[1, lines * width, channels]`.
pub(super) fn pixels(map: &Tensor) -> Result<Tensor> {
    map.flatten_from(2)?.transpose(1, 2)?.contiguous()
}

/// And back.
pub(super) fn map(pixels: &Tensor, (lines, width): (usize, usize)) -> Result<Tensor> {
    let (rows, _, channels) = pixels.dims3()?;
    pixels.transpose(1, 2)?.contiguous()?.reshape((rows, channels, lines, width))
}
