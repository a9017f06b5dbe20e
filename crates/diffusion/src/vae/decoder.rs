//! The decoder itself: middle, up-sampling stages, output.
//!
//! Follows diffusers 0.42.1:
//!
//! * `Decoder` (lines 183-314):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/vae.py#L183>
//! * `UNetMidBlock2D` (lines 589-748), `UpDecoderBlock2D` (2575-2645) and `AttnUpDecoderBlock2D` (2648-2744):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/unets/unet_2d_blocks.py#L589>
//!
//! A large picture is not cut into tiles that are decoded on their own: each would have group norms and
//! attention of its own, and blending hides the seams only in part. Instead every layer runs over the
//! whole picture in stripes, with statistics of the whole: the result does not depend on the stripes but
//! for the order of sums, and memory is that of two feature maps at the picture's size.

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::attention::SpatialAttention;
use super::config::{UpBlockKind, VaeConfig};
use super::dtypes::map_dtype;
use super::feature_map::FeatureMap;
use super::group_norm::GroupNorm;
use super::input::Input;
use super::resnet::ResnetBlock;
use super::stripes::Stripes;
use crate::DiffusionError;
use crate::ops::convolution::Convolution;

/// Latents to pixels.
#[derive(Debug)]
pub(super) struct VaeDecoder {
    post_quant_conv: Option<Convolution>,
    conv_in: Convolution,
    middle: (ResnetBlock, Option<SpatialAttention>, ResnetBlock),
    up_blocks: Vec<UpBlock>,
    norm_out: GroupNorm,
    conv_out: Convolution,
    groups: usize,
    /// Channels of the last two stages, the finest first.
    finest: (usize, usize),
    dtype: DType,
    stripes: Stripes,
}

/// Residual blocks (with attention, in some layouts), then a doubling of the picture.
#[derive(Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<SpatialAttention>,
    upsampler: Option<Convolution>,
}

impl VaeDecoder {
    pub(super) fn new(config: &VaeConfig, parameters: &Parameters) -> std::result::Result<Self, DiffusionError> {
        let groups = config.norm_num_groups;
        let coarsest_first: Vec<_> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (coarsest_first[0], config.block_out_channels[0]);
        let latents = config.latent_channels;
        let post_quant_conv = if config.use_post_quant_conv {
            Some(Convolution::pixel(latents, latents, parameters.pp("post_quant_conv"))?)
        } else {
            None
        };
        let decoder = parameters.pp("decoder");
        let middle = decoder.pp("mid_block");
        let attention = if config.mid_block_add_attention {
            Some(SpatialAttention::new(first, middle.pp("attentions").pp(0))?)
        } else {
            None
        };
        let mut up_blocks = Vec::new();
        let mut input = first;
        for (index, (kind, output)) in config.up_blocks()?.into_iter().zip(&coarsest_first).enumerate() {
            let doubles = index + 1 < coarsest_first.len();
            let parameters = decoder.pp("up_blocks").pp(index);
            up_blocks.push(UpBlock::new(kind, (input, *output), doubles, config, parameters)?);
            input = *output;
        }
        Ok(Self {
            post_quant_conv,
            conv_in: Convolution::three(latents, first, decoder.pp("conv_in"))?,
            middle: (
                ResnetBlock::new(first, first, groups, middle.pp("resnets").pp(0))?,
                attention,
                ResnetBlock::new(first, first, groups, middle.pp("resnets").pp(1))?,
            ),
            up_blocks,
            norm_out: GroupNorm::new(last, decoder.pp("conv_norm_out"))?,
            conv_out: Convolution::three(last, config.out_channels, decoder.pp("conv_out"))?,
            groups,
            finest: (last, config.block_out_channels.get(1).copied().unwrap_or(last)),
            dtype: map_dtype(parameters),
            stripes: Stripes::default(),
        })
    }

    /// Bytes that decoding to so many pixels takes at the worst moment.
    pub(super) fn decode_bytes(&self, pixels: usize) -> usize {
        self.stripes.decode_bytes(pixels, self.finest.0, self.finest.1, self.dtype.size_in_bytes())
    }

    /// `[rows, latent_channels, height, width]`, scaling already undone, to
    /// `[rows, 3, height * scale, width * scale]` in f32, roughly from -1 to 1. One row at a time.
    pub(super) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let rows = (0..latents.dim(0)?).map(|row| self.decode_row(&latents.narrow(0, row, 1)?));
        Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
    }

    fn decode_row(&self, latents: &Tensor) -> Result<Tensor> {
        let stripes = self.stripes;
        let x = latents.to_dtype(self.dtype)?.contiguous()?;
        let x = match &self.post_quant_conv {
            Some(conv) => conv.forward(&x)?,
            None => x,
        };
        let x = FeatureMap::of(self.conv_in.forward(&x)?, self.groups)?;
        let (before, attention, after) = &self.middle;
        let x = before.forward(Input::Stored(x), stripes)?;
        let x = match attention {
            Some(attention) => attention.forward(x, stripes)?,
            None => x,
        };
        let x = Input::Stored(after.forward(Input::Stored(x), stripes)?);
        let x = self.up_blocks.iter().try_fold(x, |x, block| block.forward(x, stripes))?;
        self.output(&x)
    }

    /// Last norm and convolution.
    fn output(&self, x: &Input<'_>) -> Result<Tensor> {
        let norm = self.norm_out.fit(&x.moments(self.stripes)?);
        let lines = self.stripes.of(x.shape().height, x.shape().line_values()).map(|stripe| {
            let lines = x.lines(stripe.seen.clone())?;
            let lines = norm.apply_silu_as(&lines, self.conv_out.operand_dtype(self.dtype))?;
            self.conv_out.forward_lines(&lines, stripe.lines_seen())?.to_dtype(DType::F32)
        });
        Tensor::cat(&lines.collect::<Result<Vec<_>>>()?, 2)
    }
}

