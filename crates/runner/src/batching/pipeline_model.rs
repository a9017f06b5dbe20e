//! A pipeline as the step loop sees it.

use std::sync::Arc;

use afterimage_cache::{CacheBudget, ImageReport, read_back};
use afterimage_diffusion::Inside;
use afterimage_diffusion::families::Conditioning;
use afterimage_kernels::on_pool;

use super::{BatchKey, StepModel};
use crate::error::RunnerError;
use crate::pipeline::{DeviceSpec, Pipeline, PromptCache, PromptText, RunningImage};
use crate::request::{ImageSpec, RequestWarning, RgbImage};

/// A pipeline and the memory its images may use. Workers on one device share all of it.
#[derive(Clone)]
pub(crate) struct PipelineStepModel {
    pub(crate) pipeline: Arc<Pipeline>,
    /// For cache state.
    pub(crate) budget: CacheBudget,
    /// For the conditioning of prompts.
    pub(crate) prompts: Arc<PromptCache<Conditioning>>,
}

impl StepModel for PipelineStepModel {
    type Image = RunningImage;

    fn enter(&self) -> Option<Inside> {
        self.pipeline.enter()
    }

    fn must_encode(&self, spec: &ImageSpec) -> bool {
        self.pipeline.texts(spec).iter().any(|text| !self.prompts.keeps(text))
    }

    fn begin(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<RunningImage, RunnerError> {
        let encode = |prompt: &PromptText| self.prompts.get_or_compute(prompt, || self.pipeline.encode(prompt));
        on_pool(|| self.pipeline.begin_with(spec, seed, &self.budget, encode))
    }

    fn begin_sample(&self, spec: &Arc<ImageSpec>, seed: u64) -> Result<RunningImage, RunnerError> {
        let encode = |prompt: &PromptText| match self.prompts.kept_for(prompt) {
            Some(conditioning) => Ok(conditioning),
            None => self.pipeline.encode(prompt),
        };
        on_pool(|| self.pipeline.begin_with(spec, seed, &self.budget, encode))
    }

    fn batch_key(&self, image: &RunningImage) -> BatchKey {
        BatchKey { canvas: image.spec().size.canvas(), phase: self.pipeline.phase(image) }
    }

    fn step(&self, images: &mut [&mut RunningImage]) -> Result<Vec<bool>, RunnerError> {
        match self.pipeline.device_spec() {
            DeviceSpec::Cpu => on_pool(|| self.pipeline.denoise(images)),
            // It may wait for other workers of its GPU, who may need the pool's threads.
            DeviceSpec::Cuda(_) => self.pipeline.denoise(images),
        }
    }

    fn is_finite(&self, image: &RunningImage) -> Result<bool, RunnerError> {
        Ok(read_back::all_finite(&[image.latents()])? == [true])
    }

    fn decode(&self, image: &RunningImage) -> Result<RgbImage, RunnerError> {
        let latents = image.latents();
        on_pool(|| self.pipeline.decode(latents))
    }

    fn preview(&self, image: &RunningImage) -> Result<Option<RgbImage>, RunnerError> {
        image.predicted_original().map(|latents| on_pool(|| self.pipeline.decode(latents))).transpose()
    }

    fn warnings(&self, image: &RunningImage) -> Vec<RequestWarning> {
        image.warnings()
    }

    fn cached_forwards(&self, image: &RunningImage) -> usize {
        image.cached_forwards()
    }

    fn can_run_out(&self) -> bool {
        self.pipeline.device_spec() != DeviceSpec::Cpu
    }

    fn free_unused_memory(&self) -> Result<(), RunnerError> {
        self.pipeline.free_unused_memory()
    }

    fn report(&self, image: &RunningImage) -> ImageReport {
        image.report()
    }
}
