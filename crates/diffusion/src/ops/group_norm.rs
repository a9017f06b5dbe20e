//! Group norm in two parts: the moments of each group of channels, of which those of stripes can be merged, and the
//! norm that they make of every channel, with SiLU after it.
//!
//! On the CPU sums, and norm and SiLU together, are kernels of this project, on GPUs both halves; the rest, and all on other
//! devices, is candle's.

use std::sync::OnceLock;

use afterimage_kernels::{Channels, group_sums, scale_shift_silu};
#[cfg(feature = "cuda")]
use candle_core::Storage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, backend::BackendStorage};
use half::bf16;

use super::cpu::{KernelValue, lock, values};
#[cfg(feature = "cuda")]
use super::cuda;
use super::cuda::has_kernels;

/// Number, mean and spread of some values. Those of two parts give those of the whole (Chan et al., 1979).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moments {
    count: f64,
    pub(crate) mean: f64,
    /// Sum of the squares of the differences from the mean.
    squares: f64,
}

impl Moments {
    pub(crate) fn variance(self) -> f64 {
        self.squares / self.count.max(1.0)
    }

    pub(crate) fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0.0 {
            return self;
        }
        let apart = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + apart * other.count / count,
            squares: self.squares + other.squares + apart * apart * self.count * other.count / count,
        }
    }
}

/// Those of each group of channels of `values` `[1, channels, lines, width]`.
#[allow(clippy::disallowed_methods, reason = "in no forward: the picture is being decoded")]
pub(crate) fn group_moments(values: &Tensor, groups: usize) -> Result<Vec<Moments>> {
    let count = (values.elem_count() / groups) as f64;
    if values.device().is_cpu() && values.dtype() == DType::F32 && lines_are_whole(values)? {
        let values = lock(values);
        let moments = group_sums(channels(values.values()?, values.layout)?, groups).into_iter().map(|sums| {
            let mean = sums.values / count;
            Moments { count, mean, squares: (sums.squares - mean * sums.values).max(0.0) }
        });
        return Ok(moments.collect());
    }
    let values = &values.contiguous()?;
    #[cfg(feature = "cuda")]
    if has_kernels(values) {
        let (storage, layout) = values.storage_and_layout();
        if let Storage::Cuda(storage) = &*storage {
            return moments_on_gpu(storage, layout, groups);
        }
    }
    let values = values.reshape((groups, ()))?.to_dtype(DType::F32)?;
    let means = values.mean_keepdim(1)?;
    let squares = values.broadcast_sub(&means)?.sqr()?.sum(1)?.to_vec1::<f32>()?;
    let means = means.flatten_all()?.to_vec1::<f32>()?;
    let moments = means.into_iter().zip(squares);
    Ok(moments.map(|(mean, squares)| Moments { count, mean: mean.into(), squares: squares.into() }).collect())
}

/// In parts, whose moments come in one copy.
#[cfg(feature = "cuda")]
fn moments_on_gpu(values: &CudaStorage, layout: &Layout, groups: usize) -> Result<Vec<Moments>> {
    use afterimage_cuda_kernels::{GroupMoments, device};

    let (stream, value_type) = (values.device.cuda_stream(), cuda::value_type(values.dtype())?);
    let length = layout.shape().elem_count() / groups.max(1);
    let parts = GroupMoments::parts(length);
    let mut moments = device::allocate::<f32>(&stream, groups * parts.len() * 2).map_err(cuda::kernel_error)?;
    let mut operands = cuda::Operands::new(&stream, value_type);
    let x = operands.contiguous(values, layout)?;
    let launch =
        GroupMoments { value_type, groups, length, x, moments: operands.whole_written(&mut moments)? }.launch();
    operands.launch(launch)?;
    let moments = values.device.clone_dtoh(&moments)?;
    let of_group = |moments: &[f32]| {
        let parts = moments.chunks_exact(2).zip(parts.clone());
        let parts = parts.map(|(part, count)| Moments {
            count: count as f64,
            mean: f64::from(part[0]),
            squares: f64::from(part[1]),
        });
        parts.fold(Moments::default(), Moments::merge)
    };
    Ok(moments.chunks_exact((2 * parts.len()).max(1)).map(of_group).collect())
}

/// The norm of one feature map.
#[derive(Debug)]
pub(crate) struct ChannelNorm {
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Both as tensors, made at the first norm that wants them.
    tensors: OnceLock<[Tensor; 2]>,
}

impl ChannelNorm {
    /// Each channel is multiplied by its scale, and its shift is added then.
    pub(crate) fn new(scale: Vec<f32>, shift: Vec<f32>) -> Self {
        Self { scale, shift, tensors: OnceLock::new() }
    }

