//! Modulations of an image's next steps, made for several of them at once.
//!
//! What blocks make of timestep and conditioning alone is products of few rows with large matrices, and takes as long as
//! reading these. Every image's steps are known from its beginning, so that it is made for some of them together. Each image
//! makes its own, so that its numbers do not depend on its company.

use std::ops::Range;

use candle_core::Tensor;

use super::{Pipeline, RunningImage};
use crate::error::RunnerError;

/// Steps that modulations are made for at once: the matrices are read an eighth as often, and what is kept stays below what a
/// forward takes.
pub(super) const STEPS_AHEAD: usize = 8;

/// Of the steps from one on.
#[derive(Clone, Default)]
pub(super) struct ModulationsAhead {
    steps: Range<usize>,
    /// `[steps, rows, values]`; `None` where the transformer makes them in every forward.
    modulations: Option<Tensor>,
}

impl Pipeline {
    /// Those of some rows of an image at its step: `[rows, values]`.
    pub(super) fn modulations(
        &self,
        image: &mut RunningImage,
        rows: Range<usize>,
    ) -> Result<Option<Tensor>, RunnerError> {
        let step = image.step;
        if !image.ahead.steps.contains(&step) {
            image.ahead = self.look_ahead(image)?;
        }
        let ahead = &image.ahead;
        let of_rows = |all: &Tensor| all.get(step - ahead.steps.start)?.narrow(0, rows.start, rows.len());
        Ok(ahead.modulations.as_ref().map(of_rows).transpose()?)
    }

    /// From the image's step on, within its phase.
    fn look_ahead(&self, image: &RunningImage) -> Result<ModulationsAhead, RunnerError> {
        let phase = self.phase(image);
        let timesteps = image.scheduler.timesteps().iter().skip(image.step).take(STEPS_AHEAD).copied();
        let timesteps: Vec<_> = timesteps.take_while(|timestep| self.denoiser.phase_at(*timestep) == phase).collect();
        let modulations = self.denoiser.phases()[phase].transformer.modulations(&image.conditioning, &timesteps)?;
        Ok(ModulationsAhead { steps: image.step..image.step + timesteps.len(), modulations })
    }
}
