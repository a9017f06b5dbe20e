//! The decoder itself: latents, stages from the coarsest on, output.
//!
//! Follows diffusers 0.42.1, `Decoder` (lines 282-373):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_dc.py#L282>
//!
//! As in the decoder of `AutoencoderKL`, most layers run over the whole picture in stripes, which do not show.

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Tensor};

use super::config::{BlockKind, DeepCompressionConfig, Stage};
use super::norm::BiasedRmsNorm;
use super::residual_block::ResidualBlock;
use super::upsampling::{Upsampling, repeated};
use super::vision_block::VisionBlock;
use crate::DiffusionError;
use crate::ops::activation::Activation;
use crate::ops::convolution::Convolution;
use crate::vae::dtypes::map_dtype;
use crate::vae::stripes::{Stripes, in_stripes};

/// Latents to pixels.
#[derive(Debug)]
pub(super) struct DeepCompressionDecoder {
    conv_in: Convolution,
    /// How often latents are repeated to pass by the first convolution; `None`: they do not.
    repeats: Option<usize>,
    stages: Vec<DecoderStage>,
    norm_out: BiasedRmsNorm,
    activation: Activation,
    output: Output,
    dtype: DType,
    stripes: Stripes,
}

/// A doubling, then blocks.
#[derive(Debug)]
struct DecoderStage {
    upsampling: Option<Upsampling>,
    blocks: Vec<Block>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a stage has a few")]
enum Block {
    Residual(ResidualBlock),
    Vision(VisionBlock),
}

#[derive(Debug)]
enum Output {
    Convolution(Convolution),
    Upsampling(Upsampling),
}

impl DeepCompressionDecoder {
    pub(super) fn new(config: &DeepCompressionConfig, parameters: &Parameters) -> Result<Self, DiffusionError> {
        let (latents, coarsest, finest) = (config.latent_channels, config.coarsest(), config.finest());
        let decoder = parameters.pp("decoder");
        let stages = config.stages()?;
        let stages = stages.iter().map(|stage| DecoderStage::new(stage, config, &decoder.pp("up_blocks")));
        let (ends, picture) = (decoder.pp("conv_out"), config.picture_channels());
        let output = if config.doubles_at_end() {
            Output::Upsampling(Upsampling::new((finest, picture), config.interpolates(), false, ends.pp("conv"))?)
        } else {
            Output::Convolution(Convolution::three(finest, picture, ends)?)
        };
        Ok(Self {
            conv_in: Convolution::three(latents, coarsest, decoder.pp("conv_in"))?,
            repeats: config.decoder_in_shortcut.then_some(coarsest / latents),
            stages: stages.collect::<candle_core::Result<_>>()?,
            norm_out: BiasedRmsNorm::new(finest, &decoder.pp("norm_out"))?,
            activation: config.output_activation()?,
            output,
            dtype: map_dtype(parameters),
            stripes: Stripes::default(),
        })
    }

    /// Bytes that decoding to so many pixels takes at the worst moment, with so many channels in the last stage and the one
    /// before. What is added to a doubled map in a shortcut is half a map more.
    pub(super) fn decode_bytes(&self, pixels: usize, finest: usize, coarser: usize) -> usize {
        self.stripes.decode_bytes(pixels, finest, coarser, self.dtype.size_in_bytes()) / 2 * 3
    }

    /// `[rows, latent channels, height, width]`, scaling already undone, to `[rows, 3, height * scale, width * scale]` in f32,
    /// roughly from -1 to 1. One row at a time.
    pub(super) fn decode(&self, latents: &Tensor) -> candle_core::Result<Tensor> {
        let rows = (0..latents.dim(0)?).map(|row| self.decode_row(&latents.narrow(0, row, 1)?));
        Tensor::cat(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)
    }

    fn decode_row(&self, latents: &Tensor) -> candle_core::Result<Tensor> {
        let latents = latents.to_dtype(self.dtype)?.contiguous()?;
        let convolved = self.conv_in.forward(&latents)?;
        let x = match self.repeats {
            Some(times) => (convolved + repeated(&latents, times)?)?,
            None => convolved,
        };
        let x = self.stages.iter().try_fold(x, |x, stage| stage.forward(x, self.stripes))?;
        let finish = |lines: &Tensor| self.activation.apply(self.norm_out.forward_map(lines)?);
        let (_, _, height, _) = x.dims4()?;
        match &self.output {
            Output::Upsampling(upsampling) => upsampling.forward(&finish(&x)?, self.stripes)?.to_dtype(DType::F32),
            Output::Convolution(conv) => {
                in_stripes(height, self.stripes.of(height, x.elem_count() / height), |stripe| {
                    let lines = finish(&x.narrow(2, stripe.seen.start, stripe.seen.len())?)?;
                    conv.forward_lines(&lines, stripe.lines_seen())?.to_dtype(DType::F32)
                })
            }
        }
    }
}

impl DecoderStage {
    fn new(stage: &Stage, config: &DeepCompressionConfig, parameters: &Parameters) -> candle_core::Result<Self> {
        let parameters = parameters.pp(stage.level);
        let upsampling = |input: usize| {
            let conv = parameters.pp(0).pp("conv");
            Upsampling::new((input, stage.channels), config.interpolates(), true, conv)
        };
        // The doubling is the first of the stage's modules.
        let first = usize::from(stage.doubled_from.is_some());
        let block = |index: usize| {
            let parameters = parameters.pp(first + index);
            Ok(match &stage.kind {
                BlockKind::Residual(activation) => {
                    Block::Residual(ResidualBlock::new(stage.channels, *activation, &parameters)?)
                }
                BlockKind::Vision(scales) => {
                    Block::Vision(VisionBlock::new(stage.channels, config.attention_head_dim, scales, &parameters)?)
                }
            })
        };
        Ok(Self {
            upsampling: stage.doubled_from.map(upsampling).transpose()?,
            blocks: (0..stage.layers).map(block).collect::<candle_core::Result<_>>()?,
        })
    }

    fn forward(&self, x: Tensor, stripes: Stripes) -> candle_core::Result<Tensor> {
        let x = match &self.upsampling {
            Some(upsampling) => upsampling.forward(&x, stripes)?,
            None => x,
        };
        self.blocks.iter().try_fold(x, |x, block| match block {
            Block::Residual(block) => block.forward(&x, stripes),
            Block::Vision(block) => block.forward(&x, stripes),
        })
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
        for (name, channels, scale) in [("sana", 4, 8), ("sana-1.5", 6, 4)] {
            let folder = Fixture::open(name).folder;
            let config = DeepCompressionConfig::from_json(&folder.text("vae/config.json").unwrap()).unwrap();
            let weights = folder.weights("vae").unwrap();
            let decode = |stripes: Stripes| {
                let decoder = DeepCompressionDecoder::new(&config, &weights.parameters(DType::F32, &Device::Cpu));
                let latents = Tensor::from_vec(randn(5, &[channels * 35]), (1, channels, 7, 5), &Device::Cpu).unwrap();
                DeepCompressionDecoder { stripes, ..decoder.unwrap() }.decode(&latents).unwrap()
            };
            let whole = decode(Stripes { stripe_values: usize::MAX, most_stored_values: usize::MAX });
            assert_eq!(whole.dims(), [1, 3, 7 * scale, 5 * scale]);
            for stripe_values in [1, 3000] {
                let difference = (decode(Stripes { stripe_values, most_stored_values: 0 }) - &whole).unwrap();
                let largest: f32 = difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
                assert!(largest < TOLERANCE, "{name}, {stripe_values}: {largest} off");
            }
        }
    }
}
