//! The norm of every pixel over its channels.
//!
//! Follows diffusers 0.42.1, `QwenImageRMS_norm` (lines 88-122):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py#L88>

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use crate::ops::group_norm::ChannelNorm;

/// The shortest length that a pixel's channels are divided by (`torch.nn.functional.normalize`).
const LEAST_LENGTH: f64 = 1e-12;

/// Divides the channels of a pixel by their length, which `gamma` gives a meaning again.
#[derive(Debug)]
pub(super) struct PixelNorm {
    /// By the root of the number of channels as well.
    gamma: ChannelNorm,
}

impl PixelNorm {
    /// Where frames have no dimension of their own, `[channels, 1, 1]`.
    pub(super) fn of_pictures(channels: usize, parameters: Parameters) -> Result<Self> {
        Self::of(&parameters.get((channels, 1, 1), "gamma")?)
    }

    /// `[channels, 1, 1, 1]`
    pub(super) fn of_frames(channels: usize, parameters: Parameters) -> Result<Self> {
        Self::of(&parameters.get((channels, 1, 1, 1), "gamma")?)
    }

    #[allow(clippy::disallowed_methods, reason = "in no forward: the weights are being loaded")]
    fn of(gamma: &Tensor) -> Result<Self> {
        let root = (gamma.dim(0)? as f32).sqrt();
        let gamma = gamma.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let scale: Vec<f32> = gamma.iter().map(|gamma| gamma * root).collect();
        let shift = vec![0.0; scale.len()];
        Ok(Self { gamma: ChannelNorm::new(scale, shift) })
    }

    /// `[1, channels, lines, width]`
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.gamma.apply(&of_length_1(x)?)
    }

    /// The norm and SiLU.
    pub(super) fn apply_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.gamma.apply_silu(&of_length_1(x)?)
    }
}

/// The lengths are taken in f32 whatever the dtype.
fn of_length_1(x: &Tensor) -> Result<Tensor> {
    let (_, channels, lines, width) = x.dims4()?;
    let wide = x.to_dtype(DType::F32)?;
    // A product, which adds up channels faster than candle's sum over them.
    let ones = Tensor::ones((1, 1, channels), DType::F32, x.device())?;
    let squares = ones.matmul(&wide.sqr()?.reshape((1, channels, lines * width))?)?;
    let lengths = squares.sqrt()?.maximum(LEAST_LENGTH)?.reshape((1, 1, lines, width))?;
    wide.broadcast_mul(&lengths.recip()?)?.to_dtype(x.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_pixel_keeps_its_direction() {
        let x = Tensor::new(&[[[[3f32, 0.0]], [[4f32, 0.0]]]], &Device::Cpu).unwrap();
        let norm = PixelNorm::of(&Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap()).unwrap();
        let normed = norm.apply(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let root = 2f32.sqrt();
        for (found, expected) in normed.iter().zip([0.6 * root, 0.0, 1.6 * root, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }
}
