//! The decoder itself: middle, up-sampling stages, output; of a first frame, which is all of a picture.
//!
//! Follows diffusers 0.42.1, `QwenImageDecoder3d` (lines 549-670), `QwenImageMidBlock` (349-393), `QwenImageUpBlock` (482-546),
//! `QwenImageResample` (142-226) and `QwenImageCausalConv3d` (40-85):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py#L549>
//!
//! A convolution over time looks back at two frames, which are zeros before the first, and frames are only doubled from the
//! second one on. So the first is decoded by convolutions of pictures. Later frames would meet the other slices of the
//! kernels (`Convolution::three_of_first_frame`) and what convolutions saw of the frames before.
//!
//! As in the decoder of `AutoencoderKL`, every layer runs over the whole picture in stripes, which do not show.

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::attention::FrameAttention;
use super::config::{CausalVaeConfig, Stage};
use super::norm::PixelNorm;
use super::resnet::ResidualBlock;
use crate::ops::convolution::Convolution;
use crate::vae::dtypes::map_dtype;
use crate::vae::input::doubled_lines;
use crate::vae::stripes::{Stripes, in_stripes};

/// Frames that a convolution over time sees.
const TIME_KERNEL: usize = 3;

/// Latents to pixels.
#[derive(Debug)]
pub(super) struct CausalDecoder {
    post_quant_conv: Convolution,
    conv_in: Convolution,
    middle: (ResidualBlock, FrameAttention, ResidualBlock),
    up_blocks: Vec<UpBlock>,
    norm_out: PixelNorm,
    conv_out: Convolution,
    dtype: DType,
    stripes: Stripes,
}

/// Residual blocks, then a doubling of the picture.
#[derive(Debug)]
struct UpBlock {
    resnets: Vec<ResidualBlock>,
    upsampler: Option<Convolution>,
}

impl CausalDecoder {
    pub(super) fn new(config: &CausalVaeConfig, parameters: &Parameters) -> Result<Self> {
        let (latents, coarsest) = (config.z_dim, config.coarsest());
        let decoder = parameters.pp("decoder");
        let middle = decoder.pp("mid_block");
        let resnet = |index: usize| ResidualBlock::new(coarsest, coarsest, &middle.pp("resnets").pp(index));
        let up_blocks = config.stages().into_iter().enumerate();
        let up_blocks = up_blocks
            .map(|(index, stage)| UpBlock::new(stage, config.num_res_blocks, &decoder.pp("up_blocks").pp(index)));
        Ok(Self {
            post_quant_conv: Convolution::pixel_of_frames(latents, latents, parameters.pp("post_quant_conv"))?,
            conv_in: Convolution::three_of_first_frame(latents, coarsest, decoder.pp("conv_in"))?,
            middle: (resnet(0)?, FrameAttention::new(coarsest, &middle.pp("attentions").pp(0))?, resnet(1)?),
            up_blocks: up_blocks.collect::<Result<_>>()?,
            norm_out: PixelNorm::of_frames(config.finest(), decoder.pp("norm_out"))?,
            conv_out: Convolution::three_of_first_frame(
                config.finest(),
                config.input_channels,
                decoder.pp("conv_out"),
            )?,
            dtype: map_dtype(parameters),
            stripes: Stripes::default(),
        })
    }

    /// Bytes that decoding to so many pixels takes at the worst moment, with so many channels in the last stage and the one
    /// before.
    pub(super) fn decode_bytes(&self, pixels: usize, finest: usize, coarser: usize) -> usize {
        self.stripes.decode_bytes(pixels, finest, coarser, self.dtype.size_in_bytes())
    }

