//! The convolutions of VAEs. On the CPU they are kernels of this project; on GPUs products of matrices, one of which is the
//! picture unfolded; on other devices, candle's.

use std::ops::Range;

use afterimage_checkpoint::Parameters;
use afterimage_kernels::{Convolution as Kernel, Neighbourhood, Picture, convolve};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Result, Shape, Tensor};
use candle_nn::{Conv2d, Conv2dConfig};
use half::bf16;

use super::cpu::{KernelValue, answer, computed_dtype, contiguous, lock};
#[cfg(feature = "cuda")]
use super::unfold;

/// A convolution that keeps the picture's size, or doubles it.
#[derive(Debug)]
pub(crate) struct Convolution {
    conv: Conv,
    output_channels: usize,
}

#[derive(Debug)]
enum Conv {
    /// In main memory.
    Packed(Kernel),
    /// On a GPU, of 3x3 pixels: [`unfolded_kernels`](unfold::unfolded_kernels).
    #[cfg(feature = "cuda")]
    Unfolded {
        kernels: Tensor,
        doubles: bool,
    },
    OnDevice {
        conv: Conv2d,
        doubles: bool,
    },
}

impl Convolution {
    /// Of 3x3 pixels.
    pub(crate) fn three(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Self::load(Neighbourhood::Three, (input, output), &parameters)
    }

    /// Of 3x3 pixels, without a bias.
    pub(crate) fn three_without_bias(input: usize, output: usize, parameters: &Parameters) -> Result<Self> {
        let bias = Tensor::zeros(output, parameters.dtype(), parameters.device())?;
        Self::of(Neighbourhood::Three, parameters.get((output, input, 3, 3), "weight")?, bias)
    }

    /// Of 3x3 pixels of the picture with every pixel four times.
    pub(crate) fn three_of_doubled(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Self::load(Neighbourhood::ThreeOfDoubled, (input, output), &parameters)
    }

    /// Of single pixels.
    pub(crate) fn pixel(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        Self::load(Neighbourhood::Pixel, (input, output), &parameters)
    }

    /// Of 3x3 pixels by the last slice of a kernel over time, `[output, input, 3, 3, 3]`, which looks at the frame and two
    /// before: before a first frame there are zeros, so that it meets no other slice.
    pub(crate) fn three_of_first_frame(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        let weight = parameters.get((output, input, 3, 3, 3), "weight")?;
        let last = weight.narrow(2, 2, 1)?.squeeze(2)?;
        let last = if takes_memory(&weight) { last.contiguous()? } else { last };
        Self::of(Neighbourhood::Three, last, parameters.get(output, "bias")?)
    }

    /// Of single pixels of single frames, `[output, input, 1, 1, 1]`.
    pub(crate) fn pixel_of_frames(input: usize, output: usize, parameters: Parameters) -> Result<Self> {
        let weight = parameters.get((output, input, 1, 1, 1), "weight")?.squeeze(2)?;
        Self::of(Neighbourhood::Pixel, weight, parameters.get(output, "bias")?)
    }

    fn load(seen: Neighbourhood, (input, output): (usize, usize), parameters: &Parameters) -> Result<Self> {
        let side = if seen == Neighbourhood::Pixel { 1 } else { 3 };
        Self::of(seen, parameters.get((output, input, side, side), "weight")?, parameters.get(output, "bias")?)
    }

    /// Of kernels `[output, input, side, side]`.
    fn of(seen: Neighbourhood, weight: Tensor, bias: Tensor) -> Result<Self> {
        let output_channels = weight.dim(0)?;
        let conv = if weight.device().is_cpu() && takes_memory(&weight) {
            Conv::Packed(packed(seen, &weight, &bias)?)
        } else {
            on_device(seen, weight, bias)?
        };
        Ok(Self { conv, output_channels })
    }

    pub(crate) fn output_channels(&self) -> usize {
        self.output_channels
    }

    /// `[rows, input, height, width]` to `[rows, output, height, width]`, or twice the height and width.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_lines(x, 0..self.scale() * x.dim(2)?)
    }

    fn scale(&self) -> usize {
        match &self.conv {
            Conv::Packed(kernel) => kernel.scale(),
            #[cfg(feature = "cuda")]
            Conv::Unfolded { doubles, .. } => 1 + usize::from(*doubles),
            Conv::OnDevice { doubles, .. } => 1 + usize::from(*doubles),
        }
    }

    /// The same for some lines of the result: `[rows, output, lines, width]`, contiguous.
    pub(crate) fn forward_lines(&self, x: &Tensor, lines: Range<usize>) -> Result<Tensor> {
        match &self.conv {
            #[cfg(feature = "cuda")]
            Conv::Unfolded { kernels, doubles } => {
                let width = self.scale() * x.dim(3)?;
                let rows = (0..x.dim(0)?).map(|row| {
                    let picture = unfold::unfolded(&x.get(row)?, *doubles, lines.clone())?;
                    kernels.matmul(&picture)?.reshape((1, self.output_channels, lines.len(), width))
                });
                Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
            }
            Conv::OnDevice { conv, doubles } => {
                let (_, _, height, width) = x.dims4()?;
                let x = if *doubles { &x.contiguous()?.upsample_nearest2d(2 * height, 2 * width)? } else { x };
                conv.forward(x)?.narrow(2, lines.start, lines.len())?.contiguous()
            }
            Conv::Packed(kernel) => {
                let lines = Lines { kernel, lines };
                x.to_dtype(computed_dtype(x.dtype()))?.contiguous()?.apply_op1_no_bwd(&lines)?.to_dtype(x.dtype())
            }
        }
    }
}

