//! Group norm with statistics that were gathered before.
//!
//! Follows PyTorch 2.15.0, `GroupNorm` (lines 239-340):
//! <https://github.com/pytorch/pytorch/blob/v2.15.0/torch/nn/modules/normalization.py#L239>
//!
//! Departs from it: statistics are added up over stripes, and taken in f32 and f64 whatever the dtype.

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result};

use crate::ops::group_norm::{ChannelNorm, Moments};

/// Epsilon of every group norm in the decoder (`resnet_eps`).
const EPS: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct GroupNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl GroupNorm {
    #[allow(clippy::disallowed_methods, reason = "in no forward: the weights are being loaded")]
    pub(super) fn new(channels: usize, parameters: Parameters) -> Result<Self> {
        let values = |name: &str| parameters.get(channels, name)?.to_dtype(DType::F32)?.to_vec1();
        Ok(Self { weight: values("weight")?, bias: values("bias")? })
    }

    /// For a feature map with these moments of each group.
    pub(super) fn fit(&self, moments: &[Moments]) -> ChannelNorm {
        let channels = self.weight.len() / moments.len();
        let (mut scale, mut shift) = (self.weight.clone(), self.bias.clone());
        for (channel, (scale, shift)) in scale.iter_mut().zip(&mut shift).enumerate() {
            let group = moments[channel / channels];
            let factor = f64::from(*scale) / (group.variance() + EPS).sqrt();
            *scale = factor as f32;
            *shift = (f64::from(*shift) - group.mean * factor) as f32;
        }
        ChannelNorm::new(scale, shift)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
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
