//! Layer norm and its modulation (adaLN). On the CPU and on GPUs both are one kernel of this project, on other devices candle's
//! operators.

#[cfg(feature = "cuda")]
use afterimage_cuda_kernels as gpu;
use afterimage_kernels::{self as kernels, Modulation};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, backend::BackendStorage};
use half::bf16;

use super::cpu::{KernelValue, answer, computed_dtype, contiguous, lock};
#[cfg(feature = "cuda")]
use super::cuda;
use super::cuda::has_kernels;

/// Of a norm over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNormParameters {
    /// Weight and bias, each of the size of the last dimension.
    affine: Option<(Tensor, Tensor)>,
    pub(crate) size: usize,
    eps: f32,
}

impl LayerNormParameters {
    pub(crate) fn new(affine: Option<(Tensor, Tensor)>, size: usize, eps: f32) -> Self {
        Self { affine, size, eps }
    }
}

/// Over the last dimension.
pub(crate) fn layer_norm(x: &Tensor, parameters: &LayerNormParameters) -> Result<Tensor> {
    if x.device().is_cpu() || has_kernels(x) {
        return in_one_pass(x, parameters, None);
    }
    let (weight, bias) = match &parameters.affine {
        Some(affine) => affine.clone(),
        None => {
            let ones = Tensor::ones(parameters.size, x.dtype(), x.device())?;
            (ones.clone(), ones.zeros_like()?)
        }
    };
    candle_nn::ops::layer_norm(&x.contiguous()?, &weight, &bias, parameters.eps)
}

/// [`layer_norm`] and [`modulate`].
pub(crate) fn modulated_layer_norm(
    x: &Tensor,
    parameters: &LayerNormParameters,
    scale: &Tensor,
    shift: &Tensor,
) -> Result<Tensor> {
    if x.device().is_cpu() || has_kernels(x) {
        return in_one_pass(x, parameters, Some((scale, shift)));
    }
    modulate(&layer_norm(x, parameters)?, scale, shift)
}

/// `(1 + scale) * x + shift` with `x` `[rows, tokens, hidden]` and the others `[rows, hidden]`: a modulation of zeros,
/// with which adaLN-Zero begins training, changes nothing.
pub(crate) fn modulate(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale + 1.0)?.unsqueeze(1)?)?.broadcast_add(&shift.unsqueeze(1)?)
}

/// Norm, and modulation by scale and shift.
fn in_one_pass(x: &Tensor, parameters: &LayerNormParameters, modulation: Option<(&Tensor, &Tensor)>) -> Result<Tensor> {
    let dtype = x.dtype();
    let computed = if has_kernels(x) { dtype } else { computed_dtype(dtype) };
    let both = |(first, second): (&Tensor, &Tensor)| -> Result<(Tensor, Tensor)> {
        Ok((first.to_dtype(computed)?, second.to_dtype(computed)?))
    };
    let affine = parameters.affine.as_ref().map(|(weight, bias)| both((weight, bias)));
    let norm = Norm { parameters, affine: affine.transpose()?, modulation: modulation.map(both).transpose()? };
    x.to_dtype(computed)?.contiguous()?.apply_op1_no_bwd(&norm)?.to_dtype(dtype)
}

struct Norm<'a> {
    parameters: &'a LayerNormParameters,
    affine: Option<(Tensor, Tensor)>,
    /// Scale and shift, `[rows, hidden]`.
    modulation: Option<(Tensor, Tensor)>,
}

impl CustomOp1 for Norm<'_> {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match x {
            CpuStorage::BF16(_) => self.run::<bf16>(x, layout),
            _ => self.run::<f32>(x, layout),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.run_on_gpu(x, layout)
    }
}

