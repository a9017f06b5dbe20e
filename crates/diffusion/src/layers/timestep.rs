//! Embeddings of the numbers a model is conditioned on: timesteps, and picture sizes where it takes them.
//!
//! Follows diffusers 0.42.1, `get_timestep_embedding` (lines 27-78), `TimestepEmbedding` (1027-1072) and `Timesteps`
//! (1075-1091):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L27>

use afterimage_checkpoint::Parameters;
use candle_core::{Device, Result, Tensor};

use super::linear::Linear;
use crate::ops::activation::Activation;

/// Size of the sinusoidal projection in most models; fixed in diffusers there.
const TIMESTEP_CHANNELS: usize = 256;
/// Longest period of the sinusoids.
const MAX_PERIOD: f64 = 10_000.0;

/// How the periods of the sinusoids are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sinusoids {
    /// The last one has the longest period (`downscale_freq_shift` 1 in diffusers).
    ReachLongest,
    /// The one after the last would have (`downscale_freq_shift` 0).
    StopShort,
}

impl Sinusoids {
    /// Cosines, then sines (`flip_sin_to_cos`) of every value: `[values, 256]`, f32.
    pub(crate) fn project(self, values: &[f32], device: &Device) -> Result<Tensor> {
        self.project_scaled(values, 1.0, device)
    }

    /// The same of every value times `scale`, which is multiplied last, as diffusers rounds.
    pub(crate) fn project_scaled(self, values: &[f32], scale: f32, device: &Device) -> Result<Tensor> {
        self.project_to(TIMESTEP_CHANNELS, values, scale, device)
    }

    /// The same in so many channels, an even number: `[values, channels]`.
    pub(crate) fn project_to(self, channels: usize, values: &[f32], scale: f32, device: &Device) -> Result<Tensor> {
        let half = channels / 2;
        let divisor = match self {
            Self::ReachLongest => half - 1,
            Self::StopShort => half,
        };
        // Rounded to f32 where PyTorch rounds: at timestep 999 one ulp of a frequency already shows.
        let frequencies: Vec<f32> = (0..half)
            .map(|index| {
                let exponent = -(MAX_PERIOD.ln() as f32) * index as f32 / divisor as f32;
                f64::from(exponent).exp() as f32
            })
            .collect();
        let mut projected = Vec::with_capacity(values.len() * channels);
        for value in values {
            let angles = || frequencies.iter().map(|frequency| f64::from(scale * (value * frequency)));
            projected.extend(angles().map(|angle| angle.cos() as f32));
            projected.extend(angles().map(|angle| angle.sin() as f32));
        }
        Tensor::from_vec(projected, (values.len(), channels), device)
    }
}

/// A projected number to a vector.
#[derive(Debug)]
pub(crate) struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    /// Of numbers in 256 channels, with biases.
    pub(crate) fn new(size: usize, parameters: Parameters) -> Result<Self> {
        Self::load(TIMESTEP_CHANNELS, size, true, &parameters)
    }

    /// With biases, where `bias`.
    pub(crate) fn load(channels: usize, size: usize, bias: bool, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::load(channels, size, bias, parameters.pp("linear_1"))?,
            linear_2: Linear::load(size, size, bias, parameters.pp("linear_2"))?,
        })
    }

    /// `[values, channels]` to `[values, size]`
    pub(crate) fn forward(&self, projected: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&self.linear_1.forward_activated(projected, Activation::Silu)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_give_cosines_first() {
        let projection = Sinusoids::ReachLongest.project(&[0.0, 1.0], &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(projection[0][..128], [1.0; 128]);
        assert_eq!(projection[0][128..], [0.0; 128]);
        assert!((projection[1][0] - 1f32.cos()).abs() < 1e-7);
        assert!((projection[1][127] - 1.0).abs() < 1e-7, "the slowest sinusoid has period 10 000");
    }
}
