//! Self-attention over all positions of a frame, one head.
//!
//! Follows diffusers 0.42.1, `QwenImageAttentionBlock` (lines 301-346):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py#L301>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::norm::PixelNorm;
use crate::layers::Linear;
use crate::ops::attention::scaled_dot_product;
use crate::vae::stripes::Stripes;

#[derive(Debug)]
pub(super) struct FrameAttention {
    norm: PixelNorm,
    /// Queries, keys and values side by side; kernels of one pixel.
    to_qkv: Linear,
    projection: Linear,
}

impl FrameAttention {
    pub(super) fn new(channels: usize, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            norm: PixelNorm::of_pictures(channels, parameters.pp("norm"))?,
            to_qkv: Linear::of_patches(channels, 1, 3 * channels, parameters.pp("to_qkv"))?,
            projection: Linear::of_patches(channels, 1, channels, parameters.pp("proj"))?,
        })
    }

    /// `[1, channels, height, width]` to the same. Queries are taken in parts, so that their scores are no larger than a
    /// stripe.
    pub(super) fn forward(&self, x: &Tensor, stripes: Stripes) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        // -> [1, height * width, channels]
        let tokens = self.norm.apply(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let projected = self.to_qkv.forward(&tokens)?;
        // -> [1, height * width, 1, channels]
        let part = |index: usize| projected.narrow(2, index * channels, channels)?.unsqueeze(2);
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let attended = stripes.of(height * width, height * width).map(|stripe| {
            let query = query.narrow(1, stripe.lines.start, stripe.lines.len())?;
            scaled_dot_product(&query, &key, &value, None)
        });
        let attended = Tensor::cat(&attended.collect::<Result<Vec<_>>>()?, 1)?;
        let out = self.projection.forward(&attended)?.transpose(1, 2)?;
        out.reshape((1, channels, height, width))? + x
    }
}
