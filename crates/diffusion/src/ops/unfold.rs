//! A picture as the matrix whose product with a convolution's kernels is the convolved picture: a kernel of this project, on
//! GPUs only.

use std::ops::Range;

use afterimage_cuda_kernels::Unfold;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::cuda;

/// Kernels `[output, input, 3, 3]` and a bias as the matrix to multiply with: `[output, 9 * input + 8]`.
pub(super) fn unfolded_kernels(weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (outputs, inputs, ..) = weight.dims4()?;
    let zeros = Tensor::zeros((outputs, Unfold::EXTRA_ROWS - 1), weight.dtype(), weight.device())?;
    Tensor::cat(&[&weight.reshape((outputs, 9 * inputs))?, &bias.reshape((outputs, 1))?, &zeros], 1)
}

/// `[channels, height, width]`, or that with every pixel four times, to `[9 * channels + 8, lines * width]`.
pub(super) fn unfolded(x: &Tensor, is_doubled: bool, lines: Range<usize>) -> Result<Tensor> {
    let (_, _, width) = x.dims3()?;
    let is_even = matches!(x.stride(), [_, line, 1] if *line == width);
    let x = if is_even { x.clone() } else { x.contiguous()? };
    x.apply_op1_no_bwd(&Neighbours { is_doubled, lines })
}

struct Neighbours {
    is_doubled: bool,
    lines: Range<usize>,
}

impl CustomOp1 for Neighbours {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("pictures are unfolded on GPUs only")
    }

    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let (channels, height, width) = layout.shape().dims3()?;
        let pixels = self.lines.len() * (width << u32::from(self.is_doubled));
        let value_type = cuda::value_type(x.dtype())?;
        let mut output = cuda::allocate(&x.device, value_type, Unfold::rows(channels) * pixels)?;
        let stream = x.device.cuda_stream();
        let mut operands = cuda::Operands::new(&stream, value_type);
        let unfold = Unfold {
            value_type,
            x: operands.read(x, layout)?,
            shape: (channels, height, width),
            channel_stride: layout.stride()[0],
            is_doubled: self.is_doubled,
            lines: self.lines.clone(),
            output: operands.written(&mut output, 0)?,
        };
        operands.launch(unfold.launch())?;
        Ok((output, (Unfold::rows(channels), pixels).into()))
    }
}