impl UpBlock {
    fn new(
        kind: UpBlockKind,
        (input, output): (usize, usize),
        doubles: bool,
        config: &VaeConfig,
        parameters: Parameters,
    ) -> Result<Self> {
        let groups = config.norm_num_groups;
        let mut block = Self { resnets: Vec::new(), attentions: Vec::new(), upsampler: None };
        // The decoder has one layer more per stage than the encoder.
        for layer in 0..=config.layers_per_block {
            let input = if layer == 0 { input } else { output };
            block.resnets.push(ResnetBlock::new(input, output, groups, parameters.pp("resnets").pp(layer))?);
            if kind == UpBlockKind::Attention {
                block.attentions.push(SpatialAttention::new(output, parameters.pp("attentions").pp(layer))?);
            }
        }
        if doubles {
            block.upsampler =
                Some(Convolution::three_of_doubled(output, output, parameters.pp("upsamplers").pp(0).pp("conv"))?);
        }
        Ok(block)
    }

    fn forward<'a>(&'a self, mut x: Input<'a>, stripes: Stripes) -> Result<Input<'a>> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let output = resnet.forward(x, stripes)?;
            x = Input::Stored(match self.attentions.get(layer) {
                Some(attention) => attention.forward(output, stripes)?,
                None => output,
            });
        }
        match (x, &self.upsampler) {
            (Input::Stored(source), Some(conv)) => Input::doubled(source, conv, stripes),
            (x, _) => Ok(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::noise::randn;
    use afterimage_checkpoint::ModelFolder;

    /// Of values from -1 to 1; stripes change the order of sums only.
    const TOLERANCE: f64 = 1e-4;

    fn decoder(stripes: Stripes, dtype: DType) -> VaeDecoder {
        let folder = ModelFolder::embedded();
        let config = VaeConfig::from_json(&folder.text("vae/config.json").unwrap()).unwrap();
        let weights = folder.weights("vae").unwrap();
        let decoder = VaeDecoder::new(&config, &weights.parameters(dtype, &Device::Cpu)).unwrap();
        VaeDecoder { stripes, ..decoder }
    }

    /// Latents of a picture four times as large in each direction.
    fn latents(rows: usize, height: usize, width: usize) -> Tensor {
        let shape = [rows, 4, height, width];
        Tensor::from_vec(randn(5, &shape), &shape, &Device::Cpu).unwrap()
    }

    fn mean_square(values: &Tensor) -> f64 {
        f64::from(values.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap())
    }

    /// Squares of the differences between line `index` and the next.
    fn gradient(picture: &Tensor, index: usize) -> f64 {
        mean_square(&(picture.narrow(2, index + 1, 1).unwrap() - picture.narrow(2, index, 1).unwrap()).unwrap())
    }

    #[test]
    fn stripes_leave_no_seam() {
        let latents = latents(1, 40, 56);
        let whole = decoder(Stripes { stripe_values: usize::MAX, most_stored_values: usize::MAX }, DType::F32);
        let whole = whole.decode(&latents).unwrap();
        assert_eq!(whole.dims(), [1, 3, 160, 224]);
        // Lines one by one, and stripes of which the last is shorter; doubled maps stored and made again.
        for (stripe_values, most_stored_values) in [(1, 0), (100_000, 0), (100_000, usize::MAX)] {
            let stripes = Stripes { stripe_values, most_stored_values };
            let picture = decoder(stripes, DType::F32).decode(&latents).unwrap();
            let difference = (&picture - &whole).unwrap();
            let largest: f32 = difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
            assert!(f64::from(largest) < TOLERANCE, "{stripes:?}: {largest} off");
            let psnr = 10.0 * (4.0 / mean_square(&difference)).log10();
            assert!(psnr > 100.0, "{stripes:?}: {psnr} dB");
            // Where the last convolution's stripes meet, lines differ as they do in the undivided picture.
            let channels = 32;
            for stripe in stripes.of(160, channels * 224).skip(1) {
                let seam = stripe.lines.start - 1;
                let (found, expected) = (gradient(&picture, seam), gradient(&whole, seam));
                assert!((found - expected).abs() <= 1e-3 * expected, "line {seam}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn rows_are_decoded_one_by_one() {
        let latents = latents(2, 8, 8);
        let decoder = decoder(Stripes::default(), DType::F32);
        let both = decoder.decode(&latents).unwrap();
        for row in 0..2 {
            let alone = decoder.decode(&latents.narrow(0, row, 1).unwrap()).unwrap();
            assert_eq!(mean_square(&(alone - both.narrow(0, row, 1).unwrap()).unwrap()), 0.0);
        }
    }

    #[test]
    fn narrow_weights_give_the_same_picture() {
        let latents = latents(1, 16, 16);
        let stripes = Stripes { stripe_values: 20_000, most_stored_values: 0 };
        let full = decoder(stripes, DType::F32).decode(&latents).unwrap();
        // Where the CPU multiplies bf16, what is multiplied is rounded as well.
        for (dtype, least) in [(DType::F16, 60.0), (DType::BF16, 40.0)] {
            let narrow = decoder(stripes, dtype).decode(&latents).unwrap();
            let psnr = 10.0 * (4.0 / mean_square(&(&full - narrow).unwrap())).log10();
            assert!(psnr > least, "{dtype:?}: {psnr} dB");
        }
    }
}
