//! Group norm in two parts: the moments of each group of channels, of which those of stripes can be merged, and the
//! norm that they make of every channel, with SiLU after it.
//!
//! On the CPU sums, and norm and SiLU together, are kernels of this project; the rest, and all on other devices, is candle's.

use afterimage_kernels::{group_sums, scale_shift_silu};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Storage, Tensor};

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

/// Those of each group of channels of `values` `[1, channels, lines, width]`, contiguous.
#[allow(clippy::disallowed_methods, reason = "in no forward: the picture is being decoded")]
pub(crate) fn group_moments(values: &Tensor, groups: usize) -> Result<Vec<Moments>> {
    let count = (values.elem_count() / groups) as f64;
    let (storage, layout) = values.storage_and_layout();
    if let Storage::Cpu(CpuStorage::F32(storage)) = &*storage
        && let Some((start, end)) = layout.contiguous_offsets()
    {
        let moments = group_sums(&storage[start..end], groups).into_iter().map(|sums| {
            let mean = sums.values / count;
            Moments { count, mean, squares: (sums.squares - mean * sums.values).max(0.0) }
        });
        return Ok(moments.collect());
    }
    let values = values.reshape((groups, ()))?.to_dtype(DType::F32)?;
    let means = values.mean_keepdim(1)?;
    let squares = values.broadcast_sub(&means)?.sqr()?.sum(1)?.to_vec1::<f32>()?;
    let means = means.flatten_all()?.to_vec1::<f32>()?;
    let moments = means.into_iter().zip(squares);
    Ok(moments.map(|(mean, squares)| Moments { count, mean: mean.into(), squares: squares.into() }).collect())
}

/// The norm of one feature map.
#[derive(Debug)]
pub(crate) struct ChannelNorm {
    /// What each channel is multiplied by.
    pub(crate) scale: Vec<f32>,
    /// What is added then.
    pub(crate) shift: Vec<f32>,
}

impl ChannelNorm {
    /// The norm of `[1, channels, lines, width]`.
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.apply_f32(x)?.to_dtype(x.dtype())
    }

    /// The norm and SiLU of `[1, channels, lines, width]`.
    pub(crate) fn apply_silu(&self, x: &Tensor) -> Result<Tensor> {
        let lines_are_whole = x.stride()[3] == 1 && x.stride()[2] == x.dim(3)?;
        if x.device().is_cpu() && x.dtype() == DType::F32 && lines_are_whole {
            return x.apply_op1_no_bwd(&NormSilu(self));
        }
        self.apply_f32(x)?.silu()?.to_dtype(x.dtype())
    }

    fn apply_f32(&self, x: &Tensor) -> Result<Tensor> {
        let per_channel = |values: &[f32]| Tensor::new(values, x.device())?.reshape((1, (), 1, 1));
        let x = x.to_dtype(DType::F32)?;
        x.broadcast_mul(&per_channel(&self.scale)?)?.broadcast_add(&per_channel(&self.shift)?)
    }
}

struct NormSilu<'a>(&'a ChannelNorm);

impl CustomOp1 for NormSilu<'_> {
    fn name(&self) -> &'static str {
        "group-norm-silu"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let CpuStorage::F32(input) = input else { candle_core::bail!("group-norm-silu wants f32 values") };
        let mut output = vec![0f32; layout.shape().elem_count()];
        let ChannelNorm { scale, shift } = self.0;
        scale_shift_silu(&input[layout.start_offset()..], layout.stride()[1], scale, shift, &mut output);
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}
