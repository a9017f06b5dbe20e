//! One denoising step of several images in one forward.

use std::borrow::BorrowMut;

use afterimage_cache::Lane;
use afterimage_diffusion::families::{ConditioningBatch, Rows};
use candle_core::Tensor;

use super::{Pipeline, RunningImage};
use crate::error::RunnerError;

/// Forwards of a step: one, and one for true classifier-free guidance of a distilled model.
const MAX_FORWARDS: usize = 2;

impl Pipeline {
    /// Advances every image by one step, in one forward; those that ask for a second share that. All must
    /// have the same size and be in the same phase; all else may differ. Tells of each image whether the latents
    /// it *entered* the step with were finite: what that costs is part of the forward then, where the latents that
    /// leave would take a copy to the host of their own.
    ///
    /// # Errors
    /// If a tensor operation fails, or an image has no step left.
    pub fn denoise<I: BorrowMut<RunningImage>>(&self, images: &mut [I]) -> Result<Vec<bool>, RunnerError> {
        let mut images: Vec<&mut RunningImage> = images.iter_mut().map(I::borrow_mut).collect();
        // Of every image, one per row.
        let mut predictions = vec![Vec::new(); images.len()];
        let mut were_finite = Vec::new();
        for forward in 0..MAX_FORWARDS {
            let members = images.iter_mut().zip(&mut predictions);
            let (mut members, mut predictions): (Vec<_>, Vec<_>) =
                members.filter(|(image, _)| !image.rows_in(forward).is_empty()).unzip();
            if members.is_empty() {
                break;
            }
            let (prediction, finite) = self.predict(&mut members, forward)?;
            if forward == 0 {
                were_finite = finite;
            }
            let mut rows = (0..prediction.dim(0)?).map(|row| prediction.narrow(0, row, 1));
            for (image, predictions) in members.iter().zip(&mut predictions) {
                for row in rows.by_ref().take(image.rows_in(forward).len()) {
                    predictions.push(row?);
                }
            }
        }
        for (image, predictions) in images.into_iter().zip(predictions) {
            let output = self.guide(&predictions, image)?;
            image.advance(&output)?;
        }
        Ok(were_finite)
    }

    /// The phase of the denoiser that an image's next step is in.
    pub(crate) fn phase(&self, image: &RunningImage) -> usize {
        self.denoiser.phase_at(image.timestep().unwrap_or(0.0))
    }

    /// The transformer's output for all rows that all images have in a forward, and whether each image's
    /// latents, which the first forward looks at, are finite.
    fn predict(
        &self,
        images: &mut [&mut &mut RunningImage],
        forward: usize,
    ) -> Result<(Tensor, Vec<bool>), RunnerError> {
        let phase = self.phase(images[0]);
        debug_assert!(images.iter().all(|image| self.phase(image) == phase), "two phases share no forward");
        let (mut latents, mut timesteps, mut guidance_scales) = (vec![], vec![], vec![]);
        let (mut conditioning, mut modulations, mut lanes) = (vec![], vec![], vec![]);
        for image in images {
            let rows = image.rows_in(forward);
            let timestep = image.timestep().ok_or(RunnerError::NoStepLeft)?;
            modulations.extend(self.modulations(image, rows.clone())?);
            let RunningImage { spec, conditioning: all_rows, latents: sample, step, caches, .. } = &mut ***image;
            let cache = &mut caches[phase];
            cache.begin_forward(!spec.scheduler.begins_step(*step));
            let lane = Lane::new(rows.len(), cache);
            lanes.push(if forward == 0 { lane.watching(sample.clone()) } else { lane });
            for row in &all_rows[rows] {
                latents.push(sample.clone());
                timesteps.push(timestep);
                guidance_scales.push(spec.guidance.scale().unwrap_or(1.0) as f32);
                conditioning.push(row);
            }
        }
        let mut conditioning = ConditioningBatch::gather(&conditioning)?;
        if !modulations.is_empty() {
            conditioning.modulations = Some(Tensor::cat(&modulations, 0)?);
        }
        let rows = Rows {
            latents: &Tensor::cat(&latents, 0)?,
            timesteps: &timesteps,
            guidance_scales: &guidance_scales,
            conditioning: &conditioning,
        };
        let prediction = self.denoiser.phases()[phase].transformer.forward(&rows, &mut lanes)?;
        Ok((prediction, lanes.iter().map(Lane::is_finite).collect()))
    }

    /// Classifier-free guidance over one image's predictions, `[1, out_channels, h, w]` each, to
    /// `[1, channels, h, w]`.
    fn guide(&self, predictions: &[Tensor], image: &RunningImage) -> Result<Tensor, RunnerError> {
        let row = |index: usize| {
            let prediction = &predictions[index];
            if self.learns_variance { prediction.narrow(1, 0, self.latent_channels) } else { Ok(prediction.clone()) }
        };
        let cond = row(image.prompt_row)?;
        if predictions.len() == 1 {
            return Ok(cond);
        }
        Ok(image.spec.guidance.mix(&cond, &row(1 - image.prompt_row)?)?)
    }
}
