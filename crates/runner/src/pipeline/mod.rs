//! From a prompt to a picture, one denoising step at a time.
//!
//! Pictures equal those of diffusers' pipelines in f32: the noise of image `k` is that of a CPU generator
//! seeded `seed + k`, guidance mixes the first latent channels only, and there is no second row where
//! the guidance scale is 1 or less. Scheduler state and VAE output stay f32 whatever the model's dtype.
//! What differs between models is their family's: a [`PromptEncoder`] and a [`Denoiser`].

mod ahead;
mod device_spec;
mod load;
mod place;
mod prompt_cache;
mod running_image;
mod step;

use std::sync::Arc;

use afterimage_cache::{CacheBudget, ImageCache, ListShape, read_back};
use afterimage_diffusion::families::{
    CheckedPrompt, Conditioning, Denoiser, LabelPolicy, Phase, PromptEncoder, Unconditional,
};
use afterimage_diffusion::noise::NoiseGenerator;
use afterimage_diffusion::schedulers::{FlowSigmas, Schedule, Scheduler, SchedulerConfig, SchedulerKind};
use afterimage_diffusion::text::Residency;
use afterimage_diffusion::vae::Vae;
use afterimage_diffusion::{Inside, LatentShape};
use candle_core::{Device, Tensor};

use crate::error::RunnerError;
use crate::memory::{BucketFootprint, Capacity, Footprint};
use crate::model_info::ModelInfo;
use crate::request::{ImageSpec, RgbImage, Size};

