//! Between the arc on which Sprint is sampled and the line on which its transformer was trained: a noisy sample is
//! `cos(t) * clean + sin(t) * noise` there and `(1 - s) * clean + s * noise` here.
//!
//! Follows diffusers 0.42.1, pipeline_sana_sprint.py: `SanaSprintPipeline.__call__` (lines 790-835):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/sana>

use candle_core::{Device, Result, Tensor};

use crate::layers::KnownRows;

/// The places of all rows.
pub(super) struct ArcPlaces {
    /// One per row: the share of noise.
    pub(super) shares: Vec<f32>,
    /// `[rows, 1, 1, 1]`, f32: how long the line's samples are, in units of the arc's.
    lengths: Tensor,
    /// `[rows, 1, 1, 1]`, f32: how much of its sample a velocity along the arc has.
    of_samples: Tensor,
}

impl ArcPlaces {
    /// Of angles, one per row; `known` are numbers of earlier ones on the device.
    #[allow(clippy::disallowed_methods, reason = "once for every angle")]
    pub(super) fn of(angles: &[f32], known: &KnownRows, device: &Device) -> Result<Self> {
        let shares: Vec<f32> = angles.iter().map(|angle| angle.sin() / (angle.cos() + angle.sin())).collect();
        let numbers = known.gather(shares.iter().map(|share| share.to_bits()), |bits| {
            let share = f32::from_bits(bits);
            let length = (share * share + (1.0 - share) * (1.0 - share)).sqrt();
            Tensor::from_vec(vec![length, 1.0 - 2.0 * share], (1, 2, 1, 1), device)
        })?;
        Ok(Self { shares, lengths: numbers.narrow(1, 0, 1)?, of_samples: numbers.narrow(1, 1, 1)? })
    }

    /// Samples of the arc as samples of the line, `[rows, channels, height, width]`, f32.
    pub(super) fn to_line(&self, latents: &Tensor) -> Result<Tensor> {
        latents.broadcast_mul(&self.lengths)
    }

    /// The velocity along the arc, from that along the line.
    pub(super) fn to_arc(&self, latents: &Tensor, velocity: &Tensor) -> Result<Tensor> {
        latents.broadcast_mul(&self.of_samples)? + velocity.broadcast_mul(&self.lengths)?
    }
}
