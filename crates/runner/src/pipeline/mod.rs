//! From a prompt to a picture, one denoising step at a time.
//!
//! Pictures equal those of diffusers' pipelines in f32: the noise of image `k` is that of a CPU generator
//! seeded `seed + k`, guidance mixes the first latent channels only, and there is no second row where
//! the guidance scale is 1 or less. Scheduler state and VAE output stay f32 whatever the model's dtype.
//! What differs between models is their family's: a [`PromptEncoder`] and a [`Denoiser`].

mod device_spec;
mod load;
mod prompt_cache;
mod running_image;
mod step;

use std::sync::Arc;

use afterimage_cache::{CacheBudget, ImageCache, ListShape, read_back};
use afterimage_diffusion::LatentShape;
use afterimage_diffusion::families::{
    CheckedPrompt, Conditioning, Denoiser, LabelPolicy, Phase, PromptEncoder, Unconditional,
};
use afterimage_diffusion::noise;
use afterimage_diffusion::schedulers::{FlowSigmas, Schedule, Scheduler, SchedulerConfig, SchedulerKind};
use afterimage_diffusion::text::Residency;
use afterimage_diffusion::vae::Vae;
use candle_core::{Device, Tensor};

use crate::error::RunnerError;
use crate::model_info::ModelInfo;
use crate::request::{ImageSpec, RgbImage, Size};

pub use device_spec::{DeviceSpec, ParseDeviceError};
pub use load::LoadOptions;
pub(crate) use prompt_cache::PromptCache;
pub use prompt_cache::PromptCacheStatistics;
pub use running_image::RunningImage;

/// A loaded model.
pub struct Pipeline {
    prompts: Box<dyn PromptEncoder>,
    denoiser: Denoiser,
    vae: Vae,
    schedulers: SchedulerConfig,
    flow_sigmas: FlowSigmas,
    latent_channels: usize,
    /// The model predicts a variance beside the noise.
    learns_variance: bool,
    info: ModelInfo,
    /// Of text encoders that are offloaded.
    residency: Arc<Residency>,
    device_spec: DeviceSpec,
    device: Device,
}

impl Pipeline {
    /// What the model offers.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Where it was loaded to.
    pub fn device_spec(&self) -> DeviceSpec {
        self.device_spec
    }

    /// A fresh scheduler for one image of this size.
    ///
    /// # Errors
    /// If the model cannot be sampled like this, or not in so many steps.
    pub(crate) fn scheduler(
        &self,
        kind: SchedulerKind,
        steps: usize,
        size: Size,
    ) -> Result<Box<dyn Scheduler>, RunnerError> {
        // Latents have the same tokens in all phases.
        let transformer = &self.denoiser.phases()[0].transformer;
        let image_tokens = transformer.layout(self.vae.latent_shape(size.canvas())).image_tokens;
        Ok(self.schedulers.build(kind, &Schedule { steps, image_tokens, sigmas: self.flow_sigmas })?)
    }

    /// What a row with this prompt is conditioned on. Slow: text encoders run.
    ///
    /// # Errors
    /// If the prompt means nothing to the model, or a tensor operation fails.
    pub(crate) fn encode(&self, prompt: &str) -> Result<Conditioning, RunnerError> {
        let conditioning = self.prompts.encode(prompt)?;
        for cut in conditioning.cuts() {
            tracing::warn!("a prompt is too long: {cut}");
        }
        Ok(conditioning)
    }

    /// How the model reads a prompt.
    ///
    /// # Errors
    /// A message for whoever wrote the prompt.
    pub(crate) fn check_prompt(&self, prompt: &str, policy: LabelPolicy) -> Result<CheckedPrompt, String> {
        self.prompts.check(prompt, policy)
    }