use ahead::ModulationsAhead;
pub use device_spec::{DeviceSpec, ParseDeviceError};
pub use load::LoadOptions;
pub use place::Place;
pub use prompt_cache::PromptCacheStatistics;
pub(crate) use prompt_cache::{PromptCache, PromptText};
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
    footprint: Footprint,
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

    /// What a row with this text is conditioned on. Slow: text encoders run.
    ///
    /// # Errors
    /// If the text means nothing to the model, or a tensor operation fails.
    pub(crate) fn encode(&self, prompt: &PromptText) -> Result<Conditioning, RunnerError> {
        let conditioning = match prompt.is_negative {
            true => self.prompts.encode_negative(&prompt.text)?,
            false => self.prompts.encode(&prompt.text)?,
        };
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
    pub(crate) fn texts(&self, spec: &ImageSpec) -> Vec<PromptText> {
        let prompt = spec.prompt.as_str().into();
        match self.prompts.unconditional() {
            // Classes take none.
            Unconditional::Last(_) => Vec::new(),
            Unconditional::FirstFromNegativePrompt if spec.guidance.mixing_scale().is_none() => vec![prompt],
            Unconditional::FirstFromNegativePrompt => vec![prompt, self.negative_text(spec)],
        }
    }

    fn negative_text(&self, spec: &ImageSpec) -> PromptText {
        let text = spec.negative_prompt.clone().unwrap_or_default();
        PromptText { text, is_negative: self.prompts.tells_negative_prompts_apart() }
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
    #[allow(clippy::disallowed_methods, reason = "in no step: an image begins")]
    pub(crate) fn begin_with(
        &self,
        spec: &Arc<ImageSpec>,
        seed: u64,
        budget: &CacheBudget,
        encode: impl Fn(&PromptText) -> Result<Conditioning, RunnerError>,
    ) -> Result<RunningImage, RunnerError> {
        let (conditioning, prompt_row) = self.conditioning(spec, encode)?;
        let shape = self.vae.latent_shape(spec.size.canvas());
        let dims = shape.dims(1);
        let mut generator = NoiseGenerator::from_seed(seed);
        let latents = Tensor::from_vec(generator.randn(dims.iter().product()), dims.as_slice(), &self.device)?;
        Ok(RunningImage {
            spec: Arc::clone(spec),
            conditioning,
            prompt_row,
            latents,
            generator,
            scheduler: self.scheduler(spec.scheduler, spec.steps, spec.size)?,
            step: 0,
            caches: self.caches(spec, shape, budget),
            ahead: ModulationsAhead::default(),
        })
    }

    /// What the rows of an image are conditioned on, in their order, and which of them has the prompt.
    fn conditioning(
        &self,
        spec: &ImageSpec,
        encode: impl Fn(&PromptText) -> Result<Conditioning, RunnerError>,
    ) -> Result<(Vec<Conditioning>, usize), RunnerError> {
        // The negative prompt finds the encoders that the prompt had loaded.
        let _stay = self.residency.stay();
        let mut conditioning = vec![encode(&spec.prompt.as_str().into())?];
        let mut prompt_row = 0;
        if spec.guidance.mixing_scale().is_some() {
            let (unconditional, comes_first) = match self.prompts.unconditional() {
                Unconditional::Last(unconditional) => (unconditional, false),
                Unconditional::FirstFromNegativePrompt => (
                    encode(&self.negative_text(spec))?,
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

    /// Bytes that a row of this size takes at the worst moment of a forward, what is made for its next steps included, estimated
    /// from above.
    pub fn row_bytes(&self, size: Size) -> usize {
        let latents = self.vae.latent_shape(size.canvas());
        let bytes = |phase: &Phase| {
            let transformer = &phase.transformer;
            transformer.layout(latents).forward_bytes() + ahead::STEPS_AHEAD * transformer.modulation_bytes()
        };
        self.denoiser.phases().iter().map(bytes).max().unwrap_or(0)
    }

    /// Bytes that decoding a picture of this size takes at the worst moment, estimated.
    pub fn decode_bytes(&self, size: Size) -> usize {
        self.vae.decode_bytes(size.canvas())
    }

    /// What it takes of its device's memory.
    pub(crate) fn footprint(&self) -> Footprint {
        let bucket = |size: &Size| BucketFootprint {
            size: *size,
            row: self.row_bytes(*size) as u64,
            decode: self.decode_bytes(*size) as u64,
        };
        Footprint { buckets: self.info.buckets.iter().map(bucket).collect(), ..self.footprint.clone() }
    }

    /// The memory of its device, or as much of that as may be used. `None` where the system does not say.
    ///
    /// # Errors
    /// If the driver refuses.
    pub(crate) fn capacity(&self, may_use: Option<u64>) -> Result<Option<Capacity>, RunnerError> {
        self.device_spec.capacity(&self.device, may_use, self.footprint.weight_bytes())
    }

    /// For the time in which a worker uses the device; waits while another one records blocks there.
    pub(crate) fn enter(&self) -> Option<Inside> {
        afterimage_diffusion::enter(&self.device)
    }

    /// Gives back what the device keeps and nobody uses: recorded blocks, and freed memory.
    ///
    /// # Errors
    /// If the driver refuses.
    pub(crate) fn free_unused_memory(&self) -> Result<(), RunnerError> {
        self.denoiser.phases().iter().for_each(|phase| phase.transformer.forget_recordings());
        self.device_spec.give_back_freed_memory(&self.device)
    }

    /// Turns final latents into a picture.
    ///
    /// # Errors
    /// If a tensor operation fails, or latents or pixels are not finite.
    #[allow(clippy::disallowed_methods, reason = "in no forward: this is the picture")]
    pub fn decode(&self, latents: &Tensor) -> Result<RgbImage, RunnerError> {
        if read_back::all_finite(&[latents])? != [true] {
            return Err(RunnerError::NotFinite);
        }
        let pixels = self.vae.decode(latents)?;
        // Else a NaN would be black, and infinity white.
        if read_back::all_finite(&[&pixels])? != [true] {
            return Err(RunnerError::PictureNotFinite);
        }
        // [1, 3, height, width] in -1..1 -> [height, width, 3] in 0..255
        let pixels = ((pixels / 2.0)? + 0.5)?.clamp(0f32, 1f32)?.squeeze(0)?.permute([1, 2, 0])?;
        let (height, width, _) = pixels.dims3()?;
        let pixels = pixels.flatten_all()?.to_vec1::<f32>()?;
        // numpy, which diffusers rounds with, rounds halves to even.
        let data = pixels.into_iter().map(|value| (value * 255.0).round_ties_even() as u8).collect();
        Ok(RgbImage { size: Size { width, height }, data })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use afterimage_checkpoint::ModelFolder;

    use super::*;

    /// A copy of a small model, with what stands in a component's weights changed.
    fn model_with(place: &Path, change: impl Fn(&str, Tensor) -> Tensor) -> ModelFolder {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/f32-safetensors");
        for folder in ["", "scheduler", "transformer", "vae"] {
            fs::create_dir_all(place.join(folder)).unwrap();
            for entry in fs::read_dir(fixture.join(folder)).unwrap().flatten().filter(|entry| entry.path().is_file()) {
                fs::copy(entry.path(), place.join(folder).join(entry.file_name())).unwrap();
            }
        }
        let weights = place.join("vae/diffusion_pytorch_model.safetensors");
        let tensors = candle_core::safetensors::load(&weights, &Device::Cpu).unwrap();
        let changed = tensors.into_iter().map(|(name, tensor)| (name.clone(), change(&name, tensor))).collect();
        candle_core::safetensors::save(&changed, weights).unwrap();
        ModelFolder::open(place).unwrap()
    }

    /// Positions of such a size would take gigabytes, so it is refused before there are any.
    #[test]
    fn a_size_beyond_the_limit_is_refused_before_anything_is_made_for_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = model_with(place.path(), |_, tensor| tensor);
        let config = place.path().join("transformer/config.json");
        let mut keys: serde_json::Value = serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
        let mut load = |sample_size: u64| {
            keys["sample_size"] = sample_size.into();
            fs::write(&config, keys.to_string()).unwrap();
            let options = LoadOptions { max_pixels: Some(1 << 20), ..LoadOptions::default() };
            Pipeline::load(&folder, &options).map(|_| ()).unwrap_err()
        };
        let error = load(1024);
        assert!(matches!(error, RunnerError::TooManyPixels { max_pixels: 1_048_576, .. }), "{error}");
        for sample_size in [65536, 1 << 63] {
            let error = load(sample_size).to_string();
            assert!(
                error.starts_with(&format!("transformer/config.json: `sample_size` is {sample_size}; ")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_picture_that_is_not_finite_is_a_failure() {
        for (factor, is_fine) in [(1.0, true), (f64::NAN, false), (f64::INFINITY, false), (f64::NEG_INFINITY, false)] {
            let place = tempfile::tempdir().unwrap();
            let folder = model_with(place.path(), |name, tensor| match name {
                "decoder.conv_out.bias" => (tensor.ones_like().unwrap() * factor).unwrap(),
                _ => tensor,
            });
            let pipeline = Pipeline::load(&folder, &LoadOptions::default()).unwrap();
            let shape = pipeline.vae.latent_shape(pipeline.info().buckets[0].canvas()).dims(1);
            let picture = pipeline.decode(&Tensor::ones(shape, candle_core::DType::F32, &Device::Cpu).unwrap());
            match picture {
                Ok(_) => assert!(is_fine, "{factor}"),
                Err(error) => assert!(!is_fine && matches!(error, RunnerError::PictureNotFinite), "{factor}: {error}"),
            }
        }
    }
}
