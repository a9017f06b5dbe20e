//! One image on its way from noise to latents.

use std::ops::Range;

use afterimage_cache::{CachePlan, CalibrationStep, ImageReport, ImageSessions};
use candle_core::Tensor;

use super::guidance::Guidance;
use crate::conditioning::Conditioning;
use crate::request::RequestWarning;
use crate::schedulers::{Scheduler, SchedulerKind};
use crate::size::Size;

/// What one image is made of, checked.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// Text; for a class-conditional model one of its labels.
    pub prompt: String,
    /// What guidance steers away from, for models that take such a text.
    pub negative_prompt: Option<String>,
    /// Seed of the noise.
    pub seed: u64,
    /// A bucket.
    pub size: Size,
    /// Denoising steps.
    pub steps: usize,
    /// How it is steered towards the prompt.
    pub guidance: Guidance,
    /// Noise scheduler.
    pub scheduler: SchedulerKind,
    /// Caching.
    pub cache: CachePlan,
}

/// An image on its way from noise to latents. A clone is a snapshot: it shares the tensors, the memory
/// reserved for cache state included, and goes its own way from then on.
#[derive(Clone)]
pub struct RunningImage {
    pub(super) spec: ImageSpec,
    /// One per row, in the order of the rows and of the forwards they are in.
    pub(super) conditioning: Vec<Conditioning>,
    /// The row with the prompt.
    pub(super) prompt_row: usize,
    /// `[1, channels, height, width]`, f32
    pub(super) latents: Tensor,
    pub(super) scheduler: Box<dyn Scheduler>,
    pub(super) step: usize,
    pub(super) sessions: ImageSessions,
}

impl ImageSpec {
    /// Calls of [`Pipeline::denoise`](super::Pipeline::denoise) that make it: a scheduler may take two for a step.
    pub fn forwards(&self) -> usize {
        self.scheduler.forwards(self.steps)
    }
}

impl RunningImage {
    /// The rows that are in this forward of a step, counted from 0.
    pub(super) fn rows_in(&self, forward: usize) -> Range<usize> {
        let rows = self.spec.guidance.rows_per_forward();
        let bound = |forward: usize| (forward * rows).min(self.conditioning.len());
        bound(forward)..bound(forward + 1)
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
        self.sessions.cached_forwards()
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

    /// What was observed for a calibration.
    pub fn calibration_steps(&self) -> &[CalibrationStep] {
        self.sessions.calibration_steps()
    }

    /// What the cache decided so far.
    pub fn report(&self) -> ImageReport {
        self.sessions.report()
    }
}
