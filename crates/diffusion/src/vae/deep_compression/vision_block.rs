//! The block of stages that attend: linear attention at several scales, and a gated convolution.
//!
//! Follows diffusers 0.42.1:
//!
//! * `EfficientViTBlock` (lines 63-96):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_dc.py#L63>
//! * `SanaMultiscaleAttentionProjection` (lines 840-863), `SanaMultiscaleLinearAttention` (866-929) and
//!   `SanaMultiscaleAttnProcessor2_0` (5245-5302):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L840>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::norm::{BiasedRmsNorm, map, pixels};
use crate::layers::{GatedConvolution, Linear, linear_attention};
use crate::ops::depthwise::Depthwise;
use crate::vae::dtypes::map_dtype;
use crate::vae::stripes::{Stripes, in_stripes};

/// Width of the gated convolution in units of the block's channels.
const GATED_FACTOR: usize = 4;
/// Queries, keys and values.
const KINDS: usize = 3;

#[derive(Debug)]
pub(super) struct VisionBlock {
    attention: MultiscaleAttention,
    gated: GatedConvolution,
    norm: BiasedRmsNorm,
}

impl VisionBlock {
    pub(super) fn new(channels: usize, head_size: usize, scales: &[usize], parameters: &Parameters) -> Result<Self> {
        let gated = parameters.pp("conv_out");
        Ok(Self {
            attention: MultiscaleAttention::new(channels, head_size, scales, &parameters.pp("attn"))?,
            gated: GatedConvolution::new(channels, GATED_FACTOR * channels, &gated)?,
            norm: BiasedRmsNorm::new(channels, &gated.pp("norm"))?,
        })
    }

    /// `[1, channels, height, width]`
    pub(super) fn forward(&self, x: &Tensor, stripes: Stripes) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let x = self.attention.forward(x)?;
        let line_values = 2 * GATED_FACTOR * x.elem_count() / height;
        in_stripes(height, stripes.of(height, line_values), |stripe| {
            let seen = pixels(&x.narrow(2, stripe.seen.start, stripe.seen.len())?)?;
            let gated = self.gated.forward(&seen, (stripe.seen.len(), width))?;
            let lines = stripe.lines_seen();
            let gated = gated.narrow(1, lines.start * width, lines.len() * width)?.contiguous()?;
            let gated = map(&self.norm.forward(&gated)?, (lines.len(), width))?;
            gated + x.narrow(2, stripe.lines.start, stripe.lines.len())?
        })
    }
}

#[derive(Debug)]
struct MultiscaleAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    scales: Vec<Scale>,
    to_out: Linear,
    norm: BiasedRmsNorm,
    head_size: usize,
}

/// Queries, keys and values of neighbourhoods.
#[derive(Debug)]
struct Scale {
    neighbours: Depthwise,
    /// `[groups, head size, head size]`, input first, in the dtype of maps: each mixes the channels of a head.
    groups: Tensor,
}

impl MultiscaleAttention {
    fn new(channels: usize, head_size: usize, scales: &[usize], parameters: &Parameters) -> Result<Self> {
        let inner = channels / head_size * head_size;
        let projection = |name: &str| Linear::load(channels, inner, false, parameters.pp(name));
        let multiscale = parameters.pp("to_qkv_multiscale");
        let scale = |(index, side): (usize, &usize)| Scale::new(inner, head_size, *side, &multiscale.pp(index));
        Ok(Self {
            to_q: projection("to_q")?,
            to_k: projection("to_k")?,
            to_v: projection("to_v")?,
            scales: scales.iter().enumerate().map(scale).collect::<Result<_>>()?,
            to_out: Linear::load(inner * (1 + scales.len()), channels, false, parameters.pp("to_out"))?,
            norm: BiasedRmsNorm::new(channels, &parameters.pp("norm_out"))?,
            head_size,
        })
    }

    /// `[1, channels, height, width]`
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, _, height, width) = x.dims4()?;
        let tokens = pixels(x)?;
        let vectors = [&self.to_q, &self.to_k, &self.to_v].map(|projection| projection.forward(&tokens));
        let [query, key, value] = vectors;
        let own = Tensor::cat(&[query?, key?, value?], 2)?;
        let mut all = vec![own.clone()];
        for scale in &self.scales {
            all.push(scale.forward(&own, (height, width))?);
        }
        // Three heads that follow each other are read as query, key and value of one, whatever they were made as.
        // -> [rows, tokens, heads, 3, head size]
        let all = Tensor::cat(&all, 2)?.reshape((rows, height * width, (), KINDS, self.head_size))?;
        let kind = |index: usize| all.narrow(3, index, 1)?.squeeze(3);
        let attended = linear_attention(&kind(0)?, &kind(1)?, &kind(2)?)?;
        let attended = self.norm.forward(&self.to_out.forward(&attended.flatten_from(2)?)?)?;
        map(&attended, (height, width))? + x
    }
}

impl Scale {
    fn new(inner: usize, head_size: usize, side: usize, parameters: &Parameters) -> Result<Self> {
        let groups = parameters.pp("proj_out").get((KINDS * inner, head_size, 1, 1), "weight")?;
        let groups = groups.reshape((KINDS * inner / head_size, head_size, head_size))?;
        Ok(Self {
            neighbours: Depthwise::load(KINDS * inner, side, false, &parameters.pp("proj_in"))?,
            groups: groups.transpose(1, 2)?.contiguous()?.to_dtype(map_dtype(parameters))?,
        })
    }

    /// `[1, height * width, 3 * inner]` to the same.
    fn forward(&self, x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
        let (rows, tokens, channels) = x.dims3()?;
        let (groups, head_size, _) = self.groups.dims3()?;
        let x = self.neighbours.forward(&x.reshape((rows, height, width, channels))?)?;
        // -> [groups, tokens, head size]
        let x = x.reshape((rows * tokens, groups, head_size))?.transpose(0, 1)?.contiguous()?;
        x.matmul(&self.groups)?.transpose(0, 1)?.contiguous()?.reshape((rows, tokens, channels))
    }
}
