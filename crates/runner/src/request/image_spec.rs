//! What images are made of, but for their seeds.

use afterimage_cache::CachePlan;
use afterimage_diffusion::families::Guidance;
use afterimage_diffusion::schedulers::SchedulerKind;

use super::size::Size;

/// What one image, or several that differ in their noise alone, are made of; checked.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// Text; for a class-conditional model one of its labels.
    pub prompt: String,
    /// What guidance steers away from, for models that take such a text.
    pub negative_prompt: Option<String>,
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

impl ImageSpec {
    /// Forwards that make it: a scheduler may take two for a step.
    pub fn forwards(&self) -> usize {
        self.scheduler.forwards(self.steps)
    }
}
