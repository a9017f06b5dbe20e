//! Group norm with statistics that were gathered before.
//!
//! Follows PyTorch 2.15.0, `GroupNorm` (lines 239-340):
//! <https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/modules/normalization.py#L239>
//!
//! Departs from it: statistics are added up over stripes, and taken in f32 and f64 whatever the dtype.

use afterimage_kernels::scale_shift_silu;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
use candle_nn::VarBuilder;

use super::feature_map::Moments;

/// Epsilon of every group norm in the decoder (`resnet_eps`).
const EPS: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct GroupNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// The norm of one feature map.
pub(super) struct FittedNorm {
    /// What each channel is multiplied by.
    scale: Vec<f32>,
    /// What is added then.
    shift: Vec<f32>,
}

impl GroupNorm {
    #[allow(clippy::disallowed_methods, reason = "in no forward: the weights are being loaded")]
    pub(super) fn new(channels: usize, vb: VarBuilder<'_>) -> Result<Self> {
        let values = |name: &str| vb.get(channels, name)?.to_dtype(DType::F32)?.to_vec1();
        Ok(Self { weight: values("weight")?, bias: values("bias")? })
    }

    /// For a feature map with these moments of each group.
    pub(super) fn fit(&self, moments: &[Moments]) -> FittedNorm {
        let channels = self.weight.len() / moments.len();
        let (mut scale, mut shift) = (self.weight.clone(), self.bias.clone());
        for (channel, (scale, shift)) in scale.iter_mut().zip(&mut shift).enumerate() {
            let group = moments[channel / channels];
            let factor = f64::from(*scale) / (group.variance() + EPS).sqrt();
            *scale = factor as f32;
            *shift = (f64::from(*shift) - group.mean * factor) as f32;
        }
        FittedNorm { scale, shift }
    }
}

impl FittedNorm {
    /// The norm of `[1, channels, lines, width]`.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.apply_f32(x)?.to_dtype(x.dtype())
    }

    /// The norm and SiLU of `[1, channels, lines, width]`.
    pub(super) fn apply_silu(&self, x: &Tensor) -> Result<Tensor> {
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

struct NormSilu<'a>(&'a FittedNorm);

impl CustomOp1 for NormSilu<'_> {
    fn name(&self) -> &'static str {
        "group-norm-silu"
    }

    fn cpu_fwd(&self, input: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let CpuStorage::F32(input) = input else { candle_core::bail!("group-norm-silu wants f32 values") };
        let mut output = vec![0f32; layout.shape().elem_count()];
        let FittedNorm { scale, shift } = self.0;
        scale_shift_silu(&input[layout.start_offset()..], layout.stride()[1], scale, shift, &mut output);
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::Module;

    use super::*;
    use crate::vae::feature_map::FeatureMap;

    #[test]
    fn equals_candle_but_for_rounding() {
        let (channels, groups) = (6, 3);
        let x = Tensor::arange(0f32, 6.0 * 7.0 * 5.0, &Device::Cpu).unwrap().sin().unwrap();
        let x = x.affine(3.0, 1.0).unwrap().reshape((1, channels, 7, 5)).unwrap();
        let parameter = |start: f32| Tensor::arange(start, start + channels as f32, &Device::Cpu).unwrap();
        let (weight, bias) = (parameter(0.5), parameter(-3.0));
        let candle = candle_nn::GroupNorm::new(weight.clone(), bias.clone(), channels, groups, EPS).unwrap();
        let norm = GroupNorm { weight: weight.to_vec1().unwrap(), bias: bias.to_vec1().unwrap() };
        let fitted = norm.fit(FeatureMap::of(x.clone(), groups).unwrap().moments());
        let check = |ours: Tensor, expected: Tensor| {
            let difference = (ours - expected.narrow(2, 2, 4).unwrap()).unwrap().abs().unwrap().max_all().unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-5, "{difference}");
        };
        let (expected, lines) = (candle.forward(&x).unwrap(), x.narrow(2, 2, 4).unwrap());
        check(fitted.apply(&lines).unwrap(), expected.clone());
        check(fitted.apply_silu(&lines).unwrap(), expected.silu().unwrap());
        let transposed = lines.transpose(2, 3).unwrap().contiguous().unwrap().transpose(2, 3).unwrap();
        check(fitted.apply_silu(&transposed).unwrap(), expected.silu().unwrap());
    }
}
