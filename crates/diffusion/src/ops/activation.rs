//! Activations. On the CPU all but the exact GELU, and on GPUs all of them, are kernels of this project, in place; the others
//! are candle's.

#[cfg(feature = "cuda")]
use afterimage_cuda_kernels as gpu;
use afterimage_kernels as kernels;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor};

use super::cuda::has_kernels;
use super::epilogue::activate_in_place;

/// What is applied to every value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Gelu,
    /// GELU, tanh approximation.
    GeluApproximate,
    /// GELU as `x * sigmoid(1.702 x)`.
    QuickGelu,
    Relu,
    /// `x * sigmoid(x)`
    Silu,
}

impl Activation {
    /// The kernel of it, if there is one.
    pub(super) fn kernel(self) -> Option<kernels::Activation> {
        match self {
            Self::Gelu => None,
            Self::GeluApproximate => Some(kernels::Activation::GeluTanh),
            Self::QuickGelu => Some(kernels::Activation::QuickGelu),
            Self::Relu => Some(kernels::Activation::Relu),
            Self::Silu => Some(kernels::Activation::Silu),
        }
    }

    /// Its name on GPUs.
    #[cfg(feature = "cuda")]
    pub(super) fn on_gpu(self) -> gpu::Activation {
        match self {
            Self::Gelu => gpu::Activation::Gelu,
            Self::GeluApproximate => gpu::Activation::GeluTanh,
            Self::QuickGelu => gpu::Activation::QuickGelu,
            Self::Relu => gpu::Activation::Relu,
            Self::Silu => gpu::Activation::Silu,
        }
    }

    /// Takes the tensor over; its storage must not be shared.
    pub(crate) fn apply(self, x: Tensor) -> Result<Tensor> {
        if has_kernels(&x) && x.is_contiguous() {
            return activate_in_place(x, self);
        }
        let is_computed = matches!(x.dtype(), DType::F32 | DType::BF16);
        match self.kernel() {
            Some(kernel) if x.device().is_cpu() && is_computed && x.is_contiguous() => {
                x.inplace_op1(&InPlace(kernel))?;
                Ok(x)
            }
            _ => self.apply_on_device(&x),
        }
    }

    fn apply_on_device(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluApproximate => x.gelu(),
            Self::QuickGelu => candle_nn::ops::sigmoid(&(x * 1.702)?)? * x,
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
        }
    }
}

struct InPlace(kernels::Activation);

impl InplaceOp1 for InPlace {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("activations want contiguous values");
        };
        match storage {
            CpuStorage::F32(values) => kernels::activate(self.0, &mut values[start..end]),
            CpuStorage::BF16(values) => kernels::activate(self.0, &mut values[start..end]),
            _ => candle_core::bail!("activations want f32 or bf16"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn equals_candle_but_for_rounding() {
        for activation in [Activation::GeluApproximate, Activation::QuickGelu, Activation::Relu, Activation::Silu] {
            let x = Tensor::arange(-300f32, 300.0, &Device::Cpu).unwrap().affine(0.03, 0.0).unwrap();
            let expected = activation.apply_on_device(&x).unwrap().to_vec1::<f32>().unwrap();
            let ours = activation.apply(x).unwrap().to_vec1::<f32>().unwrap();
            for (ours, expected) in ours.into_iter().zip(expected) {
                assert!(
                    (ours - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
                    "{activation:?}: {ours} for {expected}"
                );
            }
        }
    }
}
