//! The DiT pipeline as the step loop sees it.

use std::sync::Arc;

use afterimage_cache::{CacheBudget, ImageReport};

use super::pipeline::{DitPipeline, ImageSpec, RunningImage};
use crate::batching::StepModel;
use crate::error::RunnerError;
use crate::image::RgbImage;

/// A pipeline and the memory its images may use for cache state. Workers on one device share both.
pub(crate) struct DitStepModel {
    pub(crate) pipeline: Arc<DitPipeline>,
    pub(crate) budget: CacheBudget,
}

impl StepModel for DitStepModel {
    type Image = RunningImage;

    fn begin(&self, spec: &ImageSpec) -> Result<RunningImage, RunnerError> {
        self.pipeline.begin(spec, &self.budget)
    }

    fn step(&self, images: &mut [&mut RunningImage]) -> Result<(), RunnerError> {
        self.pipeline.denoise(images)
    }

    fn is_finite(&self, image: &RunningImage) -> Result<bool, RunnerError> {
        let sum: f32 = image.latents().abs()?.sum_all()?.to_scalar()?;
        Ok(sum.is_finite())
    }

    fn decode(&self, image: &RunningImage) -> Result<RgbImage, RunnerError> {
        self.pipeline.decode(image.latents())
    }

    fn preview(&self, image: &RunningImage) -> Result<Option<RgbImage>, RunnerError> {
        image.predicted_original().map(|latents| self.pipeline.decode(latents)).transpose()
    }

    fn cached_steps(&self, image: &RunningImage) -> usize {
        image.cached_steps()
    }

    fn report(&self, image: &RunningImage) -> ImageReport {
        image.report()
    }
}
