//! The wide half of a GEGLU or SwiGLU whose gate and values are parts of one product. On GPUs a kernel of this project reads
//! both where they are; on other devices they are copied apart.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, backend::BackendStorage};

use super::activation::Activation;
#[cfg(feature = "cuda")]
use super::cuda;
use super::cuda::has_kernels;

/// Where they are among the channels of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatedParts {
    /// The first channel of the gate.
    pub(crate) gate: usize,
    /// The first channel of what goes through it.
    pub(crate) value: usize,
    /// Channels of each.
    pub(crate) size: usize,
}

impl GatedParts {
    /// `activation(gate) * value`: `[rows, tokens, channels]` to `[rows, tokens, size]`.
    pub(crate) fn apply(self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        if has_kernels(x) && x.is_contiguous() {
            return x.apply_op1_no_bwd(&Gated { parts: self, activation });
        }
        let part = |first: usize| x.narrow(D::Minus1, first, self.size);
        // A tensor of its own, which the activation takes over.
        let gate = activation.apply(part(self.gate)?.force_contiguous()?)?;
        gate * part(self.value)?.contiguous()?
    }
}

struct Gated {
    parts: GatedParts,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "the kernel's alone"))]
    activation: Activation,
}

impl CustomOp1 for Gated {
    fn name(&self) -> &'static str {
        "gated-parts"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("on the CPU {:?} are copied apart", self.parts)
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        use afterimage_cuda_kernels as gpu;

        let Self { parts: GatedParts { gate, value, size }, activation } = *self;
        let (rows, tokens, channels) = layout.shape().dims3()?;
        let part = |first: usize| layout.narrow(2, first, size);
        let value_type = cuda::value_type(x.dtype())?;
        let stream = x.device.cuda_stream();
        let mut result = cuda::allocate(&x.device, value_type, rows * tokens * size)?;
        let mut operands = cuda::Operands::new(&stream, value_type);
        let gate = operands.read(x, &part(gate)?)?;
        let epilogue = gpu::Epilogue {
            value_type,
            rows: rows * tokens,
            outputs: size,
            x: operands.read(x, &part(value)?)?,
            x_stride: channels,
            bias: None,
            activation: Some(activation.on_gpu()),
            gate: Some(gpu::Gate { values: gate, stride: channels, tokens: 1, is_activated: true }),
            residual: None,
            output: operands.written(&mut result, 0)?,
        };
        operands.launch(epilogue.launch())?;
        Ok((result, (rows, tokens, size).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    #[test]
    fn equals_the_definition() {
        let x = sines((2, 3, 11), 0.3);
        let values = wide(&x);
        for (gate, value) in [(3, 7), (6, 1)] {
            let defined = (0..6 * 4).map(|index| {
                let token = &values[index / 4 * 11..][..11];
                let factor = token[gate + index % 4];
                factor / (1.0 + (-factor).exp()) * token[value + index % 4]
            });
            let found = GatedParts { gate, value, size: 4 }.apply(&x, Activation::Silu).unwrap();
            assert_eq!(found.dims(), [2, 3, 4]);
            assert_close(&found, &defined.collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_it_was_given_stays_as_it_was() {
        // A single token, whose parts are contiguous views.
        let x = sines((1, 1, 8), 0.3);
        let before = wide(&x);
        GatedParts { gate: 0, value: 4, size: 4 }.apply(&x, Activation::Silu).unwrap();
        assert_eq!(wide(&x), before);
    }
}
