//! One image on its way from noise to latents.

use std::ops::Range;
use std::sync::Arc;

use afterimage_cache::{ImageCache, ImageReport, ObservedStep};
use afterimage_diffusion::families::Conditioning;
use afterimage_diffusion::noise::NoiseGenerator;
use afterimage_diffusion::schedulers::Scheduler;
use candle_core::Tensor;

use super::ahead::ModulationsAhead;
use crate::error::RunnerError;
use crate::request::{ImageSpec, RequestWarning};

/// An image on its way from noise to latents. A clone is a snapshot: it shares the tensors, the memory
/// reserved for cache state included, and goes its own way from then on.
#[derive(Clone)]
pub struct RunningImage {
    pub(super) spec: Arc<ImageSpec>,
    /// One per row, in the order of the rows and of the forwards they are in.
    pub(super) conditioning: Vec<Conditioning>,
    /// The row with the prompt.
    pub(super) prompt_row: usize,
    /// `[1, channels, height, width]`, f32
    pub(super) latents: Tensor,
    /// Behind the noise that the image began with.
    pub(super) generator: NoiseGenerator,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) step: usize,
    /// One per phase of the denoiser.
    pub(super) caches: Vec<ImageCache>,
    pub(super) ahead: ModulationsAhead,
}

impl RunningImage {
    /// The timestep of the next step; `None` behind the last.
    pub(super) fn timestep(&self) -> Option<f32> {
        self.scheduler.timesteps().get(self.step).copied()
    }

    /// The rows that are in this forward of a step, counted from 0.
    pub(super) fn rows_in(&self, forward: usize) -> Range<usize> {
        let rows = self.spec.guidance.rows_per_forward();
        let bound = |forward: usize| (forward * rows).min(self.conditioning.len());
        bound(forward)..bound(forward + 1)
    }

    /// Moves the latents on by a step, with noise from the image's own generator where the scheduler adds some.
    #[allow(clippy::disallowed_methods, reason = "noise is new in every step")]
    pub(super) fn advance(&mut self, prediction: &Tensor) -> Result<(), RunnerError> {
        if self.scheduler.takes_noise() {
            let noise = self.generator.randn(self.latents.elem_count());
            self.scheduler.take_noise(Tensor::from_vec(noise, self.latents.shape(), self.latents.device())?);
        }
        self.latents = self.scheduler.step(prediction, &self.latents)?;
        self.step += 1;
        Ok(())
    }

    /// What it is made of.
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// `[1, channels, height, width]`, f32
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// What the last step took for the clean latents; `None` before the first step.
    pub fn predicted_original(&self) -> Option<&Tensor> {
        self.scheduler.predicted_original()
    }

    /// Forwards reused so far, as the cache's first context counts them.
    pub fn cached_forwards(&self) -> usize {
        self.caches.iter().map(ImageCache::cached_forwards).sum()
    }

    /// What of its request has no effect.
    pub fn warnings(&self) -> Vec<RequestWarning> {
        let rows = self.conditioning.iter().enumerate();
        let warnings = |(row, conditioning): (usize, &Conditioning)| -> Vec<_> {
            let param = if row == self.prompt_row { "prompt" } else { "negative_prompt" };
            let cuts = conditioning.cuts().iter();
            cuts.map(|cut| RequestWarning {
                param: param.to_owned(),
                code: "prompt_truncated",
                message: cut.to_string(),
            })
            .collect()
        };
        rows.flat_map(warnings).collect()
    }

    /// What was observed for a fit, in the first phase.
    pub fn observed_steps(&self) -> &[ObservedStep] {
        self.caches.first().map_or(&[], ImageCache::observed_steps)
    }

    /// What the cache decided so far.
    pub fn report(&self) -> ImageReport {
        let mut report = ImageReport::default();
        for phase in self.caches.iter().map(ImageCache::report) {
            report.contexts.extend(phase.contexts);
            report.executed_blocks += phase.executed_blocks;
            report.state_bytes += phase.state_bytes;
            for (reason, passes) in phase.passes {
                *report.passes.entry(reason).or_default() += passes;
            }
        }
        report
    }
}
