//! The convolutions of VAEs. On the CPU that of 3x3 is a kernel of this project; the other, and both on other devices, are
//! candle's.

use std::ops::Range;

use afterimage_checkpoint::Parameters;
use afterimage_kernels::{Conv3x3 as Kernel, Picture};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Result, Shape, Tensor};
use candle_nn::{Conv2d, Conv2dConfig};

use super::cpu::{contiguous, lock};

/// Stride 1, padding 1: the picture keeps its size.
#[derive(Debug)]
pub(crate) struct Conv3x3 {
    conv: Conv,
    output_channels: usize,
}

#[derive(Debug)]
enum Conv {
    /// In main memory, in f32 whatever the dtype of the picture.
    Packed(Kernel),
    OnDevice(Conv2d),
}

impl Conv3x3 {
    pub(crate) fn new(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Self::of(parameters.get((output, input, 3, 3), "weight")?, parameters.get(output, "bias")?)
    }

    /// Of kernels `[output, input, 3, 3]`.
    fn of(weight: Tensor, bias: Tensor) -> Result<Self> {
        let (output_channels, input_channels, ..) = weight.dims4()?;
        // Kernels that take no memory are those of models that are only described.
        let conv = if weight.device().is_cpu() && weight.is_contiguous() {
            Conv::Packed(packed(input_channels, &weight.to_dtype(DType::F32)?, &bias.to_dtype(DType::F32)?)?)
        } else {
            Conv::OnDevice(on_device(weight, bias))
        };
        Ok(Self { conv, output_channels })
    }

    pub(crate) fn output_channels(&self) -> usize {
        self.output_channels
    }

    /// `[rows, input, height, width]` to `[rows, output, height, width]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_lines(x, 0..x.dim(2)?)
    }

    /// The same for some lines of the picture: `[rows, output, lines, width]`, contiguous.
    pub(crate) fn forward_lines(&self, x: &Tensor, lines: Range<usize>) -> Result<Tensor> {
        match &self.conv {
            Conv::OnDevice(conv) => conv.forward(x)?.narrow(2, lines.start, lines.len())?.contiguous(),
            Conv::Packed(kernel) => {
                let lines = SamePadding { kernel, lines };
                x.to_dtype(DType::F32)?.contiguous()?.apply_op1_no_bwd(&lines)?.to_dtype(x.dtype())
            }
        }
    }
}

fn packed(input_channels: usize, weight: &Tensor, bias: &Tensor) -> Result<Kernel> {
    let (weight, bias) = (lock(weight), lock(bias));
    Ok(Kernel::new(input_channels, weight.contiguous()?, bias.contiguous()?))
}

fn on_device(weight: Tensor, bias: Tensor) -> Conv2d {
    Conv2d::new(weight, Some(bias), Conv2dConfig { padding: 1, ..Default::default() })
}

struct SamePadding<'a> {
    kernel: &'a Kernel,
    lines: Range<usize>,
}

impl CustomOp1 for SamePadding<'_> {
    fn name(&self) -> &'static str {
        "conv3x3"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, channels, height, width) = layout.shape().dims4()?;
        let output_channels = self.kernel.output_channels();
        let pixels = self.lines.len() * width;
        let mut output = vec![0f32; rows * output_channels * pixels];
        let pictures = contiguous::<f32>(input, layout)?.chunks_exact((channels * height * width).max(1));
        for (values, output) in pictures.zip(output.chunks_exact_mut((output_channels * pixels).max(1))) {
            self.kernel.run(self.lines.clone(), Picture { values, height, width }, output);
        }
        Ok((CpuStorage::F32(output), Shape::from((rows, output_channels, self.lines.len(), width))))
    }
}

/// A convolution of single pixels, as a matrix product on all devices. It is candle's: channels come before pixels here, and
/// [`linear`](super::linear::linear) wants them last.
#[derive(Debug)]
pub(crate) struct Conv1x1 {
    /// `[1, output, input]`
    weight: Tensor,
    /// `[1, output, 1]`
    bias: Tensor,
}

impl Conv1x1 {
    pub(crate) fn new(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        let weight = parameters.get((output, input, 1, 1), "weight")?.reshape((1, output, input))?;
        Ok(Self { weight, bias: parameters.get(output, "bias")?.reshape((1, output, 1))? })
    }

    /// `[1, input, height, width]` to `[1, output, height, width]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let output = self.weight.matmul(&x.flatten_from(2)?)?.broadcast_add(&self.bias)?;
        output.reshape((1, (), height, width))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::definition::sines;
    use super::*;

    #[test]
    fn equals_candle_but_for_the_order_of_summation() {
        let weight = (sines((12, 8, 3, 3), 0.3) * 0.1).unwrap();
        let conv = Conv3x3::of(weight.clone(), sines(12, 0.6)).unwrap();
        let candle = on_device(weight, sines(12, 0.6));
        let x = Tensor::arange(0f32, 2.0 * 8.0 * 9.0 * 11.0, &Device::Cpu).unwrap().sin().unwrap();
        let x = x.reshape((2, 8, 9, 11)).unwrap();
        let difference = (conv.forward(&x).unwrap() - candle.forward(&x).unwrap()).unwrap();
        let difference: f32 = difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(difference < 1e-5, "{difference}");
        let lines = conv.forward_lines(&x, 2..7).unwrap();
        let difference = (lines - conv.forward(&x).unwrap().narrow(2, 2, 5).unwrap()).unwrap();
        let difference: f32 = difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(difference < 1e-5, "{difference}");
    }
}
