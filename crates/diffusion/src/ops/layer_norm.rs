//! Layer norm and its modulation (adaLN). On the CPU both are one kernel of this project, on other devices candle's operators.

use std::sync::OnceLock;

use afterimage_kernels::{self as kernels, Modulation};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use half::bf16;

use super::cpu::{KernelValue, answer, computed_dtype, contiguous, lock};

/// Of a norm over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNormParameters {
    /// Weight and bias, each of the size of the last dimension.
    affine: Option<(Tensor, Tensor)>,
    pub(crate) size: usize,
    eps: f32,
    /// What devices multiply by and add where there is no weight and bias: ones and zeros, made at the first norm.
    unit: OnceLock<(Tensor, Tensor)>,
}

impl LayerNormParameters {
    pub(crate) fn new(affine: Option<(Tensor, Tensor)>, size: usize, eps: f32) -> Self {
        Self { affine, size, eps, unit: OnceLock::new() }
    }

    /// Weight and bias for a norm of `x`.
    fn on_device(&self, x: &Tensor) -> Result<&(Tensor, Tensor)> {
        if let Some(known) = self.affine.as_ref().or_else(|| self.unit.get()) {
            return Ok(known);
        }
        let ones = Tensor::ones(self.size, x.dtype(), x.device())?;
        let zeros = ones.zeros_like()?;
        Ok(self.unit.get_or_init(|| (ones, zeros)))
    }
}

/// Over the last dimension.
pub(crate) fn layer_norm(x: &Tensor, parameters: &LayerNormParameters) -> Result<Tensor> {
    if x.device().is_cpu() {
        return on_cpu(x, parameters, None);
    }
    let (weight, bias) = parameters.on_device(x)?;
    candle_nn::ops::layer_norm(&x.contiguous()?, weight, bias, parameters.eps)
}

/// [`layer_norm`] and [`modulate`].
pub(crate) fn modulated_layer_norm(
    x: &Tensor,
    parameters: &LayerNormParameters,
    scale: &Tensor,
    shift: &Tensor,
) -> Result<Tensor> {
    if x.device().is_cpu() {
        return on_cpu(x, parameters, Some((scale, shift)));
    }
    modulate(&layer_norm(x, parameters)?, scale, shift)
}

/// `(1 + scale) * x + shift` with `x` `[rows, tokens, hidden]` and the others `[rows, hidden]`: a modulation of zeros,
/// with which adaLN-Zero begins training, changes nothing.
pub(crate) fn modulate(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    x.broadcast_mul(&(scale + 1.0)?.unsqueeze(1)?)?.broadcast_add(&shift.unsqueeze(1)?)
}

/// Norm, and modulation by scale and shift.
fn on_cpu(x: &Tensor, parameters: &LayerNormParameters, modulation: Option<(&Tensor, &Tensor)>) -> Result<Tensor> {
    let dtype = x.dtype();
    let computed = computed_dtype(dtype);
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
            let (rows, stride) = (scale.layout.dims()[0].max(1), scale.layout.stride());
            if stride != shift.layout.stride() || stride[1] != 1 {
                candle_core::bail!("scale and shift lie in the same way, their values side by side");
            }
            let tokens = layout.shape().elem_count() / size.max(1) / rows;
            Ok(Modulation { scale: scale.values::<T>()?, shift: shift.values::<T>()?, stride: stride[0], tokens })
        });
        let x = contiguous::<T>(x, layout)?;
        let mut output = vec![T::zero(); x.len()];
        let norm = kernels::LayerNorm { size, eps, affine: affine.transpose()?, modulation: modulation.transpose()? };
        kernels::layer_norm(&norm, x, &mut output);
        Ok(answer(output, layout.shape().clone()))
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
