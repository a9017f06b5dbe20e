//! Embeddings of the numbers a model is conditioned on: timesteps, and picture sizes where it takes them.
//!
//! Follows diffusers 0.42.1, `get_timestep_embedding` (lines 27-78), `TimestepEmbedding` (1027-1072) and `Timesteps`
//! (1075-1091):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/embeddings.py#L27>

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Device, Result, Tensor};

use super::known_rows::KnownRows;
use super::linear::Linear;
use crate::ops::activation::Activation;

/// Size of the sinusoidal projection in most models; fixed in diffusers there.
const CHANNELS: usize = 256;
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
    /// Cosines, then sines (`flip_sin_to_cos`) of a number in so many channels, an even number. `scale` is multiplied last,
    /// as diffusers rounds.
    fn of(self, value: f32, channels: usize, scale: f32) -> Vec<f32> {
        let half = channels / 2;
        let divisor = match self {
            Self::ReachLongest => half - 1,
            Self::StopShort => half,
        };
        // Rounded to f32 where PyTorch rounds: at timestep 999 one ulp of a frequency already shows.
        let angle = |index: usize| {
            let exponent = -(MAX_PERIOD.ln() as f32) * index as f32 / divisor as f32;
            let frequency = f64::from(exponent).exp() as f32;
            f64::from(scale * (value * frequency))
        };
        let angles: Vec<f64> = (0..half).map(angle).collect();
        let cosines = angles.iter().map(|angle| angle.cos() as f32);
        cosines.chain(angles.iter().map(|angle| angle.sin() as f32)).collect()
    }
}

/// Numbers to their sinusoids on a device.
#[derive(Debug)]
pub(crate) struct Projection {
    sinusoids: Sinusoids,
    channels: usize,
    scale: f32,
    dtype: DType,
    device: Device,
    known: KnownRows,
}

impl Projection {
    /// To 256 channels, where parameters are.
    pub(crate) fn new(sinusoids: Sinusoids, parameters: &Parameters) -> Self {
        Self {
            sinusoids,
            channels: CHANNELS,
            scale: 1.0,
            dtype: parameters.dtype(),
            device: parameters.device().clone(),
            known: KnownRows::new(),
        }
    }

    /// `[values, channels]`, rounded from f32 to the dtype of the parameters.
    #[allow(clippy::disallowed_methods, reason = "once for every number")]
    pub(crate) fn forward(&self, values: &[f32]) -> Result<Tensor> {
        self.known.gather(values.iter().map(|value| value.to_bits()), |bits| {
            let projected = self.sinusoids.of(f32::from_bits(bits), self.channels, self.scale);
            Tensor::from_vec(projected, (1, self.channels), &self.device)?.to_dtype(self.dtype)
        })
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
        Self::load(CHANNELS, size, true, &parameters)
    }

    /// With biases, where `bias`.
    fn load(channels: usize, size: usize, bias: bool, parameters: &Parameters) -> Result<Self> {
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

/// A number to a vector: its sinusoids, which stop short, and their embedding.
#[derive(Debug)]
pub(crate) struct NumberEmbedding {
    projection: Projection,
    embedding: TimestepEmbedding,
}

impl NumberEmbedding {
    /// By way of 256 channels, with biases.
    pub(crate) fn new(size: usize, parameters: Parameters) -> Result<Self> {
        Self::load(CHANNELS, size, true, &parameters)
    }

    /// With biases, where `bias`.
    pub(crate) fn load(channels: usize, size: usize, bias: bool, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            projection: Projection { channels, ..Projection::new(Sinusoids::StopShort, parameters) },
            embedding: TimestepEmbedding::load(channels, size, bias, parameters)?,
        })
    }

    /// Of numbers that are multiplied by this when all else was.
    pub(crate) fn scaled(self, scale: f32) -> Self {
        Self { projection: Projection { scale, ..self.projection }, ..self }
    }

    /// `[values, size]`
    pub(crate) fn forward(&self, values: &[f32]) -> Result<Tensor> {
        self.embedding.forward(&self.projection.forward(values)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timesteps_give_cosines_first() {
        let [of_0, of_1] = [0.0, 1.0].map(|value| Sinusoids::ReachLongest.of(value, CHANNELS, 1.0));
        assert_eq!(of_0[..128], [1.0; 128]);
        assert_eq!(of_0[128..], [0.0; 128]);
        assert!((of_1[0] - 1f32.cos()).abs() < 1e-7);
        assert!((of_1[127] - 1.0).abs() < 1e-7, "the slowest sinusoid has period 10 000");
    }
}