/// Kernels that take none are those of models that are only described.
fn takes_memory(weight: &Tensor) -> bool {
    weight.is_contiguous()
}

fn packed(seen: Neighbourhood, weight: &Tensor, bias: &Tensor) -> Result<Kernel> {
    let narrow = weight.dtype() == DType::BF16;
    let (inputs, weight, bias) = (weight.dim(1)?, weight.to_dtype(DType::F32)?, bias.to_dtype(DType::F32)?);
    let (weight, bias) = (lock(&weight), lock(&bias));
    Ok(Kernel::new(seen, inputs, weight.contiguous()?, bias.contiguous()?, narrow))
}

fn on_device(seen: Neighbourhood, weight: Tensor, bias: Tensor) -> Result<Conv> {
    #[cfg(feature = "cuda")]
    if super::cuda::has_kernels(&weight) && seen != Neighbourhood::Pixel {
        let kernels = unfold::unfolded_kernels(&weight, &bias)?;
        return Ok(Conv::Unfolded { kernels, doubles: seen == Neighbourhood::ThreeOfDoubled });
    }
    let config = Conv2dConfig { padding: weight.dim(2)? / 2, ..Default::default() };
    let doubles = seen == Neighbourhood::ThreeOfDoubled;
    Ok(Conv::OnDevice { conv: Conv2d::new(weight, Some(bias), config), doubles })
}

struct Lines<'a> {
    kernel: &'a Kernel,
    lines: Range<usize>,
}

impl Lines<'_> {
    fn run<T: KernelValue>(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, channels, height, width) = layout.shape().dims4()?;
        let output_channels = self.kernel.output_channels();
        let output_width = self.kernel.scale() * width;
        let pixels = self.lines.len() * output_width;
        let mut output = vec![T::zero(); rows * output_channels * pixels];
        let pictures = contiguous::<T>(input, layout)?.chunks_exact((channels * height * width).max(1));
        for (values, output) in pictures.zip(output.chunks_exact_mut((output_channels * pixels).max(1))) {
            convolve(self.kernel, self.lines.clone(), Picture { values, height, width }, output);
        }
        Ok(answer(output, (rows, output_channels, self.lines.len(), output_width)))
    }
}

impl CustomOp1 for Lines<'_> {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match input {
            CpuStorage::BF16(_) => self.run::<bf16>(input, layout),
            _ => self.run::<f32>(input, layout),
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::definition::sines;
    use super::*;

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn equals_candle_but_for_the_order_of_summation() {
        for (seen, side) in [(Neighbourhood::Pixel, 1), (Neighbourhood::Three, 3), (Neighbourhood::ThreeOfDoubled, 3)] {
            let weight = (sines((12, 8, side, side), 0.3) * 0.1).unwrap();
            let bias = sines(12, 0.6);
            let candle = on_device(seen, weight.clone(), bias.clone()).unwrap();
            let candle = Convolution { conv: candle, output_channels: 12 };
            let conv = Convolution::of(seen, weight, bias).unwrap();
            let x = Tensor::arange(0f32, 2.0 * 8.0 * 9.0 * 11.0, &Device::Cpu).unwrap().sin().unwrap();
            let x = x.reshape((2, 8, 9, 11)).unwrap();
            let (ours, theirs) = (conv.forward(&x).unwrap(), candle.forward(&x).unwrap());
            assert_eq!(ours.dims(), theirs.dims());
            assert!(largest_difference(&ours, &theirs) < 1e-5, "{seen:?}");
            let (ours, theirs) = (conv.forward_lines(&x, 2..7).unwrap(), candle.forward_lines(&x, 2..7).unwrap());
            assert!(largest_difference(&ours, &theirs) < 1e-5, "{seen:?}");
        }
    }

    #[test]
    fn a_first_frame_meets_the_last_slice() {
        let kernel = (sines((4, 2, 3, 3, 3), 0.3) * 0.1).unwrap();
        let tensors = [("weight".to_owned(), kernel.clone()), ("bias".to_owned(), sines(4, 0.6))];
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("diffusion_pytorch_model.safetensors");
        candle_core::safetensors::save(&tensors.into_iter().collect(), file).unwrap();
        let weights = afterimage_checkpoint::Weights::open(place.path()).unwrap();
        let conv = Convolution::three_of_first_frame(2, 4, weights.parameters(DType::F32, &Device::Cpu)).unwrap();
        let x = sines((1, 2, 5, 6), 0.2);
        let slice = kernel.narrow(2, 2, 1).unwrap().squeeze(2).unwrap().contiguous().unwrap();
        let expected = on_device(Neighbourhood::Three, slice, sines(4, 0.6)).unwrap();
        let expected = Convolution { conv: expected, output_channels: 4 }.forward(&x).unwrap();
        assert!(largest_difference(&conv.forward(&x).unwrap(), &expected) < 1e-5);
    }
}
