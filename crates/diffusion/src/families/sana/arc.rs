//! Between the arc on which Sprint is sampled and the line on which its transformer was trained: a noisy sample is
//! `cos(t) * clean + sin(t) * noise` there and `(1 - s) * clean + s * noise` here.
//!
//! Follows diffusers 0.42.1, pipeline_sana_sprint.py: `SanaSprintPipeline.__call__` (lines 790-835):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/sana>

use candle_core::{Result, Tensor};

/// The places of all rows.
pub(super) struct ArcPlaces {
    /// One per row: the share of noise.
    pub(super) shares: Vec<f32>,
}

impl ArcPlaces {
    /// Of angles, one per row.
    pub(super) fn of(angles: &[f32]) -> Self {
        Self { shares: angles.iter().map(|angle| angle.sin() / (angle.cos() + angle.sin())).collect() }
    }

    /// Samples of the arc as samples of the line, `[rows, channels, height, width]`, f32.
    pub(super) fn to_line(&self, latents: &Tensor) -> Result<Tensor> {
        latents.broadcast_mul(&self.per_row(latents, Self::length)?)
    }

    /// The velocity along the arc, from that along the line.
    pub(super) fn to_arc(&self, latents: &Tensor, velocity: &Tensor) -> Result<Tensor> {
        let of_sample = latents.broadcast_mul(&self.per_row(latents, |share| 1.0 - 2.0 * share)?)?;
        of_sample + velocity.broadcast_mul(&self.per_row(latents, Self::length)?)?
    }

    /// How long the line's sample is, in units of the arc's.
    fn length(share: f32) -> f32 {
        (share * share + (1.0 - share) * (1.0 - share)).sqrt()
    }

    fn per_row(&self, latents: &Tensor, of: impl Fn(f32) -> f32) -> Result<Tensor> {
        let values: Vec<f32> = self.shares.iter().map(|share| of(*share)).collect();
        Tensor::from_vec(values, (self.shares.len(), 1, 1, 1), latents.device())
    }
}
