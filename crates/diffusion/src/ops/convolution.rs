//! The convolutions of VAEs. On the CPU they are kernels of this project; on GPUs products of matrices, one of which is the
//! picture unfolded; on other devices, candle's.
//!
//! Kernels of bf16 on a CPU that multiplies it are used as bf16, and the result is f32: only what is multiplied is rounded.

use std::ops::Range;

use afterimage_checkpoint::Parameters;
use afterimage_kernels::{Convolution as Kernel, ConvolvedRows, Isa, Neighbourhood, Picture, convolve};
use candle_core::{CpuStorage, CustomOp1, DType, InplaceOp2, Layout, Module, Result, Shape, Tensor};
use candle_nn::{Conv2d, Conv2dConfig};
use half::bf16;

use super::cpu::{KernelValue, contiguous, lock};
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

    /// What a picture is best given in, if it is made for this convolution alone; `dtype` is that of the maps around it.
    pub(crate) fn operand_dtype(&self, dtype: DType) -> DType {
        match &self.conv {
            Conv::Packed(kernel) if kernel.is_narrow() => DType::BF16,
            _ => dtype,
        }
    }

    /// The same for some lines of the result: `[rows, output, lines, width]`, contiguous; in f32 on the CPU.
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
            Conv::Packed(kernel) => computable(x)?.apply_op1_no_bwd(&Lines { kernel, lines }),
        }
    }

    /// The same, written to the lines of `map` `[1, output, height, width]`, contiguous, from `first` on, or added to them.
    pub(crate) fn write_lines(
        &self,
        x: &Tensor,
        lines: Range<usize>,
        map: &Tensor,
        first: usize,
        adds: bool,
    ) -> Result<()> {
        if let Conv::Packed(kernel) = &self.conv {
            return map.inplace_op2(&computable(x)?, &LinesOfMap { lines: Lines { kernel, lines }, first, adds });
        }
        let values = self.forward_lines(x, lines)?;
        let values = if adds { (&values + map.narrow(2, first, values.dim(2)?)?)?.contiguous()? } else { values };
        map.slice_set(&values, 2, first)
    }
}

/// Whether kernels of bf16 are faster than those of f32 on this CPU.
pub(crate) fn narrow_is_faster() -> bool {
    Isa::current().multiplies_bf16()
}

/// As the CPU's kernels read it: contiguous, and f32 unless it is bf16.
fn computable(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(if x.dtype() == DType::BF16 { DType::BF16 } else { DType::F32 })?.contiguous()
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
    fn run<T: KernelValue>(&self, input: &CpuStorage, layout: &Layout, output: ConvolvedRows<'_>) -> Result<()> {
        let (_, channels, height, width) = layout.shape().dims4()?;
        let ConvolvedRows { values, stride, adds } = output;
        let pictures = contiguous::<T>(input, layout)?.chunks_exact((channels * height * width).max(1));
        for (picture, values) in pictures.zip(values.chunks_mut((self.kernel.output_channels() * stride).max(1))) {
            let rows = ConvolvedRows { values, stride, adds };
            convolve(self.kernel, self.lines.clone(), Picture { values: picture, height, width }, rows);
        }
        Ok(())
    }

    fn run_any(&self, input: &CpuStorage, layout: &Layout, output: ConvolvedRows<'_>) -> Result<()> {
        match input {
            CpuStorage::BF16(_) => self.run::<bf16>(input, layout, output),
            _ => self.run::<f32>(input, layout, output),
        }
    }
}

impl CustomOp1 for Lines<'_> {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, _, _, width) = layout.shape().dims4()?;
        let (channels, width) = (self.kernel.output_channels(), self.kernel.scale() * width);
        let stride = self.lines.len() * width;
        let mut values = vec![0.0; rows * channels * stride];
        self.run_any(input, layout, ConvolvedRows { values: &mut values, stride, adds: false })?;
        Ok((CpuStorage::F32(values), (rows, channels, self.lines.len(), width).into()))
    }
}

