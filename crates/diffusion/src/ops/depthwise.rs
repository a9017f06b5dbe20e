//! Convolutions that keep channels apart, over maps whose channels stand side by side. On the CPU a kernel of this project; on
//! other devices a product of candle's for every place of the kernel: its own convolution takes a channel at a time, and there
//! are thousands.

use afterimage_checkpoint::Parameters;
use afterimage_kernels::{ChannelKernels, ChannelMap, convolve_channels};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};

use super::cpu::{answer, contiguous, lock};

/// A kernel for each channel, of an odd side; beyond its edges a map is 0.
#[derive(Debug)]
pub(crate) struct Depthwise {
    /// `[side * side, channels]`, f32
    kernels: Tensor,
    /// `[channels]`, f32
    bias: Option<Tensor>,
    side: usize,
}

impl Depthwise {
    /// With a bias, where `has_bias`.
    pub(crate) fn load(channels: usize, side: usize, has_bias: bool, parameters: &Parameters) -> Result<Self> {
        let kernels = parameters.get((channels, 1, side, side), "weight")?;
        let bias = if has_bias { Some(parameters.get(channels, "bias")?) } else { None };
        Self::of(&kernels, bias.as_ref())
    }

    fn of(kernels: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let (channels, _, side, _) = kernels.dims4()?;
        let kernels = kernels.to_dtype(DType::F32)?.reshape((channels, side * side))?.t()?.contiguous()?;
        Ok(Self { kernels, bias: bias.map(|bias| bias.to_dtype(DType::F32)).transpose()?, side })
    }

    /// `[rows, height, width, channels]` to the same, in f32 whatever the dtype.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let convolved = match x.device().is_cpu() {
            true => wide.contiguous()?.apply_op1_no_bwd(&Channels(self))?,
            false => self.forward_on_device(&wide)?,
        };
        convolved.to_dtype(x.dtype())
    }

    fn forward_on_device(&self, x: &Tensor) -> Result<Tensor> {
        let (_, height, width, _) = x.dims4()?;
        let edge = self.side / 2;
        let padded = x.pad_with_zeros(1, edge, edge)?.pad_with_zeros(2, edge, edge)?;
        let mut sum = match &self.bias {
            Some(bias) => bias.broadcast_as(x.shape())?.contiguous()?,
            None => x.zeros_like()?,
        };
        for place in 0..self.side * self.side {
            let seen = padded.narrow(1, place / self.side, height)?.narrow(2, place % self.side, width)?;
            sum = (sum + seen.broadcast_mul(&self.kernels.get(place)?)?)?;
        }
        Ok(sum)
    }
}

struct Channels<'a>(&'a Depthwise);

impl CustomOp1 for Channels<'_> {
    fn name(&self) -> &'static str {
        "depthwise-convolution"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, height, width, channels) = layout.shape().dims4()?;
        let Depthwise { kernels, bias, side } = self.0;
        let (kernels, bias) = (lock(kernels), bias.as_ref().map(lock));
        let bias = bias.as_ref().map(|bias| bias.contiguous()).transpose()?;
        let kernels = ChannelKernels { weights: kernels.contiguous()?, side: *side, bias };
        let values = contiguous::<f32>(input, layout)?;
        let mut output = vec![0f32; values.len()];
        let size = (height * width * channels).max(1);
        for (values, output) in values.chunks_exact(size).zip(output.chunks_exact_mut(size)) {
            convolve_channels(kernels, ChannelMap { values, height, width }, output);
        }
        Ok(answer(output, layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    #[test]
    fn equals_the_definition() {
        const CHANNELS: usize = 3;
        const SIDES: [usize; 2] = [4, 5];
        let x = sines((1, SIDES[0], SIDES[1], CHANNELS), 0.3);
        for side in [1, 3, 5] {
            let (kernels, bias) = (sines((CHANNELS, 1, side, side), 0.2), sines(CHANNELS, 0.7));
            let (maps, weights, shifts) = (wide(&x), wide(&kernels), wide(&bias));
            let mut defined = Vec::new();
            for (pixel, channel) in (0..SIDES[0] * SIDES[1]).flat_map(|pixel| (0..CHANNELS).map(move |it| (pixel, it)))
            {
                let mut sum = shifts[channel];
                for place in 0..side * side {
                    let line = (pixel / SIDES[1] + place / side).wrapping_sub(side / 2);
                    let column = (pixel % SIDES[1] + place % side).wrapping_sub(side / 2);
                    if line < SIDES[0] && column < SIDES[1] {
                        let value = maps[(line * SIDES[1] + column) * CHANNELS + channel];
                        sum += weights[channel * side * side + place] * value;
                    }
                }
                defined.push(sum);
            }
            let depthwise = Depthwise::of(&kernels, Some(&bias)).unwrap();
            assert_close(&depthwise.forward(&x).unwrap(), &defined);
            assert_close(&depthwise.forward_on_device(&x).unwrap(), &defined);
        }
    }
}