    /// `[rows, z_dim, height, width]`, scaling already undone, to `[rows, 3, height * scale, width * scale]` in f32, roughly
    /// from -1 to 1. One row at a time.
    pub(super) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let rows = (0..latents.dim(0)?).map(|row| self.decode_row(&latents.narrow(0, row, 1)?));
        Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
    }

    fn decode_row(&self, latents: &Tensor) -> Result<Tensor> {
        let x = self.post_quant_conv.forward(&latents.to_dtype(self.dtype)?.contiguous()?)?;
        let x = self.conv_in.forward(&x)?;
        let (before, attention, after) = &self.middle;
        let x = attention.forward(&before.forward(&x, self.stripes)?, self.stripes)?;
        let x = after.forward(&x, self.stripes)?;
        let x = self.up_blocks.iter().try_fold(x, |x, block| block.forward(x, self.stripes))?;
        let (_, _, height, _) = x.dims4()?;
        in_stripes(height, self.stripes.of(height, x.elem_count() / height), |stripe| {
            let lines = self.norm_out.apply_silu(&x.narrow(2, stripe.seen.start, stripe.seen.len())?)?;
            self.conv_out.forward_lines(&lines, stripe.lines_seen())?.to_dtype(DType::F32)
        })
    }
}

impl UpBlock {
    fn new(stage: Stage, res_blocks: usize, parameters: &Parameters) -> Result<Self> {
        let Stage { input, output, doubles, doubles_frames } = stage;
        // The decoder has one layer more per stage than the encoder.
        let resnet = |layer: usize| {
            let input = if layer == 0 { input } else { output };
            ResidualBlock::new(input, output, &parameters.pp("resnets").pp(layer))
        };
        let upsampler = parameters.pp("upsamplers").pp(0);
        if doubles_frames {
            // A first frame stays one.
            let time_conv = upsampler.pp("time_conv");
            time_conv.get((2 * output, output, TIME_KERNEL, 1, 1), "weight")?;
            time_conv.get(2 * output, "bias")?;
        }
        let convolution = || Convolution::three_of_doubled(output, output / 2, upsampler.pp("resample").pp(1));
        Ok(Self {
            resnets: (0..=res_blocks).map(resnet).collect::<Result<_>>()?,
            upsampler: doubles.then(convolution).transpose()?,
        })
    }

    fn forward(&self, x: Tensor, stripes: Stripes) -> Result<Tensor> {
        let x = self.resnets.iter().try_fold(x, |x, resnet| resnet.forward(&x, stripes))?;
        let Some(conv) = &self.upsampler else { return Ok(x) };
        let height = 2 * x.dim(2)?;
        let line_values = 2 * x.dim(1)? * x.dim(3)?;
        in_stripes(height, stripes.of(height, line_values), |stripe| doubled_lines(&x, conv, stripe.lines.clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::golden_fixture::Fixture;
    use crate::noise::randn;

    /// Of values from -1 to 1; stripes change the order of sums only.
    const TOLERANCE: f32 = 1e-5;

    #[test]
    fn stripes_do_not_show() {
        let folder = Fixture::open("qwen-image").folder;
        let config = CausalVaeConfig::from_json(&folder.text("vae/config.json").unwrap()).unwrap();
        let weights = folder.weights("vae").unwrap();
        let decode = |stripes: Stripes| {
            let decoder = CausalDecoder::new(&config, &weights.parameters(DType::F32, &Device::Cpu)).unwrap();
            let latents = Tensor::from_vec(randn(5, &[1, 4, 7, 5]), (1, 4, 7, 5), &Device::Cpu).unwrap();
            CausalDecoder { stripes, ..decoder }.decode(&latents).unwrap()
        };
        let whole = decode(Stripes { stripe_values: usize::MAX, most_stored_values: usize::MAX });
        assert_eq!(whole.dims(), [1, 3, 56, 40]);
        for stripe_values in [1, 3000] {
            let difference = (decode(Stripes { stripe_values, most_stored_values: 0 }) - &whole).unwrap();
            let largest: f32 = difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
            assert!(largest < TOLERANCE, "{stripe_values}: {largest} off");
        }
    }
}