/// Where they go: from line `first` on.
struct LinesOfMap<'a> {
    lines: Lines<'a>,
    first: usize,
    adds: bool,
}

impl InplaceOp2 for LinesOfMap<'_> {
    fn name(&self) -> &'static str {
        "convolution into lines"
    }

    fn cpu_fwd(&self, map: &mut CpuStorage, of: &Layout, input: &CpuStorage, layout: &Layout) -> Result<()> {
        let (rows, channels, height, width) = of.shape().dims4()?;
        let (CpuStorage::F32(map), Some((start, end)), 1) = (map, of.contiguous_offsets(), rows) else {
            candle_core::bail!("convolved lines want a contiguous map of one picture in f32")
        };
        let Self { lines, first, adds } = self;
        if channels != lines.kernel.output_channels()
            || first + lines.lines.len() > height
            || width != lines.kernel.scale() * layout.shape().dims4()?.3
        {
            candle_core::bail!("convolved lines do not fit the map")
        }
        let values = &mut map[start..end][first * width..];
        lines.run_any(input, layout, ConvolvedRows { values, stride: height * width, adds: *adds })
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
    fn lines_are_written_into_a_map() {
        for (seen, scale) in [(Neighbourhood::Three, 1), (Neighbourhood::ThreeOfDoubled, 2)] {
            let (weight, bias) = ((sines((6, 4, 3, 3), 0.3) * 0.1).unwrap(), sines(6, 0.6));
            let candle =
                Convolution { conv: on_device(seen, weight.clone(), bias.clone()).unwrap(), output_channels: 6 };
            let conv = Convolution::of(seen, weight, bias).unwrap();
            let (x, before) = (sines((1, 4, 9, 11), 0.1), sines((1, 6, 20, scale * 11), 0.2));
            let expected = before.copy().unwrap();
            let found = before.copy().unwrap();
            for adds in [false, true] {
                candle.write_lines(&x, 2..7, &expected, 13, adds).unwrap();
                conv.write_lines(&x, 2..7, &found, 13, adds).unwrap();
                assert!(largest_difference(&found, &expected) < 1e-5, "{seen:?}, {adds}");
                let above = |map: &Tensor| map.narrow(2, 0, 13).unwrap();
                assert_eq!(largest_difference(&above(&found), &above(&before)), 0.0);
            }
            assert!(conv.write_lines(&x, 2..7, &found, 16, false).is_err());
            assert!(conv.write_lines(&x, 2..7, &sines((2, 6, 20, scale * 11), 0.2), 0, false).is_err());
            assert!(conv.write_lines(&x, 2..7, &sines((1, 6, 20, 7), 0.2), 0, false).is_err());
        }
    }

    #[test]
    fn narrow_kernels_read_what_is_narrow_and_what_is_not() {
        let (weight, bias) = ((sines((6, 4, 3, 3), 0.3) * 0.1).unwrap(), sines(6, 0.6));
        let narrow = |tensor: &Tensor| tensor.to_dtype(DType::BF16).unwrap();
        let conv = Convolution::of(Neighbourhood::Three, narrow(&weight), narrow(&bias)).unwrap();
        assert_eq!(conv.operand_dtype(DType::F32) == DType::BF16, narrow_is_faster());
        let x = sines((1, 4, 9, 11), 0.1);
        let wide = narrow(&x).to_dtype(DType::F32).unwrap();
        let (of_narrow, of_wide) = (conv.forward(&narrow(&x)).unwrap(), conv.forward(&wide).unwrap());
        assert_eq!((of_narrow.dtype(), of_wide.dtype()), (DType::F32, DType::F32));
        assert_eq!(largest_difference(&of_narrow, &of_wide), 0.0);
        let exact = Convolution::of(Neighbourhood::Three, weight, bias).unwrap().forward(&x).unwrap();
        assert!(largest_difference(&conv.forward(&x).unwrap(), &exact) < 1e-2);
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
