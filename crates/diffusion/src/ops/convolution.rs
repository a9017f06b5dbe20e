//! The convolutions of VAEs. On the CPU that of 3x3 is a kernel of this project; the other, and both on other devices, are
//! candle's.

use std::ops::Range;

use afterimage_checkpoint::Parameters;
use afterimage_kernels::Conv3x3 as Kernel;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Module, Result, Shape, Tensor};
use candle_nn::{Conv2d, Conv2dConfig};

/// Stride 1, padding 1: the picture keeps its size.
#[derive(Debug)]
pub(crate) struct Conv3x3 {
    conv: Conv2d,
    bias: Tensor,
    output_channels: usize,
}

impl Conv3x3 {
    pub(crate) fn new(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Ok(Self::of(parameters.get((output, input, 3, 3), "weight")?, parameters.get(output, "bias")?))
    }

    /// Of kernels `[output, input, 3, 3]`.
    fn of(weight: Tensor, bias: Tensor) -> Self {
        let config = Conv2dConfig { padding: 1, ..Default::default() };
        let output_channels = weight.dims()[0];
        Self { conv: Conv2d::new(weight, Some(bias.clone()), config), bias, output_channels }
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
        if !x.device().is_cpu() || x.dtype() != DType::F32 {
            return self.conv.forward(x)?.narrow(2, lines.start, lines.len())?.contiguous();
        }
        x.contiguous()?.apply_op3_no_bwd(self.conv.weight(), &self.bias, &SamePadding { lines })
    }
}

struct SamePadding {
    lines: Range<usize>,
}

impl CustomOp3 for SamePadding {
    fn name(&self) -> &'static str {
        "conv3x3"
    }

    fn cpu_fwd(
        &self,
        input: &CpuStorage,
        input_layout: &Layout,
        kernels: &CpuStorage,
        kernels_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, input_channels, height, width) = input_layout.shape().dims4()?;
        let output_channels = kernels_layout.dims()[0];
        let (input, kernels) = (contiguous(input, input_layout)?, contiguous(kernels, kernels_layout)?);
        let bias = contiguous(bias, bias_layout)?;
        let kernel = Kernel { input_channels, output_channels, height, width };
        let pixels = self.lines.len() * width;
        let mut output = vec![0f32; rows * output_channels * pixels];
        let pictures = input.chunks_exact(input_channels * height * width);
        for (picture, output) in pictures.zip(output.chunks_exact_mut(output_channels * pixels)) {
            kernel.run(self.lines.clone(), picture, kernels, bias, output);
        }
        Ok((CpuStorage::F32(output), Shape::from((rows, output_channels, self.lines.len(), width))))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("conv3x3 wants contiguous f32 values"),
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
        let conv = Conv3x3::of(weight, sines(12, 0.6));
        let x = Tensor::arange(0f32, 2.0 * 8.0 * 9.0 * 11.0, &Device::Cpu).unwrap().sin().unwrap();
        let x = x.reshape((2, 8, 9, 11)).unwrap();
        let difference = (conv.forward(&x).unwrap() - conv.conv.forward(&x).unwrap()).unwrap();
        let difference: f32 = difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(difference < 1e-5, "{difference}");
        let lines = conv.forward_lines(&x, 2..7).unwrap();
        let difference = (lines - conv.forward(&x).unwrap().narrow(2, 2, 5).unwrap()).unwrap();
        let difference: f32 = difference.abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(difference < 1e-5, "{difference}");
    }
}
