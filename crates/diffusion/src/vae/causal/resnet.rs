//! The residual block of the decoder.
//!
//! Follows diffusers 0.42.1, `QwenImageResidualBlock` (lines 229-298):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py#L229>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::norm::PixelNorm;
use crate::ops::convolution::Convolution;
use crate::vae::stripes::{Stripes, in_stripes};

#[derive(Debug)]
pub(super) struct ResidualBlock {
    norm1: PixelNorm,
    conv1: Convolution,
    norm2: PixelNorm,
    conv2: Convolution,
    shortcut: Option<Convolution>,
}

impl ResidualBlock {
    pub(super) fn new(input: usize, output: usize, parameters: &Parameters) -> Result<Self> {
        let shortcut = || Convolution::pixel_of_frames(input, output, parameters.pp("conv_shortcut"));
        Ok(Self {
            norm1: PixelNorm::of_frames(input, parameters.pp("norm1"))?,
            conv1: Convolution::three_of_first_frame(input, output, parameters.pp("conv1"))?,
            norm2: PixelNorm::of_frames(output, parameters.pp("norm2"))?,
            conv2: Convolution::three_of_first_frame(output, output, parameters.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// `[1, input, height, width]` to `[1, output, height, width]`
    pub(super) fn forward(&self, x: &Tensor, stripes: Stripes) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let line_values = x.elem_count() / height;
        let hidden = in_stripes(height, stripes.of(height, line_values), |stripe| {
            let seen = x.narrow(2, stripe.seen.start, stripe.seen.len())?;
            self.conv1.forward_lines(&self.norm1.apply_silu(&seen)?, stripe.lines_seen())
        })?;
        // It begins as what passes by the convolutions.
        let output = match &self.shortcut {
            Some(conv) => Tensor::zeros((1, conv.output_channels(), height, width), x.dtype(), x.device())?,
            None => x.copy()?,
        };
        for stripe in stripes.of(height, hidden.elem_count() / height) {
            let first = stripe.lines.start;
            if let Some(conv) = &self.shortcut {
                let passing = x.narrow(2, first, stripe.lines.len())?;
                conv.write_lines(&passing, 0..stripe.lines.len(), &output, first, false)?;
            }
            let normed = self.norm2.apply_silu(&hidden.narrow(2, stripe.seen.start, stripe.seen.len())?)?;
            self.conv2.write_lines(&normed, stripe.lines_seen(), &output, first, true)?;
        }
        Ok(output)
    }
}
