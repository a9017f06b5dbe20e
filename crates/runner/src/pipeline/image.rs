//! One image on its way from noise to latents.

use afterimage_cache::{CachePlan, CalibrationStep, ImageReport, ImageSessions};
use candle_core::Tensor;

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
    /// Guidance scale; 1 or less: no guidance.
    pub guidance_scale: f64,
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
    /// One per row, in the order of the rows.
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
    /// Forwards of the transformer, which the cache counts as steps.
    pub fn forwards(&self) -> usize {
        self.scheduler.forwards(self.steps)
    }

    /// Rows in a forward: one, or two under guidance.
    pub fn rows(&self) -> usize {
        Self::rows_under(self.guidance_scale)
    }

    /// Rows of an image in a forward under this guidance scale.
    pub(crate) fn rows_under(guidance_scale: f64) -> usize {
        if guidance_scale > 1.0 { 2 } else { 1 }
    }
}

impl RunningImage {
    /// `[1, channels, height, width]`, f32
    pub fn latents(&self) -> &Tensor {
        &self.latents
    }

    /// What the last step took for the clean latents; `None` before the first step.
    pub fn predicted_original(&self) -> Option<&Tensor> {
        self.scheduler.predicted_original()
    }

    /// Steps reused so far, as the first block list counts them.
    pub fn cached_steps(&self) -> usize {
        self.sessions.cached_steps()
    }

    /// What of its request has no effect.
    pub fn warnings(&self) -> Vec<RequestWarning> {
        let rows = self.conditioning.iter().enumerate();
        let warnings = |(row, conditioning): (usize, &Conditioning)| -> Vec<_> {
            let param = if row == self.prompt_row { "prompt" } else { "negative_prompt" };
            let cuts = conditioning.cuts().iter();
            cuts.map(|cut| RequestWarning { param, code: "prompt_truncated", message: cut.to_string() }).collect()
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