impl Norm<'_> {
    fn run<T: KernelValue>(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let LayerNormParameters { size, eps, .. } = *self.parameters;
        let affine = self.affine.as_ref().map(|(weight, bias)| (lock(weight), lock(bias)));
        let modulation = self.modulation.as_ref().map(|(scale, shift)| (lock(scale), lock(shift)));
        let affine = affine
            .as_ref()
            .map(|(weight, bias)| -> Result<_> { Ok((weight.contiguous::<T>()?, bias.contiguous::<T>()?)) });
        let modulation = modulation.as_ref().map(|(scale, shift)| -> Result<_> {
            let (stride, tokens) = self.modulated(layout, scale.layout, shift.layout)?;
            Ok(Modulation { scale: scale.values::<T>()?, shift: shift.values::<T>()?, stride, tokens })
        });
        let x = contiguous::<T>(x, layout)?;
        let mut output = vec![T::zero(); x.len()];
        let norm = kernels::LayerNorm { size, eps, affine: affine.transpose()?, modulation: modulation.transpose()? };
        kernels::layer_norm(&norm, x, &mut output);
        Ok(answer(output, layout.shape().clone()))
    }

    /// Values from one row's scale to the next, and tokens that have the same.
    fn modulated(&self, x: &Layout, scale: &Layout, shift: &Layout) -> Result<(usize, usize)> {
        let (rows, stride) = (scale.dims()[0].max(1), scale.stride());
        if stride != shift.stride() || stride[1] != 1 {
            candle_core::bail!("scale and shift lie in the same way, their values side by side");
        }
        Ok((stride[0], x.shape().elem_count() / self.parameters.size.max(1) / rows))
    }

    #[cfg(feature = "cuda")]
    fn run_on_gpu(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        let LayerNormParameters { size, eps, .. } = *self.parameters;
        let (device, value_type) = (x.device.clone(), cuda::value_type(x.dtype())?);
        let (stream, values) = (device.cuda_stream(), layout.shape().elem_count());
        let affine =
            self.affine.as_ref().map(|(weight, bias)| (weight.storage_and_layout(), bias.storage_and_layout()));
        let modulation =
            self.modulation.as_ref().map(|(scale, shift)| (scale.storage_and_layout(), shift.storage_and_layout()));
        let mut result = cuda::allocate(&device, value_type, values)?;
        let mut operands = cuda::Operands::new(&stream, value_type);
        let norm = gpu::LayerNorm {
            value_type,
            rows: values / size.max(1),
            size,
            eps,
            x: operands.contiguous(x, layout)?,
            affine: match &affine {
                Some((weight, bias)) => Some((
                    operands.contiguous(cuda::storage(&weight.0)?, weight.1)?,
                    operands.contiguous(cuda::storage(&bias.0)?, bias.1)?,
                )),
                None => None,
            },
            modulation: match &modulation {
                Some((scale, shift)) => {
                    let (stride, tokens) = self.modulated(layout, scale.1, shift.1)?;
                    let scale = operands.read(cuda::storage(&scale.0)?, scale.1)?;
                    let shift = operands.read(cuda::storage(&shift.0)?, shift.1)?;
                    Some(gpu::Modulation { scale, shift, stride, tokens })
                }
                None => None,
            },
            output: operands.written(&mut result, 0)?,
        };
        operands.launch(norm.launch())?;
        Ok((result, layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::{assert_close, sines, wide};
    use super::*;

    const SIZE: usize = 6;
    const EPS: f32 = 1e-6;

    fn defined_norm(x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / SIZE as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / SIZE as f64;
        let normed = x.iter().map(|x| (x - mean) / (variance + f64::from(EPS)).sqrt());
        normed.zip(weight.iter().zip(bias)).map(|(x, (weight, bias))| x * weight + bias).collect()
    }

    #[test]
    fn norms_equal_the_definition() {
        let (x, weight, bias) = (sines((2, 3, SIZE), 0.1), sines(SIZE, 0.4), sines(SIZE, 0.7));
        let (weights, biases) = (wide(&weight), wide(&bias));
        let found = layer_norm(&x, &LayerNormParameters::new(Some((weight, bias)), SIZE, EPS)).unwrap();
        let defined = wide(&x).chunks(SIZE).map(|x| defined_norm(x, &weights, &biases)).collect::<Vec<_>>().concat();
        assert_close(&found, &defined);
    }

    #[test]
    fn rows_are_modulated_by_their_own_scale_and_shift() {
        let (x, scale, shift) = (sines((2, 3, SIZE), 0.1), sines((2, SIZE), 0.4), sines((2, SIZE), 0.7));
        let (scales, shifts) = (wide(&scale), wide(&shift));
        let of = |values: &[f64], index: usize| values[index / (3 * SIZE) * SIZE + index % SIZE];
        let found = modulate(&x, &scale, &shift).unwrap();
        let values = wide(&x).into_iter().enumerate();
        let defined: Vec<_> = values.map(|(index, x)| (1.0 + of(&scales, index)) * x + of(&shifts, index)).collect();
        assert_close(&found, &defined);
    }

    #[test]
    fn norm_and_modulation_are_those_of_each() {
        let (x, scale, shift) = (sines((2, 3, SIZE), 0.1), sines((2, SIZE), 0.4), sines((2, SIZE), 0.7));
        let parameters = LayerNormParameters::new(None, SIZE, EPS);
        let found = modulated_layer_norm(&x, &parameters, &scale, &shift).unwrap();
        let apart = modulate(&layer_norm(&x, &parameters).unwrap(), &scale, &shift).unwrap();
        assert_close(&found, &wide(&apart));
    }
}