    /// The texts of an image that are slow to encode.
    pub(crate) fn texts<'a>(&self, spec: &'a ImageSpec) -> Vec<&'a str> {
        match self.prompts.unconditional() {
            // Classes take none.
            Unconditional::Last(_) => Vec::new(),
            Unconditional::FirstFromNegativePrompt if spec.guidance.mixing_scale().is_none() => vec![&spec.prompt],
            Unconditional::FirstFromNegativePrompt => {
                vec![&spec.prompt, spec.negative_prompt.as_deref().unwrap_or_default()]
            }
        }
    }

    /// Sets an image up: noise, conditioning, scheduler, fresh cache state within `budget`.
    ///
    /// # Errors
    /// If the scheduler cannot do this number of steps, or the prompt cannot be encoded.
    pub fn begin(
        &self,
        spec: impl Into<Arc<ImageSpec>>,
        seed: u64,
        budget: &CacheBudget,
    ) -> Result<RunningImage, RunnerError> {
        self.begin_with(&spec.into(), seed, budget, |prompt| self.encode(prompt))
    }

    /// As [`Self::begin`], with another way to encode prompts.
    pub(crate) fn begin_with(
        &self,
        spec: &Arc<ImageSpec>,
        seed: u64,
        budget: &CacheBudget,
        encode: impl Fn(&str) -> Result<Conditioning, RunnerError>,
    ) -> Result<RunningImage, RunnerError> {
        let (conditioning, prompt_row) = self.conditioning(spec, encode)?;
        let shape = self.vae.latent_shape(spec.size.canvas());
        let dims = shape.dims(1);
        let latents = Tensor::from_vec(noise::randn(seed, &dims), dims.as_slice(), &self.device)?;
        Ok(RunningImage {
            spec: Arc::clone(spec),
            conditioning,
            prompt_row,
            latents,
            scheduler: self.scheduler(spec.scheduler, spec.steps, spec.size)?,
            step: 0,
            caches: self.caches(spec, shape, budget),
        })
    }

    /// What the rows of an image are conditioned on, in their order, and which of them has the prompt.
    fn conditioning(
        &self,
        spec: &ImageSpec,
        encode: impl Fn(&str) -> Result<Conditioning, RunnerError>,
    ) -> Result<(Vec<Conditioning>, usize), RunnerError> {
        // The negative prompt finds the encoders that the prompt had loaded.
        let _stay = self.residency.stay();
        let mut conditioning = vec![encode(&spec.prompt)?];
        let mut prompt_row = 0;
        if spec.guidance.mixing_scale().is_some() {
            let (unconditional, comes_first) = match self.prompts.unconditional() {
                Unconditional::Last(unconditional) => (unconditional, false),
                Unconditional::FirstFromNegativePrompt => (
                    encode(spec.negative_prompt.as_deref().unwrap_or_default())?,
                    !spec.guidance.has_second_forward() || spec.cache.uncond_comes_first(),
                ),
            };
            prompt_row = usize::from(comes_first);
            conditioning.insert(1 - prompt_row, unconditional);
        }
        Ok((conditioning, prompt_row))
    }

    /// Fresh cache state of an image, one for each phase.
    fn caches(&self, spec: &ImageSpec, latents: LatentShape, budget: &CacheBudget) -> Vec<ImageCache> {
        let cache = |phase: &Phase| {
            let block_lists = phase.transformer.block_lists();
            let stream_bytes = spec.guidance.rows_per_forward() * phase.transformer.layout(latents).stream_bytes;
            let lists = block_lists.iter().map(|(name, blocks)| ListShape { name, blocks: *blocks, stream_bytes });
            let lists: Vec<_> = lists.collect();
            match spec.scheduler.forwards_per_step() {
                1 => ImageCache::new(&spec.cache, &lists, budget),
                _ => ImageCache::with_second_forwards(&spec.cache, &lists, budget),
            }
        };
        self.denoiser.phases().iter().map(cache).collect()
    }

    /// Turns final latents into a picture.
    ///
    /// # Errors
    /// If a tensor operation fails, or the latents are not finite.
    #[allow(clippy::disallowed_methods, reason = "in no forward: this is the picture")]
    pub fn decode(&self, latents: &Tensor) -> Result<RgbImage, RunnerError> {
        if read_back::all_finite(&[latents])? != [true] {
            return Err(RunnerError::NotFinite);
        }
        let pixels = self.vae.decode(latents)?;
        // [1, 3, height, width] in -1..1 -> [height, width, 3] in 0..255
        let pixels = ((pixels / 2.0)? + 0.5)?.clamp(0f32, 1f32)?.squeeze(0)?.permute([1, 2, 0])?;
        let (height, width, _) = pixels.dims3()?;
        let pixels = pixels.flatten_all()?.to_vec1::<f32>()?;
        // numpy, which diffusers rounds with, rounds halves to even.
        let data = pixels.into_iter().map(|value| (value * 255.0).round_ties_even() as u8).collect();
        Ok(RgbImage { size: Size { width, height }, data })
    }
}
