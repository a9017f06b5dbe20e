//! Activations. On the CPU the tanh approximation of GELU is a kernel of this project, in place; the others, and all of
//! them on other devices, are candle's.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Tensor};

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
    /// Takes the tensor over; its storage must not be shared.
    pub(crate) fn apply(self, x: Tensor) -> Result<Tensor> {
        match self {
            Self::Gelu => x.gelu_erf(),
            Self::GeluApproximate => gelu_tanh(x),
            Self::QuickGelu => candle_nn::ops::sigmoid(&(&x * 1.702)?)? * x,
            Self::Relu => x.relu(),
            Self::Silu => x.silu(),
        }
    }
}

fn gelu_tanh(x: Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() || x.dtype() != DType::F32 || !x.is_contiguous() {
        return x.gelu();
    }
    x.inplace_op1(&GeluTanh)?;
    Ok(x)
}

struct GeluTanh;

impl InplaceOp1 for GeluTanh {
    fn name(&self) -> &'static str {
        "gelu-tanh"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("gelu-tanh wants contiguous f32 values");
        };
        afterimage_kernels::gelu_tanh(&mut values[start..end]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn equals_candle_but_for_rounding() {
        let x = Tensor::arange(-300f32, 300.0, &Device::Cpu).unwrap().affine(0.03, 0.0).unwrap();
        let expected = x.gelu().unwrap().to_vec1::<f32>().unwrap();
        let ours = Activation::GeluApproximate.apply(x).unwrap().to_vec1::<f32>().unwrap();
        for (ours, expected) in ours.into_iter().zip(expected) {
            assert!((ours - expected).abs() <= 1e-6 * (1.0 + expected.abs()), "{ours} for {expected}");
        }
    }
}
