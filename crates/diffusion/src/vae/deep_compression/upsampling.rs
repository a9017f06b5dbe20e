//! Maps of twice the size, with what passes by the convolution: channels become pixels.
//!
//! Follows diffusers 0.42.1, `DCUpBlock2d` (lines 163-208) and `Decoder.forward` (356-373):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_dc.py#L163>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use crate::ops::convolution::Convolution;
use crate::vae::input::doubled_lines;
use crate::vae::stripes::{Stripes, in_stripes};

/// Pixels that a pixel becomes.
const PIXELS: usize = 4;

/// A doubling of width and height.
#[derive(Debug)]
pub(super) struct Upsampling {
    conv: Convolution,
    /// Every pixel four times, and a convolution; otherwise four results of one.
    interpolates: bool,
    /// How often channels are repeated to pass by; `None`: they do not.
    repeats: Option<usize>,
}

impl Upsampling {
    /// `parameters` are the convolution's.
    pub(super) fn new(
        (input, output): (usize, usize),
        interpolates: bool,
        passes_by: bool,
        parameters: Parameters,
    ) -> Result<Self> {
        let conv = match interpolates {
            true => Convolution::three_of_doubled(input, output, parameters)?,
            false => Convolution::three(input, PIXELS * output, parameters)?,
        };
        Ok(Self { conv, interpolates, repeats: passes_by.then_some(PIXELS * output / input) })
    }

    /// `[1, input, height, width]` to `[1, output, 2 * height, 2 * width]`
    pub(super) fn forward(&self, x: &Tensor, stripes: Stripes) -> Result<Tensor> {
        let height = x.dim(2)?;
        let doubled = if self.interpolates {
            let line_values = 2 * x.dim(1)? * x.dim(3)?;
            in_stripes(2 * height, stripes.of(2 * height, line_values), |stripe| {
                doubled_lines(x, &self.conv, stripe.lines.clone())
            })?
        } else {
            pixels_of_channels(&self.conv.forward(x)?)?
        };
        match self.repeats {
            Some(times) => doubled + pixels_of_channels(&repeated(x, times)?)?,
            None => Ok(doubled),
        }
    }
}

/// Every channel of `[rows, channels, height, width]` so many times.
pub(super) fn repeated(x: &Tensor, times: usize) -> Result<Tensor> {
    let (rows, channels, height, width) = x.dims4()?;
    let repeated = x.unsqueeze(2)?.broadcast_as((rows, channels, times, height, width))?;
    repeated.contiguous()?.reshape((rows, channels * times, height, width))
}

/// `[rows, 4 * channels, height, width]` to `[rows, channels, 2 * height, 2 * width]`: line by line.
fn pixels_of_channels(x: &Tensor) -> Result<Tensor> {
    let (rows, channels, height, width) = x.dims4()?;
    let channels = channels / PIXELS;
    let x = x.reshape(&[rows, channels, 2, 2, height, width])?.permute([0, 1, 4, 2, 5, 3])?;
    x.contiguous()?.reshape((rows, channels, 2 * height, 2 * width))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn channels_become_pixels_line_by_line() {
        let x = Tensor::arange(0f32, 2.0, &Device::Cpu).unwrap().reshape((1, 2, 1, 1)).unwrap();
        let repeated = repeated(&x, 2).unwrap();
        assert_eq!(repeated.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0, 1.0, 1.0]);
        let map = pixels_of_channels(&repeated).unwrap().squeeze(0).unwrap().squeeze(0).unwrap();
        assert_eq!(map.to_vec2::<f32>().unwrap(), [[0.0, 0.0], [1.0, 1.0]]);
    }
}