    /// Scale and shift on a device, `[channels]`, f32. A norm is used on one.
    #[allow(clippy::disallowed_methods, reason = "once for every norm")]
    fn on_device(&self, device: &Device) -> Result<&[Tensor; 2]> {
        if let Some(known) = self.tensors.get() {
            return Ok(known);
        }
        let tensor = |values: &[f32]| Tensor::new(values, device);
        let tensors = [tensor(&self.scale)?, tensor(&self.shift)?];
        Ok(self.tensors.get_or_init(|| tensors))
    }

    /// The norm of `[1, channels, lines, width]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        if has_kernels(x) && lines_are_whole(x)? {
            return x.apply_op1_no_bwd(&Norm { channels: self, has_silu: false, answer: x.dtype() });
        }
        self.apply_f32(x)?.to_dtype(x.dtype())
    }

    /// The norm and SiLU of `[1, channels, lines, width]`, in the dtype of `x`.
    pub(crate) fn apply_silu(&self, x: &Tensor) -> Result<Tensor> {
        self.apply_silu_as(x, x.dtype())
    }

    /// The same in the dtype `answer`.
    pub(crate) fn apply_silu_as(&self, x: &Tensor, answer: DType) -> Result<Tensor> {
        let has_kernel = match x.device().is_cpu() {
            true => x.dtype() == DType::F32 && matches!(answer, DType::F32 | DType::BF16),
            false => has_kernels(x) && answer == x.dtype(),
        };
        if has_kernel && lines_are_whole(x)? {
            return x.apply_op1_no_bwd(&Norm { channels: self, has_silu: true, answer });
        }
        self.apply_f32(x)?.silu()?.to_dtype(answer)
    }

    fn apply_f32(&self, x: &Tensor) -> Result<Tensor> {
        let [scale, shift] = self.on_device(x.device())?;
        let per_channel = |values: &Tensor| values.reshape((1, (), 1, 1));
        x.to_dtype(DType::F32)?.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)
    }
}

/// Whether the lines of `[1, channels, lines, width]` follow each other.
fn lines_are_whole(x: &Tensor) -> Result<bool> {
    Ok(x.stride()[3] == 1 && x.stride()[2] == x.dim(3)?)
}

/// Some lines of a map, as kernels take them.
fn channels<'a>(values: &'a [f32], layout: &Layout) -> Result<Channels<'a>> {
    let (_, count, lines, width) = layout.shape().dims4()?;
    Ok(Channels { values, stride: layout.stride()[1], count, pixels: lines * width })
}

struct Norm<'a> {
    channels: &'a ChannelNorm,
    has_silu: bool,
    /// On the CPU f32 or bf16, on GPUs the dtype of the map.
    answer: DType,
}

impl Norm<'_> {
    fn run<T: KernelValue>(&self, map: Channels<'_>) -> CpuStorage {
        T::storage(scale_shift_silu(map, &self.channels.scale, &self.channels.shift))
    }
}

impl CustomOp1 for Norm<'_> {
    fn name(&self) -> &'static str {
        "group-norm-silu"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        if !self.has_silu {
            candle_core::bail!("a norm without SiLU has no kernel on the CPU")
        }
        let map = channels(values(input, layout)?, layout)?;
        let output = if self.answer == DType::BF16 { self.run::<bf16>(map) } else { self.run::<f32>(map) };
        Ok((output, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        use afterimage_cuda_kernels::{Activation, ScaleShift};

        let (stream, value_type) = (x.device.cuda_stream(), cuda::value_type(x.dtype())?);
        let (_, channels, lines, width) = layout.shape().dims4()?;
        let device = Device::Cuda(x.device.clone());
        let [scale, shift] = self.channels.on_device(&device)?;
        let (scale, shift) = (scale.storage_and_layout(), shift.storage_and_layout());
        let mut result = cuda::allocate(&x.device, value_type, layout.shape().elem_count())?;
        let mut operands = cuda::Operands::new(&stream, value_type);
        let change = ScaleShift {
            value_type,
            channels,
            pixels: lines * width,
            x: operands.read(x, layout)?,
            stride: layout.stride()[1],
            scale: operands.contiguous_f32(cuda::storage(&scale.0)?, scale.1)?,
            shift: operands.contiguous_f32(cuda::storage(&shift.0)?, shift.1)?,
            activation: self.has_silu.then_some(Activation::Silu),
            output: operands.written(&mut result, 0)?,
        };
        operands.launch(change.launch())?;
        Ok((result, layout.shape().clone()))
    }
}
