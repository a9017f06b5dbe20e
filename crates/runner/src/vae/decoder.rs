//! The decoder itself: middle, up-sampling stages, output.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, GroupNorm, Module, VarBuilder};

use super::attention::SpatialAttention;
use super::config::{UpBlockKind, VaeConfig};
use super::resnet::{NORM_EPS, ResnetBlock};
use crate::convolution::Conv3x3;
use crate::error::RunnerError;

/// Latents to pixels.
#[derive(Debug)]
pub(super) struct VaeDecoder {
    post_quant_conv: Option<Conv2d>,
    conv_in: Conv3x3,
    middle: (ResnetBlock, Option<SpatialAttention>, ResnetBlock),
    up_blocks: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Conv3x3,
    dtype: DType,
}

/// Residual blocks (with attention, in some layouts), then a doubling of the picture.
#[derive(Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<SpatialAttention>,
    upsampler: Option<Conv3x3>,
}

impl VaeDecoder {
    pub(super) fn new(config: &VaeConfig, vb: VarBuilder<'_>) -> std::result::Result<Self, RunnerError> {
        let groups = config.norm_num_groups;
        let coarsest_first: Vec<_> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (coarsest_first[0], config.block_out_channels[0]);
        let latents = config.latent_channels;
        let post_quant_conv = if config.use_post_quant_conv {
            Some(candle_nn::conv2d(latents, latents, 1, Conv2dConfig::default(), vb.pp("post_quant_conv"))?)
        } else {
            None
        };
        let decoder = vb.pp("decoder");
        let middle = decoder.pp("mid_block");
        let attention = if config.mid_block_add_attention {
            Some(SpatialAttention::new(first, groups, middle.pp("attentions").pp(0))?)
        } else {
            None
        };
        let mut up_blocks = Vec::new();
        let mut input = first;
        for (index, (kind, output)) in config.up_blocks()?.into_iter().zip(&coarsest_first).enumerate() {
            let doubles = index + 1 < coarsest_first.len();
            let vb = decoder.pp("up_blocks").pp(index);
            up_blocks.push(UpBlock::new(kind, (input, *output), doubles, config, vb)?);
            input = *output;
        }
        Ok(Self {
            post_quant_conv,
            conv_in: Conv3x3::new(latents, first, decoder.pp("conv_in"))?,
            middle: (
                ResnetBlock::new(first, first, groups, middle.pp("resnets").pp(0))?,
                attention,
                ResnetBlock::new(first, first, groups, middle.pp("resnets").pp(1))?,
            ),
            up_blocks,
            norm_out: candle_nn::group_norm(groups, last, NORM_EPS, decoder.pp("conv_norm_out"))?,
            conv_out: Conv3x3::new(last, config.out_channels, decoder.pp("conv_out"))?,
            dtype: vb.dtype(),
        })
    }

    /// `[rows, latent_channels, height, width]`, scaling already undone, to
    /// `[rows, 3, height * scale, width * scale]` in f32, roughly from -1 to 1.
    pub(super) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let x = latents.to_dtype(self.dtype)?;
        let x = match &self.post_quant_conv {
            Some(conv) => conv.forward(&x)?,
            None => x,
        };
        let (before, attention, after) = &self.middle;
        let x = before.forward(&self.conv_in.forward(&x)?)?;
        let x = match attention {
            Some(attention) => attention.forward(&x)?,
            None => x,
        };
        let x = after.forward(&x)?;
        let x = self.up_blocks.iter().try_fold(x, |x, block| block.forward(&x))?;
        self.conv_out.forward(&self.norm_out.forward(&x)?.silu()?)?.to_dtype(DType::F32)
    }
}

impl UpBlock {
    fn new(
        kind: UpBlockKind,
        (input, output): (usize, usize),
        doubles: bool,
        config: &VaeConfig,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let groups = config.norm_num_groups;
        let mut block = Self { resnets: Vec::new(), attentions: Vec::new(), upsampler: None };
        // The decoder has one layer more per stage than the encoder.
        for layer in 0..=config.layers_per_block {
            let input = if layer == 0 { input } else { output };
            block.resnets.push(ResnetBlock::new(input, output, groups, vb.pp("resnets").pp(layer))?);
            if kind == UpBlockKind::Attention {
                block.attentions.push(SpatialAttention::new(output, groups, vb.pp("attentions").pp(layer))?);
            }
        }
        if doubles {
            block.upsampler = Some(Conv3x3::new(output, output, vb.pp("upsamplers").pp(0).pp("conv"))?);
        }
        Ok(block)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x)?;
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.forward(&x)?;
            }
        }
        let Some(upsampler) = &self.upsampler else { return Ok(x) };
        let (_, _, height, width) = x.dims4()?;
        upsampler.forward(&x.upsample_nearest2d(2 * height, 2 * width)?)
    }
}
